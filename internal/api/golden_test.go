package api

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// storyWorld is one delivery of each kind.
func storyWorld(t *testing.T) (w *world, ids map[string]string) {
	w = newWorld(t)
	ids = map[string]string{}
	ids["retried"] = w.store.add(backend, 1, delivery.Pending, func(s *queue.Summary) {
		s.Attempts, s.StatusCode, s.Code, s.Error, s.Next = 1, 503, delivery.CodeStatus, "HTTP 503", epoch.Add(2*time.Hour)
	})
	first := failedAttempt(1)
	w.store.attempts[key{backend, 1}] = []delivery.Attempt{first}

	ids["success"] = w.store.add(backend, 2, delivery.Success, func(s *queue.Summary) { s.Attempts = 2 })
	second := failedAttempt(2)
	second.Outcome, second.Status, second.Code, second.Error, second.NextIn = delivery.Delivered, 200, "", "", 0
	second.Rule, second.State, second.Reused, second.Phases = delivery.RuleDelivered, delivery.Success, true, delivery.Phases{FirstByte: time.Millisecond}
	second.Body = []byte{0xff, 0x00, 0x01}
	told := second
	told.Message, told.RemoteURL = "row 7 was added", "https://sheet.example/7"
	w.store.attempts[key{backend, 2}] = []delivery.Attempt{first, told}

	ids["failed"] = w.store.add(backend, 3, delivery.Failed, func(s *queue.Summary) { s.StatusCode, s.Code, s.Error = 404, delivery.CodeStatus, "HTTP 404" })
	final := failedAttempt(1)
	final.Outcome, final.Status, final.Error, final.Rule, final.State, final.NextIn = delivery.Rejected, 404, "HTTP 404", delivery.RuleClientError, delivery.Failed, 0
	w.store.attempts[key{backend, 3}] = []delivery.Attempt{final}

	ids["held"] = w.store.add(alerts, 4, delivery.Pending, func(s *queue.Summary) { s.EventType = "entry.deleted" })
	ids["fresh"] = w.store.add(backend, 5, delivery.Pending, func(s *queue.Summary) { s.Unstable = true })
	ids["in flight"] = w.store.add(backend, 6, delivery.Pending, nil)
	w.dispatcher.inFlight[key{backend, 6}] = true
	w.dispatcher.states[backend] = LaneState{InFlight: 1, NextDue: epoch.Add(2 * time.Hour)}
	for seq := range uint64(6) {
		w.addEvent(seq+1, func(e *queue.EventRecord) {
			switch seq + 1 {
			case 1:
				e.Deliveries = append(e.Deliveries, queue.NewDelivery{Lane: old})
				e.Skipped = []queue.Skip{{Lane: alerts, Reason: delivery.SkipNotSelected}}
			case 4:
				e.Deliveries = []queue.NewDelivery{{Lane: alerts}}
			case 3:
				e.Payloads[0] = nil
			}
		})
	}
	w.addEvent(7, func(e *queue.EventRecord) {
		e.ID, e.Deliveries, e.Skipped = "evt_mine", nil, []queue.Skip{{Lane: alerts, Reason: delivery.SkipDisabled}, {Lane: backend, Reason: delivery.SkipNotSelected}}
	})
	w.addEvent(8, func(e *queue.EventRecord) { e.ID, e.Helper, e.Deliveries = "evt_mine", "crm", nil })
	w.store.stats = queue.Stats{State: queue.StateOK, Events: 8, Deliveries: 6, Success: 1, Failed: 1, Pending: 4, LiveBytes: 4096,
		Groups: 5, LastSeq: 8, DiskFree: 1 << 40, AcceptMark: 512 << 20}
	stats := w.store.lanes[backend]
	stats.LiveBytes = 4096
	w.store.lanes[backend] = stats
	w.store.replays = []queue.ReplayJob{{ID: "rep_1", Lane: backend, States: []delivery.State{delivery.Failed}, Since: epoch, Rate: 10,
		Matched: 5, Requeued: 2, Expired: 1, Started: epoch.Add(time.Minute)}}
	w.Feed.pasts.note(&queue.Change{Lane: backend, Kind: queue.ChangeAttempt, State: delivery.Success, Took: 40 * time.Millisecond}, w.Now())
	w.Feed.pasts.note(&queue.Change{Lane: backend, Kind: queue.ChangeAttempt, State: delivery.Pending, Took: 90 * time.Millisecond}, w.Now())
	w.dispatcher.test = func(context.Context, *delivery.Outbound) (delivery.Attempt, error) { return second, nil }
	return w, ids
}

// The documents are compared byte by byte with files, so that no key is
// renamed, moved or dropped unnoticed. UPDATE_GOLDEN=1 writes the files.
func TestDocumentsAreAsRecorded(t *testing.T) {
	w, ids := storyWorld(t)
	for name, target := range recorded(ids) {
		t.Run(name, func(t *testing.T) {
			method, path, _ := strings.Cut(target, " ")
			rec := w.request(method, path, recordedBodies()[name])
			var got bytes.Buffer
			if err := json.Indent(&got, rec.Body.Bytes(), "", "  "); err != nil {
				t.Fatalf("%s: %v", rec.Body, err)
			}
			if bytes.Contains(got.Bytes(), []byte(": null")) {
				refuseNullLists(t, got.Bytes())
			}
			file := filepath.Join("testdata", "golden", name+".json")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s differs; got\n%s", file, got.Bytes())
			}
		})
	}
}

// recorded are the requests whose answers are in files.
func recorded(ids map[string]string) map[string]string {
	return map[string]string{
		"helpers":           "GET /v1/helpers",
		"webhooks":          "GET /v1/webhooks",
		"minutes":           "GET /v1/webhooks/expenses.backend/minutes",
		"webhook":           "GET /v1/webhooks/expenses.backend",
		"deliveries":        "GET /v1/deliveries?limit=5",
		"deliveries_failed": "GET /v1/webhooks/expenses.backend/deliveries?status=failed",
		"deliveries_none":   "GET /v1/webhooks/crm.main/deliveries",
		"delivery_retried":  "GET /v1/deliveries/" + ids["retried"],
		"delivery_success":  "GET /v1/deliveries/" + ids["success"],
		"delivery_failed":   "GET /v1/deliveries/" + ids["failed"],
		"delivery_held":     "GET /v1/deliveries/" + ids["held"],
		"delivery_fresh":    "GET /v1/deliveries/" + ids["fresh"],
		"delivery_inflight": "GET /v1/deliveries/" + ids["in flight"],
		"event":             "GET /v1/events/" + id.Event(testStore, 1),
		"event_two":         "GET /v1/events/evt_mine",
		"replays":           "GET /v1/replays",
		"test":              "POST /v1/webhooks/expenses.backend/test",
		"dry_run":           "POST /v1/webhooks/expenses.backend/replay",
		"status":            "GET /v1/status",
		"reload":            "POST /v1/reload",
		"plan":              "POST /v1/plan",
		"config":            "GET /v1/config",
		"config_history":    "GET /v1/config/history",
		"config_files":      "GET /v1/config/history/3",
		"webhook_created":   "POST /v1/webhooks",
		"webhook_changed":   "PATCH /v1/webhooks/expenses.backend",
		"dropped":           "DELETE /v1/webhooks/expenses.old/deliveries",
		"readyz":            "GET /readyz",
		"audit":             "GET /v1/audit",
		"audit_events":      "POST /v1/audit/events",
		"error":             "GET /v1/deliveries?limit=0",
	}
}

// recordedBodies are the bodies of the recorded requests that have one.
func recordedBodies() map[string]string {
	return map[string]string{
		"audit_events":    `{"ids":["evt_28t5cy4g0000000000001","own-7"]}`,
		"dry_run":         `{"dry_run":true,"status":"failed"}`,
		"plan":            `{"files":[{"role":"50-crm.yaml","name":"./conf.d/50-crm.yaml","content":"helpers: {}\n"}]}`,
		"webhook_created": `{"url":"https://api.example.com/peanuts","events":["created"]}`,
		"webhook_changed": `{"active":false}`,
	}
}

// refuseNullLists fails for every null that is none of the scalars and objects
// that may be missing.
func refuseNullLists(t *testing.T, document []byte) {
	t.Helper()
	for line := range strings.Lines(string(document)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if strings.TrimSuffix(value, ",") != "null" {
			continue
		}
		name = strings.Trim(name, `"`)
		switch {
		case strings.HasSuffix(name, "_at"), name == "status_code", name == "since", name == "until", name == "timestamp",
			name == "request", name == "response", name == "last", name == "last_reload", name == "held_until", name == "uid",
			name == "progress", name == "error":
		default:
			t.Errorf("%q is null", name)
		}
	}
}

func TestThePayloadIsTheExactBytes(t *testing.T) {
	w, ids := storyWorld(t)
	exact := "{\"a\":\"<>&\u2028\u2029 \\u0001\\ud800 é😀\",\"n\":12345678901234567890}"
	w.addEvent(2, func(e *queue.EventRecord) { e.Payloads[0] = []byte(exact) })
	w.start(t)
	got, err := w.client.Delivery(t.Context(), ids["success"])
	if err != nil || got.Payload != exact {
		t.Errorf("got %q, %v, want %q", got.Payload, err, exact)
	}
}

func TestExcerpts(t *testing.T) {
	for _, row := range []struct {
		name      string
		body      string
		truncated bool
		text, enc string
	}{
		{"text", "hello é", false, "hello é", "utf-8"},
		{"nothing", "", false, "", "utf-8"},
		{"binary", "\xff\xfe", false, "//4=", "base64"},
		{"cut in a character", "hello \xc3", true, "hello ", "utf-8"},
		{"cut in an emoji", "hello \xf0\x9f\x98", true, "hello ", "utf-8"},
		{"half a character at an end that is no cut", "hello \xc3", false, "aGVsbG8gww==", "base64"},
		{"binary and cut", "\xff\xfe\xc3", true, "//7D", "base64"},
		{"only half a character", "\xc3", true, "ww==", "base64"},
	} {
		text, enc := excerpt([]byte(row.body), row.truncated)
		if text != row.text || enc != row.enc {
			t.Errorf("%s: got %q %s, want %q %s", row.name, text, enc, row.text, row.enc)
		}
	}
}
