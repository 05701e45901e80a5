package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// RemovedKeep is how long the deliveries of a webhook that left the
// configuration wait for it to come back, unless Options.RemovedKeep says
// otherwise. It is counted as relay time, less what a doubtful wall clock added
// to that at a start: never shorter than meant.
const RemovedKeep = 7 * 24 * time.Hour

// LaneIdentity says where a webhook's deliveries go, as far as a webhook that
// comes back under the same name must not differ. Only a digest of it is kept.
type LaneIdentity struct {
	Sink string // name of the sink; not empty
	Host string // host and port of an HTTP sink; "" for others
}

func (i LaneIdentity) digest() [16]byte { return hashParts(i.Sink, i.Host) }

// LaneWant is a webhook of the configuration.
type LaneWant struct {
	Webhook  string // helper.webhook
	Identity LaneIdentity
}

// LaneInfo answers a LaneWant.
type LaneInfo struct {
	Lane Lane
	// Returned says that the webhook left and came back with another identity
	// while deliveries of the former one were pending. Until [Store.Release]
	// they must not be sent.
	Returned bool
}

// laneLife is the value of an m w row: whether the lane's webhook is in the
// configuration. The zero value is that of a lane that never had a row: there,
// with an identity that nobody told yet.
type laneLife struct {
	removed  bool
	returned bool
	// identity is the one that pending deliveries were accepted for: of a webhook
	// that is removed or returned the former one.
	identity [16]byte
	at       int64 // removed: when, in sure time (Store.sureNow), ms
	wall     int64 // the same on the wall clock, for people
}

// next is the life of a lane whose webhook the configuration now has (want) or
// lacks (nil). waiting says that deliveries are pending, or would become so by
// a replay under way.
func (l laneLife) next(want *[16]byte, waiting bool, now, wall int64) laneLife {
	switch {
	case want == nil && l.removed:
		return l
	case want == nil:
		return laneLife{removed: true, identity: l.identity, at: now, wall: wall}
	case !waiting || *want == l.identity || (!l.removed && !l.returned):
		return laneLife{identity: *want}
	default:
		return laneLife{returned: true, identity: l.identity}
	}
}

// errUnchanged ends an op that has nothing to write.
var errUnchanged = errors.New("nothing to change")

// quietly is do for ops that may turn out to have nothing to write.
func (s *Store) quietly(ctx context.Context, apply func(g *group) error) error {
	if err := s.do(ctx, apply); !errors.Is(err, errUnchanged) {
		return err
	}
	return nil
}

// SetLanes says which webhooks the configuration has, all of them, and gives
// each its lane: the one it had before, or a new number. Durable when it
// returns; a call that changes nothing writes nothing. A large change is
// spread over several transactions; a crash in between is repaired by the
// next call.
//
// A webhook that is missing from want is removed: its deliveries stay pending,
// and end as failed with the code "webhook_removed" when it did not come back
// within [RemovedKeep]. One that comes back is as if it had never left, unless
// deliveries are pending and its identity is another: then it is
// LaneInfo.Returned. The identity of a webhook that stays may change freely.
//
// ctx ends the call only as long as nothing is written: what it began it brings to
// its end, since a webhook that was removed by half a call, and goes on to run,
// would lose its deliveries after RemovedKeep.
//
// Nothing is removed for good before the first call: only then is it known
// which webhooks are there. Calls are made one after the other.
func (s *Store) SetLanes(ctx context.Context, want []LaneWant) (map[string]LaneInfo, error) {
	wanted := make(map[string]*[16]byte, len(want))
	for _, w := range want {
		switch {
		case w.Webhook == "":
			return nil, errors.New("a webhook needs a name")
		case w.Identity.Sink == "":
			return nil, fmt.Errorf("webhook %q needs a sink", w.Webhook)
		case wanted[w.Webhook] != nil:
			return nil, fmt.Errorf("webhook %q is there twice", w.Webhook)
		}
		wanted[w.Webhook] = new(w.Identity.digest())
	}
	out := make(map[string]LaneInfo, len(want))
	before := s.laneCount()
	for more := true; more; {
		err := s.quietly(ctx, func(g *group) error {
			more = g.setLanes(want, wanted, out)
			if !g.wrote() {
				return errUnchanged
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		failpoint.Here("lanes.set")
		ctx = context.WithoutCancel(ctx)
	}
	if s.laneCount() > before {
		s.writeLaneNames()
	}
	s.expiry.poke()
	return out, nil
}

func (s *Store) laneCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lanes)
}

// setLanes writes what has changed and fills out; more says that the transaction
// was full before the end. Store.mu is held.
func (g *group) setLanes(want []LaneWant, wanted map[string]*[16]byte, out map[string]LaneInfo) (more bool) {
	s := g.s
	for _, w := range want {
		if _, known := s.names[w.Webhook]; known {
			continue
		}
		if g.full() {
			return true
		}
		lane := Lane(s.led.nextLane)
		s.led.nextLane++
		key := metaLaneKey(lane)
		g.put(key, appendPlain(nil, key, w.Webhook))
		s.addLane(lane, w.Webhook, laneCounts{})
		g.touch(lane)
	}
	for lane, l := range s.lanes {
		if g.full() {
			return true
		}
		identity := wanted[l.name]
		g.setLife(lane, l.life.next(identity, s.awaited(lane, l), s.sureNow(g.now), g.wall.UnixMilli()))
		if identity != nil {
			l.wanted = *identity
			out[l.name] = LaneInfo{Lane: lane, Returned: l.life.returned}
		}
	}
	for _, w := range want {
		l := s.lanes[s.names[w.Webhook]]
		l.told, l.sink = true, sinkNumber(w.Identity.Sink)
	}
	s.expiry.armed = true
	s.c.sweep.begin()
	return false
}

// awaited reports whether a lane has something to deliver: now, or by a replay
// under way. Store.mu is held.
func (s *Store) awaited(lane Lane, l *laneState) bool {
	if l.pending() > 0 {
		return true
	}
	for _, j := range s.jobs {
		if j.Lane == lane && !j.Done {
			return true
		}
	}
	return false
}

// setLife writes a lane's life unless it is the same. Store.mu is held.
func (g *group) setLife(lane Lane, life laneLife) {
	l := g.s.lanes[lane]
	if l.life == life {
		return
	}
	switch pending := l.pending(); {
	case pending == 0:
	case life.removed:
		g.s.log.Warn("deliveries of a webhook that left the configuration wait for it to come back", "webhook", l.name,
			"pending", pending, "for", g.s.opts.RemovedKeep)
	case life.returned:
		g.s.log.Warn("webhook came back with another sink or host; its deliveries wait until it is enabled", "webhook", l.name,
			"pending", pending)
	}
	failpoint.Here("lanes.life")
	l.life = life
	key := laneLifeKey(lane)
	g.put(key, life.append(nil, key))
}

// Release lets the deliveries of a webhook that returned with another identity
// go there; on any other lane it changes nothing. Error: [ErrNotFound] for a
// lane that does not exist.
func (s *Store) Release(ctx context.Context, lane Lane) error {
	return s.quietly(ctx, func(g *group) error {
		l := s.lanes[lane]
		switch {
		case l == nil:
			return fmt.Errorf("lane %d: %w", lane, ErrNotFound)
		case !l.life.returned:
			return errUnchanged
		}
		g.setLife(lane, laneLife{identity: l.wanted})
		s.c.sweep.begin()
		return nil
	})
}

// Outlook says how many deliveries of a webhook are pending, and whether SetLanes,
// called now with this webhook, would find it [LaneInfo].Returned.
func (s *Store) Outlook(want LaneWant) (pending int64, returned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lane, known := s.names[want.Webhook]
	if !known {
		return 0, false
	}
	l := s.lanes[lane]
	return l.shown.pending(), l.life.next(new(want.Identity.digest()), s.awaited(lane, l), 0, 0).returned
}

// sureNow is relay time less every day that only a doubtful wall clock added to
// it at a start. It can stand still over a long downtime, so what it measures
// takes longer, never shorter.
func (s *Store) sureNow(relay int64) int64 { return relay - s.doubt }

// noteDoubt makes durable how much of relay time is doubtful, together with the
// relay time that contains it: were only one of them written, a crash would
// count a doubtful day or forget a sure one. It runs before anything else is
// written.
func (s *Store) noteDoubt() error {
	if s.clock.doubted == 0 {
		return nil
	}
	s.doubt += s.clock.doubted
	s.doubtAt = s.clock.doubtAt
	s.led.relayTime = s.clock.started
	failpoint.Here("open.doubt")
	err := s.db.Update(func(txn *badger.Txn) error {
		if err := txn.Set(metaLedgerKey(), s.led.append(nil, metaLedgerKey())); err != nil {
			return err
		}
		if err := txn.Set(metaDoubtKey(), appendDue(nil, metaDoubtKey(), s.doubt)); err != nil {
			return err
		}
		return txn.Set(metaDoubtAtKey(), appendDue(nil, metaDoubtAtKey(), s.clock.doubtAt))
	})
	if err == nil {
		err = s.blog.poisoned()
	}
	if err != nil {
		return fmt.Errorf("write relay time: %w", err)
	}
	return nil
}

// Expires is when the pending deliveries of a removed webhook end, wall clock;
// zero when nothing would.
func (s *Store) Expires(lane Lane) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var st LaneStats
	if l := s.lanes[lane]; l != nil {
		s.lifeStats(lane, l, &st)
	}
	return st.Expires
}

// lifeStats fills in what LaneStats says of a lane's life. Store.mu is held.
func (s *Store) lifeStats(lane Lane, l *laneState, st *LaneStats) {
	st.Returned = l.life.returned
	if !l.life.removed {
		return
	}
	st.RemovedAt = wallMillis(l.life.wall)
	if s.awaited(lane, l) {
		st.Expires = s.clock.toWall(s.expiresAt(l) + s.doubt)
	}
}
