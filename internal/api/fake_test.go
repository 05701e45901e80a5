package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/backup"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

const testStore = 0x1234567890

// key names one delivery.
type key struct {
	lane queue.Lane
	seq  uint64
}

// fakeStore is a store in memory that keeps the contract of package queue and
// fails the test when the API breaks its side of it.
type fakeStore struct {
	t *testing.T

	mu       sync.Mutex // guards the following
	lanes    map[queue.Lane]queue.LaneStats
	rows     map[key]queue.Summary
	attempts map[key][]delivery.Attempt
	events   map[uint64]queue.EventRecord
	stats    queue.Stats
	err      error // answers everything
	lists    int   // calls of List
	replays  []queue.ReplayJob
	held     chan struct{} // closed by a backup, which goes on until its context ends
}

func newFakeStore(t *testing.T) *fakeStore {
	return &fakeStore{t: t, lanes: map[queue.Lane]queue.LaneStats{}, rows: map[key]queue.Summary{},
		attempts: map[key][]delivery.Attempt{}, events: map[uint64]queue.EventRecord{}, stats: queue.Stats{State: queue.StateOK}}
}

func (s *fakeStore) StoreID() uint64 {
	if s.Stats().State == queue.StateStarting {
		return 0
	}
	return testStore
}

// Audit finds the books of its lanes in order.
func (s *fakeStore) Audit(_ context.Context, progress func(queue.AuditProgress)) (queue.Audit, error) {
	if s.err != nil {
		return queue.Audit{}, s.err
	}
	out := queue.Audit{At: epoch, Store: testStore, Events: 5, EventsKept: 4, EventsForgotten: 1, Rows: 40, Deliveries: s.stats.Deliveries}
	for lane, l := range s.Lanes() {
		out.Lanes = append(out.Lanes, queue.AuditLane{Lane: lane, Webhook: l.Webhook, Pending: l.Pending(), Success: l.Success, Failed: l.Failed,
			Delivered: l.Success, Refused: l.Failed})
	}
	progress(queue.AuditProgress{Events: 5, Of: 5, Rows: 40})
	return out, nil
}

// Backup writes a text that is none, and goes on until it is let go when there is
// somebody to hold it.
func (s *fakeStore) Backup(ctx context.Context, w io.Writer, relay string) (backup.Footer, error) {
	if s.err != nil {
		return backup.Footer{}, s.err
	}
	_, err := io.WriteString(w, "backup of "+relay)
	if s.held != nil {
		close(s.held)
		<-ctx.Done()
		err = ctx.Err()
	}
	return backup.Footer{}, err
}

func (s *fakeStore) Account(ids []string) (out []queue.Account, err error) {
	for i, id := range ids {
		out = append(out, queue.Account{ID: id, Known: i%2 == 0, Pending: i, Success: 1})
	}
	return out, s.err
}

func (s *fakeStore) LaneName(n queue.Lane) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes[n].Webhook
}

func (s *fakeStore) Lanes() iter.Seq2[queue.Lane, queue.LaneStats] {
	return func(yield func(queue.Lane, queue.LaneStats) bool) {
		s.mu.Lock()
		copied := maps.Clone(s.lanes)
		s.mu.Unlock()
		for _, n := range slices.Sorted(maps.Keys(copied)) {
			if !yield(n, copied[n]) {
				return
			}
		}
	}
}

func (s *fakeStore) Stats() queue.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *fakeStore) OldestAccepted(lane queue.Lane) (oldest time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, row := range s.rows {
		if k.lane == lane && row.State == delivery.Pending && row.Attempts == 0 && (oldest.IsZero() || row.Accepted.Before(oldest)) {
			oldest = row.Accepted
		}
	}
	return oldest, s.err
}

func (s *fakeStore) Summary(lane queue.Lane, seq uint64) (queue.Summary, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return queue.Summary{}, s.err
	}
	row, ok := s.rows[key{lane, seq}]
	if !ok {
		return row, fmt.Errorf("delivery: %w", queue.ErrNotFound)
	}
	return row, nil
}

func (s *fakeStore) Summaries(of []queue.Change) (sums []queue.Summary, err error) {
	for _, c := range of {
		row, err := s.Summary(c.Lane, c.Seq)
		if errors.Is(err, queue.ErrNotFound) {
			row, err = queue.Summary{ID: id.Delivery(s.StoreID(), uint32(c.Lane), c.Seq), Lane: c.Lane, Seq: c.Seq}, nil
		}
		if err != nil {
			return nil, err
		}
		sums = append(sums, row)
	}
	return sums, nil
}

func (s *fakeStore) Attempts(lane queue.Lane, seq uint64) ([]delivery.Attempt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.attempts[key{lane, seq}]), s.err
}

func (s *fakeStore) Event(seq uint64) (queue.EventRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.events[seq]
	if !ok {
		return e, fmt.Errorf("event: %w", queue.ErrNotFound)
	}
	return e, s.err
}

func (s *fakeStore) FindEvent(text string) ([]queue.EventRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []queue.EventRecord
	for _, seq := range slices.Sorted(maps.Keys(s.events)) {
		if s.events[seq].ID == text {
			found = append(found, s.events[seq])
		}
	}
	return found, s.err
}

func (s *fakeStore) List(q queue.ListQuery) ([]queue.Summary, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	if s.err != nil {
		return nil, "", s.err
	}
	if q.Limit < 1 || q.Limit > maxLimit {
		s.t.Errorf("List was called with limit %d", q.Limit)
	}
	from := key{seq: 1<<64 - 1, lane: 1<<32 - 1}
	if q.Cursor != "" {
		seq, lane, ok := strings.Cut(q.Cursor, "-")
		n, err1 := strconv.ParseUint(seq, 10, 64)
		l, err2 := strconv.ParseUint(lane, 10, 32)
		if !ok || err1 != nil || err2 != nil {
			return nil, "", fmt.Errorf("list: %w", queue.ErrBadCursor)
		}
		from = key{queue.Lane(l), n}
	}
	newest := func(a, b key) int { return cmp.Or(cmp.Compare(b.seq, a.seq), cmp.Compare(b.lane, a.lane)) }
	var page []queue.Summary
	for _, k := range slices.SortedFunc(maps.Keys(s.rows), newest) {
		row := s.rows[k]
		if newest(k, from) <= 0 || !matches(&q, &row) {
			continue
		}
		if len(page) == q.Limit {
			last := page[len(page)-1]
			return page, fmt.Sprintf("%d-%d", last.Seq, last.Lane), nil
		}
		page = append(page, row)
	}
	return page, "", nil
}

func matches(q *queue.ListQuery, row *queue.Summary) bool {
	return (len(q.Lanes) == 0 || slices.Contains(q.Lanes, row.Lane)) &&
		(len(q.States) == 0 || slices.Contains(q.States, row.State)) &&
		(q.Since.IsZero() || !row.Accepted.Before(q.Since)) && (q.Until.IsZero() || row.Accepted.Before(q.Until)) &&
		(q.EventType == "" || q.EventType == row.EventType)
}

func (s *fakeStore) CountReplay(_ context.Context, job queue.ReplayJob) (queue.ReplayJob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if job.Lane == 0 || len(job.States) == 0 {
		s.t.Errorf("CountReplay was called without a lane or states: %+v", job)
	}
	job.Matched = 0
	for _, row := range s.rows {
		q := queue.ListQuery{Lanes: []queue.Lane{job.Lane}, States: job.States, Since: job.Since, Until: job.Until, EventType: job.EventType}
		if matches(&q, &row) && (job.EventID == "" || job.EventID == row.EventID) {
			job.Matched++
		}
	}
	if job.EventID != "" && job.Matched == 0 {
		return job, queue.ErrNotFound
	}
	return job, s.err
}

// add puts a delivery of an event into the store.
func (s *fakeStore) add(lane queue.Lane, seq uint64, state delivery.State, change func(*queue.Summary)) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := queue.Summary{ID: id.Delivery(testStore, uint32(lane), seq), Lane: lane, Seq: seq, EventID: id.Event(testStore, seq),
		EventType: "entry.created", EntryID: fmt.Sprintf("entry-%d", seq), State: state, Accepted: epoch.Add(time.Duration(seq) * time.Second)}
	if state != delivery.Pending {
		row.Finished, row.Attempts, row.StatusCode = row.Accepted.Add(250*time.Millisecond), 1, 200
	}
	if change != nil {
		change(&row)
	}
	s.rows[key{lane, seq}] = row
	stats := s.lanes[lane]
	switch state {
	case delivery.Pending:
		stats.Ready++
	case delivery.Success:
		stats.Success++
	case delivery.Failed:
		stats.Failed++
	}
	s.lanes[lane] = stats
	return row.ID
}

// fakeDispatcher keeps the contract of the dispatcher over a fakeStore.
type fakeDispatcher struct {
	store *fakeStore

	mu       sync.Mutex // guards the following
	inFlight map[key]bool
	waits    map[key]uint64
	states   map[queue.Lane]LaneState
	test     func(context.Context, *delivery.Outbound) (delivery.Attempt, error)
}

func (d *fakeDispatcher) InFlight(lane queue.Lane, seq uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inFlight[key{lane, seq}]
}

func (d *fakeDispatcher) WaitsFor(lane queue.Lane, seq uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waits[key{lane, seq}]
}

func (d *fakeDispatcher) LaneState(lane queue.Lane) LaneState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.states[lane]
}

func (d *fakeDispatcher) Retry(_ context.Context, lane queue.Lane, seq uint64) error {
	if d.InFlight(lane, seq) {
		return fmt.Errorf("retry: %w", ErrInFlight)
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	row, ok := d.store.rows[key{lane, seq}]
	if !ok {
		return queue.ErrNotFound
	}
	if e, ok := d.store.events[seq]; !ok || e.Payloads[0] == nil && e.Payloads[1] == nil {
		return fmt.Errorf("retry: %w", queue.ErrPayloadExpired)
	}
	row.State, row.Next, row.Finished = delivery.Pending, time.Time{}, time.Time{}
	d.store.rows[key{lane, seq}] = row
	return nil
}

func (d *fakeDispatcher) Drop(_ context.Context, lane queue.Lane, seq uint64) error {
	if d.InFlight(lane, seq) {
		return fmt.Errorf("drop: %w", ErrInFlight)
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	row, ok := d.store.rows[key{lane, seq}]
	switch {
	case !ok:
		return queue.ErrNotFound
	case row.State == delivery.Success:
		d.store.t.Error("Drop was called for a delivered delivery")
	case row.State == delivery.Failed:
		delete(d.store.rows, key{lane, seq})
	default:
		row.State, row.Code = delivery.Failed, delivery.CodeDropped
		d.store.rows[key{lane, seq}] = row
	}
	return nil
}

func (d *fakeDispatcher) Test(ctx context.Context, lane queue.Lane, o *delivery.Outbound) (delivery.Attempt, error) {
	if lane == 0 || !o.Test {
		d.store.t.Errorf("Test was called for lane %d with %+v", lane, o)
	}
	return d.test(ctx, o)
}

func (d *fakeDispatcher) Replay(ctx context.Context, job queue.ReplayJob) (queue.ReplayJob, error) {
	job, err := d.store.CountReplay(ctx, job)
	if err != nil {
		return job, err
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	job.ID, job.Started = fmt.Sprintf("rep_%d", len(d.store.replays)+1), epoch
	d.store.replays = append(d.store.replays, job)
	return job, nil
}

func (d *fakeDispatcher) CancelReplay(_ context.Context, name string) error {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	i := slices.IndexFunc(d.store.replays, func(j queue.ReplayJob) bool { return j.ID == name })
	if i < 0 {
		return queue.ErrNotFound
	}
	d.store.replays = slices.Delete(d.store.replays, i, i+1)
	return nil
}

func (d *fakeDispatcher) Replays() []queue.ReplayJob {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	return slices.Clone(d.store.replays)
}
