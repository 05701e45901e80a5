package queue

import (
	"sort"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

const (
	// maxCompletions is how many outcomes may wait for the committer before
	// Complete blocks.
	maxCompletions = 8192
	// flushCompletionsAt commits without waiting for the delay.
	flushCompletionsAt = 1024
	// maxWait bounds the time to a next attempt, whatever a policy says.
	maxWait = 365 * 24 * time.Hour
)

// completions is the buffer between the lanes and the committer.
type completions struct {
	wake chan bool // true: do not wait for the delay

	mu   sync.Mutex // guards the rest
	room sync.Cond
	buf  fifo[Completion]
	over bool
}

func (c *completions) init() {
	c.wake = make(chan bool, 1)
	c.room.L = &c.mu
}

// add puts outcomes of one moment into the buffer, in their order.
func (c *completions) add(at int64, done ...Completion) {
	for len(done) > 0 {
		c.mu.Lock()
		for c.buf.len() >= maxCompletions && !c.over {
			c.room.Wait()
		}
		if c.over {
			c.mu.Unlock()
			return
		}
		before := c.buf.len()
		n := min(len(done), maxCompletions-before)
		c.buf.push(done[:n]...)
		for i, added := 0, c.buf.last(n); i < n; i++ {
			added[i].at = at
		}
		done = done[n:]
		c.mu.Unlock()
		switch now := before + n; {
		case before < flushCompletionsAt && now >= flushCompletionsAt, now == maxCompletions:
			c.signal(true)
		case before == 0:
			c.signal(false)
		}
	}
}

// signal leaves a word for the committer unless one is there already.
func (c *completions) signal(full bool) {
	select {
	case c.wake <- full:
	default:
	}
}

// waiting is how many outcomes wait.
func (c *completions) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.len()
}

// take moves at most n outcomes, the oldest first, into dst.
func (c *completions) take(dst []Completion, n int) []Completion {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.buf.len())
	dst = append(dst, c.buf.items[c.buf.head:c.buf.head+n]...)
	c.buf.drop(n)
	c.room.Broadcast()
	return dst
}

func (c *completions) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.buf = fifo[Completion]{}
	c.room.Broadcast()
}

// Complete records the outcome of an attempt. It is durable within about 10 ms
// or with the next group; a crash before that repeats the delivery under the
// same id. It blocks only while 8192 outcomes wait. The attempt must not be
// modified afterwards. Once the store is stopped or closed it does nothing.
//
// An attempt that counts and is Pending moves the delivery to Waiting; one
// that does not count (rate limited, misconfigured, interrupted, crashed) leaves
// it where it is, and is kept in the log unless it was interrupted; that it
// crashed is counted in [Delivery].Crashes.
//
// Attempt.EntryState of a success is kept for the entry, see Completion.Sink:
// nil leaves what is kept, unless the event is the deletion of the entry; empty
// removes it.
//
// Attempt.NextIn counts from this call, however long the commit takes.
func (s *Store) Complete(c Completion) {
	failpoint.Here("complete.given")
	s.comps.add(s.Now(), c)
}

// CompleteAll is [Store.Complete] for several outcomes at once, in their order.
// cs itself is not kept.
func (s *Store) CompleteAll(cs []Completion) { s.comps.add(s.Now(), cs...) }

// applyCompletions adds outcomes that wait, the oldest first, as far as half a
// group goes, and returns how many.
func (s *Store) applyCompletions(g *group) (n int) {
	const atOnce = 64
	s.mu.Lock()
	defer s.mu.Unlock()
	for g.size < g.limit()/2 {
		s.c.taken = s.comps.take(s.c.taken[:0], atOnce)
		for i := range s.c.taken {
			g.complete(&s.c.taken[i])
			failpoint.Here("complete.taken")
		}
		taken := len(s.c.taken)
		clear(s.c.taken)
		n += taken
		if taken < atOnce {
			return n
		}
	}
	s.comps.signal(true) // for what may be left
	return n
}

// flushGroup commits a group of outcomes, if any wait. What it leaves wakes the
// committer again, so that senders are not kept waiting by outcomes that come as
// fast as they are committed.
func (s *Store) flushGroup() int {
	if s.comps.waiting() == 0 {
		return 0
	}
	g := s.begin()
	n := s.applyCompletions(g)
	s.commit(g)
	failpoint.Here("complete.committed")
	return n
}

// flushCompletions commits the outcomes that wait at this moment.
func (s *Store) flushCompletions() {
	for n := s.comps.waiting(); n > 0 && s.failure.Load() == nil; {
		n -= s.flushGroup()
	}
}

// complete adds what became of one attempt. The row as stored decides where
// the payload is and what the delivery was charged, not the copy that went
// through the lanes: retention may have moved the payload meanwhile.
// Store.mu is held.
func (g *group) complete(c *Completion) {
	d, a := &c.Delivery, c.Attempt
	if !counts(a) && a.Outcome != delivery.Crashed {
		if a.Outcome != delivery.Interrupted {
			g.putUncounted(d.Lane, d.Seq, a)
			g.changed(d, a)
		}
		return
	}
	start := len(g.arena)
	g.arena = appendPendingKey(g.arena, d.Track, d.Lane, d.Due, d.Seq)
	key := g.row(start)
	row, raw, found, err := g.pending(d, key)
	if !found || g.s.lanes[d.Lane] == nil {
		g.s.log.Warn("outcome of a delivery that is not pending was ignored", "lane", d.Lane, "seq", d.Seq)
		g.changed(d, a) // the dispatcher waits to hear of every completion
		return
	}
	if err != nil {
		g.quarantine(key, raw, err.Error())
		row = pendingRow{format: d.Format, replay: d.Replay, ref: d.ref, attempts: d.Attempts, tries: d.Tries, crashes: d.Crashes,
			charge: d.charge, accepted: d.Accepted.UnixMilli()}
	}
	if !counts(a) {
		g.crashed(d, a, key, &row)
		return
	}
	row.attempts = max(row.attempts+1, a.Number)
	row.tries++
	g.removePending(d.Lane, d.Track, key, d.Seq, row.charge)
	switch a.State {
	case delivery.Pending:
		g.putAttempt(d.Lane, d.Seq, a)
		row.status, row.code, row.errText = a.Status, string(a.Code), a.Error
		g.putWaiting(d.Lane, d.Seq, &row, c.at+min(max(a.NextIn, 0), maxWait).Milliseconds())
		if c.inOrder() {
			g.startLine(d)
		}
	default:
		g.finish(a.State, d, &row, a, "")
		if a.State == delivery.Success {
			g.keepState(c)
		}
	}
	g.changed(d, a)
}

// crashed counts the death of a sink's process that had the delivery, and leaves
// it where it is. Store.mu is held.
func (g *group) crashed(d *Delivery, a *delivery.Attempt, key []byte, row *pendingRow) {
	row.crashes++
	row.status, row.code, row.errText = a.Status, string(a.Code), a.Error
	start := len(g.arena)
	g.arena = row.append(g.arena, key)
	g.put(key, g.row(start))
	g.putUncounted(d.Lane, d.Seq, a)
	g.changed(d, a)
}

// counts reports whether an attempt moves its delivery.
func counts(a *delivery.Attempt) bool {
	if a.State != delivery.Pending {
		return true
	}
	switch a.Outcome {
	case delivery.RateLimited, delivery.Misconfigured, delivery.Interrupted, delivery.Crashed:
		return false
	}
	return true
}

func (g *group) changed(d *Delivery, a *delivery.Attempt) {
	ch := Change{Lane: d.Lane, Seq: d.Seq, State: a.State, Attempts: a.Number, StatusCode: a.Status, Code: a.Code, Kind: ChangeAttempt, Took: a.Duration}
	if a.State == delivery.Pending {
		ch.Next = g.wall.Add(a.NextIn).UTC().Round(0)
	}
	g.changes = append(g.changes, ch)
}

// removePending takes a pending delivery out of its track. Whoever calls it
// puts the delivery somewhere else in the same transaction. Store.mu is held.
func (g *group) removePending(lane Lane, track Track, key []byte, seq uint64, charge uint32) {
	l := g.touch(lane)
	g.del(key)
	switch track {
	case Waiting:
		start := len(g.arena)
		g.arena = appendLaneSeq(g.arena, kindDue, lane, seq)
		g.del(g.row(start))
		l.waiting--
	case Returning:
		l.returning--
	case Following:
		l.following--
	default:
		l.ready--
	}
	l.moved++
	g.s.addLive(l, -int64(charge))
}

// putWaiting adds the row of a delivery that is due later. Store.mu is held.
func (g *group) putWaiting(lane Lane, seq uint64, row *pendingRow, due int64) {
	row.ref = g.outOfExpiring(row.ref, seq)
	start := len(g.arena)
	g.arena = appendWaitingKey(g.arena, lane, due, seq)
	key := g.row(start)
	start = len(g.arena)
	g.arena = row.append(g.arena, key)
	g.put(key, g.row(start))
	start = len(g.arena)
	g.arena = appendLaneSeq(g.arena, kindDue, lane, seq)
	key = g.row(start)
	start = len(g.arena)
	g.arena = appendDue(g.arena, key, due)
	g.put(key, g.row(start))
	l := g.touch(lane)
	l.waiting++
	l.waitingMark = min(l.waitingMark, due)
	g.s.addLive(l, int64(row.charge))
}

// finish adds the row of a delivery that is over. The event's record of one
// that failed is kept as long as the failure itself. a is nil when it ended
// without an attempt; then code says why. Store.mu is held.
func (g *group) finish(state delivery.State, d *Delivery, row *pendingRow, a *delivery.Attempt, code delivery.Code) {
	class := uint8(classDelivered)
	l := g.touch(d.Lane)
	g.endInLine(l, d)
	if state == delivery.Success {
		l.success++
	} else {
		class = classFailed
		l.failed++
		row.ref = g.copyEvent(row.ref, payloadRef{class: eventFailed, day: g.today}, d.Seq)
	}
	h := finishedRow{format: row.format, unstable: d.Unstable, ref: row.ref, typ: d.EventType, entry: d.EntryID,
		attempts: row.attempts, accepted: row.accepted, finished: g.wall.UnixMilli(), code: code, last: a}
	if !generated(g.s.id, d.Seq, d.EventID) {
		h.ownID = d.EventID
	}
	if a != nil {
		h.request = g.template(a.Request)
	}
	start := len(g.arena)
	g.arena = appendFinishedKey(g.arena, class, g.today, d.Lane, d.Seq)
	key := g.row(start)
	start = len(g.arena)
	g.arena = h.append(g.arena, key)
	g.put(key, g.row(start))
}

// copyEvent copies an event's record to another bucket unless it is there, and
// returns the reference to use: the old one when there is nothing to copy.
func (g *group) copyEvent(from, to payloadRef, seq uint64) payloadRef {
	if from == to {
		return to
	}
	start := len(g.arena)
	g.arena = appendEventKey(g.arena, to, seq)
	target := g.row(start)
	if g.has(target) {
		return to
	}
	source := appendEventKey(nil, from, seq)
	raw := g.get(source)
	if raw == nil {
		return from
	}
	if _, err := unseal(source, raw); err != nil {
		g.quarantine(source, raw, err.Error())
		return from
	}
	// The checksum covers the key, so it is made anew.
	val := seal(raw[:len(raw)-4], 0, target)
	g.put(target, val)
	return to
}

func (g *group) putAttempt(lane Lane, seq uint64, a *delivery.Attempt) {
	start := len(g.arena)
	g.arena = appendAttemptKey(g.arena, g.today, lane, seq, a.Number)
	g.putAttemptRow(g.row(start), a)
}

// maxUncounted is how many attempts of a delivery that do not count are kept for
// a day and a number: a receiver that says no for weeks must not fill the disk.
// Of more the newest takes the place of the one before it.
const maxUncounted = 32

// putUncounted adds the row of an attempt whose number the next one has as well.
func (g *group) putUncounted(lane Lane, seq uint64, a *delivery.Attempt) {
	keyOf := func(nth int) []byte {
		start := len(g.arena)
		g.arena = appendUncountedKey(g.arena, g.today, lane, seq, a.Number, nth)
		return g.row(start)
	}
	// There are no gaps, so the first that is free is found by halving.
	nth := sort.Search(maxUncounted-1, func(nth int) bool { return !g.has(keyOf(nth)) })
	g.putAttemptRow(keyOf(nth), a)
}

func (g *group) putAttemptRow(key []byte, a *delivery.Attempt) {
	request := g.template(a.Request)
	start := len(g.arena)
	g.arena = appendAttemptRow(g.arena, key, a, request)
	g.put(key, g.row(start))
}

// template stores what a webhook's requests look like once and returns its
// name; 0 for none.
func (g *group) template(r *delivery.Request) uint64 {
	if r == nil {
		return 0
	}
	known := g.s.c.templates
	if h, ok := known[r]; ok {
		return h
	}
	fields := appendRequest(nil, r)
	h := requestHash(fields)
	if key := templateKey(h); !g.has(key) {
		g.put(key, seal(append([]byte{valueVersion}, fields...), 0, key))
	}
	const most = 1024 // pointers of former configurations
	if len(known) >= most {
		clear(known)
	}
	known[r] = h
	return h
}
