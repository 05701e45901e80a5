package web

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// demo is an API with documents of its own: a server on which one webhook fares well,
// one badly, one is disabled, and one has a plugin that does not start.
type demo struct {
	mu      sync.Mutex // guards the following
	answers map[string]any
	changed []string // requests that were no GET

	now time.Time
}

const (
	demoFailed   = "del_28t5cy4g00000010000000000003"
	demoEvent    = "evt_28t5cy4g0000000000003"
	demoWebhook  = "expenses.backend"
	demoDisabled = "expenses.alerts"
)

func (d *demo) at(before time.Duration) rest.Time {
	return rest.At(d.now.Add(-before).UTC().Truncate(time.Millisecond))
}

func newDemo() *demo {
	d := &demo{now: time.Now(), answers: map[string]any{}}
	hooks := d.hooks()
	d.answers["GET /v1/helpers"] = rest.Helpers{Helpers: []rest.Helper{
		{ID: "expenses", Name: "Daily Expenses", Command: "/expenses", Webhooks: []string{demoWebhook, "expenses.sheet", demoDisabled}, Events: events()},
		{ID: "crm", Name: "Customers", Webhooks: []string{"crm.zapier", "crm.warehouse"}, Events: events()},
	}}
	d.answers["GET /v1/webhooks"] = rest.Webhooks{Webhooks: hooks}
	for i, w := range hooks {
		d.answers["GET /v1/webhooks/"+w.ID] = w
		d.answers["GET /v1/webhooks/"+w.ID+"/minutes"] = d.minutes(w.ID, i)
		d.answers["GET /v1/webhooks/"+w.ID+"/deliveries"] = rest.DeliveryPage{Deliveries: d.rows(w.ID), NextCursor: "more"}
	}
	d.answers["GET /v1/deliveries"] = rest.DeliveryPage{Deliveries: append(d.rows(demoWebhook), d.rows("crm.warehouse")...)}
	d.answers["GET /v1/deliveries/"+demoFailed] = d.detail()
	d.answers["GET /v1/events/"+demoEvent] = rest.Events{Events: []rest.Event{{ID: demoEvent, Helper: "expenses", Event: "entry.created", EntryID: "lunch-42",
		Timestamp: d.at(10 * time.Minute), AcceptedAt: d.at(10 * time.Minute), Payloads: []rest.Payload{{Format: "peanuts", Body: demoPayload}},
		Deliveries: d.rows(demoWebhook)[2:3], Skipped: []rest.Skip{{Webhook: demoDisabled, Reason: "disabled", Explanation: "webhook expenses.alerts is disabled (enabled: false)"}},
		Explanation: []string{"The event made 1 delivery: 1 failed.", "Skipped: webhook expenses.alerts is disabled (enabled: false)."}}}}
	d.answers["GET /v1/replays"] = rest.Replays{Replays: []rest.Replay{
		{ID: "rep_1", Webhook: demoWebhook, Status: []string{"failed"}, Matched: 37, Requeued: 37, Done: true, StartedAt: d.at(26 * time.Hour)},
		{ID: "rep_2", Webhook: "crm.warehouse", Status: []string{"failed"}, Event: "entry.created", Since: d.at(7 * 24 * time.Hour), Rate: 10, Matched: 1204, Requeued: 310, Expired: 3, StartedAt: d.at(time.Minute)}}}
	d.answers["GET /v1/status"] = d.status(hooks)
	d.answers["GET /v1/config/history"] = d.history()
	d.answers["POST /v1/plan"] = rest.PlanResult{Findings: []rest.Finding{{Severity: "error", Code: "unknown_key", File: "/etc/peanuts-relay/conf.d/50-crm.yaml", Line: 14, Column: 7,
		Path: "/helpers/crm/webhooks/warehouse/secrt", Message: `unknown key "secrt"`, Suggestion: `did you mean "secret"?`}},
		Report: "error: unknown key \"secrt\"\n  --> /etc/peanuts-relay/conf.d/50-crm.yaml:14:7\n   |\n14 |       secrt: ********\n   |       ^^^^^ did you mean \"secret\"?\n"}
	attempt := d.detail().Log[1]
	d.answers["POST /v1/webhooks/"+demoWebhook+"/test"] = rest.TestResult{Webhook: demoWebhook, EventID: "evt_test_1", DeliveryID: "del_test_1", Event: "entry.created", EntryID: "test_1",
		Payload: demoPayload, Attempt: attempt, Curl: "curl -X POST \"$URL\"\n"}
	d.answers["POST /v1/webhooks/"+demoWebhook+"/replay"] = rest.Replay{Webhook: demoWebhook, Status: []string{"failed"}, Since: d.at(7 * 24 * time.Hour), Event: "entry.created", Rate: 5, DryRun: true, Matched: 37}
	d.answers["PATCH /v1/webhooks/"+demoWebhook] = rest.WebhookChanged{ID: demoWebhook, File: "/etc/peanuts-relay/conf.d/90-api.yaml"}
	d.answers["POST /v1/deliveries/"+demoFailed+"/retry"] = d.rows(demoWebhook)[2]
	d.answers["DELETE /v1/deliveries/"+demoFailed] = d.rows(demoWebhook)[2]
	d.answers["DELETE /v1/replays/rep_2"] = rest.Replay{ID: "rep_2"}
	d.answers["POST /v1/reload"] = rest.ReloadResult{Result: rest.ReloadApplied, Generation: 8}
	return d
}

const demoPayload = `{"event":"entry.created","timestamp":"2025-01-15T14:32:00.000Z","helper":{"id":"expenses","name":"Daily Expenses","command":"/expenses"},"entry":{"id":"lunch-42","data":{"amount":42.5,"category":"Food & Dining","date":"2025-01-15"},"created_at":"2025-01-15T14:32:00.000Z"},"user":{"id":"user-456"}}`

func events() []string { return []string{"entry.created", "entry.updated", "entry.deleted"} }

func (d *demo) hooks() []rest.Webhook {
	retry := rest.Retry{Schedule: []string{"1m0s", "5m0s", "30m0s"}, Timeout: "30s"}
	signed := []rest.Signature{{Scheme: "peanuts", Headers: []string{"X-Peanuts-Signature"}}}
	last := func(webhook string, i int) *rest.Delivery { return new(d.rows(webhook)[i]) }
	return []rest.Webhook{
		{ID: demoWebhook, Helper: "expenses", Sink: "http", URL: "https://api.example.com/********", Events: events(), Enabled: true, Format: "peanuts", Signatures: signed, Retry: retry,
			Headers: []rest.Header{{Name: "Authorization", Value: "Bearer ${file:/etc/peanuts-relay/backend.token}"}}, Concurrency: 8, State: rest.WebhookActive,
			Counts: rest.Counts{Pending: 3, InFlight: 1, Success: 18243, Failed: 12}, NextAttemptAt: d.at(-4 * time.Minute), Last: last(demoWebhook, 0)},
		{ID: "expenses.sheet", Helper: "expenses", Sink: "sheets", Events: events(), Enabled: true, Format: "peanuts", Retry: retry, Concurrency: 1, State: rest.WebhookHeld,
			HeldReason: "plugin_down", HeldText: "its plugin is not ready: exited with status 2; its deliveries go on when the plugin is ready",
			Counts: rest.Counts{Pending: 214, Held: 214, Success: 18011}, Last: last("expenses.sheet", 1)},
		{ID: demoDisabled, Helper: "expenses", Sink: "slack", Events: events()[2:], Format: "peanuts", Retry: retry, Concurrency: 1, State: rest.WebhookHeld, HeldReason: "disabled",
			HeldText: "the webhook is disabled (enabled: false); its deliveries go on when it is enabled"},
		{ID: "crm.zapier", Helper: "crm", Sink: "zapier", Events: events(), Enabled: true, Format: "peanuts", Retry: retry, Concurrency: 4, State: rest.WebhookActive,
			Counts: rest.Counts{Success: 903}, Last: last("crm.zapier", 1)},
		{ID: "crm.warehouse", Helper: "crm", Sink: "http", URL: "https://warehouse.example.com/in", Events: events(), Enabled: true, Format: "event", Signatures: signed, Retry: retry, Concurrency: 8,
			State: rest.WebhookActive, Counts: rest.Counts{Pending: 1, Success: 120455, Failed: 1204}, Last: last("crm.warehouse", 2)},
	}
}

func (d *demo) rows(webhook string) []rest.Delivery {
	row := func(n int, status string, before time.Duration) rest.Delivery {
		return rest.Delivery{ID: fmt.Sprintf("del_28t5cy4g0000001000000000%04d", n), Webhook: webhook, EventID: demoEvent, Event: "entry.created", EntryID: fmt.Sprintf("lunch-%d", 39+n),
			Status: status, Attempts: 1, CreatedAt: d.at(before)}
	}
	rows := []rest.Delivery{row(1, rest.StatusPending, 2*time.Minute), row(2, rest.StatusSuccess, 4*time.Minute), row(3, rest.StatusFailed, 10*time.Minute),
		row(4, rest.StatusInFlight, 11*time.Minute), row(5, rest.StatusHeld, 40*time.Minute), row(6, rest.StatusSuccess, 3*time.Hour)}
	rows[0].StatusCode, rows[0].Code, rows[0].Error, rows[0].NextAttemptAt = 503, "status", "HTTP 503", d.at(-4*time.Minute)
	rows[1].StatusCode, rows[5].StatusCode = 200, 204
	rows[2].StatusCode, rows[2].Code, rows[2].Error, rows[2].Attempts, rows[2].FailedAt = 422, "status", "HTTP 422", 2, d.at(9*time.Minute)
	rows[2].ID = demoFailed
	rows[4].HeldReason, rows[4].Attempts = "disabled", 0
	return rows
}

func (d *demo) detail() rest.DeliveryDetail {
	first := rest.Attempt{Number: 1, StartedAt: d.at(10 * time.Minute), Duration: rest.Millis(5012 * time.Millisecond),
		Phases: rest.Phases{DNS: rest.Millis(3 * time.Millisecond), Connect: rest.Millis(21 * time.Millisecond), TLS: rest.Millis(44 * time.Millisecond), FirstByte: rest.Millis(4900 * time.Millisecond)},
		Remote: "203.0.113.7:443", Request: &rest.Request{Method: "POST", URL: "https://api.example.com/********", Headers: []rest.Header{{Name: "Content-Type", Value: "application/json"},
			{Name: "User-Agent", Value: "Peanuts-Webhook/1.0"}, {Name: "X-Peanuts-Signature", Value: "sha256=5d41402abc4b2a76b9719d911017c592ae2f0b6e1d5b1d2a9a4c5e1a3f2b7c8d"},
			{Name: "Authorization", Value: "Bearer ${file:/etc/peanuts-relay/backend.token}"}}},
		Response: &rest.Response{Status: 503, Headers: []rest.Header{{Name: "Content-Type", Value: "text/plain"}, {Name: "Retry-After", Value: "60"}}, Body: "upstream is restarting", BodyEncoding: "utf-8"},
		Outcome:  "retry", Code: "status", Error: "HTTP 503", Rule: "server_error", RuleText: "HTTP 503: 5xx is retried", State: "pending", NextAttemptAt: d.at(9 * time.Minute)}
	second := first
	second.Number, second.StartedAt, second.Duration, second.Reused, second.NextAttemptAt = 2, d.at(9*time.Minute), rest.Millis(83*time.Millisecond), true, rest.Time{}
	second.Phases = rest.Phases{FirstByte: rest.Millis(80 * time.Millisecond)}
	second.Response = &rest.Response{Status: 422, Headers: []rest.Header{{Name: "Content-Type", Value: "application/json"}}, Body: `{"error":"category \"Food & Dining\" is unknown"}`, BodyEncoding: "utf-8", BodyTruncated: true}
	second.Outcome, second.Error, second.Rule, second.RuleText, second.State = "rejected", "HTTP 422", "client_error", "HTTP 422: 4xx is final; add 422 to retry.also_on to retry it", "failed"
	return rest.DeliveryDetail{Delivery: d.rows(demoWebhook)[2], Format: "peanuts", Payload: demoPayload, Log: []rest.Attempt{first, second}, Curl: "curl -X POST \"$EXPENSES_BACKEND_URL\" --data-binary @-\n",
		Explanation: []string{"Given up after 2 attempts: HTTP 422: 4xx is final; add 422 to retry.also_on to retry it.",
			"It is kept with its payload: POST /v1/deliveries/" + demoFailed + "/retry (peanuts-relay retry " + demoFailed + ") sends it again."}}
}

// minutes are a working hour with a bad quarter.
func (d *demo) minutes(webhook string, i int) rest.Minutes {
	out := rest.Minutes{Webhook: webhook}
	for n := range 60 {
		m := rest.Minute{At: rest.At(d.now.UTC().Truncate(time.Minute).Add(time.Duration(n-59) * time.Minute))}
		if i != 2 { // the disabled one has none
			busy := (n*7+i*5)%11 + (n*3+i)%5 + 3
			m.Delivered = uint32(busy)
			m.Mean, m.Max = rest.Millis(time.Duration(60+busy*4)*time.Millisecond), rest.Millis(time.Duration(120+busy*19)*time.Millisecond)
			if (i == 0 || i == 4) && n > 34 && n < 48 {
				m.Delivered, m.Retried = uint32(busy/3), uint32(busy/2)
				m.Mean, m.Max = m.Mean*4, m.Max*3
				if n%4 == 0 {
					m.Failed = 2
				}
			}
			if i == 1 && n > 40 {
				m = rest.Minute{At: m.At}
			}
		}
		out.Minutes = append(out.Minutes, m)
	}
	return out
}

func (d *demo) status(hooks []rest.Webhook) rest.Status {
	s := rest.Status{Version: "1.2.3", Commit: "abc1234", GoVersion: "go1.26", PID: 4242, StartedAt: d.at(50 * time.Hour), State: rest.StateDegraded,
		Reasons: []string{"webhook expenses.sheet is held: its plugin is not ready: exited with status 2; its deliveries go on when the plugin is ready"},
		Config: rest.Config{Path: "/etc/peanuts-relay/config.yaml", Files: []string{"/etc/peanuts-relay/config.yaml", "/etc/peanuts-relay/conf.d/50-crm.yaml"}, Generation: 7,
			Digest: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", FileDigest: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
			LoadedAt: d.at(5 * time.Hour), State: rest.ConfigCurrent, Watching: rest.WatchingEvents},
		Listen: rest.Listen{Events: "/run/peanuts-relay/events.sock", Admin: "/run/peanuts-relay/admin.sock", Web: "127.0.0.1:8465"},
		Queue:  rest.Queue{Dir: "/var/lib/peanuts-relay", State: "ok", MaxBytes: 10 << 30, DiskFree: 212 << 30, OldestPendingAt: d.at(52 * time.Minute)},
		Plugins: []rest.Plugin{{Sink: "zapier", Version: "1.2.3", State: rest.PluginReady, PID: 4250, Since: d.at(50 * time.Hour), Healthy: true, Webhooks: []string{"crm.zapier"}},
			{Sink: "sheets", Version: "1.2.3", State: rest.PluginBackoff, Since: d.at(19 * time.Minute), NextStartAt: d.at(-20 * time.Second), Restarts: 4, Crashes: 4, LastError: "exited with status 2",
				CrashReport: "panic: runtime error: invalid memory address or nil pointer dereference\n\ngoroutine 41 [running]:\nmain.(*sink).append(...)\n", Webhooks: []string{"expenses.sheet"}}}}
	for _, w := range hooks {
		s.Queue.Counts.Pending += w.Counts.Pending
		s.Queue.Counts.InFlight += w.Counts.InFlight
		s.Queue.Counts.Held += w.Counts.Held
		s.Queue.Counts.Success += w.Counts.Success
		s.Queue.Counts.Failed += w.Counts.Failed
	}
	s.Queue.Counts.LiveBytes = 3 << 20
	return s
}

// broken makes the files refused.
func (d *demo) broken() {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.answers["GET /v1/status"].(rest.Status)
	s.Config.State, s.Config.FileDigest = rest.ConfigRejected, "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
	s.Config.LastReload = &rest.Reload{At: d.at(time.Minute), Trigger: rest.TriggerWatch, Result: rest.ReloadRejected, Errors: 1,
		Error: `/etc/peanuts-relay/conf.d/50-crm.yaml:14:7: unknown key "secrt": did you mean "secret"?`}
	s.Config.RestartRequired = []string{"listen.events_mode"}
	d.answers["GET /v1/status"] = s
}

func (d *demo) history() rest.ConfigHistory {
	return rest.ConfigHistory{Entries: []rest.ConfigEntry{
		{Generation: 7, At: d.at(time.Minute), Trigger: rest.TriggerWatch, Result: rest.ReloadRejected, Errors: 1, Error: `/etc/peanuts-relay/conf.d/50-crm.yaml:14:7: unknown key "secrt"`},
		{Generation: 7, At: d.at(5 * time.Hour), Trigger: rest.TriggerReload, UID: new(uint32(1000)), Result: rest.ReloadApplied, Running: true, Changes: []rest.ConfigChange{
			{Object: "webhook", ID: demoWebhook, Change: "changed", Fields: []string{"url", "headers.Authorization"}}, {Object: "webhook", ID: "crm.warehouse", Change: "added"}}},
		{Generation: 6, At: d.at(50 * time.Hour), Trigger: rest.TriggerStart, Result: rest.ReloadApplied}}}
}

// ServeHTTP implements [http.Handler].
func (d *demo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked := r.Method + " " + r.URL.Path
	if asked == "GET /v1/deliveries/stream" {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, ": connected\n\n")
		if http.NewResponseController(w).Flush() == nil {
			<-r.Context().Done()
		}
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Method != "GET" && asked != "POST /v1/plan" {
		d.changed = append(d.changed, asked)
	}
	answer, ok := d.answers[asked]
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		answer = rest.Error{Error: rest.ErrorBody{Code: rest.CodeNotFound, Message: "there is no " + r.URL.Path}}
	}
	_ = json.NewEncoder(w).Encode(answer) // the client has gone when it fails
}

// views are all pages that a GET shows.
func views() map[string]string {
	return map[string]string{"overview": "/", "deliveries": "/deliveries", "webhook": "/webhooks/" + demoWebhook, "delivery": "/deliveries/" + demoFailed,
		"event": "/events/" + demoEvent, "replays": "/replays", "configuration": "/configuration"}
}

// serve runs a server over an API until the test ends, and returns its origin.
func serve(t *testing.T, api http.Handler, adjust ...func(*Server)) (s *Server, origin string) {
	t.Helper()
	s = New(Options{API: api, Token: secret.New(token), Hosts: []string{"relay.example.com"}})
	for _, f := range adjust {
		f(s)
	}
	s.srv.Handler = s.Handler()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(t.Context()); err != nil && !strings.Contains(err.Error(), "context canceled") {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, "http://" + l.Addr().String()
}

// visitor is somebody who has logged in, without a browser.
type visitor struct {
	s      *Server
	cookie string
	form   string
}

func newVisitor(s *Server) *visitor {
	id := s.sessions.begin()
	return &visitor{s, s.cookie + "=" + id, s.sessions.find(id, true).form}
}

func (v *visitor) get(target string) *httptest.ResponseRecorder {
	return ask(v.s.Handler(), "GET", target, "Cookie", v.cookie)
}

// post sends a form of the session; headers are more of them.
func (v *visitor) post(target, fields string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", target, strings.NewReader("form="+v.form+"&"+fields))
	r.Host = "127.0.0.1:8465"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Cookie", v.cookie)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	v.s.Handler().ServeHTTP(w, r)
	return w
}
