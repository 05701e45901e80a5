package relay

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

func TestAnEventThatComesWhileTheDaemonStartsWaitsForIt(t *testing.T) {
	for _, outcome := range []error{nil, queue.ErrStopped} {
		synctest.Test(t, func(t *testing.T) {
			r := newRelay(&config.Config{}, Options{})
			answers := make(chan error, 3)
			for range cap(answers) {
				go func() { answers <- r.admit() }()
			}
			time.Sleep(startPatience - 1)
			synctest.Wait()
			if len(answers) > 0 {
				t.Fatalf("answered before: %v", <-answers)
			}
			r.close(outcome)
			for range cap(answers) {
				if err := <-answers; !errors.Is(err, outcome) {
					t.Errorf("%v, want %v", err, outcome)
				}
			}
			if err := r.admit(); !errors.Is(err, outcome) {
				t.Errorf("later: %v, want %v", err, outcome)
			}
		})
	}
}

func TestAnEventWaitsForTheStartOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(&config.Config{}, Options{})
		began := time.Now()
		if err := r.admit(); !errors.Is(err, errStarting) || time.Since(began) != startPatience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestAStopEndsTheWaitForTheStartAndLeavesAnOpenGateOpen(t *testing.T) {
	for _, open := range []bool{false, true} {
		r := newRelay(&config.Config{}, Options{})
		if err := r.build(); err != nil {
			t.Fatal(err)
		}
		var want error = queue.ErrStopped
		if open {
			r.close(nil)
			want = nil
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if err := r.gate.Load().err; !errors.Is(err, want) {
			t.Errorf("open before: %t; the gate says %v after, want %v", open, err, want)
		}
	}
}
