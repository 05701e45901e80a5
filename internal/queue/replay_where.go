package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// What a replay chooses by what only the events say is decided outside the
// committer, on a snapshot: an expression over a payload may take its time. The
// committer then brings back what is still finished and moves the cursor, in one
// transaction as for any other replay. Only one caller steps a job, so that
// nothing else has moved its cursor meanwhile.

const (
	// chooseRows and chooseBytes bound the payloads in memory at once.
	chooseRows  = 256
	chooseBytes = 4 << 20
	// chooseTime is after how long what was chosen is brought back before going on.
	chooseTime = time.Second
	// maxTrouble bounds ReplayJob.Trouble, in bytes.
	maxTrouble = 400
)

// selective reports whether a job chooses by more than the rows of the log say.
func (j *ReplayJob) selective() bool { return j.EventID != "" || j.Where != "" }

// narrow lets a job for one event look at no other rows than it must.
func (s *Store) narrow(j *ReplayJob) error {
	if j.EventID == "" {
		return nil
	}
	events, err := s.FindEvent(j.EventID)
	if err != nil {
		return err
	}
	lo, hi := events[0].Seq, events[0].Seq
	for i := range events {
		lo, hi = min(lo, events[i].Seq), max(hi, events[i].Seq)
	}
	j.Cursor, j.upto = lo-1, min(j.upto, hi)
	return nil
}

func (s *Store) job(id string) (ReplayJob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.jobs[id]; j != nil {
		return *j, true
	}
	return ReplayJob{}, false
}

// candidate is a finished delivery whose event has to be looked at.
type candidate struct {
	seq     uint64
	payload []byte
	gone    bool // let go by retention
	other   bool // not the event that is wanted
}

// choose returns up to limit of the next deliveries that a job wants, moves its
// cursor behind what was looked at and counts what cannot be decided. It may return
// fewer, even none, before the end.
func (s *Store) choose(ctx context.Context, j *ReplayJob, limit int) (seqs []uint64, end bool, err error) {
	keep := func(context.Context, []byte) (bool, error) { return true, nil }
	if j.Where != "" {
		if s.opts.Where == nil {
			return nil, false, fmt.Errorf("replay %q: nothing here reads its expression", j.ID)
		}
		if keep, err = s.opts.Where(j.Where); err != nil {
			return nil, false, err
		}
	}
	rows, cursor, end, err := s.candidates(j, limit)
	if err != nil {
		return nil, false, err
	}
	j.Cursor = cursor
	began := time.Now()
	for i, row := range rows {
		switch chosen, err := row.decide(ctx, keep); {
		case ctx.Err() != nil:
			return nil, false, context.Cause(ctx)
		case row.gone:
			j.Expired++
		case err != nil:
			if j.Undecided++; j.Trouble == "" {
				text := id.Delivery(s.id, uint32(j.Lane), row.seq) + ": " + err.Error()
				j.Trouble = strings.ToValidUTF8(text[:min(len(text), maxTrouble)], "")
			}
		case chosen:
			seqs = append(seqs, row.seq)
		}
		if i+1 < len(rows) && (len(seqs) >= limit || time.Since(began) > chooseTime) {
			j.Cursor = row.seq
			return seqs, false, nil
		}
	}
	return seqs, end, nil
}

func (c *candidate) decide(ctx context.Context, keep func(context.Context, []byte) (bool, error)) (bool, error) {
	if c.gone || c.other {
		return false, nil
	}
	return keep(ctx, c.payload)
}

// candidates reads what a job has to look at next.
func (s *Store) candidates(j *ReplayJob, limit int) (rows []candidate, cursor uint64, end bool, err error) {
	days := s.dayList()
	err = s.view(func(txn *badger.Txn) (found []damaged, err error) {
		rows = nil
		size := 0
		cursor, end, found, err = scanReplay(txn, days, j, 10*min(limit, chooseRows)+1000, func(seq uint64, h *finishedRow) bool {
			row := pendingRow{format: h.format, ref: h.ref}
			d, reason := s.loadPending(txn, pendingPlace{track: Returning, lane: j.Lane, seq: seq}, &row)
			c := candidate{seq: seq, payload: d.Payload, gone: reason != "", other: j.EventID != "" && d.EventID != j.EventID}
			c.gone = c.gone && !c.other
			rows = append(rows, c)
			size += len(d.Payload)
			return len(rows) < chooseRows && size < chooseBytes
		})
		return found, err
	})
	return rows, cursor, end, err
}

// stepChosen is StepReplay of a job that chooses by what its events say.
func (s *Store) stepChosen(ctx context.Context, j ReplayJob, limit int) (ds []Delivery, done bool, err error) {
	before := j.Cursor
	seqs, end, err := s.choose(ctx, &j, limit)
	if err != nil {
		return nil, false, err
	}
	err = s.do(ctx, func(g *group) error {
		now := s.jobs[j.ID]
		if now == nil {
			return ErrNotFound
		}
		if now.Cursor != before || now.Done {
			done = now.Done
			return nil
		}
		j.Done = end
		// What an operator brought back meanwhile may be in flight.
		seqs = slices.DeleteFunc(seqs, func(seq uint64) bool {
			p, err := locate(g.reader(), s.days, j.Lane, seq)
			return err == nil && !p.finished
		})
		if ds, err = g.bringBack(&j, seqs); err != nil {
			return err
		}
		done = j.Done
		g.putReplay(&j)
		return nil
	})
	return ds, done, err
}
