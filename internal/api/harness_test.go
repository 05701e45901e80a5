package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is the time at which the tests' daemon lives.
var epoch = time.Date(2025, 1, 15, 14, 32, 0, 0, time.UTC)

// Lanes of the tests' webhooks.
const (
	backend queue.Lane = 1 + iota // expenses.backend, active
	alerts                        // expenses.alerts, disabled, entry.deleted only
	crm                           // crm.main, another helper
	old                           // expenses.old, left the configuration
)

// world is an API on fakes, to be changed before start.
type world struct {
	*API
	store      *fakeStore
	dispatcher *fakeDispatcher
	control    *fakeControl
	client     *adminclient.Client
	socket     string
}

func testCatalog() *Catalog {
	three := []string{"entry.created", "entry.updated", "entry.deleted"}
	return &Catalog{
		Helpers: []rest.Helper{
			{ID: "crm", Name: "CRM", Events: append([]string{"user.created"}, three...), Webhooks: []string{"crm.main"}},
			{ID: "expenses", Name: "Daily Expenses", Command: "/expenses", Fields: []rest.Field{{Name: "amount", Type: "number"}},
				Events: three, Webhooks: []string{"expenses.backend", "expenses.alerts"}},
		},
		Webhooks: []Webhook{
			{Lane: crm, Shown: rest.Webhook{ID: "crm.main", Helper: "crm", Sink: "http", URL: "https://crm.example.com", Enabled: true,
				Events: []string{"user.created"}, Format: "event", Concurrency: 2}},
			{Lane: backend, Shown: rest.Webhook{ID: "expenses.backend", Helper: "expenses", Sink: "http", URL: "${env:BACKEND_URL}",
				Headers: []rest.Header{{Name: "Authorization", Value: "Bearer ${file:/etc/token}"}}, Events: three, Enabled: true, Format: "peanuts",
				Signatures: []rest.Signature{{Scheme: "peanuts", Headers: []string{"X-Peanuts-Signature"}}},
				Retry:      rest.Retry{Schedule: []string{"1m0s", "5m0s", "30m0s"}, Timeout: "30s"}, Concurrency: 8}},
			{Lane: alerts, Shown: rest.Webhook{ID: "expenses.alerts", Helper: "expenses", Sink: "slack", Events: []string{"entry.deleted"},
				Format: "peanuts", Concurrency: 1}},
		},
	}
}

// newWorld makes an API that runs on nothing yet.
func newWorld(t *testing.T) *world {
	t.Helper()
	store := newFakeStore(t)
	for lane, name := range map[queue.Lane]string{backend: "expenses.backend", alerts: "expenses.alerts", crm: "crm.main", old: "expenses.old"} {
		store.lanes[lane] = queue.LaneStats{Webhook: name}
	}
	d := &fakeDispatcher{waits: map[key]uint64{}, store: store, inFlight: map[key]bool{}, states: map[queue.Lane]LaneState{
		alerts: {Hold: delivery.HoldDisabled}, old: {Hold: delivery.HoldRemoved}}}
	catalog, control := testCatalog(), newFakeControl(t)
	a, err := New(Options{
		Store: store, Dispatcher: d, Control: control, Feed: NewFeed(), Catalog: func() *Catalog { return catalog },
		Status: func() rest.Status {
			return rest.Status{Version: "1.2.3", Commit: "abc", GoVersion: "go1.26", PID: 42, StartedAt: rest.At(epoch.Add(-time.Hour)),
				Config: rest.Config{Path: "/etc/peanuts-relay/config.yaml", Generation: 1, Digest: "sha256:00", LoadedAt: rest.At(epoch.Add(-time.Hour)),
					State: rest.ConfigCurrent, FileDigest: "sha256:00", Watching: "events"},
				Listen: rest.Listen{Events: "/run/events.sock", Admin: "/run/admin.sock"},
				Queue:  rest.Queue{Dir: "/var/lib/peanuts-relay", MaxBytes: 10 << 30, MinFree: 512 << 20},
				Plugins: []rest.Plugin{{Sink: "slack", Path: "/usr/lib/peanuts-relay/sinks/peanuts-sink-slack", SHA256: strings.Repeat("9f86d081", 8), Version: "1.0.0", State: rest.PluginBackoff,
					Since: rest.At(epoch), NextStartAt: rest.At(epoch.Add(time.Minute)), Restarts: 2, Crashes: 3, Dropped: 120, LastError: "exited with status 2",
					CrashReport: "panic: nil map\n", Webhooks: []string{"expenses.alerts"},
					Refused: []rest.PluginRefusal{{Webhook: "expenses.alerts", Reason: "/channel: there is no such channel"}}}}}
		},
		Ingest: func() rest.Ingest {
			return rest.Ingest{Accepted: 7, Duplicates: 2, Unstable: 1, Rejected: []rest.Rejected{{Reason: "invalid", Count: 3}, {Reason: "too_large"}}}
		},
		AcceptedBy: func() map[string]int64 { return map[string]int64{"crm": 2, "expenses": 5} },
		Timings:    NewTimings(),
		Sample: func(webhook, eventType string) (*delivery.Outbound, error) {
			if eventType == "no.such" {
				return nil, errors.New("webhook does not take no.such")
			}
			return &delivery.Outbound{DeliveryID: "del_test", EventID: "evt_test", EventType: "entry.created", EntryID: "test_1",
				Webhook: webhook, Attempt: 1, Test: true, Payload: []byte(`{"event":"entry.created"}`)}, nil
		},
		RequestHeaders: requestHeaders,
		Registry:       prometheus.NewRegistry(),
		Now:            func() time.Time { return epoch.Add(time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &world{API: a, store: store, dispatcher: d, control: control}
}

// requestHeaders lists headers as the http sink does.
func requestHeaders(o *delivery.Outbound, signatures, own []delivery.Header) []delivery.Header {
	list := []delivery.Header{{Name: "Content-Type", Value: "application/json"}, {Name: "User-Agent", Value: "Peanuts-Webhook/1.0"},
		{Name: "X-Peanuts-Event", Value: o.EventType}, {Name: "X-Peanuts-Event-Id", Value: o.EventID},
		{Name: "X-Peanuts-Delivery", Value: o.DeliveryID}, {Name: "X-Peanuts-Attempt", Value: string(rune('0' + o.Attempt))}}
	return append(append(list, signatures...), own...)
}

// start serves the API on a Unix socket until the test ends.
func (w *world) start(t *testing.T) *world {
	t.Helper()
	w.socket = filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.Serve(l) }()
	w.client = adminclient.New(w.socket)
	t.Cleanup(func() {
		w.client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return w
}

// request asks the handler without a socket.
func (w *world) request(method, target, body string) *httptest.ResponseRecorder {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	return rec
}

// refused asserts that err is the daemon's refusal with a status and a code.
func refused(t *testing.T, err error, status int, code string) *adminclient.Error {
	t.Helper()
	e, ok := errors.AsType[*adminclient.Error](err)
	if !ok {
		t.Fatalf("error %v is no refusal of the daemon", err)
	}
	if e.Status != status || e.Code != code {
		t.Fatalf("refused with %d %s (%s), want %d %s", e.Status, e.Code, e.Message, status, code)
	}
	return e
}

// addEvent puts an event with its payload into the store.
func (w *world) addEvent(seq uint64, change func(*queue.EventRecord)) {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	e := queue.EventRecord{ID: "evt", Seq: seq, Helper: "expenses", Type: "entry.created", EntryID: "entry",
		Timestamp: epoch, Accepted: epoch, Deliveries: []queue.NewDelivery{{Lane: backend}}}
	for _, row := range w.store.rows {
		if row.Seq == seq {
			e.ID, e.EntryID, e.Accepted, e.Timestamp = row.EventID, row.EntryID, row.Accepted, row.Accepted
		}
	}
	e.Payloads[queue.FormatPeanuts] = []byte(`{"event":"entry.created","entry":{"id":"` + e.EntryID + `"}}`)
	if change != nil {
		change(&e)
	}
	w.store.events[seq] = e
}

// failedAttempt is an attempt that got HTTP 503.
func failedAttempt(number int) delivery.Attempt {
	return delivery.Attempt{Number: number, Started: epoch.Add(time.Duration(number) * time.Minute), Duration: 123456 * time.Microsecond,
		Phases: delivery.Phases{DNS: time.Millisecond, Connect: 2 * time.Millisecond, TLS: 3 * time.Millisecond, FirstByte: 100500 * time.Microsecond},
		Remote: "192.0.2.1:443",
		Request: &delivery.Request{Method: http.MethodPost, URL: "${env:BACKEND_URL}",
			Headers: []delivery.Header{{Name: "Authorization", Value: "Bearer ${file:/etc/token}"}}},
		Signatures: []delivery.Header{{Name: "X-Peanuts-Signature", Value: "sha256=00ff"}},
		Outcome:    delivery.Retry, Status: 503, Code: delivery.CodeStatus, Error: "HTTP 503",
		Headers: []delivery.Header{{Name: "Content-Type", Value: "text/plain"}}, Body: []byte("<busy>"),
		Rule: delivery.RuleServerError, State: delivery.Pending, NextIn: time.Minute}
}
