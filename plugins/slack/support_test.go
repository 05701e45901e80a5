package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/slack/slacktest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

const (
	botToken = "xoxb-1234-s3cr3t"
	hookURL  = "https://hooks.slack.com/services/T0ACME/B0HOOK/s3cr3tpart"
	hookPath = "/services/T0ACME/B0HOOK/s3cr3tpart"
	general  = "C0GENERAL"
)

var at = time.Date(2025, 1, 15, 14, 32, 0, 0, time.UTC)

// noon is a clock that stands still, so that no template is too slow in tests.
func noon() time.Time { return at }

// of makes a delivery of an event about one entry.
func of(event, data string) *sinks.Delivery {
	return &sinks.Delivery{
		ID: "del_01JH" + event, EventID: "evt_01JH", Event: event, Timestamp: at, Webhook: "expenses.slack", Attempt: 1, Sequence: 7,
		Helper:  sinks.Helper{ID: "expenses", Name: "Daily Expenses", Command: "/expenses"},
		Entry:   sinks.Entry{ID: "entry-789-xyz", CreatedAt: at, Data: json.RawMessage(data)},
		User:    &sinks.User{ID: "user-456"},
		Payload: []byte(`{"entry":{"data":` + data + `}}`),
	}
}

const lunch = `{"amount":42.5,"category":"Food & Dining","date":"2025-01-15","tags":["team","lunch"],"paid":true,"note":null}`

// workspace is a Slack with what the settings below name.
func workspace(o slacktest.Options) *slacktest.Service {
	s := slacktest.New(o)
	s.SetChannel(slacktest.Channel{ID: general, Name: "general"})
	s.SetToken(slacktest.Token{Value: botToken, App: "peanuts", Scopes: []string{"chat:write"}})
	s.SetWebhook(hookPath, general)
	return s
}

// direct hands requests to the service in the caller's goroutine, so that a synctest
// bubble can wait for them.
type direct struct{ service http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	done := make(chan struct{})
	w := httptest.NewRecorder()
	go func() {
		defer close(done)
		d.service.ServeHTTP(w, r)
	}()
	select {
	case <-done:
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		return w.Result(), nil
	case <-r.Context().Done():
		<-done
		return nil, r.Context().Err()
	}
}

// connect is a sink in front of a Slack, without pauses between messages.
func connect(t *testing.T, s *slacktest.Service, settings string) sinks.Sink {
	t.Helper()
	return connectTo(t, s, newPacer(0), settings)
}

func connectTo(t *testing.T, s *slacktest.Service, p *pacer, settings string) sinks.Sink {
	t.Helper()
	decoded, err := sinks.Decode[Settings]([]byte(settings))
	if err != nil {
		t.Fatal(err)
	}
	sink, err := open(p, noon, &http.Client{Transport: direct{s}}, decoded)
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

const (
	botSettings  = `{"token":"` + botToken + `","channel":"#general"}`
	hookSettings = `{"webhook_url":"` + hookURL + `"}`
)

// withTemplate adds a template to settings.
func withTemplate(settings, template string) string {
	return strings.TrimSuffix(settings, "}") + fmt.Sprintf(`,"template":%s}`, quoted(template))
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// deliver sends one and gives back what the relay would keep of the state.
func deliver(t *testing.T, sink sinks.Sink, d *sinks.Delivery, state []byte) (sinks.Receipt, []byte) {
	t.Helper()
	d.State = state
	receipt, err := sink.Deliver(t.Context(), d)
	if err != nil {
		t.Fatalf("%s: %v", d.Event, err)
	}
	if receipt.State != nil {
		state = receipt.State
	} else if d.Event == sinks.Deleted {
		state = nil
	}
	return receipt, state
}

// only is the one message of the channel.
func only(t *testing.T, s *slacktest.Service) slacktest.Message {
	t.Helper()
	m := s.Messages(general)
	if len(m) != 1 {
		t.Fatalf("%d messages: %+v", len(m), m)
	}
	return m[0]
}

// texts are all that a message shows, one after the other.
func texts(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var blocks []block
	if err := json.Unmarshal(raw, &blocks); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, b := range blocks {
		if b.Text != nil {
			out = append(out, b.Text.Text)
		}
		for _, f := range append(b.Fields, b.Elements...) {
			out = append(out, f.Text)
		}
	}
	return strings.Join(out, "\n")
}

// methods are the calls that were made, without auth.test.
func methods(s *slacktest.Service) string {
	var out []string
	for _, c := range s.Calls() {
		if c.Method != authTest {
			out = append(out, c.Method)
		}
	}
	return strings.Join(out, " ")
}

// outcome is what the relay reads of an error.
func outcome(err error) string {
	v := sinks.VerdictOf(err)
	return strings.TrimSpace(v.Outcome.String() + " " + v.Code)
}

// showsNothing finds secrets in what operators see.
func showsNothing(t *testing.T, what ...any) {
	t.Helper()
	for _, w := range what {
		shown := fmt.Sprintf("%v %+v %#v", w, w, w)
		if err, ok := w.(error); ok {
			for ; err != nil; err = errors.Unwrap(err) {
				shown += err.Error()
			}
		}
		if b, ok := w.([]byte); ok {
			shown = string(b)
		}
		if strings.Contains(shown, "s3cr3t") || strings.Contains(shown, "/services/T0") {
			t.Errorf("shows a secret: %s", shown)
		}
	}
}

// posted is what the incoming webhook answers to a body.
func posted(s *slacktest.Service, body []byte) string {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, hookPath, bytes.NewReader(body)))
	return w.Body.String()
}
