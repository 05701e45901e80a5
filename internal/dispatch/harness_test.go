package dispatch

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testStoreID = 7

// standard is the schedule of the product.
var standard = retry.Policy{Schedule: []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute}}

// receiver stands for all the receivers of a test. It fails the test when a
// delivery is in flight twice or a closed sink is used.
type receiver struct {
	fail  func(format string, args ...any)
	model bool // payloads are those of the model store

	mu       sync.Mutex
	inFlight map[string]bool
	seen     []arrival
	most     map[string]int // attempts under way at once, per webhook
	now      map[string]int
}

type arrival struct {
	at      time.Time
	webhook string
	seq     uint64
	attempt int
	sink    string
}

func newReceiver(fail func(string, ...any)) *receiver {
	return &receiver{fail: fail, inFlight: map[string]bool{}, most: map[string]int{}, now: map[string]int{}}
}

// answer is what a receiver does with one attempt.
type answer func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt)

// sink is one generation of one webhook's sink.
type sink struct {
	r      *receiver
	name   string
	answer answer

	mu     sync.Mutex
	active int
	closed int
}

func (r *receiver) sink(name string, f answer) *sink { return &sink{r: r, name: name, answer: f} }

func (s *sink) Deliver(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
	s.begin(o)
	defer s.end(o)
	s.answer(ctx, o, a)
}

func (s *sink) begin(o *delivery.Outbound) {
	s.mu.Lock()
	s.active++
	if s.closed > 0 {
		s.r.fail("sink %s is used after its close", s.name)
	}
	s.mu.Unlock()
	if o.Test {
		return
	}
	_, _, seq, ok := id.ParseDelivery(o.DeliveryID)
	if want := fmt.Sprintf("payload %d", seq); !ok || (s.r.model && string(o.Payload) != want) {
		s.r.fail("delivery %s carries %q", o.DeliveryID, o.Payload)
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.r.inFlight[o.DeliveryID] {
		s.r.fail("delivery %s is in flight twice", o.DeliveryID)
	}
	s.r.inFlight[o.DeliveryID] = true
	s.r.now[o.Webhook]++
	s.r.most[o.Webhook] = max(s.r.most[o.Webhook], s.r.now[o.Webhook])
	s.r.seen = append(s.r.seen, arrival{at: time.Now(), webhook: o.Webhook, seq: seq, attempt: o.Attempt, sink: s.name})
}

func (s *sink) end(o *delivery.Outbound) {
	if !o.Test {
		s.r.mu.Lock()
		delete(s.r.inFlight, o.DeliveryID)
		s.r.now[o.Webhook]--
		s.r.mu.Unlock()
	}
	s.mu.Lock()
	s.active--
	s.mu.Unlock()
}

func (s *sink) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	if s.closed > 1 {
		s.r.fail("sink %s is closed twice", s.name)
	}
	if s.active > 0 {
		s.r.fail("sink %s is closed with %d attempts under way", s.name, s.active)
	}
}

func (s *sink) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed > 0
}

func (r *receiver) arrivals() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]arrival(nil), r.seen...)
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

// Answers.

func ok(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
	a.Outcome, a.Status = delivery.Delivered, 200
}

func down(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
	a.Outcome, a.Code, a.Error = delivery.Retry, delivery.CodeConnect, "connection refused"
}

func refuse(_ context.Context, _ *delivery.Outbound, a *delivery.Attempt) {
	a.Outcome, a.Code, a.Status = delivery.Rejected, delivery.CodeStatus, 400
}

// after lets f answer after d, unless the attempt ends before.
func after(d time.Duration, f answer) answer {
	return func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
		select {
		case <-time.After(d):
			f(ctx, o, a)
		case <-ctx.Done():
			a.Outcome, a.Code = delivery.Retry, delivery.CodeTimeout
		}
	}
}

// until answers with f until the time is there, then with g.
func until(t time.Time, f, g answer) answer {
	return func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
		if time.Now().Before(t) {
			f(ctx, o, a)
			return
		}
		g(ctx, o, a)
	}
}

// world is a dispatcher on a model store in a bubble.
type world struct {
	t     *testing.T
	store *memStore
	recv  *receiver
	d     *Dispatcher
	logs  *strings.Builder
}

func newWorld(t *testing.T, o Options) *world {
	w := &world{t: t, logs: new(strings.Builder)}
	w.store, w.recv = newMemStore(t.Errorf), newReceiver(t.Errorf)
	w.recv.model = true
	o.Store, o.StoreID = w.store, testStoreID
	w.d = New(o)
	w.store.d = w.d
	return w
}

// bubble runs f with a fresh world on a fake clock and stops the dispatcher.
func bubble(t *testing.T, o Options, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, o)
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			if err := w.d.Stop(ctx); err != nil {
				t.Errorf("stop: %v", err)
			}
			time.Sleep(time.Second) // the store's last commit
		}()
		f(t, w)
	})
}

func target(lane queue.Lane, concurrency int, s Sink) *Target {
	return &Target{Webhook: fmt.Sprintf("test.w%d", lane), Lane: lane, Policy: standard, Concurrency: concurrency, Sink: s, Generation: 1}
}

func (w *world) wantCounts(lane queue.Lane, pending, success, failed int) {
	w.t.Helper()
	p, s, f := w.store.count(lane)
	if p != pending || s != success || f != failed {
		w.t.Errorf("lane %d has %d pending, %d success, %d failed; want %d, %d, %d", lane, p, s, f, pending, success, failed)
	}
}
