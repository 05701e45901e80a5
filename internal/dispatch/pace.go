package dispatch

import "time"

// maxPace bounds the time between two calls, whatever rate a sink asks for.
const maxPace = 24 * time.Hour

// pace is a token bucket for calls, kept as the one time at which it would be
// full again (the generic cell rate algorithm): at a rate that stays the same it
// outlives every change of the configuration, and nothing runs while nobody
// calls. It begins with room for one call: before a restart the rest may have
// been used up. The lane's lock guards it.
type pace struct {
	full int64 // relay time in ns
	born int64 // relay time in ns at which it had room for one call
}

func newPace(now int64) pace { return pace{born: now * int64(time.Millisecond)} }

// fullAt is full, or when what it begins with would be.
func (p *pace) fullAt(slack int64) int64 { return max(p.full, p.born+slack) }

// interval is the time that one call is worth, 0 without a limit; slack is how
// far ahead of the rate calls may be.
func interval(m *Limits) (each, slack int64) {
	if !(m.PerSecond > 0) {
		return 0, 0
	}
	wide := float64(maxPace)
	ns := min(float64(time.Second)/m.PerSecond, wide)
	return int64(ns), int64(min(ns*float64(max(m.Burst, 1)-1), wide))
}

// next is the relay time in ms from which a call may begin; 0 = at any time.
func (p *pace) next(m *Limits) int64 {
	each, slack := interval(m)
	if each == 0 {
		return 0
	}
	const ms = int64(time.Millisecond)
	return (p.fullAt(slack) - slack + ms - 1) / ms
}

// spend notes a call that begins at a relay time in ms.
func (p *pace) spend(m *Limits, now int64) {
	if each, slack := interval(m); each > 0 {
		p.full = max(p.fullAt(slack), now*int64(time.Millisecond)) + each
	}
}

// refund takes back the last spend: the call was not made.
func (p *pace) refund(m *Limits) {
	each, _ := interval(m)
	p.full -= each
}
