package queue

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// MaxEntryState bounds what a sink may have kept for one entry, in bytes.
const MaxEntryState = 4 << 10

// entryDeleted is the type of the events after whose delivery nothing is kept of
// an entry, unless the sink says otherwise.
const entryDeleted = "entry.deleted"

// maxSweepStep bounds the rows that one step of discarding states removes.
const maxSweepStep = 256

// sinkNumber names a sink in the keys of what it has kept.
func sinkNumber(name string) uint32 {
	h := hashParts(name)
	return binary.BigEndian.Uint32(h[:])
}

// keepsStates reports whether what the sink with this number has kept on a lane
// may still be needed: by the sink that the webhook has, or by the former one of
// a webhook that left or returned, until its time is over. Store.mu is held.
func (s *Store) keepsStates(l *laneState, sink uint32, now int64) bool {
	switch {
	case l.life.removed:
		return !s.expiry.armed || s.expiresAt(l) > s.sureNow(now)
	case l.life.returned || !l.told:
		return true
	}
	return sink == l.sink
}

// EntryState is what a sink has kept for an entry of a lane with its last
// success that is durable; nil when there is nothing. A row that is damaged is
// set aside, and is nothing. While a lane has no states it looks nothing up.
func (s *Store) EntryState(lane Lane, sink, entryID string) (state []byte, err error) {
	number := sinkNumber(sink)
	s.mu.Lock()
	l := s.lanes[lane]
	known := l != nil && slices.Contains(l.states, number)
	s.mu.Unlock()
	if !known {
		return nil, s.usable()
	}
	key := stateKey(lane, number, entryID)
	err = s.viewPoint(key, func(raw []byte) []damaged {
		state = nil
		if raw == nil {
			return nil
		}
		var damage error
		if state, damage = decodeEntryState(key, raw); damage != nil {
			state = nil
			return []damaged{{kind: kindState, key: key, reason: damage.Error()}}
		}
		return nil
	})
	return state, err
}

// keepState writes what a sink wants to find at the entry's next delivery, in
// the transaction of the success that says so. What belongs to a sink that the
// webhook no longer has is dropped. Store.mu is held.
func (g *group) keepState(c *Completion) {
	d, state := &c.Delivery, c.Attempt.EntryState
	if c.Sink == "" || (state == nil && d.EventType != entryDeleted) {
		return
	}
	sink, l := sinkNumber(c.Sink), g.s.lanes[d.Lane]
	if !g.s.keepsStates(l, sink, g.now) {
		return
	}
	key := stateKey(d.Lane, sink, d.EntryID)
	switch {
	case len(state) > MaxEntryState:
		g.s.log.Warn("the state of an entry is too large and was not kept", "webhook", l.name, "seq", d.Seq, "bytes", len(state))
	case len(state) > 0:
		start := len(g.arena)
		g.arena = appendEntryState(g.arena, key, state)
		g.put(key, g.row(start))
		failpoint.Here("state.kept")
		if !slices.Contains(l.states, sink) {
			l.states = append(l.states, sink)
		}
	case slices.Contains(l.states, sink) && g.has(key):
		g.del(key)
	}
}

// loadStates finds out which sinks have kept something on which lanes, with one
// seek for each.
func (s *Store) loadStates(txn *badger.Txn) {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{kindState}})
	defer it.Close()
	for it.Seek([]byte{kindState}); it.Valid(); {
		lane, sink := splitState(it.Item().Key())
		if l := s.lanes[lane]; l != nil {
			l.states = append(l.states, sink)
		}
		behind := append(statePrefix(lane, sink), bytes.Repeat([]byte{0xff}, lenState)...)
		it.Seek(behind)
	}
}

// staleStates is the first lane and sink whose states are to go, so that a sweep
// is through with one before it begins another; false when there is none.
// Store.mu is held.
func (s *Store) staleStates(now int64) (lane Lane, sink uint32, ok bool) {
	for number, l := range s.lanes {
		for _, of := range l.states {
			first := !ok || number < lane || (number == lane && of < sink)
			if first && !s.keepsStates(l, of, now) {
				lane, sink, ok = number, of, true
			}
		}
	}
	return lane, sink, ok
}

// sweep discards what sinks have kept that webhooks no longer have. Owned by the
// committer.
type sweep struct {
	wanted bool
	from   []byte // where the step before ended
}

// begin looks for what is to go from the start: since the last look other rows
// may have become stale, also before the place where it ended.
func (w *sweep) begin() { w.wanted, w.from = true, nil }

// sweepStep discards a few states. Each step is a transaction, and decides anew:
// a webhook that comes back in between keeps what is left. A crash between two:
// the next start, or the next configuration, finds the rest.
func (s *Store) sweepStep() {
	w := &s.c.sweep
	g := s.begin()
	s.mu.Lock()
	lane, sink, found := s.staleStates(g.now)
	if found {
		prefix := statePrefix(lane, sink)
		if !bytes.HasPrefix(w.from, prefix) {
			w.from = prefix
		}
		keys := keysFrom(g.reader(), w.from, prefix, maxSweepStep)
		for _, key := range keys {
			g.del(key)
			w.from = append(key, 0)
		}
		failpoint.Here("state.swept")
		if len(keys) < maxSweepStep {
			l := s.lanes[lane]
			l.states = slices.DeleteFunc(l.states, func(n uint32) bool { return n == sink })
			w.from = nil
		}
	}
	w.wanted = found
	s.mu.Unlock()
	if g.err == nil && !g.wrote() {
		g.discard()
		return
	}
	s.commit(g)
}
