package dispatch

import (
	"context"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func TestAHeldLaneKeepsNothingInMemoryAndLosesNothing(t *testing.T) {
	bubble(t, Options{ringSize: 8}, func(t *testing.T, w *world) {
		s := w.recv.sink("a", after(5*time.Millisecond, ok))
		enabled, disabled := target(1, 2, s), target(1, 2, s)
		disabled.Hold = delivery.HoldDisabled
		w.d.Apply([]*Target{disabled})
		w.d.Start()
		seqs := w.store.accept(100, 1)
		time.Sleep(time.Second)
		if n := w.recv.count(); n != 0 {
			t.Fatalf("%d attempts on a held lane", n)
		}
		if st := w.d.LaneStats(1); st.Hold != delivery.HoldDisabled {
			t.Errorf("hold is %q", st.Hold)
		}
		for range 20 { // held and let go again and again, with attempts in flight and commits on their way
			w.d.Apply([]*Target{enabled})
			time.Sleep(12 * time.Millisecond)
			w.d.Apply([]*Target{disabled})
			if n := w.d.held.Load(); n != 0 {
				t.Fatalf("a held lane keeps %d bytes", n)
			}
			time.Sleep(time.Millisecond)
			seqs = append(seqs, w.store.accept(1, 1)...)
		}
		w.d.Apply(nil)
		if st := w.d.LaneStats(1); st.Hold != delivery.HoldRemoved {
			t.Errorf("hold is %q", st.Hold)
		}
		time.Sleep(time.Second)
		if !s.isClosed() {
			t.Error("the sink of a removed webhook is still open")
		}
		again := w.recv.sink("b", ok)
		w.d.Apply([]*Target{target(1, 2, again)})
		time.Sleep(time.Second)
		w.onceEach(seqs)
		w.wantCounts(1, 0, len(seqs), 0)
	})
}

func TestARateLimitPausesTheLaneAndUsesNoAttempt(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begin := time.Now()
		limited := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
			a.Outcome, a.RetryAfter = delivery.RateLimited, 90*time.Second
		}
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", until(begin.Add(time.Second), limited, ok)))})
		w.d.Start()
		seqs := w.store.accept(3, 1)
		time.Sleep(10 * time.Second)
		st := w.d.LaneStats(1)
		if st.Hold != delivery.HoldRateLimited || st.HoldEnds.Sub(begin) != 90*time.Second {
			t.Errorf("held as %q until %v", st.Hold, st.HoldEnds.Sub(begin))
		}
		time.Sleep(time.Hour)
		seen := w.recv.arrivals()
		if len(seen) != 4 || seen[1].at.Sub(begin) != 90*time.Second || seen[1].attempt != 1 || seen[1].seq != seqs[0] {
			t.Errorf("arrivals: %+v", seen)
		}
		w.wantCounts(1, 0, 3, 0)
	})
}

func TestAMisconfiguredSinkIsProbedWithOneDeliveryEveryFiveMinutes(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begin := time.Now()
		bad := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) { a.Outcome = delivery.Misconfigured }
		s := w.recv.sink("a", until(begin.Add(12*time.Minute), bad, ok))
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		w.store.accept(20, 1)
		time.Sleep(14 * time.Minute)
		if seen := w.recv.arrivals(); len(seen) != 3 || seen[2].at.Sub(begin) != 10*time.Minute {
			t.Errorf("probes: %+v", seen)
		}
		if st := w.d.LaneStats(1); st.Hold != delivery.HoldMisconfigured {
			t.Errorf("hold is %q", st.Hold)
		}
		time.Sleep(2 * time.Minute)
		w.wantCounts(1, 0, 20, 0)
		if st := w.d.LaneStats(1); st.Hold != "" {
			t.Errorf("hold is %q after it works again", st.Hold)
		}
	})
}

func TestAnOperatorCanHaveAMisconfiguredSinkProbedNow(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begin := time.Now()
		bad := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
			a.Outcome, a.Error = delivery.Misconfigured, "the token was revoked"
		}
		w.d.Apply([]*Target{target(1, 4, w.recv.sink("a", until(begin.Add(20*time.Second), bad, ok)))})
		w.d.Start()
		w.store.accept(20, 1)
		time.Sleep(10 * time.Second)
		if st := w.d.LaneStats(1); st.HoldWhy != "the token was revoked" {
			t.Errorf("held because of %q", st.HoldWhy)
		}
		before := len(w.recv.arrivals())
		w.d.Probe()
		w.d.Probe()
		time.Sleep(time.Second)
		if seen := w.recv.arrivals(); len(seen) != before+1 {
			t.Errorf("%d deliveries went although one probe was asked for", len(seen)-before)
		}
		time.Sleep(10 * time.Second)
		w.d.Probe()
		time.Sleep(time.Second)
		w.wantCounts(1, 0, 20, 0)
		if st := w.d.LaneStats(1); st.Hold != "" || st.HoldWhy != "" {
			t.Errorf("held as %q because of %q after it works again", st.Hold, st.HoldWhy)
		}
	})
}

func TestASinkSaysWhyItIsHeldButNotWhyAnotherHoldsIt(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{}, ok)
		enabled, disabled := target(1, 1, s), target(1, 1, s)
		disabled.Hold = delivery.HoldDisabled
		w.d.Apply([]*Target{enabled})
		w.d.Start()
		if st := w.d.LaneStats(1); st.HoldWhy != "" {
			t.Errorf("a lane that is not held: %q", st.HoldWhy)
		}
		s.hold(w.d, delivery.HoldPluginDown)
		if st := w.d.LaneStats(1); st.Hold != delivery.HoldPluginDown || st.HoldWhy != "its process is away: plugin_down" {
			t.Errorf("held as %q: %q", st.Hold, st.HoldWhy)
		}
		w.d.Apply([]*Target{disabled})
		if st := w.d.LaneStats(1); st.Hold != delivery.HoldDisabled || st.HoldWhy != "" {
			t.Errorf("held as %q: %q", st.Hold, st.HoldWhy)
		}
		w.d.Apply([]*Target{enabled})
		s.hold(w.d, "")
	})
}

func TestNewSettingsEndTheHoldOfAMisconfiguredSink(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		bad := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) { a.Outcome = delivery.Misconfigured }
		w.d.Apply([]*Target{target(1, 4, w.recv.sink("a", bad))})
		w.d.Start()
		w.store.accept(20, 1)
		time.Sleep(time.Second)
		fixed := target(1, 4, w.recv.sink("b", ok))
		fixed.Generation = 2
		w.d.Apply([]*Target{fixed})
		time.Sleep(time.Second)
		w.wantCounts(1, 0, 20, 0)
	})
}

func TestADeliveryThatCameBackIsFoundAlthoughTheLaneReopenedBeforeItsCommit(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.store.flush = time.Second
		bad := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) { a.Outcome = delivery.Misconfigured }
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", bad))})
		w.d.Start()
		seq := w.store.accept(3, 1)[0]
		time.Sleep(100 * time.Millisecond)
		fixed := target(1, 1, w.recv.sink("b", ok))
		fixed.Generation = 2
		w.d.Apply([]*Target{fixed}) // the scan from the mark passes over the first: its attempt is not recorded yet
		time.Sleep(3 * time.Second)
		w.wantCounts(1, 0, 3, 0)
		if log := w.store.attempts(1, seq); len(log) != 2 || log[0].Rule != delivery.RuleMisconfigured || log[1].Number != 1 {
			t.Errorf("log: %+v", log)
		}
	})
}

func TestAProbeWithNothingPendingWaitsForTheNextDelivery(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begin := time.Now()
		bad := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) { a.Outcome = delivery.Misconfigured }
		w.d.Apply([]*Target{target(1, 4, w.recv.sink("a", until(begin.Add(time.Second), bad, ok)))})
		w.d.Start()
		seq := w.store.accept(1, 1)[0]
		time.Sleep(10 * time.Millisecond)
		if err := w.d.Drop(t.Context(), 1, seq); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		w.store.accept(5, 1)
		time.Sleep(time.Second)
		w.wantCounts(1, 0, 5, 1)
	})
}
