package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/planted"
)

// rowOverhead is what a pending delivery costs beside its share of the event's
// record: its row's key and value and Badger's own bytes around them.
const rowOverhead = 64

// keyLife is how long an idempotency key answers with the first answer.
const keyLife = dayMillis

// acceptReq is one call of Accept on its way through the committer. A long one
// may be spread over several groups; it is answered after the last.
type acceptReq struct {
	evs  []*Event
	next int
	done chan error
}

// Accept makes events durable, in order, and fills their answers. It returns
// when all of them are on disk or refused one by one (Event.Err). An error is
// about all of them: ErrStopped (some may be durable nevertheless; the sender
// repeats), a *[SpaceError], or ctx's when it ended before the events were
// handed over.
func (s *Store) Accept(ctx context.Context, evs []*Event) error {
	if err := s.usable(); err != nil || len(evs) == 0 {
		return err
	}
	r := &acceptReq{evs: evs, done: make(chan error, 1)}
	select {
	case s.accepts <- r:
		failpoint.Here("accept.handed-over")
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return firstError(s.stopped(), ErrStopped)
	}
	select {
	case err := <-r.done:
		return err
	case <-s.done:
		// The committer answered, or it ended just before r was handed over.
		select {
		case err := <-r.done:
			return err
		default:
			return firstError(s.stopped(), ErrStopped)
		}
	}
}

// acceptGroup commits what waits in the intake, as far as one group goes, and
// the outcomes of deliveries, as one transaction. An event is never split.
func (s *Store) acceptGroup() {
	in := &s.c.intake
	if err := s.guard.check(); err != nil {
		in.drain(func(r *acceptReq) { r.refuse(err) })
		return
	}
	g := s.begin()
	s.applyCompletions(g)
	events := 0
	s.mu.Lock()
	for !g.full() {
		s.takeIn()
		r := in.first()
		if r == nil {
			s.mu.Unlock()
			r = s.nextAccept(events)
			s.mu.Lock()
			if r == nil {
				break
			}
			in.add(r)
			continue
		}
		for over := false; !over && r.next < len(r.evs) && !g.full(); events++ {
			before := g.size
			g.accept(r.evs[r.next])
			r.next++
			over = in.took(g.size - before)
		}
		done := r.next == len(r.evs)
		if done {
			s.c.answers = append(s.c.answers, r)
		}
		in.pass(done)
	}
	s.mu.Unlock()
	failpoint.Here("accept.group")
	s.commit(g)
	failpoint.Here("accept.over")
}

// takeIn adds what was handed over meanwhile to the intake, so that it has its
// turn in the group under way.
func (s *Store) takeIn() {
	for {
		select {
		case r := <-s.accepts:
			s.c.intake.add(r)
		default:
			return
		}
	}
}

// refuse answers a request that met a full disk. Events of it that an earlier
// group made durable stay accepted.
func (r *acceptReq) refuse(err error) {
	if r.next == 0 {
		r.done <- err
		return
	}
	for _, ev := range r.evs[r.next:] {
		ev.Err = err
	}
	r.done <- nil
}

// accept adds one event's rows to the group. Store.mu is held.
func (g *group) accept(ev *Event) {
	s := g.s
	if ev.Err = s.checkEvent(ev); ev.Err != nil {
		return
	}
	key := ev.IdempotencyKey
	if key == "" {
		key = ev.ID
	}
	var hash [16]byte
	if key != "" {
		hash = hashParts(ev.Helper, key)
		if first := g.repeatOf(hash); first != nil && !planted.SameIDTwice {
			g.answerRepeat(ev, first)
			return
		}
	}
	seq := s.led.lastSeq + 1
	ownID := ev.ID != ""
	eventID := ev.ID
	if !ownID {
		eventID = id.Event(s.id, seq)
		if p := ev.Payloads[FormatEvent]; ev.IDAt > 0 && len(p) >= ev.IDAt+id.EventLen {
			copy(p[ev.IDAt:], eventID)
		}
	}
	ref := payloadRef{class: eventAccepted, day: g.today}
	start := len(g.arena)
	g.arena = appendEventKey(g.arena, ref, seq)
	eventKey := g.row(start)
	valueAt := len(g.arena)
	g.arena = appendEvent(g.arena, eventKey, &EventRecord{ID: eventID, Helper: ev.Helper, Type: ev.Type, EntryID: ev.EntryID,
		Timestamp: ev.Timestamp, Accepted: g.wall, Unstable: ev.Unstable, Payloads: ev.Payloads,
		Deliveries: ev.Deliveries, Skipped: ev.Skipped}, ownID)
	value := g.row(valueAt)
	charge := chargeOf(len(value), len(ev.Deliveries))
	if ev.Err = s.checkQuota(ev, charge); ev.Err != nil {
		g.arena = g.arena[:start]
		return
	}
	g.dayRange() // a day that begins with this event begins with its number
	s.led.lastSeq, ev.Seq, ev.ID = seq, seq, eventID
	s.led.events++
	g.put(eventKey, value)
	if key != "" {
		g.putRepeat(hash, ev, ownID)
	}
	if ownID {
		start := len(g.arena)
		g.arena = appendSenderIDKey(g.arena, g.today, hashParts(ev.ID), seq)
		k := g.row(start)
		start = len(g.arena)
		g.arena = appendPlain(g.arena, k, "")
		g.put(k, g.row(start))
	}
	g.putReady(ev, ref, charge)
}

// putReady adds one ready row per delivery. Store.mu is held.
func (g *group) putReady(ev *Event, ref payloadRef, charge uint32) {
	s := g.s
	row := pendingRow{ref: ref, charge: charge, accepted: g.wall.UnixMilli()}
	for _, nd := range ev.Deliveries {
		row.format = nd.Format
		start := len(g.arena)
		g.arena = appendLaneSeq(g.arena, kindReady, nd.Lane, ev.Seq)
		key := g.row(start)
		start = len(g.arena)
		g.arena = row.append(g.arena, key)
		g.putNew(key, g.row(start))
		s.c.recent.add(nd.Lane, ev.Seq, &row)
		l := g.touch(nd.Lane)
		l.ready++
		s.addLive(l, int64(charge))
		s.led.deliveries++
		g.fresh = append(g.fresh, Delivery{Lane: nd.Lane, Seq: ev.Seq, Track: Ready, Format: nd.Format, EventID: ev.ID,
			EventType: ev.Type, EntryID: ev.EntryID, Helper: ev.Helper, Accepted: g.wall.UTC().Round(0), Unstable: ev.Unstable,
			Payload: ev.Payloads[nd.Format], ref: ref, charge: charge})
		g.changes = append(g.changes, Change{Lane: nd.Lane, Seq: ev.Seq, State: delivery.Pending, Kind: ChangeAccepted})
	}
}

func chargeOf(record, deliveries int) uint32 {
	n := max(deliveries, 1)
	return uint32((record+n-1)/n + rowOverhead)
}

// checkEvent refuses what could not be stored. These are mistakes of the
// caller, not of a sender.
func (s *Store) checkEvent(ev *Event) error {
	if len(ev.Deliveries) > maxDeliveries {
		return fmt.Errorf("event has %d deliveries, the limit is %d", len(ev.Deliveries), maxDeliveries)
	}
	for _, nd := range ev.Deliveries {
		if s.lanes[nd.Lane] == nil {
			return fmt.Errorf("lane %d does not exist", nd.Lane)
		}
		if nd.Format >= numFormats || ev.Payloads[nd.Format] == nil {
			return fmt.Errorf("event has no payload of format %d", nd.Format)
		}
	}
	return nil
}

// checkQuota refuses an event whose deliveries would exceed a limit of live
// bytes. Store.mu is held.
func (s *Store) checkQuota(ev *Event, charge uint32) error {
	add := int64(charge) * int64(len(ev.Deliveries))
	if add == 0 {
		return nil
	}
	if s.total+add > s.limits.MaxBytes {
		return &QuotaError{Live: s.total, Max: s.limits.MaxBytes}
	}
	helper := s.lanes[ev.Deliveries[0].Lane].helper
	if most := s.limits.MaxBytesPerHelper; most > 0 && s.live[helper]+add > most {
		return &QuotaError{Helper: helper, Live: s.live[helper], Max: most}
	}
	return nil
}

// addLive changes a lane's live bytes and the sums over lanes. A lane that
// holds nothing counts nothing. Store.mu is held.
func (s *Store) addLive(l *laneState, n int64) {
	if l.laneCounts.live+n < 0 || l.pending() == 0 {
		n = -l.laneCounts.live
	}
	l.laneCounts.live += n
	s.live[l.helper] += n
	s.total += n
}

// repeatOf finds the first use of an idempotency key, in this group or in the
// last 24 h, nil when there is none.
func (g *group) repeatOf(hash [16]byte) *repeatRow {
	if r := g.s.c.repeats[hash]; r != nil {
		return r
	}
	// One day more than keyLife needs, see relayClock.age.
	for _, day := range [...]uint16{g.today, g.today - 1, g.today - 2} {
		start := len(g.arena)
		g.arena = appendRepeatKey(g.arena, day, hash)
		key := g.row(start)
		raw := g.get(key)
		if raw == nil {
			g.arena = g.arena[:start]
			continue
		}
		r, err := decodeRepeat(key, raw)
		if err != nil {
			g.quarantine(key, raw, err.Error())
			g.del(key)
			continue
		}
		if g.s.clock.age(r.at, g.now) < keyLife {
			return &r
		}
	}
	return nil
}

func (g *group) answerRepeat(ev *Event, first *repeatRow) {
	if ev.BodyHash != first.bodyHash {
		ev.Err = ErrKeyReused
		return
	}
	ev.Duplicate = true
	ev.Seq = first.seq
	ev.ID = first.ownID
	if ev.ID == "" {
		ev.ID = id.Event(g.s.id, first.seq)
	}
	ev.Deliveries, ev.Skipped = first.deliveries, first.skipped
}

func (g *group) putRepeat(hash [16]byte, ev *Event, ownID bool) {
	r := &repeatRow{bodyHash: ev.BodyHash, at: g.now, seq: ev.Seq, deliveries: ev.Deliveries, skipped: ev.Skipped}
	if ownID {
		r.ownID = ev.ID
	}
	g.s.c.repeats[hash] = r
	start := len(g.arena)
	g.arena = appendRepeatKey(g.arena, g.today, hash)
	key := g.row(start)
	start = len(g.arena)
	g.arena = r.append(g.arena, key)
	g.put(key, g.row(start))
}

// dayRange notes that an event was accepted now, for listings by time.
// Store.mu is held.
func (g *group) dayRange() {
	d := g.s.dayFor(g.today)
	at := g.wall.UnixMilli()
	if d.minAccepted == 0 && d.maxAccepted == 0 {
		d.minAccepted, d.maxAccepted = at, at
	}
	d.minAccepted, d.maxAccepted = min(d.minAccepted, at), max(d.maxAccepted, at)
}

// wallMillis shows a stored wall-clock time.
func wallMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
