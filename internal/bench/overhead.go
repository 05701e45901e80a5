package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/bench/overhead"
)

// runOverhead compares a plugin with a sink in the same process once.
func runOverhead(args []string) error {
	fs := flag.NewFlagSet("overhead", flag.ExitOnError)
	o := overhead.Options{Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	fs.StringVar(&o.Dir, "dir", "", "where the queue is written; default a temporary directory")
	fs.IntVar(&o.Deliveries, "n", 40000, "deliveries of one leg")
	fs.IntVar(&o.Rounds, "rounds", 5, "legs of each side that count")
	fs.IntVar(&o.Webhooks, "webhooks", 1, "webhooks of the plugin")
	fs.IntVar(&o.Batch, "batch", overheadBatch, "deliveries in one call; 1 = each alone")
	fs.IntVar(&o.Concurrency, "concurrency", 8, "calls at a time")
	fs.BoolVar(&o.Flow, "flow", false, "events come in while they are delivered")
	cpu := fs.String("cpuprofile", "", "file for a profile of this process, without the plugin's")
	if err := fs.Parse(args); err != nil {
		return err
	}
	run := uint32(os.Getpid())
	o.Payload = func(n int) []byte { return appendEvent(nil, "bench", run, n, time.Now()) }
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *cpu != "" {
		f, err := os.Create(*cpu)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	r, err := overhead.Run(ctx, o)
	if err != nil {
		return err
	}
	return printJSON(r)
}

// overheadBatch is how many deliveries a call carries where batching is on.
const overheadBatch = 50

// measureOverhead runs each comparison in a process of its own, so that none works in
// what another has left in memory.
func measureOverhead(l *lab, n sizes, r *report) error {
	r.heading(fmt.Sprintf("A plugin that does nothing ÷ the same sink in process, median of %d rounds", n.overheadRounds))
	for _, c := range []struct {
		what   string
		target target
		args   []string
		part   int // of the deliveries
	}{
		{"batches of 50, a backlog", least("", 0.7, 0.8), nil, 1},
		{"batches of 50, events flow in", least("", 0.7, 0.8), []string{"-flow"}, 2},
		{"batches of 50, a backlog, 4 webhooks at once", least("", 0.7, 0.8), []string{"-webhooks", "4"}, 1},
		{"each delivery alone, a backlog", target{}, []string{"-batch", "1"}, 4},
	} {
		args := append([]string{"overhead", "-dir", l.dir, "-n", strconv.Itoa(n.overhead / c.part), "-rounds", strconv.Itoa(n.overheadRounds)}, c.args...)
		o, err := self[overhead.Report](args...)
		if err != nil {
			return err
		}
		a, b, bare := &o.Plugin, &o.InProcess, &o.Bare
		r.tell(c.what, "%.0f/s", a.Median)
		r.tell("  the same sink in process, given the same", "%.0f/s", b.Median)
		r.add("  divided by that; lowest", "%.2f; %.2f", c.target, o.Ratio, o.Lowest)
		r.tell("  in process, payload neither taken apart nor signed", "%.0f/s", bare.Median)
		r.tell("  divided by that; lowest", "%.2f; %.2f", o.BareRatio, o.BareLowest)
		r.tell("  µs of processor a delivery: daemon + plugin / in process / not taken apart", "%.1f + %.1f / %.1f / %.1f",
			micros(float64(a.CPU)), micros(float64(a.Plugin)), micros(float64(b.CPU)), micros(float64(bare.CPU)))
	}
	return nil
}
