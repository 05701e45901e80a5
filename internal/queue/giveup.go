package queue

import (
	"context"
	"fmt"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// maxDropStep bounds the rows that one call of DropPending looks at. A row takes
// about 40 µs, so others' transactions wait for a few milliseconds.
const maxDropStep = 64

// PendingDrop says which pending deliveries [Store.DropPending] ends, and
// remembers how far it came: those of events accepted after its first call
// stay. It belongs to one caller.
type PendingDrop struct {
	Lane Lane
	Code delivery.Code // why, such as delivery.CodeDropped
	// Skip leaves a delivery alone, as one that is being attempted must be. It
	// runs in the committer's goroutine: it must not block or call the store.
	// nil skips none.
	Skip func(seq uint64) bool

	// Skipped counts what Skip left alone.
	Skipped int

	begun   bool
	upto    uint64 // the last event when it began
	at      int    // position in dropOrder
	from    []byte // key to go on from within the track; nil = the track's mark
	stirred int64  // of the lane when the pass over its tracks began
}

// dropOrder has followers before those whose end would call them.
func dropOrder() [numTracks]Track { return [...]Track{Following, Ready, Waiting, Returning} }

// DropPending ends pending deliveries of a lane as failed, without an attempt:
// at most limit of them (64 when it is 0 or more), in one transaction, going on
// behind where the last call with the same q ended. n is how many; more says
// that others may be left. A crash in between, or a new q, goes on as well:
// what was ended is finished, what was not is pending.
//
// Errors: [ErrNotFound] for a lane that does not exist, a *[SpaceError] while
// the disk has no room for the rows, [ErrStopped].
func (s *Store) DropPending(ctx context.Context, q *PendingDrop, limit int) (n int, more bool, err error) {
	return s.dropStep(ctx, q, limit, func(*group, *laneState) bool { return true })
}

// dropStep is DropPending for as long as still says so. still runs in the
// transaction and may write to it.
func (s *Store) dropStep(ctx context.Context, q *PendingDrop, limit int, still func(*group, *laneState) bool) (n int, more bool, err error) {
	if space := s.guard.marks(); space.pause {
		return 0, false, space.err
	}
	err = s.quietly(ctx, func(g *group) error {
		l := s.lanes[q.Lane]
		if l == nil {
			return fmt.Errorf("lane %d: %w", q.Lane, ErrNotFound)
		}
		if !still(g, l) {
			return errUnchanged
		}
		if limit <= 0 || limit > maxDropStep {
			limit = maxDropStep
		}
		n, more = g.dropPending(q, limit)
		if !g.wrote() {
			return errUnchanged
		}
		return nil
	})
	return n, more, err
}

// dropPending goes through the tracks of a lane, and again when something went
// from one to another meanwhile. Store.mu is held.
func (g *group) dropPending(q *PendingDrop, limit int) (n int, more bool) {
	l, tracks := g.s.lanes[q.Lane], dropOrder()
	if !q.begun {
		q.begun, q.upto, q.stirred = true, g.s.led.lastSeq, l.stirred
	}
	for left := limit; q.at < len(tracks); q.nextTrack(l) {
		track := tracks[q.at]
		if q.from == nil {
			q.from = g.s.trackStart(q.Lane, track)
		}
		keys := keysFrom(g.reader(), q.from, appendLanePrefix(nil, trackKind(track), q.Lane), left)
		for _, key := range keys {
			p := splitPending(key)
			if p.seq > q.upto && p.track != Waiting {
				break // the rest of the track is younger still
			}
			q.from = append(key, 0)
			left--
			switch {
			case p.seq > q.upto:
			case q.Skip != nil && q.Skip(p.seq):
				q.Skipped++
			default:
				// A damaged row ends as failed as well, with a code of its own.
				_ = g.giveUp(p, key, q.Code)
				n++
			}
			if left == 0 || g.full() {
				return n, true
			}
		}
	}
	return n, false
}

func (q *PendingDrop) nextTrack(l *laneState) {
	q.at, q.from = q.at+1, nil
	if q.at == numTracks && l.stirred != q.stirred {
		q.at, q.stirred, q.Skipped = 0, l.stirred, 0
	}
}

// giveUp ends a pending delivery as failed without an attempt. The error is
// that its row was damaged. Store.mu is held.
func (g *group) giveUp(p pendingPlace, key []byte, code delivery.Code) error {
	row, err := decodePending(key, g.get(key))
	if err != nil {
		return g.damagedRow(key, err)
	}
	d, reason := g.s.loadPending(g.reader(), p, &row)
	if reason != "" {
		return g.damagedRow(key, &damageError{reason})
	}
	g.removePending(p.lane, p.track, key, p.seq, row.charge)
	failpoint.Here("drop.taken-out")
	g.finish(delivery.Failed, &d, &row, nil, code)
	g.changes = append(g.changes, Change{Lane: p.lane, Seq: p.seq, State: delivery.Failed, Attempts: row.attempts, Code: code, Kind: ChangeDropped})
	return nil
}
