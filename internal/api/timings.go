package api

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// Timings are the durations of a daemon as histograms, and the errors of its
// attempts. The parts that do the work tell it, on the goroutine that does: no
// method blocks, and none allocates once a sink is known.
//
// The histograms have a label for the sink, never for the webhook. A histogram is
// some twenty series, so that one of each webhook would be what nearly all of a scrape
// consists of; a webhook has the sum and the count of its attempts. There are no
// native histograms beside the classic ones: a Prometheus that takes native histograms
// leaves the classic buckets of the same metric out, unless it is told otherwise, and
// the rules and the dashboard of docs/monitoring use buckets. They would also double the
// time of an observation.
type Timings struct {
	accept, commit prometheus.Histogram
	attempts, lag  *prometheus.HistogramVec
	codes          []delivery.Code // of sinkTimings.errors, constant

	known     atomic.Pointer[map[string]*sinkTimings] // by the sink's name; the map is immutable
	makeKnown sync.Mutex                              // held to replace known
}

// sinkTimings is what is kept of one sink.
type sinkTimings struct {
	success, failure, lag prometheus.Observer
	errors                []atomic.Uint64 // by index in Timings.codes
}

// Values of the label outcome of peanuts_relay_attempt_duration_seconds.
const (
	outcomeSuccess = "success"
	outcomeFailure = "failure"
)

// codes are the values of the metrics' label code. What a sink says beyond them
// counts as otherCode, so that no sink can make series without bound.
func codes() []delivery.Code {
	return []delivery.Code{delivery.CodeStatus, delivery.CodeRedirect, delivery.CodeTimeout, delivery.CodeDNS,
		delivery.CodeConnect, delivery.CodeTLS, delivery.CodeConnection, delivery.CodeProtocol, delivery.CodeForbiddenAddr,
		delivery.CodeProxy, delivery.CodeDamaged, delivery.CodePanic, delivery.CodePluginCrash, delivery.CodeNoResult, otherCode}
}

const otherCode delivery.Code = "other"

// NewTimings returns timings that nothing was told yet.
func NewTimings() *Timings {
	const quick, slow = 1, 60
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: "peanuts_relay_" + name, Help: help, Buckets: buckets}
	}
	t := &Timings{
		codes: codes(),
		accept: prometheus.NewHistogram(histogram("event_accept_duration_seconds",
			"Time from the whole event's arrival until it was durable; of a stream, of each group of lines.",
			[]float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, quick, 2.5, 5, 10})),
		commit: prometheus.NewHistogram(histogram("queue_commit_duration_seconds",
			"Time to write a group of changes and sync it to the disk.",
			[]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, quick, 2.5, 5})),
		attempts: prometheus.NewHistogramVec(histogram("attempt_duration_seconds",
			"Time of an attempt, by how it ended; in a call with several deliveries each has the call's.",
			[]float64{.005, .01, .025, .05, .1, .25, .5, quick, 2.5, 5, 10, 30, slow, 300}), []string{"sink", "outcome"}),
		lag: prometheus.NewHistogramVec(histogram("accept_to_success_seconds",
			"Time from an event's acceptance until a delivery of it succeeded, by the wall clock; replays do not count.",
			[]float64{.01, .05, .1, .5, quick, 5, 15, slow, 2 * slow, 5 * slow, 10 * slow, 30 * slow, 3600, 3 * 3600, 24 * 3600}), []string{"sink"}),
	}
	t.known.Store(&map[string]*sinkTimings{})
	return t
}

// Accepted is told how long an event, or a group of lines, took to become durable.
func (t *Timings) Accepted(took time.Duration) { t.accept.Observe(took.Seconds()) }

// Committed is told how long a group of changes took to be written and synced.
func (t *Timings) Committed(took time.Duration) { t.commit.Observe(took.Seconds()) }

// Attempted is told of an attempt that is over. since is the time from the
// acceptance of the event; less than 0 when that says nothing, as for a replay.
func (t *Timings) Attempted(sink string, a *delivery.Attempt, since time.Duration) {
	if a.Outcome == delivery.Interrupted {
		return // by us: it says nothing about anybody
	}
	s := t.sink(sink)
	if a.Outcome == delivery.Delivered || a.Outcome == delivery.Skipped {
		s.success.Observe(a.Duration.Seconds())
		if since >= 0 {
			s.lag.Observe(since.Seconds())
		}
		return
	}
	s.failure.Observe(a.Duration.Seconds())
	code := slices.Index(t.codes, a.Code)
	if code < 0 {
		code = len(t.codes) - 1 // otherCode
	}
	s.errors[code].Add(1)
}

// sink is what is kept of a sink, made when it was not known.
func (t *Timings) sink(name string) *sinkTimings {
	if s := (*t.known.Load())[name]; s != nil {
		return s
	}
	t.makeKnown.Lock()
	defer t.makeKnown.Unlock()
	known := *t.known.Load()
	if s := known[name]; s != nil {
		return s // of another who was faster
	}
	s := &sinkTimings{success: t.attempts.WithLabelValues(name, outcomeSuccess), failure: t.attempts.WithLabelValues(name, outcomeFailure),
		lag: t.lag.WithLabelValues(name), errors: make([]atomic.Uint64, len(t.codes))}
	next := maps.Clone(known)
	next[name] = s
	t.known.Store(&next)
	return s
}

// collect writes everything to a scrape. The series of these sinks are there whether
// or not they were used.
func (t *Timings) collect(s sample, sinks map[string]bool) {
	for name := range sinks {
		t.sink(name)
	}
	for _, of := range []prometheus.Collector{t.accept, t.commit, t.attempts, t.lag} {
		of.Collect(s.ch)
	}
	errors := desc("attempt_errors_total", "Attempts that did not succeed, by sink and class of what went wrong.", "sink", "code")
	for name, known := range *t.known.Load() {
		for i, code := range t.codes {
			s.counter(errors, float64(known.errors[i].Load()), name, string(code))
		}
	}
}
