package sinktest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// pythonSink is where the example in another language is.
const pythonSink = "../../docs/examples/sink-python"

// ntfyToken is what the fake server takes.
const ntfyToken = "tk_AgQdq7mVBoFD37zQVN29RhuMzNIz2"

// TestThePythonExamplePasses runs the sink of the documentation that is written without
// any of our code, against a server that answers as ntfy does.
func TestThePythonExamplePasses(t *testing.T) {
	RunBinary(t, installPythonSink(t), Options{
		Settings: func(remote string) any {
			return map[string]any{"server": remote, "topic": "expenses-Zw3f8Qk1", "token": ntfyToken, "priority": 4}
		},
		Remote: http.HandlerFunc(fakeNtfy),
		Bad: []BadSettings{
			{"a topic with a blank", ntfy("topic", "my topic"), "/topic"},
			{"a server with a path", ntfy("server", "https://example.com/ntfy"), "/server"},
			{"a server with a port that does not exist", ntfy("server", "https://example.com:99999"), "/server"},
			{"a priority of 6", ntfy("priority", 6), "/priority"},
			{"a priority that is true", ntfy("priority", true), "/priority"},
			{"an empty token", ntfy("token", ""), "/token"},
		},
		Faults: map[string]Fault{
			// As ntfy words its errors: https://github.com/binwiederhier/ntfy/blob/main/server/errors.go
			"400":      {Body: `{"code":40009,"http":400,"error":"invalid request: topic invalid"}`},
			"401":      {Body: `{"code":40101,"http":401,"error":"unauthorized","link":"https://ntfy.sh/docs/publish/#authentication"}`},
			"404":      {Want: []sinks.Outcome{sinks.OutcomeMisconfigured}},
			"410":      {Want: []sinks.Outcome{sinks.OutcomeMisconfigured}},
			"redirect": {Want: []sinks.Outcome{sinks.OutcomeMisconfigured}},
			"413":      {Status: 413, Want: []sinks.Outcome{sinks.OutcomeRejected}},
			"429-bare": {Status: 429, Want: []sinks.Outcome{sinks.OutcomeRateLimited}, Pause: time.Minute,
				Body: `{"code":42901,"http":429,"error":"limit reached: too many requests"}`},
			"503-wait": {Status: 503, Header: http.Header{"Retry-After": {"90"}}, Want: []sinks.Outcome{sinks.OutcomeRetry}, Pause: 90 * time.Second},
			"507":      {Status: 507, Want: []sinks.Outcome{sinks.OutcomeRetry}},
			"echo": {Status: 403, Want: []sinks.Outcome{sinks.OutcomeMisconfigured},
				Body: `{"error":"` + ntfyToken + ` may not write to expenses-Zw3f8Qk1"}`},
		},
		Arrived:  ntfyArrived,
		Patience: 15 * time.Second,
	})
}

// ntfy are settings with one of them changed.
func ntfy(key string, value any) func(string) any {
	return func(remote string) any {
		settings := map[string]any{"server": remote, "topic": "expenses", "token": ntfyToken}
		settings[key] = value
		return settings
	}
}

// installPythonSink puts the example where the relay would take it from.
func installPythonSink(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		missing := fmt.Sprintf("python3-grpcio and python3-protobuf are not installed for /usr/bin/python3: %v %s", err, out)
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"peanuts-sink-ntfy": 0o755, "sink.binpb": 0o644} {
		content, err := os.ReadFile(filepath.Join(pythonSink, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, mode); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "peanuts-sink-ntfy")
}

// message is what ntfy publishes: https://docs.ntfy.sh/publish/#publish-as-json
type message struct {
	Topic, Title, Message string
	Priority              int
	Tags                  []string
}

// fakeNtfy refuses what ntfy would.
func fakeNtfy(w http.ResponseWriter, r *http.Request) {
	var m message
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	refuse := func(status int, text string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"code":%d01,"http":%d,"error":%q}`, status, status, text)
	}
	switch err := dec.Decode(&m); {
	case r.Method != http.MethodPost || r.URL.Path != "/":
		refuse(http.StatusNotFound, "page not found")
	case r.Header.Get("Authorization") != "Bearer "+ntfyToken:
		refuse(http.StatusUnauthorized, "unauthorized")
	case err != nil || m.Topic == "" || m.Priority < 1 || m.Priority > 5:
		refuse(http.StatusBadRequest, "invalid request: request body must be message JSON")
	case len(m.Message) > 4096:
		refuse(http.StatusRequestEntityTooLarge, "message too large")
	default:
		fmt.Fprintf(w, `{"id":"hwQ2YpKdmg","time":1736951520,"expires":1736994720,"event":"message","topic":%q,"message":%q}`, m.Topic, m.Message)
	}
}

func ntfyArrived(d *sinks.Delivery, got []Request) error {
	if len(got) != 1 || got[0].Header.Get("X-Peanuts-Delivery") != d.ID {
		return fmt.Errorf("%d requests, want one with the delivery's id", len(got))
	}
	var m message
	if err := json.Unmarshal(got[0].Body, &m); err != nil {
		return err
	}
	if m.Title != "Daily Expenses: new" || m.Priority != 4 {
		return fmt.Errorf("the title is %q, the priority %d", m.Title, m.Priority)
	}
	for _, line := range []string{"amount: 42.5", "category: Food & Dining", "note: " + exactText, "invoice: " + exactNumber, "shared: yes", "tags: team, lunch"} {
		if !strings.Contains(m.Message, line) {
			return fmt.Errorf("%q is not in the message %q", line, m.Message)
		}
	}
	return nil
}
