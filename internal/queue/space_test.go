package queue

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func (h *harness) valueLogFiles() int {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.db.Opts().ValueDir, "*.vlog"))
	if err != nil {
		h.t.Fatal(err)
	}
	return len(files)
}

func TestAServiceThatIsNeverQuietGivesSpaceBackBesideItsWork(t *testing.T) {
	h := newHarness(t, shortRetention, lookNever)
	lane := h.lane("x.a")[0]
	ev := testEvent(1, lane)
	ev.Payloads[FormatPeanuts] = []byte(strings.Repeat("x", 64<<10))
	for range 32 {
		evs := make([]*Event, 50)
		for i := range evs {
			evs[i] = new(*ev)
		}
		h.accept(evs...)
		for _, d := range h.ready(lane) {
			h.finish(d, delivery.Success, 0)
		}
		h.settle()
	}
	h.nextDays(3) // their payloads go
	before := h.valueLogFiles()
	if before < 3 {
		t.Fatalf("%d files", before)
	}
	h.accept(testEvent(2, lane))
	h.do(t.Context(), func(*group) error { h.Store.c.space.wanted(h.Store, spaceChurn); return nil })
	h.do(t.Context(), func(*group) error { h.giveBack(); return nil })
	h.do(t.Context(), func(*group) error {
		c := &h.Store.c.space
		if c.busy || !c.armed {
			t.Error("it did not wait for a quiet moment")
		}
		c.since -= patience
		c.timer.Reset(0)
		return nil
	})
	waitUntil(t, "space is given back", func() (done bool) {
		h.do(t.Context(), func(*group) error { done = !h.Store.c.space.busy && !h.Store.c.space.armed; return nil })
		return done && h.valueLogFiles() < before
	})
	if n := h.valueLogFiles(); n > 2 {
		t.Errorf("%d of %d files are left", n, before)
	}
	h.do(t.Context(), func(*group) error {
		c := &h.Store.c.space
		c.busy, c.rewrites = true, maxRewrites
		return nil
	})
	h.reopen() // with files left to rewrite
	mustSeqs(t, "ready", h.ready(lane), 1601)
	h.sound()
}
