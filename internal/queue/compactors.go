package queue

import (
	"slices"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/dgraph-io/badger/v4"
)

const (
	// lookEvery is how often running compactors are looked at.
	lookEvery = time.Second
	// restBelow is how little must have been committed between two looks for the
	// compactors to rest.
	restBelow = 256 << 10
	// wakeAt is how much is committed before resting compactors run again. It fills
	// one memtable at most, and so adds one table to level zero: they rest with fewer
	// than four there, and writing stalls at twelve.
	wakeAt = 4 << 20
)

// compactors lets Badger's compactors rest. Two goroutines of it wake up every
// 50 ms for as long as the database is open, to see whether there is something
// to compact: 40 times a second, 0.7 to 0.8 % of a processor, for which Badger
// has no option. There can be something only after a memtable was written out,
// so they are stopped when there is nothing and little is committed, and started
// again long before there can be.
//
// Badger stops and starts them itself in DropPrefix, Flatten and Close, and
// guards none of that. All of it is the committer's: it calls DropPrefix and
// Close itself, and leaves the compactors alone while Flatten runs beside it.
type compactors struct {
	resting bool
	written int64              // bytes committed since the last look, or since they rest
	seen    []badger.LevelInfo // at the last look
	timer   *time.Timer        // for the next look, armed while they run
}

// stopCompactions and startCompactions are what Badger's own DropPrefix does
// around its work. A Badger without them does not link; one in which they do
// something else fails TestTheCompactorsOfAnIdleDatabaseRest.
//
//go:linkname stopCompactions github.com/dgraph-io/badger/v4.(*DB).stopCompactions
func stopCompactions(*badger.DB)

//go:linkname startCompactions github.com/dgraph-io/badger/v4.(*DB).startCompactions
func startCompactions(*badger.DB)

func (c *compactors) init(s *Store) { c.timer = time.NewTimer(s.opts.look) }

// committed counts what a group wrote.
func (c *compactors) committed(s *Store, bytes int) {
	c.written += int64(bytes)
	if c.resting && c.written >= wakeAt {
		c.wake(s)
	}
}

// look runs when the timer ends. No level may have changed since the last look:
// then no compaction is under way, and stopping waits for none.
func (c *compactors) look(s *Store) {
	levels := s.db.Levels()
	if c.written < restBelow && !s.c.space.busy && !s.c.unapplied.pending.Load() && slices.Equal(levels, c.seen) && !slices.ContainsFunc(levels, wantsCompaction) {
		stopCompactions(s.db)
		c.resting, c.seen = true, nil
		s.c.residency.rest()
	} else {
		c.seen = levels
		c.timer.Reset(s.opts.look)
	}
	c.written = 0
}

// wake must come before DropPrefix and Flatten, which leave the compactors
// running or as they were, whichever their way out.
func (c *compactors) wake(s *Store) {
	if !c.resting {
		return
	}
	c.resting, c.written = false, 0
	startCompactions(s.db)
	c.timer.Reset(s.opts.look)
}

// wantsCompaction is what a compactor asks of a level (levels.go, runCompactor):
// the first one compacts level zero whatever its adjusted score.
func wantsCompaction(l badger.LevelInfo) bool {
	return l.Score >= 1 && (l.Level == 0 || l.Adjusted >= 1)
}
