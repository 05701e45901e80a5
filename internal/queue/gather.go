package queue

import (
	"runtime"
	"time"
)

const (
	// gatherYields is how often the committer lets others run before it believes
	// that nobody else has events for the group under way.
	gatherYields = 2
	// gatherFor bounds the wait for senders that were just answered, and gatherGap
	// the time in which none of them comes.
	gatherFor = 2 * time.Millisecond
	gatherGap = time.Millisecond
	// gatherFrom is how many senders are worth a wait. Fewer that meet by chance,
	// at a few hundred events a second, would wait for nobody.
	gatherFrom = 4
	// gatherEvents is enough for a group: what a commit costs whatever its size is
	// little for each of so many.
	gatherEvents = 64
	// gatherPause bounds the groups that are not waited for after a wait in vain.
	gatherPause = 63
)

// gathering decides how long a group stays open. Senders that send one event
// after the other split into two halves by themselves: one is being answered
// while the other waits for the disk, each commit carries half of what it could,
// and a commit costs most of what it costs whatever its size. So a group waits
// for as many as were there in the last round: those whom it answered, and those
// who had come meanwhile, or three quarters of them, since somebody else's event
// of a slower kind may be among them. The wait is not begun when nobody is
// expected: a lone sender never waits. Senders who take their time are waited for
// in vain a few times, and then rarely. Owned by the committer.
type gathering struct {
	expected int       // requests of the last round
	since    time.Time // their answers
	timer    *time.Timer
	vain     int // groups to pass over after the next wait in vain
	pass     int // groups still to pass over
}

func (g *gathering) init() { g.timer = stoppedTimer() }

// round notes how many were answered just now, and how many have come meanwhile.
func (g *gathering) round(answered, waiting int) {
	if answered == 0 {
		return
	}
	g.expected, g.since = answered+waiting, time.Now()
	g.pass = max(g.pass-1, 0)
}

// limit is how long to wait for one more request when there are have; 0 is not
// at all.
func (g *gathering) limit(have, events int) time.Duration {
	if g.expected < gatherFrom || have >= g.enough() || events >= gatherEvents || g.pass > 0 {
		return 0
	}
	return max(min(gatherFor-time.Since(g.since), gatherGap), 0)
}

// enough is how many end a wait. Waiting for the last few costs more than it
// brings: a sender of 300 events a second beside 16 that flood would hold them
// up by a quarter.
func (g *gathering) enough() int { return g.expected - g.expected/4 }

// missed notes a wait in vain.
func (g *gathering) missed() {
	g.vain = min(2*g.vain+1, gatherPause)
	g.pass = g.vain
}

// nextAccept is the next request that waits, nil when none does and none is
// expected. Before it says so it yields the processor: senders that are ready to
// run hand in their events meanwhile, and on an idle machine nobody is ready and
// yielding takes no time.
func (s *Store) nextAccept(events int) *acceptReq {
	for range gatherYields {
		select {
		case r := <-s.accepts:
			return r
		default:
			runtime.Gosched()
		}
	}
	select {
	case r := <-s.accepts:
		return r
	default:
	}
	g, have := &s.c.gather, len(s.c.answers)
	limit := g.limit(have, events)
	if limit == 0 {
		return nil
	}
	g.timer.Reset(limit)
	defer g.timer.Stop()
	select {
	case r := <-s.accepts:
		if have+1 >= g.enough() {
			g.vain = 0
		}
		return r
	case <-g.timer.C:
		g.missed()
		return nil
	}
}
