package sinks

import (
	"context"
	"errors"
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
	results := make([]*sinkpb.Result, len(request))
	if i.batch != nil {
		i.deliverBatch(ctx, request, results)
		return results
	}
	for n, p := range request {
		var receipt Receipt
		err := ctx.Err() // the time of the call was used up by those before
		if err == nil {
			if panicked := guard(i.env.Log, "Deliver", func() { receipt, err = i.sink.Deliver(ctx, fromDelivery(p)) }); panicked != nil {
				receipt, err = Receipt{}, Retry("panic", 0, panicked)
			}
		}
		results[n] = toResult(p.GetId(), receipt, err, i.mask)
	}
	return results
}

func (i *instance) deliverBatch(ctx context.Context, request []*sinkpb.Delivery, results []*sinkpb.Result) {
	ds := make([]*Delivery, len(request))
	for n, p := range request {
		ds[n] = fromDelivery(p)
	}
	var answers []Result
	var err error
	if panicked := guard(i.env.Log, "DeliverBatch", func() { answers, err = i.batch.DeliverBatch(ctx, ds) }); panicked != nil {
		err = Retry("panic", 0, panicked)
	}
	if err == nil && len(answers) != len(request) {
		err = Retry("wrong_results", 0, fmt.Errorf("the sink answered %d results for %d deliveries", len(answers), len(request)))
	}
	for n, p := range request {
		if err != nil {
			results[n] = toResult(p.GetId(), Receipt{}, err, i.mask)
			continue
		}
		results[n] = toResult(p.GetId(), answers[n].Receipt, answers[n].Err, i.mask)
	}
}

// healthy asks a sink how it is. One that does not answer is not asked again until it
// has, so that it costs one goroutine.
func (i *instance) healthy(ctx context.Context) error {
	checker, ok := i.sink.(HealthChecker)
	if !ok {
		return nil
	}
	late := errors.New("no answer to how it is")
	select {
	case <-i.checking:
	default:
		return late
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	answer := make(chan error, 1)
	go func() {
		defer cancel()
		var err error
		if panicked := guard(i.env.Log, "Healthy", func() { err = checker.Healthy(ctx) }); panicked != nil {
			err = panicked
		}
		answer <- err
		i.checking <- struct{}{}
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		select {
		case err := <-answer: // it answered by returning, which ended ctx
			return err
		default:
			return late
		}
	}
}
