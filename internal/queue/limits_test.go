package queue

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func TestLimitsOfLiveBytesMayChangeWhileTheStoreIsOpen(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane))
	refused := func(what, helper string) {
		t.Helper()
		ev := testEvent(3, lane)
		if err := h.Accept(t.Context(), []*Event{ev}); err != nil {
			t.Fatal(err)
		}
		if q, ok := errors.AsType[*QuotaError](ev.Err); !ok || q.Helper != helper {
			t.Errorf("%s: %v", what, ev.Err)
		}
	}
	for _, c := range []struct {
		name   string
		l      Limits
		helper string
	}{
		{"the whole queue", Limits{MaxBytes: 100}, ""},
		{"one helper", Limits{MaxBytesPerHelper: 100}, "x"},
	} {
		if err := h.Configure(t.Context(), c.l); err != nil {
			t.Fatal(err)
		}
		refused(c.name, c.helper)
	}
	if err := h.Configure(t.Context(), Limits{}); err != nil {
		t.Fatal(err)
	}
	h.accept(testEvent(3, lane))
	mustSeqs(t, "what was accepted stays", h.ready(lane), 1, 2, 3)
	h.sound()
}

func TestMinFreeMayChangeWhileTheStoreIsOpen(t *testing.T) {
	h := newHarness(t, func(o *Options) {
		o.stat = func(string) (diskState, error) {
			return diskState{free: 1 << 30, total: 1 << 40, maxOpen: 1 << 20}, nil
		}
		o.MinFree = 512 << 20
	})
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	if err := h.Configure(t.Context(), Limits{MinFree: 2 << 30}); err != nil {
		t.Fatal(err)
	}
	err := h.Accept(t.Context(), []*Event{testEvent(2, lane)})
	if space, ok := errors.AsType[*SpaceError](err); !ok || space.Need != 2<<30 {
		t.Errorf("with a higher mark: %v", err)
	}
	if err := h.Configure(t.Context(), Limits{MinFree: 256 << 20}); err != nil {
		t.Fatal(err)
	}
	h.accept(testEvent(2, lane))
}

// passes waits until no pass of retention is planned or under way.
func (h *harness) passes() {
	h.t.Helper()
	h.until("retention is through", func() bool {
		idle := false
		h.do(h.t.Context(), func(*group) error { idle = h.Store.c.retiring == nil; return nil })
		return idle
	})
}

func TestAShorterRetentionHoldsAtOnce(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane))
	h.finish(h.ready(lane)[0], delivery.Success, 0)
	h.settle()
	h.clock.advance(3 * day)
	h.accept(testEvent(3, lane))
	before := h.Stats().Groups
	if err := h.Configure(t.Context(), Limits{}); err != nil { // the same
		t.Fatal(err)
	}
	mustEqual(t, "transactions for nothing", h.Stats().Groups, before)
	if err := h.Configure(t.Context(), Limits{Retention: Retention{Payloads: day, Delivered: day}}); err != nil {
		t.Fatal(err)
	}
	h.until("the first day is gone", func() bool {
		_, err := h.Summary(lane, 1)
		return errors.Is(err, ErrNotFound)
	})
	mustSeqs(t, "pending", h.ready(lane), 2, 3)
	h.sound()
}

// The pass is caught in the middle: what it has not dropped yet is kept under
// the longer retention.
func TestALongerRetentionKeepsWhatAPassWasAboutToDrop(t *testing.T) {
	h := newHarness(t, shortRetention)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane))
	h.finish(h.ready(lane)[0], delivery.Success, 0)
	h.settle()
	h.clock.advance(3 * day)
	err := h.do(context.Background(), func(*group) error {
		s := h.Store
		s.mu.Unlock() // planning takes it
		defer s.mu.Lock()
		if s.c.retiring = s.planRetirement(); s.c.retiring == nil {
			t.Error("there is nothing to drop; the case is not the one meant")
		}
		s.configure(Limits{}.withDefaults())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.passes()
	if _, err := h.Event(1); err != nil {
		t.Errorf("payload within the longer retention: %v", err)
	}
	h.sound()
}

func TestConfigureIsSafeBesideEverythingElse(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; !stop.Load(); n++ {
			l := Limits{MaxBytes: int64(1<<30 + n), MinFree: int64(512<<20 + n%2)}
			l.Retention.Delivered = day * (1 + 1<<(n%3))
			if err := h.Configure(context.Background(), l); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for n := range 200 {
		h.accept(testEvent(n+1, lane))
		h.finish(h.ready(lane)[0], delivery.Success, 0)
		h.clock.advance(day / 8)
	}
	stop.Store(true)
	<-done
	h.settle()
	mustEqual(t, "success", h.stats(lane).Success, int64(200))
	h.sound()
}

func TestCountingAReplayEndsWithItsCaller(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("gone")
	cancel(why)
	if _, err := h.CountReplay(ctx, ReplayJob{Lane: lane}); !errors.Is(err, why) {
		t.Errorf("count: %v", err)
	}
	if _, err := h.CreateReplay(ctx, ReplayJob{Lane: lane}); !errors.Is(err, why) {
		t.Errorf("create: %v", err)
	}
	mustEqual(t, "jobs", len(h.Replays()), 0)
}
