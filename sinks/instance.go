package sinks

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// patience is how long an answer to Health waits for one sink; the relay waits 2 s for
// all of them.
const patience = time.Second

// instance is the sink for one webhook under one configuration.
type instance struct {
	sink  Sink
	batch BatchSink // nil: deliveries go one by one
	env   Env
	mask  *masker

	mu     sync.Mutex // guards the rest
	calls  int
	ending bool
	ended  chan struct{} // closed after the sink is

	checking chan struct{} // holds a token while no check of its health is under way
}

func newInstance(sink Sink, env Env, mask *masker) *instance {
	i := &instance{sink: sink, env: env, mask: mask, ended: make(chan struct{}), checking: make(chan struct{}, 1)}
	i.batch, _ = sink.(BatchSink)
	i.checking <- struct{}{}
	return i
}

// begin counts a call; false when the instance is ending.
func (i *instance) begin() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ending {
		return false
	}
	i.calls++
	return true
}

func (i *instance) done() {
	i.mu.Lock()
	i.calls--
	last := i.ending && i.calls == 0
	i.mu.Unlock()
	if last {
		i.close()
	}
}

// end lets no further call begin, and closes the sink after the last one. It returns
// then, or when ctx ends.
func (i *instance) end(ctx context.Context) {
	i.mu.Lock()
	first := !i.ending
	i.ending = true
	idle := i.calls == 0
	i.mu.Unlock()
	if first && idle {
		go i.close() // an author's Close may hang
	}
	select {
	case <-i.ended:
	case <-ctx.Done():
	}
}

func (i *instance) close() {
	closeSink(i.sink, i.env.Log)
	close(i.ended)
}

// deliver answers one result for each delivery.
func (i *instance) deliver(ctx context.Context, request []*sinkpb.Delivery) []*sinkpb.Result {
	ds := fromDeliveries(request)
	if i.batch != nil {
		return i.deliverBatch(ctx, ds)
	}
	results := make([]*sinkpb.Result, len(ds))
	for n := range ds {
		results[n] = i.deliverOne(ctx, &ds[n])
	}
	return results
}

func (i *instance) deliverOne(ctx context.Context, d *Delivery) (result *sinkpb.Result) {
	if err := ctx.Err(); err != nil { // the time of the call was used up by those before
		return toResult(d.ID, Receipt{}, err, i.mask)
	}
	id := d.ID
	panicked := guard(i.env.Log, "Deliver", func() {
		receipt, err := i.sink.Deliver(ctx, d)
		result = toResult(id, receipt, err, i.mask)
	})
	if panicked != nil {
		return toResult(id, Receipt{}, Retry("panic", 0, panicked), i.mask)
	}
	return result
}

func (i *instance) deliverBatch(ctx context.Context, ds []Delivery) []*sinkpb.Result {
	results, list := make([]*sinkpb.Result, len(ds)), make([]*Delivery, len(ds))
	for n := range ds {
		list[n] = &ds[n]
	}
	ids := make([]string, len(ds))
	for n := range ds {
		ids[n] = ds[n].ID
	}
	panicked := guard(i.env.Log, "DeliverBatch", func() {
		answers, err := i.batch.DeliverBatch(ctx, list)
		if err == nil && len(answers) != len(ids) {
			err = Retry("wrong_results", 0, fmt.Errorf("the sink answered %d results for %d deliveries", len(answers), len(ids)))
		}
		for n, id := range ids {
			if err != nil {
				results[n] = toResult(id, Receipt{}, err, i.mask)
				continue
			}
			results[n] = toResult(id, answers[n].Receipt, answers[n].Err, i.mask)
		}
	})
	if panicked != nil {
		for n, id := range ids {
			results[n] = toResult(id, Receipt{}, Retry("panic", 0, panicked), i.mask)
		}
	}
	return results
}

// healthy asks a sink how it is: "" is well. One that does not answer is not asked
// again until it has, so that it costs one goroutine.
func (i *instance) healthy(ctx context.Context) string {
	checker, ok := i.sink.(HealthChecker)
	if !ok {
		return ""
	}
	select {
	case <-i.checking:
	default:
		return i.env.Webhook + ": still no answer to how it is"
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	answer := make(chan string, 1)
	go func() {
		defer cancel()
		text := ""
		panicked := guard(i.env.Log, "Healthy", func() {
			if err := checker.Healthy(ctx); err != nil {
				text = i.env.Webhook + ": " + i.mask.error(err)
			}
		})
		if panicked != nil {
			text = i.env.Webhook + ": " + panicked.Error()
		}
		i.checking <- struct{}{}
		answer <- text
	}()
	select {
	case text := <-answer:
		return text
	case <-ctx.Done():
	}
	select {
	case text := <-answer: // it was the end of the check that ended ctx
		return text
	default:
		return i.env.Webhook + ": no answer to how it is"
	}
}
