package dispatch

import (
	"sync"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/planted"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// lane is the run queue of one webhook. mu guards everything below it; it is
// never held over a call of the store (Now excepted), a sink (those of Governed
// excepted) or a send. It has more than fifteen fields because all of them
// change together, under one lock; what belongs together is a type of its own.
type lane struct {
	d   *Dispatcher
	num queue.Lane

	mu       sync.Mutex
	dropping int    // DropLane calls under way
	workers  int    // goroutines, each with a call under way, scanning or about to claim
	inFlight int    // attempts under way, or claimed for a call that is being filled
	scanning bool   // one scan or replay step at a time
	epoch    uint64 // grows with every reset; a scan of an older epoch is void

	ready   readyTrack
	waiting waitingTrack
	back    returningTrack
	front   fifo // put back, or asked for: due, and outside the order of the scans
	owned   owned
	order   order
	entries entries

	calls  calls
	terms  terms
	halt   halt
	health health
	spent  spent
	jobs   []*replayJob
	armed  int64 // the time that the timers know; 0 = none
}

// readyTrack is the window on the rows that wait for their first attempt.
type readyTrack struct {
	ring    fifo
	cursor  uint64 // all rows up to here are in the ring, owned or finished
	last    uint64 // the newest committed sequence that was offered
	spilled bool   // rows behind the cursor may exist that are in the store only
}

// waitingTrack is the window on the retries whose time has come.
type waitingTrack struct {
	due       fifo
	cursorDue int64
	cursorSeq uint64
	more      bool  // due rows behind the cursor may exist
	next      int64 // when the next one is due; 0 = none known
	noted     int64 // the earliest due time committed while a scan was under way
}

// returningTrack is the window on what an operator or a replay brought back.
type returningTrack struct {
	retries fifo
	replays fifo
	cursor  uint64
	more    bool   // rows behind the cursor may exist
	noted   uint64 // the smallest sequence left to the store while a scan was under way
}

// order remembers what the fairness between the lists needs.
type order struct {
	claims    uint64
	tookDue   bool // the last choice between a retry and a fresh delivery
	replaying int  // replayed deliveries in flight
}

// newLane returns a lane that knows nothing yet: it starts from the store's
// low-water mark.
func newLane(d *Dispatcher, num queue.Lane) *lane {
	l := &lane{d: d, num: num}
	l.entries.init(num)
	l.calls.pace = newPace(d.store.Now())
	for _, f := range l.lists() {
		f.total = &d.held
	}
	l.reset()
	return l
}

func (l *lane) lists() [7]*fifo {
	return [7]*fifo{&l.front, &l.ready.ring, &l.waiting.due, &l.back.retries, &l.back.replays, &l.entries.kept, &l.entries.parks}
}

// slot is what runs on the lane at this moment; nil when it was removed.
func (l *lane) slot() *slot { return l.d.table.Load().slots[l.num] }

// reset empties the memory and starts again from the low-water mark. It is safe
// at any time: what is in flight or not yet committed stays owned, and a scan
// under way is void.
func (l *lane) reset() {
	l.clearEntries()
	for _, f := range l.lists() {
		f.drain(l.disownListed)
	}
	l.epoch++
	l.ready.cursor, l.ready.spilled = 0, true
	l.waiting = waitingTrack{due: l.waiting.due, more: true}
	l.back = returningTrack{retries: l.back.retries, replays: l.back.replays, more: true}
}

func (l *lane) disownListed(seq uint64) {
	if l.owned.state(seq) == ownListed {
		l.disown(seq)
	}
}

// closed reports whether the lane is held in a way that keeps nothing in
// memory.
func (l *lane) closed(s *slot) bool {
	return s.hold() != "" || l.dropping > 0 || l.halt.closed() || l.terms.down != ""
}

// open reports whether a delivery may be claimed at this moment, the pace of
// calls aside.
func (l *lane) open(s *slot) bool {
	l.govern(s)
	if !l.d.running() || l.closed(s) || !l.halt.open(l.inFlight) {
		return false
	}
	l.keepOrder(s)
	return true
}

// offer takes a new delivery, right after its commit.
func (l *lane) offer(del *queue.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.ready
	r.last = max(r.last, del.Seq)
	if del.Seq <= r.cursor {
		return // a scan was faster
	}
	if !r.spilled {
		if r.ring.len() >= l.d.ringSize || l.d.held.Load()+int64(len(del.Payload)) > l.d.ringBytes {
			r.spilled = true
		} else {
			r.ring.push(del)
			r.cursor = del.Seq
		}
	}
	l.kick()
}

// kick starts as many workers as there is work for, within the concurrency.
func (l *lane) kick() {
	s := l.slot()
	open := l.open(s)
	l.tell(s, open)
	if !open {
		return
	}
	if l.pacedUntil() != 0 {
		l.arm() // for what has just come: nothing else may happen until then
		return
	}
	want := min(l.concurrency(s), l.calls.n+l.backlog(s))
	for l.workers < want {
		l.workers++
		if !l.d.spawn(l.work) {
			l.workers--
			return
		}
	}
}

// backlog is how many workers could start on something now, beside a batch that
// waits. A scan or a replay step counts as one.
func (l *lane) backlog(s *slot) int {
	n := l.listed(s)
	if b := l.calls.waiting; b != nil {
		n = max(n-b.room(), 0)
	}
	if per := l.perCall(); per > 1 {
		n = (n + per - 1) / per
	}
	if l.wantsScan() != scanNone || l.wantsStep(s) || l.wantsTidying() {
		n++
	}
	if l.halt.probeReady {
		n = min(n, 1)
	}
	return n
}

// live is how many deliveries in memory go before replays.
func (l *lane) live() int {
	return l.front.len() + l.ready.ring.len() + l.waiting.due.len() + l.back.retries.len()
}

// replaysAllowed is how many replayed deliveries may be claimed now. They take
// what live traffic leaves, of which a quarter stays free for live traffic to
// come; a lane with room for four or more always lets one through, so that a
// busy webhook's replay ends some day.
func (l *lane) replaysAllowed(s *slot) int {
	c := l.concurrency(s) * l.perCall()
	limit := c
	if c >= 4 {
		limit = c - c/4
	}
	if l.live() > 0 {
		limit = 0
		if c >= 4 {
			limit = 1
		}
	}
	return max(limit-l.order.replaying, 0)
}

// take removes the next delivery from memory.
func (l *lane) take(s *slot) (queue.Delivery, bool) {
	for {
		list := l.pick(s)
		if list == nil || (list == &l.ready.ring && l.crowded()) {
			return queue.Delivery{}, false
		}
		del := list.pop()
		if list == &l.ready.ring && l.owned.state(del.Seq) != ownNone {
			l.holdAsked(&del)
			continue // an operator asked for it before it was offered; it is handled there
		}
		if !l.entries.on {
			return del, true
		}
		switch l.admit(s, &del) {
		case admitted:
			return del, true
		case changed:
			return queue.Delivery{}, false
		}
	}
}

// Every eighth claim goes to what an operator asked for, even when live traffic
// could use all of them.
const retryShare = 8

// pick chooses the list to claim from: what was put back; one replay if none is
// in flight; retries and fresh deliveries in turn, so that neither starves;
// what an operator asked for; replays on what is left.
func (l *lane) pick(s *slot) *fifo {
	if l.front.len() > 0 {
		return &l.front
	}
	l.order.claims++
	replay := l.back.replays.len() > 0 && l.replaysAllowed(s) > 0
	if replay && l.live() > 0 {
		return &l.back.replays
	}
	if l.back.retries.len() > 0 && l.order.claims%retryShare == 0 {
		return &l.back.retries
	}
	ready, due := l.ready.ring.len() > 0, l.waiting.due.len() > 0
	switch {
	case ready && due:
		l.order.tookDue = !l.order.tookDue
		if l.order.tookDue {
			return &l.waiting.due
		}
		return &l.ready.ring
	case due:
		return &l.waiting.due
	case ready:
		return &l.ready.ring
	case l.back.retries.len() > 0:
		return &l.back.retries
	case replay:
		return &l.back.replays
	}
	return nil
}

// land puts a delivery that is owned and due into memory.
func (l *lane) land(del *queue.Delivery) {
	switch {
	case l.closed(l.slot()):
		l.disown(del.Seq) // letting go starts from the mark
	case del.Track == queue.Following:
		l.letGo(del.Seq)
	case l.entries.on && inOrder(del) && !l.holds(del.Seq):
		l.disown(del.Seq)
		l.reset() // its place is among others of its entry
	case del.Track == queue.Returning && del.Replay:
		l.list(&l.back.replays, del)
	case del.Track == queue.Returning && l.back.retries.len() >= l.d.ringSize:
		l.leaveToStore(del.Seq)
	case del.Track == queue.Returning:
		l.list(&l.back.retries, del)
	case l.front.len() >= l.d.ringSize:
		l.disown(del.Seq)
		l.reset()
	default:
		l.list(&l.front, del)
	}
	l.kick()
	l.arm()
}

func (l *lane) list(f *fifo, del *queue.Delivery) {
	l.owned.set(del.Seq, owner{state: ownListed})
	f.push(del)
}

// leaveToStore lets a later scan find a returning row that memory has no room
// for.
func (l *lane) leaveToStore(seq uint64) {
	l.disown(seq)
	b := &l.back
	b.more = true
	b.cursor = min(b.cursor, seq-1)
	if b.noted == 0 || seq < b.noted {
		b.noted = seq
	}
}

// settled hears of a commit: the delivery's row is where the attempt put it, so
// a scan that starts from now on sees it there.
func (l *lane) settled(c *queue.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok := l.owned.get(c.Seq)
	if !ok || o.state != ownSettling || o.attempt != c.Attempts {
		return
	}
	l.owned.wakeWaiters()
	if o.back != nil {
		l.land(o.back)
		return
	}
	l.disown(c.Seq)
	if o.due != 0 {
		l.noteDue(o.due)
	}
	l.kick()
	l.arm()
}

// dueSlack is how much earlier than computed here a row may be due, in ms. The
// store counts from the call of Complete, which comes after the computation; the
// slack is for one that counts from a little before.
const dueSlack = 1000

// noteDue remembers that a row became waiting, due about at.
// Time went on between the attempt and its commit, so the cursor may be beyond
// it already.
func (l *lane) noteDue(at int64) {
	w := &l.waiting
	w.noted = earlier(w.noted, at)
	w.next = earlier(w.next, at)
	if at-dueSlack <= w.cursorDue {
		w.cursorDue, w.cursorSeq = at-dueSlack, 0
	}
	if w.next <= l.d.store.Now() {
		w.more = true
	}
}

// switched follows Apply from the old slot to the new one.
func (l *lane) switched(from, to *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if to.hold() != "" && from.hold() == "" {
		l.reset()
	}
	if to != nil && from != nil && to.Generation != from.Generation {
		l.halt.trustAgain()
		if planted.DroppedOnReload {
			l.ready.ring.drain(l.disownListed)
		}
	}
	l.kick()
	l.arm()
}

// holdReason is what listings show.
func (l *lane) holdReason(s *slot) delivery.HoldReason {
	if r := s.hold(); r != "" {
		return r
	}
	if r := l.d.pause.Load(); r != nil {
		return *r
	}
	if r := s.held(); r != "" {
		return r
	}
	return l.halt.reason()
}

// earlier is the smaller of two times of which 0 means none.
func earlier(a, b int64) int64 {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}
