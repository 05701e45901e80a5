package dispatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// calls is what the lane knows of the calls of its sink. The lane's lock guards
// it.
type calls struct {
	n       int    // under way, or being filled
	moved   int64  // relay time at which one began or ended last
	waiting *batch // one that waits for more; others do not wait meanwhile
	more    chan struct{}
	pace    pace
}

func (c *calls) begun(now int64) { c.n, c.moved = c.n+1, now }
func (c *calls) ended(now int64) { c.n, c.moved = c.n-1, now }

// batch is what one call carries. It belongs to a worker, which uses it again
// for its next call.
type batch struct {
	slot   *slot
	limits Limits
	state  string // whose states it reads and writes
	alone  bool   // a delivery that may have made a process crash
	bytes  int
	dels   []queue.Delivery

	until time.Time // when waiting ends
	over  bool
	timer *time.Timer

	os   []*delivery.Outbound
	as   []*delivery.Attempt
	done []queue.Completion
}

func (b *batch) begin(s *slot, limits Limits) {
	b.slot, b.limits, b.alone, b.bytes = s, limits, false, 0
	b.state = s.stateOf(&limits)
	b.until, b.over = time.Now().Add(limits.Linger), limits.Linger == 0
}

func (b *batch) add(del *queue.Delivery) {
	b.dels = append(b.dels, *del)
	b.bytes += len(del.Payload)
}

// room is how many more deliveries the call can carry.
func (b *batch) room() int {
	if b.alone || b.bytes >= b.limits.BatchBytes {
		return 0
	}
	return b.limits.Batch - len(b.dels)
}

func (b *batch) fits(del *queue.Delivery) bool {
	return del.Crashes == 0 && b.bytes+len(del.Payload) <= b.limits.BatchBytes
}

// has reports whether the call carries a delivery of an entry. In a lane that is
// ordered a second one can only be one that is outside the order.
func (b *batch) has(entry string) bool {
	return slices.ContainsFunc(b.dels, func(del queue.Delivery) bool { return del.EntryID == entry })
}

// end lets go of what the call carried.
func (b *batch) end() {
	clear(b.dels)
	clear(b.os)
	clear(b.as)
	clear(b.done)
	b.slot, b.dels, b.os, b.as, b.done = nil, b.dels[:0], b.os[:0], b.as[:0], b.done[:0]
}

// callBatch claims what one call carries and makes the call. It is called and
// returns with the lock held; false when there is nothing to claim.
func (l *lane) callBatch(s *slot, b *batch) bool {
	if l.calls.waiting != nil {
		l.nudge() // it has room for what is here; what it leaves starts other workers
		return false
	}
	del, ok := l.takeFirst(s)
	if !ok {
		return false
	}
	b.begin(s, l.terms.limits)
	l.beginCall(s)
	l.claim(&del)
	b.add(&del)
	b.alone = del.Crashes > 0
	l.kick()
	l.gather(b)
	send := l.mayCall()
	if !send {
		l.giveBack(b)
	}
	l.kick()
	l.mu.Unlock()
	if send {
		l.d.attemptBatch(b)
	}
	s.use.release()
	if send {
		l.recordBatch(b)
	}
	b.end()
	l.mu.Lock()
	return true
}

// takeFirst is take for a call that begins now.
func (l *lane) takeFirst(s *slot) (queue.Delivery, bool) {
	del, ok := l.take(s)
	if ok && l.pacedUntil() != 0 { // another call began while the store was asked
		l.putBack(&del)
		return queue.Delivery{}, false
	}
	return del, ok
}

// gather claims what goes with the first delivery: as many as the limits allow,
// for as long as the sink wants to wait, under the target of the first. A probe
// stays alone, since its lane is not open. It is called and returns with the
// lock held, and gives it up to wait and to read.
func (l *lane) gather(b *batch) {
	for b.room() > 0 {
		if s := l.slot(); s != b.slot || !l.open(s) {
			return
		}
		if kind := l.wantsScan(); kind != scanNone {
			l.scan(kind)
			l.kick()
			continue
		}
		if l.wantsStep(b.slot) {
			l.step()
			l.kick()
			continue
		}
		if l.wantsTidying() {
			l.tidy()
			l.kick()
			continue
		}
		del, ok := l.take(b.slot)
		switch {
		case !ok && !l.await(b):
			return
		case !ok:
		case !b.fits(&del) || (l.entries.on && b.has(del.EntryID)):
			l.putBack(&del)
			return
		default:
			l.claim(&del)
			b.add(&del)
		}
	}
}

// await waits for more to claim. It is called and returns with the lock held,
// and gives it up meanwhile; false when the time of the batch is over.
func (l *lane) await(b *batch) bool {
	left := time.Until(b.until)
	if b.over || left <= 0 || l.calls.waiting != nil {
		return false
	}
	if l.calls.more == nil {
		l.calls.more = make(chan struct{}, 1)
	}
	more := l.calls.more
	if b.timer == nil {
		b.timer = time.NewTimer(left)
	} else {
		b.timer.Reset(left)
	}
	l.calls.waiting = b
	l.mu.Unlock()
	select {
	case <-more:
	case <-b.timer.C:
		b.over = true
	case <-l.d.done:
		b.over = true
	}
	b.timer.Stop()
	l.mu.Lock()
	l.calls.waiting = nil
	return true
}

// nudge wakes the batch that waits.
func (l *lane) nudge() {
	select {
	case l.calls.more <- struct{}{}:
	default: // it is being woken already
	}
}

// tell wakes the batch that waits if there is something for it to do. It sleeps
// through single deliveries: those are there when its time is over.
func (l *lane) tell(s *slot, open bool) {
	b := l.calls.waiting
	if b == nil {
		return
	}
	if open && s == b.slot && l.listed(s) < min(b.room(), l.d.ringSize/2) && l.listedBytes() < int64(b.limits.BatchBytes-b.bytes) &&
		l.wantsScan() == scanNone && !l.wantsStep(s) {
		return
	}
	l.nudge()
}

// listed is how many deliveries in memory may be claimed.
func (l *lane) listed(s *slot) int {
	return l.live() + min(l.back.replays.len(), l.replaysAllowed(s))
}

func (l *lane) listedBytes() (n int64) {
	for _, f := range l.lists() {
		n += f.bytes
	}
	return n
}

// mayCall reports whether what is claimed may still go out. A new configuration
// that goes on with the webhook is no reason against it.
func (l *lane) mayCall() bool {
	s := l.slot()
	l.govern(s)
	return l.d.running() && s.hold() == "" && l.terms.down == "" && !l.halt.closed()
}

// beginCall counts a call under the target that it uses.
func (l *lane) beginCall(s *slot) {
	l.calls.begun(l.d.store.Now())
	if l.terms.limits.PerSecond > 0 {
		l.calls.pace.spend(&l.terms.limits, l.d.store.Now())
	}
	s.use.acquire()
}

// pacedUntil is the relay time from which the next call may begin; 0 = now.
func (l *lane) pacedUntil() int64 {
	if !(l.terms.limits.PerSecond > 0) {
		return 0
	}
	if at := l.calls.pace.next(&l.terms.limits); at > l.d.store.Now() {
		return at
	}
	return 0
}

// putBack makes a delivery that was taken, and not claimed, the next one.
func (l *lane) putBack(del *queue.Delivery) {
	l.owned.set(del.Seq, owner{state: ownListed})
	l.front.unpop(del)
}

// giveBack undoes the claims of a call that is not made: no attempt took place.
func (l *lane) giveBack(b *batch) {
	l.calls.ended(l.d.store.Now())
	l.calls.pace.refund(&b.limits)
	l.halt.probingEnded()
	for i := range b.dels {
		l.unclaim(&b.dels[i])
		l.land(&b.dels[i])
	}
}

// attemptBatch hands the deliveries of a batch to the sink and decides what
// follows for each. When the store does not say what is kept of their entries
// none is sent.
func (d *Dispatcher) attemptBatch(b *batch) {
	n := len(b.dels)
	os, as := make([]delivery.Outbound, n), make([]delivery.Attempt, n)
	ready := true
	for i := range b.dels {
		d.outbound(&os[i], b.slot, &b.dels[i])
		b.os, b.as = append(b.os, &os[i]), append(b.as, &as[i])
		ready = ready && d.recall(b.state, &b.dels[i], &os[i])
	}
	if !ready {
		for i := range as {
			as[i] = notSent(&os[i])
		}
		return
	}
	d.sendBatch(b)
	for i, a := range b.as {
		d.decide(b.slot, &b.dels[i], b.os[i], a)
	}
}

// sendBatch is send for several: one call, one timeout.
func (d *Dispatcher) sendBatch(b *batch) {
	ctx, cancel := context.WithTimeout(d.base, b.slot.timeout())
	defer cancel()
	began := time.Now()
	for _, a := range b.as {
		a.Started = began.UTC()
	}
	panicked := d.guard(b.slot.Webhook, b.os[0], func() { b.slot.batch.DeliverBatch(ctx, b.os, b.as) })
	took := time.Since(began)
	shutdown := errors.Is(context.Cause(ctx), delivery.ErrShutdown)
	for i, a := range b.as {
		if panicked {
			*a = panicAttempt(began)
		}
		conform(a, b.os[i], took, shutdown)
	}
}

// recordBatch hands the outcomes to the store, each by itself.
func (l *lane) recordBatch(b *batch) {
	var say []func()
	l.mu.Lock()
	l.calls.ended(l.d.store.Now())
	for i := range b.dels {
		ordered := l.holds(b.dels[i].Seq)
		keep, what := l.settle(b.slot, &b.dels[i], b.as[i])
		if keep {
			b.done = append(b.done, queue.Completion{Delivery: b.dels[i], Attempt: b.as[i], Sink: b.state, Ordered: ordered})
		}
		if what != nil {
			say = append(say, what)
		}
	}
	l.kick()
	l.arm()
	l.mu.Unlock()
	for i := range b.dels {
		l.d.observe(b.slot.SinkName, b.as[i], sinceAccepted(&b.dels[i]))
	}
	if len(b.done) > 0 {
		l.d.store.CompleteAll(b.done)
	}
	for _, f := range say {
		f()
	}
}
