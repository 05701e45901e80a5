package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
)

const (
	journalFile = "journal"
	// journalBytes is several times what may be unapplied, so that the place of a
	// record is free again long before it is needed.
	journalBytes = 8 << 20
	// lightBytes is the largest group that goes through the journal. The fixed cost
	// of a transaction of the database, which the journal saves, is little for each row
	// of a larger one, and the journal would cost its bytes once more.
	lightBytes = 64 << 10
	// applyBytes and applyRows start the transaction that takes the journal's rows into
	// the database, applyDelay bounds how long they wait for it. The longer they
	// wait, the more rows have gone again before the database ever sees them.
	applyBytes = 256 << 10
	applyRows  = 4096
	applyDelay = 50 * time.Millisecond
	// mostUnapplied ends the patience with the transaction before.
	mostUnapplied = 4
)

// row is one change of the database.
type row struct {
	key, val []byte
	op       rowOp
}

type rowOp uint8

const (
	opPut rowOp = 1
	opDel rowOp = 2
	// opNew is a put of a row that was never there: when it is deleted in the same
	// batch the database need not hear of it. In the journal it is a put.
	opNew rowOp = 3
)

// batch is rows that are durable in the journal and not in the database yet, in
// order. It owns their bytes.
type batch struct {
	rows  []row
	arena []byte
	size  int
	last  uint64         // number of its last record in the journal
	at    map[string]int // the newest change of each key, of rows[:found]
	found int
	born  map[position]int // collapse
	gone  []bool
}

func (b *batch) reset() {
	clear(b.rows)
	b.rows, b.arena, b.size, b.found = b.rows[:0], b.arena[:0], 0, 0
	clear(b.at)
}

// find returns the newest change of a key, nil when there is none. rows are those of
// the batch and of the group under way. They are indexed when one is first looked
// for, not when they come.
func (b *batch) find(rows []row, key []byte) *row {
	if b.at == nil {
		b.at = map[string]int{}
	}
	for ; b.found < len(rows); b.found++ {
		b.at[string(rows[b.found].key)] = b.found
	}
	if i, ok := b.at[string(key)]; ok {
		return &rows[i]
	}
	return nil
}

// collapse finds what the database need not hear of: rows that came and went within
// the batch.
func (b *batch) collapse() {
	if b.born == nil {
		b.born = map[position]int{}
	}
	clear(b.born)
	b.gone = append(b.gone[:0], make([]bool, len(b.rows))...)
	for i := range b.rows {
		r := &b.rows[i]
		if r.key[0] != kindReady {
			continue
		}
		at := position{seq: tail8(r.key), lane: Lane(binary.BigEndian.Uint32(r.key[1:]))}
		former, born := b.born[at]
		switch {
		case r.op == opNew:
			b.born[at] = i
		case born && r.op == opPut:
			b.gone[former] = true
			b.born[at] = i
		case born:
			b.gone[former], b.gone[i] = true, true
			delete(b.born, at)
		}
	}
}

// into adds the rows to a transaction.
func (b *batch) into(txn *badger.Txn) error {
	b.collapse()
	entries := make([]badger.Entry, 0, len(b.rows))
	for i := range b.rows {
		if b.gone[i] {
			continue
		}
		var err error
		if entries, err = b.rows[i].into(txn, entries); err != nil {
			return err
		}
	}
	return nil
}

// into adds a row to a transaction. The entry that it needs is appended to entries.
func (r *row) into(txn *badger.Txn, entries []badger.Entry) ([]badger.Entry, error) {
	if r.op == opDel {
		return entries, txn.Delete(r.key)
	}
	if len(entries) == cap(entries) {
		entries = make([]badger.Entry, 0, 64) // the transaction keeps pointers to those before
	}
	entries = append(entries, badger.Entry{Key: r.key, Value: r.val})
	return entries, txn.SetEntry(&entries[len(entries)-1])
}

// apply makes the rows part of the database, and with them the number of the last
// record that they came from: what a start must not apply again.
func (b *batch) apply(db *badger.DB) error {
	txn := db.NewTransaction(true)
	defer txn.Discard()
	err := b.into(txn)
	if err == nil {
		key := metaJournalKey()
		err = txn.Set(key, appendDue(nil, key, int64(b.last)))
	}
	if err != nil {
		return err
	}
	return failpoint.Call("apply.commit", func() error { return txn.Commit() })
}

// unapplied is what the journal has and the database has not. Owned by the
// committer, but for pending.
type unapplied struct {
	journal  *journal.Journal
	cur      *batch // grows
	spare    *batch // is being applied when busy
	busy     bool
	finished chan error
	timer    *time.Timer // armed while cur has rows
	pending  atomic.Bool // readers of the database must ask first
	ask      chan chan struct{}
	asked    []asker
	points   points
	seen     *badger.Txn // snapshot
}

// asker waits until the database has the journal up to a record.
type asker struct {
	last uint64
	done chan struct{}
}

// snapshot is the database as it was after the last transaction that was known to be
// over. To begin a snapshot Badger waits until those under way are over, so it is begun
// before one is handed over, and serves until that is known to be over: its rows are
// found in spare. An open one holds garbage back, but there is none that is younger.
func (u *unapplied) snapshot(db *badger.DB) *badger.Txn {
	if u.seen == nil {
		u.seen = db.NewTransaction(false)
	}
	return u.seen
}

// changed lets go of the snapshot: the database has changed, or is about to.
func (u *unapplied) changed() {
	if u.seen != nil {
		u.seen.Discard()
		u.seen = nil
	}
}

func (u *unapplied) init() {
	u.cur, u.spare = &batch{}, &batch{}
	u.finished = make(chan error, 1)
	u.timer = stoppedTimer()
	u.ask = make(chan chan struct{})
}

// newest is the newest change of a key that the database may not have, nil when there
// is none. rows are those of cur and of the group under way.
func (u *unapplied) newest(rows []row, key []byte) *row {
	if r := u.cur.find(rows, key); r != nil || !u.busy {
		return r
	}
	return u.spare.find(u.spare.rows, key)
}

// write makes a group durable: a small one by the journal, any other by the
// database itself, which then has everything before it.
func (s *Store) write(g *group) error {
	u := &s.c.unapplied
	if g.txn == nil {
		number, err := u.journal.Append(appendRows(u.journal.Begin(), g.rows[g.base:]))
		if errors.Is(err, journal.ErrFull) {
			if err := s.settle(); err != nil {
				return err
			}
			g.rows, g.base = g.rows[g.base:], 0 // those before are gone
			number, err = u.journal.Append(appendRows(u.journal.Begin(), g.rows[g.base:]))
		}
		if err == nil {
			u.pending.Store(true) // before anybody is told
			s.keep(g, number)
		}
		if !errors.Is(err, journal.ErrTooLong) {
			return err
		}
	}
	g.direct()
	if g.err != nil {
		g.txn.Discard()
		return g.err
	}
	if cap(g.arena) <= 4*groupBytes {
		u.cur.arena = g.arena[:0] // u.cur is empty, and the transaction copies
	}
	return failpoint.Call("commit.direct", func() error { return g.txn.Commit() })
}

// keep adds a group that is in the journal to what the database does not have.
func (s *Store) keep(g *group, number uint64) {
	u := &s.c.unapplied
	if len(u.cur.rows) == 0 {
		u.timer.Reset(s.opts.apply)
	}
	u.cur.rows, u.cur.arena = g.rows, g.arena
	u.cur.size += g.size
	u.cur.last = number
	u.points.add(g.rows[g.base:], u.cur)
}

// applySome hands the rows over to the database when there are enough of them.
func (s *Store) applySome(due bool) {
	u := &s.c.unapplied
	due = due || len(u.asked) > 0
	if n := len(u.cur.rows); n == 0 || (!due && u.cur.size < applyBytes && n < applyRows) {
		return
	}
	if u.busy {
		if u.cur.size < mostUnapplied*applyBytes && len(u.cur.rows) < mostUnapplied*applyRows {
			if due {
				u.timer.Reset(s.opts.apply)
			}
			return
		}
		if err := s.applied(<-u.finished); err != nil {
			return
		}
	}
	u.timer.Stop()
	u.cur, u.spare, u.busy = u.spare, u.cur, true
	b, db := u.spare, s.db
	u.snapshot(db)
	go func() { u.finished <- b.apply(db) }()
}

// applied ends what applySome began.
func (s *Store) applied(err error) error {
	u := &s.c.unapplied
	u.busy = false
	return s.tookOver(u.spare, err)
}

// tookOver notes that the database has a batch.
func (s *Store) tookOver(b *batch, err error) error {
	u := &s.c.unapplied
	u.changed()
	if err = firstError(err, s.blog.poisoned()); err != nil {
		err = fmt.Errorf("apply the journal to queue %q: %w", s.opts.Dir, err)
		s.fail(err)
		return err
	}
	failpoint.Here("apply.applied")
	u.journal.Applied(b.last)
	u.points.remove(b)
	u.answer(b.last)
	s.c.compactors.committed(s, b.size)
	s.c.builders.committed(b.size)
	s.c.residency.committed(b.size)
	b.reset()
	if !u.busy && len(u.cur.rows) == 0 {
		u.pending.Store(false)
	}
	return nil
}

// settle gives the database everything that is durable. The group under way is not
// part of it. An error has stopped the store.
func (s *Store) settle() error {
	u := &s.c.unapplied
	if u.busy {
		if err := s.applied(<-u.finished); err != nil {
			return err
		}
	}
	u.changed() // whoever settles changes the database, or waits for a change
	if len(u.cur.rows) == 0 {
		return nil
	}
	u.timer.Stop()
	failpoint.Here("apply.settle")
	return s.tookOver(u.cur, u.cur.apply(s.db))
}

// readerAsks notes who waits for what is durable now. Senders do not wait for it: the
// rows go to the database beside the groups that follow.
func (s *Store) readerAsks(done chan struct{}) {
	u := &s.c.unapplied
	switch {
	case len(u.cur.rows) > 0:
		u.asked = append(u.asked, asker{u.cur.last, done})
		if !u.busy {
			s.applySome(true)
		}
	case u.busy:
		u.asked = append(u.asked, asker{u.spare.last, done})
	default:
		close(done)
	}
}

// answer lets those go on who waited for a record.
func (u *unapplied) answer(last uint64) {
	u.asked = slices.DeleteFunc(u.asked, func(a asker) bool {
		if a.last <= last {
			close(a.done)
		}
		return a.last <= last
	})
}

// catchUp waits until the database has what was durable when it was called.
func (s *Store) catchUp() {
	if !s.c.unapplied.pending.Load() {
		return
	}
	asked := make(chan struct{})
	select {
	case s.c.unapplied.ask <- asked:
		<-asked
	case <-s.done:
	}
}
