// Command peanuts-sink-slack is the sink plugin for Slack. With an incoming webhook each
// delivery is a message; with a bot token an entry is one message, which updates edit
// and deletion removes or strikes through.
//
// Guarantee: what an event carries is shown, never obeyed: it cannot mention anybody,
// make a link or close the message's own markup. A message is cut so that Slack takes
// it. In one process, one message a second goes to a channel, whichever webhooks it
// comes from. A delivery whose outcome is not known is reported as failed and comes
// again; its id is the block_id of the message's first block. Tokens and URLs never
// appear in an error, a receipt or the log. A template runs for a second, and makes 64
// KiB, at most.
package main

import "github.com/peanutsapp/peanuts-relay/sinks"

// version is set by the linker in released builds (scripts/build).
var version string

func main() { sinks.Serve(New()) }
