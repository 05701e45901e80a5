package queue

import (
	"context"
	"fmt"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
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

	upto  uint64 // the last event when it began
	track Track  // 0 = not begun
	from  []byte // key to go on from within track; nil = the track's mark
}

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

// dropPending goes through the tracks of a lane. Store.mu is held.
func (g *group) dropPending(q *PendingDrop, limit int) (n int, more bool) {
	if q.track == 0 {
		q.track, q.upto = Ready, g.s.led.lastSeq
	}
	for left := limit; q.track <= Returning; q.track, q.from = q.track+1, nil {
		if q.from == nil {
			q.from = g.s.trackStart(q.Lane, q.track)
		}
		keys := keysFrom(g.txn, q.from, appendLanePrefix(nil, trackKind(q.track), q.Lane), left)
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

// giveUp ends a pending delivery as failed without an attempt. The error is
// that its row was damaged. Store.mu is held.
func (g *group) giveUp(p pendingPlace, key []byte, code delivery.Code) error {
	row, err := decodePending(key, g.get(key))
	if err != nil {
		return g.damagedRow(key, err)
	}
	d, reason := g.s.loadPending(g.txn, p, &row)
	if reason != "" {
		return g.damagedRow(key, &damageError{reason})
	}
	g.removePending(p.lane, p.track, key, p.seq, row.charge)
	g.finish(delivery.Failed, &d, &row, nil, code)
	g.changes = append(g.changes, Change{Lane: p.lane, Seq: p.seq, State: delivery.Failed, Attempts: row.attempts, Code: code, Kind: ChangeDropped})
	return nil
}
