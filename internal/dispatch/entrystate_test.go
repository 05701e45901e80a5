package dispatch

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// counter is a sink that keeps for each entry how many deliveries of it came. It
// remembers what it was given.
type counter struct {
	mu   sync.Mutex
	seen map[uint64]string
}

func (c *counter) answer(_ context.Context, o *delivery.Outbound, a *delivery.Attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[o.Sequence] = string(o.EntryState)
	a.Outcome, a.EntryState = delivery.Delivered, append(bytes.Clone(o.EntryState), 'x')
}

func (c *counter) all() map[uint64]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.seen)
}

func keeping(lane queue.Lane, name string, s Sink) *Target {
	t := target(lane, 1, s)
	t.SinkName = name
	return t
}

func TestWhatASinkKeepsForAnEntryComesWithItsNextDelivery(t *testing.T) {
	for _, limits := range []Limits{{State: true}, {State: true, Batch: 2, Linger: linger}} {
		bubble(t, Options{}, func(t *testing.T, w *world) {
			seen := &counter{seen: map[uint64]string{}}
			w.d.Apply([]*Target{keeping(1, "notes", w.recv.many("a", limits, seen.answer))})
			w.d.Start()
			for range 15 { // the store has five entries in turn
				w.store.accept(1, 1)
				time.Sleep(time.Second)
			}
			for seq := range uint64(15) {
				if want := "xxx"[:seq/5]; seen.all()[seq+1] != want {
					t.Errorf("%+v: delivery %d saw %q, want %q", limits, seq+1, seen.all()[seq+1], want)
				}
			}
			// Another sink under the same name of webhook sees nothing of it, nor does another webhook.
			other := &counter{seen: map[uint64]string{}}
			w.d.Apply([]*Target{keeping(1, "other", w.recv.many("b", limits, other.answer)), keeping(2, "notes", w.recv.many("c", limits, other.answer))})
			w.store.accept(5, 1)
			w.store.accept(5, 2)
			time.Sleep(time.Minute)
			if len(other.all()) != 10 {
				t.Fatalf("%d deliveries", len(other.all()))
			}
			for seq, state := range other.all() {
				if state != "" {
					t.Errorf("delivery %d saw the state %q of others", seq, state)
				}
			}
		})
	}
}

func TestASinkThatKeepsNothingNeitherReadsNorWritesStates(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		seen := &counter{seen: map[uint64]string{}}
		w.d.Apply([]*Target{keeping(1, "notes", w.recv.many("a", Limits{Batch: 2, Linger: linger}, seen.answer))})
		w.d.Start()
		w.store.accept(10, 1)
		time.Sleep(time.Minute)
		if len(w.store.kept()) != 0 || len(seen.all()) != 10 {
			t.Errorf("%d deliveries left %v", len(seen.all()), w.store.kept())
		}
	})
}

func TestAStateThatIsTooLargeIsRefusedAndTriedAgain(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		size := queue.MaxEntryState + 1
		s := w.recv.many("a", Limits{State: true}, func(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
			a.Outcome, a.Status, a.EntryState = delivery.Delivered, 200, make([]byte, size)
			size--
		})
		w.d.Apply([]*Target{keeping(1, "notes", s)})
		w.d.Start()
		w.store.accept(1, 1)
		time.Sleep(time.Hour)
		log := w.store.attempts(1, 1)
		if len(log) != 2 || log[0].Code != delivery.CodeNoResult || log[0].Rule != delivery.RuleSinkRetry || log[1].State != delivery.Success {
			t.Errorf("attempts: %+v", log)
		}
		if want := fmt.Sprintf("the sink wants to keep %d bytes for the entry, the limit is 4096", queue.MaxEntryState+1); log[0].Error != want {
			t.Errorf("it says %q", log[0].Error)
		}
	})
}

func TestNothingIsSentWhileTheStoreDoesNotSayWhatIsKept(t *testing.T) {
	for _, limits := range []Limits{{State: true}, {State: true, Batch: 2, Linger: linger}} {
		bubble(t, Options{}, func(t *testing.T, w *world) {
			s := w.recv.many("a", limits, ok)
			w.d.Apply([]*Target{keeping(1, "notes", s)})
			w.d.Start()
			time.Sleep(time.Second)
			w.store.stop()
			w.store.accept(3, 1)
			time.Sleep(time.Minute)
			if n := w.recv.count(); n != 0 {
				t.Errorf("%+v: %d deliveries were sent", limits, n)
			}
		})
	}
}
