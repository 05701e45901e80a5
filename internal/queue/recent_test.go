package queue

import (
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// remembered counts the ready rows in memory and compares each with what is
// stored.
func (h *harness) remembered() (n int) {
	h.t.Helper()
	h.do(h.t.Context(), func(g *group) error {
		for at, row := range h.Store.c.recent.rows {
			n++
			key := appendLaneSeq(nil, kindReady, at.lane, at.seq)
			stored, err := decodePending(key, g.get(key))
			if err != nil || stored != row {
				h.t.Errorf("remembered %+v, stored %+v, %v", row, stored, err)
			}
		}
		return nil
	})
	return n
}

func TestARememberedRowIsTheStoredOne(t *testing.T) {
	h := newHarness(t)
	l := h.lane("x.a", "x.b")
	h.accept(testEvent(1, l...), testEvent(2, l...))
	mustEqual(t, "remembered", h.remembered(), 4)
	ds := h.ready(l[0])
	h.finish(ds[0], delivery.Success, 0)
	h.settle()
	mustEqual(t, "remembered after an outcome", h.remembered(), 3)
	h.finish(ds[0], delivery.Success, 0) // once more: there is no such row
	h.settle()
	mustEqual(t, "successes", h.Stats().Success, 1)
	if err := h.Drop(t.Context(), l[0], ds[1].Seq); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "remembered after a drop", h.remembered(), 2)
	h.finish(ds[1], delivery.Success, 0)
	h.settle()
	mustEqual(t, "successes after a drop", h.Stats().Success, 1)
	h.sound()
}

func TestARowThatRetentionMovedIsReadAnew(t *testing.T) {
	h := newHarness(t, shortRetention)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane))
	ds := h.ready(lane) // in flight, with references to the first day
	h.clock.advance(3 * day)
	h.do(t.Context(), func(*group) error { h.Store.c.day.Reset(0); return nil })
	waitUntil(t, "the payloads are moved and the day is dropped", func() bool {
		over := false
		h.do(t.Context(), func(*group) error { over = h.Store.c.retiring == nil && len(h.Store.c.recent.rows) == 0; return nil })
		return over
	})
	h.finish(ds[0], delivery.Failed, 0)
	h.finish(ds[1], delivery.Pending, time.Minute)
	h.settle()
	if d, err := h.Requeue(t.Context(), lane, ds[0].Seq); err != nil || string(d.Payload) != string(ds[0].Payload) {
		t.Errorf("%+v, %v", d, err)
	}
	if w := h.waiting(lane); len(w) != 1 || string(w[0].Payload) != string(ds[1].Payload) {
		t.Errorf("%+v", w)
	}
	h.sound()
}

func TestOnlyTheNewestRowsAreRemembered(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	var evs []*Event
	for n := range recentRows + 100 {
		evs = append(evs, testEvent(n, lane))
	}
	h.accept(evs...)
	mustEqual(t, "remembered", h.remembered(), recentRows)
	ds := h.ready(lane)
	for _, d := range ds {
		h.finish(d, delivery.Success, 0)
	}
	h.settle()
	mustEqual(t, "remembered when all are finished", h.remembered(), 0)
	mustEqual(t, "successes", h.Stats().Success, int64(len(ds)))
	h.sound()
}
