package process

import "time"

// budget lets so much through a second on average, and ten seconds' worth at once. It is
// not safe for concurrent use.
type budget struct {
	rate, left float64
	last       time.Time
}

func newBudget(rate int, now time.Time) budget {
	return budget{rate: float64(rate), left: 10 * float64(rate), last: now}
}

func (b *budget) refill(now time.Time) {
	b.left = min(10*b.rate, b.left+b.rate*max(0, now.Sub(b.last).Seconds()))
	b.last = now
}

// throttle makes a reader wait when it has read more than so many bytes a second. It is
// not safe for concurrent use.
type throttle struct {
	rate float64 // bytes a second
	debt float64 // bytes that were read too early
	last time.Time
}

// wait sleeps until n more bytes may have been read, or stop is closed.
func (t *throttle) wait(n int, stop <-chan struct{}) {
	now := time.Now()
	t.debt = max(0, t.debt-t.rate*now.Sub(t.last).Seconds()) + float64(n)
	t.last = now
	// A tenth of a second's worth at once: shorter sleeps cost more than they bound.
	if t.debt < t.rate/10 {
		return
	}
	timer := time.NewTimer(time.Duration(t.debt / t.rate * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stop:
	}
}
