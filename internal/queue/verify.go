package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// Findings is what Verify counted and what did not fit.
type Findings struct {
	Pending  int64 // rows in all tracks
	Finished int64 // rows of the log
	Events   int64 // records, copies included
	// Problems says what is wrong, one sentence each; at most 100.
	Problems []string
}

func (f *Findings) add(format string, args ...any) {
	const most = 100
	if len(f.Problems) < most {
		f.Problems = append(f.Problems, fmt.Sprintf(format, args...))
	}
}

// Verify reads every row and compares what it finds with the ledger: rows that
// vanished or that cannot be believed, a mark behind an unfinished row, sums
// that do not add up. It changes nothing, takes time in proportion to the
// store, and holds back value-log space while it runs. Outcomes that are
// handed in before it are included.
func (s *Store) Verify(ctx context.Context) (f Findings, err error) {
	err = s.do(ctx, func(g *group) error {
		// Inside the committer counters and rows are of the same moment.
		got := map[Lane]*laneCounts{}
		for lane := range s.lanes {
			got[lane] = &laneCounts{readyMark: 1<<64 - 1, returningMark: 1<<64 - 1, waitingMark: 1<<63 - 1, followingMark: 1<<64 - 1}
		}
		txn := s.db.NewTransaction(false)
		defer txn.Discard()
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			key := slices.Clone(it.Item().Key())
			val, err := it.Item().ValueCopy(nil)
			if err != nil {
				return g.plain(err)
			}
			s.verifyRow(txn, &f, got, key, val)
		}
		var ends, pending int64
		for lane, l := range s.lanes {
			f.compare(lane, l, got[lane])
			ends += l.success + l.failed
			pending += l.pending()
		}
		if s.led.deliveries != ends+pending {
			f.add("%d deliveries were accepted, %d are finished and %d pending", s.led.deliveries, ends, pending)
		}
		return nil
	})
	return f, err
}

func (s *Store) verifyRow(txn *badger.Txn, f *Findings, got map[Lane]*laneCounts, key, val []byte) {
	if bytes.Equal(key, []byte{kindDummy}) {
		return
	}
	if _, err := unseal(key, val); err != nil {
		f.add("row %q: %v", key, err)
		return
	}
	switch key[0] {
	case kindMeta:
		s.verifyLife(f, key, val)
	case kindState:
		s.verifyState(f, key, val)
	case kindEvent, kindFormer:
		f.Events++
		if _, _, err := decodeEvent(key, val, s.id, tail8(key)); err != nil {
			f.add("event %d: %v", tail8(key), err)
		}
	case kindFinished:
		f.Finished++
		if _, err := decodeFinished(key, val); err != nil {
			f.add("finished delivery %q: %v", key, err)
		}
	case kindReady, kindWaiting, kindReturning, kindFollowing:
		f.Pending++
		s.verifyPending(txn, f, got, key, val)
	case kindLine:
		s.verifyLine(txn, f, got, key, val)
	}
}

func (s *Store) verifyLife(f *Findings, key, val []byte) {
	if len(key) != lenMetaLane || key[1] != 'w' {
		return
	}
	lane := Lane(binary.BigEndian.Uint32(key[2:]))
	l := s.lanes[lane]
	if life, err := decodeLaneLife(key, val); err != nil || l == nil || l.life != life {
		f.add("the state of lane %d is not the one in memory: %+v, %v", lane, life, err)
	}
}

func (s *Store) verifyState(f *Findings, key, val []byte) {
	if len(key) != lenState {
		f.add("the key %q of an entry's state has %d bytes", key, len(key))
		return
	}
	lane, sink := splitState(key)
	_, err := decodeEntryState(key, val)
	if l := s.lanes[lane]; err != nil || l == nil || !slices.Contains(l.states, sink) {
		f.add("state of an entry of lane %d, sink %x: not known of, or %v", lane, sink, err)
	}
}

func (s *Store) verifyPending(txn *badger.Txn, f *Findings, got map[Lane]*laneCounts, key, val []byte) {
	p := splitPending(key)
	c := got[p.lane]
	row, err := decodePending(key, val)
	if err != nil || c == nil {
		f.add("pending delivery %d of lane %d: %v", p.seq, p.lane, err)
		return
	}
	d, reason := s.loadPending(txn, p, &row)
	if reason != "" {
		f.add("pending delivery %d of lane %d: %s", p.seq, p.lane, reason)
	}
	c.live += int64(row.charge)
	switch p.track {
	case Waiting:
		c.waiting++
		c.waitingMark = min(c.waitingMark, p.due)
		if q, err := locateWaiting(txn, p.lane, p.seq); err != nil || !bytes.Equal(q.key, key) {
			f.add("waiting delivery %d of lane %d is not in the index", p.seq, p.lane)
		}
	case Returning:
		c.returning++
		c.returningMark = min(c.returningMark, p.seq)
	case Following:
		c.following++
		c.followingMark = min(c.followingMark, p.seq)
		if index := appendFollowerKey(nil, lineKey(p.lane, entryHash(d.EntryID)), p.seq); !exists(txn, index) {
			f.add("follower %d of lane %d is not in the line of its entry", p.seq, p.lane)
		}
	default:
		c.ready++
		c.readyMark = min(c.readyMark, p.seq)
		if p.seq > s.led.lastSeq {
			f.add("ready delivery %d of lane %d is younger than the ledger", p.seq, p.lane)
		}
	}
}

func (f *Findings) compare(lane Lane, l *laneState, got *laneCounts) {
	if l.ready != got.ready || l.waiting != got.waiting || l.returning != got.returning || l.laneCounts.live != got.live {
		f.add("lane %d: the ledger has ready %d, waiting %d, returning %d, live %d; there are %d, %d, %d, %d", lane,
			l.ready, l.waiting, l.returning, l.laneCounts.live, got.ready, got.waiting, got.returning, got.live)
	}
	if l.following != got.following || l.lines != got.lines {
		f.add("lane %d: the ledger has following %d, lines %d; there are %d, %d", lane, l.following, l.lines, got.following, got.lines)
	}
	if l.readyMark > got.readyMark || l.waitingMark > got.waitingMark || l.returningMark > got.returningMark ||
		(got.following > 0 && l.followingMark > got.followingMark) {
		f.add("lane %d: a mark is behind an unfinished delivery", lane)
	}
}

// verifyLine looks at an o row: of a line, that its head is pending and its
// followers are as many as it says; of a follower, that the row is there.
func (s *Store) verifyLine(txn *badger.Txn, f *Findings, got map[Lane]*laneCounts, key, val []byte) {
	lane := Lane(binary.BigEndian.Uint32(key[1:]))
	c := got[lane]
	if c == nil {
		f.add("line %q is of no lane", key)
		return
	}
	if len(key) == lenFollower {
		if !exists(txn, key[:lenLine]) || !exists(txn, appendLaneSeq(nil, kindFollowing, lane, tail8(key))) {
			f.add("follower %d of lane %d has no row or no line", tail8(key), lane)
		}
		return
	}
	c.lines++
	at, err := decodeLine(key, val)
	if err != nil || len(key) != lenLine {
		f.add("line %q: %v", key, err)
		return
	}
	if p, err := locate(txn, nil, lane, at.head); err != nil || p.pending.track == Following {
		f.add("the head %d of a line of lane %d is not pending: %v", at.head, lane, err)
	}
	var n int64
	first := at.from
	it := txn.NewIterator(badger.IteratorOptions{Prefix: key})
	defer it.Close()
	for it.Seek(key); it.ValidForPrefix(key); it.Next() {
		if k := it.Item().Key(); len(k) == lenFollower {
			n++
			first = min(first, tail8(k))
		}
	}
	if n != at.n || first < at.from {
		f.add("a line of lane %d has %d followers from %d, and says %d from %d", lane, n, first, at.n, at.from)
	}
}

func exists(txn *badger.Txn, key []byte) bool {
	_, err := txn.Get(key)
	return err == nil
}
