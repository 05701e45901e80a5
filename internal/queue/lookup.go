package queue

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// dayList is a copy of the days that may have rows, ascending.
func (s *Store) dayList() []dayState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.days)
}

// Summary is one delivery's row of the log. Error: [ErrNotFound].
func (s *Store) Summary(lane Lane, seq uint64) (sum Summary, err error) {
	days := s.dayList()
	err = s.view(func(txn *badger.Txn) ([]damaged, error) {
		p, err := locate(txn, days, lane, seq)
		if err != nil {
			return nil, err
		}
		var bad *damaged
		if sum, bad, err = s.summarise(txn, p.key, p.raw); bad != nil {
			return []damaged{*bad}, firstError(err, ErrNotFound)
		}
		return nil, err
	})
	return sum, err
}

// Summaries are the rows of the log for changes, in their order, of one snapshot. Of
// a delivery that has gone from the log there is the identity only.
func (s *Store) Summaries(of []Change) (sums []Summary, err error) {
	days := s.dayList()
	err = s.view(func(txn *badger.Txn) (found []damaged, err error) {
		sums = make([]Summary, len(of))
		for i := range of {
			c := &of[i]
			gone := Summary{ID: id.Delivery(s.id, uint32(c.Lane), c.Seq), Lane: c.Lane, Seq: c.Seq}
			p, err := locate(txn, days, c.Lane, c.Seq)
			if errors.Is(err, ErrNotFound) {
				sums[i] = gone
				continue
			}
			var bad *damaged
			if err == nil {
				sums[i], bad, err = s.summarise(txn, p.key, p.raw)
			}
			if bad != nil {
				found, sums[i], err = append(found, *bad), gone, nil
			}
			if err != nil {
				return found, err
			}
		}
		return found, nil
	})
	return sums, err
}

// summarise makes the row of the log for an r, w, p, f or h row.
func (s *Store) summarise(txn *badger.Txn, key, raw []byte) (sum Summary, bad *damaged, err error) {
	if key[0] == kindFinished {
		h, err := decodeFinished(key, raw)
		if err != nil {
			return sum, &damaged{kind: kindFinished, key: key, reason: err.Error()}, nil
		}
		return s.summariseFinished(key, &h), nil, nil
	}
	row, err := decodePending(key, raw)
	if err != nil {
		return sum, &damaged{kind: key[0], key: key, reason: err.Error()}, nil
	}
	p := splitPending(key)
	d, reason := s.loadPending(txn, p, &row)
	if reason != "" {
		return sum, &damaged{kind: key[0], key: key, reason: reason}, nil
	}
	sum = Summary{ID: id.Delivery(s.id, uint32(p.lane), p.seq), Lane: p.lane, Seq: p.seq, EventID: d.EventID, EventType: d.EventType,
		EntryID: d.EntryID, State: delivery.Pending, Attempts: row.attempts, StatusCode: row.status, Code: delivery.Code(row.code),
		Error: row.errText, Accepted: d.Accepted, Unstable: d.Unstable}
	if sum.WaitsFor, err = s.waitsFor(txn, p, d.EntryID); err != nil {
		return sum, nil, err
	}
	if p.track == Waiting && p.due > s.Now() {
		sum.Next = s.clock.toWall(p.due)
	}
	return sum, nil, nil
}

func (s *Store) summariseFinished(key []byte, h *finishedRow) Summary {
	lane, seq := Lane(binary.BigEndian.Uint32(key[4:])), tail8(key)
	sum := Summary{ID: id.Delivery(s.id, uint32(lane), seq), Lane: lane, Seq: seq, EventID: h.ownID, EventType: h.typ, EntryID: h.entry,
		State: delivery.Success, Attempts: h.attempts, Code: h.code, Error: h.errText, Accepted: wallMillis(h.accepted),
		Finished: wallMillis(h.finished), Unstable: h.unstable}
	if key[1] == classFailed {
		sum.State = delivery.Failed
	}
	if sum.EventID == "" {
		sum.EventID = id.Event(s.id, seq)
	}
	if h.last != nil {
		sum.StatusCode = h.last.Status
	}
	return sum
}

// attemptKeys lists the a rows of one delivery, the oldest day first.
func attemptKeys(txn *badger.Txn, days []dayState, lane Lane, seq uint64) ([][]byte, error) {
	var keys [][]byte
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{kindAttempt}})
	defer it.Close()
	for _, d := range days {
		full := appendAttemptKey(nil, d.day, lane, seq, 0)
		prefix := full[:lenAttempt-2]
		for it.Seek(full); it.ValidForPrefix(prefix); it.Next() {
			keys = append(keys, it.Item().KeyCopy(nil))
		}
	}
	return keys, nil
}

// Attempts returns every attempt of a delivery that is still kept, in the
// order in which they were made. Error: [ErrNotFound].
func (s *Store) Attempts(lane Lane, seq uint64) (as []delivery.Attempt, err error) {
	days := s.dayList()
	err = s.view(func(txn *badger.Txn) (found []damaged, err error) {
		as = nil
		p, err := locate(txn, days, lane, seq)
		if err != nil {
			return nil, err
		}
		keys, err := attemptKeys(txn, days, lane, seq)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			raw, err := getCopy(txn, key)
			if err != nil {
				return nil, err
			}
			a, request, err := decodeAttemptRow(key, raw)
			if err != nil {
				found = append(found, damaged{kind: kindAttempt, key: key, reason: err.Error()})
				continue
			}
			a.Request = s.readTemplate(txn, request)
			as = append(as, a)
		}
		if p.finished {
			h, err := decodeFinished(p.key, p.raw)
			if err != nil {
				return append(found, damaged{kind: kindFinished, key: p.key, reason: err.Error()}), nil
			}
			if h.last != nil {
				h.last.Request = s.readTemplate(txn, h.request)
				as = append(as, *h.last)
			}
		}
		slices.SortStableFunc(as, func(a, b delivery.Attempt) int { return cmp.Compare(a.Number, b.Number) })
		return found, nil
	})
	return as, err
}

// readTemplate returns nil for a template that is not there or damaged: an
// attempt is worth showing without it.
func (s *Store) readTemplate(txn *badger.Txn, hash uint64) *delivery.Request {
	if hash == 0 {
		return nil
	}
	key := templateKey(hash)
	raw, err := getCopy(txn, key)
	if err != nil || raw == nil {
		return nil
	}
	r, err := decodeRequest(key, raw)
	if err != nil {
		s.log.Warn("request template is damaged", "err", err)
		return nil
	}
	return r
}

// Event is an accepted event as it is kept. [ErrNotFound] also when retention
// let it go.
func (s *Store) Event(seq uint64) (r EventRecord, err error) {
	days := s.dayList()
	err = s.view(func(txn *badger.Txn) (found []damaged, err error) {
		r, found, err = s.readEvent(txn, days, seq)
		return found, err
	})
	return r, err
}

// readEvent looks in the bucket of the day of acceptance first, then wherever
// the record may have been copied.
func (s *Store) readEvent(txn *badger.Txn, days []dayState, seq uint64) (r EventRecord, found []damaged, err error) {
	at, _ := slices.BinarySearchFunc(days, seq, func(d dayState, seq uint64) int {
		if d.firstSeq <= seq {
			return -1
		}
		return 1
	})
	order := make([]payloadRef, 0, 1+4*len(days))
	if at > 0 {
		order = append(order, payloadRef{class: eventAccepted, day: days[at-1].day})
	}
	for i := len(days) - 1; i >= max(at-1, 0); i-- {
		for _, class := range [...]uint8{eventFailed, eventAccepted, formerFailed, formerAccepted} {
			order = append(order, payloadRef{class: class, day: days[i].day})
		}
	}
	for _, ref := range order {
		key := appendEventKey(nil, ref, seq)
		raw, err := getCopy(txn, key)
		if err != nil {
			return r, nil, err
		}
		if raw == nil {
			continue
		}
		r, _, err = decodeEvent(key, raw, s.id, seq)
		if err == nil {
			return r, nil, nil
		}
		s.log.Warn("event record is damaged", "seq", seq, "err", err)
	}
	return EventRecord{}, nil, ErrNotFound
}

// FindEvent finds events by id: one by a generated id, possibly several by a
// sender's, the newest first. [ErrNotFound] when there is none.
func (s *Store) FindEvent(eventID string) ([]EventRecord, error) {
	if store, seq, ok := id.ParseEvent(eventID); ok && store == s.id {
		r, err := s.Event(seq)
		if err == nil && r.ID == eventID {
			return []EventRecord{r}, nil
		}
		if err != nil && !isPlain(err) {
			return nil, err
		}
	}
	const most = 100
	days := s.dayList()
	hash := hashParts(eventID)
	var out []EventRecord
	err := s.view(func(txn *badger.Txn) ([]damaged, error) {
		out = nil
		var seqs []uint64
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{kindSenderID}})
		for _, d := range days {
			prefix := appendSenderIDKey(nil, d.day, hash, 0)[:lenSenderID-8]
			for it.Seek(prefix); it.ValidForPrefix(prefix) && len(seqs) < most; it.Next() {
				seqs = append(seqs, tail8(it.Item().Key()))
			}
		}
		it.Close()
		slices.Sort(seqs)
		for _, seq := range slices.Backward(seqs) {
			r, _, err := s.readEvent(txn, days, seq)
			if err == nil && r.ID == eventID {
				out = append(out, r)
			} else if err != nil && !isPlain(err) {
				return nil, err
			}
		}
		if len(out) == 0 {
			return nil, ErrNotFound
		}
		return nil, nil
	})
	return out, err
}

// within reports whether t lies in [since, until); a zero bound is open.
func within(t, since, until time.Time) bool {
	return (since.IsZero() || !t.Before(since)) && (until.IsZero() || t.Before(until))
}
