package queue

import (
	"context"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// maxParkStep bounds what one transaction parks or releases.
const maxParkStep = 256

// Parking asks for one ready delivery to be put behind an earlier one of its
// entry.
type Parking struct {
	Delivery Delivery
	// Behind is an earlier delivery of the entry that is being attempted; 0 when
	// [Store.Blocked] said that there is one.
	Behind uint64
}

// Park takes ready deliveries of an ordered lane out of the way until it is
// their turn, in one transaction, in the order given: at most 256 of them, n is
// how many. Each is following on return. One that has nothing before it any
// more is the head of its entry instead, waiting and due now: those are
// returned. One that is not ready any more stays where it is. Errors:
// [ErrStopped], ctx's while nothing was handed over.
func (s *Store) Park(ctx context.Context, ps []Parking) (turns []Turn, n int, err error) {
	var found []damaged
	err = s.quietly(ctx, func(g *group) error {
		for n < len(ps) && n < maxParkStep && !g.full() {
			if bad := g.park(&ps[n]); bad != nil {
				found = append(found, *bad)
			}
			n++
		}
		failpoint.Here("order.parked")
		turns, g.turns = g.turns, nil // the caller hears of them here
		if !g.wrote() {
			return errUnchanged
		}
		return nil
	})
	if err == nil && len(found) > 0 {
		_, err = s.setAside(found)
	}
	return turns, n, err
}

// park returns a row that is damaged. Store.mu is held.
func (g *group) park(p *Parking) *damaged {
	d := &p.Delivery
	l := g.s.lanes[d.Lane]
	ready := appendLaneSeq(nil, kindReady, d.Lane, d.Seq)
	row, _, found, err := g.pending(d, ready)
	switch {
	case !found || l == nil || d.EntryID == "":
		return nil // it ended meanwhile
	case err != nil:
		return &damaged{kind: kindReady, key: ready, reason: err.Error()}
	}
	key := lineKey(d.Lane, entryHash(d.EntryID))
	at, there := g.line(l, d.Lane, key)
	if !there {
		at.from = d.Seq
		if at.head = d.Seq; p.Behind != 0 && g.has(appendLaneSeq(nil, kindReady, d.Lane, p.Behind)) {
			at.head = p.Behind
		}
		l.lines++
	}
	g.removePending(d.Lane, Ready, ready, d.Seq, row.charge)
	l.stirred++
	if at.head == d.Seq {
		g.putWaiting(d.Lane, d.Seq, &row, g.now)
		g.turns = append(g.turns, Turn{Lane: d.Lane, Seq: d.Seq, Due: g.now})
	} else {
		g.putFollowing(d.Lane, d.Seq, &row, key)
		at.n++
		at.from = min(at.from, d.Seq)
	}
	g.putLine(key, at)
	return nil
}

// Following is how many deliveries of a lane wait for another one of their
// entry, and how many entries have deliveries that would make others wait.
func (s *Store) Following(lane Lane) (followers, lines int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[lane]; l != nil {
		return l.shown.following, l.shown.lines
	}
	return 0, 0
}

// Release is a release of followers under way. It belongs to one caller.
type Release struct {
	Lane Lane

	from []byte // line to go on with; nil = the first
}

// ReleaseFollowers lets followers of a lane that is not ordered any more go, and
// forgets what they waited for: at most 64 followers, or that many entries, in
// one transaction, going on where the last call with the same q ended. Those let
// go are waiting, due now; [Options].OnTurn hears of them. more says that others
// may be left. A crash in between, or a new q, goes on as well. On a lane without
// followers it does nothing at all. Error: [ErrStopped].
func (s *Store) ReleaseFollowers(ctx context.Context, q *Release) (more bool, err error) {
	if _, lines := s.Following(q.Lane); lines == 0 {
		return false, s.usable()
	}
	err = s.quietly(ctx, func(g *group) error {
		if l := s.lanes[q.Lane]; l != nil {
			more = g.release(l, q)
		}
		if !g.wrote() {
			return errUnchanged
		}
		return nil
	})
	return more, err
}

// release lets some followers go. A line ends in the transaction that lets its
// last follower go, so that at any time a follower has one. Store.mu is held.
func (g *group) release(l *laneState, q *Release) (more bool) {
	const most = 64
	if q.from == nil {
		q.from = appendLanePrefix(nil, kindLine, q.Lane)
	}
	left := most
	for _, key := range g.linesFrom(q.Lane, q.from, most) {
		q.from = key
		at, there := g.line(l, q.Lane, key)
		for there && at.n > 0 && left > 0 {
			g.callNext(l, q.Lane, key, &at)
			failpoint.Here("order.released")
			there = at.head != 0
			left--
		}
		switch {
		case there && at.n > 0:
			return true
		case there:
			g.del(key)
			g.touch(q.Lane).lines--
			left--
		}
		q.from = append(key, 0xff)
		if left <= 0 || g.full() {
			return true
		}
	}
	return false
}

// linesFrom lists at most n lines of a lane at or after a key. It seeks over
// the followers of each.
func (g *group) linesFrom(lane Lane, from []byte, n int) (keys [][]byte) {
	g.direct()
	txn := g.s.db.NewTransaction(false)
	defer txn.Discard()
	prefix := appendLanePrefix(nil, kindLine, lane)
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(from); it.ValidForPrefix(prefix) && len(keys) < n; {
		key := it.Item().KeyCopy(nil)
		if len(key) == lenLine {
			keys = append(keys, key)
		}
		// Behind the followers of this entry; nothing sorts in between.
		it.Seek(append(key[:lenLine:lenLine], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	}
	return keys
}
