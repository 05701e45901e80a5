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

func TestDropLaneEndsWhatIsPendingButNotWhatIsInFlight(t *testing.T) {
	bubble(t, Options{ringSize: 4}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 2, w.recv.sink("a", after(time.Second, ok))), target(2, 2, w.recv.sink("b", after(time.Second, ok)))})
		w.d.Start()
		w.store.accept(40, 1, 2)
		time.Sleep(500 * time.Millisecond) // two in flight on each
		n, err := w.d.DropLane(t.Context(), 1)
		if n != 38 || err != nil {
			t.Errorf("dropped %d, %v", n, err)
		}
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 2, 38)
		w.wantCounts(2, 0, 40, 0)
		w.store.accept(5, 1)
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 7, 38)
		if n := w.recv.count(); n != 47 {
			t.Errorf("%d attempts, want 47", n)
		}
	})
}

// slowDrops takes its time for every step.
type slowDrops struct{ *memStore }

func (s slowDrops) DropPending(ctx context.Context, q *queue.PendingDrop, limit int) (int, bool, error) {
	time.Sleep(time.Second)
	return s.memStore.DropPending(ctx, q, limit)
}

func TestDuringADropTheLaneClaimsNothingAndOthersGoOn(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.store = slowDrops{w.store}
		w.d.Apply([]*Target{target(1, 2, w.recv.sink("a", after(100*time.Millisecond, down))), target(2, 2, w.recv.sink("b", ok))})
		w.d.Start()
		seqs := w.store.accept(30, 1)
		time.Sleep(50 * time.Millisecond)
		done := make(chan int64)
		go func() {
			n, err := w.d.DropLane(t.Context(), 1)
			if err != nil {
				t.Error(err)
			}
			done <- n
		}()
		time.Sleep(1500 * time.Millisecond)
		before := w.recv.count()
		w.store.accept(10, 2)
		// What an operator asks for meanwhile is not lost, nor sent too early.
		if err := w.d.Retry(t.Context(), 1, seqs[0]); err != nil {
			t.Error(err)
		}
		// A reload in the middle finds the lane closed and leaves it so.
		w.d.Apply([]*Target{target(1, 2, w.recv.sink("c", ok)), target(2, 2, w.recv.sink("d", ok))})
		time.Sleep(2 * time.Second)
		w.wantCounts(2, 0, 10, 0)
		if n := w.recv.count(); n != before+10 {
			t.Errorf("%d attempts of the lane that is being emptied", n-before-10)
		}
		// The two in flight at the beginning are spared with their retries.
		if n := <-done; n != 28 {
			t.Errorf("dropped %d", n)
		}
		time.Sleep(time.Hour)
		w.wantCounts(1, 0, 2, 28)
	})
}

func TestDropLaneWorksWhateverTheLaneIs(t *testing.T) {
	for name, apply := range map[string]func(w *world) []*Target{
		"never ran": func(*world) []*Target { return nil },
		"disabled": func(w *world) []*Target {
			held := target(1, 1, w.recv.sink("a", ok))
			held.Hold = delivery.HoldDisabled
			return []*Target{held}
		},
		"returned": func(w *world) []*Target {
			held := target(1, 1, w.recv.sink("a", ok))
			held.Hold = delivery.HoldReturned
			return []*Target{held}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, w *world) {
				w.d.Apply(apply(w))
				w.d.Start()
				w.store.accept(10, 1)
				if n, err := w.d.DropLane(t.Context(), 1); n != 10 || err != nil {
					t.Errorf("dropped %d, %v", n, err)
				}
				w.d.Apply([]*Target{target(1, 1, w.recv.sink("b", ok))})
				w.store.accept(3, 1)
				time.Sleep(time.Minute)
				w.wantCounts(1, 0, 3, 10)
			})
		})
	}
}

func TestDropLaneEndsReplaysAndStopsWithItsCaller(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.finished(200, 2, after(time.Second, ok))
		if _, err := w.d.Replay(t.Context(), queue.ReplayJob{Lane: 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if _, err := w.d.DropLane(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		w.wantCounts(1, 0, 4, 196)
		w.store.accept(20, 1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := w.d.DropLane(ctx, 1); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("dropped %d, %v", n, err)
		}
		time.Sleep(time.Hour)
		w.wantCounts(1, 0, 24, 196)
	})
}

// slowCount takes long to make a replay, as counting what matches may.
type slowCount struct{ *memStore }

func (s slowCount) CreateReplay(ctx context.Context, job queue.ReplayJob) (queue.ReplayJob, error) {
	time.Sleep(time.Minute)
	return s.memStore.CreateReplay(ctx, job)
}

func TestAReplayThatIsBeingCountedDoesNotHoldUpAReload(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.store = slowCount{w.store}
		w.finished(10, 1, ok)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := w.d.Replay(t.Context(), queue.ReplayJob{Lane: 1}); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		begin := time.Now()
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("b", ok))})
		if took := time.Since(begin); took != 0 {
			t.Errorf("the reload took %v", took)
		}
		<-done
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 10, 0)
	})
}

func TestBusyCoversAnAttemptUntilItsOutcomeIsCommitted(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.store.flush = 300 * time.Millisecond
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", after(time.Second, ok)))})
		w.d.Start()
		seqs := w.store.accept(2, 1)
		time.Sleep(500 * time.Millisecond)
		want := func(when string, first, second bool) {
			t.Helper()
			if a, b := w.d.Busy(1, seqs[0]), w.d.Busy(1, seqs[1]); a != first || b != second {
				t.Errorf("%s: busy %v and %v, want %v and %v", when, a, b, first, second)
			}
		}
		want("the first is in flight", true, false)
		time.Sleep(600 * time.Millisecond)
		want("the first is not committed, the second in flight", true, true)
		w.d.Apply(nil) // removed: what is in flight goes on
		time.Sleep(400 * time.Millisecond)
		want("the first is committed", false, true)
		time.Sleep(600 * time.Millisecond)
		want("the second is not committed", false, true)
		time.Sleep(time.Minute)
		want("all is over", false, false)
		w.wantCounts(1, 0, 2, 0)
		if w.d.Busy(9, 1) {
			t.Error("a lane that never ran is busy")
		}
	})
}
