package queue

import (
	"errors"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// group is what becomes durable together, while it is being built.
type group struct {
	s       *Store
	txn     *badger.Txn // nil as long as the group may go through the journal
	rows    []row       // its changes are those from base on
	base    int
	now     int64 // relay time
	wall    time.Time
	today   uint16
	arena   []byte // keys and values
	entries []badger.Entry
	count   int
	size    int
	bytes   int64 // of rows in today's buckets
	fresh   []Delivery
	changes []Change
	touched []Lane
	durable []func() // make known what has no counter; Store.mu is held
	turns   []Turn
	calling bool  // a line is being moved, by whoever said so
	err     error // first of the database
}

func (s *Store) begin() *group {
	now := s.Now()
	clear(s.c.repeats)
	s.c.intake.begin(s.opts.elapsed())
	cur := s.c.unapplied.cur
	return &group{s: s, rows: cur.rows, base: len(cur.rows), now: now, wall: s.opts.Now(), today: dayOf(now), arena: cur.arena}
}

// direct makes the group a transaction of the database, which then has all groups
// before it: for what reads more than rows by their keys, and what is large.
func (g *group) direct() {
	if g.txn != nil {
		return
	}
	g.note(g.s.settle())
	g.s.c.unapplied.cur.reset() // it may have rows of this group in its index
	g.txn = g.s.db.NewTransaction(true)
	for i := range g.rows[g.base:] {
		g.setRow(&g.rows[g.base+i])
	}
}

func (g *group) setRow(r *row) {
	var err error
	g.entries, err = r.into(g.txn, g.entries)
	g.note(err)
}

// reader is the database as the group has changed it.
func (g *group) reader() *badger.Txn {
	g.direct()
	return g.txn
}

// discard gives up a group.
func (g *group) discard() {
	if g.txn != nil {
		g.txn.Discard()
	}
}

func (g *group) wrote() bool { return g.count > 0 }

// full reports that the group should be committed. What one event or outcome
// can add beyond it still fits Badger's limits.
func (g *group) full() bool {
	return g.size >= g.limit() || g.count >= int(g.s.db.MaxBatchCount())/4
}

// limit is how large the group may become.
func (g *group) limit() int {
	if g.s.c.intake.hurried() {
		return shortBytes
	}
	return groupBytes
}

// row returns what was appended to the arena since start.
func (g *group) row(start int) []byte { return g.arena[start:len(g.arena):len(g.arena)] }

func (g *group) put(key, val []byte) { g.change(row{key: key, val: val, op: opPut}) }

// putNew is put for a ready row of an event that is being accepted.
func (g *group) putNew(key, val []byte) { g.change(row{key: key, val: val, op: opNew}) }

func (g *group) del(key []byte) { g.change(row{key: key, op: opDel}) }

func (g *group) change(r row) {
	g.s.c.recent.forget(r.key)
	g.count++
	g.size += len(r.key) + len(r.val) + 32
	if g.txn != nil {
		g.setRow(&r)
	} else if g.rows = append(g.rows, r); g.size > lightBytes {
		g.direct()
	}
	switch r.key[0] {
	case kindEvent, kindFinished, kindAttempt, kindRepeat, kindSenderID:
		g.bytes += int64(len(r.key) + len(r.val))
	}
}

// get returns a copy of a row as this group sees it, nil when there is none.
func (g *group) get(key []byte) []byte {
	var val []byte
	err := g.read(key, func(r *row) {
		if r.op != opDel {
			val = append([]byte{}, r.val...)
		}
	}, func(txn *badger.Txn) (err error) {
		val, err = getCopy(txn, key)
		return err
	})
	g.note(err)
	return val
}

// has reports whether a row exists, without reading its value.
func (g *group) has(key []byte) bool {
	var there bool
	err := g.read(key, func(r *row) { there = r.op != opDel }, func(txn *badger.Txn) error {
		_, err := txn.Get(key)
		there = err == nil
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		return err
	})
	g.note(err)
	return there
}

// read looks for a row where its newest change is: in what the database may not have,
// or else there.
func (g *group) read(key []byte, changed func(*row), in func(*badger.Txn) error) error {
	if g.txn != nil {
		return in(g.txn)
	}
	if r := g.s.c.unapplied.newest(g.rows, key); r != nil {
		changed(r)
		return nil
	}
	return in(g.s.c.unapplied.snapshot(g.s.db))
}

func (g *group) note(err error) {
	if g.err == nil && err != nil {
		g.err = err
	}
}

// touch marks a lane's counters as changed by the group. Store.mu is held.
func (g *group) touch(lane Lane) *laneState {
	l := g.s.lanes[lane]
	if l != nil && !l.dirty {
		l.dirty = true
		if l.life.removed {
			g.s.expiry.poke()
		}
		g.touched = append(g.touched, lane)
	}
	return l
}
