package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/hostiletest"
	"github.com/peanutsapp/peanuts-relay/plugins/zapier/zapiertest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

const (
	hookURL   = "https://hooks.zapier.com/hooks/catch/123456/s3cr3thook/"
	hookPath0 = "/hooks/catch/123456/s3cr3thook/"
	payload   = `{"event":"entry.created","timestamp":"2025-01-15T14:32:00.000Z","helper":{"id":"expenses","name":"Daily Expenses","command":"/expenses"},"entry":{"id":"entry-789-xyz","data":{"amount":42.5,"category":"Food & Dining","date":"2025-01-15","tags":["a","b"],"paid":true,"note":null},"created_at":"2025-01-15T14:32:00.000Z"},"user":{"id":"user-456"}}`
)

// of makes a delivery of an entry with this data.
func of(data string) *sinks.Delivery {
	at := time.Date(2025, 1, 15, 14, 32, 0, 0, time.UTC)
	return &sinks.Delivery{
		ID: "del_01JH", EventID: "evt_01JH", Event: sinks.Created, Timestamp: at, Webhook: "expenses.zap", Attempt: 2,
		Helper:  sinks.Helper{ID: "expenses", Name: "Daily Expenses", Command: "/expenses"},
		Entry:   sinks.Entry{ID: "entry-789-xyz", CreatedAt: at, Data: json.RawMessage(data)},
		Headers: map[string]string{"X-Peanuts-Signature": "sha256=abc", "webhook-id": "del_01JH", "Content-Type": "text/plain"},
		Payload: []byte(`{"event":"entry.created","entry":{"id":"entry-789-xyz","data":` + data + `}}`),
	}
}

func example() *sinks.Delivery {
	d := of(`{"amount":42.5,"category":"Food & Dining","date":"2025-01-15","tags":["a","b"],"paid":true,"note":null}`)
	d.Payload = []byte(payload)
	return d
}

// connect is a sink in front of a Zapier.
func connect(t *testing.T, settings string) (*zapiertest.Service, sinks.Sink) {
	t.Helper()
	z := zapiertest.New(nil)
	srv := httptest.NewServer(z)
	t.Cleanup(srv.Close)
	s, err := sinks.Decode[Settings](fmt.Appendf(nil, `{"url":%q,"base_url":%q%s}`, hookURL, srv.URL, settings))
	if err != nil {
		t.Fatal(err)
	}
	sink, err := New().Open(t.Context(), sinks.Env{}, s)
	if err != nil {
		t.Fatal(err)
	}
	return z, sink
}

func TestWhatArrives(t *testing.T) {
	z, sink := connect(t, "")
	receipt, err := sink.Deliver(t.Context(), example())
	if err != nil {
		t.Fatal(err)
	}
	r := z.Requests()[0]
	want := payload[:len(payload)-1] + `,"data_amount":42.5,"data_category":"Food & Dining","data_date":"2025-01-15","data_paid":true,"data_note":null,"event_id":"evt_01JH","delivery_id":"del_01JH"}`
	if string(r.Body) != want {
		t.Errorf("got\n%s\nwant\n%s", r.Body, want)
	}
	if r.Path != hookPath0 {
		t.Errorf("path %s", r.Path)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "Peanuts-Webhook/1.0", "X-Peanuts-Signature": "sha256=abc", "Webhook-Id": "del_01JH",
		"X-Peanuts-Event": "entry.created", "X-Peanuts-Event-Id": "evt_01JH", "X-Peanuts-Delivery": "del_01JH", "X-Peanuts-Attempt": "2", "X-Peanuts-Test": "",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
	if receipt.Status != 200 || !strings.Contains(receipt.Message, "request_id 0199f2b3-") {
		t.Errorf("%+v", receipt)
	}
}

func TestWithoutFlattenOnlyTheIdsAreAdded(t *testing.T) {
	z, sink := connect(t, `,"flatten":false`)
	if _, err := sink.Deliver(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	if want := payload[:len(payload)-1] + `,"event_id":"evt_01JH","delivery_id":"del_01JH"}`; string(z.Requests()[0].Body) != want {
		t.Errorf("got\n%s\nwant\n%s", z.Requests()[0].Body, want)
	}
}

func TestASampleSaysThatItIsOne(t *testing.T) {
	z, sink := connect(t, "")
	d := example()
	d.Test = true
	if _, err := sink.Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got := z.Requests()[0].Header.Get("X-Peanuts-Test"); got != "true" {
		t.Errorf("%q", got)
	}
}

// TestHostileEntries sends what users and programs put into entries. What arrives is
// one JSON object without a key that comes twice, which begins with the payload's bytes.
func TestHostileEntries(t *testing.T) {
	var many strings.Builder
	for i := range 500 {
		fmt.Fprintf(&many, `,"field %d":%d`, i, i)
	}
	for name, data := range map[string]string{
		"empty":          `{}`,
		"null":           `{"a":null}`,
		"nested":         `{"a":{"b":{"c":[1,{"d":2}]}},"b":[],"c":{}}`,
		"large numbers":  `{"a":12345678901234567890,"b":1E400,"c":-0}`,
		"names":          `{"":1,"data_a":2,"a":3,"event_id":"x","delivery_id":"y","10":"z","é\"\\\n":4}`,
		"markup":         `{"a":"<!channel> <script>&amp;","b":"\u0000\u001b[2J\u202e"}`,
		"lone surrogate": `{"a":"\ud800"}`,
		"emoji":          "{\"a\":\"\U0001f95c\u2028\"}",
		"long":           `{"a":"` + strings.Repeat("x", 1<<20) + `"}`,
		"500 fields":     `{"first":0` + many.String() + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			z, sink := connect(t, "")
			d := of(data)
			if _, err := sink.Deliver(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			got := z.Requests()[0].Body
			if !bytes.HasPrefix(got, d.Payload[:len(d.Payload)-1]) {
				t.Errorf("the payload was changed")
			}
			if fields, err := (sinks.Entry{Data: got}).Fields(); err != nil {
				t.Errorf("not a JSON object: %v", err)
			} else {
				seen := map[string]bool{}
				for _, f := range fields {
					if seen[f.Name] {
						t.Errorf("%q comes twice", f.Name)
					}
					seen[f.Name] = true
				}
				if !seen["event_id"] || !seen["delivery_id"] {
					t.Error("ids are missing")
				}
			}
		})
	}
}

func TestAnEntryThatFitsOnlyOnceIsSentWithoutCopies(t *testing.T) {
	z, sink := connect(t, "")
	d := of(`{"a":"` + strings.Repeat("x", 6_000_000) + `"}`)
	if _, err := sink.Deliver(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if b := z.Requests()[0].Body; bytes.Contains(b, []byte("data_a")) || !bytes.Contains(b, []byte(`"delivery_id":"del_01JH"`)) {
		t.Errorf("%d bytes", len(b))
	}
	_, err := sink.Deliver(t.Context(), of(`{"a":"`+strings.Repeat("x", maxBody)+`"}`))
	if v := sinks.VerdictOf(err); v.Outcome != sinks.OutcomeRejected || v.Code != "too_large" {
		t.Errorf("%v", err)
	}
	if n := len(z.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestAPayloadThatIsNoObjectIsRejected(t *testing.T) {
	z, sink := connect(t, "")
	for _, p := range []string{"", "[]", `"a"`, "{", "null", "{} {}"} {
		d := of("{}")
		d.Payload = []byte(p)
		if _, err := sink.Deliver(t.Context(), d); sinks.VerdictOf(err).Outcome != sinks.OutcomeRejected {
			t.Errorf("%q: %v", p, err)
		}
	}
	d := of("[]")
	if _, err := sink.Deliver(t.Context(), d); sinks.VerdictOf(err).Code != "bad_entry" {
		t.Errorf("%v", err)
	}
	if n := len(z.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestWhatAnAnswerMeans(t *testing.T) {
	for _, c := range []struct {
		fault   zapiertest.Fault
		outcome sinks.Outcome
		code    string
		after   time.Duration
	}{
		{zapiertest.Fault{Status: 200, Body: ""}, sinks.OutcomeDelivered, "", 0},
		{zapiertest.Fault{Status: 200, Body: "<html>"}, sinks.OutcomeDelivered, "", 0},
		{zapiertest.Fault{Status: 202, Body: `{"status":"success"}`}, sinks.OutcomeDelivered, "", 0},
		{zapiertest.Fault{Status: 200, Body: `{"status":"error"}`}, sinks.OutcomeRetry, "not_accepted", 0},
		{zapiertest.Fault{Status: 301, Location: "https://elsewhere.example/s3cr3thook"}, sinks.OutcomeMisconfigured, "redirected", 0},
		{zapiertest.Fault{Status: 308}, sinks.OutcomeMisconfigured, "redirected", 0},
		{zapiertest.Fault{Status: 400, Body: "bad"}, sinks.OutcomeRejected, "status", 0},
		{zapiertest.Fault{Status: 401}, sinks.OutcomeMisconfigured, "status", 0},
		{zapiertest.Fault{Status: 403}, sinks.OutcomeMisconfigured, "status", 0},
		{zapiertest.Fault{Status: 404, Body: "no hook at " + hookPath0}, sinks.OutcomeMisconfigured, "unsubscribed", 0},
		{zapiertest.Fault{Status: 408}, sinks.OutcomeRetry, "status", 0},
		{zapiertest.Fault{Status: 410, Body: "please unsubscribe me"}, sinks.OutcomeMisconfigured, "unsubscribed", 0},
		{zapiertest.Fault{Status: 413}, sinks.OutcomeRejected, "too_large", 0},
		{zapiertest.Fault{Status: 429, RetryAfter: "17"}, sinks.OutcomeRateLimited, "rate_limited", 17 * time.Second},
		{zapiertest.Fault{Status: 429}, sinks.OutcomeRateLimited, "rate_limited", time.Minute},
		{zapiertest.Fault{Status: 500, Body: "at " + hookURL}, sinks.OutcomeRetry, "status", 0},
		{zapiertest.Fault{Status: 502, Body: strings.Repeat("x", 1<<20)}, sinks.OutcomeRetry, "status", 0},
		{zapiertest.Fault{Status: 503, RetryAfter: "30"}, sinks.OutcomeRetry, "status", 30 * time.Second},
	} {
		t.Run(fmt.Sprintf("%d %.10q", c.fault.Status, c.fault.Body), func(t *testing.T) {
			z, sink := connect(t, "")
			z.Break(c.fault)
			receipt, err := sink.Deliver(t.Context(), example())
			v := sinks.VerdictOf(err)
			if v.Outcome != c.outcome || v.Code != c.code || v.After != c.after {
				t.Errorf("%v %q %v: %v", v.Outcome, v.Code, v.After, err)
			}
			if receipt.Status != c.fault.Status {
				t.Errorf("status %d", receipt.Status)
			}
			showsNothing(t, receipt, err)
			if n := len(z.Requests()); n != 1 {
				t.Errorf("%d requests: a sink tries once", n)
			}
		})
	}
}

// showsNothing finds the URL in what the operator sees.
func showsNothing(t *testing.T, receipt sinks.Receipt, err error) {
	t.Helper()
	for _, shown := range []string{fmt.Sprintf("%+v", receipt), fmt.Sprint(err), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", receipt)} {
		if strings.Contains(shown, "s3cr3t") || strings.Contains(shown, "/hooks/") {
			t.Errorf("shows the URL: %s", shown)
		}
	}
}

func TestAZapThatIsOffTakesDeliveries(t *testing.T) {
	z, sink := connect(t, "")
	z.Set(hookPath0, zapiertest.Off)
	if _, err := sink.Deliver(t.Context(), example()); err != nil || len(z.Runs()) != 0 {
		t.Errorf("%v, %d runs", err, len(z.Runs()))
	}
	z.Set(hookPath0, zapiertest.Unsubscribed)
	if _, err := sink.Deliver(t.Context(), example()); sinks.VerdictOf(err).Outcome != sinks.OutcomeMisconfigured {
		t.Error(err)
	}
}

// TestATimeoutAfterTheWriteIsSentAgainUnderTheSameID shows what an unknown outcome
// costs: the Zap runs twice, and can tell by the delivery's id.
func TestATimeoutAfterTheWriteIsSentAgainUnderTheSameID(t *testing.T) {
	z, sink := connect(t, "")
	z.Break(zapiertest.Fault{AfterRun: true, Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		deadline := time.After(30 * time.Second)
		for len(z.Runs()) == 0 {
			select {
			case <-deadline:
				t.Error("nothing arrived")
				cancel()
				return
			case <-time.After(time.Millisecond):
			}
		}
		cancel() // as the relay does when the webhook's timeout is over
	})
	receipt, err := sink.Deliver(ctx, example())
	wg.Wait()
	if v := sinks.VerdictOf(err); v.Outcome != sinks.OutcomeRetry || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	showsNothing(t, receipt, err)
	if _, err := sink.Deliver(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	runs := z.Runs()
	if len(runs) != 2 {
		t.Fatalf("%d runs", len(runs))
	}
	for _, run := range runs {
		var got struct {
			ID string `json:"delivery_id"`
		}
		if err := json.Unmarshal(run, &got); err != nil || got.ID != "del_01JH" {
			t.Errorf("%v %q", err, got.ID)
		}
	}
}

func TestAServerThatIsNotThereIsTriedAgain(t *testing.T) {
	srv := httptest.NewServer(nil)
	base := srv.URL
	srv.Close()
	u, err := sinks.NewURL(hookURL)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := New().Open(t.Context(), sinks.Env{}, Settings{URL: u, BaseURL: base})
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := sink.Deliver(t.Context(), example())
	if v := sinks.VerdictOf(err); v.Outcome != sinks.OutcomeRetry {
		t.Errorf("%v", err)
	}
	showsNothing(t, receipt, err)
}

func TestItTakesCallsAtTheSameTime(t *testing.T) {
	z, sink := connect(t, "")
	var wg sync.WaitGroup
	for range New().Capabilities.MaxConcurrency {
		wg.Go(func() {
			if _, err := sink.Deliver(t.Context(), example()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(z.Runs()); n != 4 {
		t.Errorf("%d runs", n)
	}
}

// TestCapabilitiesStayBelowZapiersLimit: what a burst and one second let through.
func TestCapabilitiesStayBelowZapiersLimit(t *testing.T) {
	c := New().Capabilities
	if got := c.MaxPerSecond + float64(c.Burst); got >= 30 {
		t.Errorf("%v requests in a second", got)
	}
}

func FuzzBody(f *testing.F) {
	f.Add(`{"a":1,"b":{"c":null}}`, true)
	f.Add(`{}`, false)
	f.Add(`{"\ud800":"\u2028"}`, true)
	f.Fuzz(func(t *testing.T, data string, flatten bool) {
		d := of(data)
		got, err := body(d, flatten)
		if !json.Valid([]byte(data)) || data == "" || strings.TrimSpace(data)[0] != '{' {
			if err == nil && flatten && !json.Valid(d.Payload) {
				t.Errorf("%q was taken", data)
			}
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		if !json.Valid(got) || !bytes.HasPrefix(got, d.Payload[:len(d.Payload)-1]) {
			t.Errorf("%q became %q", data, got)
		}
	})
}

// TestHostileServers: whatever answers, a delivery ends, is not sent elsewhere, and shows
// no part of the URL.
func TestHostileServers(t *testing.T) {
	hostiletest.Each(t, func(t *testing.T, ctx context.Context, way hostiletest.Way, base string) {
		s, err := sinks.Decode[Settings](fmt.Appendf(nil, `{"url":%q,"base_url":%q}`, hookURL, base))
		if err != nil {
			t.Fatal(err)
		}
		sink, err := New().Open(ctx, sinks.Env{}, s)
		if err != nil {
			t.Fatal(err)
		}
		receipt, err := sink.Deliver(ctx, example())
		if err == nil && !way.Answered {
			t.Errorf("delivered: %+v", receipt)
		}
		showsNothing(t, receipt, err)
	})
}
