package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// pendingPlace is what a pending row's key says.
type pendingPlace struct {
	track Track
	lane  Lane
	due   int64
	seq   uint64
}

func splitPending(key []byte) pendingPlace {
	p := pendingPlace{lane: Lane(binary.BigEndian.Uint32(key[1:])), seq: tail8(key)}
	switch key[0] {
	case kindWaiting:
		p.track = Waiting
		p.due, _ = splitWaiting(key)
	case kindReturning:
		p.track = Returning
	case kindFollowing:
		p.track = Following
	default:
		p.track = Ready
	}
	return p
}

func generated(store, seq uint64, eventID string) bool {
	s, q, ok := id.ParseEvent(eventID)
	return ok && s == store && q == seq
}

// view runs f on a snapshot. An error of the database stops the store; rows
// that f reports as damaged are set aside afterwards, when no snapshot is
// held. Dropping a day takes its rows out of older snapshots too, so a row that
// turns out to be well makes f run again, on a new one: a delivery that a
// scan leaves out is not attempted.
func (s *Store) view(f func(txn *badger.Txn) ([]damaged, error)) (err error) {
	s.catchUp()
	return s.viewApplied(f)
}

// viewPoint runs f on the value of one row, nil when there is none, wherever its
// newest change is. It is for rows that isPoint tells.
func (s *Store) viewPoint(key []byte, f func(raw []byte) []damaged) error {
	if raw, known := s.c.unapplied.points.get(key); known { // before the snapshot
		f(raw) // it never was on a disk, and is not damaged
		return s.usable()
	}
	return s.viewApplied(func(txn *badger.Txn) ([]damaged, error) {
		raw, err := getCopy(txn, key)
		if err != nil {
			return nil, err
		}
		return f(raw), nil
	})
}

// viewApplied is view on what the database has already.
func (s *Store) viewApplied(f func(txn *badger.Txn) ([]damaged, error)) (err error) {
	const most = 10 // far more than days can be dropped meanwhile
	for range most {
		var found []damaged
		if found, err = s.viewOnce(f); len(found) == 0 {
			return err
		}
		stale, failed := s.setAside(found)
		if failed != nil || !stale {
			return firstError(failed, err)
		}
	}
	return err
}

// viewOnce returns what f found, and its answer or why the store stopped.
func (s *Store) viewOnce(f func(txn *badger.Txn) ([]damaged, error)) (found []damaged, err error) {
	s.readers.RLock()
	defer s.readers.RUnlock()
	defer s.panicked(&err)
	if err := s.usable(); err != nil {
		return nil, err
	}
	var plain error
	err = s.db.View(func(txn *badger.Txn) (err error) {
		if found, err = f(txn); isPlain(err) {
			plain, err = err, nil
		}
		return err
	})
	if err != nil {
		s.fail(fmt.Errorf("read queue %q: %w", s.opts.Dir, err))
		return nil, s.stopped()
	}
	return found, plain
}

// isPlain tells an answer from a storage error.
func isPlain(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrPayloadExpired)
}

// loadPending makes the delivery of a pending row. reason is not empty when the
// event's record is missing or damaged; then only what the row and its key say
// is filled in.
func (s *Store) loadPending(txn *badger.Txn, p pendingPlace, row *pendingRow) (d Delivery, reason string) {
	d = Delivery{Lane: p.lane, Seq: p.seq, Track: p.track, Due: p.due, Attempts: row.attempts, Tries: row.tries, Crashes: row.crashes, Replay: row.replay,
		Format: row.format, Accepted: wallMillis(row.accepted), ref: row.ref, charge: row.charge}
	key := appendEventKey(nil, row.ref, p.seq)
	raw, err := getCopy(txn, key)
	if err != nil {
		return d, err.Error()
	}
	if raw == nil {
		return d, "event record is missing"
	}
	r, _, err := decodeEvent(key, raw, s.id, p.seq)
	if err != nil {
		return d, err.Error()
	}
	d.EventID, d.EventType, d.EntryID, d.Helper, d.Unstable = r.ID, r.Type, r.EntryID, r.Helper, r.Unstable
	if d.Payload = r.Payloads[row.format]; d.Payload == nil {
		return d, "event record lacks the payload"
	}
	if d.charge == 0 {
		d.charge = chargeOf(len(raw), len(r.Deliveries))
	}
	return d, ""
}

// refOf is where an event's record was put at acceptance. Store.mu is held.
func (g *group) refOf(seq uint64) payloadRef {
	ref := payloadRef{class: eventAccepted}
	for _, d := range g.s.days {
		if d.firstSeq > seq {
			break
		}
		ref.day = d.day
	}
	if former := (payloadRef{class: formerAccepted, day: ref.day}); g.has(appendEventKey(nil, former, seq)) {
		return former
	}
	return ref
}

// marks returns where reads of a lane start.
func (s *Store) marks(lane Lane) (laneCounts, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[lane]
	if l == nil {
		return laneCounts{}, false
	}
	return l.laneCounts, true
}

// page is what readPending collects.
type page struct {
	ds    []Delivery
	more  bool   // stopped by limit or bytes
	stop  []byte // key of the first row not returned because of stopAt
	found []damaged
}

// readPending reads rows of one track of one lane from a key on. Rows at or
// after stopAt (nil = none) are not returned.
func (s *Store) readPending(txn *badger.Txn, from, stopAt []byte, limit, maxBytes int) (p page, err error) {
	prefix := from[:lenLaneSeq-8]
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	size := 0
	for it.Seek(from); it.ValidForPrefix(prefix); it.Next() {
		key := slices.Clone(it.Item().Key())
		if stopAt != nil && string(key) >= string(stopAt) {
			p.stop = key
			return p, nil
		}
		if len(p.ds) >= limit || (size >= maxBytes && len(p.ds) > 0) {
			p.more, p.stop = true, key
			return p, nil
		}
		val, err := it.Item().ValueCopy(nil)
		if err != nil {
			return p, err
		}
		row, err := decodePending(key, val)
		if err != nil {
			p.found = append(p.found, damaged{kind: key[0], key: key, reason: err.Error()})
			continue
		}
		d, reason := s.loadPending(txn, splitPending(key), &row)
		if reason != "" {
			p.found = append(p.found, damaged{kind: key[0], key: key, reason: reason})
			continue
		}
		p.ds = append(p.ds, d)
		size += len(d.Payload)
	}
	return p, nil
}

// ReadReady returns ready deliveries of a lane with ascending sequence numbers
// above after (0 = from the lane's mark): at most limit, and about maxBytes of
// payload but at least one. more reports that there are others behind them.
// Cost does not depend on how many were delivered before.
func (s *Store) ReadReady(lane Lane, after uint64, limit, maxBytes int) (ds []Delivery, more bool, err error) {
	c, _ := s.marks(lane)
	return s.readBySeq(appendLaneSeq(nil, kindReady, lane, max(after+1, c.readyMark)), limit, maxBytes)
}

// ReadReturning is ReadReady for deliveries that were retried or replayed.
func (s *Store) ReadReturning(lane Lane, after uint64, limit, maxBytes int) (ds []Delivery, more bool, err error) {
	c, _ := s.marks(lane)
	return s.readBySeq(appendLaneSeq(nil, kindReturning, lane, max(after+1, c.returningMark)), limit, maxBytes)
}

func (s *Store) readBySeq(from []byte, limit, maxBytes int) (ds []Delivery, more bool, err error) {
	var p page
	err = s.view(func(txn *badger.Txn) ([]damaged, error) {
		var err error
		p, err = s.readPending(txn, from, nil, limit, maxBytes)
		return p.found, err
	})
	return p.ds, p.more, err
}

// ReadWaiting returns waiting deliveries of a lane that are due at now (relay
// time), in the order of (due, sequence number), behind (afterDue, afterSeq);
// (0, 0) starts at the lane's mark. next is the due time of the first one that
// was not returned, 0 when there is none.
func (s *Store) ReadWaiting(lane Lane, afterDue int64, afterSeq uint64, now int64, limit, maxBytes int) (ds []Delivery, next int64, err error) {
	c, _ := s.marks(lane)
	from := appendWaitingKey(nil, lane, max(c.waitingMark, 0), 0)
	if behind := appendWaitingKey(nil, lane, afterDue, afterSeq+1); (afterDue != 0 || afterSeq != 0) && string(behind) > string(from) {
		from = behind
	}
	stopAt := appendWaitingKey(nil, lane, max(now, 0)+1, 0)
	var p page
	err = s.view(func(txn *badger.Txn) ([]damaged, error) {
		var err error
		p, err = s.readPending(txn, from, stopAt, limit, maxBytes)
		return p.found, err
	})
	if p.stop != nil {
		next, _ = splitWaiting(p.stop)
	}
	return p.ds, next, err
}
