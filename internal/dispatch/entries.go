package dispatch

import (
	"context"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// entries keeps the ready deliveries of each entry in order, in a lane that is
// ordered: one of them is claimed at a time, and what comes behind it while it
// is attempted waits here or, when that is much or long, in the store. What
// waits for a retry, or was brought back, is the store's to know: before a
// claim it is asked whether such a delivery is in the way.
//
// The lane's lock guards it. A lane that is not ordered has nothing in it.
type entries struct {
	on      bool
	release *queue.Release // followers of a time when the lane was ordered may be left; nil = none

	m     map[string]hold   // by entry
	seqs  map[uint64]string // entry of each ready delivery that holds it
	asked map[uint64]string // entry of each delivery that an operator's call is about

	kept    fifo // behind a delivery that holds their entry
	parks   fifo // to be parked in the store, in this order
	parking bool // a step of that is under way
	again   bool // the lane changed while a worker asked the store; what there is to do was not looked at
}

// hold is why an entry's ready deliveries may not be claimed; the zero value is
// no reason.
type hold struct {
	seq   uint64 // the one that was claimed, and may be claimed again when it is put back
	asked int    // operators' calls about deliveries of the entry under way
	parks int    // deliveries on their way to being parked
}

func (h hold) free() bool { return h == hold{} }

func (e *entries) init(num queue.Lane) {
	e.release = &queue.Release{Lane: num}
	e.m, e.seqs, e.asked = map[string]hold{}, map[uint64]string{}, map[uint64]string{}
}

// set remembers why an entry is held, and nothing of one that is not.
func (e *entries) set(entry string, h hold) {
	if h.free() {
		delete(e.m, entry)
		return
	}
	e.m[entry] = h
}

// inOrder reports whether a delivery can be held back at all.
func inOrder(del *queue.Delivery) bool { return del.Track == queue.Ready && del.EntryID != "" }

// ordered is what the configuration and the sink ask for.
func (l *lane) ordered(s *slot) bool {
	return s.Ordered || l.terms.limits.Ordered || l.terms.limits.State
}

// keepOrder follows a change of that. Memory starts anew, since what it has was
// not claimed, or kept, by the rules of now.
func (l *lane) keepOrder(s *slot) {
	on := l.ordered(s)
	if on == l.entries.on {
		return
	}
	l.reset()
	l.entries.on = on
	l.entries.release = &queue.Release{Lane: l.num}
}

// verdict is what admit says.
type verdict uint8

const (
	admitted verdict = iota
	refused          // it waits for another one; take the next
	changed          // the lane is not what it was: claim nothing
)

// admit decides whether a delivery that was taken from a list may be claimed.
// Otherwise it is put where it waits for its turn. It is called and returns with
// the lock held, and may give it up to ask the store.
func (l *lane) admit(s *slot, del *queue.Delivery) verdict {
	if !inOrder(del) {
		return admitted
	}
	h := l.entries.m[del.EntryID]
	if h.seq != del.Seq {
		if !h.free() {
			l.keep(del, h)
			return refused
		}
		l.entries.m[del.EntryID] = hold{seq: del.Seq}
		l.entries.seqs[del.Seq] = del.EntryID
	}
	if !l.d.store.Lines() {
		return admitted
	}
	return l.inquire(s, del)
}

// inquire asks the store whether a delivery, which holds its entry, is blocked.
func (l *lane) inquire(s *slot, del *queue.Delivery) (v verdict) {
	epoch := l.epoch
	l.owned.set(del.Seq, owner{state: ownAway})
	l.mu.Unlock()
	blocked, err := l.d.store.Blocked(l.num, del.EntryID, del.Seq)
	l.mu.Lock()
	defer func() {
		l.owned.wakeWaiters()
		l.entries.again = l.entries.again || v == changed
	}()
	switch {
	case epoch != l.epoch:
		l.letGo(del.Seq) // the rows are the store's alone, from then on
		return changed
	case err != nil:
		l.land(del)
		l.readFailed(err)
		return changed
	case blocked:
		l.park(del)
		if s != l.slot() || !l.open(s) {
			return changed
		}
		return refused
	case s != l.slot() || !l.open(s):
		l.land(del)
		return changed
	}
	l.owned.set(del.Seq, owner{state: ownInFlight}) // it is being claimed
	if l.keepsMuch() {
		l.relieve(del.EntryID)
	}
	return admitted
}

// keep puts a delivery behind the one that holds its entry: beside the ring as
// long as there is little, else on the way into the store.
func (l *lane) keep(del *queue.Delivery, h hold) {
	e := &l.entries
	l.list(&e.kept, del)
	if h.parks > 0 || l.keepsMuch() {
		l.relieve(del.EntryID)
	}
}

func (l *lane) keepsMuch() bool {
	return l.entries.kept.len() > l.d.ringSize/4 || l.entries.kept.bytes > minFill
}

// relieve parks what is kept for an entry, if it is known what that is parked
// behind: a delivery under way, or others that are parked. One that may be
// blocked itself, or that an operator's call is about, must be settled first; the
// store could call those behind it before it is parked.
func (l *lane) relieve(entry string) {
	h := l.entries.m[entry]
	underWay := l.owned.state(h.seq) == ownInFlight || l.owned.state(h.seq) == ownSettling
	if h.asked == 0 && (underWay || (h.seq == 0 && h.parks > 0)) {
		l.parkKept(entry)
	}
}

// park sends a delivery that is blocked, and what is kept behind it, into the
// store.
func (l *lane) park(del *queue.Delivery) {
	e := &l.entries
	delete(e.seqs, del.Seq)
	h := e.m[del.EntryID]
	h.seq = 0
	h.parks++
	e.set(del.EntryID, h)
	l.list(&e.parks, del)
	l.relieve(del.EntryID)
}

func (l *lane) parkKept(entry string) {
	e := &l.entries
	h := e.m[entry]
	for {
		del, ok := e.kept.removeEntry(entry)
		if !ok {
			break
		}
		l.list(&e.parks, &del)
		h.parks++
	}
	e.set(entry, h)
}

// crowded reports that nothing should be taken from the ring before something
// was parked, or the store has answered.
func (l *lane) crowded() bool {
	e, ringSize := &l.entries, l.d.ringSize
	return e.parks.len() >= ringSize || e.parks.bytes > 4*minFill || e.kept.len() >= ringSize || e.kept.bytes > 4*minFill
}

// wantsTidying reports that something is to be parked, or that followers are to
// be released.
func (l *lane) wantsTidying() bool {
	e := &l.entries
	return !e.parking && (e.parks.len() > 0 || (e.release != nil && !e.on))
}

// tidy does a bounded part of that. It is called and returns with the lock held,
// and gives it up for the store's transaction. One at a time, so that
// deliveries are parked in the order in which they were met.
func (l *lane) tidy() {
	e := &l.entries
	e.parking = true
	if e.parks.len() > 0 {
		l.parkStep()
	} else {
		l.releaseStep()
	}
	e.parking = false
	l.owned.wakeWaiters()
}

// parkMost is how many deliveries are parked at once.
const parkMost = 256

func (l *lane) parkStep() {
	e := &l.entries
	ps := make([]queue.Parking, min(e.parks.len(), parkMost))
	for i := range ps {
		ps[i].Delivery = e.parks.pop()
		ps[i].Behind = e.m[ps[i].Delivery.EntryID].seq
		l.owned.set(ps[i].Delivery.Seq, owner{state: ownAway})
	}
	l.mu.Unlock()
	turns, err := l.d.parkAll(ps)
	l.mu.Lock()
	for i := range ps {
		del := &ps[i].Delivery
		w, _ := l.owned.get(del.Seq)
		l.disown(del.Seq)
		if w.due != 0 { // it was called before this was known
			turns = append(turns, queue.Turn{Lane: l.num, Seq: del.Seq, Due: w.due})
		}
		h := e.m[del.EntryID]
		h.parks--
		l.moveUp(del.EntryID, h)
	}
	for _, t := range turns {
		l.noteTurn(t.Due, t.Seq)
	}
	if err != nil {
		l.reset() // some are ready still
		l.readFailed(err)
	}
}

func (d *Dispatcher) parkAll(ps []queue.Parking) (turns []queue.Turn, err error) {
	for len(ps) > 0 && err == nil {
		var some []queue.Turn
		var n int
		some, n, err = d.store.Park(context.WithoutCancel(d.base), ps)
		turns, ps = append(turns, some...), ps[n:]
	}
	return turns, err
}

func (l *lane) releaseStep() {
	q := l.entries.release
	l.mu.Unlock()
	more, err := l.d.store.ReleaseFollowers(context.WithoutCancel(l.d.base), q)
	l.mu.Lock()
	if !more && err == nil && l.entries.release == q { // else ordering was switched on and off again
		l.entries.release = nil
	}
	l.readFailed(err)
}

// goOn starts a worker for what the one that ends now has left: what take
// refused, or whatever there is since the lane changed under it.
func (l *lane) goOn() {
	if l.entries.again || l.wantsTidying() {
		l.entries.again = false
		l.kick()
	}
}

// leave follows a delivery that the lane lets go of: its entry is free for the
// next one.
func (l *lane) leave(seq uint64) {
	e := &l.entries
	entry, held := e.seqs[seq]
	if !held {
		return
	}
	delete(e.seqs, seq)
	h := e.m[entry]
	h.seq = 0
	l.moveUp(entry, h)
}

// moveUp remembers why an entry is held; when it is not any more the next
// delivery that is kept for it may go.
func (l *lane) moveUp(entry string, h hold) {
	e := &l.entries
	if h.free() && e.kept.len() > 0 {
		if next, ok := e.kept.removeEntry(entry); ok {
			h.seq = next.Seq
			e.seqs[next.Seq] = entry
			l.list(&l.front, &next)
		}
	}
	e.set(entry, h)
}

// holdAsked keeps later ones of an entry from overtaking a delivery that an
// operator's call has taken out of memory, or kept a scan from loading.
func (l *lane) holdAsked(del *queue.Delivery) {
	e := &l.entries
	if _, held := e.seqs[del.Seq]; held || !e.on || !inOrder(del) || e.asked[del.Seq] != "" {
		return
	}
	e.asked[del.Seq] = del.EntryID
	h := e.m[del.EntryID]
	h.asked++
	e.m[del.EntryID] = h
}

// askOver ends that.
func (l *lane) askOver(seq uint64) {
	e := &l.entries
	entry, held := e.asked[seq]
	if !held {
		return
	}
	delete(e.asked, seq)
	h := e.m[entry]
	h.asked--
	l.moveUp(entry, h)
}

// clearEntries empties what waits in memory, before the lists that it would move up to.
func (l *lane) clearEntries() {
	e := &l.entries
	for del := range e.parks.all() {
		h := e.m[del.EntryID]
		h.parks--
		e.set(del.EntryID, h)
	}
	e.kept.drain(l.disownListed)
	e.parks.drain(l.disownListed)
}

// holds reports whether a delivery was claimed in order and still is to be.
func (l *lane) holds(seq uint64) bool {
	_, held := l.entries.seqs[seq]
	return held && l.entries.on
}

// Turned tells the lanes which followers were called. It is called from
// [queue.Options].OnTurn and does not block.
func (d *Dispatcher) Turned(ts []queue.Turn) {
	lanes := d.table.Load().lanes
	for i := range ts {
		if l := lanes[ts[i].Lane]; l != nil {
			l.turned(&ts[i])
		}
	}
}

func (l *lane) turned(t *queue.Turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w, ok := l.owned.get(t.Seq); ok && w.state == ownAway {
		w.due = t.Due
		l.owned.set(t.Seq, w)
		return
	}
	l.noteTurn(t.Due, t.Seq)
	l.kick()
	l.arm()
}

// noteTurn lets a scan find a row that has become waiting, with exactly this
// key.
func (l *lane) noteTurn(due int64, seq uint64) {
	w := &l.waiting
	w.noted, w.next = earlier(w.noted, due), earlier(w.next, due)
	if due < w.cursorDue || (due == w.cursorDue && seq <= w.cursorSeq) {
		w.cursorDue, w.cursorSeq = due, seq-1
	}
	if w.next <= l.d.store.Now() {
		w.more = true
	}
}

// WaitsFor is the delivery of the same entry that one which is in memory waits
// for because that is being attempted; 0 when there is none. What waits in the
// store is in its summary.
func (d *Dispatcher) WaitsFor(num queue.Lane, seq uint64) uint64 {
	l := d.table.Load().lanes[num]
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range [...]*fifo{&l.entries.kept, &l.entries.parks} {
		for del := range f.all() {
			if del.Seq == seq {
				return l.entries.m[del.EntryID].seq
			}
		}
	}
	return 0
}
