package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// freeAddress is an address that nobody listens on. Somebody may come to have it; then
// the daemon goes on trying.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// withMetrics is the configuration with a metrics listener.
func (h *home) withMetrics(address, rest string) string {
	return strings.Replace(h.text(rest), "listen: {", `listen: {metrics: "`+address+`", `, 1)
}

// listening waits for the daemon to serve metrics and returns where.
func (d *daemon) listening() string {
	d.t.Helper()
	return await(d.t, "the metrics listener", func() (string, error) {
		if at := d.relay.metrics.at.Load(); at != nil {
			return (*at).String(), nil
		}
		return "", errors.New("not yet")
	}, func(string) bool { return true })
}

// ask makes a request to the metrics listener.
func ask(t *testing.T, address, path string) (int, string) {
	t.Helper()
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestTheMetricsListenerServesMetricsAndHealthAndNothingElse(t *testing.T) {
	h, rc := newHome(t), receive(t, nil)
	d := h.launch(h.withMetrics(freeAddress(t), helperWith(rc.URL, "")))
	<-d.ready
	address := d.listening()
	h.send("e1")
	d.row("expenses.backend", "success", hasStatus(rest.StatusSuccess))
	_, text := ask(t, address, "/metrics")
	for _, want := range []string{
		`peanuts_relay_events_accepted_total{helper="expenses"} 1`, `peanuts_relay_event_accept_duration_seconds_count 1`, `peanuts_relay_ready 1`,
		`peanuts_relay_attempt_duration_seconds_count{outcome="success",sink="http"} 1`, `peanuts_relay_accept_to_success_seconds_count{sink="http"} 1`,
		`peanuts_relay_webhook_attempt_duration_seconds_count{webhook="expenses.backend"} 1`,
		`peanuts_relay_attempts_total{outcome="success",webhook="expenses.backend"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the scrape lacks %s", want)
		}
	}
	for _, family := range []string{"go_goroutines ", "process_open_fds ", "promhttp_metric_handler_errors_total{"} {
		if !strings.Contains(text, "\n"+family) {
			t.Errorf("the scrape lacks %s", family)
		}
	}
	if strings.Contains(text, "peanuts_relay_queue_commit_duration_seconds_count 0\n") {
		t.Error("no commit was timed")
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/v1/status": 404, "/v1/deliveries": 404, "/": 404, "/debug/pprof/": 404, "/metrics?x=1": 400} {
		if code, body := ask(t, address, path); code != want {
			t.Errorf("%s was answered %d, want %d: %s", path, code, want, body)
		}
	}
	resp, err := http.Post("http://"+address+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST was answered %d", resp.StatusCode)
	}
	if s, err := d.Status(t.Context()); err != nil || s.Listen.Metrics == "" || s.State != rest.StateOK {
		t.Errorf("status %+v, %v", s, err)
	}
	d.stop()
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("the address is still listened on after the stop")
	}
}

func TestAnAddressThatSomebodyHasIsSaidAndTriedAgain(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	h, rc := newHome(t), receive(t, nil)
	d := h.launch(h.withMetrics(other.Addr().String(), helperWith(rc.URL, "")), func(o *Options) { o.sideAgain = 10 * time.Millisecond })
	<-d.ready
	h.send("e1") // what the daemon is for goes on
	d.row("expenses.backend", "success", hasStatus(rest.StatusSuccess))
	s, err := d.Status(t.Context())
	if err != nil || s.State != rest.StateDegraded || !slices.ContainsFunc(s.Reasons, func(why string) bool { return strings.HasPrefix(why, "listen.metrics is not served: ") }) {
		t.Errorf("status %+v, %v", s, err)
	}
	if n := strings.Count(h.log.String(), "address cannot be listened on"); n != 1 {
		t.Errorf("it is logged %d times, want once", n)
	}
	other.Close()
	if code, _ := ask(t, d.listening(), "/readyz"); code != 200 {
		t.Errorf("/readyz was answered %d", code)
	}
	if s, err := d.Status(t.Context()); err != nil || s.State != rest.StateOK {
		t.Errorf("status %+v, %v", s, err)
	}
	d.stop()
}

// probes is what both health routes answer.
func probes(t *testing.T, address string) (live, ready int, why string) {
	t.Helper()
	live, _ = ask(t, address, "/livez")
	ready, why = ask(t, address, "/readyz")
	return live, ready, why
}

func TestHealthWhileThereIsNoSpaceAndWhileStopping(t *testing.T) {
	release := make(chan struct{})
	rc := receive(t, func(http.ResponseWriter, *http.Request, string) { <-release })
	h := newHome(t)
	address := freeAddress(t)
	d := h.launch(strings.Replace(h.withMetrics(address, helperWith(rc.URL, "")), "min_free: 128MiB", "min_free: 64TiB", 1))
	d.listening()
	await(t, "the wait for space", func() (string, error) { _, _, why := probes(t, address); return why, nil },
		func(why string) bool { return strings.Contains(why, "too little disk space") })
	if live, ready, why := probes(t, address); live != 200 || ready != 503 {
		t.Errorf("without space: live %d, ready %d: %s", live, ready, why)
	}
	d.stop()

	d = h.launch(h.withMetrics(address, helperWith(rc.URL, "")))
	<-d.ready
	d.listening()
	if live, ready, why := probes(t, address); live != 200 || ready != 200 {
		t.Errorf("running: live %d, ready %d: %s", live, ready, why)
	}
	h.send("e1")
	rc.next(t)
	d.cancel()
	await(t, "the stop", func() (string, error) { _, _, why := probes(t, address); return why, nil },
		func(why string) bool { return strings.Contains(why, "stopping") })
	if live, ready, why := probes(t, address); live != 200 || ready != 503 {
		t.Errorf("stopping: live %d, ready %d: %s", live, ready, why)
	}
	if _, text := ask(t, address, "/metrics"); !strings.Contains(text, "peanuts_relay_ready 0\n") {
		t.Error("a daemon that stops says that it is ready")
	}
	close(release)
	if err := d.end(); err != nil {
		t.Fatal(err)
	}
}

// A reload says that the key waits for the next start, and goes on with the old one.
func TestAnotherAddressTakesEffectAtTheNextStart(t *testing.T) {
	h, rc := newHome(t), receive(t, nil)
	old, next := freeAddress(t), freeAddress(t)
	d := h.launch(h.withMetrics(old, helperWith(rc.URL, "")))
	<-d.ready
	d.listening()
	if err := os.WriteFile(filepath.Join(h.dir, "config.yaml"), []byte(h.withMetrics(next, helperWith(rc.URL, ""))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	code, text := ask(t, old, "/metrics")
	if want := `peanuts_relay_config_restart_required{key="listen.metrics"} 1`; code != 200 || !strings.Contains(text, want) {
		t.Errorf("answered %d, without %s", code, want)
	}
	d.stop()
}

// Nothing is running: what the API says then is what it says of a store that is late.
func TestHealthBeforeTheStoreIsOpenAndAfterItFailed(t *testing.T) {
	h := newHome(t)
	r := newRelay(h.load(h.text(helperWith("https://127.0.0.1:1/", ""))), h.options())
	if err := r.build(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.api.ServeMetrics(l) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(r.api.ShutdownMetrics(ctx), <-served); err != nil {
			t.Error(err)
		}
	}()
	if live, ready, why := probes(t, l.Addr().String()); live != 200 || ready != 503 || !strings.Contains(why, errStarting.Error()) {
		t.Errorf("starting: live %d, ready %d: %s", live, ready, why)
	}
	r.onFatal(errors.New("input/output error"))
	if _, ready, why := probes(t, l.Addr().String()); ready != 503 || !strings.Contains(why, queue.ErrStopped.Error()) {
		t.Errorf("after a storage error: ready %d: %s", ready, why)
	}
}
