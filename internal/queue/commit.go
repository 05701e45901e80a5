package queue

import (
	"context"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
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
	intake     intake
	chore      bool // a step of long work is next, senders after it
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
	pins       int                          // open snapshots; no day is dropped meanwhile
	turned     int64                        // groups at the last Turn
	closeErr   error
}

func (c *committer) init(s *Store) {
	c.repeats = map[[16]byte]*repeatRow{}
	c.templates = map[*delivery.Request]uint64{}
	c.gather.init()
	c.intake.init()
	c.flush = stoppedTimer()
	c.day = time.NewTimer(untilNextDay(s.Now()))
	c.space.init()
	c.compactors.init(s)
	c.builders.pool = poolOf(s.db)
	c.residency.init(s.db)
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
		more := (chan struct{})(nil)
		if c.intake.waiting > 0 || s.hasChore() {
			more = always
		}
		select {
		case r := <-s.accepts:
			c.intake.add(r)
			s.acceptGroup()
		case <-more:
			s.goOn()
		case full := <-s.comps.wake:
			if full {
				s.flushGroup()
			} else {
				c.flush.Reset(completionDelay)
			}
		case <-c.flush.C:
			s.flushGroup()
		case o := <-s.ops:
			s.runOp(o)
		case answer := <-s.turns:
			s.turn(answer)
		case asked := <-c.unapplied.ask:
			s.readerAsks(asked)
		case err := <-c.unapplied.finished:
			if s.applied(err) == nil && len(c.unapplied.asked) > 0 {
				s.applySome(true)
			}
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

// hasChore reports whether long work is under way that is done in steps.
func (s *Store) hasChore() bool {
	return s.c.sweep.wanted || (s.c.retiring != nil && !s.c.space.busy)
}

// goOn is for what can begin at once: requests that wait for a group, or the next
// step of long work. They take turns.
func (s *Store) goOn() {
	c := &s.c
	if c.intake.waiting > 0 && !(c.chore && s.hasChore()) {
		c.chore = true
		s.acceptGroup()
		return
	}
	c.chore = false
	if c.sweep.wanted {
		s.sweepStep()
	} else {
		s.retireStep()
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
	c.unapplied.changed()
	close(c.residency.wanted)
	<-c.residency.ended
	stop := firstError(s.stopped(), ErrStopped)
	c.intake.drain(func(r *acceptReq) { r.done <- stop })
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
	c.unapplied.answer(math.MaxUint64)
	s.comps.stop()
	if c.unapplied.busy { // only after a failure
		<-c.unapplied.finished
	}
	if s.failure.Load() == nil {
		if c.space.busy && c.space.rewrites == 0 {
			<-c.space.finished
		}
		s.readers.Lock()
		failpoint.Here("close.database")
		c.closeErr = s.db.Close()
		failpoint.Here("close.closed")
		s.readers.Unlock()
		c.closeErr = firstError(c.closeErr, c.unapplied.journal.Close(), s.witness.Close())
		if c.closeErr == nil {
			endWell(s.opts.Dir)
		}
		c.closeErr = firstError(c.closeErr, s.lock.Close())
	}
}

// drainOnClose commits what was handed over before Close, and relay time.
func (s *Store) drainOnClose() {
	for s.c.intake.waiting > 0 && s.failure.Load() == nil {
		s.acceptGroup()
	}
	s.flushCompletions()
	failpoint.Here("close.drained")
	s.commit(s.begin())
	if s.failure.Load() == nil {
		_ = s.settle() // an error has stopped the store
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
	failpoint.Here("commit.operation")
	o.done <- firstError(s.stopped(), err)
}

// commit is the commit point of everything. Before write
// returns nothing of the group exists, and nobody was told otherwise; after
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
	failpoint.Here("commit.made")
	// A reader may have met the first error while the group was made.
	err := firstError(g.err, s.stopped())
	if err == nil {
		err = s.timed(g)
	} else {
		g.discard()
	}
	if err == nil {
		err = firstError(failpoint.Call("commit.disk-alive", s.diskAlive), s.noteProgress(), s.blog.poisoned(), s.stopped())
	}
	if err != nil {
		s.fail(fmt.Errorf("commit to queue %q: %w", s.opts.Dir, err))
		s.answer(s.stopped())
		return
	}
	failpoint.Here("commit.durable")
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
	s.c.gather.round(len(s.c.answers), s.c.intake.waiting+len(s.accepts))
	failpoint.Here("commit.offered")
	s.answer(nil)
	failpoint.Here("commit.answered")
	s.guard.spend(int64(g.size))
	s.raiseMarks(g.touched)
	s.afterCommit(g)
	if s.failure.Load() == nil {
		s.applySome(false)
	}
}

// timed is write, and tells how long it took.
func (s *Store) timed(g *group) error {
	if s.opts.OnCommit == nil {
		return s.write(g)
	}
	began := time.Now()
	err := s.write(g)
	s.opts.OnCommit(time.Since(began))
	return err
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
