package dispatch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

func TestRetryOfADeliveryInFlightIsAConflict(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", after(10*time.Second, down)))})
		w.d.Start()
		seq := w.store.accept(1, 1)[0]
		time.Sleep(time.Second)
		if !w.d.InFlight(1, seq) || w.d.LaneStats(1).InFlight != 1 {
			t.Error("the delivery does not count as in flight")
		}
		if err := w.d.Retry(t.Context(), 1, seq); !errors.Is(err, ErrInFlight) {
			t.Errorf("retry: %v", err)
		}
		if err := w.d.Drop(t.Context(), 1, seq); !errors.Is(err, ErrInFlight) {
			t.Errorf("drop: %v", err)
		}
	})
}

func TestRetryGivesAFreshScheduleAndAttemptsGoOnCounting(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", down))})
		w.d.Start()
		seq := w.store.accept(1, 1)[0]
		time.Sleep(2 * time.Minute) // two attempts, the third is due in four minutes
		if next := w.d.LaneStats(1).NextDue; time.Until(next).Round(time.Second) != 4*time.Minute {
			t.Errorf("next due in %v", time.Until(next))
		}
		if err := w.d.Retry(t.Context(), 1, seq); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		log := w.store.attempts(1, seq)
		if len(log) != 6 || log[5].Number != 6 || log[5].State != delivery.Failed || log[2].NextIn != time.Minute {
			t.Fatalf("%d attempts: %+v", len(log), log)
		}
		if err := w.d.Retry(t.Context(), 1, seq); err != nil { // finished: again a fresh schedule
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if log = w.store.attempts(1, seq); len(log) != 10 {
			t.Errorf("%d attempts, want 10", len(log))
		}
	})
}

func TestRetryRightAfterAnAttemptWaitsForItsCommit(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.store.flush = time.Second
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", refuse))})
		w.d.Start()
		seq := w.store.accept(1, 1)[0]
		time.Sleep(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := w.d.Retry(ctx, 1, seq); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("retry with too little time: %v", err)
		}
		if err := w.d.Retry(t.Context(), 1, seq); err != nil {
			t.Errorf("retry: %v", err)
		}
		time.Sleep(2 * time.Second)
		if n := w.recv.count(); n != 2 {
			t.Errorf("%d attempts, want 2", n)
		}
	})
}

func TestRetriesBeyondWhatMemoryTakesAreNotLost(t *testing.T) {
	bubble(t, Options{ringSize: 4}, func(t *testing.T, w *world) {
		w.store.readDelay = func() time.Duration { return 3 * time.Millisecond }
		begin := time.Now()
		w.d.Apply([]*Target{target(1, 2, w.recv.sink("a", until(begin.Add(time.Minute), refuse, after(10*time.Millisecond, ok))))})
		w.d.Start()
		seqs := w.store.accept(60, 1)
		time.Sleep(2 * time.Minute)
		w.wantCounts(1, 0, 0, 60)
		for i := range seqs {
			if err := w.d.Retry(t.Context(), 1, seqs[len(seqs)-1-i]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 60, 0)
		if n := w.recv.count(); n != 120 {
			t.Errorf("%d attempts, want 120", n)
		}
	})
}

func TestDropReachesADeliveryWhereverItIs(t *testing.T) {
	bubble(t, Options{ringSize: 4}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", after(time.Second, ok)))})
		w.d.Start()
		seqs := w.store.accept(20, 1) // one in flight, some in the ring, the others only in the store
		time.Sleep(10 * time.Millisecond)
		for _, seq := range []uint64{seqs[2], seqs[19]} {
			if err := w.d.Drop(t.Context(), 1, seq); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.d.Drop(t.Context(), 1, 999); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("drop of nothing: %v", err)
		}
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 18, 2)
		if n := w.recv.count(); n != 18 {
			t.Errorf("%d attempts, want 18", n)
		}
	})
}

func TestOperationsOnALaneThatNeverRan(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.Start()
		seqs := w.store.accept(2, 9)
		if err := w.d.Drop(t.Context(), 9, seqs[0]); err != nil {
			t.Error(err)
		}
		if err := w.d.Retry(t.Context(), 9, seqs[1]); err != nil {
			t.Error(err)
		}
		if err := w.d.Retry(t.Context(), 8, 1); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("retry on an unknown lane: %v", err)
		}
		if _, err := w.d.Test(t.Context(), 9, &delivery.Outbound{}); !errors.Is(err, ErrUnknownWebhook) {
			t.Errorf("test: %v", err)
		}
		if st := w.d.LaneStats(9); st.Hold != delivery.HoldRemoved {
			t.Errorf("hold %q", st.Hold)
		}
		w.d.Apply([]*Target{target(9, 1, w.recv.sink("a", ok))})
		time.Sleep(time.Second)
		w.wantCounts(9, 0, 1, 1)
	})
}

func TestTestWorksWhileHeldAndIsNotRecorded(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		tgt := target(1, 1, w.recv.sink("a", refuse))
		tgt.Hold = delivery.HoldDisabled
		w.d.Apply([]*Target{tgt})
		w.d.Start()
		a, err := w.d.Test(t.Context(), 1, &delivery.Outbound{Test: true, Attempt: 1})
		if err != nil || a.Status != 400 || a.Rule != delivery.RuleClientError || a.Number != 1 {
			t.Errorf("test: %+v %v", a, err)
		}
	})
}

func TestTestEndsWithItsCaller(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", after(time.Hour, ok)))})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		a, err := w.d.Test(ctx, 1, &delivery.Outbound{Test: true, Attempt: 1})
		if err != nil || a.Outcome != delivery.Retry || time.Since(begin) != time.Second {
			t.Errorf("test: %+v %v after %v", a, err, time.Since(begin))
		}
	})
}

// finished returns a world in which n deliveries of lane 1 have failed.
func (w *world) finished(n, concurrency int, answer answer) []uint64 {
	begin := time.Now()
	w.d.Apply([]*Target{target(1, concurrency, w.recv.sink("a", until(begin.Add(time.Minute), refuse, answer)))})
	w.d.Start()
	seqs := w.store.accept(n, 1)
	time.Sleep(time.Minute)
	synctest.Wait()
	w.wantCounts(1, 0, 0, n)
	return seqs
}

func TestAReplayBringsBackEverythingOnce(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.finished(1000, 8, after(10*time.Millisecond, ok))
		job, err := w.d.Replay(t.Context(), queue.ReplayJob{Lane: 1})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if pending, _, _ := w.store.count(1); pending > replayWindow+8 {
			t.Errorf("%d are pending at once, the window is %d", pending, replayWindow)
		}
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 1000, 0)
		if n := w.recv.count(); n != 2000 {
			t.Errorf("%d attempts, want 2000", n)
		}
		if js := w.d.Replays(); len(js) != 1 || js[0].ID != job.ID || !js[0].Done || js[0].Requeued != 1000 {
			t.Errorf("replays: %+v", js)
		}
		if n := w.d.LaneStats(1).Replays; n != 0 {
			t.Errorf("%d replays under way", n)
		}
	})
}

func TestAReplayKeepsItsRate(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.finished(100, 8, ok)
		if _, err := w.d.Replay(t.Context(), queue.ReplayJob{Lane: 1, Rate: 2}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if n := w.recv.count() - 100; n < 38 || n > 43 {
			t.Errorf("%d replayed in 20 s at 2/s", n)
		}
		time.Sleep(40 * time.Second)
		w.wantCounts(1, 0, 100, 0)
	})
}

func TestAReplayYieldsToLiveTrafficButGoesOn(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.finished(200, 4, after(100*time.Millisecond, ok))
		if _, err := w.d.Replay(t.Context(), queue.ReplayJob{Lane: 1}); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		live := map[uint64]bool{}
		for range 100 { // 10 s with three times as much live traffic as the lane can carry
			for _, seq := range w.store.accept(12, 1) {
				live[seq] = true
			}
			time.Sleep(100 * time.Millisecond)
		}
		fresh, replayed := 0, 0
		for _, a := range w.recv.arrivals() {
			if a.at.Before(begin.Add(time.Second)) {
				continue
			}
			if live[a.seq] {
				fresh++
			} else {
				replayed++
			}
		}
		if fresh < 260 || replayed < 80 || replayed > 95 {
			t.Errorf("%d live and %d replayed attempts in 9 s with room for 360: want three slots for live and one for the replay", fresh, replayed)
		}
		time.Sleep(5 * time.Minute)
		w.wantCounts(1, 0, 1400, 0)
	})
}

func TestACancelledReplayStops(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.finished(500, 4, after(100*time.Millisecond, ok))
		job, _ := w.d.Replay(t.Context(), queue.ReplayJob{Lane: 1})
		time.Sleep(time.Second)
		if err := w.d.CancelReplay(t.Context(), job.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		pending, success, _ := w.store.count(1)
		if pending != 0 || success > 30+replayWindow+8 {
			t.Errorf("%d pending, %d replayed after the cancel", pending, success)
		}
	})
}

func TestAReplayGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.finished(300, 4, after(100*time.Millisecond, ok))
		if _, err := w.d.Replay(t.Context(), queue.ReplayJob{Lane: 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if err := w.d.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		before := w.recv.count()
		w.d = New(Options{Store: w.store, StoreID: testStoreID})
		w.store.serve(w.d)
		w.d.Start()
		w.d.Apply([]*Target{target(1, 4, w.recv.sink("b", ok))})
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 300, 0)
		if n := w.recv.count(); n != 600 || before >= 600 {
			t.Errorf("%d attempts, want 600 (%d before the restart)", n, before)
		}
		if err := w.d.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAnOperatorsRetryOvertakesTheReplayItIsPartOf(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		seqs := w.finished(60, 1, after(time.Second, ok))
		if _, err := w.d.Replay(t.Context(), queue.ReplayJob{Lane: 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		if err := w.d.Retry(t.Context(), 1, seqs[50]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		seen := w.recv.arrivals()
		if seen[len(seen)-1].seq != seqs[50] {
			t.Errorf("seq %d came next, want %d", seen[len(seen)-1].seq, seqs[50])
		}
	})
}

func TestARetryThatMemoryHasNoRoomForIsFoundAlthoughAScanIsUnderWay(t *testing.T) {
	bubble(t, Options{ringSize: 1}, func(t *testing.T, w *world) {
		seqs := w.finished(10, 1, after(100*time.Millisecond, ok))
		w.store.mu.Lock()
		w.store.readDelay = func() time.Duration { return 50 * time.Millisecond }
		w.store.mu.Unlock()
		retry := func(i int) {
			if err := w.d.Retry(t.Context(), 1, seqs[i]); err != nil {
				t.Fatal(err)
			}
		}
		retry(9) // in flight for 100 ms
		synctest.Wait()
		retry(8) // in memory, in flight for the next 100 ms
		retry(7) // left to the store: the scan for it begins at 200 ms and takes 50
		time.Sleep(210 * time.Millisecond)
		l := w.d.table.Load().lanes[1]
		l.mu.Lock()
		scanning := l.scanning
		l.mu.Unlock()
		if !scanning {
			t.Fatal("no scan is under way; the case is not the one meant")
		}
		retry(5) // in memory
		retry(3) // left to the store, behind the cursor of the scan
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 5, 5)
	})
}

// reluctant gives up every drop after a while.
type reluctant struct{ *memStore }

var errReluctant = errors.New("not now")

func (reluctant) Drop(context.Context, queue.Lane, uint64) error {
	time.Sleep(time.Second)
	return errReluctant
}

func TestADropThatFailsLeavesTheDeliveryToBeFoundAgain(t *testing.T) {
	bubble(t, Options{ringSize: 4}, func(t *testing.T, w *world) {
		w.d.store = reluctant{w.store}
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", after(20*time.Millisecond, ok)))})
		w.d.Start()
		seqs := w.store.accept(20, 1)
		time.Sleep(10 * time.Millisecond)
		// It is in the store only; the scans pass over it while the drop is under way.
		if err := w.d.Drop(t.Context(), 1, seqs[15]); !errors.Is(err, errReluctant) {
			t.Errorf("drop: %v", err)
		}
		if n := w.recv.count(); n != 19 {
			t.Errorf("%d attempts while one is being dropped, want 19", n)
		}
		time.Sleep(time.Second)
		w.onceEach(seqs)
		w.wantCounts(1, 0, 20, 0)
	})
}
