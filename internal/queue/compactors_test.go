package queue

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// compactorsRunning counts Badger's goroutines by name.
func compactorsRunning() int {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	return strings.Count(string(buf), "levelsController).runCompactor(")
}

// letRest does in the committer what two looks at a quiet database do. It
// changes nothing when something is to be compacted.
func (s *Store) letRest() error {
	return s.do(context.Background(), func(*group) error {
		for range 2 {
			if c := &s.c.compactors; !c.resting {
				c.written = 0
				c.look(s)
			}
		}
		return nil
	})
}

// resting makes the compactors rest, however long a compaction takes.
func (h *harness) resting() {
	h.t.Helper()
	waitUntil(h.t, "the compactors rest", func() bool {
		resting := false
		if err := h.letRest(); err != nil {
			h.t.Fatal(err)
		}
		h.do(h.t.Context(), func(*group) error { resting = h.Store.c.compactors.resting; return nil })
		return resting && compactorsRunning() == 0
	})
}

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// lookNever leaves it to the test when the compactors rest.
func lookNever(o *Options) { o.look = time.Hour }

func TestTheCompactorsOfAnIdleDatabaseRest(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	waitUntil(t, "an idle database", func() bool { return compactorsRunning() == 0 })
	h.accept(testEvent(1, lane))
	h.settle()
	mustEqual(t, "compactors after one event", compactorsRunning(), 0)
}

func TestRestingCompactorsAreWokenByWhatIsCommitted(t *testing.T) {
	h := newHarness(t, lookNever)
	lane := h.lane("x.a")[0]
	eighth := func() {
		ev := testEvent(1, lane)
		ev.Payloads[FormatPeanuts] = bytes.Repeat([]byte("x"), wakeAt/8)
		h.accept(ev)
	}
	for range 3 {
		h.resting()
		eighth()
		h.settle()
		mustEqual(t, "compactors after a little", compactorsRunning(), 0)
		for range 8 {
			eighth()
		}
		h.settle()
		mustEqual(t, "compactors after much", compactorsRunning(), 2)
		if err := h.letRest(); err != nil { // twice at rest is once
			t.Fatal(err)
		}
	}
	h.sound()
}

func TestABusyDatabaseKeepsItsCompactors(t *testing.T) {
	h := newHarness(t, lookNever)
	h.do(t.Context(), func(*group) error {
		c := &h.Store.c.compactors
		for range 3 {
			c.committed(h.Store, restBelow)
			c.look(h.Store)
			mustEqual(t, "resting while much is written", c.resting, false)
		}
		h.Store.c.space.busy = true
		for range 3 {
			c.look(h.Store)
			mustEqual(t, "resting while space is given back", c.resting, false)
		}
		h.Store.c.space.busy = false
		return nil
	})
	for _, l := range []struct {
		level badger.LevelInfo
		wants bool
	}{
		{badger.LevelInfo{Level: 0, Score: 0.75}, false},
		{badger.LevelInfo{Level: 0, Score: 1, Adjusted: 0.5}, true},
		{badger.LevelInfo{Level: 5, Score: 1.5, Adjusted: 0.5}, false},
		{badger.LevelInfo{Level: 5, Score: 1.5, Adjusted: 1}, true},
	} {
		mustEqual(t, fmt.Sprintf("%+v wants compaction", l.level), wantsCompaction(l.level), l.wants)
	}
}

// DropPrefix and Close stop the compactors themselves.
func TestDaysAreDroppedAndTheStoreIsClosedWhileTheCompactorsRest(t *testing.T) {
	h := newHarness(t, shortRetention, lookNever)
	lane := h.lane("x.a")[0]
	ev := h.accept(testEvent(1, lane))[0]
	h.resting()
	h.clock.advance(8 * day)
	h.do(t.Context(), func(*group) error { h.Store.c.day.Reset(0); return nil })
	waitUntil(t, "days are dropped", func() bool {
		over := false
		h.do(t.Context(), func(*group) error { over = h.Store.c.retiring == nil && !h.Store.c.compactors.resting; return nil })
		return over
	})
	mustEqual(t, "compactors after a drop", compactorsRunning(), 2)

	h.resting()
	h.reopen()
	mustSeqs(t, "pending", h.ready(lane), ev.Seq)
	h.sound()
}

// A table of level zero is a memtable: resting compactors must be woken before
// more than one can have been filled.
func TestRestingCompactorsAreWokenWithinOneMemtable(t *testing.T) {
	if wakeAt+groupBytes > memTableSize/2 {
		t.Errorf("woken at %d bytes, a memtable has %d", wakeAt, memTableSize)
	}
}

// What stopCompactions and startCompactions reach is not Badger's interface:
// another version must be read first (db.go: who calls them and what guards
// them; levels.go: runCompactor, pickCompactLevels).
func TestBadgerIsTheVersionWhoseCompactorsWereRead(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	const read = "v4.9.6"
	m := regexp.MustCompile(`(?m)^\s*github\.com/dgraph-io/badger/v4 (\S+)`).FindSubmatch(mod)
	if m == nil || string(m[1]) != read {
		t.Errorf("go.mod has %s; %s was read", m, read)
	}
}
