package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// orderly is an ordered target.
func orderly(lane queue.Lane, concurrency int, s Sink) *Target {
	t := target(lane, concurrency, s)
	t.Ordered = true
	return t
}

// heard is the order in which deliveries of each entry came.
type heard struct {
	mu   sync.Mutex
	seqs map[string][]uint64
}

func (h *heard) note(o *delivery.Outbound) {
	_, _, seq, _ := id.ParseDelivery(o.DeliveryID)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seqs == nil {
		h.seqs = map[string][]uint64{}
	}
	h.seqs[o.EntryID] = append(h.seqs[o.EntryID], seq)
}

func (h *heard) noting(f answer) answer {
	return func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
		h.note(o)
		f(ctx, o, a)
	}
}

// only answers one event with f, the others with g.
func only(event string, f, g answer) answer {
	return func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
		if o.EventID == event {
			f(ctx, o, a)
			return
		}
		g(ctx, o, a)
	}
}

func (h *heard) of(entry string) []uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.seqs[entry])
}

func TestTheRestOfAnEntryWaitsUntilTheFirstHasSucceeded(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		var got heard
		w.store.entries = 2
		begin := time.Now()
		w.d.Apply([]*Target{orderly(1, 8, w.recv.sink("a", func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			got.note(o)
			if o.EventID == "evt_2" && o.Attempt < 3 {
				down(ctx, o, a)
				return
			}
			ok(ctx, o, a)
		}))})
		w.d.Start()
		w.store.accept(7, 1) // 2, 4 and 6 are of one entry
		time.Sleep(30 * time.Second)
		w.store.accept(1, 1) // 8, while 2 waits
		synctest.Wait()
		time.Sleep(time.Second)
		if len(got.of("entry-1")) != 4 || len(got.of("entry-0")) != 1 {
			t.Errorf("after 30 s: %v and %v", got.of("entry-1"), got.of("entry-0"))
		}
		for seq, want := range map[uint64]uint64{4: 2, 8: 2} {
			if head := w.store.headOf(1, seq); head != want {
				t.Errorf("%d waits for %d, want %d", seq, head, want)
			}
		}
		time.Sleep(time.Hour)
		if want := []uint64{2, 2, 2, 4, 6, 8}; !slices.Equal(got.of("entry-0"), want) {
			t.Errorf("came as %v, want %v", got.of("entry-0"), want)
		}
		for _, a := range w.recv.arrivals() {
			if want := begin.Add(6 * time.Minute); a.seq%2 == 0 && a.seq > 2 && (a.at.Before(want) || a.at.After(want.Add(2*time.Second))) {
				t.Errorf("%d came at %v, want soon after %v", a.seq, a.at.Sub(begin), want.Sub(begin))
			}
		}
		w.wantCounts(1, 0, 8, 0)
	})
}

func TestAFailureForGoodLetsTheNextOfTheEntryGo(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		var got heard
		w.store.entries = 1
		tgt := orderly(1, 8, w.recv.sink("a", got.noting(only("evt_2", refuse, down))))
		tgt.Policy.Schedule = tgt.Policy.Schedule[:1]
		w.d.Apply([]*Target{tgt})
		w.d.Start()
		w.store.accept(3, 1)
		time.Sleep(time.Hour)
		if want := []uint64{1, 1, 2, 3, 3}; !slices.Equal(got.of("entry-0"), want) {
			t.Errorf("came as %v, want %v", got.of("entry-0"), want)
		}
		w.wantCounts(1, 0, 0, 3)
	})
}

func TestOneOfAnEntryIsInFlightAndTheOthersAreKeptWithoutWriting(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		var got heard
		w.store.entries = 4
		slow := after(time.Second, ok)
		w.d.Apply([]*Target{orderly(1, 64, w.recv.sink("a", func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			got.note(o)
			slow(ctx, o, a)
		}))})
		w.d.Start()
		seqs := w.store.accept(40, 1)
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if n := w.recv.most["test.w1"]; n != 4 {
			t.Errorf("%d in flight at once, want one of each of 4 entries", n)
		}
		if head := w.d.WaitsFor(1, seqs[39]); head != seqs[3] {
			t.Errorf("the last waits for %d, want %d", head, seqs[3])
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.store.parked != 0 {
			t.Errorf("%d were parked", w.store.parked)
		}
		for e := range 4 {
			if seen := got.of(fmt.Sprintf("entry-%d", e)); len(seen) != 10 || !slices.IsSorted(seen) {
				t.Errorf("entry %d came as %v", e, seen)
			}
		}
	})
}

func TestAnEntryWithTooManyIsParkedAndTheOthersGoOn(t *testing.T) {
	bubble(t, Options{ringSize: 16}, func(t *testing.T, w *world) {
		var got heard
		release := make(chan struct{})
		w.store.entries = 1
		w.d.Apply([]*Target{orderly(1, 4, w.recv.sink("a", func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			got.note(o)
			if o.EventID == "evt_1" {
				select {
				case <-release:
				case <-ctx.Done():
				}
			}
			ok(ctx, o, a)
		}))})
		w.d.Start()
		w.store.accept(500, 1)
		w.store.entries = 0
		w.store.accept(20, 1)
		time.Sleep(10 * time.Second)
		if n := w.recv.count(); n != 21 {
			t.Errorf("%d came, want the first and 20 of other entries", n)
		}
		if n := w.d.held.Load(); n > 16*20 {
			t.Errorf("%d bytes are kept in memory", n)
		}
		close(release)
		time.Sleep(10 * time.Minute)
		if seen := got.of("entry-0"); len(seen) != 500 || !slices.IsSorted(seen) {
			t.Errorf("%d came, in order: %v", len(seen), slices.IsSorted(seen))
		}
		w.wantCounts(1, 0, 520, 0)
	})
}

func TestAnOutcomeThatDoesNotCountLeavesTheFirstTheFirst(t *testing.T) {
	for _, outcome := range []delivery.Outcome{delivery.RateLimited, delivery.Misconfigured, delivery.Interrupted, delivery.Crashed} {
		t.Run(outcome.String(), func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, w *world) {
				var got heard
				w.store.entries = 1
				tries := 0
				w.d.Apply([]*Target{orderly(1, 8, w.recv.sink("a", func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
					got.note(o)
					if tries++; tries < 3 {
						a.Outcome = outcome
						return
					}
					ok(ctx, o, a)
				}))})
				w.d.Start()
				w.store.accept(3, 1)
				time.Sleep(time.Hour)
				if want := []uint64{1, 1, 1, 2, 3}; !slices.Equal(got.of("entry-0"), want) {
					t.Errorf("came as %v, want %v", got.of("entry-0"), want)
				}
				w.wantCounts(1, 0, 3, 0)
			})
		})
	}
}

func TestOrderThatIsSwitchedOffLetsTheFollowersGo(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.sink("a", only("evt_1", down, ok))
		w.store.entries = 1
		w.d.Apply([]*Target{orderly(1, 4, s)})
		w.d.Start()
		w.store.accept(50, 1)
		time.Sleep(10 * time.Second)
		w.wantCounts(1, 50, 0, 0)
		w.d.Apply([]*Target{target(1, 4, s)})
		time.Sleep(10 * time.Second)
		w.wantCounts(1, 1, 49, 0)
		w.d.Apply([]*Target{orderly(1, 4, s)})
		w.store.accept(1, 1) // what waits already is outside the order
		time.Sleep(10 * time.Second)
		w.wantCounts(1, 1, 50, 0)
	})
}

func TestAnOperatorRetriesAndDropsWithinAnEntry(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		var got heard
		var up atomic.Bool
		w.store.entries = 1
		w.d.Apply([]*Target{orderly(1, 4, w.recv.sink("a", func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			got.note(o)
			if !up.Load() {
				down(ctx, o, a)
				return
			}
			ok(ctx, o, a)
		}))})
		w.d.Start()
		w.store.accept(4, 1)
		time.Sleep(time.Second)
		must := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		must(w.d.Retry(t.Context(), 1, 3)) // a follower stays where it is
		must(w.d.Drop(t.Context(), 1, 2))
		time.Sleep(time.Second)
		if want := []uint64{1}; !slices.Equal(got.of("entry-0"), want) {
			t.Errorf("came as %v, want %v", got.of("entry-0"), want)
		}
		must(w.d.Drop(t.Context(), 1, 1))
		time.Sleep(time.Second)
		up.Store(true)
		must(w.d.Retry(t.Context(), 1, 3)) // the head, which waits for its retry
		time.Sleep(time.Second)
		if want := []uint64{1, 3, 3, 4}; !slices.Equal(got.of("entry-0"), want) {
			t.Errorf("came as %v, want %v", got.of("entry-0"), want)
		}
		w.wantCounts(1, 0, 2, 2)
	})
}

func TestOnBadgerEntriesStayInOrderThroughFailuresAndRestarts(t *testing.T) {
	var got heard
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(3, 4))
	s := newSite(t, 2)
	s.entries = 25
	answer := func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
		if o.Webhook == "test.w1" {
			got.note(o)
		}
		mu.Lock()
		n := rng.IntN(10)
		mu.Unlock()
		switch {
		case n < 3:
			down(ctx, o, a)
		case n == 3:
			refuse(ctx, o, a)
		default:
			ok(ctx, o, a)
		}
	}
	apply := func() {
		var ts []*Target
		for _, l := range s.lanes {
			tgt := orderly(l, 6, s.recv.sink("s", answer))
			tgt.Policy.Schedule = []time.Duration{0, time.Millisecond, 20 * time.Millisecond}
			ts = append(ts, tgt)
		}
		s.d.Apply(ts)
	}
	apply()
	s.d.Start()
	total := int64(0)
	for range 4 {
		s.accept(300)
		total += 600
		s.close()
		s.open(2)
		apply()
		s.d.Start()
	}
	s.wait(0)
	if st := s.store.Stats(); st.Success+st.Failed != total {
		t.Errorf("stats: %+v", st)
	}
	for e := range 25 {
		if seen := got.of(fmt.Sprintf("e%d", e)); len(seen) < 48 || !slices.IsSorted(seen) {
			t.Errorf("entry %d came as %v", e, seen)
		}
	}
	s.wantNoFollowers()
	s.close()
}

func TestOnBadgerADeadEntryHoldsUpNoOther(t *testing.T) {
	var got heard
	s := newSite(t, 1)
	defer s.close()
	up := make(chan struct{})
	s.apply(ok, "")
	answer := func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
		got.note(o)
		select {
		case <-up:
		default:
			if o.EntryID == "e0" {
				down(ctx, o, a)
				return
			}
		}
		ok(ctx, o, a)
	}
	tgt := orderly(s.lanes[0], 6, s.recv.sink("s", answer))
	tgt.Policy.Schedule = []time.Duration{time.Hour}
	s.d.Apply([]*Target{tgt})
	s.d.Start()
	s.entries = 1
	seqs := s.accept(400)
	s.entries = 40
	s.accept(400)
	s.wait(410)
	s.await("all of the dead entry but its head parked", func() bool {
		followers, _ := s.store.Following(s.lanes[0])
		return followers == 409
	})
	if n := len(got.of("e0")); n != 1 {
		t.Errorf("%d attempts of the dead entry", n)
	}
	sum, err := s.store.Summary(s.lanes[0], seqs[399])
	if err != nil || sum.WaitsFor != seqs[0] {
		t.Errorf("the last waits for %d, want %d: %v", sum.WaitsFor, seqs[0], err)
	}
	close(up)
	if err := s.d.Retry(t.Context(), s.lanes[0], seqs[0]); err != nil {
		t.Fatal(err)
	}
	s.wait(0)
	if seen := got.of("e0"); len(seen) != 411 || !slices.IsSorted(seen) {
		t.Errorf("%d attempts of it, in order: %v", len(seen), slices.IsSorted(seen))
	}
	s.wantNoFollowers()
}

// wantNoFollowers fails unless the store is sound and nothing waits in it for
// another delivery.
func (s *site) wantNoFollowers() {
	s.t.Helper()
	for _, lane := range s.lanes {
		if followers, lines := s.store.Following(lane); followers != 0 || lines != 0 {
			s.t.Errorf("lane %d: %d followers and %d lines are left", lane, followers, lines)
		}
	}
	f, err := s.store.Verify(context.Background())
	if err != nil || len(f.Problems) > 0 {
		s.t.Errorf("%v %v", f.Problems, err)
	}
}
