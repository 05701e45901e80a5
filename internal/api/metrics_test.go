package api

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

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
	w.start(t)
	before := scrape(t, w)
	w.Feed.Publish([]queue.Change{
		attempted(backend, 1, delivery.Success, 1),
		{Lane: backend, Seq: 2, State: delivery.Pending, Code: delivery.CodeTimeout, Kind: rest.KindAttempt},
		{Lane: backend, Seq: 2, State: delivery.Failed, Code: "made_up_by_a_sink", Kind: rest.KindAttempt},
		{Lane: backend, Seq: 3, State: delivery.Failed, Code: delivery.CodeDropped, Kind: rest.KindDropped},
		accepted(backend, 4),
	})
	after := scrape(t, w)
	for _, want := range []string{
		`peanuts_relay_build_info{commit="abc",go_version="go1.26",version="1.2.3"} 1`,
		`peanuts_relay_events_accepted_total 7`, `peanuts_relay_events_duplicate_total 2`, `peanuts_relay_unstable_json_total 1`,
		`peanuts_relay_events_rejected_total{reason="invalid"} 3`, `peanuts_relay_events_rejected_total{reason="too_large"} 0`,
		`peanuts_relay_attempts_total{code="none",webhook="expenses.backend"} 1`,
		`peanuts_relay_attempts_total{code="timeout",webhook="expenses.backend"} 1`,
		`peanuts_relay_attempts_total{code="other",webhook="expenses.backend"} 1`,
		`peanuts_relay_attempts_total{code="dns",webhook="crm.main"} 0`,
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
		`peanuts_relay_webhook_held{reason="disabled",webhook="expenses.backend"} 0`,
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
