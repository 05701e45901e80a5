package dispatch

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// linger is how long the batches of these tests wait.
const linger = 100 * time.Millisecond

func sizes(calls []call) []int {
	var out []int
	for _, c := range calls {
		out = append(out, len(c.seqs))
	}
	return out
}

func wantSizes(t *testing.T, s *manySink, want ...int) {
	t.Helper()
	if got := sizes(s.made()); !slices.Equal(got, want) {
		t.Errorf("calls carried %v, want %v", got, want)
	}
}

func TestABatchGoesWhenItIsFullOrItsTimeIsOver(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{Batch: 10, Linger: linger}, ok)
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		begin := time.Now()
		seqs := w.store.accept(10, 1)
		synctest.Wait()
		wantSizes(t, s, 10) // without any time passing
		seqs = append(seqs, w.store.accept(1, 1)...)
		for range 8 {
			time.Sleep(linger / 10)
			seqs = append(seqs, w.store.accept(1, 1)...)
		}
		time.Sleep(linger)
		wantSizes(t, s, 10, 9)
		calls := s.made()
		if at := calls[1].at.Sub(begin); at != linger {
			t.Errorf("the second went after %v", at)
		}
		for i, seq := range slices.Concat(calls[0].seqs, calls[1].seqs) {
			if seq != seqs[i] {
				t.Fatalf("the batches have %v, want the order of acceptance %v", calls, seqs)
			}
		}
		time.Sleep(time.Second)
		w.onceEach(seqs)
		w.wantCounts(1, 0, len(seqs), 0)
	})
}

func TestABatchThatFillsWhileItWaitsGoesAtOnce(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{Batch: 4, Linger: linger}, ok)
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		begin := time.Now()
		w.store.accept(1, 1)
		time.Sleep(linger / 2)
		w.store.accept(5, 1)
		synctest.Wait()
		wantSizes(t, s, 4)
		if at := s.made()[0].at.Sub(begin); at != linger/2 {
			t.Errorf("it went after %v", at)
		}
		time.Sleep(time.Second)
		wantSizes(t, s, 4, 2)
	})
}

func TestABatchIsClosedByItsBytesAndOneDeliveryMayExceedThem(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.recv.model = false
		s := w.recv.many("a", Limits{Batch: 10, BatchBytes: 100, Linger: linger}, ok)
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		for _, size := range []int{40, 60, 1, 99, 500, 30, 30} {
			w.store.payload = make([]byte, size)
			w.store.accept(1, 1)
		}
		time.Sleep(time.Second)
		wantSizes(t, s, 2, 2, 1, 2)
		w.wantCounts(1, 0, 7, 0)
	})
}

func TestAFullLaneFillsItsBatchesFromTheStore(t *testing.T) {
	bubble(t, Options{ringSize: 8}, func(t *testing.T, w *world) {
		w.store.readDelay = func() time.Duration { return time.Millisecond }
		s := w.recv.many("a", Limits{Batch: 50, Linger: linger}, after(time.Millisecond, ok))
		w.d.Apply([]*Target{target(1, 1, s)})
		seqs := w.store.accept(500, 1)
		w.d.Start()
		time.Sleep(time.Minute)
		if got := sizes(s.made()); len(got) != 10 || slices.Max(got) != 50 {
			t.Errorf("calls carried %v, want ten full ones", got)
		}
		w.onceEach(seqs)
	})
}

func TestTheConcurrencyOfASinkCountsCallsAndOnlyLowersTheTargets(t *testing.T) {
	for _, c := range []struct{ target, sink, want int }{{1, 0, 1}, {3, 0, 3}, {8, 2, 2}, {2, 8, 2}} {
		bubble(t, Options{}, func(t *testing.T, w *world) {
			s := w.recv.many("a", Limits{Batch: 5, Linger: linger, Concurrency: c.sink}, after(time.Second, ok))
			w.d.Apply([]*Target{target(1, c.target, s)})
			w.d.Start()
			w.store.accept(100, 1)
			time.Sleep(time.Second / 2)
			if got := len(s.made()); got != c.want {
				t.Errorf("%+v: %d calls under way", c, got)
			}
			if st := w.d.LaneStats(1); st.InFlight != 5*c.want {
				t.Errorf("%+v: %d deliveries in flight", c, st.InFlight)
			}
			time.Sleep(time.Minute)
			w.wantCounts(1, 0, 100, 0)
		})
	}
}

func TestEachDeliveryOfABatchHasItsOwnOutcome(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begin := time.Now()
		s := w.recv.many("a", Limits{Batch: 10, Linger: linger}, func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			if time.Since(begin) > time.Minute/2 {
				ok(ctx, o, a)
				return
			}
			switch o.Sequence {
			case 1:
				ok(ctx, o, a)
			case 2:
				refuse(ctx, o, a)
			case 3:
				down(ctx, o, a)
			case 4: // says nothing
			}
		})
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		w.store.accept(4, 1)
		time.Sleep(time.Second)
		w.wantCounts(1, 2, 1, 1)
		for seq, want := range map[uint64]delivery.Rule{1: delivery.RuleDelivered, 2: delivery.RuleClientError, 3: delivery.RuleNetwork, 4: delivery.RuleSinkRetry} {
			log := w.store.attempts(1, seq)
			if len(log) != 1 || log[0].Rule != want || log[0].Number != 1 || log[0].Started.IsZero() {
				t.Errorf("delivery %d: %+v, want %q", seq, log, want)
			}
		}
		time.Sleep(2 * time.Minute)
		wantSizes(t, s, 4, 2) // both retries are due at the same time
		w.wantCounts(1, 0, 3, 1)
	})
}

func TestAPanicIsTheOutcomeOfTheWholeBatch(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		var calls atomic.Int64
		s := w.recv.many("a", Limits{Batch: 3, Linger: linger}, func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			ok(ctx, o, a)
			if calls.Add(1) <= 3 && o.Sequence == 1 {
				panic("sink")
			}
		})
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		w.store.accept(3, 1)
		time.Sleep(time.Second)
		w.wantCounts(1, 3, 0, 0)
		for seq := range uint64(3) {
			if log := w.store.attempts(1, seq+1); log[0].Code != delivery.CodePanic || log[0].Outcome != delivery.Retry {
				t.Errorf("delivery %d: %+v", seq+1, log)
			}
		}
		time.Sleep(2 * time.Minute)
		w.wantCounts(1, 0, 3, 0)
	})
}

func TestOneTimeoutBoundsTheWholeCall(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{Batch: 3, Linger: linger}, after(time.Hour, ok))
		tg := target(1, 1, s)
		tg.Policy.Timeout = 5 * time.Second
		w.d.Apply([]*Target{tg})
		w.d.Start()
		w.store.accept(3, 1)
		time.Sleep(5*time.Second + 2*linger)
		for seq := range uint64(3) {
			if log := w.store.attempts(1, seq+1); len(log) != 1 || log[0].Code != delivery.CodeTimeout || log[0].Duration != 5*time.Second {
				t.Errorf("delivery %d: %+v", seq+1, log)
			}
		}
	})
}

// halfWay is a sink with three deliveries that wait in a batch on lane 1.
func (w *world) halfWay(limits Limits) *manySink {
	s := w.recv.many("a", limits, ok)
	w.d.Apply([]*Target{target(1, 1, s)})
	w.d.Start()
	w.store.accept(3, 1)
	time.Sleep(linger / 2)
	return s
}

func TestWhatWaitsInABatchGoesBackOnStop(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.halfWay(Limits{Batch: 10, Linger: linger})
		if st := w.d.LaneStats(1); st.InFlight != 3 {
			t.Errorf("%d are in flight", st.InFlight)
		}
		begin := time.Now()
		if err := w.d.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("stop waited %v for a batch that was not sent", took)
		}
		wantSizes(t, s)
		w.wantCounts(1, 3, 0, 0)
		if !s.isClosed() {
			t.Error("the sink is open")
		}
		if log := w.store.attempts(1, 1); len(log) != 0 {
			t.Errorf("an attempt was recorded: %+v", log)
		}
	})
}

func TestWhatWaitsInABatchGoesOutUnderItsTargetWhenTheConfigurationChanges(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		first := w.recv.many("first", Limits{Batch: 10, Linger: linger}, ok)
		second := w.recv.many("second", Limits{Batch: 10, Linger: linger}, ok)
		w.d.Apply([]*Target{target(1, 1, first)})
		w.d.Start()
		w.store.accept(2, 1)
		time.Sleep(linger / 2)
		w.d.Apply([]*Target{target(1, 1, second)})
		synctest.Wait()
		wantSizes(t, first, 2)
		if !first.isClosed() {
			t.Error("the sink that is not used any more is open")
		}
		w.store.accept(2, 1)
		time.Sleep(2 * linger)
		wantSizes(t, second, 2)
		time.Sleep(time.Second)
		w.wantCounts(1, 0, 4, 0)
	})
}

func TestWhatWaitsInABatchIsNotSentWhenTheLaneIsHeld(t *testing.T) {
	holds := map[string]func(w *world, s *manySink, held *Target) (letGo func()){
		"disabled": func(w *world, s *manySink, held *Target) func() {
			w.d.Apply([]*Target{held})
			return func() { w.d.Apply([]*Target{target(1, 1, s)}) }
		},
		"plugin down": func(w *world, s *manySink, _ *Target) func() {
			s.hold(w.d, delivery.HoldPluginDown)
			return func() { s.hold(w.d, "") }
		},
		"paused": func(w *world, _ *manySink, _ *Target) func() {
			w.d.Pause(delivery.HoldStorage)
			return w.d.Resume
		},
	}
	for name, hold := range holds {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, w *world) {
				// What is not sent counts for no pace: else it would go after 100 s.
				s := w.halfWay(Limits{Batch: 10, Linger: linger, PerSecond: 0.01})
				held := target(1, 1, s)
				held.Hold = delivery.HoldDisabled
				letGo := hold(w, s, held)
				time.Sleep(10 * time.Second)
				if st := w.d.LaneStats(1); st.InFlight != 0 || st.Hold == "" || w.recv.count() != 0 {
					t.Errorf("%d arrived, %+v", w.recv.count(), st)
				}
				letGo()
				time.Sleep(time.Second)
				wantSizes(t, s, 3)
				if log := w.store.attempts(1, 1); len(log) != 1 || log[0].Number != 1 {
					t.Errorf("attempts: %+v", log)
				}
			})
		})
	}
}

func TestWhatWaitsInABatchIsSparedWhenTheLaneIsDropped(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.halfWay(Limits{Batch: 10, Linger: linger})
		if n, err := w.d.DropLane(context.Background(), 1); n != 0 || err != nil {
			t.Errorf("dropped %d, %v", n, err)
		}
		time.Sleep(time.Second)
		wantSizes(t, s, 3)
		w.wantCounts(1, 0, 3, 0)
	})
}

func TestADeliveryThatMetACrashGoesAgainAtOnceAndAlone(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begin := time.Now()
		s := w.recv.many("a", Limits{Batch: 10, Linger: linger}, nil)
		s.answer = func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			if len(s.made()) == 1 || o.Sequence == 2 { // the second kills it each time
				a.Outcome, a.Code = delivery.Crashed, delivery.CodePluginCrash
				return
			}
			ok(ctx, o, a)
		}
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		w.store.accept(4, 1)
		time.Sleep(linger + time.Second)
		wantSizes(t, s, 4, 1, 1, 1, 1, 1)
		if last := s.made()[5].at.Sub(begin); last > linger+100*time.Millisecond {
			t.Errorf("the last went after %v", last)
		}
		w.wantCounts(1, 0, 3, 1)
		log := w.store.attempts(1, 2)
		if n := len(log); n != 3 || log[0].Rule != delivery.RuleCrashed || log[2].Rule != delivery.RulePoison || log[2].Number != 1 {
			t.Errorf("attempts: %+v", log)
		}
		if !strings.Contains(w.logs.String(), "the process of its sink died each time") {
			t.Errorf("the log says %s", w.logs)
		}
		// An operator's retry starts anew.
		if err := w.d.Retry(context.Background(), 1, 2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if calls := s.made(); len(calls) != 9 {
			t.Errorf("%d calls, want three more", len(calls))
		}
		w.wantCounts(1, 0, 3, 1)
	})
}

func TestADeliveryThatMetACrashJoinsNoBatchThatWaits(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{Batch: 10, Linger: linger}, nil)
		s.answer = func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			switch len(s.made()) {
			case 1:
				a.Outcome, a.Code = delivery.Crashed, delivery.CodePluginCrash
			case 2:
				down(ctx, o, a) // due again in a minute
			default:
				ok(ctx, o, a)
			}
		}
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		w.store.accept(1, 1)
		time.Sleep(time.Second)
		due := w.d.LaneStats(1).NextDue
		time.Sleep(time.Until(due) - linger/2)
		w.store.accept(2, 1)
		time.Sleep(time.Second)
		wantSizes(t, s, 1, 1, 2, 1)
		w.wantCounts(1, 0, 3, 0)
	})
}

func TestWhatWaitsInABatchIsNotSentWhenAnotherCallMeetsARateLimit(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		limited := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
			a.Outcome, a.RetryAfter = delivery.RateLimited, time.Minute
		}
		begin := time.Now()
		s := w.recv.many("a", Limits{Batch: 10, Linger: linger}, after(linger/2, until(begin.Add(time.Second), limited, ok)))
		w.d.Apply([]*Target{target(1, 2, s)})
		w.d.Start()
		w.store.accept(10, 1)
		time.Sleep(time.Millisecond)
		w.store.accept(3, 1)
		time.Sleep(59 * time.Second)
		wantSizes(t, s, 10)
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 13, 0)
	})
}

// flickering is a sink that is held for as long as a test says, to the very
// question.
type flickering struct {
	*manySink
	answers atomic.Int64 // how many questions are still answered with yes
}

func (s *flickering) Held() delivery.HoldReason {
	if s.answers.Add(-1) >= 0 {
		return ""
	}
	return delivery.HoldPluginDown
}

func TestAProbeThatIsGivenBackComesAgain(t *testing.T) {
	for n := range int64(12) { // wherever between claim and call the sink goes down
		bubble(t, Options{}, func(t *testing.T, w *world) {
			bad := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) { a.Outcome = delivery.Misconfigured }
			s := &flickering{manySink: w.recv.many("a", Limits{Batch: 10, Linger: linger}, until(time.Now().Add(time.Minute), bad, ok))}
			s.answers.Store(1 << 30)
			w.d.Apply([]*Target{target(1, 1, s)})
			w.d.Start()
			w.store.accept(3, 1)
			time.Sleep(probeEvery - time.Second)
			s.answers.Store(n)
			time.Sleep(10 * time.Minute)
			s.answers.Store(1 << 30)
			w.d.Recheck()
			time.Sleep(2 * probeEvery)
			w.wantCounts(1, 0, 3, 0)
		})
	}
}

func TestAProbeOfAMisconfiguredSinkIsOneDelivery(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		bad := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) { a.Outcome = delivery.Misconfigured }
		s := w.recv.many("a", Limits{Batch: 10, Linger: linger}, until(time.Now().Add(7*time.Minute), bad, ok))
		w.d.Apply([]*Target{target(1, 4, s)})
		w.d.Start()
		w.store.accept(10, 1)
		time.Sleep(11 * time.Minute)
		wantSizes(t, s, 10, 1, 1, 9)
		w.wantCounts(1, 0, 10, 0)
	})
}

func TestAReplayGoesInBatches(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		s := w.recv.many("a", Limits{Batch: 20, Linger: linger}, ok)
		w.d.Apply([]*Target{target(1, 1, s)})
		w.d.Start()
		w.store.accept(100, 1)
		time.Sleep(time.Minute)
		if _, err := w.d.Replay(context.Background(), queue.ReplayJob{Lane: 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.wantCounts(1, 0, 100, 0)
		if calls := s.made(); w.recv.count() != 200 || len(calls) > 12 {
			t.Errorf("%d arrived in calls of %v", w.recv.count(), sizes(calls))
		}
	})
}
