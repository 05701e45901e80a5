package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

const (
	// completionDelay is the longest that an outcome stays in memory only.
	completionDelay = 10 * time.Millisecond
	// groupBytes ends a group: a larger one only adds latency. Badger's own
	// limits, 15 % of a memtable, are twice as far away.
	groupBytes = 1 << 20
	// maxDeliveries bounds the deliveries of one event, which are one
	// transaction whatever the group's limits say.
	maxDeliveries = 8192
	// raiseEvery is how many rows may leave a track before its mark is moved:
	// the most deleted rows that a read from the mark can meet.
	raiseEvery = 4096
)

// committer is the state of the one goroutine that writes.
type committer struct {
	gather     gathering
	left       *acceptReq // its events from left.next on did not fit the last group
	answers    []*acceptReq
	repeats    map[[16]byte]*repeatRow // keys of the group under way
	taken      []Completion
	unapplied  unapplied
	flush      *time.Timer
	day        *time.Timer
	retiring   *retirement
	sweep      sweep
	space      spaceGiver
	compactors compactors
	builders   builders
	residency  residency
	recent     recent
	templates  map[*delivery.Request]uint64 // already stored
	closeErr   error
}

func (c *committer) init(s *Store) {
	c.repeats = map[[16]byte]*repeatRow{}
	c.templates = map[*delivery.Request]uint64{}
	c.gather.init()
	c.flush = stoppedTimer()
	c.day = time.NewTimer(untilNextDay(s.Now()))
	c.space.init()
	c.compactors.init(s)
	c.builders.pool = poolOf(s.db)
	c.residency.init()
	c.recent.init()
	c.unapplied.init()
	c.retiring = s.planRetirement()
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// op is any other change: it runs in the committer as a transaction of its
// own, after every outcome that was handed in before it.
type op struct {
	apply func(g *group) error // an error must come before the first write
	done  chan error
}

// do runs an op and waits until it is durable. Once handed over, it is waited
// for whatever ctx says.
func (s *Store) do(ctx context.Context, apply func(g *group) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	o := &op{apply: apply, done: make(chan error, 1)}
	select {
	case s.ops <- o:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return firstError(s.stopped(), ErrStopped)
	}
	return <-o.done
}

// firstError is cmp.Or for errors.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// commitLoop is the committer: nobody else writes to the database.
func (s *Store) commitLoop() {
	defer s.endLoop()
	c := &s.c
	always := make(chan struct{})
	close(always)
	for s.failure.Load() == nil {
		accepts, more := s.accepts, (chan struct{})(nil)
		if c.left != nil {
			accepts, more = nil, always
		} else if c.sweep.wanted || (c.retiring != nil && !c.space.busy) {
			more = always
		}
		select {
		case r := <-accepts:
			s.acceptGroup(r)
		case <-more:
			if r := c.left; r != nil {
				c.left = nil
				s.acceptGroup(r)
			} else if c.sweep.wanted {
				s.sweepStep()
			} else {
				s.retireStep()
			}
		case full := <-s.comps.wake:
			if full {
				s.flushCompletions()
			} else {
				c.flush.Reset(completionDelay)
			}
		case <-c.flush.C:
			s.flushCompletions()
		case o := <-s.ops:
			s.runOp(o)
		case asked := <-c.unapplied.ask:
			_ = s.settle() // an error has stopped the store
			close(asked)
		case err := <-c.unapplied.finished:
			_ = s.applied(err)
		case <-c.unapplied.timer.C:
			s.applySome(true)
		case <-c.day.C:
			s.newDay()
		case <-c.space.timer.C:
			s.giveBack()
		case err := <-c.space.finished:
			s.gaveBack(err)
		case <-c.compactors.timer.C:
			c.compactors.look(s)
		case <-s.blog.alarm:
			s.fail(fmt.Errorf("queue %q: %w", s.opts.Dir, s.blog.poisoned()))
		case <-s.dead: // a reader met it
		case <-s.closing:
			return
		}
	}
}

// endLoop answers everybody who still waits and closes what may be closed.
func (s *Store) endLoop() {
	defer close(s.ended)
	c := &s.c
	if s.failure.Load() == nil {
		s.drainOnClose()
	}
	for _, t := range []*time.Timer{c.flush, c.day, c.space.timer, c.compactors.timer, c.unapplied.timer} {
		t.Stop()
	}
	close(c.residency.wanted)
	<-c.residency.ended
	stop := firstError(s.stopped(), ErrStopped)
	if c.left != nil {
		c.left.done <- stop
	}
	close(s.done)
	for drained := false; !drained; {
		select {
		case r := <-s.accepts:
			r.done <- stop
		case o := <-s.ops:
			o.done <- stop
		case asked := <-c.unapplied.ask:
			close(asked)
		default:
			drained = true
		}
	}
	s.comps.stop()
	if c.unapplied.busy { // only after a failure
		<-c.unapplied.finished
	}
	if s.failure.Load() == nil {
		if c.space.busy && c.space.rewrites == 0 {
			<-c.space.finished
		}
		s.readers.Lock()
		c.closeErr = s.db.Close()
		s.readers.Unlock()
		c.closeErr = firstError(c.closeErr, c.unapplied.journal.Close(), s.lock.Close())
	}
}

// drainOnClose commits what was handed over before Close, and relay time.
func (s *Store) drainOnClose() {
	for s.c.left != nil && s.failure.Load() == nil {
		r := s.c.left
		s.c.left = nil
		s.acceptGroup(r)
	}
	s.flushCompletions()
	s.commit(s.begin())
	if s.failure.Load() == nil {
		_ = s.settle() // an error has stopped the store
	}
}

// flushCompletions commits outcomes until none is left.
func (s *Store) flushCompletions() {
	for s.failure.Load() == nil && s.comps.waiting() {
		g := s.begin()
		s.applyCompletions(g)
		s.commit(g)
	}
}

func (s *Store) runOp(o *op) {
	s.flushCompletions()
	if s.failure.Load() != nil {
		o.done <- s.stopped()
		return
	}
	g := s.begin()
	g.direct()
	s.mu.Lock()
	err := o.apply(g)
	s.mu.Unlock()
	if err != nil && !g.wrote() {
		g.discard()
		if g.err != nil {
			s.fail(g.err)
		}
		o.done <- err
		return
	}
	s.commit(g)
	o.done <- firstError(s.stopped(), err)
}

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
	return g.size >= groupBytes || g.count >= int(g.s.db.MaxBatchCount())/4
}

// row returns what was appended to the arena since start.
func (g *group) row(start int) []byte { return g.arena[start:len(g.arena):len(g.arena)] }

func (g *group) put(key, val []byte) { g.change(row{key: key, val: val, op: opPut}) }

// putNew is put for a ready row of an event that is being accepted.
func (g *group) putNew(key, val []byte) { g.change(row{key: key, val: val, op: opNew}) }

func (g *group) del(key []byte) { g.change(row{key: key, op: opDel}) }

func (g *group) change(r row) {
	g.s.c.recent.forget(r.key)
	if g.txn != nil {
		g.setRow(&r)
	} else if g.rows = append(g.rows, r); g.size > lightBytes {
		g.direct()
	}
	g.count++
	g.size += len(r.key) + len(r.val) + 32
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
	return g.s.db.View(in)
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

// commit is the commit point of everything. Before it returns from the
// database nothing of the group exists, and nobody was told otherwise; after
// it, all of it exists. Then dispatch hears of it, then the senders.
func (s *Store) commit(g *group) {
	s.mu.Lock()
	s.led.relayTime = g.now
	s.led.groups++
	for _, lane := range g.touched {
		l := s.lanes[lane]
		key := laneKey(lane)
		g.put(key, l.laneCounts.append(nil, key))
		l.dirty = false
	}
	if g.bytes > 0 {
		d := s.dayFor(g.today)
		d.bytes += g.bytes
		key := dayKey(g.today)
		g.put(key, d.dayRow.append(nil, key))
	}
	key := metaLedgerKey()
	g.put(key, s.led.append(nil, key))
	s.mu.Unlock()
	// A reader may have met the first error while the group was made.
	err := firstError(g.err, s.stopped())
	if err == nil {
		err = s.write(g)
	} else {
		g.discard()
	}
	if err == nil {
		err = firstError(s.diskAlive(), s.blog.poisoned(), s.stopped())
	}
	if err != nil {
		s.fail(fmt.Errorf("commit to queue %q: %w", s.opts.Dir, err))
		s.answer(s.stopped())
		return
	}
	s.publish(g)
	if len(g.fresh) > 0 && s.opts.OnReady != nil {
		s.opts.OnReady(g.fresh)
	}
	if len(g.changes) > 0 && s.opts.OnChange != nil {
		s.opts.OnChange(g.changes)
	}
	if len(g.turns) > 0 && s.opts.OnTurn != nil {
		s.opts.OnTurn(g.turns)
	}
	s.c.gather.round(len(s.c.answers), len(s.accepts))
	s.answer(nil)
	s.guard.spend(int64(g.size))
	s.raiseMarks(g.touched)
	s.afterCommit(g)
	if s.failure.Load() == nil {
		s.applySome(false)
	}
}

// diskAlive asks the file system, after a sync that said yes, for something that
// it cannot do once it has given up. A sync can say yes wrongly at that very
// moment: jbd2_complete_transaction (fs/jbd2/journal.c) takes a transaction that
// is neither running nor being committed for durable, also when the journal was
// aborted under it, by a disk that failed in the commit of somebody else. Setting
// the times of a file needs the journal, and fails from the abort on (ext4 with
// EROFS or EIO). It costs a few microseconds a group.
func (s *Store) diskAlive() error {
	now := unix.NsecToTimeval(time.Now().UnixNano())
	if err := unix.Futimes(int(s.lock.Fd()), []unix.Timeval{now, now}); err != nil {
		return fmt.Errorf("the file system has failed: %w", err)
	}
	return nil
}

// publish shows a group that is durable to everybody who asks. Before that its
// figures would be ahead of its rows: who reads that a delivery succeeded must find
// it among the finished ones.
func (s *Store) publish(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range g.durable {
		f()
	}
	s.shown = s.led
	for _, lane := range g.touched {
		l := s.lanes[lane]
		s.lines.Add(l.lines - l.shown.lines)
		l.shown = l.laneCounts
	}
}

func (s *Store) answer(err error) {
	for _, r := range s.c.answers {
		r.done <- err
	}
	clear(s.c.answers)
	s.c.answers = s.c.answers[:0]
}

// raiseMarks moves a lane's marks past what was deleted. It is right by
// construction: the mark becomes the first row that still exists, and every
// row that appears later is either younger or lowers the mark itself.
func (s *Store) raiseMarks(lanes []Lane) {
	for _, lane := range lanes {
		l := s.lanes[lane] // only this goroutine changes the map
		if l.moved < raiseEvery {
			continue
		}
		if s.settle() != nil {
			return
		}
		err := s.db.View(func(txn *badger.Txn) error {
			ready := firstAtOrAfter(txn, appendLaneSeq(nil, kindReady, lane, l.readyMark), lenLaneSeq-8)
			returning := firstAtOrAfter(txn, appendLaneSeq(nil, kindReturning, lane, l.returningMark), lenLaneSeq-8)
			waiting := firstAtOrAfter(txn, appendWaitingKey(nil, lane, l.waitingMark, 0), lenLaneSeq-8)
			var following []byte
			if l.following > 0 {
				following = firstAtOrAfter(txn, appendLaneSeq(nil, kindFollowing, lane, l.followingMark), lenLaneSeq-8)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			l.moved = 0
			l.readyMark, l.returningMark, l.waitingMark = s.led.lastSeq+1, s.led.lastSeq+1, s.Now()
			if ready != nil {
				l.readyMark = tail8(ready)
			}
			if returning != nil {
				l.returningMark = tail8(returning)
			}
			if waiting != nil {
				l.waitingMark, _ = splitWaiting(waiting)
			}
			if following != nil {
				l.followingMark = tail8(following)
			}
			return nil
		})
		if err != nil {
			s.fail(fmt.Errorf("read queue %q: %w", s.opts.Dir, err))
			return
		}
	}
}

// firstAtOrAfter returns the first key at or after key with the same leading
// bytes, nil when there is none.
func firstAtOrAfter(txn *badger.Txn, key []byte, same int) []byte {
	prefix := key[:same]
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	if it.Seek(key); !it.ValidForPrefix(prefix) {
		return nil
	}
	return slices.Clone(it.Item().Key())
}
