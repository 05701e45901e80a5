package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// adminStub answers routes with documents and remembers what it was asked.
type adminStub struct {
	answers map[string]any // by "METHOD /path"; a func() any is called, an int is a status

	mu    sync.Mutex
	asked []string // "METHOD /path?query body"
}

func (s *adminStub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.asked = append(s.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
	s.mu.Unlock()
	answer, known := s.answers[r.Method+" "+r.URL.Path]
	if f, ok := answer.(func() any); ok {
		answer = f()
	}
	w.Header().Set("Content-Type", "application/json")
	switch v := answer.(type) {
	case refusedWith:
		w.WriteHeader(v.status)
		answer = rest.Error{Error: rest.ErrorBody{Code: v.code, Message: v.message, Findings: v.findings}}
	case rejectedReload:
		w.WriteHeader(http.StatusUnprocessableEntity)
	case stream:
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, string(v))
		return
	}
	if !known {
		w.WriteHeader(http.StatusNotFound)
		answer = rest.Error{Error: rest.ErrorBody{Code: rest.CodeNotFound, Message: "nothing at " + r.URL.Path}}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

type refusedWith struct {
	status        int
	code, message string
	findings      []rest.Finding
}

// rejectedReload is a result that is answered as a refusal.
type rejectedReload rest.ReloadResult

// stream is the text of server-sent events.
type stream string

func (s *adminStub) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// start listens until the test ends and returns the socket.
func (s *adminStub) start(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(shortTempDir(t), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return socket
}

// testNow is 90 s after the events of the documents below.
var testNow = func() time.Time { return moment(90).Time }

// moment is so many seconds after an instant that the documents share.
func moment(seconds int) rest.Time {
	return rest.At(time.Date(2025, 1, 15, 14, 30, seconds, 0, time.UTC))
}

func rows() []rest.Delivery {
	return []rest.Delivery{
		{ID: "del_c", Webhook: "expenses.backend", EventID: "evt_c", Event: "entry.created", EntryID: "entry-3", Status: "pending", StatusCode: 503,
			Attempts: 2, CreatedAt: moment(2), NextAttemptAt: moment(90 + 252), Code: "status", Error: "503 Service Unavailable"},
		{ID: "del_b", Webhook: "expenses.alerts", EventID: "evt_b", Event: "entry.updated", EntryID: "entry-2", Status: "held", HeldReason: "disabled", CreatedAt: moment(1)},
		{ID: "del_a", Webhook: "expenses.backend", EventID: "evt_a", Event: "entry.created", EntryID: "entry-1", Status: "success", StatusCode: 200,
			Attempts: 1, CreatedAt: moment(0), DeliveredAt: moment(0), Error: "left over"},
	}
}

// ask runs one command against a stub and expects an exit status.
func ask(t *testing.T, stub *adminStub, width, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	args = append(args, "--admin", stub.start(t))
	code, stdout, stderr := runMain(t, Streams{OutTerm: Terminal{Width: width}, Now: testNow}, args...)
	if code != want {
		t.Fatalf("%s: exit status %d, want %d: %s%s", args[0], code, want, stdout, stderr)
	}
	return stdout, stderr
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

func TestDeliveriesAsATable(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"GET /v1/deliveries": rest.DeliveryPage{Deliveries: rows()}}}
	stdout, _ := ask(t, stub, 0, 0, "deliveries")
	expect(t, "deliveries", stdout, ""+
		"ACCEPTED             DELIVERY  WEBHOOK           EVENT          ENTRY    STATUS          CODE  TRIES  NEXT OR ERROR\n"+
		"2025-01-15 14:30:02  del_c     expenses.backend  entry.created  entry-3  pending          503      2  in 4m12s: 503 Service Unavailable\n"+
		"2025-01-15 14:30:01  del_b     expenses.alerts   entry.updated  entry-2  held: disabled     -      0\n"+
		"2025-01-15 14:30:00  del_a     expenses.backend  entry.created  entry-1  success          200      1\n")
}

func TestDeliveriesOnANarrowTerminal(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"GET /v1/deliveries": rest.DeliveryPage{Deliveries: rows()}}}
	stdout, _ := ask(t, stub, 110, 0, "deliveries")
	for line := range strings.Lines(stdout) {
		if w := textWidth(strings.TrimSuffix(line, "\n")); w > 110 {
			t.Errorf("%d columns: %s", w, line)
		}
	}
	for _, whole := range []string{"del_c", "  in 4m12s: 503 Service Unavailable\n"} {
		if !strings.Contains(stdout, whole) {
			t.Errorf("%q is missing from\n%s", whole, stdout)
		}
	}
}

func TestDeliveriesAreAskedForWithWhatTheFlagsSay(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"GET /v1/webhooks/expenses.backend/deliveries": rest.DeliveryPage{Deliveries: []rest.Delivery{}}}}
	_, stderr := ask(t, stub, 0, 0, "deliveries", "expenses.backend", "--status", "failed,success", "--since", "90s", "--until", "2025-01-15T14:31:00+01:00",
		"--event", "created", "--limit", "7")
	expect(t, "stderr", stderr, "no deliveries\n")
	want := []string{"GET /v1/webhooks/expenses.backend/deliveries?event=entry.created&limit=7&since=2025-01-15T14%3A30%3A00Z&status=failed%2Csuccess&until=2025-01-15T13%3A31%3A00Z"}
	if got := stub.requests(); !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

// paged answers one row a page.
func paged() *adminStub {
	left := rows()
	return &adminStub{answers: map[string]any{"GET /v1/deliveries": func() any {
		page := rest.DeliveryPage{Deliveries: left[:1], NextCursor: fmt.Sprint(len(left))}
		if left = left[1:]; len(left) == 0 {
			page.NextCursor = ""
		}
		return page
	}}}
}

func TestAListingGoesOnOverShortPages(t *testing.T) {
	stub := paged()
	stdout, stderr := ask(t, stub, 0, 0, "deliveries", "--limit", "2", "--json")
	var page rest.DeliveryPage
	if err := json.Unmarshal([]byte(stdout), &page); err != nil || len(page.Deliveries) != 2 || page.NextCursor != "2" {
		t.Errorf("%d rows, cursor %q, %v", len(page.Deliveries), page.NextCursor, err)
	}
	if got := stub.requests()[1]; got != "GET /v1/deliveries?cursor=3&limit=1" {
		t.Errorf("second request %q", got)
	}
	expect(t, "stderr", stderr, "")

	stdout, stderr = ask(t, paged(), 0, 0, "deliveries", "--limit", "2")
	if strings.Count(stdout, "\n") != 3 || stderr != "there are more: --limit or --all shows them\n" {
		t.Errorf("%s%s", stdout, stderr)
	}
	stdout, _ = ask(t, paged(), 0, 0, "deliveries", "--all", "--json")
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); len(lines) != 3 || !json.Valid([]byte(lines[2])) {
		t.Errorf("--all --json: %s", stdout)
	}
	stdout, _ = ask(t, paged(), 0, 0, "deliveries", "--all")
	for _, id := range []string{"del_a", "del_b", "del_c"} {
		if strings.Count(stdout, id) != 1 {
			t.Errorf("--all shows %s not once:\n%s", id, stdout)
		}
	}
}

func TestFollowPrintsChangesUntilTheDaemonStops(t *testing.T) {
	change, _ := json.Marshal(rest.Change{Kind: rest.KindAttempt, At: moment(5), Delivery: rows()[0]})
	text := stream(": hello\n\nevent: delivery\ndata: " + string(change) + "\n\nevent: missed\ndata: {\"missed\":3}\n\n")
	stub := &adminStub{answers: map[string]any{"GET /v1/deliveries/stream": text}}
	stdout, stderr := ask(t, stub, 0, ExitUnavailable, "deliveries", "expenses.backend", "--follow", "--status", "pending")
	expect(t, "stdout", stdout, "2025-01-15 14:30:05  attempt   del_c  expenses.backend  entry.created  entry-3  pending  503  2 tries  in 4m12s: 503 Service Unavailable\n")
	expect(t, "stderr", stderr, "warning: 3 changes were left out: this terminal is too slow\nerror: the daemon ended the stream\n")
	if got := stub.requests(); got[0] != "GET /v1/deliveries/stream?status=pending&webhook=expenses.backend" {
		t.Errorf("asked %q", got)
	}
	stdout, _ = ask(t, stub, 40, ExitUnavailable, "deliveries", "--follow")
	if textWidth(strings.TrimSuffix(stdout, "\n")) != 40 {
		t.Errorf("not cut to 40 columns: %q", stdout)
	}
	stdout, _ = ask(t, stub, 0, ExitUnavailable, "deliveries", "--follow", "--json")
	if !strings.HasPrefix(stdout, `{"kind":"attempt",`) || strings.Count(stdout, "\n") != 1 {
		t.Errorf("--json: %q", stdout)
	}
}

func attempts() []rest.Attempt {
	return []rest.Attempt{
		{Number: 1, StartedAt: moment(2), Duration: rest.Millis(12500 * time.Microsecond), Remote: "10.0.0.1:443", Outcome: "retry", Code: "status",
			Phases: rest.Phases{DNS: rest.Millis(time.Millisecond), FirstByte: rest.Millis(9 * time.Millisecond)}, Error: "503 Service Unavailable",
			Request:  &rest.Request{Method: "POST", URL: "https://api.example.com/********", Headers: []rest.Header{{Name: "X-Peanuts-Event", Value: "entry.created"}}},
			Response: &rest.Response{Status: 503, Headers: []rest.Header{{Name: "Retry-After", Value: "60"}}, Body: "busy\n\x1b[2Jtry later\n"},
			State:    "pending", RuleText: "5xx is retried", RetryAfter: rest.Millis(time.Minute), NextAttemptAt: moment(342)},
		{Number: 2, StartedAt: moment(62), Duration: rest.Millis(30 * time.Second), Outcome: "retry", Code: "timeout", Error: "no answer within 30s", Reused: true, Rule: "network_error_retried", State: "pending"},
	}
}

func TestARedirectIsShownWithWhereItPoints(t *testing.T) {
	d := rest.DeliveryDetail{Delivery: rows()[0], Log: []rest.Attempt{{Number: 1, StartedAt: moment(2), Outcome: "rejected", Code: "redirect",
		Response: &rest.Response{Status: 301, Headers: []rest.Header{{Name: "Server", Value: "x"}, {Name: "Location", Value: "https://api.example.com/final/"}}}}}}
	stub := &adminStub{answers: map[string]any{"GET /v1/deliveries/del_c": d}}
	stdout, _ := ask(t, stub, 0, 0, "delivery", "del_c")
	if !strings.Contains(stdout, "\n      < Location: https://api.example.com/final/\n") || strings.Contains(stdout, "Server") {
		t.Errorf("got\n%s", stdout)
	}
}

func TestWhatASinkSaysOfAnAttemptIsShown(t *testing.T) {
	said := rest.Attempt{Number: 1, StartedAt: moment(2), Outcome: "delivered", State: rest.StatusSuccess, Message: "row 7\x1b[2J was\nadded", RemoteURL: "https://sheet.example/7"}
	d := rest.DeliveryDetail{Delivery: rows()[0], Log: []rest.Attempt{said}}
	stub := &adminStub{answers: map[string]any{"GET /v1/deliveries/del_c": d,
		"POST /v1/webhooks/expenses.sheet/test": rest.TestResult{Webhook: "expenses.sheet", Delivered: true, Attempt: said}}}
	stdout, _ := ask(t, stub, 0, 0, "delivery", "del_c")
	if !strings.Contains(stdout, "\n      row 7\ufffd[2J was added\n      https://sheet.example/7\n") {
		t.Errorf("got\n%s", stdout)
	}
	stdout, _ = ask(t, stub, 0, 0, "test", "expenses.sheet")
	if !strings.Contains(stdout, "sink says  row 7\ufffd[2J was added\n") || !strings.Contains(stdout, "see        https://sheet.example/7\n") {
		t.Errorf("got\n%s", stdout)
	}
}

func TestADeliveryIsExplained(t *testing.T) {
	d := rest.DeliveryDetail{Delivery: rows()[0], Format: "peanuts", Payload: `{"event":"entry.created"}`, Log: attempts(),
		Curl: "curl -X POST \"$URL\" \\\n  --data-binary @-\n", Explanation: []string{"The receiver answered 503.", "The next attempt is at 14:35:42."}}
	stub := &adminStub{answers: map[string]any{"GET /v1/deliveries/del_c": d}}
	stdout, _ := ask(t, stub, 0, 0, "delivery", "del_c")
	expect(t, "delivery", stdout, `delivery      del_c
status        pending
webhook       expenses.backend
event         entry.created  evt_c
entry         entry-3
accepted      2025-01-15 14:30:02
next attempt  2025-01-15 14:35:42 (in 4m12s)

Why, and what comes next
  The receiver answered 503.
  The next attempt is at 14:35:42.

Attempts
  #1  2025-01-15 14:30:02  503  after 12.5 ms
      dns 1.00 ms, first byte 9.00 ms, to 10.0.0.1:443
      503 Service Unavailable
      | busy
      | `+"\ufffd"+`[2Jtry later
      → 5xx is retried; next attempt 2025-01-15 14:35:42; the receiver asked for 1m
  #2  2025-01-15 14:31:02  timeout  after 30.0 s
      connection reused
      no answer within 30s
      → network_error_retried

Payload
  {"event":"entry.created"}

The request, for a shell
curl -X POST "$URL" \
  --data-binary @-
`)
	stdout, _ = ask(t, stub, 0, 0, "delivery", "del_c", "--json")
	var again rest.DeliveryDetail
	if err := json.Unmarshal([]byte(stdout), &again); err != nil || again.Payload != d.Payload || len(again.Log) != 2 {
		t.Errorf("--json: %v: %s", err, stdout)
	}
}

func TestATestShowsRequestResponseAndTimings(t *testing.T) {
	result := rest.TestResult{Webhook: "expenses.backend", Payload: `{"a":1}`, Attempt: attempts()[0]}
	stub := &adminStub{answers: map[string]any{"POST /v1/webhooks/expenses.backend/test": result}}
	stdout, _ := ask(t, stub, 0, ExitFailure, "test", "expenses.backend", "--event", "deleted")
	expect(t, "test", stdout, `Request
> POST https://api.example.com/********
> X-Peanuts-Event: entry.created
>
> {"a":1}

Response
< 503
< Retry-After: 60
<
< busy
< `+"\ufffd"+`[2Jtry later

Timings
  dns         1.00 ms
  first byte  9.00 ms
  in all      12.5 ms
  to          10.0.0.1:443

not delivered: 503 Service Unavailable
`)
	if got := stub.requests()[0]; got != `POST /v1/webhooks/expenses.backend/test {"event":"entry.deleted"}` {
		t.Errorf("asked %q", got)
	}
	result.Delivered, result.Attempt.Error = true, ""
	stub.answers["POST /v1/webhooks/expenses.backend/test"] = result
	stdout, _ = ask(t, stub, 0, 0, "test", "expenses.backend")
	if !strings.HasSuffix(stdout, "\ndelivered: 5xx is retried\n") {
		t.Errorf("got %s", stdout)
	}
}

func TestAnEventIsExplained(t *testing.T) {
	e := rest.Event{ID: "evt_c", Helper: "expenses", Event: "entry.created", EntryID: "entry-3", Timestamp: moment(0), AcceptedAt: moment(2), Unstable: true,
		Deliveries: rows()[:1], Skipped: []rest.Skip{{Webhook: "expenses.alerts", Reason: "disabled", Explanation: "it was disabled when the event came"}},
		Payloads: []rest.Payload{{Format: "peanuts", Body: "{}"}}, Explanation: []string{"One webhook gets it."}}
	stub := &adminStub{answers: map[string]any{"GET /v1/events/evt_c": rest.Events{Events: []rest.Event{e}}}}
	stdout, _ := ask(t, stub, 0, 0, "event", "evt_c")
	for _, want := range []string{"event      evt_c\n", "note       unstable_json: ", "What became of it\n  One webhook gets it.\n", "del_c", "Payload, format peanuts\n  {}\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing from\n%s", want, stdout)
		}
	}
}

func TestRetryGoesOnAfterARefusal(t *testing.T) {
	stub := &adminStub{answers: map[string]any{
		"POST /v1/deliveries/del_a/retry": rows()[2],
		"POST /v1/deliveries/del_b/retry": refusedWith{409, rest.CodeInFlight, "delivery del_b is being attempted", nil},
		"DELETE /v1/deliveries/del_b":     rows()[1],
	}}
	stdout, stderr := ask(t, stub, 0, ExitTryAgain, "retry", "del_b", "del_a")
	expect(t, "stdout", stdout, "due now: del_a  expenses.backend  entry.created entry-1\n")
	expect(t, "stderr", stderr, "error: del_b: delivery del_b is being attempted\n")

	_, stderr = ask(t, stub, 0, ExitFailure, "retry", "del_b", "del_missing")
	if !strings.Contains(stderr, "error: del_missing: nothing at /v1/deliveries/del_missing/retry\n") {
		t.Errorf("stderr %s", stderr)
	}
	stdout, _ = ask(t, stub, 0, 0, "drop", "del_b", "--json")
	if !strings.Contains(stdout, `"id": "del_b"`) {
		t.Errorf("--json: %s", stdout)
	}
}

func TestReplaySaysWhatItDoes(t *testing.T) {
	started := rest.Replay{ID: "rep_1", Webhook: "expenses.backend", Status: []string{"failed"}, Matched: 1200, StartedAt: moment(0)}
	dry := rest.Replay{Webhook: "expenses.backend", Status: []string{"failed"}, Matched: 1, DryRun: true}
	stub := &adminStub{answers: map[string]any{"POST /v1/webhooks/expenses.backend/replay": dry}}
	stdout, _ := ask(t, stub, 0, 0, "replay", "expenses.backend", "--since", "90s", "--status", "failed,success", "--rate", "2.5", "--dry-run")
	expect(t, "dry run", stdout, "would replay of expenses.backend: 1 delivery\n")
	if got, want := stub.requests()[0], `POST /v1/webhooks/expenses.backend/replay {"since":"2025-01-15T14:30:00Z","status":"failed,success","rate":2.5,"dry_run":true}`; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
	stub.answers["POST /v1/webhooks/expenses.backend/replay"] = started
	stdout, _ = ask(t, stub, 0, 0, "replay", "expenses.backend")
	expect(t, "start", stdout, "started replay rep_1 of expenses.backend: 1,200 deliveries, 0 queued again\n")

	ended := started
	ended.Done, ended.Requeued, ended.Expired = true, 1198, 2
	stub.answers["GET /v1/replays"] = rest.Replays{Replays: []rest.Replay{ended}}
	stdout, _ = ask(t, stub, 0, 0, "replay", "expenses.backend", "--wait")
	expect(t, "wait", stdout, "done replay rep_1 of expenses.backend: 1,200 deliveries, 1,198 queued again, 2 left out: their payloads are no longer kept\n")
	stdout, _ = ask(t, stub, 0, 0, "replay", "--list")
	expect(t, "list", stdout, "REPLAY  WEBHOOK           STATUS  STARTED              QUEUED AGAIN     OF  LEFT OUT  STATE\n"+
		"rep_1   expenses.backend  failed  2025-01-15 14:30:00         1,198  1,200         2  done\n")
	stub.answers["DELETE /v1/replays/rep_1"] = ended
	stdout, _ = ask(t, stub, 0, 0, "replay", "--cancel", "rep_1")
	if !strings.HasPrefix(stdout, "cancelled replay rep_1") {
		t.Errorf("cancel: %s", stdout)
	}
	stub.answers["GET /v1/replays"] = rest.Replays{Replays: []rest.Replay{}}
	_, stderr := ask(t, stub, 0, ExitFailure, "replay", "expenses.backend", "--wait")
	if !strings.Contains(stderr, "replay rep_1 is no longer known") {
		t.Errorf("stderr %s", stderr)
	}
}

func TestWebhooksAndStatus(t *testing.T) {
	counts := rest.Counts{Pending: 1234, InFlight: 2, Held: 1, Success: 5, Failed: 6, LiveBytes: 4096}
	hooks := rest.Webhooks{Webhooks: []rest.Webhook{
		{ID: "expenses.backend", Sink: "http", URL: "https://api.example.com/********", State: "active", Counts: counts, Last: &rows()[2]},
		{ID: "expenses.alerts", Sink: "http", State: "held", HeldReason: "disabled"}}}
	status := rest.Status{Version: "1.2.3", PID: 42, StartedAt: moment(0), Uptime: rest.Millis(90 * time.Second), State: "degraded", Reasons: []string{"the disk is nearly full"},
		Config: rest.Config{Path: "/etc/c.yaml", Generation: 1, LoadedAt: moment(0), Warnings: []string{"plain http"}},
		Ingest: rest.Ingest{Accepted: 3, Rejected: []rest.Rejected{{Reason: "malformed", Count: 2}, {Reason: "forbidden"}}},
		Queue:  rest.Queue{Dir: "/var/lib/x", State: "no_space", Counts: counts, MaxBytes: 10 << 30, Quarantined: 1, OldestPendingAt: moment(0)}, Replays: 1,
		Plugins: []rest.Plugin{
			{Sink: "sheets", Version: "1.0.0", State: rest.PluginReady, PID: 17, Since: moment(0), Healthy: true,
				Refused: []rest.PluginRefusal{{Webhook: "expenses.sheet", Reason: "it did not answer in time"}}},
			{Sink: "slack", Version: "1.1.0", State: rest.PluginSuspended, Since: moment(60), NextStartAt: moment(120), Restarts: 5,
				LastError: "killed by signal 9", CrashReport: "panic: a\x1b[31m\n" + strings.Repeat("frame\n", 20)},
			{Sink: "zapier", State: rest.PluginReady, PID: 18, Outdated: true, Dropped: 1200, Health: "the hook is slow"}},
		Webhooks: []rest.Lane{{Webhook: "expenses.backend", State: "active", Counts: counts, NextAttemptAt: moment(100)}}}
	stub := &adminStub{answers: map[string]any{"GET /v1/webhooks": hooks, "GET /v1/status": status}}
	stdout, _ := ask(t, stub, 0, 0, "webhooks")
	expect(t, "webhooks", stdout, ""+
		"WEBHOOK           SINK  URL                               STATE           PENDING  SUCCESS  FAILED  LAST\n"+
		"expenses.backend  http  https://api.example.com/********  active            1,234        5       6  success 200\n"+
		"expenses.alerts   http  -                                 held: disabled        0        0       0  -\n")
	stdout, _ = ask(t, stub, 0, 0, "status")
	for _, want := range []string{"state       degraded: the disk is nearly full\n", "running     since 2025-01-15 14:30:00 (1m30s), pid 42\n", "            warning: plain http\n",
		"accepted    3 events since the start, 0 repeated, rejected: 2 malformed\n", "queue       no_space, 4.0 KiB of 10.0 GiB\n",
		"deliveries  1,234 pending (1 held, 2 in flight, oldest from 2025-01-15 14:30:00), 5 success, 6 failed\n", "damaged     1 record set aside\n",
		"slack   1.1.0    suspended              5  30s ago    in 30s\n", "! plugin slack: killed by signal 9\n    panic: a\ufffd[31m\n    frame\n", "    ... 9 more lines: peanuts-relay status --json\n",
		"! plugin zapier is not well: the hook is slow\n", "! plugin zapier: its file was replaced, the former one runs: peanuts-relay reload\n",
		"! plugin zapier writes too much: 1,200 lines of its output were not logged\n", "! plugin sheets, webhook expenses.sheet: it did not answer in time\n",
		"\nexpenses.backend  active    1,234          2        5       6  in 10s\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing from\n%s", want, stdout)
		}
	}
	stdout, _ = ask(t, stub, 0, 0, "status", "--json")
	if !strings.Contains(stdout, `"state": "degraded"`) {
		t.Errorf("--json: %s", stdout)
	}
}

func TestTheStatusShowsAnUpgradeThatWasRefused(t *testing.T) {
	const bad = "sink plugin zapier: its process ended during the start"
	status := rest.Status{Config: rest.Config{State: rest.ConfigRejected, LastReload: &rest.Reload{Result: rest.ReloadRejected, Errors: 1, Error: bad}},
		Plugins: []rest.Plugin{{Sink: "zap", State: rest.PluginReady, Healthy: true, Outdated: true}, {Sink: "zapier", State: rest.PluginReady, Healthy: true, Outdated: true}}}
	stdout, _ := ask(t, &adminStub{answers: map[string]any{"GET /v1/status": status}}, 0, 0, "status")
	for _, want := range []string{"! plugin zapier: its file was replaced and the new one is refused, the former one runs: " + bad + "\n",
		"! plugin zap: its file was replaced, the former one runs: peanuts-relay reload\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing from\n%s", want, stdout)
		}
	}
}

func TestRefusalsHaveTheirExitStatus(t *testing.T) {
	for _, c := range []struct {
		answer refusedWith
		code   int
	}{
		{refusedWith{404, rest.CodeNotFound, "no delivery", nil}, ExitFailure},
		{refusedWith{400, rest.CodeBadRequest, "bad", nil}, ExitUsage},
		{refusedWith{403, "", "no", nil}, ExitPermission},
		{refusedWith{410, rest.CodePayloadExpired, "gone", nil}, ExitFailure},
		{refusedWith{429, rest.CodeTooMany, "many", nil}, ExitTryAgain},
		{refusedWith{503, rest.CodeUnavailable, "stopping", nil}, ExitTryAgain},
		{refusedWith{500, rest.CodeInternal, "broken", nil}, ExitFailure},
	} {
		stub := &adminStub{answers: map[string]any{"GET /v1/deliveries/del_x": c.answer}}
		_, stderr := ask(t, stub, 0, c.code, "delivery", "del_x")
		if !strings.HasPrefix(stderr, "error: "+c.answer.message+"\n") {
			t.Errorf("%d: stderr %q", c.answer.status, stderr)
		}
	}
}

func TestAnUnreachableDaemonIsNamedWithTheRemedy(t *testing.T) {
	socket := filepath.Join(shortTempDir(t), "none.sock")
	for _, command := range []string{"status", "webhooks", "deliveries"} {
		code, stdout, stderr := runMain(t, Streams{}, command, "--admin", socket)
		want := "error: daemon unreachable at " + socket + ": nothing listens there\n" +
			"  is it running? systemctl status peanuts-relay, or start it with: peanuts-relay serve --config FILE\n"
		if code != ExitUnavailable || stdout != "" || stderr != want {
			t.Errorf("%s: exit status %d, %q", command, code, stderr)
		}
	}
}

func TestNamesOfWebhooksAreCompleted(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"GET /v1/webhooks": rest.Webhooks{Webhooks: []rest.Webhook{{ID: "expenses.backend"}}}}}
	code, stdout, _ := runMain(t, Streams{}, "__complete", "test", "--admin", stub.start(t), "")
	if code != 0 || !strings.HasPrefix(stdout, "expenses.backend\n") {
		t.Errorf("exit status %d, %q", code, stdout)
	}
}
