package queue

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// dayState is one day of relay time that may have rows. Store.mu guards the
// list; it is ascending.
type dayState struct {
	day uint16
	dayRow
}

// bucket is a set of rows that retention drops as a whole.
type bucket struct {
	kind  byte
	class uint8
}

// buckets lists what a day has; the position is the bit in dayRow.gone.
func buckets() [7]bucket {
	return [...]bucket{{kindEvent, eventAccepted}, {kindEvent, eventFailed}, {kindFinished, classDelivered},
		{kindFinished, classFailed}, {kindAttempt, 0}, {kindRepeat, 0}, {kindSenderID, 0}}
}

const allGone = 1<<7 - 1

func bucketBit(kind byte, class uint8) uint8 {
	all := buckets()
	return 1 << slices.Index(all[:], bucket{kind, class})
}

// appendPrefixes adds what the keys of its rows begin with. A bucket of events
// has those of format 1 too.
func (b bucket) appendPrefixes(to [][]byte, day uint16) [][]byte {
	switch b.kind {
	case kindEvent:
		former := []byte{kindFormer, b.class - eventAccepted + formerAccepted}
		to = append(to, binary.BigEndian.AppendUint16(former, day))
		fallthrough
	case kindFinished:
		return append(to, binary.BigEndian.AppendUint16([]byte{b.kind, b.class}, day))
	default:
		return append(to, binary.BigEndian.AppendUint16([]byte{b.kind}, day))
	}
}

// keep is how many whole days a bucket outlives its own day.
func (r *Retention) keep(b bucket) int {
	switch b {
	case bucket{kindEvent, eventAccepted}:
		return daysFor(r.Payloads)
	case bucket{kindEvent, eventFailed}, bucket{kindFinished, classFailed}:
		return daysFor(r.Failed)
	case bucket{kindFinished, classDelivered}:
		return daysFor(r.Delivered)
	case bucket{kindAttempt, 0}:
		return daysFor(max(r.Delivered, r.Failed))
	case bucket{kindSenderID, 0}:
		return daysFor(max(r.Payloads, r.Failed))
	default:
		return daysFor((keyLife + maxStartJump) * time.Millisecond)
	}
}

// dayFor is the state of a day, made when it is met first. Store.mu is held.
func (s *Store) dayFor(day uint16) *dayState {
	i, ok := slices.BinarySearchFunc(s.days, day, func(d dayState, day uint16) int { return int(d.day) - int(day) })
	if !ok {
		s.days = slices.Insert(s.days, i, dayState{day: day, dayRow: dayRow{firstSeq: s.led.lastSeq + 1}})
	}
	return &s.days[i]
}

// drop is one bucket of one day.
type drop struct {
	bucket
	day uint16
}

// retirement is a pass of retention: first everything pending is moved out of
// the event buckets that go, then all buckets are dropped. The committer does
// it in steps, between groups. A crash in the middle loses nothing: the pass
// is planned anew at the next start.
type retirement struct {
	drops   []drop
	refs    map[payloadRef]bool // event buckets that go
	upto    uint64              // ready and following rows of younger events cannot refer to them
	lanes   []Lane
	track   Track
	from    []byte // key to go on from within lanes[0] and track
	crowded bool   // for the size limit
}

// planRetirement returns nil when there is nothing to drop, and while a snapshot is
// open.
func (s *Store) planRetirement() *retirement {
	if s.c.pins > 0 {
		return nil
	}
	today := dayOf(s.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &retirement{refs: map[payloadRef]bool{}, track: Ready}
	for _, d := range s.days {
		for i, b := range buckets() {
			if d.gone&(1<<i) == 0 && int(today)-int(d.day) > s.limits.Retention.keep(b) {
				r.drops = append(r.drops, drop{b, d.day})
			}
		}
	}
	if oldest := s.crowdedDay(today); oldest != 0 {
		r.crowded = true
		for _, b := range buckets() {
			// Idempotency keys are a promise of 24 h, whatever the size.
			if dr := (drop{b, oldest}); !slices.Contains(r.drops, dr) && b.kind != kindRepeat {
				r.drops = append(r.drops, dr)
			}
		}
		s.log.Warn("history is larger than its limit, the oldest day is dropped", "max_bytes", s.limits.Retention.MaxBytes,
			"day", time.UnixMilli(int64(oldest)*dayMillis).UTC().Format(time.DateOnly))
	}
	if len(r.drops) == 0 {
		return nil
	}
	for _, d := range r.drops {
		if d.kind == kindEvent {
			r.refs[payloadRef{d.class, d.day}] = true
			r.refs[payloadRef{d.class - eventAccepted + formerAccepted, d.day}] = true
			next := slices.IndexFunc(s.days, func(x dayState) bool { return x.day > d.day })
			if next < 0 {
				r.upto = s.led.lastSeq
			} else {
				r.upto = max(r.upto, s.days[next].firstSeq-1)
			}
		}
	}
	if len(r.refs) > 0 {
		for lane, l := range s.lanes {
			if l.pending() > 0 {
				r.lanes = append(r.lanes, lane)
			}
		}
		slices.Sort(r.lanes)
	}
	return r
}

// crowdedDay is the oldest day when the buckets of all days together are over
// the limit, 0 when they are not. Today is never dropped. Store.mu is held.
func (s *Store) crowdedDay(today uint16) uint16 {
	var sum int64
	var oldest uint16
	for _, d := range s.days {
		if d.gone&^bucketBit(kindRepeat, 0) == allGone&^bucketBit(kindRepeat, 0) {
			continue
		}
		sum += d.bytes
		if oldest == 0 && d.day < today {
			oldest = d.day
		}
	}
	if sum <= s.limits.Retention.MaxBytes {
		return 0
	}
	return oldest
}

// expiring reports whether an event bucket is about to be dropped: nothing new
// may refer to it.
func (g *group) expiring(ref payloadRef) bool {
	r := g.s.c.retiring
	return r != nil && r.refs[ref]
}

// outOfExpiring copies an event's record to today's bucket of its class when
// its own is about to be dropped.
func (g *group) outOfExpiring(ref payloadRef, seq uint64) payloadRef {
	if !g.expiring(ref) {
		return ref
	}
	return g.copyEvent(ref, payloadRef{class: ref.current(), day: g.today}, seq)
}

// newDay persists relay time and looks for what has become too old.
func (s *Store) newDay() {
	failpoint.Here("retire.new-day")
	s.commit(s.begin())
	if s.c.retiring == nil {
		s.c.retiring = s.planRetirement()
	}
	s.c.day.Reset(untilNextDay(s.Now()))
}

// retireStep does a bounded part of the pass under way.
func (s *Store) retireStep() {
	r := s.c.retiring
	if len(r.lanes) > 0 {
		s.moveOut(r)
		return
	}
	failpoint.Here("retire.copied")
	// Outcomes that are buffered may still need what goes.
	s.flushCompletions()
	if s.failure.Load() != nil {
		return
	}
	prefixes := make([][]byte, 0, len(r.drops)+2)
	for _, d := range r.drops {
		prefixes = d.appendPrefixes(prefixes, d.day)
	}
	s.c.compactors.wake(s)
	err := s.settle() // the journal must not bring back what is dropped
	if err == nil {
		err = failpoint.Call("retire.drop", func() error { return s.db.DropPrefix(prefixes...) })
	}
	if err == nil {
		err = s.blog.poisoned()
	}
	if err != nil {
		s.fail(fmt.Errorf("drop old history of queue %q: %w", s.opts.Dir, err))
		return
	}
	g := s.begin()
	s.mu.Lock()
	for _, d := range r.drops {
		g.markGone(d)
	}
	g.forgetDays()
	s.mu.Unlock()
	s.c.retiring = nil
	s.commit(g)
	failpoint.Here("retire.noted")
	s.log.Info("old history was dropped", "buckets", len(r.drops))
	s.c.space.wanted(s, spaceChurn)
	if r.crowded && s.failure.Load() == nil {
		s.c.retiring = s.planRetirement()
	}
}

// markGone notes that a bucket has no rows any more. Store.mu is held.
func (g *group) markGone(d drop) {
	s := g.s
	i := slices.IndexFunc(s.days, func(x dayState) bool { return x.day == d.day })
	if i < 0 {
		return
	}
	day := &s.days[i]
	day.gone |= bucketBit(d.kind, d.class)
	key := dayKey(d.day)
	g.put(key, day.dayRow.append(nil, key))
}

// forgetDays removes days without rows. The first event's number of a day
// bounds older days' rows as long as any of these exist, so only days at the
// old end go. Store.mu is held.
func (g *group) forgetDays() {
	for s := g.s; len(s.days) > 0 && s.days[0].gone == allGone && s.days[0].day < g.today; {
		g.del(dayKey(s.days[0].day))
		s.days = slices.Delete(s.days, 0, 1)
	}
}

// moveOut copies the records of a few pending deliveries forward and points
// their rows at the copies.
func (s *Store) moveOut(r *retirement) {
	const rows = 128 // with their records less than one transaction
	lane := r.lanes[0]
	g := s.begin()
	s.mu.Lock()
	from, prefix := r.from, appendLanePrefix(nil, trackKind(r.track), lane)
	if from == nil {
		from = s.trackStart(lane, r.track)
	}
	keys := keysFrom(g.reader(), from, prefix, rows)
	more := len(keys) == rows
	for _, key := range keys {
		r.from = append(slices.Clone(key), 0)
		p := splitPending(key)
		if (r.track == Ready || r.track == Following) && p.seq > r.upto {
			more = false
			break
		}
		g.moveOutRow(r, p, key)
		if g.full() {
			more = true
			break
		}
	}
	if !more {
		r.from = nil
		if r.track++; r.track > Following {
			r.track, r.lanes = Ready, r.lanes[1:]
		}
	}
	s.mu.Unlock()
	if g.err == nil && !g.wrote() {
		g.discard()
		return
	}
	failpoint.Here("retire.copying")
	s.commit(g)
}

func (g *group) moveOutRow(r *retirement, p pendingPlace, key []byte) {
	raw := g.get(key)
	row, err := decodePending(key, raw)
	if err != nil {
		g.failDamaged(&damaged{kind: key[0], key: key, reason: err.Error()})
		return
	}
	if !r.refs[row.ref] {
		return
	}
	to := g.outOfExpiring(row.ref, p.seq)
	if to == row.ref {
		g.failDamaged(&damaged{kind: key[0], key: key, reason: "event record is missing or damaged"})
		return
	}
	row.ref = to
	g.put(key, row.append(nil, key))
}

// trackStart is where the rows of a track begin. Store.mu is held.
func (s *Store) trackStart(lane Lane, track Track) []byte {
	l := s.lanes[lane]
	switch track {
	case Waiting:
		return appendWaitingKey(nil, lane, max(l.waitingMark, 0), 0)
	case Returning:
		return appendLaneSeq(nil, kindReturning, lane, l.returningMark)
	case Following:
		return appendLaneSeq(nil, kindFollowing, lane, l.followingMark)
	default:
		return appendLaneSeq(nil, kindReady, lane, l.readyMark)
	}
}

// keysFrom lists at most n keys from a key on under a prefix.
func keysFrom(txn *badger.Txn, from, prefix []byte, n int) (keys [][]byte) {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(from); it.ValidForPrefix(prefix) && len(keys) < n; it.Next() {
		keys = append(keys, it.Item().KeyCopy(nil))
	}
	return keys
}
