package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/browsertest"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// forms are all that change something, and what they ask the API for.
func forms() []string {
	return []string{"/webhooks/" + demoWebhook + "/test", "/webhooks/" + demoWebhook + "/enable", "/webhooks/" + demoWebhook + "/disable", "/webhooks/" + demoWebhook + "/replay",
		"/deliveries/" + demoFailed + "/retry", "/deliveries/" + demoFailed + "/discard", "/replays/rep_2/cancel", "/configuration/reload"}
}

// forged is a request that a browser could be made to send.
type forged struct {
	target, origin, site, method, kind string
	cookie, form                       bool
}

// allowed is whether such a request is one of the page's own.
func (f forged) allowed() bool {
	own := f.site == "same-origin" || f.site == "none" || f.site == "" && (f.origin == "" || f.origin == "http://127.0.0.1:8465")
	return own && f.cookie && f.form && f.method == "POST" && f.kind == "application/x-www-form-urlencoded"
}

func (f forged) send(h http.Handler, v *visitor) int {
	body := "go=1"
	if f.form {
		body += "&form=" + v.form
	}
	r := httptest.NewRequest(f.method, f.target, strings.NewReader(body))
	r.Host = "127.0.0.1:8465"
	set := func(name, value string) {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	set("Content-Type", f.kind)
	set("Origin", f.origin)
	set("Sec-Fetch-Site", f.site)
	if f.cookie {
		set("Cookie", v.cookie)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

// matrix calls do with every combination.
func matrix(do func(forged)) {
	for _, target := range forms() {
		for _, method := range []string{"POST", "GET", "PUT", "PATCH", "DELETE"} {
			for _, origin := range []string{"", "http://127.0.0.1:8465", "http://127.0.0.1:9999", "http://localhost:8465", "https://evil.example", "null"} {
				for _, site := range []string{"", "same-origin", "same-site", "cross-site", "none"} {
					for _, kind := range []string{"application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "application/json"} {
						for _, who := range []int{0, 1, 2, 3} {
							do(forged{target, origin, site, method, kind, who&1 != 0, who&2 != 0})
						}
					}
				}
			}
		}
	}
}

func TestNoForgedRequestChangesAnything(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token})
	defer s.sessions.close()
	h, v := s.Handler(), newVisitor(s)
	cases, allowed := 0, 0
	matrix(func(f forged) {
		before := len(d.changed)
		status := f.send(h, v)
		switch changed := len(d.changed) - before; {
		case f.allowed():
			allowed++
			if changed != 1 || status >= 400 {
				t.Errorf("%+v changed %d, %d", f, changed, status)
			}
		case changed != 0 || status < 300 && f.method != "GET":
			t.Errorf("%+v changed %d, %d", f, changed, status)
		default:
			cases++
		}
	})
	// REST, where a page of another origin has neither the cookie nor the header: and if it
	// had the header, it is refused for what it is.
	for _, method := range []string{"POST", "PATCH", "DELETE"} {
		for _, origin := range []string{"https://evil.example", "null", "http://127.0.0.1:9999"} {
			for _, headers := range [][]string{{"Cookie", v.cookie}, {"Authorization", "Bearer " + token, "Sec-Fetch-Site", "cross-site"}, {"Authorization", "Bearer " + token}, {}} {
				before := len(d.changed)
				if w := ask(h, method, "/v1/webhooks/"+demoWebhook+"/test", append([]string{"Origin", origin}, headers...)...); w.Code != 403 || len(d.changed) != before || code(t, w) != rest.CodeForbidden {
					t.Errorf("%s from %s with %v: %d", method, origin, headers, w.Code)
				}
				cases++
			}
		}
	}
	// Parts of the page do not go into others either.
	for _, site := range []string{"cross-site", "same-site"} {
		for mode, want := range map[string]int{"no-cors": 403, "cors": 403, "websocket": 403, "navigate": 200} {
			w := ask(h, "GET", "/deliveries", "Cookie", v.cookie, "Sec-Fetch-Site", site, "Sec-Fetch-Mode", mode, "Sec-Fetch-Dest", "document")
			if w.Code != want {
				t.Errorf("%s, %s: %d", site, mode, w.Code)
			}
			cases++
		}
		if w := ask(h, "GET", "/deliveries", "Cookie", v.cookie, "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"); w.Code != 403 {
			t.Errorf("in a frame: %d", w.Code)
		}
		cases++
	}
	if allowed == 0 {
		t.Error("nothing is allowed")
	}
	testhost.Cases(t, cases)
}

// The control: without the check of the origin forged requests with the form of the
// session get through, and without the form's token those without it do.
func TestWithoutTheChecksForgedRequestsAreLetIn(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token})
	defer s.sessions.close()
	s.guard.anyOrigin = true
	v := newVisitor(s)
	f := forged{target: forms()[0], origin: "https://evil.example", site: "cross-site", method: "POST", kind: "application/x-www-form-urlencoded", cookie: true, form: true}
	if f.send(s.Handler(), v) != 200 || len(d.changed) != 1 {
		t.Error("without the check of the origin it is refused, too: the matrix shows nothing of it")
	}
	f.form = false
	if f.send(s.Handler(), v) != 403 || len(d.changed) != 1 {
		t.Error("the token of the form does not stand alone")
	}
	v.s.sessions.find(strings.TrimPrefix(v.cookie, s.cookie+"="), true).form = ""
	if f.send(s.Handler(), v) != 200 || len(d.changed) != 2 {
		t.Error("without the token of the form it is refused, too")
	}
	testhost.Cases(t, 3)
}

// rebound are hosts that a page whose name was bound to this address would send.
func rebound() []string {
	return []string{"evil.example", "evil.example:8465", "127.0.0.1.evil.example:8465", "localhost.evil.example", "localhost.", "127.0.0.1.", "evil.localhost", "0.0.0.0:8465", "0:8465", "[::]:8465",
		"192.168.0.1:8465", "10.0.0.1", "169.254.169.254", "[fe80::1]:8465", "[::ffff:10.0.0.1]:8465", "2130706433:8465", "0x7f000001", "127.1:8465", "0177.0.0.1", "relay.example.com.evil.example",
		"evil.relay.example.com", "relay.example.com.", "relay.example.com@evil.example", "localhost@evil.example", "", ":8465", "localhost localhost", "evil.example#localhost", "[::1%eth0]:8465", "[127.0.0.1", "localhost:80:80", "xn--localhost-9za"}
}

func TestNoOtherHostIsAnswered(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token, Hosts: []string{"relay.example.com"}})
	defer s.sessions.close()
	h, v := s.Handler(), newVisitor(s)
	cases := 0
	for _, host := range rebound() {
		for _, c := range [][]string{{"GET", "/"}, {"GET", "/login"}, {"GET", "/v1/status"}, {"POST", "/v1/reload"}, {"GET", "/livez"}, {"GET", "/live"}, {"POST", forms()[0]}} {
			w := ask(h, c[0], c[1], "Host", host, "Cookie", v.cookie, "Authorization", "Bearer "+token)
			if w.Code != 403 || strings.Contains(w.Body.String(), demoWebhook) {
				t.Errorf("%s %s for %q: %d", c[0], c[1], host, w.Code)
			}
			cases++
		}
	}
	if len(d.changed) != 0 {
		t.Errorf("changed: %q", d.changed)
	}
	for _, host := range []string{"localhost", "LOCALHOST:9000", "127.0.0.1", "127.0.0.1:1", "127.8.8.8:8465", "[::1]", "[::1]:8465", "relay.example.com", "Relay.Example.Com:443"} {
		if w := ask(h, "GET", "/", "Host", host, "Cookie", v.cookie); w.Code != 200 {
			t.Errorf("for %q: %d", host, w.Code)
		}
	}
	testhost.Cases(t, cases)
}

// A real browser sends the name that it was told, whatever address that has.
func TestABrowserThatWasReboundGetsNothing(t *testing.T) {
	t.Parallel()
	const name = "evil.example"
	b := browsertest.Start(t, name)
	for _, c := range []struct {
		open bool
		want string
	}{{false, "requests for the host \"evil.example"}, {true, "Log in"}} {
		_, origin := serve(t, newDemo(), func(s *Server) { s.guard.anyHost = c.open })
		p := b.Page(t)
		p.Open(strings.Replace(origin, "127.0.0.1", name, 1) + "/login")
		if text := p.Text("main"); !strings.Contains(text, c.want) {
			t.Errorf("with the check %v: %s", !c.open, text)
		}
		var asked bool
		p.Eval(`document.querySelector("#token") !== null`, &asked)
		if asked != c.open {
			t.Errorf("with the check %v, a token is asked for: %v", !c.open, asked)
		}
	}
	testhost.Cases(t, 2)
}

// Guesses come to an end soon, by form and by header, whatever else is sent with them.
func TestTheTokenIsNotGuessed(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token})
	defer s.sessions.close()
	h := s.Handler()
	cases := 0
	guess := func(token string) int {
		r := httptest.NewRequest("POST", "/login", strings.NewReader("token="+token))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.0.0.%d", cases%250))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		cases++
		if w.Header().Get("Set-Cookie") != "" {
			t.Errorf("a session with %d", w.Code)
		}
		return w.Code
	}
	looked := 0
	for i := range 100 {
		if code := guess(token[:31] + strconv.Itoa(i%10)); code == 403 {
			looked++
		} else if code != 429 {
			t.Errorf("guess %d: %d", i, code)
		}
	}
	// One more may come while they are made.
	if looked < loginBurst-1 || looked > loginBurst+5 {
		t.Errorf("%d guesses were looked at", looked)
	}
	if code := guess(token); code != 429 {
		t.Errorf("the right one after too many: %d", code)
	}
	looked = 0
	for range 200 {
		if w := ask(h, "GET", "/v1/status", "Authorization", "Bearer guess"); w.Code == 401 {
			looked++
		}
		cases++
	}
	if looked < bearerBurst || looked > bearerBurst+10 {
		t.Errorf("%d headers were looked at", looked)
	}
	if len(d.changed) != 0 {
		t.Errorf("changed: %q", d.changed)
	}
	testhost.Cases(t, cases)
}

// The control: without the slowing down every guess is looked at.
func TestWithoutTheThrottleEveryGuessIsLookedAt(t *testing.T) {
	s, _ := bare(Options{})
	s.bearers.burst, s.bearers.left = 1e9, 1e9
	for range 200 {
		if w := ask(s.Handler(), "GET", "/v1/status", "Authorization", "Bearer guess"); w.Code != 401 {
			t.Fatalf("%d", w.Code)
		}
	}
	testhost.Cases(t, 200)
}
