package dispatch

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// benchStore commits outcomes in groups, as the durable store does, and keeps
// nothing.
type benchStore struct {
	Store
	d     *Dispatcher
	epoch time.Time
	done  sync.WaitGroup

	mu      sync.Mutex
	changes []queue.Change
	spare   []queue.Change
	wake    chan struct{}
}

func newBenchStore() *benchStore {
	return &benchStore{epoch: time.Now(), wake: make(chan struct{}, 1)}
}

func (s *benchStore) Now() int64                 { return time.Since(s.epoch).Milliseconds() + 1 }
func (s *benchStore) Replays() []queue.ReplayJob { return nil }

func (s *benchStore) ReadReady(queue.Lane, uint64, int, int) ([]queue.Delivery, bool, error) {
	return nil, false, nil
}

func (s *benchStore) ReadWaiting(queue.Lane, int64, uint64, int64, int, int) ([]queue.Delivery, int64, error) {
	return nil, 0, nil
}

func (s *benchStore) ReadReturning(queue.Lane, uint64, int, int) ([]queue.Delivery, bool, error) {
	return nil, false, nil
}

func (s *benchStore) ReleaseFollowers(context.Context, *queue.Release) (bool, error) {
	return false, nil
}

func (s *benchStore) Complete(c queue.Completion) {
	s.mu.Lock()
	s.note(&c)
	s.mu.Unlock()
	s.poke()
}

func (s *benchStore) CompleteAll(cs []queue.Completion) {
	s.mu.Lock()
	for i := range cs {
		s.note(&cs[i])
	}
	s.mu.Unlock()
	s.poke()
}

func (s *benchStore) note(c *queue.Completion) {
	s.changes = append(s.changes, queue.Change{Lane: c.Delivery.Lane, Seq: c.Delivery.Seq, State: c.Attempt.State,
		Attempts: c.Attempt.Number, Kind: queue.ChangeAttempt})
}

func (s *benchStore) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// commit tells the dispatcher of outcomes until stop is closed.
func (s *benchStore) commit(stop <-chan struct{}) {
	for {
		select {
		case <-s.wake:
		case <-stop:
			return
		}
		s.mu.Lock()
		cs := s.changes
		s.changes, s.spare = s.spare[:0], nil
		s.mu.Unlock()
		s.d.Changed(cs)
		s.mu.Lock()
		s.spare = cs[:0]
		s.mu.Unlock()
		s.done.Add(-len(cs))
	}
}

// noop delivers everything at once.
type noop struct{}

func (*noop) Deliver(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
	a.Outcome = delivery.Delivered
}
func (*noop) Close() {}

// noopPunctual is noop that needs no timer.
type noopPunctual struct{ noop }

func (*noopPunctual) Timeout() time.Duration { return time.Second }

// noopBatch is noop for many at a time.
type noopBatch struct {
	noop
	limits Limits
}

func (*noopBatch) DeliverBatch(_ context.Context, _ []*delivery.Outbound, as []*delivery.Attempt) {
	for _, a := range as {
		a.Outcome = delivery.Delivered
	}
}
func (*noopBatch) Held() delivery.HoldReason { return "" }
func (s *noopBatch) Limits() Limits          { return s.limits }

// benchGroup is how many deliveries are offered at once.
const benchGroup = 64

// pump starts a dispatcher with one lane. round takes a group of deliveries
// through it, from the offer to the commit of the outcomes.
func pump(tb testing.TB, sink Sink) (round func()) {
	store := newBenchStore()
	d := New(Options{Store: store, StoreID: testStoreID})
	store.d = d
	stop := make(chan struct{})
	var committer sync.WaitGroup
	committer.Go(func() { store.commit(stop) })
	tb.Cleanup(func() {
		if err := d.Stop(context.Background()); err != nil {
			tb.Error(err)
		}
		close(stop)
		committer.Wait()
	})
	d.Apply([]*Target{target(1, 4, sink)})
	d.Start()
	for l := d.table.Load().lanes[1]; ; { // what is offered before the first scan is left to the store
		l.mu.Lock()
		scanned := !l.ready.spilled
		l.mu.Unlock()
		if scanned {
			break
		}
		runtime.Gosched()
	}
	payload := make([]byte, 400)
	offer := make([]queue.Delivery, benchGroup)
	seq := uint64(0)
	return func() {
		for i := range offer {
			seq++
			offer[i] = queue.Delivery{Lane: 1, Seq: seq, Track: queue.Ready, EventID: "evt_1", EventType: "entry.created", EntryID: "e1", Payload: payload}
		}
		store.done.Add(benchGroup)
		d.Offer(offer)
		store.done.Wait()
	}
}

// benchLane is how many deliveries pass a lane of its own a second.
func benchLane(b *testing.B, sink Sink) {
	round := pump(b, sink)
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
	b.ReportMetric(float64(b.N*benchGroup)/b.Elapsed().Seconds(), "deliveries/s")
}

func BenchmarkPlainSink(b *testing.B)    { benchLane(b, &noop{}) }
func BenchmarkPunctualSink(b *testing.B) { benchLane(b, &noopPunctual{}) }

// The group that the benchmark offers at a time is two batches: none waits.
func BenchmarkBatchSink(b *testing.B) {
	benchLane(b, &noopBatch{limits: Limits{Batch: 32, Linger: time.Second}})
}
