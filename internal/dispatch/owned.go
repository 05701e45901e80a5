package dispatch

import "github.com/peanutsapp/peanuts-relay/internal/queue"

// ownState is why a scan must not hand out a sequence.
type ownState uint8

const (
	ownNone     ownState = iota
	ownListed            // in one of the lane's lists other than the ring
	ownInFlight          // being attempted
	ownSettling          // completed; the store has not reported the commit yet
	ownAsked             // an operator's call about it is under way
	ownAway              // a call of the store about it is under way, for the order of its entry
	ownGone              // let go while a scan was under way
)

type owner struct {
	state   ownState
	skipped bool            // ownAsked, ownAway: a scan passed over it meanwhile
	attempt int             // ownSettling: number of the attempt
	due     int64           // ownSettling: due about this relay time; 0 = no retry follows. ownAway: it was called meanwhile
	back    *queue.Delivery // ownSettling: the attempt used up no try and the row stays where it is
}

// owned is the set of sequences that scans skip. The lane's lock guards it.
type owned struct {
	m       map[uint64]owner
	leaving []uint64      // ownGone, to be deleted when the scan is over
	waiters chan struct{} // closed when something settles; nil without waiters
}

func (o *owned) get(seq uint64) (owner, bool) {
	w, ok := o.m[seq]
	return w, ok
}

func (o *owned) state(seq uint64) ownState { return o.m[seq].state }

func (o *owned) set(seq uint64, w owner) {
	if o.m == nil {
		o.m = map[uint64]owner{}
	}
	o.m[seq] = w
}

// settles returns a channel that is closed when the next completion has been
// committed.
func (o *owned) settles() <-chan struct{} {
	if o.waiters == nil {
		o.waiters = make(chan struct{})
	}
	return o.waiters
}

func (o *owned) wakeWaiters() {
	if o.waiters != nil {
		close(o.waiters)
		o.waiters = nil
	}
}

// disown lets scans find the sequence again. A scan that is under way may look
// at a snapshot in which the row is still where it was, so the sequence leaves
// only when that scan is over.
func (l *lane) disown(seq uint64) {
	l.leave(seq)
	if !l.scanning {
		delete(l.owned.m, seq)
		return
	}
	l.owned.set(seq, owner{state: ownGone})
	l.owned.leaving = append(l.owned.leaving, seq)
}

// scanOver ends what beginScan began.
func (l *lane) scanOver() {
	l.scanning = false
	for _, seq := range l.owned.leaving {
		if l.owned.state(seq) == ownGone { // else it was taken again meanwhile
			delete(l.owned.m, seq)
		}
	}
	l.owned.leaving = l.owned.leaving[:0]
}

// passes reports whether a scan may hand out the sequence.
func (l *lane) passes(seq uint64) bool {
	w, known := l.owned.get(seq)
	if known && (w.state == ownAsked || w.state == ownAway) && !w.skipped {
		w.skipped = true
		l.owned.set(seq, w)
	}
	return !known
}
