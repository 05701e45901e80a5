// Command bench measures the daemon against two floors in the same run: a bare
// net/http client that posts the same signed events from memory, and a log that
// does nothing but append and fdatasync. And a plugin against a sink in the same
// process, in package overhead.
//
// What it guarantees: every figure comes from the built daemon as an operator
// runs it (default durability, signatures on, the receiver verifying each), the
// floors and whatever else is compared take turns with it, a ratio is the median of those of the
// rounds, and every event is accounted for; a run that loses one or sees a bad signature fails.
//
// scripts/bench builds the daemon and calls "bench run". The other subcommands
// are the programs of the benchmark, each in a process of its own so that the
// processor time of the daemon can be told from theirs.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/peanutsapp/peanuts-relay/internal/bench/overhead"
)

func main() {
	overhead.Play()
	playCrasher()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: bench run|receiver|bare|walfloor|load|overhead|plot|peers [flags]")
		os.Exit(2)
	}
	commands := map[string]func([]string) error{
		"run": runAll, "receiver": runReceiver, "bare": runBare, "walfloor": runWALFloor, "load": runLoad, "overhead": runOverhead, "plot": runPlot, "peers": runPeers,
	}
	f := commands[os.Args[1]]
	if f == nil {
		fmt.Fprintf(os.Stderr, "bench: no command %q\n", os.Args[1])
		os.Exit(2)
	}
	if err := f(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func printJSON(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }
