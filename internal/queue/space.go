package queue

import (
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

const (
	// spaceChurn is how much must have been deleted before space is given back. With
	// a large database it is a share of it, since all of it is written anew then: a
	// backlog must not make that more frequent for what it costs.
	spaceChurn = 64 << 20
	spaceShare = 4 // a quarter of the tables
	// quiet is how long nothing was committed before it starts.
	quiet = 5 * time.Second
	// patience is how long a quiet moment is waited for. A service that never has
	// one gives back what it can beside its work.
	patience = 10 * time.Minute
	// discardRatio rewrites a value-log file when this much of it is garbage, and
	// busyDiscardRatio when there is no quiet moment: what is left of 32 MiB is
	// written while senders wait.
	discardRatio     = 0.5
	busyDiscardRatio = 0.8
	// maxRewrites bounds the value-log files rewritten in one go, and rewritePause is
	// between two of them.
	maxRewrites  = 64
	rewritePause = 100 * time.Millisecond
)

// spaceGiver makes Badger return space to the disk. By itself Badger keeps
// what was deleted for as long as no compaction happens to meet it
// (docs/queue.md, "Caveats"). Owned by the committer.
type spaceGiver struct {
	churn    int64         // bytes deleted since the last time, an estimate
	enough   int64         // churn that is worth it, at least
	last     time.Duration // of a commit
	since    time.Duration // when it was armed
	timer    *time.Timer   // armed only when there is something to give back
	armed    bool
	busy     bool
	ratio    float64
	rewrites int // left of maxRewrites
	finished chan error
}

func (g *spaceGiver) init() {
	g.timer = stoppedTimer()
	g.enough = spaceChurn
	g.finished = make(chan error, 1)
}

// wanted adds to the churn and arms the timer when it is enough.
func (g *spaceGiver) wanted(s *Store, bytes int64) {
	g.churn += bytes
	if g.churn < g.enough || g.armed || g.busy {
		return
	}
	if g.enough = max(spaceChurn, tableBytes(s.db)/spaceShare); g.churn < g.enough {
		return
	}
	g.armed, g.since = true, s.opts.elapsed()
	g.timer.Reset(quiet)
}

func tableBytes(db *badger.DB) (sum int64) {
	for _, l := range db.Levels() {
		sum += l.Size
	}
	return sum
}

// afterCommit counts what a group deleted: as much as it wrote, on average.
func (s *Store) afterCommit(g *group) {
	s.c.space.last = s.opts.elapsed()
	s.c.space.wanted(s, int64(g.size))
	if g.txn != nil { // what goes through the journal counts when the database has it
		s.c.compactors.committed(s, g.size)
		s.c.builders.committed(g.size)
		s.c.residency.committed(g.size)
	}
	if g.bytes > 0 && s.c.retiring == nil && s.overLimit(g.today) {
		s.c.retiring = s.planRetirement()
	}
}

func (s *Store) overLimit(today uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crowdedDay(today) != 0
}

// giveBack runs when the timer ends. Dropping a prefix needs the committer's
// place, because it turns concurrent writers away; merging works beside it.
func (s *Store) giveBack() {
	c := &s.c.space
	if c.rewrites > 0 {
		s.collect()
		return
	}
	c.armed = false
	now := s.opts.elapsed()
	if rest := quiet - (now - c.last); rest > 0 {
		if now-c.since < patience {
			c.armed = true
			c.timer.Reset(rest)
			return
		}
		// Tables are merged as they fill, and give their space back by that.
		c.churn, c.enough, c.busy, c.ratio = 0, spaceChurn, true, busyDiscardRatio
		s.gaveBack(nil)
		return
	}
	c.churn, c.enough = 0, spaceChurn
	s.c.compactors.wake(s)
	// DropPrefix writes out the memtables and compacts level zero, but only
	// when the prefix has a row.
	err := s.settle()
	if err == nil {
		dummy := func(txn *badger.Txn) error { return txn.Set([]byte{kindDummy}, []byte{0}) }
		err = failpoint.Call("space.dummy", func() error { return s.db.Update(dummy) })
	}
	if err == nil {
		err = failpoint.Call("space.drop", func() error { return s.db.DropPrefix([]byte{kindDummy}) })
	}
	if err == nil {
		err = s.blog.poisoned()
	}
	if err != nil {
		s.fail(fmt.Errorf("give back space of queue %q: %w", s.opts.Dir, err))
		return
	}
	c.busy, c.ratio = true, discardRatio
	go func() { c.finished <- s.compact() }()
}

// compact must not run beside a DropPrefix: both stop and start Badger's
// compactions. The committer sees to that.
func (s *Store) compact() error {
	if err := failpoint.Call("space.flatten", func() error { return s.db.Flatten(1) }); err != nil && !nothingToCompact(err) {
		return fmt.Errorf("compact: %w", err)
	}
	return nil
}

// gaveBack goes on with the value log.
func (s *Store) gaveBack(err error) {
	if err == nil {
		err = s.blog.poisoned()
	}
	if err != nil {
		s.fail(fmt.Errorf("give back space of queue %q: %w", s.opts.Dir, err))
		return
	}
	s.c.space.rewrites = maxRewrites
	s.c.space.timer.Reset(0)
}

// collect rewrites one file of the value log that is mostly garbage. It is done
// in the committer's place, since Badger reads the version of what was written
// last without a lock when it begins (MaxVersion).
func (s *Store) collect() {
	c := &s.c.space
	c.rewrites--
	err := s.settle()
	if err == nil {
		err = badger.ErrNoRewrite
	}
	if errors.Is(err, badger.ErrNoRewrite) && !s.blog.unreadable.Load() { // see badgerLog.unreadable
		err = failpoint.Call("space.value-log", func() error { return s.db.RunValueLogGC(c.ratio) })
	}
	done := errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, badger.ErrRejected)
	if done {
		err = nil
	}
	if err == nil {
		err = s.blog.poisoned()
	}
	if err != nil {
		s.fail(fmt.Errorf("collect value log of queue %q: %w", s.opts.Dir, err))
		return
	}
	if !done && c.rewrites > 0 {
		c.timer.Reset(rewritePause)
		return
	}
	failpoint.Here("space.given-back")
	c.busy, c.rewrites = false, 0
	c.wanted(s, 0)
}
