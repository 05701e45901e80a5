package queue

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func TestDropPendingEndsWhatIsThereAndSparesWhatItIsTold(t *testing.T) {
	h := newHarness(t)
	l := h.lane("x.a", "x.b")
	for n := range 12 {
		h.accept(testEvent(n+1, l...))
	}
	ds := h.ready(l[0])
	for i, d := range ds[:8] {
		h.finish(d, []delivery.State{delivery.Success, delivery.Failed, delivery.Pending, delivery.Pending}[i%4], time.Hour)
	}
	h.settle()
	for _, seq := range []uint64{2, 3} {
		if _, err := h.Requeue(t.Context(), l[0], seq); err != nil {
			t.Fatal(err)
		}
	}
	q := &PendingDrop{Lane: l[0], Code: delivery.CodeDropped, Skip: func(seq uint64) bool { return seq == 9 || seq == 7 }}
	total := 0
	for more, first := true, true; more; first = false {
		var n int
		var err error
		if n, more, err = h.DropPending(t.Context(), q, 2); err != nil {
			t.Fatal(err)
		}
		if total += n; n > 2 {
			t.Errorf("%d at once", n)
		}
		if first { // younger than the drop, on each track
			h.accept(testEvent(13, l[0]), testEvent(14, l[0]), testEvent(15, l[0]))
			all := h.ready(l[0])
			h.finish(all[len(all)-1], delivery.Pending, time.Hour)
			h.finish(all[len(all)-2], delivery.Failed, 0)
			h.settle()
			if _, err := h.Requeue(t.Context(), l[0], 14); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustEqual(t, "dropped", total, 7)
	mustEqual(t, "skipped", q.Skipped, 2)
	mustSeqs(t, "ready", h.ready(l[0]), 9, 13)
	mustSeqs(t, "waiting", h.waiting(l[0]), 7, 15)
	mustSeqs(t, "returning", h.returning(l[0]), 14)
	mustEqual(t, "the other lane", len(h.ready(l[1])), 12)
	if n, more, err := h.DropPending(t.Context(), q, 0); n != 0 || more || err != nil {
		t.Errorf("again: %d, %v, %v", n, more, err)
	}
	if _, _, err := h.DropPending(t.Context(), &PendingDrop{Lane: 99}, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown lane: %v", err)
	}
	h.sound()
}

func TestAFullDiskHoldsUpDropsAndExpiry(t *testing.T) {
	var full atomic.Bool
	h := newHarness(t, func(o *Options) {
		o.stat = func(dir string) (diskState, error) {
			d, err := roomy(dir)
			if full.Load() {
				d.free = 1 << 20
			}
			return d, err
		}
	})
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.lane()
	full.Store(true)
	h.later(RemovedKeep)
	_, _, err := h.DropPending(t.Context(), &PendingDrop{Lane: lane, Code: delivery.CodeDropped}, 1)
	if _, ok := errors.AsType[*SpaceError](err); !ok {
		t.Errorf("got %v", err)
	}
	mustEqual(t, "ready", h.stats(lane).Ready, int64(1))
	full.Store(false)
	h.clock.advance(2 * time.Second)
	h.expired(lane)
	h.sound()
}

// While many deliveries end, events for another lane are taken between the
// steps.
func TestOthersGoOnWhileManyDeliveriesEnd(t *testing.T) {
	h := newHarness(t)
	l := h.lane("x.a", "x.b")
	const n = 6000
	for range n / 500 {
		evs := make([]*Event, 500)
		for i := range evs {
			evs[i] = testEvent(i, l[0])
		}
		h.accept(evs...)
	}
	var accepted int
	q := &PendingDrop{Lane: l[0], Code: delivery.CodeDropped, Skip: func(seq uint64) bool { return seq == 1 }}
	steps := 0
	for more := true; more; steps++ {
		var err error
		if _, more, err = h.DropPending(t.Context(), q, n); err != nil {
			t.Fatal(err)
		}
		h.accept(testEvent(accepted, l[1]))
		accepted++
	}
	if steps < n/maxDropStep {
		t.Errorf("%d steps for %d deliveries", steps, n)
	}
	mustEqual(t, "ready on the other lane", len(h.ready(l[1])), accepted)
	mustSeqs(t, "ready", h.ready(l[0]), 1)
	h.sound()
}
