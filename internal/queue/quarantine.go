package queue

import (
	"context"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// damaged is a row that a reader could not believe.
type damaged struct {
	kind   byte // kindReady, kindWaiting, kindReturning, kindFollowing, kindFinished, kindAttempt, kindState
	key    []byte
	reason string
}

// quarantine keeps a damaged row's bytes under z, once. The caller removes or
// replaces the row itself in the same transaction where it must not stay.
// Store.mu is held.
func (g *group) quarantine(key, raw []byte, reason string) {
	at := quarantineKey(key)
	if g.has(at) {
		return
	}
	g.put(at, appendQuarantine(nil, at, reason, g.now, raw))
	g.s.led.quarantined++
	g.s.log.Error("a stored row is damaged and was set aside", "kind", string(key[:1]), "seq", seqOf(key), "reason", reason)
}

// seqOf is for the log.
func seqOf(key []byte) uint64 {
	switch {
	case key[0] == kindState:
		return 0
	case key[0] == kindAttempt && len(key) >= lenAttempt:
		return tail8(key[:lenAttempt-2])
	case len(key) >= lenEvent:
		return tail8(key)
	}
	return 0
}

// setAside handles what readers found: a pending delivery that cannot be sent
// ends as failed with the code "damaged", so that it is counted and seen; a
// damaged row of the log leaves the log. Each row is looked at again in the
// committer, because it may have changed since: stale says that a pending one is
// well, and was only seen in a snapshot whose event records were dropped after
// they had been copied forward.
func (s *Store) setAside(found []damaged) (stale bool, err error) {
	for i := range found {
		d := &found[i]
		err := s.do(context.Background(), func(g *group) error {
			switch d.kind {
			case kindReady, kindWaiting, kindReturning, kindFollowing:
				if !g.failDamaged(d) {
					stale = true
				}
			default:
				if raw := g.get(d.key); raw != nil {
					g.quarantine(d.key, raw, d.reason)
					g.del(d.key)
				}
			}
			return nil
		})
		if err != nil {
			return stale, err
		}
	}
	return stale, nil
}

// failDamaged ends a pending delivery whose row or event is damaged. It returns
// false for one that is not.
func (g *group) failDamaged(f *damaged) bool {
	raw := g.get(f.key)
	if raw == nil {
		return true // completed meanwhile
	}
	p := splitPending(f.key)
	row, err := decodePending(f.key, raw)
	if err != nil {
		g.quarantine(f.key, raw, err.Error())
		row = pendingRow{ref: g.refOf(p.seq), accepted: g.wall.UnixMilli()}
	}
	d, reason := g.s.loadPending(g.reader(), p, &row)
	if reason == "" && err == nil {
		return false // readable after all
	}
	if reason != "" {
		key := appendEventKey(nil, row.ref, p.seq)
		if rec := g.get(key); rec == nil {
			g.quarantine(key, nil, reason)
		} else if _, err := unseal(key, rec); err != nil {
			g.quarantine(key, rec, reason)
		}
		d.EventID = id.Event(g.s.id, p.seq)
	} else {
		reason = err.Error()
		row.charge = d.charge
	}
	g.removePending(p.lane, p.track, f.key, p.seq, row.charge)
	row.errText = reason
	a := &delivery.Attempt{Number: row.attempts, Started: g.wall.UTC(), Outcome: delivery.Rejected, Code: delivery.CodeDamaged,
		Error: "the stored payload is damaged: " + reason, Rule: delivery.RuleDamaged, State: delivery.Failed}
	g.finish(delivery.Failed, &d, &row, a, "")
	g.changed(&d, a)
	return true
}
