package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

// memStore is a model of the durable queue for tests on a fake clock. It keeps
// the contract in its worst case: completions become visible only at a commit
// some time later, and a read returns its snapshot late. What the dispatcher
// must never do is reported through fail.
type memStore struct {
	fail func(format string, args ...any)

	flush     time.Duration // how long a completion waits for its commit
	early     int64         // how many ms that may be
	readDelay func() time.Duration
	rng       *rand.Rand
	skew      int64  // ms that a test adds to relay time
	payload   []byte // of what is accepted; nil = one that says the sequence
	entries   uint64 // events are of so many entries in turn; 0 = each of its own

	commit sync.Mutex // one transaction with its callbacks at a time
	d      *Dispatcher

	mu      sync.Mutex
	stopped bool
	seq     uint64
	rows    map[queue.Lane]map[uint64]*memRow
	buffer  []queue.Completion
	timer   *time.Timer
	jobs    []queue.ReplayJob
	states  map[memState][]byte
	lines   map[memEntry]uint64 // head
	turns   []queue.Turn
	parked  int
	reads   atomic.Int64
	epoch   time.Time
}

type memState struct {
	lane  queue.Lane
	sink  string
	entry string
}

type memRow struct {
	del   queue.Delivery // Track 0: finished
	state delivery.State
	code  delivery.Code
	log   []delivery.Attempt
	once  bool // it was finished before
}

func newMemStore(fail func(string, ...any)) *memStore {
	return &memStore{fail: fail, flush: 10 * time.Millisecond, entries: 5, rows: map[queue.Lane]map[uint64]*memRow{},
		states: map[memState][]byte{}, lines: map[memEntry]uint64{},
		epoch: time.Now(), rng: rand.New(rand.NewPCG(1, 2))}
}

func (s *memStore) Now() int64 {
	return 1_700_000_000_000 + time.Since(s.epoch).Milliseconds() + s.skew
}

// serve makes d the one that hears of commits.
func (s *memStore) serve(d *Dispatcher) {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.d = d
}

// accept commits n new deliveries on each of lanes.
func (s *memStore) accept(n int, lanes ...queue.Lane) []uint64 {
	s.commit.Lock()
	defer s.commit.Unlock()
	var offered []queue.Delivery
	var seqs []uint64
	s.mu.Lock()
	for range n {
		s.seq++
		seqs = append(seqs, s.seq)
		for _, lane := range lanes {
			del := queue.Delivery{Lane: lane, Seq: s.seq, Track: queue.Ready, EventID: fmt.Sprintf("evt_%d", s.seq),
				EventType: "entry.created", EntryID: s.entryOf(s.seq), Accepted: time.Now(), Payload: s.payload}
			if del.Payload == nil {
				del.Payload = fmt.Appendf(nil, "payload %d", s.seq)
			}
			if s.rows[lane] == nil {
				s.rows[lane] = map[uint64]*memRow{}
			}
			s.rows[lane][s.seq] = &memRow{del: del, state: delivery.Pending}
			offered = append(offered, del)
		}
	}
	s.mu.Unlock()
	s.d.Offer(offered)
	return seqs
}

func (s *memStore) scan(lane queue.Lane, track queue.Track, limit, maxBytes int, keep func(*queue.Delivery) bool) (ds []queue.Delivery, more bool, err error) {
	if limit <= 0 || maxBytes <= 0 {
		s.fail("read with limit %d and %d bytes", limit, maxBytes)
	}
	s.mu.Lock()
	s.reads.Add(1)
	if s.stopped {
		s.mu.Unlock()
		return nil, false, queue.ErrStopped
	}
	for _, r := range s.rows[lane] {
		if r.del.Track == track && keep(&r.del) {
			ds = append(ds, r.del)
		}
	}
	var delay time.Duration
	if s.readDelay != nil {
		delay = s.readDelay()
	}
	s.mu.Unlock()
	slices.SortFunc(ds, func(a, b queue.Delivery) int {
		return cmp.Or(cmp.Compare(a.Due, b.Due), cmp.Compare(a.Seq, b.Seq))
	})
	if len(ds) > limit {
		ds, more = ds[:limit], true
	}
	if delay > 0 {
		time.Sleep(delay) // the snapshot grows old
	}
	return ds, more, nil
}

func (s *memStore) ReadReady(lane queue.Lane, after uint64, limit, maxBytes int) ([]queue.Delivery, bool, error) {
	return s.scan(lane, queue.Ready, limit, maxBytes, func(d *queue.Delivery) bool { return d.Seq > after })
}

func (s *memStore) ReadReturning(lane queue.Lane, after uint64, limit, maxBytes int) ([]queue.Delivery, bool, error) {
	return s.scan(lane, queue.Returning, limit, maxBytes, func(d *queue.Delivery) bool { return d.Seq > after })
}

func (s *memStore) ReadWaiting(lane queue.Lane, afterDue int64, afterSeq uint64, now int64, limit, maxBytes int) ([]queue.Delivery, int64, error) {
	all, _, err := s.scan(lane, queue.Waiting, 1<<30, maxBytes, func(d *queue.Delivery) bool {
		return d.Due > afterDue || (d.Due == afterDue && d.Seq > afterSeq)
	})
	for i := range all {
		if i == limit || all[i].Due > now {
			return all[:i], all[i].Due, err
		}
	}
	return all, 0, err
}

func (s *memStore) Complete(c queue.Completion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	// Carries the time of the call to the commit, whose transaction may have
	// begun a little earlier.
	c.Delivery.Due = s.Now()
	if s.early > 0 {
		c.Delivery.Due -= s.rng.Int64N(s.early)
	}
	s.buffer = append(s.buffer, c)
	if s.timer == nil {
		s.timer = time.AfterFunc(s.flush, s.flushNow)
	}
}

func (s *memStore) CompleteAll(cs []queue.Completion) {
	for _, c := range cs {
		s.Complete(c)
	}
}

func (s *memStore) EntryState(lane queue.Lane, sink, entryID string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, queue.ErrStopped
	}
	return s.states[memState{lane, sink, entryID}], nil
}

func (s *memStore) kept() map[memState][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.states)
}

func (s *memStore) flushNow() {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.commitBuffer()
}

// commitBuffer makes the completions durable; commit is held.
func (s *memStore) commitBuffer() {
	s.mu.Lock()
	s.timer = nil
	cs := s.buffer
	s.buffer = nil
	var changes []queue.Change
	for _, c := range cs {
		changes = append(changes, s.apply(&c))
	}
	s.mu.Unlock()
	if len(changes) > 0 {
		s.d.Changed(changes)
	}
	s.callTurns()
}

func (s *memStore) apply(c *queue.Completion) queue.Change {
	a := c.Attempt
	r := s.rows[c.Delivery.Lane][c.Delivery.Seq]
	change := queue.Change{Lane: c.Delivery.Lane, Seq: c.Delivery.Seq, State: a.State, Kind: queue.ChangeAttempt, Attempts: a.Number}
	if r == nil || r.del.Track == 0 || r.del.Track != c.Delivery.Track || r.del.Attempts != c.Delivery.Attempts ||
		r.del.Crashes != c.Delivery.Crashes {
		s.fail("completion of lane %d seq %d attempt %d matches no pending row: %+v", c.Delivery.Lane, c.Delivery.Seq, a.Number, r)
		return change
	}
	r.log = append(r.log, *a)
	if !retry.Counts(a) {
		if a.Outcome == delivery.Crashed {
			r.del.Crashes++
		}
		return change
	}
	if a.State == delivery.Success && c.Sink != "" && a.EntryState != nil {
		s.states[memState{c.Delivery.Lane, c.Sink, c.Delivery.EntryID}] = a.EntryState
	}
	r.del.Attempts++
	r.del.Tries++
	r.state, r.code, r.once = a.State, a.Code, r.once || a.State != delivery.Pending
	r.del.Track, r.del.Due = 0, 0
	if a.State == delivery.Pending {
		r.del.Track, r.del.Due = queue.Waiting, c.Delivery.Due+a.NextIn.Milliseconds()
		if c.Ordered && c.Delivery.Track == queue.Ready {
			s.startLine(r)
		}
	} else {
		s.endInLine(r)
	}
	return change
}

func (s *memStore) Requeue(ctx context.Context, lane queue.Lane, seq uint64) (queue.Delivery, error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.commitBuffer()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return queue.Delivery{}, queue.ErrStopped
	}
	r := s.rows[lane][seq]
	if r == nil {
		return queue.Delivery{}, queue.ErrNotFound
	}
	r.del.Crashes = 0
	if r.del.Track == queue.Waiting || r.del.Track == 0 {
		r.del.Track, r.del.Due, r.del.Tries, r.del.Replay = queue.Returning, 0, 0, false
		r.state = delivery.Pending
	}
	return r.del, nil
}

func (s *memStore) Drop(ctx context.Context, lane queue.Lane, seq uint64) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.commitBuffer()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rows[lane][seq]
	switch {
	case s.stopped:
		return queue.ErrStopped
	case r == nil:
		return queue.ErrNotFound
	case r.state == delivery.Success:
		return queue.ErrNotFound
	case r.state == delivery.Failed:
		delete(s.rows[lane], seq)
	default:
		r.del.Track, r.del.Due, r.state, r.code, r.once = 0, 0, delivery.Failed, delivery.CodeDropped, true
		s.endInLine(r)
		s.mu.Unlock()
		s.callTurns()
		s.mu.Lock()
	}
	return nil
}

func (s *memStore) DropPending(_ context.Context, q *queue.PendingDrop, _ int) (n int, more bool, err error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.commitBuffer()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return 0, false, queue.ErrStopped
	}
	for seq, r := range s.rows[q.Lane] {
		switch {
		case r.state != delivery.Pending || q.Skip(seq):
		case n == 3:
			return n, true, nil
		default:
			r.del.Track, r.del.Due, r.state, r.code, r.once = 0, 0, delivery.Failed, q.Code, true
			s.endInLine(r)
			n++
		}
	}
	return n, false, nil
}

func (s *memStore) CreateReplay(ctx context.Context, job queue.ReplayJob) (queue.ReplayJob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	job.ID = fmt.Sprintf("replay-%d", len(s.jobs)+1)
	s.jobs = append(s.jobs, job)
	return job, nil
}

func (s *memStore) Replays() []queue.ReplayJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.jobs)
}

func (s *memStore) StepReplay(ctx context.Context, id string, limit int) ([]queue.Delivery, bool, error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.commitBuffer()
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.jobs, func(j queue.ReplayJob) bool { return j.ID == id })
	if i < 0 || s.jobs[i].Done {
		return nil, false, queue.ErrNotFound
	}
	job := &s.jobs[i]
	seqs := make([]uint64, 0, len(s.rows[job.Lane]))
	for seq, r := range s.rows[job.Lane] {
		if seq > job.Cursor && r.del.Track == 0 {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	job.Done = len(seqs) <= limit
	var ds []queue.Delivery
	for _, seq := range seqs[:min(limit, len(seqs))] {
		r := s.rows[job.Lane][seq]
		r.del.Track, r.del.Due, r.del.Tries, r.del.Crashes, r.del.Replay, r.state = queue.Returning, 0, 0, 0, true, delivery.Pending
		job.Cursor = seq
		job.Requeued++
		ds = append(ds, r.del)
	}
	return ds, job.Done, nil
}

func (s *memStore) CancelReplay(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.jobs, func(j queue.ReplayJob) bool { return j.ID == id })
	if i < 0 {
		return queue.ErrNotFound
	}
	s.jobs[i].Done = true
	return nil
}

func (s *memStore) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

// count returns how many deliveries of the lane are in each state.
func (s *memStore) count(lane queue.Lane) (pending, success, failed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rows[lane] {
		switch r.state {
		case delivery.Pending:
			pending++
		case delivery.Success:
			success++
		case delivery.Failed:
			failed++
		}
	}
	return pending, success, failed
}

// attempts returns the log of one delivery.
func (s *memStore) attempts(lane queue.Lane, seq uint64) []delivery.Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rows[lane][seq].log)
}
