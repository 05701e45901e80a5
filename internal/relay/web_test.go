package relay

import (
	"net/http"
	"strings"
	"testing"
)

const webToken = "0123456789abcdef0123456789abcdef"

// webText is a configuration with the page on any free port.
func (h *home) webText(rest string) string {
	return "listen: {events: " + h.path("events.sock") + ", admin: " + h.path("admin.sock") + ", web: \"127.0.0.1:0\", web_token: " + webToken + "}\n" +
		"queue: {dir: " + h.path("data") + ", min_free: 128MiB}\n" + rest
}

func (d *daemon) webGet(t *testing.T, path, authorization string) *http.Response {
	t.Helper()
	status, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+status.Listen.Web+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return resp
}

func TestTheRESTRoutesAreOnTheWebListenerToo(t *testing.T) {
	h := newHome(t)
	d := h.launch(h.webText("helpers: {notes: {webhooks: {}}}\n"))
	<-d.ready
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/v1/status": 401, "/metrics": 401} {
		if got := d.webGet(t, path, "").StatusCode; got != want {
			t.Errorf("%s without the token: %d", path, got)
		}
		if got := d.webGet(t, path, "Bearer "+webToken).StatusCode; got != 200 {
			t.Errorf("%s with it: %d", path, got)
		}
	}
	d.cancel()
	if err := d.end(); err != nil {
		t.Error(err)
	}
	if strings.Contains(h.log.String(), webToken) {
		t.Error("the token is in the log")
	}
}

// A second daemon on the same port ends before it touches anything.
func TestAnAddressOfThePageThatIsTakenEndsTheStart(t *testing.T) {
	first := newHome(t)
	a := first.launch(first.webText("helpers: {notes: {webhooks: {}}}\n"))
	<-a.ready
	status, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := newHome(t)
	b := second.launch(strings.Replace(second.webText("helpers: {notes: {webhooks: {}}}\n"), "127.0.0.1:0", status.Listen.Web, 1))
	if err := b.end(); err == nil || !strings.Contains(err.Error(), "listen.web") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
}
