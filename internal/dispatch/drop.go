package dispatch

import (
	"context"
	"errors"
	"fmt"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// DropLane discards what is pending on a lane, held or not: all that was
// accepted before the call ends as failed with the code dropped, and replays of
// the lane under way end. What is being attempted goes on; its outcome counts,
// and should a retry follow, that stays. Meanwhile the lane claims nothing, and
// the other lanes go on: it is done in steps.
//
// The count is right also with an error, which is the store's, or ctx's when
// that ended first; then the rest is pending still.
func (d *Dispatcher) DropLane(ctx context.Context, num queue.Lane) (dropped int64, err error) {
	for _, job := range d.store.Replays() {
		if job.Lane != num || job.Done {
			continue
		}
		if err := d.CancelReplay(ctx, job.ID); err != nil && !errors.Is(err, queue.ErrNotFound) {
			return 0, fmt.Errorf("end replay %s: %w", job.ID, err)
		}
	}
	drop := &laneDrop{d: d, q: queue.PendingDrop{Lane: num, Code: delivery.CodeDropped}}
	drop.q.Skip = drop.skip
	defer drop.end()
	// A step given up half-way might still be committed: it is waited for.
	for more := true; more && err == nil; {
		if ctx.Err() != nil {
			return dropped, context.Cause(ctx)
		}
		var n int
		n, more, err = drop.step(context.WithoutCancel(ctx))
		dropped += int64(n)
	}
	return dropped, err
}

// laneDrop is one call of DropLane.
type laneDrop struct {
	d *Dispatcher
	q queue.PendingDrop

	lane *lane // nil while it never ran
	busy map[uint64]bool
}

// step drops a few. A lane that never ran has nothing in memory, and must not
// start meanwhile.
func (p *laneDrop) step(ctx context.Context) (n int, more bool, err error) {
	if !p.begin() {
		p.d.applying.Lock()
		defer p.d.applying.Unlock()
		p.begin()
	}
	return p.d.store.DropPending(ctx, &p.q, 0) // as many as the store likes
}

// begin closes the lane, once there is one, and remembers what is being
// attempted. Rows that are only in the store are the store's alone from then on.
func (p *laneDrop) begin() bool {
	if p.lane != nil {
		return true
	}
	l := p.d.table.Load().lanes[p.q.Lane]
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropping++
	l.reset()
	p.lane, p.busy = l, map[uint64]bool{}
	for seq, o := range l.owned.m {
		if o.state.busy() {
			p.busy[seq] = true
		}
	}
	return true
}

// skip spares what was being attempted at the beginning, and what an operator
// asks for meanwhile.
func (p *laneDrop) skip(seq uint64) bool {
	return p.busy[seq] || (p.lane != nil && p.lane.isBusy(seq))
}

// end lets the lane claim again, from the store's low-water mark.
func (p *laneDrop) end() {
	l := p.lane
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropping--
	l.kick()
	l.arm()
}

// busy reports whether the store's row of a delivery must not be changed by
// others: it is attempted, its outcome is on its way to the disk, or an
// operator's call about it is under way.
func (s ownState) busy() bool { return s == ownInFlight || s == ownSettling || s == ownAsked }

func (l *lane) isBusy(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owned.state(seq).busy()
}

// Busy reports whether a delivery is being attempted, its outcome is not
// committed yet, or an operator's call about it is under way. It is
// [queue.Options].Busy: it does not block and does not call the store.
func (d *Dispatcher) Busy(num queue.Lane, seq uint64) bool {
	l := d.table.Load().lanes[num]
	return l != nil && l.isBusy(seq)
}
