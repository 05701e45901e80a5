package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func TestTheTimetableIsKeptToTheSecondAndThenTheDeliveryIsFailed(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.d.Apply([]*Target{target(1, 4, w.recv.sink("a", down))})
		w.d.Start()
		begin := time.Now()
		seq := w.store.accept(1, 1)[0]
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		want := []time.Duration{0, time.Minute, 6 * time.Minute, 36 * time.Minute}
		seen := w.recv.arrivals()
		if len(seen) != len(want) {
			t.Fatalf("%d attempts, want %d", len(seen), len(want))
		}
		for i, a := range seen {
			if late := a.at.Sub(begin) - want[i]; late < 0 || late >= time.Second || a.attempt != i+1 {
				t.Errorf("attempt %d came at %v, want %v", a.attempt, a.at.Sub(begin), want[i])
			}
		}
		w.wantCounts(1, 0, 0, 1)
		log := w.store.attempts(1, seq)
		if last := log[len(log)-1]; last.Rule != delivery.RuleExhausted || last.State != delivery.Failed {
			t.Errorf("the last attempt was decided by %q: %v", last.Rule, last.State)
		}
	})
}

func TestA72HourOutage(t *testing.T) {
	const perHour, hours = 5, 72
	bubble(t, Options{ringSize: 16}, func(t *testing.T, w *world) {
		begin := time.Now()
		back := begin.Add(hours * time.Hour)
		tgt := target(1, 8, w.recv.sink("a", until(back, after(20*time.Millisecond, down), ok)))
		for len(tgt.Policy.Schedule) < 80 {
			tgt.Policy.Schedule = append(tgt.Policy.Schedule[:len(tgt.Policy.Schedule):len(tgt.Policy.Schedule)], time.Hour)
		}
		w.d.Apply([]*Target{tgt})
		w.d.Start()
		seqs := w.store.accept(perHour, 1)
		for range hours - 1 {
			time.Sleep(time.Hour)
			seqs = append(seqs, w.store.accept(perHour, 1)...)
		}
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		w.wantCounts(1, 0, len(seqs), 0)
		if w.recv.most["test.w1"] > 8 {
			t.Errorf("%d attempts at once, the concurrency is 8", w.recv.most["test.w1"])
		}
		for _, seq := range seqs {
			log := w.store.attempts(1, seq)
			for i := 1; i < len(log); i++ {
				due := log[i-1].Started.Add(log[i-1].Duration + tgt.Policy.Schedule[i-1])
				// All that failed so far may be due together; they pass 8 at a time.
				if late := log[i].Started.Sub(due); late < -time.Millisecond || late > time.Second {
					t.Fatalf("seq %d attempt %d was %v late", seq, i+1, late)
				}
			}
		}
	})
}

func TestARetryThatBecomesDurableAfterALaterOneWasReadIsNotLost(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		tgt := target(1, 2, w.recv.sink("a", func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			if o.Attempt > 1 {
				ok(ctx, o, a)
				return
			}
			a.Outcome, a.Code, a.Status = delivery.Retry, delivery.CodeStatus, 503
			if o.EventID == "evt_1" {
				a.RetryAfter = 30 * time.Millisecond
			}
		}))
		tgt.Policy.Schedule = []time.Duration{0}
		w.d.Apply([]*Target{tgt})
		w.d.Start()
		w.store.accept(1, 1) // due again at 30 ms, durable at 10 ms
		time.Sleep(25 * time.Millisecond)
		w.store.accept(1, 1) // due again at 25 ms, durable at 35 ms, when the cursor is at 30 ms
		time.Sleep(time.Second)
		w.wantCounts(1, 0, 2, 0)
	})
}
