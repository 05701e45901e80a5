package queue

import (
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	// spaceChurn is how much must have been deleted before space is given back.
	spaceChurn = 64 << 20
	// quiet is how long nothing was committed before it starts.
	quiet = 5 * time.Second
	// discardRatio rewrites a value-log file when this much of it is garbage.
	discardRatio = 0.5
	// maxRewrites bounds the value-log files rewritten in one go.
	maxRewrites = 64
)

// spaceGiver makes Badger return space to the disk. By itself Badger keeps
// what was deleted for as long as no compaction happens to meet it
// (docs/queue.md, "Caveats"). Owned by the committer.
type spaceGiver struct {
	churn    int64 // bytes deleted since the last time, an estimate
	last     time.Duration
	timer    *time.Timer // armed only when there is something to give back
	armed    bool
	busy     bool
	finished chan error
}

func (g *spaceGiver) init() {
	g.timer = stoppedTimer()
	g.finished = make(chan error, 1)
}

// wanted adds to the churn and arms the timer when it is enough.
func (g *spaceGiver) wanted(s *Store, bytes int64) {
	g.churn += bytes
	if g.churn >= spaceChurn && !g.armed && !g.busy {
		g.armed = true
		g.timer.Reset(quiet)
	}
}

// afterCommit counts what a group deleted: as much as it wrote, on average.
func (s *Store) afterCommit(g *group) {
	s.c.space.last = s.opts.elapsed()
	s.c.space.wanted(s, int64(g.size))
	s.c.compactors.committed(s, g.size)
	s.c.builders.committed(g.size)
	s.c.residency.committed(g.size)
	if g.bytes > 0 && s.c.retiring == nil && s.overLimit(g.today) {
		s.c.retiring = s.planRetirement()
	}
}

func (s *Store) overLimit(today uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crowdedDay(today) != 0
}

// giveBack runs when the timer ends. The first part needs the committer's
// place, because dropping a prefix turns concurrent writers away; the rest
// works beside it.
func (s *Store) giveBack() {
	c := &s.c.space
	c.armed = false
	if rest := quiet - (s.opts.elapsed() - c.last); rest > 0 {
		c.armed = true
		c.timer.Reset(rest)
		return
	}
	c.churn = 0
	s.c.compactors.wake(s)
	// DropPrefix writes out the memtables and compacts level zero, but only
	// when the prefix has a row.
	err := s.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte{kindDummy}, []byte{0}) })
	if err == nil {
		err = s.db.DropPrefix([]byte{kindDummy})
	}
	if err == nil {
		err = s.blog.poisoned()
	}
	if err != nil {
		s.fail(fmt.Errorf("give back space of queue %q: %w", s.opts.Dir, err))
		return
	}
	c.busy = true
	go func() { c.finished <- s.compact() }()
}

// compact must not run beside a DropPrefix: both stop and start Badger's
// compactions. The committer sees to that.
func (s *Store) compact() error {
	if err := s.db.Flatten(1); err != nil && !nothingToCompact(err) {
		return fmt.Errorf("compact: %w", err)
	}
	for range maxRewrites {
		if s.blog.unreadable.Load() {
			return nil // see badgerLog.unreadable
		}
		select {
		case <-s.closing:
			return nil
		default:
		}
		err := s.db.RunValueLogGC(discardRatio)
		if errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, badger.ErrRejected) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("collect value log: %w", err)
		}
	}
	return nil
}

func (s *Store) gaveBack(err error) {
	s.c.space.busy = false
	if err == nil {
		err = s.blog.poisoned()
	}
	if err != nil {
		s.fail(fmt.Errorf("give back space of queue %q: %w", s.opts.Dir, err))
		return
	}
	s.c.space.wanted(s, 0)
}
