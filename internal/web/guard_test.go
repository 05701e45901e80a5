package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "0123456789abcdef0123456789abcdef"

// echo is an API that answers every request and counts those that change something.
type echo struct{ asked, changed int }

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.asked++
	if r.Method != "GET" {
		e.changed++
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"path":%q}`, r.URL.Path)
}

func bare(o Options) (*Server, *echo) {
	e := &echo{}
	o.Token = secret.New(token)
	o.API = e
	return New(o), e
}

func ask(h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "127.0.0.1:8465"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// code is the code of an answer that must be an error document.
func code(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var e rest.Error
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error.Message == "" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("no error document: %v\n%s", err, w.Body)
	}
	return e.Error.Code
}

func TestRESTNeedsTheTokenAndHealthDoesNot(t *testing.T) {
	s, api := bare(Options{})
	h := s.Handler()
	for _, c := range []struct {
		name, target, authorization string
		status                      int
		code                        string
	}{
		{"the token", "/v1/status", "Bearer " + token, 200, ""},
		{"the scheme in other letters", "/v1/status", "bearer " + token, 200, ""},
		{"metrics with it", "/metrics", "Bearer " + token, 200, ""},
		{"live without", "/livez", "", 200, ""},
		{"ready without", "/readyz", "", 200, ""},
		{"nothing", "/v1/status", "", 401, rest.CodeUnauthorized},
		{"metrics without", "/metrics", "", 401, rest.CodeUnauthorized},
		{"another token", "/v1/status", "Bearer " + token + "0", 401, rest.CodeUnauthorized},
		{"a part of it", "/v1/status", "Bearer " + token[:31], 401, rest.CodeUnauthorized},
		{"an empty one", "/v1/status", "Bearer ", 401, rest.CodeUnauthorized},
		{"another scheme", "/v1/status", "Basic " + token, 401, rest.CodeUnauthorized},
		{"no scheme", "/v1/status", token, 401, rest.CodeUnauthorized},
		{"a route that there is not", "/v1/nothing", "", 401, rest.CodeUnauthorized},
	} {
		before := api.asked
		var headers []string
		if c.authorization != "" {
			headers = []string{"Authorization", c.authorization}
		}
		w := ask(h, "GET", c.target, headers...)
		if w.Code != c.status || (api.asked > before) != (c.status == 200) {
			t.Errorf("%s: %d, asked %d", c.name, w.Code, api.asked-before)
		}
		if c.code == "" {
			continue
		}
		if got := code(t, w); got != c.code {
			t.Errorf("%s: code %q", c.name, got)
		}
		if !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: no challenge", c.name)
		}
	}
	if w := ask(h, "GET", "/v1/status", "Authorization", "Bearer "+token, "Authorization", "Bearer "+token); w.Code != 401 {
		t.Errorf("two headers: %d", w.Code)
	}
	// What opens the pages opens no route of REST.
	if w := ask(h, "GET", "/v1/status", "Cookie", s.cookie+"="+s.sessions.begin()); w.Code != 401 {
		t.Errorf("a session: %d", w.Code)
	}
	s.sessions.close()
}

func TestEveryAnswerIsForThisOriginAlone(t *testing.T) {
	s, _ := bare(Options{})
	for _, target := range []string{"/livez", "/v1/status", "/nothing"} {
		h := ask(s.Handler(), "GET", target).Header()
		for name, want := range map[string]string{"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s: %q", target, name, got)
			}
		}
	}
	if strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none'") {
		t.Errorf("policy %q", policy)
	}
}

func TestSomethingThatIsGuessedIsSlowedDownAndComesBack(t *testing.T) {
	now := time.Unix(1e9, 0)
	s, api := bare(Options{Now: func() time.Time { return now }})
	h := s.Handler()
	right := []string{"Authorization", "Bearer " + token}
	for range bearerBurst {
		// What is right costs nothing, however often.
		if w := ask(h, "GET", "/v1/status", right...); w.Code != 200 {
			t.Fatalf("%d", w.Code)
		}
		if w := ask(h, "GET", "/v1/status", "Authorization", "Bearer wrong"); w.Code != 401 {
			t.Fatalf("%d", w.Code)
		}
	}
	asked := api.asked
	for range 1000 {
		w := ask(h, "GET", "/v1/status", "Authorization", "Bearer wrong")
		if w.Code != 429 || w.Header().Get("Retry-After") == "" || code(t, w) != rest.CodeTooMany {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
	}
	if w := ask(h, "GET", "/v1/status", right...); w.Code != 429 || api.asked != asked {
		t.Errorf("the right one was told from the wrong ones: %d", w.Code)
	}
	now = now.Add(bearerEvery)
	if w := ask(h, "GET", "/v1/status", right...); w.Code != 200 {
		t.Errorf("later: %d", w.Code)
	}
	now = now.Add(time.Hour)
	if ok, wait := s.logins.try(now, func() bool { return true }); !ok || wait != 0 {
		t.Error("forms are counted with headers")
	}
}

func TestSessionsEnd(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newSessions(func() time.Time { return now })
	defer s.close()
	id := s.begin()
	one := s.find(id, true)
	if one == nil || s.find("", true) != nil || s.find(id+"x", true) != nil || one.hasForm("") || !one.hasForm(one.form) {
		t.Fatal("not found, or something else is")
	}
	now = now.Add(sessionIdle - time.Second)
	if s.find(id, true) == nil {
		t.Error("it ended while it was used")
	}
	now = now.Add(sessionIdle)
	if s.find(id, true) != nil || one.ctx.Err() == nil {
		t.Error("it goes on without being used")
	}
	id = s.begin()
	for range int(sessionLife / time.Hour) {
		now = now.Add(time.Hour)
		s.find(id, true)
	}
	if s.find(id, true) != nil {
		t.Error("it lasts for ever")
	}
	first := s.begin()
	for range maxSessions {
		now = now.Add(time.Second)
		s.begin()
	}
	if len(s.all) != maxSessions || s.find(first, true) != nil {
		t.Errorf("%d sessions", len(s.all))
	}
	last := s.begin()
	s.finish(last)
	if s.find(last, true) != nil {
		t.Error("it goes on after its end")
	}
}

// A form of more than 16 KiB is not read, who does not go on is closed, and no more than
// so many are served at once.
func TestFormsAndConnectionsAreBounded(t *testing.T) {
	d := newDemo()
	s, origin := serve(t, d)
	v := newVisitor(s)
	if w := v.post("/configuration/reload", "x="+strings.Repeat("a", maxForm)); w.Code != 400 || len(d.changed) != 0 {
		t.Errorf("a large form: %d", w.Code)
	}
	if s.srv.ReadHeaderTimeout == 0 || s.srv.IdleTimeout == 0 || s.srv.MaxHeaderBytes == 0 {
		t.Error("a wait without an end")
	}
	address := strings.TrimPrefix(origin, "http://")
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	live := func(c net.Conn, wait time.Duration) error {
		if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 1))
		return err
	}
	for range maxConns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		if err := live(c, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	open = append(open, c)
	if live(c, 200*time.Millisecond) == nil {
		t.Error("one more was served at once")
	}
	_ = open[0].Close()
	// What it had asked is answered now.
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("it was not served when there was room: %v", err)
	}
}
