package queue

import (
	"context"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// ErrDelivered answers a Drop of a delivery that succeeded.
var ErrDelivered = errors.New("delivery was successful; there is nothing to drop")

// place is where a delivery is now.
type place struct {
	key      []byte
	raw      []byte
	finished bool
	class    uint8        // finished
	pending  pendingPlace // not finished
}

// locate finds a delivery by its id: a handful of point look-ups, and two per
// day of history for one that is finished. days is newest last.
func locate(txn *badger.Txn, days []dayState, lane Lane, seq uint64) (place, error) {
	for _, track := range [...]Track{Ready, Returning, Following} {
		key := appendPendingKey(nil, track, lane, 0, seq)
		if raw, err := getCopy(txn, key); err != nil || raw != nil {
			return place{key: key, raw: raw, pending: splitPending(key)}, err
		}
	}
	if p, err := locateWaiting(txn, lane, seq); err != nil || p.key != nil {
		return p, err
	}
	for i := len(days) - 1; i >= 0; i-- {
		for _, class := range [...]uint8{classDelivered, classFailed} {
			key := appendFinishedKey(nil, class, days[i].day, lane, seq)
			if raw, err := getCopy(txn, key); err != nil || raw != nil {
				return place{key: key, raw: raw, finished: true, class: class}, err
			}
		}
	}
	return place{}, ErrNotFound
}

// locateWaiting goes through the d row. Should that be damaged, the lane's
// waiting rows are searched.
func locateWaiting(txn *badger.Txn, lane Lane, seq uint64) (place, error) {
	index := appendLaneSeq(nil, kindDue, lane, seq)
	raw, err := getCopy(txn, index)
	if err != nil || raw == nil {
		return place{}, err
	}
	if due, err := decodeDue(index, raw); err == nil {
		key := appendWaitingKey(nil, lane, due, seq)
		raw, err := getCopy(txn, key)
		if raw == nil {
			key = nil
			return place{}, err
		}
		return place{key: key, raw: raw, pending: splitPending(key)}, err
	}
	prefix := appendLanePrefix(nil, kindWaiting, lane)
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
		if tail8(it.Item().Key()) == seq {
			key := it.Item().KeyCopy(nil)
			raw, err := getCopy(txn, key)
			return place{key: key, raw: raw, pending: splitPending(key)}, err
		}
	}
	return place{}, nil
}

// Requeue makes a delivery due now. One that waits or is finished moves to
// Returning with a fresh schedule, while its attempts go on counting; one that
// is Ready, Returning or Following already stays what it is, with its crashes
// forgotten. Errors: [ErrNotFound], [ErrPayloadExpired]. The caller guarantees that the delivery is not being
// attempted. Limits of live bytes do not apply: it was accepted before.
func (s *Store) Requeue(ctx context.Context, lane Lane, seq uint64) (d Delivery, err error) {
	err = s.do(ctx, func(g *group) (err error) {
		d, err = g.requeue(lane, seq, false)
		return err
	})
	return d, err
}

// requeue is Requeue inside a group. Store.mu is held.
func (g *group) requeue(lane Lane, seq uint64, replay bool) (Delivery, error) {
	s := g.s
	p, err := locate(g.reader(), s.days, lane, seq)
	if err != nil || s.lanes[lane] == nil {
		return Delivery{}, g.plain(firstError(err, ErrNotFound))
	}
	if p.finished {
		return g.reopen(lane, seq, &p, replay)
	}
	row, err := decodePending(p.key, p.raw)
	if err != nil {
		return Delivery{}, g.damagedRow(p.key, err)
	}
	d, reason := s.loadPending(g.reader(), p.pending, &row)
	if reason != "" {
		return Delivery{}, g.damagedRow(p.key, &damageError{reason})
	}
	if p.pending.track != Waiting {
		if row.crashes > 0 {
			row.crashes, d.Crashes = 0, 0
			g.put(p.key, row.append(nil, p.key))
			g.requeued(&d)
		}
		return d, nil
	}
	g.removePending(lane, Waiting, p.key, seq, row.charge)
	row.tries, row.crashes, row.replay = 0, 0, replay
	g.putReturning(lane, seq, &row)
	d.Track, d.Due, d.Tries, d.Crashes, d.Replay = Returning, 0, 0, 0, replay
	g.requeued(&d)
	return d, nil
}

// reopen makes a finished delivery pending again.
func (g *group) reopen(lane Lane, seq uint64, p *place, replay bool) (Delivery, error) {
	h, err := decodeFinished(p.key, p.raw)
	if err != nil {
		return Delivery{}, g.damagedRow(p.key, err)
	}
	row := pendingRow{format: h.format, ref: h.ref, attempts: h.attempts, accepted: h.accepted, code: string(h.code), errText: h.errText}
	if h.last != nil {
		row.status = h.last.Status
	}
	if g.expiring(h.ref) {
		return Delivery{}, ErrPayloadExpired
	}
	d, reason := g.s.loadPending(g.reader(), pendingPlace{track: Returning, lane: lane, seq: seq}, &row)
	if reason != "" {
		return Delivery{}, ErrPayloadExpired
	}
	failpoint.Here("operator.retry")
	row.charge, row.replay, d.Replay = d.charge, replay, replay
	l := g.touch(lane)
	g.del(p.key)
	if p.class == classDelivered {
		l.success--
	} else {
		l.failed--
	}
	if h.last != nil {
		start := len(g.arena)
		g.arena = appendAttemptKey(g.arena, g.today, lane, seq, h.last.Number)
		key := g.row(start)
		start = len(g.arena)
		g.arena = appendAttemptRow(g.arena, key, h.last, h.request)
		g.put(key, g.row(start))
	}
	g.putReturning(lane, seq, &row)
	g.requeued(&d)
	return d, nil
}

func (g *group) putReturning(lane Lane, seq uint64, row *pendingRow) {
	row.ref = g.outOfExpiring(row.ref, seq)
	start := len(g.arena)
	g.arena = appendLaneSeq(g.arena, kindReturning, lane, seq)
	key := g.row(start)
	start = len(g.arena)
	g.arena = row.append(g.arena, key)
	g.put(key, g.row(start))
	l := g.touch(lane)
	l.returning++
	l.returningMark = min(l.returningMark, seq)
	g.s.addLive(l, int64(row.charge))
}

func (g *group) requeued(d *Delivery) {
	g.changes = append(g.changes, Change{Lane: d.Lane, Seq: d.Seq, State: delivery.Pending, Attempts: d.Attempts, Kind: ChangeRequeued})
}

// plain passes an answer on and notes a storage error.
func (g *group) plain(err error) error {
	if err != nil && !isPlain(err) {
		g.note(err)
	}
	return err
}

// damagedRow sets a row aside that an operator's command met. The command
// itself finds nothing that it could work on.
func (g *group) damagedRow(key []byte, err error) error {
	d := damaged{kind: key[0], key: key, reason: err.Error()}
	if d.kind == kindFinished {
		g.quarantine(key, g.get(key), d.reason)
		g.del(key)
	} else {
		g.failDamaged(&d)
	}
	return ErrNotFound
}

// Drop ends a pending delivery as failed with the code "dropped", and removes
// a failed one from the log. Errors: [ErrNotFound], [ErrDelivered]. The caller
// guarantees that the delivery is not being attempted.
func (s *Store) Drop(ctx context.Context, lane Lane, seq uint64) error {
	return s.do(ctx, func(g *group) error {
		p, err := locate(g.reader(), s.days, lane, seq)
		if err != nil || s.lanes[lane] == nil {
			return g.plain(firstError(err, ErrNotFound))
		}
		if p.finished {
			if p.class == classDelivered {
				return ErrDelivered
			}
			if err := g.removeAttempts(lane, seq); err != nil {
				return err
			}
			g.del(p.key)
			g.countRemoved(lane)
			g.changes = append(g.changes, Change{Lane: lane, Seq: seq, State: delivery.Failed, Code: delivery.CodeDropped, Kind: ChangeDropped})
			return nil
		}
		failpoint.Here("operator.drop")
		return g.giveUp(p.pending, p.key, delivery.CodeDropped)
	})
}

// countRemoved notes that a failed delivery left the log by hand, so that an audit can
// tell it from one that is lost. Store.mu is held.
func (g *group) countRemoved(lane Lane) {
	l := g.s.lanes[lane]
	l.removedRows++
	key := metaRemovedKey(lane)
	g.put(key, appendDue(nil, key, l.removedRows))
}

func (g *group) removeAttempts(lane Lane, seq uint64) error {
	keys, err := attemptKeys(g.reader(), g.s.days, lane, seq)
	g.note(err)
	for _, key := range keys {
		g.del(key)
	}
	return err
}
