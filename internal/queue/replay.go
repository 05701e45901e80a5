package queue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// ReplayJob is the re-delivery of finished deliveries of one lane, in the order
// of acceptance. It survives a restart: its cursor moves in the transaction
// that moves the deliveries.
type ReplayJob struct {
	ID        string // given by CreateReplay
	Lane      Lane
	States    []delivery.State // empty = Success and Failed
	Since     time.Time        // accepted at or after; zero = no bound
	Until     time.Time        // accepted before; zero = no bound
	EventType string           // "" = all
	Rate      float64          // per second, for whoever steps it; 0 = no limit; kept to 0.001
	Cursor    uint64           // everything up to this sequence number is done
	Matched   int64            // when it was created
	Requeued  int64
	Expired   int64 // matched, but the payload was let go
	Done      bool
	Started   time.Time

	// EventID and Where choose among those by what only the events say: the id, and
	// an expression over the payload that Options.Where understands. "" = all.
	EventID, Where string
	Undecided      int64  // left out: Where failed on their payload
	Trouble        string // the first of those, and why; may quote its payload

	upto uint64 // the last event accepted when it was created
}

func (j *ReplayJob) wants(h *finishedRow, class uint8) bool {
	state := delivery.Success
	if class == classFailed {
		state = delivery.Failed
	}
	return (len(j.States) == 0 || slices.Contains(j.States, state)) &&
		(j.EventType == "" || j.EventType == h.typ) && within(wallMillis(h.accepted), j.Since, j.Until)
}

// finishedScan walks a lane's finished deliveries in the order of acceptance,
// over all buckets.
type finishedScan struct {
	it      *badger.Iterator
	heads   []finishedHead
	current int // head that the iterator stands on, -1 = none
}

type finishedHead struct {
	prefix []byte
	seq    uint64 // 0 = none left
}

func scanFinished(txn *badger.Txn, days []dayState, lane Lane, after uint64) *finishedScan {
	f := &finishedScan{it: txn.NewIterator(badger.IteratorOptions{Prefix: []byte{kindFinished}}), current: -1}
	for _, d := range days {
		for _, class := range [...]uint8{classDelivered, classFailed} {
			full := appendFinishedKey(nil, class, d.day, lane, after+1)
			f.it.Seek(full)
			if prefix := full[:lenFinished-8]; f.it.ValidForPrefix(prefix) {
				f.heads = append(f.heads, finishedHead{prefix: prefix, seq: tail8(f.it.Item().Key())})
			}
		}
	}
	return f
}

// next returns the key of the next row, nil at the end.
func (f *finishedScan) next() []byte {
	best := -1
	for i, h := range f.heads {
		if h.seq != 0 && (best < 0 || h.seq < f.heads[best].seq) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	h := &f.heads[best]
	key := binary.BigEndian.AppendUint64(slices.Clone(h.prefix), h.seq)
	if f.current != best {
		f.it.Seek(key)
	}
	f.current = best
	if f.it.Valid() && bytes.Equal(f.it.Item().Key(), key) {
		f.it.Next()
	}
	h.seq = 0
	if f.it.ValidForPrefix(h.prefix) {
		h.seq = tail8(f.it.Item().Key())
	}
	return key
}

// scanReplay calls f with what a job would move, from its cursor on, until f
// says stop or limit rows were looked at. It returns the last sequence number
// looked at and whether that was the end.
func scanReplay(txn *badger.Txn, days []dayState, j *ReplayJob, limit int, f func(seq uint64, h *finishedRow) (more bool)) (last uint64, end bool, found []damaged, err error) {
	scan := scanFinished(txn, days, j.Lane, j.Cursor)
	defer scan.it.Close()
	last = j.Cursor
	for range limit {
		key := scan.next()
		if key == nil || tail8(key) > j.upto {
			return last, true, found, nil
		}
		raw, err := getCopy(txn, key)
		if err != nil {
			return last, false, found, err
		}
		last = tail8(key)
		h, err := decodeFinished(key, raw)
		if err != nil {
			found = append(found, damaged{kind: kindFinished, key: key, reason: err.Error()})
			continue
		}
		if j.wants(&h, key[1]) && !f(last, &h) {
			return last, false, found, nil
		}
	}
	return last, false, found, nil
}

// CountReplay is a job with the numbers of what it would do now: Matched, and when
// payloads have to be looked at for that, Expired and Undecided. Only the job's lane
// and filters matter. It looks at every finished delivery of the lane, and ends
// early with ctx, whose cause it returns then. [ErrNotFound] when there is no event
// with the job's EventID; any other error that is not a storage error is that of
// Options.Where.
func (s *Store) CountReplay(ctx context.Context, j ReplayJob) (ReplayJob, error) {
	j.Cursor, j.Matched, j.Expired, j.Undecided, j.Trouble, j.upto = 0, 0, 0, 0, "", 1<<64-1
	if err := s.narrow(&j); err != nil {
		return j, err
	}
	days := s.dayList()
	for end := false; !end; {
		if ctx.Err() != nil {
			return j, context.Cause(ctx)
		}
		var err error
		if j.selective() {
			var seqs []uint64
			seqs, end, err = s.choose(ctx, &j, maxScanned)
			j.Matched += int64(len(seqs))
		} else {
			err = s.view(func(txn *badger.Txn) (found []damaged, err error) {
				n := int64(0)
				j.Cursor, end, found, err = scanReplay(txn, days, &j, maxScanned, func(uint64, *finishedRow) bool { n++; return true })
				j.Matched += n
				return found, err
			})
		}
		if err != nil {
			return j, err
		}
	}
	return j, nil
}

// CreateReplay makes a job durable and gives it its id. Deliveries of events
// accepted later are not part of it. Errors as of CountReplay.
func (s *Store) CreateReplay(ctx context.Context, j ReplayJob) (ReplayJob, error) {
	counted, err := s.CountReplay(ctx, j)
	if err != nil {
		return j, err
	}
	j.Cursor, j.Requeued, j.Expired, j.Undecided, j.Trouble, j.Done, j.upto = 0, 0, 0, 0, "", false, 1<<64-1
	if err := s.narrow(&j); err != nil {
		return j, err
	}
	err = s.do(ctx, func(g *group) error {
		if s.lanes[j.Lane] == nil {
			return fmt.Errorf("lane %d: %w", j.Lane, ErrNotFound)
		}
		j.ID = fmt.Sprintf("rpl_%d", s.led.nextReplay)
		s.led.nextReplay++
		j.Matched, j.upto, j.Started = counted.Matched, min(j.upto, s.led.lastSeq), g.wall.UTC().Round(0)
		g.putReplay(&j)
		failpoint.Here("replay.created")
		return nil
	})
	return j, err
}

func (g *group) putReplay(j *ReplayJob) {
	g.durable = append(g.durable, func() { g.s.jobs[j.ID] = j })
	key := replayKey(j.ID)
	g.put(key, j.append(nil, key))
}

// Replays lists all jobs, those done included, in the order of creation.
func (s *Store) Replays() []ReplayJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]ReplayJob, 0, len(s.jobs))
	for _, j := range s.jobs {
		out = append(out, *j)
	}
	slices.SortFunc(out, func(a, b ReplayJob) int {
		return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), strings.Compare(a.ID, b.ID))
	})
	return out
}

// StepReplay moves up to limit deliveries of a job back to pending, and its
// cursor behind them, in one transaction: a crash repeats none and skips none.
// It may move fewer, even none, before the job is done, because the work per
// call is bounded. [ErrNotFound] for an unknown or cancelled job.
func (s *Store) StepReplay(ctx context.Context, id string, limit int) (ds []Delivery, done bool, err error) {
	const most = 1000 // stays within one transaction
	limit = min(limit, most)
	if j, ok := s.job(id); ok && j.selective() && !j.Done {
		return s.stepChosen(ctx, j, limit)
	}
	var found []damaged
	err = s.do(ctx, func(g *group) error {
		old := s.jobs[id]
		if old == nil {
			return ErrNotFound
		}
		j := *old
		if done = j.Done; done {
			return nil
		}
		var seqs []uint64
		var err error
		j.Cursor, j.Done, found, err = scanReplay(g.reader(), s.days, &j, 10*limit+1000, func(seq uint64, _ *finishedRow) bool {
			seqs = append(seqs, seq)
			return len(seqs) < limit
		})
		if err != nil {
			return g.plain(err)
		}
		if ds, err = g.bringBack(&j, seqs); err != nil {
			return err
		}
		done = j.Done
		g.putReplay(&j)
		return nil
	})
	if err == nil && len(found) > 0 {
		_, err = s.setAside(found)
	}
	return ds, done, err
}

// bringBack makes deliveries of a job pending again, and moves its cursor back to the
// last one when the group is full before that.
func (g *group) bringBack(j *ReplayJob, seqs []uint64) (ds []Delivery, err error) {
	for i, seq := range seqs {
		d, err := g.requeue(j.Lane, seq, true)
		switch {
		case err == nil:
			failpoint.Here("replay.moved")
			j.Requeued++
			ds = append(ds, d)
		case errors.Is(err, ErrPayloadExpired):
			j.Expired++
		case errors.Is(err, ErrNotFound):
		default:
			return ds, err
		}
		if g.full() && i+1 < len(seqs) {
			j.Cursor, j.Done = seq, false
			break
		}
	}
	return ds, nil
}

// CancelReplay forgets a job, done or not. What it moved stays moved.
func (s *Store) CancelReplay(ctx context.Context, id string) error {
	return s.do(ctx, func(g *group) error {
		if s.jobs[id] == nil {
			return ErrNotFound
		}
		g.durable = append(g.durable, func() { delete(s.jobs, id) })
		g.del(replayKey(id))
		failpoint.Here("replay.cancelled")
		return nil
	})
}
