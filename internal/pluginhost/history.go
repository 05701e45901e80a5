package pluginhost

import (
	"math/rand/v2"
	"slices"
	"time"
)

// history is what is remembered of the processes before the one that runs. The binary's
// lock guards it.
type history struct {
	failures  uint64      // starts that failed and processes that ended by themselves
	started   uint64      // processes that were ready
	ends      []time.Time // the newest failures, at most maxEnds
	step      int         // how often the pause was doubled
	suspended bool        // until a process was ready for Times.Settled
	next      time.Time   // of the next start; zero = none is planned
	last      string      // how the last one ended, masked; "" = none has
	crash     string      // what it wrote when it did, masked; "" = nothing
}

// failed notes the end of a process, or a start that failed, and plans the next start. up
// is how long it was ready.
func (h *history) failed(now time.Time, up time.Duration, t *Times, last, crash string) {
	if up >= t.Settled {
		h.step, h.suspended, h.ends = 0, false, nil
	}
	h.failures++
	h.last, h.crash = last, crash
	h.ends = append(h.ends, now)
	if len(h.ends) > maxEnds {
		h.ends = slices.Delete(h.ends, 0, 1)
	}
	if h.recent(now, t) == maxEnds {
		h.suspended = true
	}
	if h.suspended {
		h.next = now.Add(t.Probe)
		return
	}
	most := t.MaxPause
	if h.step < 30 { // beyond that it would overflow, and is long past MaxPause
		most = min(most, t.MinPause<<h.step)
		h.step++
	}
	// #nosec G404 -- spreads restarts, protects nothing
	h.next = now.Add(1 + rand.N(most)) // full jitter: plugins that fell together do not get up together
}

// recent is how many of the failures lie within the window.
func (h *history) recent(now time.Time, t *Times) (n int) {
	for _, at := range h.ends {
		if now.Sub(at) < t.Window {
			n++
		}
	}
	return n
}
