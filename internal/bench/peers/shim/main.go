// Command shim makes a webhook daemon of a queue, the way a user of that queue
// would: HTTP ingest on a Unix socket, one durable enqueue before the answer, and
// workers that sign each event and post it. It exists to be measured beside the
// relay.
//
// What it guarantees: an event is answered with 202 only after the queue said
// that it has it; each destination has a queue or consumer and workers of its own;
// a failed delivery is tried again on the relay's default schedule.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"
)

// enqueue stores an event for the destination of a helper and returns once the queue has it.
type enqueue func(ctx context.Context, helper string, body []byte) error

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	queues := map[string]func(context.Context, string, []*destination) (enqueue, error){"nats": openNATS, "asynq": openAsynq}
	if len(args) == 0 || queues[args[0]] == nil {
		return fmt.Errorf("usage: shim nats|asynq -listen SOCKET -store ADDRESS [-to HELPER,CONCURRENCY,URL]")
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	listen := fs.String("listen", "", "the Unix socket for events")
	store := fs.String("store", "", "the URL of NATS, or the Unix socket of Redis")
	var to []*destination
	fs.Func("to", "helper,concurrency,url: where the events of a helper go, and how many at a time; may be repeated", func(v string) error {
		d, err := newDestination(v, []byte(os.Getenv("SHIM_SECRET")))
		to = append(to, d)
		return err
	})
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	put, err := queues[args[0]](ready, *store, to)
	if err != nil {
		return fmt.Errorf("open %s at %s: %w", args[0], *store, err)
	}
	return serve(ctx, *listen, newIngest(put, to))
}
