// Command peanuts-sink-zapier is the sink plugin for Zapier: it posts each delivery to
// the URL of a Zap that begins with a Catch Hook of Webhooks by Zapier.
//
// Guarantee: one delivery is one request with one JSON object, so that it starts one
// run of the Zap. It is the payload, followed by what is easier to map in Zapier's
// editor and by the ids of the event and of the delivery; the payload's own bytes are
// not changed. A delivery whose outcome is not known is reported as failed, and comes
// again under the same delivery_id. The URL never appears in an error or a receipt.
package main

import "github.com/peanutsapp/peanuts-relay/sinks"

// version is set by the linker in released builds (scripts/build).
var version string

func main() { sinks.Serve(New()) }
