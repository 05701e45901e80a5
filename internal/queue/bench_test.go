package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// benchQueue is an open store with one lane on a real disk, every commit synced.
type benchQueue struct {
	*Store
	lane Lane

	mu    sync.Mutex
	fresh []Delivery // offered by the commits since it was emptied
}

func newBenchQueue(tb testing.TB) *benchQueue {
	q := &benchQueue{}
	var err error
	q.Store, err = Open(tb.Context(), Options{Dir: tb.TempDir() + "/q", stat: roomy,
		OnReady: func(ds []Delivery) { q.mu.Lock(); q.fresh = append(q.fresh, ds...); q.mu.Unlock() }})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := q.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	lanes, err := q.SetLanes(tb.Context(), wants("expenses.main"))
	if err != nil {
		tb.Fatal(err)
	}
	q.lane = lanes["expenses.main"].Lane
	return q
}

// benchPayload has the size of the events that the project's benchmarks send.
func benchPayload() []byte { return []byte(`{"pad":"` + strings.Repeat("x", 340) + `"}`) }

func (q *benchQueue) events(n int) []*Event {
	evs := make([]*Event, n)
	for i := range evs {
		evs[i] = testEvent(i, q.lane)
		evs[i].Payloads[FormatPeanuts] = benchPayload()
	}
	return evs
}

func (q *benchQueue) accept(tb testing.TB, n int) {
	if err := q.Accept(tb.Context(), q.events(n)); err != nil {
		tb.Fatal(err)
	}
}

// taken is what was offered since the last call.
func (q *benchQueue) taken() []Delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	ds := slices.Clone(q.fresh)
	q.fresh = q.fresh[:0]
	return ds
}

// BenchmarkAccept is events made durable: one at a time, and in the groups that 64 senders make.
func BenchmarkAccept(b *testing.B) {
	for _, group := range []int{1, 64} {
		b.Run(fmt.Sprint(group), func(b *testing.B) {
			q := newBenchQueue(b)
			b.ReportAllocs()
			for b.Loop() {
				q.accept(b, group)
			}
			b.ReportMetric(float64(b.N*group)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkComplete is outcomes made durable, 64 at a time.
func BenchmarkComplete(b *testing.B) {
	const group = 64
	q := newBenchQueue(b)
	var spent time.Duration
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		q.accept(b, group)
		ds := q.taken()
		b.StartTimer()
		began := time.Now()
		q.complete(b, ds)
		spent += time.Since(began)
	}
	b.ReportMetric(float64(b.N*group)/spent.Seconds(), "outcomes/s")
}

// complete delivers, and returns when that is durable.
func (q *benchQueue) complete(tb testing.TB, ds []Delivery) {
	cs := make([]Completion, len(ds))
	for i, d := range ds {
		cs[i] = Completion{Delivery: d, Attempt: attemptOf(d, delivery.Success, 0)}
	}
	q.CompleteAll(cs)
	if err := q.do(tb.Context(), func(*group) error { return nil }); err != nil {
		tb.Fatal(err)
	}
}

// refillBacklog is what waits in the lane that is read from.
const refillBacklog = 20000

// filled is a store whose lane has a backlog.
func filled(tb testing.TB) *benchQueue {
	q := newBenchQueue(tb)
	for left := refillBacklog; left > 0; left -= 500 {
		q.accept(tb, 500)
	}
	return q
}

// refill reads what a lane's ring holds, from where the last one ended.
func (q *benchQueue) refill(tb testing.TB, after uint64) (last uint64) {
	const ring = 512
	ds, more, err := q.ReadReady(q.lane, after, ring, 1<<20)
	if err != nil || len(ds) == 0 {
		tb.Fatal(len(ds), err)
	}
	if !more {
		return 0
	}
	return ds[len(ds)-1].Seq
}

// BenchmarkRefill is a lane that reads on in its backlog, a ring of 512 at a time.
func BenchmarkRefill(b *testing.B) {
	q := filled(b)
	var after uint64
	b.ReportAllocs()
	for b.Loop() {
		after = q.refill(b, after)
	}
}

// rows encodes what is written for one event and its only delivery: the event, the pending
// row, the finished one.
type rows struct {
	event    EventRecord
	pending  pendingRow
	finished finishedRow
	keys     [3][]byte
	buf      []byte
}

func newRows() *rows {
	r := &rows{event: EventRecord{ID: "evt_1", Seq: 7, Helper: "expenses", Type: "entry.created", EntryID: "entry-1",
		Timestamp: time.UnixMilli(1700000000000).UTC(), Accepted: time.UnixMilli(1700000000001).UTC(), Deliveries: []NewDelivery{{Lane: 1}}}}
	r.event.Payloads[FormatPeanuts] = benchPayload()
	ref := payloadRef{eventAccepted, 20000}
	r.pending = pendingRow{ref: ref, charge: 500, accepted: 1700000000001}
	last := attemptOf(Delivery{Seq: 7}, delivery.Success, 0)
	r.finished = finishedRow{ref: ref, typ: "entry.created", entry: "entry-1", attempts: 1, accepted: 1700000000001, finished: 1700000000005, last: last, request: 9}
	r.keys = [3][]byte{appendEventKey(nil, ref, 7), appendPendingKey(nil, Ready, 1, 0, 7), appendFinishedKey(nil, classDelivered, 20000, 1, 7)}
	return r
}

func (r *rows) encode() int {
	r.buf = appendEvent(r.buf[:0], r.keys[0], &r.event, false)
	n := len(r.buf)
	r.buf = r.pending.append(r.buf[:0], r.keys[1])
	n += len(r.buf)
	r.buf = r.finished.append(r.buf[:0], r.keys[2])
	return n + len(r.buf)
}

// BenchmarkRows is the encoding of the rows of one event and its delivery.
func BenchmarkRows(b *testing.B) {
	r := newRows()
	b.ReportAllocs()
	b.SetBytes(int64(r.encode()))
	for b.Loop() {
		r.encode()
	}
}
