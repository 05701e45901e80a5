package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

// LaneStats is what a lane is doing.
type LaneStats struct {
	Webhook  string // "" when it was removed
	Hold     delivery.HoldReason
	HoldEnds time.Time // wall clock; zero when no time ends it
	HoldWhy  string    // what the sink says of a hold that it asked for, if anything
	InFlight int
	NextDue  time.Time     // wall clock of the next retry that is known; zero = none
	Failing  bool          // the last counted attempt did not succeed
	Replays  int           // replays under way
	Attempts uint64        // over since the start; those that the daemon cut short do not count
	Took     time.Duration // the time of all of them
}

// LaneStats describes a lane; one that never ran is held as removed.
func (d *Dispatcher) LaneStats(num queue.Lane) LaneStats {
	l := d.table.Load().lanes[num]
	if l == nil {
		return LaneStats{Hold: delivery.HoldRemoved}
	}
	st, s := l.stats()
	if x, ok := s.explainer(); ok && st.Hold != "" && st.Hold == s.held() && s.hold() == "" {
		st.HoldWhy = x.Why()
	}
	return st
}

func (l *lane) stats() (LaneStats, *slot) {
	d := l.d
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.slot()
	st := LaneStats{Hold: l.holdReason(s), InFlight: l.inFlight, Failing: l.health.failing, Replays: len(l.jobs),
		Attempts: l.spent.attempts, Took: l.spent.took}
	if st.Hold == delivery.HoldMisconfigured {
		st.HoldWhy = l.halt.why
	}
	if s != nil {
		st.Webhook = s.Webhook
	}
	if st.Hold == delivery.HoldMisconfigured {
		st.HoldWhy = l.halt.why
	}
	if end := earlier(l.halt.limited, l.halt.probeAt); end != 0 && s.hold() == "" && s.held() == "" {
		st.HoldEnds = d.wall(end)
	}
	if l.waiting.next != 0 {
		st.NextDue = d.wall(l.waiting.next)
	}
	return st, s
}

// Probe lets each lane that its sink called misconfigured try one delivery now
// instead of within five minutes: whoever calls it believes that the cause is gone.
func (d *Dispatcher) Probe() {
	for _, l := range d.table.Load().lanes {
		l.mu.Lock()
		l.halt.probe()
		l.mu.Unlock()
	}
	d.rouse()
}

// InFlight reports whether a delivery is being attempted at this moment.
func (d *Dispatcher) InFlight(num queue.Lane, seq uint64) bool {
	l := d.table.Load().lanes[num]
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owned.state(seq) == ownInFlight
}

// Test sends o as an attempt of the lane's webhook, whether it is held or not.
// It is not queued, not recorded and not retried; Rule, State and NextIn say
// what would follow for a delivery. Errors: [ErrUnknownWebhook] when the webhook
// has no sink, [delivery.ErrShutdown]. When ctx ends the attempt is cut short.
func (d *Dispatcher) Test(ctx context.Context, num queue.Lane, o *delivery.Outbound) (delivery.Attempt, error) {
	l := d.table.Load().lanes[num]
	if l == nil {
		return delivery.Attempt{}, ErrUnknownWebhook
	}
	l.mu.Lock()
	s := l.slot()
	if s == nil || s.use == nil {
		l.mu.Unlock()
		return delivery.Attempt{}, ErrUnknownWebhook
	}
	s.use.acquire()
	l.govern(s)
	l.calls.pace.spend(&l.terms.limits, d.store.Now()) // it does not wait, but what comes after it does
	l.mu.Unlock()
	result := make(chan *delivery.Attempt, 1)
	ok := d.spawn(func() {
		defer s.use.release()
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(d.base, func() { cancel(delivery.ErrShutdown) })()
		a := d.send(ctx, s, o)
		retry.Decide(&s.Policy, a, 1, 1)
		result <- a
	})
	if !ok {
		s.use.release()
		return delivery.Attempt{}, delivery.ErrShutdown
	}
	return *<-result, nil
}

// Retry makes a delivery due now. One that waits for its retry or is finished
// gets a fresh schedule while its attempts go on counting; one that is due
// already is left as it is. Errors: [ErrInFlight], and those of the store.
func (d *Dispatcher) Retry(ctx context.Context, num queue.Lane, seq uint64) error {
	return d.ask(ctx, num, seq, func(l *lane) error {
		if l != nil && l.alreadyDue(seq) {
			return errAlreadyDue
		}
		return nil
	}, func(ctx context.Context) (*queue.Delivery, error) {
		del, err := d.store.Requeue(ctx, num, seq)
		return &del, err
	})
}

// Drop discards a pending delivery: it is failed with the code dropped; a
// finished one leaves the log. Errors: [ErrInFlight], and those of the store.
func (d *Dispatcher) Drop(ctx context.Context, num queue.Lane, seq uint64) error {
	return d.ask(ctx, num, seq, func(*lane) error { return nil }, func(ctx context.Context) (*queue.Delivery, error) {
		return nil, d.store.Drop(ctx, num, seq)
	})
}

// errAlreadyDue ends a Retry that has nothing to do.
var errAlreadyDue = errors.New("already due")

// ask makes sure that a delivery is neither in flight nor claimed while the
// store changes it, and puts into memory what the change made due.
func (d *Dispatcher) ask(ctx context.Context, num queue.Lane, seq uint64, check func(*lane) error,
	change func(context.Context) (*queue.Delivery, error)) error {
	l := d.table.Load().lanes[num]
	if l == nil {
		// A lane that never ran has nothing in memory; it must not start meanwhile.
		d.applying.Lock()
		defer d.applying.Unlock()
		if l = d.table.Load().lanes[num]; l == nil {
			_, err := change(context.WithoutCancel(ctx))
			return err
		}
	}
	taken, err := l.reserve(ctx, seq, check)
	switch {
	case errors.Is(err, errAlreadyDue):
		return nil
	case err != nil:
		return err
	}
	// A change given up half-way might still be committed: it is waited for.
	del, err := change(context.WithoutCancel(ctx))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil && del != nil:
		l.land(del)
	case err == nil:
		l.disown(seq)
	case taken != nil:
		l.land(taken)
	default:
		l.letGo(seq)
	}
	l.askOver(seq)
	l.kick()
	l.owned.wakeWaiters()
	return err
}

// reserve waits until nothing is under way for the delivery, takes it out of
// memory and marks it as asked for. It returns what was in memory.
func (l *lane) reserve(ctx context.Context, seq uint64, check func(*lane) error) (*queue.Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		l.mu.Lock()
		switch l.owned.state(seq) {
		case ownInFlight:
			l.mu.Unlock()
			return nil, ErrInFlight
		case ownSettling, ownAsked, ownAway:
			settled := l.owned.settles()
			l.mu.Unlock()
			select {
			case <-settled:
			case <-ctx.Done():
			}
			continue
		}
		if err := check(l); err != nil {
			l.mu.Unlock()
			return nil, err
		}
		taken := l.withdraw(seq)
		if taken != nil {
			l.holdAsked(taken)
		}
		l.owned.set(seq, owner{state: ownAsked})
		l.mu.Unlock()
		return taken, nil
	}
}

// alreadyDue reports whether an operator's retry has nothing to add. A replayed
// delivery is moved up: an operator does not wait for live traffic to pause.
func (l *lane) alreadyDue(seq uint64) bool {
	if del, ok := l.back.replays.remove(seq); ok {
		l.back.retries.push(&del)
		l.kick()
		return true
	}
	return l.ready.ring.has(seq) || l.back.retries.has(seq) || l.entries.kept.has(seq) || l.entries.parks.has(seq)
}

// withdraw takes a delivery out of memory.
func (l *lane) withdraw(seq uint64) *queue.Delivery {
	for _, f := range l.lists() {
		if del, ok := f.remove(seq); ok {
			if f == &l.entries.parks {
				h := l.entries.m[del.EntryID]
				h.parks--
				l.entries.m[del.EntryID] = h // withdrawn for a call that holds it itself
			}
			return &del
		}
	}
	return nil
}

// letGo ends a reservation of something that was not in memory and that the
// store did not change. If a scan passed over its row meanwhile, only a new
// start finds it.
func (l *lane) letGo(seq uint64) {
	w, _ := l.owned.get(seq)
	passed := w.skipped || l.scanning
	l.disown(seq)
	if passed {
		l.reset()
		l.kick()
	}
}
