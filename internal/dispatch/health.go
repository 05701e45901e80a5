package dispatch

import (
	"log/slog"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// warnPause is the shortest time between two warnings about one webhook, in ms
// of relay time.
const warnPause = 60_000

// health remembers whether a webhook fails, for two lines in the log: one when
// it starts to, one when it works again. The lane's lock guards it.
type health struct {
	failing bool
	warned  bool  // a warning was written and wants its counterpart
	quiet   int64 // no further warning before this relay time
}

// spent counts the lane's attempts since the start. The lane's lock guards it.
type spent struct {
	attempts uint64
	took     time.Duration
}

// healthChange is what note found worth a line in the log.
type healthChange uint8

const (
	healthSame healthChange = iota
	healthFailing
	healthRecovered
)

func (h *health) note(a *delivery.Attempt, now int64) healthChange {
	if a.State == delivery.Success {
		h.failing = false
		if h.warned {
			h.warned = false
			return healthRecovered
		}
		return healthSame
	}
	if h.failing {
		return healthSame
	}
	h.failing = true
	if now < h.quiet {
		return healthSame
	}
	h.warned, h.quiet = true, now+warnPause
	return healthFailing
}

func (d *Dispatcher) report(change healthChange, s *slot, deliveryID string, a *delivery.Attempt) {
	var level slog.Level
	var msg string
	switch change {
	case healthSame:
		return
	case healthFailing:
		level, msg = slog.LevelWarn, "webhook fails"
	case healthRecovered:
		level, msg = slog.LevelInfo, "webhook works again"
	}
	d.log.Log(d.base, level, msg, "webhook", s.Webhook, "delivery_id", deliveryID,
		"attempt", a.Number, "code", a.Code, "status", a.Status)
}
