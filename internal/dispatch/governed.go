package dispatch

import (
	"context"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// BatchSink is a Sink that takes several deliveries in one call. DeliverBatch
// says in as[i] what became of os[i], as Deliver does for one; both have the
// same length, at least one, and belong to the sink for the time of the call. It
// is called instead of Deliver where [Limits].Batch is more than 1, also for a
// single delivery.
type BatchSink interface {
	Sink
	DeliverBatch(ctx context.Context, os []*delivery.Outbound, as []*delivery.Attempt)
}

// Limits is how a sink wants to be called. It is a word of package delivery, so that
// sinks can say it without knowing this package.
type Limits = delivery.Limits

// Governed is a Sink that cannot always be called. Both methods are called
// often and under a lock: they answer at once from what is known, and call
// nothing of the dispatcher. When an answer has changed the owner of the sink
// calls [Dispatcher.Recheck].
type Governed interface {
	Sink
	// Held is why nothing may be claimed for now; "" when nothing is in the way.
	Held() delivery.HoldReason
	// Limits may change while the sink is held, and from call to call.
	Limits() Limits
}

// Explainer is a Governed that can say more of why it is held: one sentence for an
// operator, "" when there is nothing to say. It is not called under a lock.
type Explainer interface {
	Governed
	Why() string
}

// explainer is the sink, if it can say why it is held.
func (s *slot) explainer() (Explainer, bool) {
	if s == nil || s.governed == nil {
		return nil, false
	}
	x, ok := s.governed.(Explainer)
	return x, ok
}

const (
	// maxBatchBytes bounds the payloads of one call.
	maxBatchBytes = 3 << 20
	// maxLinger bounds the wait for a fuller call, whatever a sink asks for.
	maxLinger = time.Second
)

// bounded is limits as the dispatcher heeds them.
func bounded(m Limits, s *slot) Limits {
	if m.Batch < 1 || s.batch == nil {
		m.Batch = 1
	}
	if m.BatchBytes <= 0 || m.BatchBytes > maxBatchBytes {
		m.BatchBytes = maxBatchBytes
	}
	m.Linger = min(max(m.Linger, 0), maxLinger)
	return m
}

// terms is what the lane's sink said last. The lane's lock guards it.
type terms struct {
	asked  bool // the sink is a Governed; else the rest is zero
	down   delivery.HoldReason
	limits Limits
}

// Recheck asks all sinks anew whether they are held, and for their limits. It is
// called after an answer has changed, without locks that the sink's methods
// take; it does not block.
func (d *Dispatcher) Recheck() { d.rouse() }

// govern asks the sink. A lane whose sink has just become unable keeps nothing
// in memory.
func (l *lane) govern(s *slot) {
	if s == nil || s.governed == nil {
		if l.terms.asked {
			l.terms = terms{}
		}
		return
	}
	down := s.governed.Held()
	if down != "" && l.terms.down == "" {
		l.reset()
	}
	l.terms = terms{asked: true, down: down, limits: bounded(s.governed.Limits(), s)}
}

// held is what the sink says at this moment.
func (s *slot) held() delivery.HoldReason {
	if s == nil || s.governed == nil {
		return ""
	}
	return s.governed.Held()
}

// concurrency is how many calls may be under way.
func (l *lane) concurrency(s *slot) int {
	c := max(s.Concurrency, 1)
	if most := l.terms.limits.Concurrency; most > 0 {
		c = min(c, most)
	}
	return c
}

// perCall is how many deliveries one call carries at most.
func (l *lane) perCall() int { return max(l.terms.limits.Batch, 1) }
