package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

// work is a worker: it claims and attempts until nothing is left to claim. A
// lane without work has no worker.
func (l *lane) work() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		s := l.slot()
		if !l.open(s) || l.workers > s.concurrency() {
			break
		}
		if kind := l.wantsScan(); kind != scanNone {
			l.scan(kind)
			l.kick()
			continue
		}
		if l.wantsStep(s) {
			l.step()
			l.kick()
			continue
		}
		del, ok := l.take(s)
		if !ok {
			break
		}
		l.claim(s, &del)
		l.kick()
		l.mu.Unlock()
		a := l.d.attempt(s, &del)
		s.use.release()
		l.record(s, &del, a)
		l.mu.Lock()
	}
	l.workers--
	if l.workers == 0 {
		for _, f := range l.lists() {
			f.trim()
		}
	}
	l.arm()
}

// claim marks a delivery as in flight, under the target that its attempt uses.
func (l *lane) claim(s *slot, del *queue.Delivery) {
	l.owned.set(del.Seq, owner{state: ownInFlight})
	l.inFlight++
	if fromReplay(del) {
		l.order.replaying++
	}
	l.halt.claimed()
	s.use.acquire()
}

func fromReplay(del *queue.Delivery) bool { return del.Replay && del.Track == queue.Returning }

// attempt hands one delivery to its sink and decides what follows.
func (d *Dispatcher) attempt(s *slot, del *queue.Delivery) *delivery.Attempt {
	o := &delivery.Outbound{
		DeliveryID: id.Delivery(d.storeID, uint32(del.Lane), del.Seq),
		EventID:    del.EventID,
		EventType:  del.EventType,
		EntryID:    del.EntryID,
		Webhook:    s.Webhook,
		Attempt:    del.Attempts + 1,
		Payload:    del.Payload,
	}
	a := d.send(d.base, s, o)
	retry.Decide(&s.Policy, a, del.Tries+1)
	if d.log.Enabled(d.base, slog.LevelDebug) {
		d.log.Debug("attempt", "webhook", s.Webhook, "delivery_id", o.DeliveryID, "attempt", a.Number,
			"outcome", a.Outcome.String(), "code", a.Code, "status", a.Status, "duration", a.Duration)
	}
	return a
}

// send makes one attempt under the policy's timeout. What it returns is
// complete but for the decision.
func (d *Dispatcher) send(ctx context.Context, s *slot, o *delivery.Outbound) *delivery.Attempt {
	timeout := s.Policy.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	a := &delivery.Attempt{Started: began.UTC()}
	if d.deliver(ctx, s.Sink, o, a) {
		*a = delivery.Attempt{Started: began.UTC(), Outcome: delivery.Retry, Code: delivery.CodePanic,
			Error: "the sink panicked; the log has its stack"}
	}
	a.Number = o.Attempt
	if a.Duration <= 0 {
		a.Duration = time.Since(began)
	}
	if a.Outcome != delivery.Delivered && a.Outcome != delivery.Skipped && errors.Is(context.Cause(ctx), delivery.ErrShutdown) {
		// Whatever the sink made of the cancellation, the receiver is not to blame.
		a.Outcome, a.Code = delivery.Interrupted, delivery.CodeInterrupted
	}
	return a
}

// deliver calls the sink and turns a panic into a log line. The text of a panic
// value may quote a payload or a secret, so it is shown only when it comes from
// the runtime.
func (d *Dispatcher) deliver(ctx context.Context, sink Sink, o *delivery.Outbound, a *delivery.Attempt) (panicked bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		panicked = true
		what := fmt.Sprintf("%T", v)
		if e, ok := v.(runtime.Error); ok {
			what = e.Error()
		}
		d.log.Error("sink panicked", "webhook", o.Webhook, "delivery_id", o.DeliveryID, "attempt", o.Attempt,
			"panic", what, "stack", string(debug.Stack()))
	}()
	sink.Deliver(ctx, o, a)
	return false
}

// record hands the outcome to the store and lets the lane draw its conclusions.
// The sequence stays owned until the commit is reported.
func (l *lane) record(s *slot, del *queue.Delivery, a *delivery.Attempt) {
	o := owner{state: ownSettling, attempt: a.Number}
	counts := retry.Counts(a.Outcome)
	switch {
	case !counts:
		o.back = del
	case a.State == delivery.Pending:
		o.due = l.d.store.Now() + a.NextIn.Milliseconds()
	}
	l.mu.Lock()
	l.inFlight--
	if fromReplay(del) {
		l.order.replaying--
	}
	if a.Outcome == delivery.Interrupted { // the store keeps nothing of it
		l.interrupted(del)
		l.mu.Unlock()
		return
	}
	l.owned.set(del.Seq, o) // before Complete: the commit may be reported at once
	var say func()
	if counts {
		say = l.conclude(s, del, a)
	} else {
		say = l.hold(s, a)
	}
	l.kick()
	l.arm()
	l.mu.Unlock()
	l.d.store.Complete(queue.Completion{Delivery: *del, Attempt: a})
	say()
}

// interrupted puts a delivery back whose attempt was cut short.
func (l *lane) interrupted(del *queue.Delivery) {
	l.halt.probingEnded()
	if !l.d.stopping.Load() {
		l.halt.backoff = l.d.store.Now() + interruptPause
	}
	l.land(del)
}

// interruptPause keeps a sink that interrupts attempts of its own accord from
// being called in a busy loop, in ms.
const interruptPause = 1000

// conclude follows an attempt that counts; what it returns writes the log, once
// the lock is given up.
func (l *lane) conclude(s *slot, del *queue.Delivery, a *delivery.Attempt) (say func()) {
	recovered := l.halt.probing && l.halt.trustAgain()
	change := l.health.note(a, l.d.store.Now())
	return func() {
		if recovered {
			l.d.log.Info("webhook is no longer misconfigured", "webhook", s.Webhook)
		}
		l.d.report(change, s, del, a)
	}
}

// hold follows an attempt that used up no try: the sink cannot work for now.
func (l *lane) hold(s *slot, a *delivery.Attempt) (say func()) {
	now := l.d.store.Now()
	if a.Outcome == delivery.RateLimited {
		l.halt.probingEnded()
		first := l.halt.limit(now, a.RetryAfter)
		pause := time.Duration(l.halt.limited-now) * time.Millisecond
		l.reset()
		return func() {
			if first {
				l.d.log.Info("webhook pauses: rate limited", "webhook", s.Webhook, "for", pause)
			}
		}
	}
	if cur := l.slot(); cur == nil || cur.Generation != s.Generation {
		return func() {} // it speaks of settings that are gone
	}
	first := l.halt.distrust(now)
	l.reset()
	return func() {
		if first {
			l.d.log.Warn("webhook is misconfigured and held", "webhook", s.Webhook, "code", a.Code, "status", a.Status, "err", a.Error)
		}
	}
}
