package queue

import (
	"context"
	"errors"
	"testing"
	"time"
)

// groups is how many groups are durable.
func (h *harness) groups() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Store.mu.Lock()
	defer h.Store.mu.Unlock()
	return h.shown.groups
}

func (h *harness) turnRound() {
	h.t.Helper()
	if err := h.Turn(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func TestATurnOfAnIdleStoreMakesSomethingDurable(t *testing.T) {
	h := newHarness(t)
	h.turnRound()
	before := h.groups()
	for range 3 {
		h.turnRound()
	}
	if got := h.groups(); got != before+3 {
		t.Errorf("%d groups, want three more than %d", got, before)
	}
}

func TestATurnOfAStoreThatWorksWritesNothing(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.turnRound()
	h.accept(testEvent(1, lane))
	before := h.groups()
	h.turnRound()
	if got := h.groups(); got != before {
		t.Errorf("%d groups, want %d", got, before)
	}
}

func TestATurnWithoutSpaceWritesNothingAndIsNoError(t *testing.T) {
	short := false
	h := newHarness(t, func(o *Options) {
		o.stat = func(dir string) (diskState, error) {
			if short {
				return diskState{free: 1 << 20, total: 1 << 40, maxOpen: 1 << 20}, nil
			}
			return roomy(dir)
		}
	})
	h.turnRound()
	before := h.groups()
	h.do(t.Context(), func(*group) error { short = true; return nil })
	h.clock.advance(time.Minute)
	h.turnRound()
	h.turnRound()
	if got := h.groups(); got > before+1 { // that of do
		t.Errorf("%d groups, had %d", got, before)
	}
}

func TestATurnWaitsForACommitterThatHangs(t *testing.T) {
	held, letGo := make(chan struct{}), make(chan struct{})
	h := newHarness(t, func(o *Options) {
		o.OnReady = func([]Delivery) {
			close(held)
			<-letGo
		}
	})
	lane := h.lane("x.a")[0]
	accepted := make(chan error, 1)
	go func() { accepted <- h.Accept(context.Background(), []*Event{testEvent(1, lane)}) }()
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.Turn(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the committer hangs, and a turn says %v", err)
	}
	close(letGo)
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	h.turnRound()
}

func TestAStoreThatIsClosedOrHasStoppedHasNoTurn(t *testing.T) {
	h := newHarness(t)
	h.fail(errors.New("an I/O error"))
	if err := h.Turn(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("after a storage error: %v", err)
	}
	h.close()
	h = newHarness(t)
	s := h.Store
	h.close()
	if err := s.Turn(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("after Close: %v", err)
	}
}
