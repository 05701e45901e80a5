package zoo

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// batchSize is how many deliveries the animals that take batches take at once.
const batchSize = 50

// working are the animals that do as they should, made with package sinks:
//
//	healthy    one delivery at a time
//	batch      batches of 50
//	ordered    batches, ordered per entry
//	state      batches, ordered, and counts the deliveries of each entry in its state
//	paced-N    at most N calls a second, 10 without a number
//	unhealthy  works, and says that it is not well
//	bare       the same as healthy without go-plugin, and hears neither Shutdown nor Drain
func working() map[string]func(animal) {
	return map[string]func(animal){
		"healthy": func(a animal) { a.serve(sinks.Capabilities{Idempotent: true}, single) },
		"batch":   func(a animal) { a.serve(sinks.Capabilities{MaxBatch: batchSize}, batched) },
		"ordered": func(a animal) {
			a.serve(sinks.Capabilities{MaxBatch: batchSize, OrderedPerEntry: true}, batched)
		},
		"state": func(a animal) { a.serve(sinks.Capabilities{MaxBatch: batchSize, UsesState: true}, batched) },
		"paced": func(a animal) {
			a.serve(sinks.Capabilities{MaxPerSecond: float64(a.number(10)), Burst: 1}, single)
		},
		"unhealthy": func(a animal) {
			a.serve(sinks.Capabilities{}, func(k *keeper) sinks.Sink { return unhealthy{k} })
		},
		"bare": func(a animal) { a.bare(a.raw()) },
	}
}

// number is the one of the behaviour, or def.
func (a animal) number(def int) int {
	if a.n == 0 {
		return def
	}
	return a.n
}

func (a animal) serve(c sinks.Capabilities, sink func(*keeper) sinks.Sink) {
	if !c.UsesState {
		c.Events = []string{sinks.Created, sinks.Updated, sinks.Deleted}
	}
	sinks.Serve(sinks.Plugin[Settings]{
		Name: a.name, Version: a.version, Summary: "an animal of the zoo", Capabilities: c,
		Open: func(_ context.Context, env sinks.Env, s Settings) (sinks.Sink, error) {
			env.Log.Info("opened", "webhook", env.Webhook)
			return sink(&keeper{settings: s, keeps: c.UsesState}), nil
		},
	})
}

// callCount counts the calls of Deliver of this process.
type callCount struct{ n atomic.Uint64 }

// keeper is the sink of one webhook.
type keeper struct {
	settings Settings
	keeps    bool // state
	calls    callCount
}

// Deliver does what the entry asks for.
func (k *keeper) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	results, err := k.DeliverBatch(ctx, []*sinks.Delivery{d})
	if err != nil {
		return sinks.Receipt{}, err
	}
	return results[0].Receipt, results[0].Err
}

// DeliverBatch does what each entry asks for, one after the other.
func (k *keeper) DeliverBatch(ctx context.Context, ds []*sinks.Delivery) ([]sinks.Result, error) {
	call := k.calls.n.Add(1)
	records, steers := make([]Record, len(ds)), make([]steer, len(ds))
	for i, d := range ds {
		steers[i] = steering(d.Entry.Data, d.Attempt)
		records[i] = Record{os.Getpid(), call, d.ID, d.Webhook, d.Event, d.Entry.ID, d.Attempt, d.Sequence, string(d.State), steers[i].Do, hash(d.Payload)}
	}
	write(k.settings.Record, records)
	select {
	case <-time.After(time.Duration(k.settings.DelayMS) * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	results := make([]sinks.Result, len(ds))
	for i, d := range ds {
		r, err := steers[i].act(ctx, d.State, k.settings.Token.Reveal())
		if !k.keeps && steers[i].Do != "big-state" {
			r.State = nil
		}
		results[i] = sinks.Result{Receipt: r, Err: err}
	}
	return results, nil
}

func batched(k *keeper) sinks.Sink { return k }

// single hides DeliverBatch.
func single(k *keeper) sinks.Sink { return struct{ deliverer }{k} }

type deliverer interface {
	Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error)
}

type unhealthy struct{ deliverer }

func (unhealthy) Healthy(context.Context) error { return errors.New("a paw hurts") }
