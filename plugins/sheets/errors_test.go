package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestWhatGoogleRefusesBecomesTheRightOutcome(t *testing.T) {
	for _, row := range []struct {
		name  string
		set   func(*sheetstest.Server)
		want  string // outcome, code, status
		hints []string
	}{
		{"a role that may only read", func(g *sheetstest.Server) { g.Share(email, sheetstest.Viewer) }, "misconfigured forbidden 403", []string{email, "editor"}},
		{"no role", func(g *sheetstest.Server) { g.Share(email, sheetstest.Stranger) }, "misconfigured forbidden 403", []string{email, "share"}},
		{"the API switched off", func(g *sheetstest.Server) { g.Disable(true) }, "misconfigured api_disabled 403", []string{email, "enable"}},
		{"a revoked key", func(g *sheetstest.Server) { g.Fail(sheetstest.Token, sheetstest.InvalidGrant) }, "misconfigured credentials 400", []string{email, "invalid_grant", "clock"}},
		{"a lost token", func(g *sheetstest.Server) { g.Fail(sheetstest.Write, sheetstest.LostToken) }, "misconfigured credentials 401", []string{email}},
		{"quota of tokens", func(g *sheetstest.Server) { g.Fail(sheetstest.Token, sheetstest.Quota) }, "rate_limited rate_limited 0", nil},
		{"quota of reads", func(g *sheetstest.Server) { g.Fail(sheetstest.Read, sheetstest.Quota) }, "rate_limited rate_limited 429", []string{email}},
		{"quota of writes", func(g *sheetstest.Server) { g.Fail(sheetstest.Write, sheetstest.Quota) }, "rate_limited rate_limited 429", []string{email}},
		{"an error while reading", func(g *sheetstest.Server) { g.Fail(sheetstest.Read, sheetstest.Internal) }, "retry unavailable 500", nil},
		{"an error while writing", func(g *sheetstest.Server) { g.Fail(sheetstest.Write, sheetstest.Unavailable) }, "retry unavailable 503", nil},
		{"an error of the token service", func(g *sheetstest.Server) { g.Fail(sheetstest.Token, sheetstest.Unavailable) }, "retry unavailable 503", nil},
		{"a reset", func(g *sheetstest.Server) { g.Fail(sheetstest.Write, sheetstest.ResetBefore) }, "retry connection 0", nil},
		{"a reset of the token service", func(g *sheetstest.Server) { g.Fail(sheetstest.Token, sheetstest.ResetBefore) }, "retry connection 0", nil},
		{"a redirect", func(g *sheetstest.Server) { g.Fail(sheetstest.Read, sheetstest.Redirect) }, "misconfigured refused 302", []string{"base_url"}},
		{"a full spreadsheet", func(g *sheetstest.Server) { g.LimitCells(26_000) }, "misconfigured cell_limit 400", []string{"10 million"}},
		{"too large for the front end", func(g *sheetstest.Server) { g.Fail(sheetstest.Write, sheetstest.TooLarge) }, "rejected too_large 413", nil},
		{"a value that is not allowed", func(g *sheetstest.Server) { g.Poison("bad") }, "rejected refused 400", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			row.set(w.google)
			v := send(t, w.open(), event(1, sinks.Created, "a", `{"n":"bad"}`))[0]
			equal(t, "outcome", fmt.Sprintf("%v %s %d", v.Outcome, v.Code, v.Status), row.want)
			for _, hint := range row.hints {
				if !strings.Contains(v.Error(), hint) {
					t.Errorf("%q does not say %q", v.Error(), hint)
				}
			}
			if v.Outcome == sinks.OutcomeRateLimited && (v.After < time.Minute || v.After > 75*time.Second) {
				t.Errorf("a pause of %v", v.After)
			}
			if _, made := w.google.Look("Expenses"); made {
				t.Error("the tab was made all the same")
			}
		})
	}
}

func TestAProtectedTabIsTheOperatorsToOpen(t *testing.T) {
	w, s := three(t)
	w.google.Protect("Expenses", true)
	v := send(t, s, event(4, sinks.Updated, "a", `{"n":4}`))[0]
	equal(t, "outcome", v.Outcome.String()+" "+v.Code, "misconfigured protected")
	w.google.Protect("Expenses", false)
	want(t, s, sinks.OutcomeDelivered, event(4, sinks.Updated, "a", `{"n":4}`))
}

func TestAnotherSpreadsheetIsNotFound(t *testing.T) {
	w := newWorld(t)
	s := w.open(func(s *Settings) { s.Spreadsheet = "1another-one-that-there-is-not" })
	v := send(t, s, event(1, sinks.Created, "a", `{}`))[0]
	equal(t, "outcome", fmt.Sprintf("%v %s %d", v.Outcome, v.Code, v.Status), "misconfigured not_found 404")
	if !strings.Contains(v.Error(), email) {
		t.Errorf("%q does not name the account", v.Error())
	}
}

func TestOneBadRowDoesNotTakeItsBatchWithIt(t *testing.T) {
	w := newWorld(t)
	w.google.Poison("bad")
	var ds []*sinks.Delivery
	for n := range 20 {
		text := "good"
		if n == 13 {
			text = "bad"
		}
		ds = append(ds, event(n+1, sinks.Created, fmt.Sprintf("e%02d", n), map[string]string{"n": text}))
	}
	for i, v := range send(t, w.open(), ds...) {
		if wanted := map[bool]sinks.Outcome{true: sinks.OutcomeRejected, false: sinks.OutcomeDelivered}[i == 13]; v.Outcome != wanted {
			t.Errorf("%d: %v, want %v", i, v.Outcome, wanted)
		}
	}
	if n := len(w.rows("Expenses")); n != 19 {
		t.Errorf("%d rows, want 19", n)
	}
}

func TestWhatIsTooLargeIsDivided(t *testing.T) {
	w := newWorld(t)
	w.google.Fail(sheetstest.Write, sheetstest.TooLarge, sheetstest.TooLarge)
	var ds []*sinks.Delivery
	for n := range 8 {
		ds = append(ds, event(n+1, sinks.Created, fmt.Sprint("e", n), `{"n":1}`))
	}
	want(t, w.open(), sinks.OutcomeDelivered, ds...)
	if n := len(w.rows("Expenses")); n != 8 {
		t.Errorf("%d rows, want 8", n)
	}
}

func TestNothingOvertakesWhatFailedInADividedBatch(t *testing.T) {
	w := newWorld(t)
	w.google.Fail(sheetstest.Write, sheetstest.TooLarge, sheetstest.Internal)
	s := w.open()
	ds := []*sinks.Delivery{event(1, sinks.Created, "a", `{}`), event(2, sinks.Created, "b", `{}`), event(3, sinks.Deleted, "a", `{}`)}
	want(t, s, sinks.OutcomeRetry, ds...) // the deletion too: had it gone ahead, a would come back
	want(t, s, sinks.OutcomeDelivered, ds...)
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=b"})
}

func TestTimeoutsAreRetriedAndTheWriteIsNotRepeated(t *testing.T) {
	for _, what := range []sheetstest.Failure{sheetstest.HangBefore, sheetstest.HangAfter, sheetstest.ResetBefore, sheetstest.ResetAfter} {
		t.Run(string(what), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				s := w.open()
				w.google.Fail(sheetstest.Write, what)
				d := event(1, sinks.Created, "a", `{"n":1}`)
				begin := time.Now()
				v := send(t, s, d)[0]
				if v.Outcome != sinks.OutcomeRetry {
					t.Fatalf("%v: %v", v.Outcome, v.Error())
				}
				if took := time.Since(begin); took > 30*time.Second {
					t.Errorf("it took %v", took)
				}
				after := what == sheetstest.HangAfter || what == sheetstest.ResetAfter
				want(t, s, map[bool]sinks.Outcome{true: sinks.OutcomeSkipped, false: sinks.OutcomeDelivered}[after], d)
				equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=1"})
			})
		})
	}
}

func TestCancelEndsADelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.open()
		w.google.Fail(sheetstest.Write, sheetstest.HangBefore)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := s.Deliver(ctx, event(1, sinks.Created, "a", `{}`))
		if v := sinks.VerdictOf(err); v.Outcome != sinks.OutcomeRetry || v.Code != codeTimeout || time.Since(begin) != 3*time.Second {
			t.Errorf("after %v: %v %s", time.Since(begin), v.Outcome, v.Code)
		}
	})
}

func TestAnAnswerWithoutEndIsNotRead(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	body := &boundedBody{io.NopCloser(strings.NewReader(strings.Repeat(" ", 100))), 10, errTooLong}
	if b, err := io.ReadAll(body); len(b) != 10 || err != errTooLong {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	v := sinks.VerdictOf(s.client.verdict(fmt.Errorf("decode: %w", errTooLong)))
	equal(t, "outcome", v.Outcome.String()+" "+v.Code, "misconfigured too_many_rows")
}

// Whatever goes wrong, neither the key nor a token is in what is shown or logged.
func TestNoSecretIsShown(t *testing.T) {
	var logged bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)

	google := sheetstest.New(time.Now)
	server := httptest.NewServer(google)
	defer server.Close()
	google.Share(email, sheetstest.Editor)
	base, err := sinks.NewURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	key := sheetstest.Key(email, server.URL)
	var tokens []string
	plugin := newPlugin(func(env sinks.Env) *http.Client {
		c := env.HTTP()
		c.Transport = spy{http.DefaultTransport, func(r *http.Request) { tokens = append(tokens, r.Header.Get("Authorization")) }}
		return c
	})
	var shown strings.Builder
	for op, failures := range map[sheetstest.Op][]sheetstest.Failure{
		sheetstest.Token: {sheetstest.InvalidGrant, sheetstest.Unavailable, sheetstest.ResetBefore, sheetstest.Redirect, sheetstest.Quota, sheetstest.LostToken},
		sheetstest.Read:  {sheetstest.Internal, sheetstest.ResetBefore, sheetstest.Redirect, sheetstest.LostToken, sheetstest.TooLarge},
		sheetstest.Write: {sheetstest.Unavailable, sheetstest.ResetAfter, sheetstest.LostToken, sheetstest.TooLarge},
	} {
		for _, f := range failures {
			s, err := plugin.Open(t.Context(), sinks.Env{}, settings(func(s *Settings) {
				s.BaseURL, s.Credentials = base, sinks.NewSecret(key)
			}))
			if err != nil {
				t.Fatal(err)
			}
			google.Fail(op, f)
			r, err := s.Deliver(t.Context(), event(1, sinks.Created, "a", `{}`))
			fmt.Fprintf(&shown, "%+v %v %+v\n", r, err, err)
			_ = s.(io.Closer).Close()
		}
	}
	text := shown.String() + logged.String()
	middle := key[len(key)/2 : len(key)/2+40]
	for _, secret := range append(tokens, middle, "BEGIN PRIVATE KEY", "assertion", "ya29.") {
		if secret != "" && strings.Contains(text, strings.TrimPrefix(secret, "Bearer ")) {
			t.Errorf("shows %.20q…:\n%s", secret, text)
		}
	}
	if len(tokens) == 0 || !strings.Contains(text, "google") {
		t.Error("nothing was shown at all")
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

type spy struct {
	http.RoundTripper
	see func(*http.Request)
}

func (s spy) RoundTrip(r *http.Request) (*http.Response, error) {
	s.see(r)
	return s.RoundTripper.RoundTrip(r)
}
