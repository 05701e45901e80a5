package queue

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// testClock is a wall clock and a monotonic one that tests move.
type testClock struct {
	wall    atomic.Int64 // ms
	elapsed atomic.Int64 // ms
}

func newTestClock() *testClock {
	c := &testClock{}
	c.wall.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *testClock) now() time.Time      { return time.UnixMilli(c.wall.Load()) }
func (c *testClock) mono() time.Duration { return time.Duration(c.elapsed.Load()) * time.Millisecond }
func (c *testClock) advance(d time.Duration) {
	c.wall.Add(d.Milliseconds())
	c.elapsed.Add(d.Milliseconds())
}

// roomy is a disk without limits, so that tests do not depend on the machine's.
func roomy(string) (diskState, error) {
	return diskState{free: 1 << 40, total: 1 << 40, maxOpen: 1 << 20}, nil
}

type harness struct {
	*Store
	t     *testing.T
	opts  Options
	clock *testClock

	mu    sync.Mutex
	fresh []Delivery
	steps []Change
	fatal []error
}

func newHarness(t *testing.T, change ...func(*Options)) *harness {
	t.Helper()
	h := &harness{t: t, clock: newTestClock()}
	h.opts = Options{Dir: t.TempDir() + "/q", Now: h.clock.now, elapsed: h.clock.mono, stat: roomy,
		OnReady:  func(ds []Delivery) { h.mu.Lock(); h.fresh = append(h.fresh, ds...); h.mu.Unlock() },
		OnChange: func(cs []Change) { h.mu.Lock(); h.steps = append(h.steps, cs...); h.mu.Unlock() },
		OnFatal:  func(err error) { h.mu.Lock(); h.fatal = append(h.fatal, err); h.mu.Unlock() }}
	for _, f := range change {
		f(&h.opts)
	}
	h.open()
	t.Cleanup(func() { h.close() })
	return h
}

func (h *harness) open() {
	h.t.Helper()
	s, err := Open(context.Background(), h.opts)
	if err != nil {
		h.t.Fatalf("open: %v", err)
	}
	h.Store = s
}

// close ends the store; one that failed leaves the database open, which a test
// process cannot afford.
func (h *harness) close() {
	h.t.Helper()
	if h.Store == nil {
		return
	}
	err := h.Store.Close(context.Background())
	if h.Store.failure.Load() != nil {
		h.Store.db.Close()
		h.Store.lock.Close()
	} else if err != nil {
		h.t.Errorf("close: %v", err)
	}
	h.Store = nil
}

func (h *harness) reopen() { h.t.Helper(); h.close(); h.open() }

func (h *harness) lane(names ...string) []Lane {
	h.t.Helper()
	m, err := h.SetLanes(h.t.Context(), wants(names...))
	if err != nil {
		h.t.Fatal(err)
	}
	out := make([]Lane, len(names))
	for i, n := range names {
		out[i] = m[n].Lane
	}
	return out
}

// wants is a configuration with these webhooks, all with the same identity.
func wants(names ...string) []LaneWant {
	out := make([]LaneWant, len(names))
	for i, n := range names {
		out[i] = LaneWant{Webhook: n, Identity: LaneIdentity{Sink: "http", Host: "receiver.example:443"}}
	}
	return out
}

func testEvent(n int, lanes ...Lane) *Event {
	body := fmt.Sprintf(`{"n":%d,"pad":%q}`, n, strings.Repeat("x", n%50))
	ev := &Event{Helper: "expenses", Type: "entry.created", EntryID: fmt.Sprintf("e%d", n),
		Timestamp: time.UnixMilli(int64(n)).UTC(), BodyHash: bodyHash(body)}
	ev.Payloads[FormatPeanuts] = []byte(body)
	for _, l := range lanes {
		ev.Deliveries = append(ev.Deliveries, NewDelivery{Lane: l})
	}
	return ev
}

func bodyHash(s string) (h [16]byte) {
	sum := sha256.Sum256([]byte(s))
	copy(h[:], sum[:])
	return h
}

func (h *harness) accept(evs ...*Event) []*Event {
	h.t.Helper()
	if err := h.Accept(h.t.Context(), evs); err != nil {
		h.t.Fatal(err)
	}
	for _, ev := range evs {
		if ev.Err != nil {
			h.t.Fatalf("event %s: %v", ev.EntryID, ev.Err)
		}
	}
	return evs
}

// acceptMany accepts n times 200 events of 1,500 bytes, which is below the value
// threshold: they fill memtables and tables.
func (h *harness) acceptMany(n int, lane Lane) {
	h.t.Helper()
	ev := testEvent(1, lane)
	ev.Payloads[FormatPeanuts] = []byte(strings.Repeat("x", 1500))
	for range n {
		evs := make([]*Event, 200)
		for i := range evs {
			evs[i] = new(*ev)
		}
		h.accept(evs...)
	}
}

func (h *harness) ready(lane Lane) []Delivery {
	h.t.Helper()
	ds, _, err := h.ReadReady(lane, 0, 1<<20, 1<<30)
	if err != nil {
		h.t.Fatal(err)
	}
	return ds
}

func (h *harness) returning(lane Lane) []Delivery {
	h.t.Helper()
	ds, _, err := h.ReadReturning(lane, 0, 1<<20, 1<<30)
	if err != nil {
		h.t.Fatal(err)
	}
	return ds
}

func (h *harness) waiting(lane Lane) []Delivery {
	h.t.Helper()
	ds, _, err := h.ReadWaiting(lane, 0, 0, 1<<60, 1<<20, 1<<30)
	if err != nil {
		h.t.Fatal(err)
	}
	return ds
}

// settle waits until every outcome handed in so far is durable.
func (h *harness) settle() {
	h.t.Helper()
	if err := h.do(h.t.Context(), func(*group) error { return nil }); err != nil {
		h.t.Fatal(err)
	}
}

func attemptOf(d Delivery, state delivery.State, in time.Duration) *delivery.Attempt {
	a := &delivery.Attempt{Number: d.Attempts + 1, Started: time.UnixMicro(1700000000000000).UTC(), Duration: 5 * time.Millisecond,
		Remote: "127.0.0.1:80", State: state, NextIn: in, Request: &delivery.Request{Method: "POST", URL: "https://receiver.example",
			Headers: []delivery.Header{{Name: "X-Key", Value: "${KEY}"}}}}
	switch state {
	case delivery.Success:
		a.Outcome, a.Status, a.Rule = delivery.Delivered, 200, delivery.RuleDelivered
	case delivery.Failed:
		a.Outcome, a.Status, a.Rule, a.Code, a.Error = delivery.Rejected, 410, delivery.RuleClientError, delivery.CodeStatus, "410 Gone"
	default:
		a.Outcome, a.Status, a.Rule, a.Code, a.Error = delivery.Retry, 503, delivery.RuleServerError, delivery.CodeStatus, "503"
	}
	return a
}

func (h *harness) finish(d Delivery, state delivery.State, in time.Duration) {
	h.Complete(Completion{Delivery: d, Attempt: attemptOf(d, state, in)})
}

// sound fails the test unless every row fits the ledger.
func (h *harness) sound() {
	h.t.Helper()
	f, err := h.Verify(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range f.Problems {
		h.t.Error(p)
	}
	st := h.Stats()
	if st.Deliveries != st.Success+st.Failed+st.Pending {
		h.t.Errorf("accepted %d, success %d + failed %d + pending %d", st.Deliveries, st.Success, st.Failed, st.Pending)
	}
}

func (h *harness) states(lane Lane) map[uint64]delivery.State {
	h.t.Helper()
	out := map[uint64]delivery.State{}
	cursor := ""
	var last uint64 = 1<<64 - 1
	for {
		sums, next, err := h.List(ListQuery{Lanes: []Lane{lane}, Limit: 7, Cursor: cursor})
		if err != nil {
			h.t.Fatal(err)
		}
		for _, s := range sums {
			if s.Seq >= last {
				h.t.Fatalf("list is not newest first: %d after %d", s.Seq, last)
			}
			last = s.Seq
			out[s.Seq] = s.State
		}
		if cursor = next; next == "" {
			return out
		}
	}
}

func seqs(ds []Delivery) []uint64 {
	out := make([]uint64, len(ds))
	for i, d := range ds {
		out[i] = d.Seq
	}
	return out
}

func mustEqual[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func mustSeqs(t *testing.T, what string, ds []Delivery, want ...uint64) {
	t.Helper()
	if got := seqs(ds); !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func eventIDOf(s *Store, seq uint64) string { return id.Event(s.id, seq) }
