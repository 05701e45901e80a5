package zapiertest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const path = "/hooks/catch/123456/abcdef/"

func post(t *testing.T, s *Service, path, body string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body)))
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAHookIsAnsweredWhetherTheZapIsOnOrNot(t *testing.T) {
	s := New(nil)
	for _, state := range []State{On, Off} {
		s.Set(path, state)
		r := post(t, s, path, `{"a":1}`)
		if body := text(t, r); r.StatusCode != 200 || !strings.Contains(body, `"status":"success"`) || !strings.Contains(body, `"request_id":"`) {
			t.Errorf("%v: %d %s", state, r.StatusCode, body)
		}
	}
	if runs := s.Runs(); len(runs) != 1 || string(runs[0]) != `{"a":1}` {
		t.Errorf("%s", runs)
	}
	if n := len(s.Requests()); n != 2 {
		t.Errorf("%d requests", n)
	}
}

func TestSilentModeAnswersWithoutABody(t *testing.T) {
	s := New(nil)
	r := post(t, s, path+"silent/", `{"a":1}`)
	if body := text(t, r); r.StatusCode != 200 || body != "" || len(s.Runs()) != 1 {
		t.Errorf("%d %q, %d runs", r.StatusCode, body, len(s.Runs()))
	}
}

func TestAnArrayStartsARunForEachElement(t *testing.T) {
	s := New(nil)
	post(t, s, path, `[{"a":1},{"a":2}]`)
	if runs := s.Runs(); len(runs) != 2 || string(runs[1]) != `{"a":2}` {
		t.Errorf("%s", runs)
	}
}

func TestWhatIsRefused(t *testing.T) {
	s := New(nil)
	s.Set("/hooks/standard/1/gone/", Unsubscribed)
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/hooks/standard/1/gone/", "{}", 410},
		{"/hooks/standard/1/other/", "{}", 200},
		{"/hooks/other/1/2/", "{}", 404},
		{"/", "{}", 404},
		{path, strings.Repeat(" ", maxBody), 200},
		{path, strings.Repeat(" ", maxBody+1), 413},
	} {
		if r := post(t, s, c.path, c.body); r.StatusCode != c.status {
			t.Errorf("%s, %d bytes: %d, not %d", c.path, len(c.body), r.StatusCode, c.status)
		}
	}
}

func TestThirtyRequestsASecondForEachHook(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := New(func() time.Time { return now })
	for i := range maxPerSecond {
		if r := post(t, s, path, "{}"); r.StatusCode != 200 {
			t.Fatalf("request %d: %d", i, r.StatusCode)
		}
	}
	if r := post(t, s, path, "{}"); r.StatusCode != 429 || r.Header.Get("Retry-After") == "" {
		t.Errorf("%d", r.StatusCode)
	}
	if r := post(t, s, "/hooks/catch/123456/other/", "{}"); r.StatusCode != 200 {
		t.Errorf("another hook: %d", r.StatusCode)
	}
	now = now.Add(time.Second)
	if r := post(t, s, path, "{}"); r.StatusCode != 200 {
		t.Errorf("a second later: %d", r.StatusCode)
	}
}

func TestFaultsAreUsedUpInOrder(t *testing.T) {
	s := New(nil)
	s.Break(Fault{Times: 2, Status: 503, RetryAfter: "7"}, Fault{Status: 500, AfterRun: true})
	for i, want := range []struct{ status, runs int }{{503, 0}, {503, 0}, {500, 1}, {200, 2}} {
		r := post(t, s, path, "{}")
		if r.StatusCode != want.status || len(s.Runs()) != want.runs {
			t.Errorf("request %d: %d, %d runs", i, r.StatusCode, len(s.Runs()))
		}
	}
}
