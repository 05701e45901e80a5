package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func TestPagesNeedASessionAndShowWhatTheAPISays(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token})
	defer s.sessions.close()
	v := newVisitor(s)
	for name, target := range views() {
		w := ask(s.Handler(), "GET", target)
		if to := w.Header().Get("Location"); w.Code != 303 || to != "/login?next="+url.QueryEscape(target) {
			t.Errorf("%s without a session: %d to %q", name, w.Code, to)
		}
		if w := v.get(target); w.Code != 200 || !strings.Contains(w.Body.String(), "</html>") {
			t.Errorf("%s: %d\n%s", name, w.Code, w.Body)
		}
	}
	for target, want := range map[string][]string{
		"/":                         {"Daily Expenses", demoWebhook, "held: plugin down", "18\u202f243", "exited with status 2"},
		"/webhooks/" + demoWebhook:  {"Send a test", "509 delivered", "entry.updated", "Older", "cursor=more", "${file:/etc/peanuts-relay/backend.token}"},
		"/webhooks/" + demoDisabled: {"Enable", "Held because the webhook is disabled"},
		"/deliveries/" + demoFailed: {"Given up after 2 attempts", "HTTP 422: 4xx is final", "&#34;Food &amp; Dining\\&#34; is unknown", "Send it again", "Discard"},
		"/events/" + demoEvent:      {"lunch-42", "webhook expenses.alerts is disabled"},
		"/replays":                  {"310 of 1\u202f204", "Cancel", "under way"},
		"/configuration":            {"goroutine 41", "headers.Authorization", "user 1000"},
	} {
		text := v.get(target).Body.String()
		for _, word := range want {
			if !strings.Contains(text, word) {
				t.Errorf("%s does not say %q", target, word)
			}
		}
	}
	if w := v.get("/deliveries/del_nothing"); w.Code != 404 || !strings.Contains(w.Body.String(), "there is no /v1/deliveries/del_nothing") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := v.get("/nothing"); w.Code != 404 || !strings.Contains(w.Body.String(), "no such page") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestABannerSaysThatTheFilesAreNotWhatRuns(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token})
	defer s.sessions.close()
	v := newVisitor(s)
	const banner = "The files are not what runs."
	if strings.Contains(v.get("/").Body.String(), banner) {
		t.Error("it says so of files that are")
	}
	d.broken()
	for name, target := range views() {
		text := v.get(target).Body.String()
		if !strings.Contains(text, banner) || !strings.Contains(text, `unknown key &#34;secrt&#34;`) || !strings.Contains(text, "listen.events_mode") {
			t.Errorf("%s does not say so", name)
		}
	}
	if text := v.get("/configuration").Body.String(); !strings.Contains(text, "50-crm.yaml:14:7") || !strings.Contains(text, "did you mean &#34;secret&#34;?") {
		t.Errorf("the findings are missing:\n%s", text)
	}
}

func TestFormsDoWhatTheySayOnce(t *testing.T) {
	for target, c := range map[string]struct{ fields, asked, to, says string }{
		"/webhooks/" + demoWebhook + "/test":         {"event=entry.created", "POST /v1/webhooks/" + demoWebhook + "/test", "", "not delivered"},
		"/webhooks/" + demoWebhook + "/disable":      {"", "PATCH /v1/webhooks/" + demoWebhook, "/webhooks/" + demoWebhook, "Disabled"},
		"/webhooks/" + demoWebhook + "/enable":       {"", "PATCH /v1/webhooks/" + demoWebhook, "/webhooks/" + demoWebhook, "Enabled"},
		"/webhooks/" + demoWebhook + "/replay":       {"since=7d&status=failed&rate=5", "POST /v1/webhooks/" + demoWebhook + "/replay", "", "37 deliveries"},
		"/webhooks/" + demoWebhook + "/replay?now=1": {"go=1", "POST /v1/webhooks/" + demoWebhook + "/replay", "/replays", "has begun"},
		"/deliveries/" + demoFailed + "/retry":       {"", "POST /v1/deliveries/" + demoFailed + "/retry", "/deliveries/" + demoFailed, "due now"},
		"/deliveries/" + demoFailed + "/discard":     {"", "DELETE /v1/deliveries/" + demoFailed, "/webhooks/" + demoWebhook, "taken out of the log"},
		"/replays/rep_2/cancel":                      {"", "DELETE /v1/replays/rep_2", "/replays", "cancelled"},
		"/configuration/reload":                      {"", "POST /v1/reload", "/configuration", "configuration 8 runs"},
		"/deliveries/del_gone/retry":                 {"", "POST /v1/deliveries/del_gone/retry", "/deliveries/del_gone", ""},
		"/webhooks/expenses.gone/disable":            {"", "PATCH /v1/webhooks/expenses.gone", "/webhooks/expenses.gone", ""},
		"/webhooks/" + demoWebhook + "/replay?x=1":   {"rate=many", "", "/webhooks/" + demoWebhook, "not a number"},
	} {
		d := newDemo()
		s, _ := bare(Options{})
		s = New(Options{API: d, Token: s.Token})
		v := newVisitor(s)
		w := v.post(target, c.fields)
		text := w.Body.String()
		if c.to != "" {
			if w.Code != 303 || w.Header().Get("Location") != c.to {
				t.Errorf("%s: %d to %q", target, w.Code, w.Header().Get("Location"))
			}
			text = v.get("/replays").Body.String()
			if again := v.get("/replays").Body.String(); c.says != "" && strings.Contains(again, `class="flash`) {
				t.Errorf("%s: it is said twice", target)
			}
		}
		if !strings.Contains(text, c.says) || c.says == "" && !strings.Contains(text, "That did not work") {
			t.Errorf("%s does not say %q:\n%s", target, c.says, text)
		}
		if got := strings.Join(d.changed, ", "); got != c.asked {
			t.Errorf("%s asked for %q", target, got)
		}
		s.sessions.close()
	}
}

func TestALoginLastsUntilTheLogout(t *testing.T) {
	d := newDemo()
	_, origin := serve(t, d)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	ask := func(method, target, body, cookie string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, origin+target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(text)
	}
	if resp, text := ask("POST", "/login", "token=wrong-wrong-wrong", ""); resp.StatusCode != 403 || !strings.Contains(text, "not the token") || len(resp.Cookies()) > 0 {
		t.Errorf("a wrong token: %d", resp.StatusCode)
	}
	resp, _ := ask("POST", "/login", "token="+token+"&next=/replays", "")
	cookies := resp.Cookies()
	if resp.StatusCode != 303 || len(cookies) != 1 || resp.Header.Get("Location") != "/login?kept&next=%2Freplays" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	c := cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.Secure || len(c.Value) < 26 || c.MaxAge != 12*3600 {
		t.Errorf("cookie %v", c)
	}
	if resp, text := ask("GET", "/login?kept&next=%2Freplays", "", ""); resp.StatusCode != 200 || !strings.Contains(text, "did not keep the cookie") {
		t.Errorf("without the cookie: %d", resp.StatusCode)
	}
	with := c.Name + "=" + c.Value
	if resp, _ := ask("GET", "/login?kept&next=%2Freplays", "", with); resp.Header.Get("Location") != "/replays" {
		t.Errorf("with it: %v", resp.Header)
	}
	_, text := ask("GET", "/", "", with)
	form := regexp.MustCompile(`name="form" value="([A-Z0-9]+)"`).FindStringSubmatch(text)
	if form == nil {
		t.Fatal(text)
	}
	if resp, _ := ask("GET", "/v1/status", "", with); resp.StatusCode != 401 {
		t.Errorf("REST with a session: %d", resp.StatusCode)
	}
	if resp, _ := ask("POST", "/logout", "form="+form[1], with); resp.StatusCode != 303 || len(resp.Cookies()) != 1 || resp.Cookies()[0].MaxAge >= 0 {
		t.Errorf("logout: %d %v", resp.StatusCode, resp.Cookies())
	}
	if resp, _ := ask("GET", "/", "", with); resp.StatusCode != 303 {
		t.Errorf("after the logout: %d", resp.StatusCode)
	}
}

// Under the name of a proxy, which speaks https, the cookie goes by nothing else.
func TestTheCookieIsSecureUnderOtherNames(t *testing.T) {
	s, _ := bare(Options{Hosts: []string{"relay.example.com"}})
	for host, secure := range map[string]bool{"localhost:9000": false, "127.0.0.1": false, "[::1]:8465": false, "relay.example.com": true, "RELAY.example.com:8443": true} {
		r := httptest.NewRequest("POST", "/login", nil)
		r.Host = host
		if c := s.newCookie(r, "x"); c.Secure != secure {
			t.Errorf("%s: %v", host, c)
		}
	}
	other, _ := bare(Options{Name: "another daemon on this host"})
	if s.cookie == other.cookie {
		t.Error("two daemons have one cookie")
	}
}

func TestALoginLeadsNowhereElse(t *testing.T) {
	for next, want := range map[string]string{"/": "/", "/webhooks/a.b?status=failed": "/webhooks/a.b?status=failed", "": "/", "https://evil.example/": "/", "//evil.example/": "/",
		"/\\evil.example": "/", "\\\\evil.example": "/", "/%2f/evil.example": "/", "javascript:alert(1)": "/", "evil": "/", "/login?next=/": "/", "/a\r\nSet-Cookie: x=1": "/",
		"///evil.example": "/", "/\t/evil.example": "/", "http:/x": "/", "/" + strings.Repeat("a", 3000): "/"} {
		if got := destination(next); got != want {
			t.Errorf("%q leads to %q", next, got)
		}
	}
}

func TestTheUpdatesEndWithTheSession(t *testing.T) {
	d := newDemo()
	s, origin := serve(t, d)
	for name, end := range map[string]func(*visitor, string){
		"logout":  func(v *visitor, id string) { s.sessions.finish(id) },
		"the end": func(*visitor, string) { s.sessions.close() },
	} {
		id := s.sessions.begin()
		v := &visitor{s: s, cookie: s.cookie + "=" + id}
		r, err := http.NewRequestWithContext(t.Context(), "GET", origin+"/live?webhook=expenses.backend", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Cookie", v.cookie)
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%s: %d %v", name, resp.StatusCode, resp.Header)
		}
		end(v, id)
		ended := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, resp.Body)
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatalf("%s: they go on", name)
		}
		_ = resp.Body.Close()
	}
	if w := ask(s.Handler(), "GET", "/live"); w.Code != 403 {
		t.Errorf("without a session: %d", w.Code)
	}
}

func TestTheOverviewIsInPages(t *testing.T) {
	d := newDemo()
	var hooks []rest.Webhook
	helper := rest.Helper{ID: "many", Name: "Many"}
	for i := range 450 {
		w := rest.Webhook{ID: "many.w" + strings.Repeat("x", i), Helper: "many", Sink: "http", State: rest.WebhookActive}
		hooks, helper.Webhooks = append(hooks, w), append(helper.Webhooks, w.ID)
	}
	hooks = append(hooks, rest.Webhook{ID: "old.gone", State: rest.WebhookHeld, HeldReason: "removed"}, rest.Webhook{ID: "old.away", State: rest.WebhookHeld, HeldReason: "removed"})
	d.answers["GET /v1/helpers"], d.answers["GET /v1/webhooks"] = rest.Helpers{Helpers: []rest.Helper{{ID: "none", Name: "None"}, helper}}, rest.Webhooks{Webhooks: hooks}
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token})
	defer s.sessions.close()
	v := newVisitor(s)
	link := regexp.MustCompile(`rel="next"`)
	var rows []int
	target := "/"
	for target != "" {
		text := v.get(target).Body.String()
		rows = append(rows, strings.Count(text, `data-label="Webhook"`))
		next := regexp.MustCompile(`href="(/\?from=\d+)"`).FindStringSubmatch(text)
		target = ""
		if next != nil {
			target = next[1]
		}
		if (next != nil) != link.MatchString(text) {
			t.Error("a page without a link to the next")
		}
		if next == nil && strings.Count(text, "No longer in the configuration") != 2 { // heading and caption
			t.Errorf("what left the configuration is not in one place:\n%s", text)
		}
	}
	if !slices.Equal(rows, []int{200, 200, 52}) {
		t.Errorf("rows %v", rows)
	}
	if w := v.get("/?from=99999999999999999999"); w.Code != 200 {
		t.Errorf("%d", w.Code)
	}
}

func TestAFilterThatIsWrongIsSaidBesideIt(t *testing.T) {
	d := newDemo()
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("since") == "yesterday" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":{"code":"bad_request","message":"\"yesterday\" is neither a time nor a duration","field":"since"}}`)
			return
		}
		d.ServeHTTP(w, r)
	})
	s, _ := bare(Options{})
	s = New(Options{API: api, Token: s.Token})
	defer s.sessions.close()
	text := newVisitor(s).get("/deliveries?since=yesterday").Body.String()
	if !strings.Contains(text, "is neither a time nor a duration") || !strings.Contains(text, `value="yesterday"`) {
		t.Errorf("%s", text)
	}
}

func TestNumbersAndTimesAreShort(t *testing.T) {
	now := time.Date(2025, 1, 15, 14, 32, 0, 0, time.UTC)
	for want, got := range map[string]string{
		"0": count(0), "999": count(999), "1\u202f000": count(1000), "12\u202f345\u202f678": count(int64(12345678)), "-1\u202f000": count(-1000), "-100": count(-100),
		"0 ms": shortly(0), "1.5 ms": shortly(rest.Millis(1500 * time.Microsecond)), "83 ms": shortly(rest.Millis(83 * time.Millisecond)), "1.3 s": shortly(rest.Millis(1300 * time.Millisecond)),
		"10 min": shortly(rest.Millis(10 * time.Minute)), "512\u00a0B": size(512), "3\u00a0MiB": size(3 << 20), "3.5\u00a0MiB": size(7 << 19), "212\u00a0GiB": size(212 << 30),
		"never": ago(rest.Time{}, now), "just now": ago(rest.At(now.Add(-time.Millisecond)), now), "59 s ago": ago(rest.At(now.Add(-59*time.Second)), now),
		"47 h ago": ago(rest.At(now.Add(-47*time.Hour)), now), "2 d ago": ago(rest.At(now.Add(-48*time.Hour)), now), "in 5 min": ago(rest.At(now.Add(5*time.Minute)), now),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
