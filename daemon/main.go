// Command peanuts-relay is the daemon and its command line.
//
// Guarantee: nothing happens here but the joining of the two: what a command
// does is decided in package cli, how events are kept and delivered in package
// relay.
package main

import (
	"context"
	"os"

	"github.com/peanutsapp/peanuts-relay/internal/cli"
)

// version is set by the linker in released builds (scripts/build).
var version string

func main() {
	os.Exit(run())
}

func run() int {
	return cli.Main(context.Background(), os.Args[1:], cli.Standard(), cli.Deps{Version: version})
}
