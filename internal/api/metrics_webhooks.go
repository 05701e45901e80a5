package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// What became of the delivery of an attempt: the label outcome of
// peanuts_relay_attempts_total, in the order of laneCounts.attempts.
const (
	attemptSucceeded = iota
	attemptRetried   // it goes on to another attempt, whether or not this one counted
	attemptFailed
	numOutcomes
)

func outcomeOf(state delivery.State) int {
	switch state {
	case delivery.Success:
		return attemptSucceeded
	case delivery.Failed:
		return attemptFailed
	}
	return attemptRetried
}

func outcomeNames() [numOutcomes]string { return [...]string{"success", "retry", "failed"} }

// notHeld is the label reason of a webhook that makes attempts.
const notHeld = "none"

// webhookDescs are the descriptions of the series that every webhook has.
type webhookDescs struct {
	info, finished, attempts, took, state, pending, oldest, bytes, held *prometheus.Desc
}

func (c *collector) webhooks(s sample, lanes []fullLane) {
	d := webhookDescs{
		info:     desc("webhook_info", "Always 1; the labels say whose webhook it is and where it goes. The sink is empty for one that left the configuration.", "webhook", "helper", "sink"),
		finished: desc("deliveries_finished_total", "Deliveries that became success or failed since the start.", "webhook", "outcome"),
		attempts: desc("attempts_total", "Attempts recorded since the start, by what became of the delivery.", "webhook", "outcome"),
		took:     desc("webhook_attempt_duration_seconds", "Time of the webhook's attempts.", "webhook"),
		state:    desc("deliveries", "Deliveries that are not finished, each in one state.", "webhook", "state"),
		pending:  desc("queue_pending", "Deliveries that are not finished, whether pending, held or in flight.", "webhook"),
		oldest:   desc("queue_oldest_age_seconds", "Age of the oldest delivery that waits for its first attempt; 0 = none.", "webhook"),
		bytes:    desc("queue_webhook_live_bytes", "Bytes that the webhook's pending deliveries count for.", "webhook"),
		held:     desc("webhook_held", "1 when the webhook makes no attempts, for this reason; 0 with the reason none when it makes them.", "webhook", "reason"),
	}
	held := map[delivery.HoldReason]int{}
	for i := range lanes {
		c.webhook(s, &d, &lanes[i])
		held[lanes[i].Hold]++
	}
	all := desc("webhooks_held", "Webhooks that make no attempts, by reason.", "reason")
	for _, reason := range holdReasons() {
		s.gauge(all, float64(held[reason]), string(reason))
	}
}

func (c *collector) webhook(s sample, d *webhookDescs, l *fullLane) {
	name, counts, since := l.Shown.ID, l.counts(), c.api.Feed.counts(l.Lane)
	s.gauge(d.info, 1, name, l.Shown.Helper, l.Shown.Sink)
	s.counter(d.finished, float64(since.success), name, "success")
	s.counter(d.finished, float64(since.failed), name, "failed")
	for i, outcome := range outcomeNames() {
		s.counter(d.attempts, float64(since.attempts[i]), name, outcome)
	}
	s.ch <- prometheus.MustNewConstSummary(d.took, l.Attempts, l.Took.Seconds(), nil, name)
	s.gauge(d.state, float64(max(counts.Pending-counts.InFlight-counts.Held, 0)), name, "pending")
	s.gauge(d.state, float64(counts.InFlight), name, "in_flight")
	s.gauge(d.state, float64(counts.Held), name, "held")
	s.gauge(d.pending, float64(counts.Pending), name)
	s.gauge(d.bytes, float64(counts.LiveBytes), name)
	age := time.Duration(0)
	if oldest := c.api.oldest(l); !oldest.IsZero() {
		age = max(c.api.Now().Sub(oldest), 0)
	}
	s.gauge(d.oldest, age.Seconds(), name)
	if l.Hold == "" {
		s.gauge(d.held, 0, name, notHeld)
	} else {
		s.gauge(d.held, 1, name, string(l.Hold))
	}
}

func holdReasons() []delivery.HoldReason {
	return []delivery.HoldReason{delivery.HoldDisabled, delivery.HoldRemoved, delivery.HoldReturned,
		delivery.HoldMisconfigured, delivery.HoldPluginDown, delivery.HoldRateLimited, delivery.HoldStorage}
}
