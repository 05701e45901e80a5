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
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/planted"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

// work is a worker: it claims and attempts until nothing is left to claim. A
// lane without work has no worker.
func (l *lane) work() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b *batch
	for {
		s := l.slot()
		if !l.open(s) || l.workers > l.concurrency(s) || l.pacedUntil() != 0 {
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
		if l.wantsTidying() {
			l.tidy()
			l.kick()
			continue
		}
		if l.perCall() > 1 {
			if b == nil {
				b = &batch{}
			}
			if !l.callBatch(s, b) {
				break
			}
			continue
		}
		del, ok := l.takeFirst(s)
		if !ok {
			break
		}
		l.beginCall(s)
		l.claim(&del)
		l.kick()
		state := s.stateOf(&l.terms.limits)
		l.mu.Unlock()
		a := l.d.attempt(s, &del, state)
		s.use.release()
		l.record(s, &del, a, state)
		l.mu.Lock()
	}
	l.workers--
	l.goOn()
	if l.workers == 0 {
		for _, f := range l.lists() {
			f.trim()
		}
	}
	l.arm()
}

// claim marks a delivery as in flight.
func (l *lane) claim(del *queue.Delivery) {
	l.owned.set(del.Seq, owner{state: ownInFlight})
	l.inFlight++
	if fromReplay(del) {
		l.order.replaying++
	}
	l.halt.claimed()
}

// unclaim takes it out of flight.
func (l *lane) unclaim(del *queue.Delivery) {
	l.inFlight--
	if fromReplay(del) {
		l.order.replaying--
	}
}

func fromReplay(del *queue.Delivery) bool { return del.Replay && del.Track == queue.Returning }

// attempt hands one delivery to its sink and decides what follows. state is
// whose states it reads and writes.
func (d *Dispatcher) attempt(s *slot, del *queue.Delivery, state string) *delivery.Attempt {
	o := &delivery.Outbound{}
	d.outbound(o, s, del)
	if !d.recall(state, del, o) {
		return new(notSent(o))
	}
	if planted.CompletionBeforeSend {
		d.store.Complete(queue.Completion{Delivery: *del, Attempt: &delivery.Attempt{Number: o.Attempt, Outcome: delivery.Delivered, Rule: delivery.RuleDelivered, State: delivery.Success}})
	}
	failpoint.Here("attempt.claimed")
	a := d.send(d.base, s, o)
	failpoint.Here("attempt.answered")
	d.decide(s, del, o, a)
	return a
}

// outbound is a delivery as the sink sees it.
func (d *Dispatcher) outbound(o *delivery.Outbound, s *slot, del *queue.Delivery) {
	*o = delivery.Outbound{
		DeliveryID: id.Delivery(d.storeID, uint32(del.Lane), del.Seq),
		EventID:    del.EventID,
		EventType:  del.EventType,
		EntryID:    del.EntryID,
		Webhook:    s.Webhook,
		Attempt:    del.Attempts + 1,
		Payload:    del.Payload,
		Sequence:   del.Seq,
		Crashes:    del.Crashes,
	}
}

// decide has package retry decide what follows.
func (d *Dispatcher) decide(s *slot, del *queue.Delivery, o *delivery.Outbound, a *delivery.Attempt) {
	retry.Decide(&s.Policy, a, del.Tries+1, del.Crashes+1)
	if d.log.Enabled(d.base, slog.LevelDebug) {
		d.log.Debug("attempt", "webhook", s.Webhook, "delivery_id", o.DeliveryID, "attempt", a.Number,
			"outcome", a.Outcome.String(), "code", a.Code, "status", a.Status, "duration", a.Duration)
	}
}

// send makes one attempt under the policy's timeout. What it returns is
// complete but for the decision.
func (d *Dispatcher) send(ctx context.Context, s *slot, o *delivery.Outbound) *delivery.Attempt {
	if !s.punctual {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout())
		defer cancel()
	}
	began := time.Now()
	a := &delivery.Attempt{Started: began.UTC()}
	if d.guard(s.Webhook, o, func() { s.Sink.Deliver(ctx, o, a) }) {
		*a = panicAttempt(began)
	}
	conform(a, o, time.Since(began), errors.Is(context.Cause(ctx), delivery.ErrShutdown))
	return a
}

// conform completes what a sink made of an attempt. shutdown says that the
// daemon stops: whatever the sink made of the cancellation, the receiver is not
// to blame.
func conform(a *delivery.Attempt, o *delivery.Outbound, took time.Duration, shutdown bool) {
	a.Number = o.Attempt
	if a.Duration <= 0 {
		a.Duration = took
	}
	boundState(a)
	if shutdown && a.Outcome != delivery.Delivered && a.Outcome != delivery.Skipped {
		a.Outcome, a.Code = delivery.Interrupted, delivery.CodeInterrupted
	}
}

func panicAttempt(began time.Time) delivery.Attempt {
	return delivery.Attempt{Started: began.UTC(), Outcome: delivery.Retry, Code: delivery.CodePanic,
		Error: "the sink panicked; the log has its stack"}
}

// guard calls the sink and turns a panic into a log line. The text of a panic
// value may quote a payload or a secret, so it is shown only when it comes from
// the runtime. o is the delivery, or the first of several.
func (d *Dispatcher) guard(webhook string, o *delivery.Outbound, call func()) (panicked bool) {
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
		d.log.Error("sink panicked", "webhook", webhook, "delivery_id", o.DeliveryID, "attempt", o.Attempt,
			"panic", what, "stack", string(debug.Stack()))
	}()
	call()
	return false
}

// record hands the outcome to the store.
func (l *lane) record(s *slot, del *queue.Delivery, a *delivery.Attempt, state string) {
	l.mu.Lock()
	ordered := l.holds(del.Seq)
	l.calls.ended(l.d.store.Now())
	keep, say := l.settle(s, del, a)
	l.kick()
	l.arm()
	l.mu.Unlock()
	l.d.observe(s.SinkName, a, sinceAccepted(del))
	if keep {
		l.d.store.Complete(queue.Completion{Delivery: *del, Attempt: a, Sink: state, Ordered: ordered})
		failpoint.Here("attempt.recorded")
	}
	if say != nil {
		say()
	}
}

// sinceAccepted is how long ago the delivery's event was accepted, -1 when its first
// attempts are not these. A clock that was set back makes it 0.
func sinceAccepted(del *queue.Delivery) time.Duration {
	if del.Replay || del.Track == queue.Returning || del.Accepted.IsZero() {
		return -1
	}
	return max(time.Since(del.Accepted), 0)
}

// settle lets the lane draw its conclusions from an attempt. keep says that the
// store is to hear of it; the sequence stays owned until its commit is reported.
// say, unless it is nil, writes the log, once the lock is given up.
func (l *lane) settle(s *slot, del *queue.Delivery, a *delivery.Attempt) (keep bool, say func()) {
	l.unclaim(del)
	if a.Outcome == delivery.Interrupted { // the store keeps nothing of it
		l.interrupted(del, a)
		return false, nil
	}
	l.spent.attempts++
	l.spent.took += a.Duration
	o := owner{state: ownSettling, attempt: a.Number}
	counts := retry.Counts(a)
	switch {
	case !counts:
		o.back = new(*del)
		if a.Outcome == delivery.Crashed {
			o.back.Crashes++
		}
	case a.State == delivery.Pending:
		o.due = l.d.store.Now() + a.NextIn.Milliseconds()
	}
	l.owned.set(del.Seq, o) // before Complete: the commit may be reported at once
	switch {
	case counts:
		return true, l.conclude(s, del, a)
	case a.Outcome == delivery.Crashed:
		l.halt.probingEnded()
		return true, nil
	}
	return true, l.hold(s, a)
}

// interrupted puts a delivery back whose attempt was cut short. It may go again
// at once when its sink is held, which is what keeps the sink from being called
// in a busy loop then.
func (l *lane) interrupted(del *queue.Delivery, a *delivery.Attempt) {
	l.halt.probingEnded()
	l.govern(l.slot())
	if !l.d.stopping.Load() && (a.Code != delivery.CodePluginDown || l.terms.down == "") {
		l.halt.backoff = l.d.store.Now() + interruptPause
	}
	l.land(del)
}

// interruptPause keeps a sink that interrupts attempts of its own accord from
// being called in a busy loop, in ms.
const interruptPause = 1000

// conclude follows an attempt that counts. It returns nil when there is nothing
// to tell, which is nearly always.
func (l *lane) conclude(s *slot, del *queue.Delivery, a *delivery.Attempt) (say func()) {
	recovered := l.halt.probing && l.halt.trustAgain()
	change := l.health.note(a, l.d.store.Now())
	poison := a.Rule == delivery.RulePoison
	if !recovered && change == healthSame && !poison {
		return nil
	}
	deliveryID := id.Delivery(l.d.storeID, uint32(del.Lane), del.Seq)
	return func() {
		if recovered {
			l.d.log.Info("webhook is no longer misconfigured", "webhook", s.Webhook)
		}
		if poison {
			l.d.log.Warn("delivery failed: the process of its sink died each time", "webhook", s.Webhook,
				"delivery_id", deliveryID, "crashes", delivery.MaxCrashes)
		}
		l.d.report(change, s, deliveryID, a)
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
		if !first {
			return nil
		}
		return func() {
			l.d.log.Info("webhook pauses: rate limited", "webhook", s.Webhook, "for", pause)
		}
	}
	if cur := l.slot(); cur == nil || cur.Generation != s.Generation {
		return nil // it speaks of settings that are gone
	}
	first := l.halt.distrust(now, a.Error)
	l.reset()
	if !first {
		return nil
	}
	return func() {
		l.d.log.Warn("webhook is misconfigured and held", "webhook", s.Webhook, "code", a.Code, "status", a.Status, "err", a.Error)
	}
}
