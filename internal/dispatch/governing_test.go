package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

func TestAHeldSinkIsNotCalledAndGoesOnWhenItsOwnerSaysSo(t *testing.T) {
	bubble(t, Options{ringSize: 8}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{}, ok)
		s.held = delivery.HoldPluginDown
		w.d.Apply([]*Target{target(1, 2, s)})
		w.d.Start()
		seqs := w.store.accept(100, 1)
		time.Sleep(time.Hour)
		if st := w.d.LaneStats(1); w.recv.count() != 0 || st.Hold != delivery.HoldPluginDown || !st.HoldEnds.IsZero() {
			t.Errorf("%d attempts, %+v", w.recv.count(), st)
		}
		if n := w.d.held.Load(); n != 0 {
			t.Errorf("a held lane keeps %d bytes", n)
		}
		s.hold(w.d, "")
		time.Sleep(time.Second)
		w.onceEach(seqs)
		if st := w.d.LaneStats(1); st.Hold != "" {
			t.Errorf("hold is %q", st.Hold)
		}
	})
}

func TestASinkThatGoesDownDuringCallsGetsThemAgainWithoutAPauseAndUncounted(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begin := time.Now()
		s := w.recv.many("a", Limits{}, nil)
		s.answer = func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
			if time.Since(begin) < 20*time.Millisecond {
				time.Sleep(10 * time.Millisecond)
				a.Outcome, a.Code = delivery.Interrupted, delivery.CodePluginDown
				return
			}
			a.Outcome = delivery.Delivered
		}
		w.d.Apply([]*Target{target(1, 4, s)})
		w.d.Start()
		w.store.accept(3, 1)
		time.Sleep(5 * time.Millisecond)
		s.hold(w.d, delivery.HoldPluginDown)
		time.Sleep(20 * time.Millisecond)
		s.hold(w.d, "")
		synctest.Wait() // at once, a second of pause would show
		if n := w.recv.count(); n != 6 {
			t.Errorf("%d arrivals, want each of the three twice", n)
		}
		time.Sleep(time.Second)
		for seq := range uint64(3) {
			if log := w.store.attempts(1, seq+1); len(log) != 1 || log[0].Number != 1 {
				t.Errorf("delivery %d: %+v", seq+1, log)
			}
		}
	})
}

func TestASinkThatSendsNothingThoughItIsNotHeldIsNotCalledInABusyLoop(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{}, func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
			a.Outcome, a.Code = delivery.Interrupted, delivery.CodePluginDown
		})
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		w.store.accept(1, 1)
		time.Sleep(10500 * time.Millisecond)
		if n := w.recv.count(); n != 11 {
			t.Errorf("%d calls in ten seconds and a half", n)
		}
		w.wantCounts(1, 1, 0, 0)
	})
}

func TestLimitsThatChangeHoldFromTheNextCallOn(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{Concurrency: 1}, after(time.Second, ok))
		w.d.Apply([]*Target{target(1, 8, s)})
		w.d.Start()
		w.store.accept(20, 1)
		time.Sleep(1500 * time.Millisecond)
		if n := len(s.made()); n != 2 {
			t.Fatalf("%d calls", n)
		}
		s.hold(w.d, delivery.HoldPluginDown)
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.limits = Limits{Concurrency: 1, Batch: 6, Linger: linger}
		s.mu.Unlock()
		s.hold(w.d, "")
		time.Sleep(time.Minute)
		wantSizes(t, s, 1, 1, 6, 6, 6)
	})
}

// spacing is the shortest time in which n+1 calls began.
func spacing(calls []call, n int) time.Duration {
	least := time.Duration(1<<63 - 1)
	for i := range calls {
		if i+n < len(calls) {
			least = min(least, calls[i+n].at.Sub(calls[i].at))
		}
	}
	return least
}

func TestCallsKeepThePaceThatTheSinkWants(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		most   int // calls within a second
	}{
		{Limits{PerSecond: 1}, 1},
		{Limits{PerSecond: 5, Burst: 3}, 7},
		{Limits{PerSecond: 3, Batch: 4, Linger: linger}, 3},
		{Limits{PerSecond: 1000. / 7, Burst: 2, Concurrency: 3}, 144},
	} {
		bubble(t, Options{ringSize: 8}, func(t *testing.T, w *world) {
			s := w.recv.many("a", c.limits, after(30*time.Millisecond, ok))
			w.d.Apply([]*Target{target(1, 10, s)})
			w.d.Start()
			begin := time.Now()
			seqs := w.store.accept(200, 1)
			time.Sleep(20 * time.Minute)
			w.onceEach(seqs)
			calls := s.made()
			if least := spacing(calls, c.most); least < time.Second {
				t.Errorf("%+v: %d calls within %v", c.limits, c.most+1, least)
			}
			took := calls[len(calls)-1].at.Sub(begin).Seconds()
			if least := float64(len(calls)-1-c.limits.Burst) / c.limits.PerSecond; took > 1.1*least+0.5 && c.limits.Concurrency == 0 {
				t.Errorf("%+v: %d calls took %.2f s, %.2f s would do", c.limits, len(calls), took, least)
			}
		})
	}
}

func TestThePaceOutlivesAChangeOfTheConfigurationAndRetriesKeepIt(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		var sinks []*manySink
		apply := func() {
			s := w.recv.many("a", Limits{PerSecond: 0.5}, until(time.Now().Add(time.Minute), down, ok))
			sinks = append(sinks, s)
			tg := target(1, 4, s)
			tg.Policy.Schedule = []time.Duration{time.Second, time.Second, time.Minute, time.Minute, time.Minute}
			w.d.Apply([]*Target{tg})
		}
		apply()
		w.d.Start()
		w.store.accept(10, 1)
		for range 40 {
			time.Sleep(700 * time.Millisecond)
			apply()
		}
		if _, err := w.d.Test(context.Background(), 1, &delivery.Outbound{Test: true, Attempt: 1}); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		w.wantCounts(1, 0, 10, 0)
		if _, err := w.d.Replay(context.Background(), queue.ReplayJob{Lane: 1}); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		w.wantCounts(1, 0, 10, 0)
		var last time.Time
		tests := 0
		for _, s := range sinks {
			for _, c := range s.made() {
				if c.seqs[0] == 0 { // the test waited for nobody
					tests++
				} else if c.at.Sub(last) < 2*time.Second {
					t.Errorf("two calls within %v", c.at.Sub(last))
				}
				last = c.at
			}
		}
		if tests != 1 {
			t.Errorf("%d tests", tests)
		}
	})
}

func TestAPacedLaneSleepsWhenItHasNothingToDo(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{PerSecond: 0.01}, ok)
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		w.store.accept(1, 1)
		time.Sleep(time.Second)
		l := w.d.table.Load().lanes[1]
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.armed != 0 {
			t.Errorf("an idle lane wants to be woken in %d ms", l.armed-w.store.Now())
		}
	})
}

func TestWhateverRateASinkAsksForThePaceIsDefined(t *testing.T) {
	const now = 1_700_000_000_000
	for _, c := range []struct {
		limits Limits
		next   int64 // ms after now, after two calls at once
	}{
		{Limits{}, -1}, {Limits{PerSecond: -1}, -1}, {Limits{PerSecond: nan()}, -1}, {Limits{PerSecond: 1e300, Burst: 1 << 40}, 0},
		{Limits{PerSecond: 1}, 2000}, {Limits{PerSecond: 1, Burst: 2}, 1000}, {Limits{PerSecond: 1, Burst: 3}, 0},
		{Limits{PerSecond: 1e-300}, 2 * maxPace.Milliseconds()},
	} {
		var p pace
		p.spend(&c.limits, now)
		p.spend(&c.limits, now)
		got := p.next(&c.limits)
		if c.next == -1 {
			if got != 0 {
				t.Errorf("%+v: next at %d, want no limit", c.limits, got)
			}
			continue
		}
		if d := max(got-now, 0); d != c.next {
			t.Errorf("%+v: next in %d ms, want %d", c.limits, d, c.next)
		}
		p.refund(&c.limits)
		p.refund(&c.limits)
		if again := p.next(&c.limits); again > now {
			t.Errorf("%+v: not all was refunded: %d", c.limits, again-now)
		}
	}
}

func nan() float64 { var zero float64; return zero / zero }

func TestADeliveryThatComesBeforeThePaceAllowsItIsSentWhenItDoes(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{PerSecond: 1}, ok)
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		seqs := w.store.accept(1, 1)
		time.Sleep(500 * time.Millisecond)
		seqs = append(seqs, w.store.accept(1, 1)...)
		time.Sleep(10 * time.Second)
		w.onceEach(seqs)
	})
}

func TestARestartIsNoReasonForABurst(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{PerSecond: 2, Burst: 8}, ok)
		w.d.Apply([]*Target{target(1, 20, s)})
		w.d.Start()
		w.store.accept(30, 1)
		time.Sleep(10 * time.Millisecond)
		if n := len(s.made()); n != 1 {
			t.Errorf("%d calls at once after a start", n)
		}
		time.Sleep(time.Minute) // all are sent, and the burst is earned
		w.store.accept(30, 1)
		time.Sleep(10 * time.Millisecond)
		if n := len(s.made()); n != 38 {
			t.Errorf("%d calls at once after a quiet time, want 8", n-30)
		}
	})
}

// While any entry waits for its head each claim asks the store, without the lock.
func TestWorkersThatAskTheStoreForTheOrderKeepThePaceTogether(t *testing.T) {
	for _, per := range []int{1, 3} {
		bubble(t, Options{}, func(t *testing.T, w *world) {
			limits := Limits{PerSecond: 1, Batch: per, Ordered: true}
			s := w.recv.many("a", limits, only("evt_1", down, ok))
			w.store.entries = 50
			w.d.Apply([]*Target{target(1, 8, s)})
			w.d.Start()
			seqs := w.store.accept(1, 1)
			time.Sleep(10 * time.Second) // it waits for a retry: there is a line
			w.store.mu.Lock()
			w.store.readDelay = func() time.Duration { return time.Millisecond }
			w.store.mu.Unlock()
			seqs = append(seqs, w.store.accept(30, 1)...)
			time.Sleep(30 * time.Second)
			if least := spacing(s.made(), 1); least < time.Second {
				t.Errorf("%d a call: two calls within %v", per, least)
			}
			if n := w.recv.count(); n < 30 {
				t.Errorf("%d a call: %d arrivals of %d", per, n, len(seqs))
			}
		})
	}
}
