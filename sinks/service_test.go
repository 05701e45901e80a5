package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// serve serves a plugin within the test.
func serve[C any](t *testing.T, p sinks.Plugin[C]) sinkpb.SinkClient {
	t.Helper()
	if p.Name == "" {
		p.Name = "test"
	}
	l := bufconn.Listen(1 << 20)
	server := p.Server()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return dial(t, "passthrough:in-process", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
}

type none struct{}

// sink is a sink made of functions.
type sink struct {
	deliver func(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error)
	close   func() error
	healthy func(ctx context.Context) error
}

func (s sink) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	return s.deliver(ctx, d)
}

func (s sink) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

func (s sink) Healthy(ctx context.Context) error {
	if s.healthy == nil {
		return nil
	}
	return s.healthy(ctx)
}

// opens makes a plugin of one sink.
func opens(s sinks.Sink) sinks.Plugin[none] {
	return sinks.Plugin[none]{Open: func(context.Context, sinks.Env, none) (sinks.Sink, error) { return s, nil }}
}

type batchSink struct {
	sink
	batch func(ds []*sinks.Delivery) ([]sinks.Result, error)
}

func (s batchSink) DeliverBatch(_ context.Context, ds []*sinks.Delivery) ([]sinks.Result, error) {
	return s.batch(ds)
}

func TestTheErrorIsTheOutcome(t *testing.T) {
	cause := errors.New("because")
	timeout := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 0)
		defer cancel()
		return ctx.Err()
	}
	for name, row := range map[string]struct {
		err     error
		outcome sinkpb.Outcome
		code    string
		after   time.Duration
		message string
	}{
		"nil":               {nil, sinkpb.Outcome_OUTCOME_DELIVERED, "", 0, "note"},
		"skip":              {sinks.Skip("nothing new"), sinkpb.Outcome_OUTCOME_SKIPPED, "", 0, "nothing new: note"},
		"reject":            {sinks.Reject("no_text", cause), sinkpb.Outcome_OUTCOME_REJECTED, "no_text", 0, "because: note"},
		"reject, wrapped":   {fmt.Errorf("post: %w", sinks.Reject("no_text", cause)), sinkpb.Outcome_OUTCOME_REJECTED, "no_text", 0, "post: because: note"},
		"rate limited":      {sinks.RateLimited(time.Minute, cause), sinkpb.Outcome_OUTCOME_RATE_LIMITED, "rate_limited", time.Minute, "because: note"},
		"for a day":         {sinks.RateLimited(24*time.Hour, cause), sinkpb.Outcome_OUTCOME_RATE_LIMITED, "rate_limited", time.Hour, "because: note"},
		"for less than 0":   {sinks.RateLimited(-time.Hour, cause), sinkpb.Outcome_OUTCOME_RATE_LIMITED, "rate_limited", 0, "because: note"},
		"misconfigured":     {sinks.Misconfigured("revoked", cause), sinkpb.Outcome_OUTCOME_MISCONFIGURED, "revoked", 0, "because: note"},
		"retry":             {sinks.Retry("busy", 5*time.Second, cause), sinkpb.Outcome_OUTCOME_RETRY, "busy", 5 * time.Second, "because: note"},
		"any error":         {cause, sinkpb.Outcome_OUTCOME_RETRY, "", 0, "because: note"},
		"a timeout":         {fmt.Errorf("post: %w", timeout()), sinkpb.Outcome_OUTCOME_RETRY, "timeout", 0, "post: context deadline exceeded: note"},
		"a code in capital": {sinks.Reject("No Such-Channel", cause), sinkpb.Outcome_OUTCOME_REJECTED, "no_such_channel", 0, "because: note"},
		"a long code":       {sinks.Reject(strings.Repeat("a", 100), cause), sinkpb.Outcome_OUTCOME_REJECTED, strings.Repeat("a", 64), 0, "because: note"},
		"a code alone":      {sinks.Reject("gone", nil), sinkpb.Outcome_OUTCOME_REJECTED, "gone", 0, "gone: note"},
	} {
		client := serve(t, opens(sink{deliver: func(context.Context, *sinks.Delivery) (sinks.Receipt, error) {
			return sinks.Receipt{Status: 207, Message: "note", RemoteURL: "https://example.com/42", State: []byte("ts")}, row.err
		}}))
		configure(t, client, "a", "{}")
		r := deliver(t, client, "a", &sinkpb.Delivery{Id: "d1"})
		if r.GetOutcome() != row.outcome || r.GetCode() != row.code || r.GetRetryAfter().AsDuration() != row.after || r.GetMessage() != row.message {
			t.Errorf("%s: %v", name, r)
		}
		if r.GetStatusCode() != 207 || r.GetRemoteUrl() != "https://example.com/42" || string(r.GetState()) != "ts" {
			t.Errorf("%s: the receipt is not carried: %v", name, r)
		}
	}
}

func TestAnAnswerBeyondTheLimitsIsCutOrRefused(t *testing.T) {
	quiet(t)
	for name, row := range map[string]struct {
		receipt sinks.Receipt
		err     error
		good    func(r *sinkpb.Result) bool
	}{
		"a long message": {sinks.Receipt{Message: strings.Repeat("é", 4000)}, nil,
			func(r *sinkpb.Result) bool {
				return len(r.GetMessage()) <= 2048 && len(r.GetMessage()) > 2000 && strings.HasSuffix(r.GetMessage(), "é…")
			}},
		"a long error":          {sinks.Receipt{}, errors.New(strings.Repeat("x", 1<<20)), func(r *sinkpb.Result) bool { return len(r.GetMessage()) == 2048 }},
		"a message of junk":     {sinks.Receipt{Message: "a\xffb"}, nil, func(r *sinkpb.Result) bool { return r.GetMessage() == "a�b" }},
		"an address of junk":    {sinks.Receipt{RemoteURL: "https://a/\xff"}, nil, func(r *sinkpb.Result) bool { return r.GetRemoteUrl() == "https://a/�" }},
		"a long address":        {sinks.Receipt{RemoteURL: "https://a/" + strings.Repeat("x", 3000)}, nil, func(r *sinkpb.Result) bool { return r.GetRemoteUrl() == "" }},
		"a status that is none": {sinks.Receipt{Status: -1}, nil, func(r *sinkpb.Result) bool { return r.GetStatusCode() == 0 }},
		"a state of 4 KiB": {sinks.Receipt{State: make([]byte, 4096)}, nil,
			func(r *sinkpb.Result) bool {
				return len(r.GetState()) == 4096 && r.GetOutcome() == sinkpb.Outcome_OUTCOME_DELIVERED
			}},
		"a state of more": {sinks.Receipt{State: make([]byte, 4097)}, nil,
			func(r *sinkpb.Result) bool {
				return r.GetState() == nil && r.GetOutcome() == sinkpb.Outcome_OUTCOME_RETRY && r.GetCode() == "state_too_large"
			}},
		"an error that panics": {sinks.Receipt{}, (*brokenError)(nil), func(r *sinkpb.Result) bool { return r.GetCode() == "panic" }},
	} {
		client := serve(t, opens(sink{deliver: func(context.Context, *sinks.Delivery) (sinks.Receipt, error) { return row.receipt, row.err }}))
		configure(t, client, "a", "{}")
		if r := deliver(t, client, "a", &sinkpb.Delivery{Id: "d1"}); !row.good(r) {
			t.Errorf("%s: %v", name, r)
		}
	}
}

type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

func deliveries(ids ...string) (list []*sinkpb.Delivery) {
	for _, id := range ids {
		list = append(list, &sinkpb.Delivery{Id: id, Event: sinks.Created})
	}
	return list
}

// outcomes are ids, outcomes and codes, in one line each.
func outcomes(r *sinkpb.DeliverResponse) (list []string) {
	for _, r := range r.GetResults() {
		list = append(list, strings.TrimSpace(r.GetDeliveryId()+" "+strings.TrimPrefix(r.GetOutcome().String(), "OUTCOME_")+" "+r.GetCode()))
	}
	return list
}

func TestDeliveriesOfOneCallDoNotTouchEachOther(t *testing.T) {
	quiet(t)
	client := serve(t, opens(sink{deliver: func(_ context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
		if d.ID == "b" {
			return sinks.Receipt{Status: int(d.Payload[10])}, nil
		}
		return sinks.Receipt{}, nil
	}}))
	configure(t, client, "a", "{}")
	r, err := client.Deliver(t.Context(), &sinkpb.DeliverRequest{Instance: "a", Deliveries: deliveries("a", "b", "c")})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(outcomes(r), ", "); got != "a DELIVERED, b RETRY panic, c DELIVERED" {
		t.Error(got)
	}
	if m := r.GetResults()[1].GetMessage(); !strings.Contains(m, "index out of range [10] with length 0") {
		t.Errorf("message %q", m)
	}
}

func TestABatchGoesInOneCall(t *testing.T) {
	quiet(t)
	for name, row := range map[string]struct {
		batch func(ds []*sinks.Delivery) ([]sinks.Result, error)
		want  string
	}{
		"each its own": {func(ds []*sinks.Delivery) ([]sinks.Result, error) {
			return []sinks.Result{{}, {Err: sinks.Reject("bad", nil)}, {Err: sinks.Skip("known")}}, nil
		}, "a DELIVERED, b REJECTED bad, c SKIPPED"},
		"an error for all": {func(ds []*sinks.Delivery) ([]sinks.Result, error) {
			return nil, sinks.RateLimited(0, errors.New("slow down"))
		}, "a RATE_LIMITED rate_limited, b RATE_LIMITED rate_limited, c RATE_LIMITED rate_limited"},
		"an error besides results": {func(ds []*sinks.Delivery) ([]sinks.Result, error) {
			return make([]sinks.Result, len(ds)), errors.New("rolled back")
		}, "a RETRY, b RETRY, c RETRY"},
		"too few": {func(ds []*sinks.Delivery) ([]sinks.Result, error) { return make([]sinks.Result, 2), nil },
			"a RETRY wrong_results, b RETRY wrong_results, c RETRY wrong_results"},
		"too many": {func(ds []*sinks.Delivery) ([]sinks.Result, error) { return make([]sinks.Result, 4), nil },
			"a RETRY wrong_results, b RETRY wrong_results, c RETRY wrong_results"},
		"a panic": {func(ds []*sinks.Delivery) ([]sinks.Result, error) { panic("no") },
			"a RETRY panic, b RETRY panic, c RETRY panic"},
		"deliveries taken apart": {func(ds []*sinks.Delivery) ([]sinks.Result, error) {
			clear(ds)
			return make([]sinks.Result, len(ds)), nil
		}, "a DELIVERED, b DELIVERED, c DELIVERED"},
	} {
		client := serve(t, opens(batchSink{batch: row.batch}))
		configure(t, client, "a", "{}")
		r, err := client.Deliver(t.Context(), &sinkpb.DeliverRequest{Instance: "a", Deliveries: deliveries("a", "b", "c")})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(outcomes(r), ", "); got != row.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestAnUnknownInstanceIsNotFound(t *testing.T) {
	client := serve(t, opens(sink{}))
	if _, err := client.Deliver(t.Context(), &sinkpb.DeliverRequest{Instance: "a", Deliveries: deliveries("a")}); status.Code(err) != codes.NotFound {
		t.Errorf("%v", err)
	}
	if _, err := client.Close(t.Context(), &sinkpb.CloseRequest{Instance: "a"}); err != nil {
		t.Error(err)
	}
}

func TestHealthAsksEverySink(t *testing.T) {
	quiet(t)
	hang := make(chan struct{})
	defer close(hang)
	answers := map[string]func(ctx context.Context) error{
		"expenses.good":  func(context.Context) error { return nil },
		"expenses.bad":   func(context.Context) error { return errors.New("the disk is full") },
		"expenses.panic": func(context.Context) error { panic("no") },
		"expenses.hangs": func(context.Context) error { <-hang; return nil },
	}
	client := serve(t, sinks.Plugin[none]{Open: func(_ context.Context, env sinks.Env, _ none) (sinks.Sink, error) {
		return sink{healthy: answers[env.Webhook]}, nil
	}})
	configure(t, client, "good", "{}")
	if r, err := client.Health(t.Context(), &sinkpb.HealthRequest{}); err != nil || !r.GetHealthy() || r.GetMessage() != "" {
		t.Errorf("%v, %v", r, err)
	}
	for _, name := range []string{"bad", "panic", "hangs"} {
		configure(t, client, name, "{}")
	}
	for _, late := range []string{"no answer", "still no answer"} {
		r, err := client.Health(t.Context(), &sinkpb.HealthRequest{})
		want := "expenses.bad: the disk is full; expenses.hangs: " + late + " to how it is; expenses.panic: panic in Healthy: a value of type string; the stack is in the log"
		if err != nil || r.GetHealthy() || r.GetMessage() != want {
			t.Errorf("%v, %v", r, err)
		}
	}
}

// checked are settings that look at themselves.
type checked struct {
	Low  int    `json:"low" default:"1"`
	High int    `json:"high" default:"9"`
	Test string `json:"test"`
}

func (c *checked) Validate(ctx context.Context, v *sinks.Validation) {
	switch {
	case c.Test == "panic":
		panic(c)
	case c.Low > c.High:
		v.Error("/low", "is above high", "swap them")
	case c.Low == c.High:
		v.Warn("", "nothing is between them", "")
	}
	if v.Online {
		v.Env.Log.Info("asked")
		v.Warn("/test", "asked", "")
	}
}

func TestSettingsLookAtThemselves(t *testing.T) {
	quiet(t)
	opened := 0
	client := serve(t, sinks.Plugin[checked]{Open: func(_ context.Context, _ sinks.Env, c checked) (sinks.Sink, error) {
		switch opened++; c.Test {
		case "open":
			return nil, errors.Join(&sinks.SettingError{Path: "/test", Err: errors.New("cannot be opened")}, fmt.Errorf("nor: %w", &sinks.SettingError{Path: "/low", Err: errors.New("this")}))
		case "plain":
			return nil, errors.New("cannot be opened")
		case "boom":
			panic("boom")
		case "nothing":
			return nil, nil
		}
		return sink{}, nil
	}})
	for settings, row := range map[string]struct{ validate, configure string }{
		``:                     {"[]", "[]"},
		`{}`:                   {"[]", "[]"},
		`{"low":10}`:           {"[ERROR /low is above high (swap them)]", "[ERROR /low is above high (swap them)]"},
		`{"low":9}`:            {"[WARNING  nothing is between them ()]", "[WARNING  nothing is between them ()]"},
		`{"lwo":9,"high":"x"}`: {`[ERROR /lwo no such setting; did you mean "low"? () ERROR /high must be a whole number, not a string ()]`, `[ERROR /lwo no such setting; did you mean "low"? () ERROR /high must be a whole number, not a string ()]`},
		`{"test":"panic"}`:     {"[ERROR  panic in Validate: a value of type *sinks_test.checked; the stack is in the log ()]", "[ERROR  panic in Validate: a value of type *sinks_test.checked; the stack is in the log ()]"},
		`{"test":"open"}`:      {"[]", "[ERROR /test cannot be opened () ERROR /low this ()]"},
		`{"test":"plain"}`:     {"[]", "[ERROR  cannot be opened ()]"},
		`{"test":"boom"}`:      {"[]", "[ERROR  panic in Open: a value of type string; the stack is in the log ()]"},
		`{"test":"nothing"}`:   {"[]", "[ERROR  the sink test opened to nothing ()]"},
		`{"test":"x"`:          {"[ERROR  not JSON: it ends too early ()]", "[ERROR  not JSON: it ends too early ()]"},
	} {
		before := opened
		v, err := client.Validate(t.Context(), &sinkpb.ValidateRequest{SettingsJson: []byte(settings)})
		if got := diagnostics(v.GetDiagnostics()); err != nil || got != row.validate {
			t.Errorf("validate %s: %s, %v", settings, got, err)
		}
		if opened != before {
			t.Errorf("validate %s opened a sink", settings)
		}
		if got := diagnostics(configure(t, client, "a", settings)); got != row.configure {
			t.Errorf("configure %s: %s", settings, got)
		}
		_, err = client.Deliver(t.Context(), &sinkpb.DeliverRequest{Instance: "a"})
		if usable := !strings.Contains(row.configure, "ERROR"); usable != (err == nil) {
			t.Errorf("%s: %v", settings, err)
		}
		if _, err := client.Close(t.Context(), &sinkpb.CloseRequest{Instance: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := client.Validate(t.Context(), &sinkpb.ValidateRequest{SettingsJson: []byte("{}"), Online: true})
	if got := diagnostics(v.GetDiagnostics()); err != nil || got != "[WARNING /test asked ()]" {
		t.Errorf("online: %s, %v", got, err)
	}
}

func diagnostics(list []*sinkpb.Diagnostic) string {
	var out []string
	for _, d := range list {
		out = append(out, fmt.Sprintf("%s %s %s (%s)", strings.TrimPrefix(d.GetSeverity().String(), "SEVERITY_"), d.GetPath(), d.GetSummary(), d.GetDetail()))
	}
	return fmt.Sprint(out)
}

// quiet discards what sinks log by default, and gives it back after the test.
func quiet(t *testing.T) {
	before := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(before) })
}

func TestAPluginThatIsDescribedWronglyPanics(t *testing.T) {
	open := opens(sink{}).Open
	for want, server := range map[string]func() *grpc.Server{
		`plugin name ""`:        sinks.Plugin[none]{Open: open}.Server,
		`plugin name "-a"`:      sinks.Plugin[none]{Name: "-a", Open: open}.Server,
		"plugin a: Open is":     sinks.Plugin[none]{Name: "a"}.Server,
		"plugin a: settings of": sinks.Plugin[int]{Name: "a", Open: func(context.Context, sinks.Env, int) (sinks.Sink, error) { return nil, nil }}.Server,
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("panic %q, want %q", got, want)
				}
			}()
			server()
		}()
	}
}
