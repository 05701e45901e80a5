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
// who had come meanwhile. The wait ends with the last of them, and is not begun
// when they are not expected: a lone sender never waits for anybody. Senders who
// take their time are waited for in vain a few times, and then rarely. Owned by
// the committer.
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
	if g.expected < gatherFrom || have >= g.expected || events >= gatherEvents || g.pass > 0 {
		return 0
	}
	return max(min(gatherFor-time.Since(g.since), gatherGap), 0)
}

// waited notes a wait that ended with have requests. That a few are late is no
// reason to give up: they are the next group's.
func (g *gathering) waited(have int) {
	if have >= g.expected-g.expected/4 {
		g.vain = 0
		return
	}
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
		if have+1 >= g.expected {
			g.vain = 0
		}
		return r
	case <-g.timer.C:
		g.waited(have)
		return nil
	}
}
