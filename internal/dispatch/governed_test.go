package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// manySink is a sink that takes several deliveries at once and can be held, as
// one that is a process of its own. It answers each delivery as a plain sink
// does; while it is held it sends nothing and says so.
type manySink struct {
	*sink

	mu     sync.Mutex
	limits Limits
	held   delivery.HoldReason
	calls  []call
	now    int // calls under way
}

// call is one call of a manySink, as it came.
type call struct {
	at   time.Time
	seqs []uint64
}

func (r *receiver) many(name string, limits Limits, f answer) *manySink {
	return &manySink{sink: r.sink(name, f), limits: limits}
}

func (s *manySink) Held() delivery.HoldReason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// Why takes the lock that Held takes, as a sink may.
func (s *manySink) Why() string { return "its process is away: " + string(s.Held()) }

func (s *manySink) Limits() Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits
}

// hold is what the owner of the sink does.
func (s *manySink) hold(d *Dispatcher, reason delivery.HoldReason) {
	s.mu.Lock()
	s.held = reason
	s.mu.Unlock()
	d.Recheck()
}

func (s *manySink) made() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]call(nil), s.calls...)
}

func (s *manySink) Deliver(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
	s.DeliverBatch(ctx, []*delivery.Outbound{o}, []*delivery.Attempt{a})
}

func (s *manySink) DeliverBatch(ctx context.Context, os []*delivery.Outbound, as []*delivery.Attempt) {
	if s.isDown() {
		for i, a := range as {
			s.begin(os[i])
			s.end(os[i])
			a.Outcome, a.Code = delivery.Interrupted, delivery.CodePluginDown
		}
		return
	}
	s.check(os, as)
	for _, o := range os {
		s.begin(o)
	}
	defer func() {
		s.mu.Lock()
		if !os[0].Test {
			s.now--
		}
		s.mu.Unlock()
		for _, o := range os {
			s.end(o)
		}
	}()
	var all sync.WaitGroup
	for i := range os[1:] {
		all.Go(func() {
			defer func() { _ = recover() }() // what the first does is the call's
			s.answer(ctx, os[i+1], as[i+1])
		})
	}
	defer all.Wait()
	s.answer(ctx, os[0], as[0])
}

func (s *manySink) isDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held != ""
}

// check notes a call and fails the test when it is not as the limits want it.
func (s *manySink) check(os []*delivery.Outbound, as []*delivery.Attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := call{at: time.Now()}
	size := 0
	for i, o := range os {
		_, _, seq, _ := id.ParseDelivery(o.DeliveryID)
		c.seqs = append(c.seqs, seq)
		size += len(o.Payload)
		if o.Crashes > 0 && len(os) > 1 {
			s.r.fail("sink %s: delivery %d, which met %d crashes, is not alone", s.name, seq, o.Crashes)
		}
		if !o.Test && (o.Sequence != seq || as[i].Outcome != 0) {
			s.r.fail("sink %s: delivery %d has the sequence %d, its attempt is %+v", s.name, seq, o.Sequence, as[i])
		}
	}
	if len(os) != len(as) || len(os) == 0 || len(os) > max(s.limits.Batch, 1) || (len(os) > 1 && s.limits.BatchBytes > 0 && size > s.limits.BatchBytes) {
		s.r.fail("sink %s: a call has %d deliveries, %d attempts and %d bytes; the limits are %+v", s.name, len(os), len(as), size, s.limits)
	}
	s.calls = append(s.calls, c)
	if os[0].Test {
		return // an operator's waits for nothing
	}
	if s.now++; s.limits.Concurrency > 0 && s.now > s.limits.Concurrency {
		s.r.fail("sink %s: %d calls at a time, the limit is %d", s.name, s.now, s.limits.Concurrency)
	}
}
