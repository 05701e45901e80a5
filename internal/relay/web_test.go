package relay

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
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
	config, err := d.RunningConfig(t.Context())
	if err != nil || !strings.Contains(config.YAML, "web_token") {
		t.Errorf("%v\n%s", err, config.YAML)
	}
	metrics, err := d.Metrics(t.Context())
	if err != nil {
		t.Error(err)
	}
	d.stop()
	if strings.Contains(h.log.String()+config.YAML+string(metrics), webToken) {
		t.Error("the token is shown")
	}
}

// What has the port costs the daemon its page, and nothing else; when it goes, the page is there.
func TestAPortOfThePageThatIsTakenIsSaidAndTriedAgain(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	rc := receive(t, nil)
	h := newHome(t)
	text := strings.Replace(h.webText(helperWith(rc.URL, "")), "127.0.0.1:0", other.Addr().String(), 1)
	d := h.launch(text, func(o *Options) { o.sideAgain = 10 * time.Millisecond })
	<-d.ready
	h.send("e1")
	d.row("expenses.backend", "success", hasStatus(rest.StatusSuccess))
	s, err := d.Status(t.Context())
	if err != nil || !slices.ContainsFunc(s.Reasons, func(why string) bool {
		return strings.HasPrefix(why, "listen.web is not served: ") && strings.Contains(why, "in use")
	}) {
		t.Errorf("status %+v, %v", s, err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	await(t, "the page", func() (rest.Status, error) { return d.Status(t.Context()) }, func(s rest.Status) bool { return len(s.Reasons) == 0 })
	if got := d.webGet(t, "/livez", "").StatusCode; got != 200 {
		t.Errorf("/livez: %d", got)
	}
	d.stop()
}

func TestANameThatIsNoLoopbackIsNotListenedOn(t *testing.T) {
	m := newRelay(&config.Config{}, Options{}).web
	m.local = true
	if l, err := m.listen("0.0.0.0:0"); err == nil || l != nil || !strings.Contains(err.Error(), "other machines can reach") {
		t.Errorf("%v, %v", l, err)
	}
}
