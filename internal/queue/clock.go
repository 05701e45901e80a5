package queue

import (
	"math"
	"time"
)

const (
	dayMillis = 24 * 60 * 60 * 1000
	// maxStartJump is how far relay time may advance at one start. A wall
	// clock that is a year ahead thus ages what is stored by one day only, and by
	// no other before a day has passed that is not to be doubted.
	maxStartJump = dayMillis
)

// relayClock tells relay time: milliseconds that start at the wall clock, never
// go back, and advance with the monotonic clock alone while the process runs.
// Due times, days of retention and the life of idempotency keys are in relay
// time, so that setting the wall clock moves none of them. Immutable.
type relayClock struct {
	wall    func() time.Time     // for display only
	elapsed func() time.Duration // monotonic
	base    int64                // relay time when elapsed was zero
	started int64                // relay time of the start
	doubted int64                // how far relay time advanced at this start because of a wall clock that is not to be believed
	doubtAt int64                // relay time after the last start that did so; 0 = there was none
}

// newRelayClock goes on from what relay time was last. doubtAt is that of the last
// start with a doubtful wall clock: whoever starts again and again under it must not
// age what is stored by a day each time.
func newRelayClock(last, doubtAt int64, wall func() time.Time, elapsed func() time.Duration) *relayClock {
	base, doubted := wall().UnixMilli(), int64(0)
	switch {
	case last == 0:
	case base <= last+maxStartJump:
		base = max(base, last)
	case doubtAt != 0 && last < doubtAt+maxStartJump:
		base = last
	default:
		base, doubted, doubtAt = last+maxStartJump, maxStartJump, last+maxStartJump
	}
	// The day is kept in 16 bits, counted from 1970.
	base = min(max(base, dayMillis), (math.MaxUint16-1)*dayMillis)
	return &relayClock{wall: wall, elapsed: elapsed, base: base - elapsed().Milliseconds(), started: base, doubted: doubted, doubtAt: doubtAt}
}

// age is how long ago something surely was, in ms, as long as it is less than two
// days: a day that only a doubtful wall clock says has passed does not count.
func (c *relayClock) age(at, now int64) int64 {
	if at < c.doubtAt {
		at += maxStartJump
	}
	return now - at
}

func (c *relayClock) now() int64 { return c.base + c.elapsed().Milliseconds() }

// toWall shows a relay time as people see it.
func (c *relayClock) toWall(relay int64) time.Time {
	return c.wall().Add(time.Duration(relay-c.now()) * time.Millisecond).UTC().Round(0)
}

func dayOf(relay int64) uint16 { return uint16(relay / dayMillis) }

// untilNextDay is how long the day under way still lasts.
func untilNextDay(relay int64) time.Duration {
	return time.Duration(dayMillis-relay%dayMillis) * time.Millisecond
}

// daysFor is how many whole days a bucket is kept for a time of retention.
func daysFor(d time.Duration) int { return int((d + 24*time.Hour - 1) / (24 * time.Hour)) }

// Now is relay time in milliseconds: wall time at the first start, never going
// back, advancing with the monotonic clock, and by at most 24 h at a start; when the
// wall clock is further ahead than that, by nothing if that was so less than 24 h ago.
func (s *Store) Now() int64 { return s.clock.now() }
