package dispatch

import (
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

const (
	// probeEvery is how often a lane that its sink called misconfigured tries
	// one delivery.
	probeEvery = 5 * time.Minute
	// defaultPause is for a sink that was rate limited without saying how long.
	defaultPause = 60 * time.Second
	// minPause keeps a rate limit of nothing from becoming a busy loop.
	minPause = time.Second
)

// halt is why the dispatcher itself makes no attempt on a lane for now. Times
// are relay time in ms, 0 = none. The lane's lock guards it.
type halt struct {
	limited int64 // rate limited until then
	backoff int64 // no reads and no claims until then; memory stays

	misconfigured bool
	why           string // what the sink said of it last
	probeAt       int64
	probeReady    bool // its time has come: the next delivery is the probe
	probing       bool // the probe is in flight
}

// closed reports whether the lane keeps nothing in memory.
func (h *halt) closed() bool {
	return h.limited != 0 || (h.misconfigured && !h.probeReady && !h.probing)
}

// open reports whether a claim is allowed; a probe runs alone.
func (h *halt) open(inFlight int) bool {
	return !h.closed() && h.backoff == 0 && (!h.misconfigured || (h.probeReady && inFlight == 0))
}

func (h *halt) reason() delivery.HoldReason {
	switch {
	case h.misconfigured:
		return delivery.HoldMisconfigured
	case h.limited != 0:
		return delivery.HoldRateLimited
	}
	return ""
}

// claimed turns the delivery just claimed into the probe, if one is due.
func (h *halt) claimed() {
	if h.probeReady {
		h.probeReady, h.probing = false, true
	}
}

// distrust begins or renews the hold of a misconfigured sink, which says why.
func (h *halt) distrust(now int64, why string) (first bool) {
	first = !h.misconfigured
	h.misconfigured, h.why, h.probeReady, h.probing = true, why, false, false
	h.probeAt = now + probeEvery.Milliseconds()
	return first
}

// trustAgain ends it.
func (h *halt) trustAgain() (ended bool) {
	ended = h.misconfigured
	h.misconfigured, h.why, h.probeReady, h.probing, h.probeAt = false, "", false, false, 0
	return ended
}

// probe makes the next delivery of a misconfigured sink the probe, without the wait.
func (h *halt) probe() {
	if h.misconfigured && !h.probing {
		h.probeAt, h.probeReady = 0, true
	}
}

// limit pauses the lane for as long as the sink asks, within bounds.
func (h *halt) limit(now int64, ask time.Duration) (first bool) {
	first = h.limited == 0
	if ask <= 0 {
		ask = defaultPause
	}
	ask = min(max(ask, minPause), retry.MaxRetryAfter)
	h.limited = max(h.limited, now+ask.Milliseconds())
	return first
}

// ripen ends what has run its time.
func (h *halt) ripen(now int64) {
	if h.limited <= now {
		h.limited = 0
	}
	if h.backoff <= now {
		h.backoff = 0
	}
	if h.probeAt != 0 && h.probeAt <= now {
		h.probeAt, h.probeReady = 0, true
	}
}

// next is when ripen has something to do.
func (h *halt) next() int64 {
	return earlier(earlier(h.limited, h.backoff), h.probeAt)
}

// probingEnded makes the next delivery the probe when this one told nothing.
func (h *halt) probingEnded() {
	if h.probing {
		h.probing, h.probeReady = false, true
	}
}
