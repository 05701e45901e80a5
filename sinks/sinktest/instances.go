package sinktest

import (
	"context"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

func checkInstances(p *probe) {
	i := p.open()
	i.succeed(p.created())
	other := p.open() // of the same webhook, as during a reload
	other.succeed(p.created())
	i.close()
	i.mustBeGone("an instance that was closed")
	other.succeed(p.created())
	i.close() // again
	if found, err := i.configure(encode(p.settings())); err != nil || len(found) > 0 {
		p.fatalf("an instance that was closed cannot be configured again: %v %s", err, list(found))
	}
	i.succeed(p.created())
	if found, err := i.configure(encode(p.settings())); err != nil || len(found) > 0 {
		p.fatalf("an instance cannot be replaced: %v %s", err, list(found))
	}
	i.succeed(p.created())
	i.close()
	other.close()
}

func checkUnknownInstance(p *probe) {
	p.newInstance().mustBeGone("an instance that was never configured")
	p.newInstance().close()
}

func checkIndependent(p *probe) {
	p.needsRemote()
	slow, fast := p.open(), p.open()
	defer fast.close()
	defer slow.close()
	end := p.stall(slow)
	defer end()
	p.remote.pass()
	ctx, cancel := context.WithTimeout(p.ctx, time.Second+p.patience())
	defer cancel()
	if r := fast.deliver(ctx, p.created()); !success(r) {
		p.failf("while another instance waits for the service: %s", say(r))
	}
}

// stall starts a delivery that waits at the service, and returns how to let it go on; its
// result is what the function returns. The check fails when no request comes.
func (p *probe) stall(i *instance) (end func() *sinkpb.Result) {
	p.remote.hold()
	d := p.created()
	result := make(chan *sinkpb.Result, 1)
	api := p.api()
	go func() {
		answer, err := api.Deliver(p.ctx, &sinkpb.DeliverRequest{Instance: i.id, Deliveries: []*sinkpb.Delivery{wire(d)}})
		if err != nil {
			result <- &sinkpb.Result{DeliveryId: d.ID, Message: p.told(err).Error()}
			return
		}
		result <- resultOf(answer, d)
	}()
	var ended *sinkpb.Result
	end = func() *sinkpb.Result {
		if ended == nil {
			p.remote.release()
			ended = <-result
		}
		return ended
	}
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second+p.patience())
	defer cancel()
	if !p.remote.held(ctx, 1) {
		p.failf("no request came to the suite's server: are the settings made with it? %s", say(end()))
		panic(finished{})
	}
	return end
}

func checkConcurrent(p *probe) {
	i := p.open()
	defer i.close()
	c := p.capabilities()
	n := 8
	if limit := int(c.GetMaxConcurrency()); limit > 0 {
		n = min(n, limit)
	}
	if p.o.Offline == "" && p.o.Settings != nil && n > 1 {
		p.bothAtOnce(i)
	}
	ds := make([]*sinks.Delivery, n)
	for k := range ds {
		ds[k] = p.created()
	}
	answers := make(chan error, n)
	api := p.api()
	for _, d := range ds {
		go func() {
			answer, err := api.Deliver(p.ctx, &sinkpb.DeliverRequest{Instance: i.id, Deliveries: []*sinkpb.Delivery{wire(d)}})
			if err == nil {
				if r := resultOf(answer, d); !success(r) {
					err = errorOf(r)
				}
			}
			answers <- p.told(err)
		}()
	}
	for range n {
		if err := <-answers; err != nil {
			p.failf("of %d calls at a time: %v", n, err)
		}
	}
}

type resultError struct{ r *sinkpb.Result }

func errorOf(r *sinkpb.Result) error { return resultError{r} }

func (e resultError) Error() string { return say(e.r) }

// bothAtOnce shows that a call does not wait for the one before it.
func (p *probe) bothAtOnce(i *instance) {
	end := p.stall(i)
	second := make(chan struct{})
	d, api := p.created(), p.api()
	go func() {
		defer close(second)
		_, _ = api.Deliver(p.ctx, &sinkpb.DeliverRequest{Instance: i.id, Deliveries: []*sinkpb.Delivery{wire(d)}})
	}()
	ctx, cancel := context.WithTimeout(p.ctx, time.Second+p.patience())
	if !p.remote.held(ctx, 2) {
		p.failf("a second call waits for the first: say max_concurrency 1, or let them go on together")
	}
	cancel()
	end()
	<-second
}
