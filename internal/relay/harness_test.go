package relay

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

func TestMain(m *testing.M) {
	zoo.Main()
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen.
const patience = time.Minute

// home is where one daemon lives, over several lives of it. Its path is short:
// a socket's may have 107 bytes.
type home struct {
	t   *testing.T
	dir string
	log *safeBuffer
	env map[string]string

	report *config.Report // of the newest load
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &home{t: t, dir: dir, log: &safeBuffer{}, env: map[string]string{"STATE_DIRECTORY": dir}}
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

// text completes a configuration with the sockets and the queue of this home.
func (h *home) text(rest string) string {
	return "listen: {events: " + h.path("events.sock") + ", admin: " + h.path("admin.sock") + "}\n" +
		"queue: {dir: " + h.path("data") + ", min_free: 128MiB}\n" + rest
}

func (h *home) lookup(name string) (string, bool) {
	v, ok := h.env[name]
	return v, ok
}

func (h *home) load(text string) *config.Config {
	h.t.Helper()
	path := h.path("config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: h.lookup})
	h.report = report
	if err := report.Err(); err != nil {
		var findings bytes.Buffer
		_ = report.WriteText(&findings, false)
		h.t.Fatalf("%v\n%s", err, &findings)
	}
	return cfg
}

func (h *home) options() Options {
	return Options{Logger: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Version: "1.2.3", Commit: "abcdef", Path: h.path("config.yaml"), Report: h.report, LookupEnv: h.lookup}
}

// daemon is one running relay.
type daemon struct {
	*home
	*adminclient.Client
	relay  *relay
	cancel context.CancelFunc
	ready  chan struct{}
	ended  chan struct{}
	err    error // of run, once ended
}

// launch starts a relay and returns at once.
func (h *home) launch(text string, adjust ...func(*Options)) *daemon {
	h.t.Helper()
	cfg := h.load(text)
	o := h.options()
	d := &daemon{home: h, Client: adminclient.New(h.path("admin.sock")), ready: make(chan struct{}), ended: make(chan struct{})}
	o.Ready = func() { close(d.ready) }
	for _, f := range adjust {
		f(&o)
	}
	d.relay = newRelay(cfg, o)
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	go func() {
		defer close(d.ended)
		d.err = d.relay.run(ctx)
	}()
	h.t.Cleanup(func() {
		cancel()
		<-d.ended
		d.Client.Close()
	})
	return d
}

// start returns when the relay is ready. The rest is what the configuration has
// besides sockets and queue.
func (h *home) start(rest string, adjust ...func(*Options)) *daemon {
	h.t.Helper()
	d := h.launch(h.text(rest), adjust...)
	select {
	case <-d.ready:
	case <-d.ended:
		h.t.Fatalf("the relay ended: %v", d.err)
	case <-time.After(patience):
		h.t.Fatal("the relay does not get ready")
	}
	return d
}

// end waits for the end of the relay and returns its error.
func (d *daemon) end() error {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Fatal("the relay does not end")
	}
	d.Client.Close()
	return d.err
}

// stop stops the relay, which must be clean.
func (d *daemon) stop() {
	d.t.Helper()
	d.cancel()
	if err := d.end(); err != nil {
		d.t.Fatalf("a clean stop returned: %v", err)
	}
}

// post hands in a body and returns status and answer.
func (h *home) post(body string) (int, string) {
	h.t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", h.path("events.sock"))
		}}}
	resp, err := c.Post("http://localhost/v1/events", "application/json", strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// send hands in a created entry of the helper "expenses", which must be
// accepted.
func (h *home) send(entry string) {
	h.t.Helper()
	status, answer := h.post(`{"id":"id-` + entry + `","event":"entry.created","helper":"expenses","entry":{"id":"` + entry + `","data":{"amount":42.5}}}`)
	if status != http.StatusAccepted {
		h.t.Fatalf("the event was answered %d %s", status, answer)
	}
}

// await polls until ok, with what was seen last in the failure.
func await[T any](t *testing.T, what string, look func() (T, error), ok func(T) bool) T {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		v, err := look()
		if err == nil && ok(v) {
			return v
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not come about; seen last: %+v, %v", what, v, err)
		}
	}
}

// row waits until the only delivery of a webhook satisfies ok.
func (d *daemon) row(webhook, what string, ok func(rest.Delivery) bool) rest.Delivery {
	d.t.Helper()
	return await(d.t, what, func() (rest.Delivery, error) {
		page, err := d.Deliveries(d.t.Context(), adminclient.DeliveryQuery{Webhook: webhook})
		if err != nil || len(page.Deliveries) == 0 {
			return rest.Delivery{}, err
		}
		if len(page.Deliveries) > 1 {
			d.t.Fatalf("%d deliveries of %s, want 1", len(page.Deliveries), webhook)
		}
		return page.Deliveries[0], nil
	}, ok)
}

func hasStatus(status string) func(rest.Delivery) bool {
	return func(r rest.Delivery) bool { return r.Status == status }
}

// receiver is an HTTP endpoint that remembers what it got.
type receiver struct {
	*httptest.Server
	got    chan got
	answer func(w http.ResponseWriter, r *http.Request, body string)
}

type got struct {
	header http.Header
	body   string
}

// receive starts a receiver; a nil answer is 200.
func receive(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, body string)) *receiver {
	t.Helper()
	rc := &receiver{got: make(chan got, 100), answer: answer}
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rc.got <- got{r.Header.Clone(), string(body)}
		if rc.answer != nil {
			rc.answer(w, r, string(body))
		}
	}))
	t.Cleanup(rc.Close)
	return rc
}

func status(code int) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(code) }
}

// next waits for the next request.
func (rc *receiver) next(t *testing.T) got {
	t.Helper()
	select {
	case g := <-rc.got:
		return g
	case <-time.After(patience):
		t.Fatal("no request came")
		return got{}
	}
}

// helperWith is a configuration with one helper and one webhook.
func helperWith(url, more string) string {
	return "helpers: {expenses: {secret: 0123456789abcdef01234567, webhooks: {backend: {url: \"" + url + "\"" + more + "}}}}\n"
}

// safeBuffer may be written and read concurrently.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
