package sinktest

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Limits of time of the contract.
const (
	cancelWithin = time.Second
	healthWithin = 2 * time.Second
	drainWithin  = 5 * time.Second
)

// abandon makes a delivery that waits at the service, ends its call, and reports whether
// the request came at all and whether the sink has let go of it in time. A gRPC client
// returns at once whatever the sink does, so it is the service that tells. The call ends
// by itself after limit; with 0 it is cancelled.
func (p *probe) abandon(limit time.Duration) (came, inTime bool) {
	i := p.open()
	defer i.close()
	defer p.remote.release()
	p.remote.hold()
	ctx, cancel := context.WithCancel(p.ctx)
	if limit > 0 {
		ctx, cancel = context.WithTimeout(p.ctx, limit)
	}
	defer cancel()
	ended := make(chan struct{})
	d, api := p.created(), p.api()
	go func() {
		defer close(ended)
		_, err := api.Deliver(ctx, &sinkpb.DeliverRequest{Instance: i.id, Deliveries: []*sinkpb.Delivery{wire(d)}})
		_ = p.told(err)
	}()
	arrival, done := context.WithTimeout(ctx, startWithin+p.patience())
	came = p.remote.held(arrival, 1)
	done()
	if limit == 0 || !came {
		cancel()
	}
	<-ended
	if came {
		leaving, done := context.WithTimeout(p.ctx, cancelWithin+p.patience())
		defer done()
		inTime = p.remote.left(leaving, 1)
	}
	return came, inTime
}

func checkCancel(p *probe) {
	p.needsRemote()
	switch came, inTime := p.abandon(0); {
	case !came:
		p.fatalf("no request came to the suite's server: are the settings made with it?")
	case !inTime:
		p.failf("%v after its call was cancelled the sink still waits for the service; it has to stop within %v", cancelWithin+p.patience(), cancelWithin)
	}
	// One call that was given up must not spoil the next.
	i := p.open()
	defer i.close()
	i.succeed(p.created())
}

func checkDeadline(p *probe) {
	p.needsRemote()
	// On a busy machine a short deadline passes before the request was sent.
	for limit := 250 * time.Millisecond; limit <= startWithin+p.patience(); limit *= 4 {
		came, inTime := p.abandon(limit)
		if came && !inTime {
			p.failf("%v after the deadline of its call the sink still waits for the service; it has to stop within %v", cancelWithin+p.patience(), cancelWithin)
		}
		if came {
			return
		}
	}
	p.failf("no request came to the suite's server: are the settings made with it?")
}

func (p *probe) health() (*sinkpb.HealthResponse, error) {
	ctx, cancel := context.WithTimeout(p.ctx, healthWithin+p.patience())
	defer cancel()
	answer, err := p.api().Health(ctx, &sinkpb.HealthRequest{})
	p.heard.note("the answer of Health", answer.GetMessage())
	return answer, p.told(err)
}

func checkHealth(p *probe) {
	if _, err := p.health(); err != nil { // before there is any instance
		p.fatalf("Health without an instance: %v", err)
	}
	if p.o.Settings == nil {
		return
	}
	i := p.open()
	defer i.close()
	i.succeed(p.created())
	answer, err := p.health()
	switch {
	case err != nil:
		p.failf("Health: %v", err)
	case !answer.GetHealthy():
		p.failf("after a success the sink says that it is not well: %q", answer.GetMessage())
	}
}

func checkHealthWhileBusy(p *probe) {
	p.needsRemote()
	i := p.open()
	defer i.close()
	end := p.stall(i)
	if _, err := p.health(); err != nil {
		p.failf("Health during a delivery that waits for the service: %v; it has to answer within %v", err, healthWithin)
	}
	end()
}

func checkDrain(p *probe) {
	if p.binary != nil {
		defer p.binary.stop() // what comes afterwards gets a process that is not drained
	}
	i := p.open()
	var end func() *sinkpb.Result
	if p.o.Offline == "" && p.o.Settings != nil {
		end = p.stall(i)
	}
	ctx, cancel := context.WithTimeout(p.ctx, drainWithin+p.patience())
	defer cancel()
	drained := make(chan error, 1)
	api := p.api()
	go func() {
		_, err := api.Drain(ctx, &sinkpb.DrainRequest{})
		drained <- err
	}()
	if end != nil {
		p.drainsInFlight(end, drained)
	} else if err := <-drained; p.told(err) != nil {
		p.failf("Drain: %v", err)
	}
	d := p.created()
	answer, err := i.send(p.ctx, d)
	switch {
	case err == nil && outcome(resultOf(answer, d)) != sinks.OutcomeRetry:
		p.failf("a delivery after Drain: %s; want retry, or the call to fail with UNAVAILABLE", say(resultOf(answer, d)))
	case err != nil && !isRefusal(err, codes.Unavailable):
		p.failf("a delivery after Drain fails with %v; want UNAVAILABLE", err)
	}
	if _, err := p.health(); err != nil {
		p.failf("Health after Drain: %v", err)
	}
	again, cancelAgain := context.WithTimeout(p.ctx, drainWithin+p.patience())
	defer cancelAgain()
	if _, err := api.Drain(again, &sinkpb.DrainRequest{}); p.told(err) != nil {
		p.failf("Drain again: %v", err)
	}
}

// drainsInFlight lets the delivery under way end, which Drain has to wait for.
func (p *probe) drainsInFlight(end func() *sinkpb.Result, drained <-chan error) {
	early := time.NewTimer(500 * time.Millisecond) // more only makes a wrong sink surer to be seen
	defer early.Stop()
	select {
	case err := <-drained:
		p.failf("Drain returns while a delivery is under way (error: %v)", p.told(err))
		if r := end(); !success(r) {
			p.failf("the delivery that was under way at Drain: %s", say(r))
		}
		return
	case <-early.C:
	}
	if r := end(); !success(r) {
		p.failf("the delivery that was under way at Drain: %s; it has to end as usual", say(r))
	}
	if err := <-drained; p.told(err) != nil {
		p.failf("Drain: %v", err)
	}
}
