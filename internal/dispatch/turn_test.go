package dispatch

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// turn asks for a turn within a minute and returns what it waited for last.
func (w *world) turn() (at string, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	err = w.d.Turn(ctx, func(what string) { at = what })
	return at, err
}

func TestADispatcherThatWorksGoesRound(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		if at, err := w.turn(); err != nil || at != "" {
			t.Errorf("before its start: %q, %v", at, err)
		}
		slow := after(20*time.Second, ok)
		w.d.Apply([]*Target{target(1, 2, w.recv.sink("a", slow)), target(2, 1, w.recv.sink("b", slow))})
		w.d.Start()
		for range 20 {
			w.store.accept(4, 1)
			w.store.accept(1, 2)
			if _, err := w.turn(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestASinkThatDoesNotReturnIsNamed(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		letGo := make(chan struct{})
		deaf := func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
			<-letGo
			a.Outcome = delivery.Delivered
		}
		w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", deaf)), target(2, 1, w.recv.sink("b", ok))})
		w.d.Start()
		w.store.accept(1, 1)
		time.Sleep(DefaultTimeout + overdue - time.Second)
		if _, err := w.turn(); err != nil {
			t.Errorf("it is not overdue: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := w.turn(); err == nil || !strings.Contains(err.Error(), "the sink of test.w1 has not returned for 2m31s") {
			t.Errorf("it is overdue: %v", err)
		}
		close(letGo)
		synctest.Wait()
		if _, err := w.turn(); err != nil {
			t.Errorf("it has returned: %v", err)
		}
	})
}

func TestALockThatIsNotGivenBackIsWaitedForByName(t *testing.T) {
	w := newWorld(t, Options{})
	w.d.Apply([]*Target{target(1, 1, w.recv.sink("a", ok)), target(2, 1, w.recv.sink("b", ok))})
	w.d.Start()
	l := w.d.table.Load().lanes[2]
	l.mu.Lock()
	waits, done := make(chan string, 10), make(chan error, 1)
	go func() { done <- w.d.Turn(t.Context(), func(what string) { waits <- what }) }()
	for what := range waits {
		if what == "the lane of test.w2" {
			break
		}
	}
	select {
	case err := <-done:
		t.Errorf("it went round: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	l.mu.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := w.d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
