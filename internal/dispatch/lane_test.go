package dispatch

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// onceEach fails unless every sequence arrived exactly once.
func (w *world) onceEach(seqs []uint64) {
	w.t.Helper()
	times := map[uint64]int{}
	for _, a := range w.recv.arrivals() {
		times[a.seq]++
	}
	for _, seq := range seqs {
		if times[seq] != 1 {
			w.t.Errorf("seq %d arrived %d times", seq, times[seq])
		}
	}
	if len(times) != len(seqs) {
		w.t.Errorf("%d sequences arrived, %d were accepted", len(times), len(seqs))
	}
}

func TestABurstSpillsAndIsReadBackInOrder(t *testing.T) {
	bubble(t, Options{ringSize: 4}, func(t *testing.T, w *world) {
		w.store.readDelay = func() time.Duration { return time.Duration(w.store.rng.IntN(3)) * time.Millisecond }
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", after(time.Millisecond, ok)))})
		w.d.Start()
		rng := rand.New(rand.NewPCG(7, 8))
		var seqs []uint64
		for range 200 {
			seqs = append(seqs, w.store.accept(5, 1)...)
			time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond)
		}
		time.Sleep(time.Minute)
		w.onceEach(seqs)
		for i, a := range w.recv.arrivals() {
			if a.seq != seqs[i] {
				t.Fatalf("arrival %d is seq %d, want %d: one at a time must keep the order", i, a.seq, seqs[i])
			}
		}
		w.wantCounts(1, 0, len(seqs), 0)
		if w.d.held.Load() != 0 {
			t.Errorf("%d bytes are still counted as held", w.d.held.Load())
		}
	})
}

func TestAnUnspilledLaneReadsNothingBack(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 4, w.recv.sink("a", ok))})
		w.d.Start()
		time.Sleep(time.Second)
		before := w.store.reads.Load()
		var seqs []uint64
		for range 100 {
			seqs = append(seqs, w.store.accept(3, 1)...)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		w.onceEach(seqs)
		if w.store.reads.Load() != before {
			t.Errorf("%d reads of the store, want none", w.store.reads.Load()-before)
		}
	})
}

func TestTheByteBudgetSpillsButStopsNobody(t *testing.T) {
	bubble(t, Options{RingBytes: 100}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("slow", after(time.Hour, ok))), target(2, 1, w.recv.sink("fast", ok))})
		w.d.Start()
		w.store.accept(50, 1)
		seqs := w.store.accept(50, 2)
		time.Sleep(time.Second)
		if _, success, _ := w.store.count(2); success != len(seqs) {
			t.Errorf("%d of %d delivered beside a lane that used up the budget", success, len(seqs))
		}
	})
}

func TestASlowLaneDelaysNoOther(t *testing.T) {
	bubble(t, Options{ringSize: 8}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{
			target(1, 4, w.recv.sink("tarpit", after(20*time.Second, ok))),
			target(2, 4, w.recv.sink("healthy", after(time.Millisecond, ok))),
		})
		w.d.Start()
		for range 500 {
			w.store.accept(1, 1, 2)
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		w.wantCounts(2, 0, 500, 0)
		if w.recv.most["test.w1"] != 4 {
			t.Errorf("the slow lane had %d attempts at once, want its concurrency of 4", w.recv.most["test.w1"])
		}
		w.d.Apply(nil)
	})
}

func TestApplyUnderLoadClosesOldSinksAfterTheirLastAttempt(t *testing.T) {
	bubble(t, Options{ringSize: 16}, func(t *testing.T, w *world) {
		rng := rand.New(rand.NewPCG(3, 4))
		var sinks []*sink
		apply := func(gen uint64) {
			var targets []*Target
			for lane := queue.Lane(1); lane <= 3; lane++ {
				s := w.recv.sink("generation", after(time.Duration(rng.IntN(40))*time.Millisecond, ok))
				sinks = append(sinks, s)
				tgt := target(lane, 1+rng.IntN(6), s)
				tgt.Generation = gen
				targets = append(targets, tgt)
			}
			w.d.Apply(targets)
		}
		apply(1)
		w.d.Start()
		n := 0
		for gen := range uint64(50) {
			n += len(w.store.accept(5, 1, 2, 3))
			time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
			apply(gen + 2)
		}
		time.Sleep(10 * time.Second)
		for lane := queue.Lane(1); lane <= 3; lane++ {
			w.wantCounts(lane, 0, n, 0)
		}
		if got := w.recv.count(); got != 3*n {
			t.Errorf("%d attempts for %d deliveries", got, 3*n)
		}
		for i, s := range sinks {
			if s.isClosed() != (i < len(sinks)-3) {
				t.Errorf("sink %d of %d: closed is %v", i, len(sinks), s.isClosed())
			}
		}
	})
}

func TestAPanicIsARetryAndItsStackStaysInTheLog(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
			if a.Headers = []delivery.Header{{Name: "half", Value: "done"}}; w.recv.count() == 1 {
				panic("whsec_secret")
			}
			*a = delivery.Attempt{Outcome: delivery.Delivered}
		}))})
		w.d.Start()
		seq := w.store.accept(1, 1)[0]
		time.Sleep(2 * time.Minute)
		log := w.store.attempts(1, seq)
		if len(log) != 2 || log[0].Outcome != delivery.Retry || log[0].Code != delivery.CodePanic || log[0].Headers != nil || log[0].Number != 1 {
			t.Errorf("log: %+v", log)
		}
		w.wantCounts(1, 0, 1, 0)
		synctest.Wait()
		if logs := w.logs.String(); !strings.Contains(logs, "sink panicked") || !strings.Contains(logs, "attempt.go") || strings.Contains(logs, "whsec_") {
			t.Errorf("log: %s", logs)
		}
	})
}

func TestOneLineWhenAWebhookStartsToFailAndOneWhenItWorksAgain(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begin := time.Now()
		w.d.Apply([]*Target{target(1, 4, w.recv.sink("a", until(begin.Add(5*time.Minute), down, ok)))})
		w.d.Start()
		for range 100 {
			w.store.accept(2, 1)
			time.Sleep(6 * time.Second)
		}
		synctest.Wait()
		logs := w.logs.String()
		if n := strings.Count(logs, "\n"); n != 2 || !strings.Contains(logs, `level=WARN msg="webhook fails" webhook=test.w1 delivery_id=del_`) ||
			!strings.Contains(logs, `level=INFO msg="webhook works again" webhook=test.w1`) {
			t.Errorf("log: %s", logs)
		}
	})
}

func TestAnAttemptEndsWithItsTimeout(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		tgt := target(1, 1, w.recv.sink("a", after(time.Hour, ok)))
		tgt.Policy.Timeout = 7 * time.Second
		w.d.Apply([]*Target{tgt, target(2, 1, w.recv.sink("default", after(time.Hour, ok)))})
		w.d.Start()
		seq := w.store.accept(1, 1, 2)[0]
		time.Sleep(50 * time.Second)
		a, b := w.store.attempts(1, seq), w.store.attempts(2, seq)
		if len(a) != 1 || a[0].Duration != 7*time.Second || a[0].Code != delivery.CodeTimeout {
			t.Errorf("attempts: %+v", a)
		}
		if len(b) != 1 || b[0].Duration != DefaultTimeout {
			t.Errorf("attempts under the default: %+v", b)
		}
	})
}

func TestRetriesAndFreshDeliveriesShareALaneFairly(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begin := time.Now()
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", until(begin.Add(time.Second), down, after(100*time.Millisecond, ok))))})
		w.d.Start()
		w.store.accept(100, 1) // all fail at once and are due in a minute
		time.Sleep(58 * time.Second)
		w.store.accept(200, 1) // 20 s of work
		time.Sleep(12 * time.Second)
		fresh, again := 0, 0
		for _, a := range w.recv.arrivals() {
			if a.at.Sub(begin) > 61*time.Second {
				if a.attempt == 1 {
					fresh++
				} else {
					again++
				}
			}
		}
		if fresh+again < 80 || fresh < again-2 || again < fresh-2 {
			t.Errorf("%d fresh deliveries and %d retries in the same time, want as many of each", fresh, again)
		}
	})
}

func TestPauseStopsClaimsAndResumeGoesOn(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 2, w.recv.sink("a", after(10*time.Millisecond, ok)))})
		w.d.Start()
		w.store.accept(10, 1)
		time.Sleep(15 * time.Millisecond)
		w.d.Pause(delivery.HoldStorage)
		time.Sleep(time.Second)
		n := w.recv.count()
		w.store.accept(5, 1)
		time.Sleep(time.Minute)
		if got := w.recv.count(); got != n || n > 4 {
			t.Errorf("%d attempts before the pause, %d after a minute of it", n, got)
		}
		if st := w.d.LaneStats(1); st.Hold != delivery.HoldStorage {
			t.Errorf("hold is %q", st.Hold)
		}
		w.d.Resume()
		time.Sleep(time.Second)
		w.wantCounts(1, 0, 15, 0)
	})
}

func TestStopWaitsForWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		s := w.recv.sink("a", after(5*time.Second, ok))
		w.d.Apply([]*Target{target(1, 2, s)})
		w.d.Start()
		w.store.accept(5, 1)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		begin := time.Now()
		if err := w.d.Stop(ctx); err != nil || time.Since(begin) != 4*time.Second {
			t.Errorf("stop: %v after %v", err, time.Since(begin))
		}
		time.Sleep(time.Second)
		w.wantCounts(1, 3, 2, 0)
		if !s.isClosed() {
			t.Error("the sink is still open")
		}
		if err := w.d.Stop(t.Context()); err != nil {
			t.Errorf("second stop: %v", err)
		}
		if _, err := w.d.Test(t.Context(), 1, &delivery.Outbound{Test: true}); !errors.Is(err, delivery.ErrShutdown) {
			t.Errorf("test after stop: %v", err)
		}
	})
}

func TestStopInterruptsWithoutUsingUpAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		cause := make(chan error, 2)
		w.d.Apply([]*Target{target(1, 2, w.recv.sink("a", func(ctx context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			a.Outcome, a.Code = delivery.Retry, delivery.CodeConnection // a sink that takes no notice of the cause
		}))})
		w.d.Start()
		seqs := w.store.accept(5, 1)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := w.d.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v", err)
		}
		if got := <-cause; !errors.Is(got, delivery.ErrShutdown) {
			t.Errorf("the attempt was cancelled with %v", got)
		}
		time.Sleep(time.Second)
		w.wantCounts(1, 5, 0, 0)
		for _, seq := range seqs {
			if log := w.store.attempts(1, seq); len(log) != 0 {
				t.Errorf("seq %d: an interrupted attempt was recorded: %+v", seq, log)
			}
		}
	})
}

func TestAStoppedStoreEndsClaimingQuietly(t *testing.T) {
	bubble(t, Options{ringSize: 4}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", after(time.Second, ok)))})
		w.d.Start()
		w.store.accept(50, 1)
		time.Sleep(1500 * time.Millisecond)
		w.store.stop()
		time.Sleep(time.Hour)
		if n := w.recv.count(); n > 10 {
			t.Errorf("%d attempts, although the store stopped after two", n)
		}
	})
}

func TestAReadThatBringsNothingDoesNotSpin(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", ok))})
		w.d.store = &emptyReads{memStore: w.store}
		w.d.Start()
		time.Sleep(10 * time.Second)
		if n := w.d.store.(*emptyReads).n.Load(); n < 5 || n > 20 {
			t.Errorf("%d reads in 10 s", n)
		}
	})
}

// emptyReads says that there are more rows and returns none.
type emptyReads struct {
	*memStore
	n atomic.Int64
}

func (s *emptyReads) ReadReady(queue.Lane, uint64, int, int) ([]queue.Delivery, bool, error) {
	s.n.Add(1)
	return nil, true, nil
}

// bubbled counts the goroutines of the test's own bubble: tests beside it have theirs.
func bubbled(t *testing.T) int {
	t.Helper()
	stacks := make([]byte, 8<<20)
	own := regexp.MustCompile(`synctest bubble \d+`).Find(stacks[:runtime.Stack(stacks, false)])
	if own == nil {
		t.Fatal("not in a bubble")
	}
	return bytes.Count(stacks[:runtime.Stack(stacks, true)], append(own, ']'))
}

func TestAThousandIdleLanesNeedOneGoroutine(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		before := bubbled(t)
		var targets []*Target
		lanes := make([]queue.Lane, 1000)
		for i := range lanes {
			lanes[i] = queue.Lane(i + 1)
			targets = append(targets, target(lanes[i], 4, w.recv.sink("a", down)))
		}
		w.d.Apply(targets)
		w.d.Start()
		w.store.accept(2, lanes...)
		time.Sleep(30 * time.Second) // every lane has failed and waits for its retry
		synctest.Wait()
		if n := w.recv.count(); n != 2000 {
			t.Fatalf("%d attempts, want 2000", n)
		}
		if n := bubbled(t) - before; n > 2 {
			t.Errorf("%d goroutines for idle lanes", n)
		}
		if n := w.store.reads.Load(); n > 4000 {
			t.Errorf("%d reads", n)
		}
		reads := w.store.reads.Load()
		time.Sleep(29 * time.Second)
		if w.store.reads.Load() != reads {
			t.Error("idle lanes read the store")
		}
		time.Sleep(2 * time.Second)
		if n := w.recv.count(); n != 4000 {
			t.Errorf("%d attempts after the first wait, want 4000", n)
		}
		w.d.Apply(nil)
	})
}

// punctual ends its attempts by itself.
type punctual struct {
	*sink
	timeout time.Duration
}

func (p punctual) Timeout() time.Duration { return p.timeout }

func TestAPunctualSinkIsTrustedWithItsTimeoutOnly(t *testing.T) {
	for own, want := range map[time.Duration]bool{7 * time.Second: false, 6 * time.Second: false, 8 * time.Second: true, 0: true} {
		bubble(t, Options{}, func(t *testing.T, w *world) {
			asked := false
			tgt := target(1, 1, punctual{w.recv.sink("a", func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
				end, bounded := ctx.Deadline()
				asked = true
				if bounded != want || (bounded && time.Until(end) != 7*time.Second) {
					t.Errorf("a timeout of its own of %v: bounded %v, until %v", own, bounded, time.Until(end))
				}
				ok(ctx, o, a)
			}), own})
			tgt.Policy.Timeout = 7 * time.Second
			w.d.Apply([]*Target{tgt})
			w.d.Start()
			w.store.accept(1, 1)
			synctest.Wait()
			time.Sleep(time.Second)
			if !asked {
				t.Error("the sink was not called")
			}
		})
	}
}
