package queue

import (
	"encoding/binary"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/planted"
)

// Turn says that a follower was called: it is waiting, and due now.
type Turn struct {
	Lane Lane
	Seq  uint64
	Due  int64 // relay time in ms, part of its row's key
}

// entryHash names an entry within a lane. Two entries that collide wait for each
// other, which delays them and breaks nothing.
func entryHash(entry string) uint64 {
	h := hashParts(entry)
	return binary.BigEndian.Uint64(h[:])
}

// Lines reports whether any delivery may be Blocked. It takes no lock.
func (s *Store) Lines() bool { return s.lines.Load() > 0 }

// Blocked reports whether a ready delivery of an ordered lane must wait for
// another one of its entry, which then is waiting, returning, or was ready
// when something was parked behind it. It is a point look-up, and none at all
// while no lane has such a delivery. The caller guarantees that nothing else of
// the entry is being attempted and that the outcome of what was is committed.
func (s *Store) Blocked(lane Lane, entry string, seq uint64) (blocked bool, err error) {
	if !s.Lines() || entry == "" {
		return false, s.stopped()
	}
	key := lineKey(lane, entryHash(entry))
	err = s.viewPoint(key, func(raw []byte) []damaged {
		if blocked = false; raw != nil {
			l, damage := decodeLine(key, raw)
			blocked = !planted.Overtaking && (damage != nil || l.head != seq) // the committer repairs it
		}
		return nil
	})
	return blocked, err
}

// waitsFor is the delivery that one which is ready or following waits for, 0
// when there is none.
func (s *Store) waitsFor(txn *badger.Txn, p pendingPlace, entry string) (uint64, error) {
	if p.track != Following && (p.track != Ready || !s.Lines()) || entry == "" {
		return 0, nil
	}
	key := lineKey(p.lane, entryHash(entry))
	raw, err := getCopy(txn, key)
	if err != nil || raw == nil {
		return 0, err
	}
	if l, err := decodeLine(key, raw); err == nil && l.head != p.seq {
		return l.head, nil
	}
	return 0, nil
}

// line is the line of an entry, if it has one. A damaged one is repaired from
// its followers, the first of which becomes the head. Store.mu is held.
func (g *group) line(l *laneState, lane Lane, key []byte) (at line, ok bool) {
	raw := g.get(key)
	if raw == nil {
		return at, false
	}
	at, err := decodeLine(key, raw)
	if err == nil {
		return at, true
	}
	g.quarantine(key, raw, err.Error())
	at = line{n: g.countFollowers(key)}
	g.callNext(l, lane, key, &at)
	return at, at.head != 0
}

// startLine makes the delivery, which has to wait, the head of its entry, unless
// there is one. Store.mu is held.
func (g *group) startLine(d *Delivery) {
	if d.EntryID == "" {
		return
	}
	l, key := g.touch(d.Lane), lineKey(d.Lane, entryHash(d.EntryID))
	if _, there := g.line(l, d.Lane, key); !there {
		g.putLine(key, line{head: d.Seq, from: d.Seq + 1})
		l.lines++
	}
}

func (g *group) putLine(key []byte, at line) { g.put(key, at.append(nil, key)) }

// endInLine follows the end of a pending delivery: a follower leaves its line, a
// head calls the next. Store.mu is held.
func (g *group) endInLine(l *laneState, d *Delivery) {
	if l.lines == 0 || g.calling {
		return
	}
	following := d.Track == Following
	var key []byte
	if d.EntryID != "" {
		key = lineKey(d.Lane, entryHash(d.EntryID))
	} else if key = g.searchLine(d.Lane, d.Seq, following); key == nil {
		return
	}
	if following {
		g.del(appendFollowerKey(nil, key, d.Seq))
	}
	switch at, there := g.line(l, d.Lane, key); {
	case !there:
	case following:
		at.n = max(at.n-1, 0)
		g.putLine(key, at)
	case at.head == d.Seq:
		g.callNext(l, d.Lane, key, &at)
	}
}

// callNext makes the first follower of a line its head: waiting, and due now.
// A line without followers ends. Store.mu is held.
func (g *group) callNext(l *laneState, lane Lane, key []byte, at *line) {
	at.head = 0
	if at.n > 0 {
		at.head = g.nextFollower(lane, key, at)
	}
	if at.head == 0 {
		g.del(key)
		l.lines--
		return
	}
	from := appendLaneSeq(nil, kindFollowing, lane, at.head)
	row, _ := decodePending(from, g.get(from)) // nextFollower has read it
	g.leaveFollowing(lane, key, at.head, row.charge)
	g.putWaiting(lane, at.head, &row, g.now)
	failpoint.Here("order.called")
	at.from, at.n = at.head+1, at.n-1
	g.putLine(key, *at)
	g.turns = append(g.turns, Turn{Lane: lane, Seq: at.head, Due: g.now})
}

func (g *group) leaveFollowing(lane Lane, key []byte, seq uint64, charge uint32) {
	g.removePending(lane, Following, appendLaneSeq(nil, kindFollowing, lane, seq), seq, charge)
	g.del(appendFollowerKey(nil, key, seq))
	g.s.lanes[lane].stirred++
}

// nextFollower is the first follower of a line at or after from, 0 when there is
// none. The iterator reads what is committed, since one over the group's own
// writes would sort all of them; what the group itself took out is seen by
// looking for the row. Within a group nothing is put behind a line before
// something is called from it.
func (g *group) nextFollower(lane Lane, key []byte, at *line) (next uint64) {
	g.eachFollower(key, at.from, func(seq uint64) bool {
		row := appendLaneSeq(nil, kindFollowing, lane, seq)
		raw := g.get(row)
		if raw == nil {
			return true
		}
		if _, err := decodePending(row, raw); err != nil {
			g.del(appendFollowerKey(nil, key, seq))
			at.n--
			g.calling = true
			g.failDamaged(&damaged{kind: kindFollowing, key: row})
			g.calling = false
			return true
		}
		next = seq
		return false
	})
	return next
}

// eachFollower calls f for what is committed of the followers of a line, in
// order, until it says stop.
func (g *group) eachFollower(key []byte, from uint64, f func(seq uint64) (more bool)) {
	g.direct()
	txn := g.s.db.NewTransaction(false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: key})
	defer it.Close()
	for it.Seek(appendFollowerKey(nil, key, from)); it.ValidForPrefix(key); it.Next() {
		if k := it.Item().Key(); len(k) == lenFollower && !f(tail8(k)) {
			return
		}
	}
}

func (g *group) countFollowers(key []byte) (n int64) {
	g.eachFollower(key, 0, func(uint64) bool { n++; return true })
	return n
}

// searchLine finds the line of a delivery whose entry is not known any more,
// because the event's record is damaged, by looking at all lines of the lane.
func (g *group) searchLine(lane Lane, seq uint64, following bool) (key []byte) {
	g.direct()
	txn := g.s.db.NewTransaction(false)
	defer txn.Discard()
	prefix := appendLanePrefix(nil, kindLine, lane)
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
		k := it.Item().KeyCopy(nil)
		switch {
		case following && len(k) == lenFollower && tail8(k) == seq:
			return k[:lenLine]
		case !following && len(k) == lenLine:
			raw, err := it.Item().ValueCopy(nil)
			g.note(err)
			if at, err := decodeLine(k, raw); err == nil && at.head == seq {
				return k
			}
		}
	}
	return nil
}

// putFollowing adds the row of a delivery that waits for the head of a line.
// Store.mu is held.
func (g *group) putFollowing(lane Lane, seq uint64, row *pendingRow, key []byte) {
	row.ref = g.outOfExpiring(row.ref, seq)
	at := appendLaneSeq(nil, kindFollowing, lane, seq)
	g.put(at, row.append(nil, at))
	index := appendFollowerKey(nil, key, seq)
	g.put(index, appendPlain(nil, index, ""))
	l := g.touch(lane)
	if l.following == 0 {
		l.followingMark = seq
	}
	l.following++
	l.followingMark = min(l.followingMark, seq)
	g.s.addLive(l, int64(row.charge))
}

// inOrder reports whether the completion began a wait that later ones of the
// entry must share: only ready ones are held back, so what was brought back or
// waited before is outside the order, unless it is the head already.
func (c *Completion) inOrder() bool {
	return c.Ordered && c.Delivery.Track == Ready && c.Attempt.State == delivery.Pending
}
