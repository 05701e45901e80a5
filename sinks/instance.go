package sinks

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

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

// deliverBatch makes one call of all. When the sink panics over it the deliveries go once
// more, each in a call of its own: the one that it panics over must not take the others
// with it, attempt after attempt, until they fail.
func (i *instance) deliverBatch(ctx context.Context, ds []Delivery) []*sinkpb.Result {
	list, ids := make([]*Delivery, len(ds)), make([]string, len(ds)) // whatever an author does to a delivery
	for n := range ds {
		list[n], ids[n] = &ds[n], ds[n].ID
	}
	results, panicked := i.callBatch(ctx, i.env.Log, ids, list)
	switch {
	case panicked == nil:
		return results
	case len(list) == 1:
		return i.all(ids, Retry("panic", 0, panicked))
	}
	log := i.env.Log
	results = results[:0]
	for n := range list {
		alone := ids[n : n+1]
		if err := ctx.Err(); err != nil { // the time of the call was used up by those before
			return append(results, i.all(ids[n:], err)...)
		}
		one, panicked := i.callBatch(ctx, log, alone, list[n:n+1])
		if panicked != nil {
			one = i.all(alone, Retry("panic", 0, panicked))
			log = slog.New(slog.DiscardHandler) // two stacks tell enough, or it panics over everything
		}
		results = append(results, one...)
		if o := one[0].GetOutcome(); o == sinkpb.Outcome_OUTCOME_RATE_LIMITED || o == sinkpb.Outcome_OUTCOME_MISCONFIGURED {
			return append(results, like(one[0], ids[n+1:])...) // it is said of the webhook, and no attempt is used up
		}
	}
	return results
}

// callBatch is one call of the author's. After a panic there are no results.
func (i *instance) callBatch(ctx context.Context, log *slog.Logger, ids []string, list []*Delivery) (results []*sinkpb.Result, panicked error) {
	results = make([]*sinkpb.Result, len(ids))
	panicked = guard(log, "DeliverBatch", func() {
		answers, err := i.batch.DeliverBatch(ctx, slices.Clone(list))
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
	return results, panicked
}

// all is one error for every delivery.
func (i *instance) all(ids []string, err error) []*sinkpb.Result {
	results := make([]*sinkpb.Result, len(ids))
	for n, id := range ids {
		results[n] = toResult(id, Receipt{}, err, i.mask)
	}
	return results
}

// like is one result for every delivery.
func like(r *sinkpb.Result, ids []string) []*sinkpb.Result {
	results := make([]*sinkpb.Result, len(ids))
	for n, id := range ids {
		results[n] = proto.CloneOf(r)
		results[n].DeliveryId = id
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
