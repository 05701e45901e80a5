package api

import (
	"context"
	"errors"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func TestWhoAsksIsToldByTheSocket(t *testing.T) {
	w := newWorld(t).start(t)
	if _, err := w.client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.ChangeWebhook(t.Context(), "expenses.backend", rest.WebhookChange{Active: new(false)}); err != nil {
		t.Fatal(err)
	}
	me := " by " + strconv.Itoa(os.Getuid())
	if want := []string{"reload" + me, "change expenses.backend" + me}; !slices.Equal(w.control.calls, want) {
		t.Errorf("asked %q, want %q", w.control.calls, want)
	}
	// Where there is no socket nobody is known.
	w.request("POST", "/v1/reload", "")
	if last := w.control.calls[len(w.control.calls)-1]; last != "reload by nobody" {
		t.Errorf("asked %q", last)
	}
}

func TestARejectedReloadIsAWholeResult(t *testing.T) {
	w := newWorld(t).start(t)
	findings, report := rejection()
	w.control.reload = rest.ReloadResult{Result: rest.ReloadRejected, Generation: 4, Digest: "sha256:04", FileDigest: "sha256:99", Findings: findings, Report: report}
	got, err := w.client.Reload(t.Context())
	want := w.control.reload
	want.Changes, want.RestartRequired = []rest.ConfigChange{}, []string{}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if rec := w.request("POST", "/v1/reload", ""); rec.Code != http.StatusUnprocessableEntity {
		t.Errorf("answered %d", rec.Code)
	}
}

func TestRefusalsAreAnsweredAsTheySay(t *testing.T) {
	w := newWorld(t).start(t)
	findings, _ := rejection()
	refusal := &Refusal{Status: 422, Code: rest.CodeInvalidConfig, Field: "url", Message: "url: unsupported scheme", Findings: findings}
	w.control.err = errors.Join(errors.New("edit"), refusal)
	for name, call := range map[string]func() error{
		"reload": func() error { _, err := w.client.Reload(t.Context()); return err },
		"plan":   func() error { _, err := w.client.Plan(t.Context(), rest.PlanRequest{}); return err },
		"config": func() error { _, err := w.client.RunningConfig(t.Context()); return err },
		"files":  func() error { _, err := w.client.ConfigFiles(t.Context(), 3); return err },
		"create": func() error { _, err := w.client.CreateWebhook(t.Context(), rest.WebhookChange{}); return err },
		"change": func() error {
			_, err := w.client.ChangeWebhook(t.Context(), "expenses.backend", rest.WebhookChange{Active: new(true)})
			return err
		},
		"delete": func() error { _, err := w.client.DeleteWebhook(t.Context(), "expenses.backend"); return err },
		"drop":   func() error { _, err := w.client.DropDeliveries(t.Context(), "expenses.old"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			e := refused(t, call(), 422, rest.CodeInvalidConfig)
			if e.Field != "url" || e.Message != "url: unsupported scheme" || !reflect.DeepEqual(e.Findings, findings) {
				t.Errorf("got %+v", e)
			}
		})
	}
	w.control.err = errors.New("broken")
	_, err := w.client.Reload(t.Context())
	refused(t, err, 500, rest.CodeInternal)
}

func TestAPlanCarriesItsFilesWhole(t *testing.T) {
	w := newWorld(t).start(t)
	// More than the limit of other bodies.
	candidate := rest.PlanRequest{Replace: true, Files: []rest.PlanFile{
		{Role: "main", Name: "./config.yaml", Content: "# " + strings.Repeat("é<>\n", maxBody/4) + "\n"},
		{Role: "50-crm.yaml", Name: "./conf.d/50-crm.yaml", Content: "helpers: {}\n"}}}
	got, err := w.client.Plan(t.Context(), candidate)
	if err != nil || !got.Valid || len(got.Webhooks) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !reflect.DeepEqual(w.control.planned, []rest.PlanRequest{candidate}) {
		t.Error("the candidate changed on its way")
	}
	if _, err := w.client.Plan(t.Context(), rest.PlanRequest{}); err != nil || len(w.control.planned[1].Files) != 0 {
		t.Errorf("the daemon's own files: %+v, %v", w.control.planned[1], err)
	}
}

func TestACandidateIsBounded(t *testing.T) {
	w := newWorld(t)
	rec := w.request("POST", "/v1/plan", `{"files":[{"role":"main","content":"`+strings.Repeat("x", maxPlanBody)+`"}]}`)
	if rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("answered %d", rec.Code)
	}
	rec = w.request("POST", "/v1/plan", `{"files":[`+strings.TrimSuffix(strings.Repeat(`{},`, maxPlanFiles+1), ",")+`]}`)
	if rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), "at most 10000 files") {
		t.Errorf("answered %d %s", rec.Code, rec.Body)
	}
}

func TestOnlySoManyPlansAtOnce(t *testing.T) {
	w := newWorld(t)
	w.control.wait, w.control.entered = make(chan struct{}), make(chan struct{}, maxPlans)
	w.start(t)
	done := make(chan error, maxPlans)
	for range maxPlans {
		go func() {
			_, err := w.client.Plan(context.Background(), rest.PlanRequest{})
			done <- err
		}()
	}
	for range maxPlans {
		<-w.control.entered
	}
	_, err := w.client.Plan(t.Context(), rest.PlanRequest{})
	refused(t, err, http.StatusTooManyRequests, rest.CodeTooMany)
	close(w.control.wait)
	for range maxPlans {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAClientThatLeavesEndsTheWaitForAReload(t *testing.T) {
	w := newWorld(t)
	w.control.wait = make(chan struct{}) // never closed
	w.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := w.client.Reload(ctx)
		done <- err
	}()
	waitFor(t, func() bool {
		w.control.mu.Lock()
		defer w.control.mu.Unlock()
		return len(w.control.calls) == 1
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAChangeHasWhatWasGiven(t *testing.T) {
	w := newWorld(t)
	rec := w.request("PATCH", "/v1/webhooks/expenses.backend", `{"events":"created","headers":{"X-Env":null,"X-Team":"é"},"concurrency":3,"active":false,
		"settings":{"rows":9007199254740993,"share":0.5,"list":[1,{"n":12345678901234567890}],"on":true}}`)
	if rec.Code != http.StatusOK {
		t.Fatalf("answered %d %s", rec.Code, rec.Body)
	}
	want := rest.WebhookChange{Events: &[]string{"created"}, Headers: map[string]*string{"X-Env": nil, "X-Team": new("é")}, Concurrency: new(3), Active: new(false),
		Settings: map[string]any{"rows": int64(9007199254740993), "share": 0.5, "on": true, "list": []any{int64(1), map[string]any{"n": 12345678901234567890.0}}}}
	if got := w.control.change[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	rec = w.request("POST", "/v1/webhooks", `{"url":"https://api.example.com/hook"}`)
	if rec.Code != http.StatusCreated || rec.Header().Get("Location") != "/v1/webhooks/expenses.wh_1" {
		t.Errorf("answered %d, Location %q", rec.Code, rec.Header().Get("Location"))
	}
	if got := w.control.change[1]; !reflect.DeepEqual(got, rest.WebhookChange{URL: new("https://api.example.com/hook")}) {
		t.Errorf("got %+v", got)
	}
}

func TestARemovedWebhookCanOnlyBeDropped(t *testing.T) {
	w := newWorld(t)
	w.dispatcher.states[old] = LaneState{Hold: "removed", HoldUntil: epoch.AddDate(0, 0, 7)}
	w.store.lanes[old] = queue.LaneStats{Webhook: "expenses.old", Ready: 12}
	w.start(t)
	_, err := w.client.ChangeWebhook(t.Context(), "expenses.old", rest.WebhookChange{Active: new(true)})
	refused(t, err, 409, rest.CodeRemoved)
	_, err = w.client.DeleteWebhook(t.Context(), "expenses.old")
	refused(t, err, 409, rest.CodeRemoved)
	got, err := w.client.Webhook(t.Context(), "expenses.old")
	if err != nil || !got.HeldUntil.Equal(epoch.AddDate(0, 0, 7)) || !strings.Contains(got.HeldText, "2025-01-22T14:32:00.000Z fail then") {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := w.client.DropDeliveries(t.Context(), "expenses.old"); err != nil || got != (rest.Dropped{Webhook: "expenses.old", Dropped: 12}) {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = w.client.DropDeliveries(t.Context(), "expenses.none")
	refused(t, err, 404, rest.CodeNotFound)
}

func TestADeletedWebhookIsAnsweredAsItWas(t *testing.T) {
	w := newWorld(t).start(t)
	got, err := w.client.DeleteWebhook(t.Context(), "expenses.backend")
	if err != nil || got.ID != "expenses.backend" || got.URL != "${env:BACKEND_URL}" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAConfigurationThatIsNotTheFilesIsAMetric(t *testing.T) {
	for state, want := range map[string]string{rest.ConfigRejected: "0", rest.ConfigLastKnownGood: "0", rest.ConfigCurrent: "1"} {
		w := newWorld(t)
		inner := w.Status
		w.Status = func() rest.Status {
			s := inner()
			s.Config.State = state
			return s
		}
		w.start(t)
		if !strings.Contains(scrape(t, w), "peanuts_relay_config_last_reload_successful "+want+"\n") {
			t.Errorf("%s: the metric is not %s", state, want)
		}
	}
}

func TestReloadsAreCounted(t *testing.T) {
	w := newWorld(t)
	inner := w.Status
	w.Status = func() rest.Status {
		s := inner()
		s.Config.RestartRequired = []string{"listen.events", "queue.dir"}
		s.Config.Reloads = []rest.ReloadCount{{Trigger: rest.TriggerWatch, Result: rest.ReloadApplied, Count: 5}, {Trigger: rest.TriggerSignal, Result: rest.ReloadRejected, Count: 1}}
		return s
	}
	w.start(t)
	text := scrape(t, w)
	for _, want := range []string{
		`peanuts_relay_config_reloads_total{result="applied",trigger="watch"} 5`, `peanuts_relay_config_reloads_total{result="rejected",trigger="signal"} 1`,
		`peanuts_relay_config_reloads_total{result="unchanged",trigger="webhooks"} 0`, `peanuts_relay_config_restart_required{key="listen.events"} 1`,
		`peanuts_relay_config_restart_required{key="queue.dir"} 1`, `peanuts_relay_config_generation 1`,
		`peanuts_relay_config_last_reload_success_timestamp_seconds 1.73694792e+09`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the scrape lacks %s", want)
		}
	}
}

func TestAConfiguredWebhookIsNotShownAsRemovedWhileTheDaemonStarts(t *testing.T) {
	w := newWorld(t)
	w.dispatcher.states[backend] = LaneState{Hold: delivery.HoldRemoved, HoldUntil: epoch}
	w.start(t)
	got, err := w.client.Webhook(t.Context(), "expenses.backend")
	if err != nil || got.State != rest.WebhookActive || got.HeldReason != "" || got.HeldText != "" || !got.HeldUntil.IsZero() {
		t.Errorf("got %+v, %v", got, err)
	}
}
