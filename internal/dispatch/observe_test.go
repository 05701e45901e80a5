package dispatch

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// observed is what an Observe was told, as text.
type observed struct{ lines chan string }

func newObserved() *observed { return &observed{lines: make(chan string, 100)} }

func (o *observed) note(sink string, a *delivery.Attempt, since time.Duration) {
	o.lines <- fmt.Sprint(sink, " ", a.Outcome, " took ", a.Duration, " since ", since)
}

// take is what came since the last call.
func (o *observed) take() (all []string) {
	for len(o.lines) > 0 {
		all = append(all, <-o.lines)
	}
	return all
}

func TestEachAttemptIsToldOnceWithItsAge(t *testing.T) {
	told := newObserved()
	bubble(t, Options{Observe: told.note}, func(t *testing.T, w *world) {
		heals := time.Now().Add(30 * time.Second)
		s := w.recv.sink("a", until(heals, after(2*time.Second, down), after(time.Second, ok)))
		one := target(1, 1, s)
		one.SinkName = "http"
		w.d.Apply([]*Target{one})
		w.d.Start()
		seq := w.store.accept(1, 1)[0]
		time.Sleep(2 * time.Minute)
		if got, want := told.take(), []string{"http retry took 2s since 2s", "http delivered took 1s since 1m3s"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		if st := w.d.LaneStats(1); st.Attempts != 2 || st.Took != 3*time.Second {
			t.Errorf("the lane counts %d attempts of %v", st.Attempts, st.Took)
		}
		if err := w.d.Retry(t.Context(), 1, seq); err != nil { // has arrived long ago
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got, want := told.take(), []string{"http delivered took 1s since -1ns"}; !slices.Equal(got, want) {
			t.Errorf("told %q of what an operator brought back, want %q", got, want)
		}
	})
}

func TestEachDeliveryOfABatchIsTold(t *testing.T) {
	told := newObserved()
	bubble(t, Options{Observe: told.note}, func(t *testing.T, w *world) {
		one := target(1, 1, w.recv.many("a", Limits{Batch: 3, Linger: linger}, ok))
		one.SinkName = "slack"
		w.d.Apply([]*Target{one})
		w.d.Start()
		w.store.accept(3, 1)
		synctest.Wait()
		time.Sleep(time.Second)
		if got := told.take(); len(got) != 3 || slices.ContainsFunc(got, func(s string) bool { return s[:15] != "slack delivered" }) {
			t.Errorf("told %q, want three", got)
		}
		if st := w.d.LaneStats(1); st.Attempts != 3 {
			t.Errorf("the lane counts %d attempts", st.Attempts)
		}
	})
}
