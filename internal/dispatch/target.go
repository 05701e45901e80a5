package dispatch

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

// Sink carries deliveries out. Deliver is called concurrently, up to
// Target.Concurrency at a time; it returns only when the attempt is over, soon
// after ctx ends, and says in a what happened. Close is called once, after the
// last Deliver; it must not block for long.
type Sink interface {
	Deliver(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt)
	Close()
}

// Punctual is a Sink that ends each attempt by itself when Timeout has passed
// since its begin, so that the dispatcher makes no timer for it. Timeout never
// changes. When it is longer than what the policy allows, the policy's is kept.
type Punctual interface {
	Sink
	Timeout() time.Duration
}

// DefaultTimeout bounds an attempt whose policy names no timeout.
const DefaultTimeout = 30 * time.Second

// Target says how the deliveries of one webhook are attempted. It is immutable
// after it was handed to [Dispatcher.Apply].
type Target struct {
	Webhook     string // helper.webhook
	Lane        queue.Lane
	Hold        delivery.HoldReason // "" = attempted
	Policy      retry.Policy
	Concurrency int    // calls of the sink at the same time; less than 1 is taken as 1
	Ordered     bool   // deliveries of one entry go one after the other, in the order of acceptance
	SinkName    string // whose the states of entries are, of a sink with Limits.State; "" keeps none
	Sink        Sink   // may be nil while Hold is set; nil without Hold is held as misconfigured
	Generation  uint64 // a new one lets go a lane that its sink called misconfigured
}

// table is everything that Apply switches at once. It is immutable.
type table struct {
	lanes map[queue.Lane]*lane // all that ever ran in this process
	slots map[queue.Lane]*slot // those that run now
}

// slot is a target together with the count of those who use its sink.
type slot struct {
	*Target
	use      *sinkUse
	batch    BatchSink // the sink, when it takes several deliveries at once
	governed Governed  // the sink, when it cannot always be called
	punctual bool      // the sink keeps the policy's timeout by itself
}

// with returns the table that has exactly targets as its slots. Sinks that are
// carried over keep their count.
func (t *table) with(d *Dispatcher, targets []*Target) *table {
	next := &table{lanes: make(map[queue.Lane]*lane, len(t.lanes)), slots: make(map[queue.Lane]*slot, len(targets))}
	maps.Copy(next.lanes, t.lanes)
	uses := map[Sink]*sinkUse{}
	for _, s := range t.slots {
		if s.use != nil {
			uses[s.Sink] = s.use
		}
	}
	for _, target := range targets {
		s := &slot{Target: target}
		if target.Sink != nil {
			if uses[target.Sink] == nil {
				uses[target.Sink] = &sinkUse{sink: target.Sink}
			}
			s.use = uses[target.Sink]
			s.use.acquire()
			s.batch, _ = target.Sink.(BatchSink)
			s.governed, _ = target.Sink.(Governed)
			p, ok := target.Sink.(Punctual)
			s.punctual = ok && p.Timeout() > 0 && p.Timeout() <= s.timeout()
		}
		next.slots[target.Lane] = s
		if next.lanes[target.Lane] == nil {
			next.lanes[target.Lane] = newLane(d, target.Lane)
		}
	}
	return next
}

// hold is why the configuration lets no attempt be made; "" when it does.
func (s *slot) hold() delivery.HoldReason {
	switch {
	case s == nil:
		return delivery.HoldRemoved
	case s.Hold == "" && s.Sink == nil:
		return delivery.HoldMisconfigured
	}
	return s.Hold
}

// timeout bounds one call.
func (s *slot) timeout() time.Duration {
	if s.Policy.Timeout <= 0 {
		return DefaultTimeout
	}
	return s.Policy.Timeout
}

// sinkUse counts the slots and the attempts that use a sink and closes it after
// the last. It is acquired only by someone who knows that the count is not
// zero: Apply, which holds the slots, or a claim under the lock of a lane, which
// Apply takes before it lets go of the slots.
type sinkUse struct {
	sink   Sink
	n      atomic.Int64
	closed sync.Once // a Test that comes after Stop must not close again
}

func (u *sinkUse) acquire() { u.n.Add(1) }

func (u *sinkUse) release() {
	if u != nil && u.n.Add(-1) == 0 {
		u.closed.Do(u.sink.Close)
	}
}
