package api

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func scrape(t *testing.T, w *world) string {
	t.Helper()
	text, err := w.client.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestMetricsFollowTheConventions(t *testing.T) {
	w, _ := storyWorld(t)
	w.start(t)
	problems, err := promlint.New(strings.NewReader(scrape(t, w))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(w.Registry, "peanuts_relay_build_info"); err != nil || n != 1 {
		t.Errorf("%d series of build_info, %v", n, err)
	}
}

func TestMetricsCountWhatHappened(t *testing.T) {
	w, _ := storyWorld(t)
	w.dispatcher.states[backend] = LaneState{InFlight: 1, Attempts: 3, Took: 1500 * time.Millisecond}
	w.start(t)
	before := scrape(t, w)
	w.Feed.Publish([]queue.Change{
		attempted(backend, 1, delivery.Success, 1),
		{Lane: backend, Seq: 2, State: delivery.Pending, Code: delivery.CodeTimeout, Kind: rest.KindAttempt},
		{Lane: backend, Seq: 2, State: delivery.Failed, Code: "made_up_by_a_sink", Kind: rest.KindAttempt},
		{Lane: backend, Seq: 3, State: delivery.Failed, Code: delivery.CodeDropped, Kind: rest.KindDropped},
		accepted(backend, 4),
	})
	w.Timings.Accepted(700 * time.Microsecond)
	w.Timings.Committed(30 * time.Millisecond)
	for _, a := range []delivery.Attempt{
		{Outcome: delivery.Delivered, Duration: 200 * time.Millisecond},
		{Outcome: delivery.Retry, Duration: 30 * time.Second, Code: delivery.CodeTimeout},
		{Outcome: delivery.Rejected, Duration: time.Millisecond, Code: "made_up_by_a_sink"},
		{Outcome: delivery.Interrupted, Duration: time.Hour, Code: delivery.CodeInterrupted},
	} {
		w.Timings.Attempted("http", &a, 90*time.Second)
	}
	w.Timings.Attempted("http", &delivery.Attempt{Outcome: delivery.Skipped, Duration: time.Millisecond}, -1)
	after := scrape(t, w)
	for _, want := range []string{
		`peanuts_relay_build_info{commit="abc",go_version="go1.26",version="1.2.3"} 1`,
		`peanuts_relay_events_accepted_total{helper="expenses"} 5`, `peanuts_relay_events_accepted_total{helper="crm"} 2`, `peanuts_relay_ready 1`,
		`peanuts_relay_event_accept_duration_seconds_bucket{le="0.001"} 1`, `peanuts_relay_event_accept_duration_seconds_bucket{le="0.0005"} 0`,
		`peanuts_relay_queue_commit_duration_seconds_sum 0.03`, `peanuts_relay_queue_commit_duration_seconds_count 1`,
		`peanuts_relay_attempt_duration_seconds_bucket{outcome="success",sink="http",le="0.25"} 2`,
		`peanuts_relay_attempt_duration_seconds_count{outcome="success",sink="http"} 2`,
		`peanuts_relay_attempt_duration_seconds_count{outcome="failure",sink="http"} 2`,
		`peanuts_relay_attempt_duration_seconds_count{outcome="failure",sink="slack"} 0`,
		`peanuts_relay_accept_to_success_seconds_bucket{sink="http",le="120"} 1`, `peanuts_relay_accept_to_success_seconds_bucket{sink="http",le="60"} 0`,
		`peanuts_relay_accept_to_success_seconds_count{sink="http"} 1`, `peanuts_relay_accept_to_success_seconds_count{sink="slack"} 0`,
		`peanuts_relay_attempt_errors_total{code="timeout",sink="http"} 1`, `peanuts_relay_attempt_errors_total{code="other",sink="http"} 1`,
		`peanuts_relay_attempt_errors_total{code="dns",sink="http"} 0`, `peanuts_relay_attempt_errors_total{code="no_result",sink="slack"} 0`,
		`peanuts_relay_webhook_info{helper="expenses",sink="http",webhook="expenses.backend"} 1`,
		`peanuts_relay_webhook_attempt_duration_seconds_sum{webhook="expenses.backend"} 1.5`,
		`peanuts_relay_webhook_attempt_duration_seconds_count{webhook="expenses.backend"} 3`,
		`peanuts_relay_webhook_attempt_duration_seconds_count{webhook="crm.main"} 0`,
		`peanuts_relay_queue_max_bytes 1.073741824e+10`, `peanuts_relay_disk_min_free_bytes 5.36870912e+08`,
		`peanuts_relay_events_duplicate_total 2`, `peanuts_relay_unstable_json_total 1`,
		`peanuts_relay_events_rejected_total{reason="invalid"} 3`, `peanuts_relay_events_rejected_total{reason="too_large"} 0`,
		`peanuts_relay_attempts_total{outcome="success",webhook="expenses.backend"} 1`,
		`peanuts_relay_attempts_total{outcome="retry",webhook="expenses.backend"} 1`,
		`peanuts_relay_attempts_total{outcome="failed",webhook="expenses.backend"} 1`,
		`peanuts_relay_attempts_total{outcome="retry",webhook="crm.main"} 0`,
		`peanuts_relay_deliveries_finished_total{outcome="success",webhook="expenses.backend"} 1`,
		`peanuts_relay_deliveries_finished_total{outcome="failed",webhook="expenses.backend"} 2`,
		`peanuts_relay_deliveries_finished_total{outcome="failed",webhook="crm.main"} 0`,
		`peanuts_relay_queue_pending{webhook="expenses.backend"} 3`,
		`peanuts_relay_deliveries{state="pending",webhook="expenses.backend"} 2`,
		`peanuts_relay_deliveries{state="in_flight",webhook="expenses.backend"} 1`,
		`peanuts_relay_deliveries{state="held",webhook="expenses.alerts"} 1`,
		`peanuts_relay_queue_oldest_age_seconds{webhook="expenses.backend"} 3595`,
		`peanuts_relay_queue_oldest_age_seconds{webhook="crm.main"} 0`,
		`peanuts_relay_webhook_held{reason="disabled",webhook="expenses.alerts"} 1`,
		`peanuts_relay_webhook_held{reason="none",webhook="expenses.backend"} 0`,
		`peanuts_relay_webhooks_held{reason="disabled"} 1`, `peanuts_relay_webhooks_held{reason="plugin_down"} 0`,
		`peanuts_relay_store_state{state="ok"} 1`, `peanuts_relay_store_state{state="stopped"} 0`,
		`peanuts_relay_queue_groups_total 5`, `peanuts_relay_replays_active 1`, `peanuts_relay_disk_free_bytes 1.099511627776e+12`,
	} {
		if !strings.Contains(after, want+"\n") {
			t.Errorf("the scrape lacks %s", want)
		}
	}
	if a, b := series(before), series(after); a != b {
		t.Errorf("series came into being with their first event:\n%s\n%s", a, b)
	}
}

// series is the names and labels of a scrape, without those of the scrape
// itself.
func series(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(line, " "); ok && strings.HasPrefix(line, "peanuts_relay_") {
			fmt.Fprintln(&b, name)
		}
	}
	return b.String()
}

// parseMetrics is a scrape by series.
func parseMetrics(t *testing.T, w *world) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(w.request("GET", "/metrics", "").Body.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			t.Fatal(err)
		}
		all[line[:at]] = v
	}
	return all
}

// A scrape must not cost more when the log is long.
func TestAScrapeListsNothing(t *testing.T) {
	w, _ := storyWorld(t)
	w.start(t)
	w.store.lists = 0
	scrape(t, w)
	if w.store.lists != 0 {
		t.Errorf("a scrape listed deliveries %d times", w.store.lists)
	}
}

// Whatever a document or a metric shows of a webhook is what the catalog says,
// and attempts hold no more than their records: the values behind references
// are not within the API's reach, so that a planted one can come only from what
// it is given.
func TestNothingIsShownThatTheCatalogMasks(t *testing.T) {
	w, ids := storyWorld(t)
	w.start(t)
	var all bytes.Buffer
	for _, target := range []string{"/v1/webhooks", "/v1/helpers", "/v1/status", "/metrics", "/v1/deliveries/" + ids["success"]} {
		all.Write(w.request("GET", target, "").Body.Bytes())
	}
	for _, want := range []string{"${env:BACKEND_URL}", "Bearer ${file:/etc/token}"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("the reference %s is not shown", want)
		}
	}
}

func TestReadySaysWhyNot(t *testing.T) {
	w := newWorld(t)
	w.Ready = func() error { return errors.New("sockets are not open yet") }
	w.start(t)
	if h, err := w.client.Ready(t.Context()); err != nil || h.OK || len(h.Reasons) != 1 || h.Reasons[0] != "sockets are not open yet" {
		t.Errorf("%+v, %v", h, err)
	}
}
