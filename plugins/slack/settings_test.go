package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/docstest"
	"github.com/peanutsapp/peanuts-relay/internal/hostiletest"
	"github.com/peanutsapp/peanuts-relay/plugins/slack/slacktest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// validated are the findings about settings, errors by their path and warnings in
// brackets.
func validated(t *testing.T, settings string, online bool) ([]string, Settings) {
	t.Helper()
	s, err := sinks.Decode[Settings]([]byte(settings))
	if err != nil {
		t.Fatalf("%s: %v", settings, err)
	}
	v := sinks.Validation{Online: online}
	s.Validate(t.Context(), &v)
	var out []string
	for _, d := range v.Diagnostics() {
		showsNothing(t, d)
		path := d.Path
		if d.Warning {
			path = "(" + path + ")"
		}
		out = append(out, path)
	}
	return out, s
}

func TestSettings(t *testing.T) {
	for _, c := range []struct{ settings, want string }{
		{hookSettings, ""},
		{botSettings, ""},
		{`{"webhook_url":"https://hooks.slack-gov.com/services/T0/B0/s3cr3t"}`, ""},
		{`{}`, " "},
		{`{"channel":"#general"}`, " "},
		{`{"webhook_url":"` + hookURL + `","token":"xoxb-1","channel":"a"}`, "/token"},
		{`{"webhook_url":"` + hookURL + `","channel":"a"}`, "/channel"},
		{`{"webhook_url":"` + hookURL + `","on_delete":"strike"}`, "(/on_delete)"},
		{`{"webhook_url":"http://hooks.slack.com/services/T0/B0/s3cr3t"}`, "/webhook_url"},
		{`{"webhook_url":"https://hooks.slack.com.example/services/T0/B0/s3cr3t"}`, "/webhook_url"},
		{`{"webhook_url":"https://hooks.slack.com/s3cr3t"}`, "/webhook_url"},
		{`{"webhook_url":"https://u:s3cr3t@hooks.slack.com/services/T0/B0/s3cr3t"}`, "/webhook_url"},
		{`{"webhook_url":"https://hooks.slack.com/workflows/T0/A0/s3cr3t"}`, "/webhook_url"},
		{`{"webhook_url":"https://hooks.slack.com/triggers/T0/s3cr3t"}`, "/webhook_url"},
		{`{"webhook_url":"http://127.0.0.1/services/T0/B0/s3cr3t","base_url":"http://127.0.0.1:1"}`, ""},
		{`{"token":"xoxb-1"}`, "/channel"},
		{`{"token":"xoxb-1","channel":" # "}`, "/channel"},
		{`{"token":"xoxb-1","channel":"C0123"}`, ""},
		{`{"token":"xoxp-s3cr3t","channel":"a"}`, "(/token)"},
		{`{"token":"xoxe.xoxb-s3cr3t","channel":"a"}`, "(/token)"},
		{`{"token":"xapp-s3cr3t","channel":"a"}`, "/token"},
		{`{"token":"xoxe-s3cr3t","channel":"a"}`, "/token"},
		{`{"token":"xoxb-s3cr3t\n","channel":"a"}`, "/token"},
		{`{"token":"xoxb-1","channel":"a","base_url":"http://"}`, "/base_url"},
		{`{"token":"xoxb-1","channel":"a","base_url":"http://u:s3cr3t@a"}`, "/base_url"},
		{`{"token":"xoxb-1","channel":"a","base_url":"https://slack-gov.com"}`, ""},
		{`{"token":"xoxb-1","channel":"a","template":"{{"}`, "/template"},
		{`{"token":"xoxb-1","channel":"a","template":"{{.Nothing}}"}`, "/template"},
		{`{"token":"xoxb-1","channel":"a","template":"{{.Data.x}}"}`, ""},
	} {
		found, s := validated(t, c.settings, false)
		want := strings.Fields(c.want)
		if c.want == " " {
			want = []string{""}
		}
		if !slices.Equal(found, want) {
			t.Errorf("%s: %q, not %q", c.settings, found, want)
		}
		_, err := New().Open(t.Context(), sinks.Env{}, s)
		se, _ := errors.AsType[*sinks.SettingError](err)
		wrong := slices.DeleteFunc(found, func(p string) bool { return strings.HasPrefix(p, "(") })
		if (err != nil) != (len(wrong) > 0) || (err != nil && (se == nil || se.Path != wrong[0])) {
			t.Errorf("%s: open: %v", c.settings, err)
		}
		showsNothing(t, err)
	}
	for _, bad := range []string{`{"on_delete":"keep"}`, `{"base_url":"ftp://a"}`, `{"webhook":"x"}`, `{"channel":"` + strings.Repeat("x", 101) + `"}`} {
		if _, err := sinks.Decode[Settings]([]byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestOnlineTheTokenIsTried(t *testing.T) {
	for _, c := range []struct {
		name  string
		token slacktest.Token
		fault slacktest.Fault
		want  string
	}{
		{"good", slacktest.Token{Scopes: []string{"channels:read", "chat:write"}}, slacktest.Fault{}, ""},
		{"no scope", slacktest.Token{Scopes: []string{"channels:read"}}, slacktest.Fault{}, "/token"},
		{"revoked", slacktest.Token{Error: "token_revoked"}, slacktest.Fault{}, "/token"},
		{"unknown", slacktest.Token{Error: "invalid_auth"}, slacktest.Fault{}, "/token"},
		{"Slack is ill", slacktest.Token{}, slacktest.Fault{Error: "internal_error", Times: 1}, "(/token)"},
		{"Slack is away", slacktest.Token{}, slacktest.Fault{Status: 503, Times: 1}, "(/token)"},
		{"too often", slacktest.Token{}, slacktest.Fault{Status: 429, RetryAfter: "3", Times: 1}, "(/token)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := workspace(slacktest.Options{})
			c.token.Value, c.token.App = botToken, "peanuts"
			s.SetToken(c.token)
			if c.fault.Times > 0 {
				s.Break(c.fault)
			}
			srv := httptest.NewServer(s)
			defer srv.Close()
			settings := fmt.Sprintf(`{"token":%q,"channel":"a","base_url":%q}`, botToken, srv.URL)
			if found, _ := validated(t, settings, true); strings.Join(found, " ") != c.want {
				t.Errorf("%q, not %q", found, c.want)
			}
			calls := s.Calls()
			if len(calls) != 1 || calls[0].Method != authTest {
				t.Errorf("%+v", calls)
			}
			// Offline nothing is asked.
			if found, _ := validated(t, settings, false); len(found) != 0 || len(s.Calls()) != 1 {
				t.Errorf("offline: %q, %d calls", found, len(s.Calls()))
			}
		})
	}
	// An incoming webhook is never tried: it would post.
	s := workspace(slacktest.Options{})
	srv := httptest.NewServer(s)
	defer srv.Close()
	if found, _ := validated(t, fmt.Sprintf(`{"webhook_url":%q,"base_url":%q}`, hookURL, srv.URL), true); len(found) != 0 || len(s.Calls()) != 0 {
		t.Errorf("%q, %d calls", found, len(s.Calls()))
	}
}

// TestOverTheNetwork goes through the plugin's own client and base_url, in both modes.
func TestOverTheNetwork(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	srv := httptest.NewServer(s)
	defer srv.Close()
	for _, settings := range []string{botSettings, hookSettings} {
		decoded, err := sinks.Decode[Settings]([]byte(strings.TrimSuffix(settings, "}") + fmt.Sprintf(`,"base_url":%q}`, srv.URL+"/")))
		if err != nil {
			t.Fatal(err)
		}
		sink, err := New().Open(t.Context(), sinks.Env{}, decoded)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Deliver(t.Context(), of(sinks.Created, lunch)); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		receipt, err := sink.Deliver(ctx, of(sinks.Created, lunch))
		if err == nil {
			t.Error("delivered after the end")
		}
		showsNothing(t, receipt, err)
	}
	if n := len(s.Messages(general)); n != 2 {
		t.Errorf("%d messages", n)
	}
	srv.Close()
	for _, settings := range []string{botSettings, hookSettings} {
		decoded, err := sinks.Decode[Settings]([]byte(strings.TrimSuffix(settings, "}") + fmt.Sprintf(`,"base_url":%q}`, srv.URL)))
		if err != nil {
			t.Fatal(err)
		}
		sink, err := New().Open(t.Context(), sinks.Env{}, decoded)
		if err != nil {
			t.Fatal(err)
		}
		receipt, err := sink.Deliver(t.Context(), of(sinks.Created, lunch))
		if outcome(err) != "retry" {
			t.Errorf("%v", err)
		}
		showsNothing(t, receipt, err)
	}
}

func TestTheSchemaKnowsEverySetting(t *testing.T) {
	schema, err := sinks.Schema[Settings]()
	if err != nil {
		t.Fatal(err)
	}
	docstest.Schema(t, "sinks/slack.md", schema, "token", "webhook_url")
}

func TestThePageIsRight(t *testing.T) {
	const page = "sinks/slack.md"
	secrets := map[string]string{
		"/etc/peanuts-relay/expenses.secret": "0123456789abcdef",
		"/etc/peanuts-relay/slack.url":       hookURL,
		"/etc/peanuts-relay/slack.token":     botToken,
	}
	all := docstest.Settings(t, page, "slack", secrets)
	if len(all) < 3 {
		t.Errorf("only %d examples", len(all))
	}
	for _, settings := range all {
		if found, _ := validated(t, string(settings), false); len(found) > 0 {
			t.Errorf("%s: %q", settings, found)
		}
	}
	show := func(v any) string {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	s := workspace(slacktest.Options{NoRateLimit: true})
	example := of(sinks.Created, lunch)
	example.ID = "del_01JHN4T8Y2"
	deliver(t, connect(t, s, `{"token":"`+botToken+`","channel":"C0GENERAL"}`), example, nil)
	calls := s.Calls()
	var ordered arguments
	if err := json.Unmarshal(calls[len(calls)-1].Body, &ordered); err != nil {
		t.Fatal(err)
	}
	docstest.Block(t, page, "example", show(ordered))

	// What the examples' templates make of the same entry.
	var lines []string
	for _, settings := range all {
		decoded, err := sinks.Decode[Settings](settings)
		if err != nil {
			t.Fatal(err)
		}
		if decoded.Template == "" {
			continue
		}
		l, err := compile(decoded.Template)
		if err != nil {
			t.Fatal(err)
		}
		d := of(sinks.Created, `{"amount":612.5,"category":"Travel & Hotels","receipt":"https://shop.example/r/1","due":"2025-01-16"}`)
		fields, err := d.Entry.Fields()
		if err != nil {
			t.Fatal(err)
		}
		text, err := l.render(newEvent(d, fields), noon)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, text)
	}
	docstest.Block(t, page, "rendered", strings.Join(lines, "\n\n"))
	for name := range (&run{}).funcs() {
		if !strings.HasPrefix(name, "_") && !slices.Contains([]string{"html", "js", "urlquery", "call", "print", "println"}, name) && !strings.Contains(docstest.Page(t, page), "`"+name) {
			t.Errorf("the page does not have the function %s", name)
		}
	}
}

// TestConnectionsAreUsedAgain: every answer is read to its end, whatever it is.
func TestConnectionsAreUsedAgain(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	var opened atomic.Int64
	srv := httptest.NewUnstartedServer(s)
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	for _, settings := range []string{botSettings, hookSettings} {
		decoded, err := sinks.Decode[Settings](fmt.Appendf(nil, `%s,"base_url":%q}`, strings.TrimSuffix(settings, "}"), srv.URL))
		if err != nil {
			t.Fatal(err)
		}
		sink, err := newPlugin(newPacer(0), time.Now).Open(t.Context(), sinks.Env{}, decoded)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 40 {
			if i%2 == 1 {
				s.Break(slacktest.Fault{Status: []int{200, 404, 429, 500}[i/2%4], Body: strings.Repeat("x", 10_000)})
			}
			_, err := sink.Deliver(t.Context(), of(sinks.Created, lunch))
			if (err == nil) != (i%2 == 0) {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestHostileServers: whatever answers, a delivery ends, is not sent elsewhere, and shows
// neither the token nor the URL.
func TestHostileServers(t *testing.T) {
	for _, settings := range []string{botSettings, hookSettings} {
		hostiletest.Each(t, func(t *testing.T, ctx context.Context, way hostiletest.Way, base string) {
			decoded, err := sinks.Decode[Settings](fmt.Appendf(nil, `%s,"base_url":%q}`, strings.TrimSuffix(settings, "}"), base))
			if err != nil {
				t.Fatal(err)
			}
			sink, err := newPlugin(newPacer(0), time.Now).Open(ctx, sinks.Env{}, decoded)
			if err != nil {
				t.Fatal(err)
			}
			receipt, err := sink.Deliver(ctx, of(sinks.Created, lunch))
			if err == nil {
				t.Errorf("delivered: %+v", receipt)
			}
			showsNothing(t, receipt, err)
			v := sinks.Validation{Online: true}
			decoded.Validate(ctx, &v)
			for _, d := range v.Diagnostics() {
				showsNothing(t, d)
			}
		})
	}
}
