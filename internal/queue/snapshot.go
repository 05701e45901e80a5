package queue

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	// paceWork is how long a long read works before it rests half as long, so that
	// attempts and senders find a processor.
	paceWork = 5 * time.Millisecond
	// paceLook is how often it looks whether the disk bears an open snapshot.
	paceLook = time.Second
)

// snapshot is the whole store at one moment, for reads that take minutes beside its
// work: all rows, and the state in memory that fits them. The committer is asked once,
// at the beginning. As long as one is open no day is dropped, since that takes rows
// out of snapshots too, and what is deleted meanwhile keeps its space; the store
// does not close. It belongs to one goroutine.
type snapshot struct {
	s     *Store
	txn   *badger.Txn
	at    time.Time // wall clock
	led   ledger
	lanes map[Lane]*laneState // copies
	days  []dayState

	now    func() time.Duration // monotonic; not that of the options, which a test may stop
	worked time.Duration        // when the work since the last rest began
	looked time.Duration
	rows   int64
}

func (s *Store) openSnapshot(ctx context.Context) (*snapshot, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	p := &snapshot{s: s, now: func() time.Duration { return time.Since(began) }}
	s.readers.RLock()
	err := s.quietly(ctx, func(g *group) error {
		s.c.pins++
		s.c.retiring = nil // a pass that is given up loses nothing
		p.txn = s.db.NewTransaction(false)
		p.at, p.led, p.days = g.wall, s.led, slices.Clone(s.days)
		p.lanes = make(map[Lane]*laneState, len(s.lanes))
		for lane, l := range s.lanes {
			p.lanes[lane] = &laneState{laneCounts: l.laneCounts, name: l.name, removedRows: l.removedRows}
		}
		return errUnchanged
	})
	if p.txn == nil {
		s.readers.RUnlock()
		return nil, err
	}
	if err := firstError(err, s.usable()); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *snapshot) close() {
	p.txn.Discard()
	p.s.readers.RUnlock()
	// A store that has stopped has no use for it.
	_ = p.s.quietly(context.Background(), func(*group) error {
		p.s.c.pins--
		p.s.c.day.Reset(0) // what was put off is planned anew
		return errUnchanged
	})
}

// step is called for every row. It says when the read must be given up: its caller or
// the store ends, or the disk has no room for what the snapshot keeps from being
// given back.
func (p *snapshot) step(ctx context.Context) error {
	if p.rows++; p.rows%64 != 0 {
		return nil
	}
	now := p.now()
	if now-p.worked < paceWork {
		return nil
	}
	if err := firstError(context.Cause(ctx), p.s.usable()); err != nil {
		return err
	}
	if now-p.looked >= paceLook {
		p.looked = now
		if m := p.s.guard.marks(); m.pause {
			return m.err
		}
	}
	rest := time.NewTimer((now - p.worked) / 2)
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.s.closing:
		return ErrStopped
	case <-p.s.dead:
		return p.s.stopped()
	}
	p.worked = p.now()
	return nil
}

// failed is the answer to an error of the database, which stops the store.
func (p *snapshot) failed(err error) error {
	p.s.fail(err)
	return p.s.stopped()
}

// laneOrder lists the lanes in ascending order.
func (p *snapshot) laneOrder() []Lane { return slices.Sorted(maps.Keys(p.lanes)) }
