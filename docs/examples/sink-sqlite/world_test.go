package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// world is a relay of its own that uses the sink, as programs, and the sink's database.
type world struct {
	t             *testing.T
	dir           string // short, for the paths of sockets
	db            *sql.DB
	events, admin *http.Client
	daemon        *exec.Cmd
	log           *os.File
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sqlite-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, events: client(dir + "/events.sock"), admin: client(dir + "/admin.sock"), db: openDatabase(t, dir+"/entries.db")}
	t.Cleanup(func() {
		if w.daemon != nil {
			w.kill()
		}
		if t.Failed() {
			log, err := os.ReadFile(dir + "/log")
			t.Logf("the log of the daemon (%v):\n%s", err, log)
		}
		w.events.CloseIdleConnections()
		w.admin.CloseIdleConnections()
		_ = os.RemoveAll(dir)
	})
	if w.log, err = os.Create(dir + "/log"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.log.Close() })
	relay := run(t, ".", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/peanutsapp/peanuts-relay")
	run(t, relay, "go", "build", "-o", dir+"/peanuts-relay", "./daemon")
	run(t, ".", "go", "build", "-o", dir+"/peanuts-sink-sqlite", ".")
	config := fmt.Sprintf(`
listen: {events: %[1]s/events.sock, admin: %[1]s/admin.sock}
queue: {dir: %[1]s/queue, min_free: 1MiB}
retry: {schedule: [1s, 1s, 1s, 1s, 1s, 1s, 1s, 1s, 1s, 1s]}
sinks:
  sqlite: {path: %[1]s/peanuts-sink-sqlite}
helpers:
  expenses:
    name: Daily Expenses
    webhooks:
      table: {sink: sqlite, settings: {path: %[1]s/entries.db}}
`, dir)
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func client(socket string) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
}

// start starts the daemon and waits until it takes events.
func (w *world) start() {
	w.t.Helper()
	w.daemon = exec.Command(w.dir+"/peanuts-relay", "serve", "--config", w.dir+"/config.yaml")
	w.daemon.Stdout, w.daemon.Stderr = w.log, w.log
	if err := w.daemon.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.await("the daemon is ready", func(s status) bool { return s.State != "starting" && s.pid() != 0 })
}

func (w *world) signal(s syscall.Signal) {
	w.t.Helper()
	if err := w.daemon.Process.Signal(s); err != nil {
		w.t.Fatal(err)
	}
}

// kill ends the daemon with SIGKILL; its plugin ends with it.
func (w *world) kill() {
	_ = w.daemon.Process.Kill()
	_ = w.daemon.Wait()
	w.daemon = nil
}

func (w *world) killPlugin() {
	w.t.Helper()
	if pid := w.status().pid(); pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			w.t.Error(err)
		}
	}
}

// send hands in an event about one of ten entries, again and again until it is taken.
func (w *world) send(n string) {
	sum := 0
	for _, b := range []byte(n) {
		sum += int(b)
	}
	body := fmt.Sprintf(`{"id":%q,"event":"entry.updated","helper":"expenses","entry":{"id":"e%d","data":{"n":%q}}}`, n, sum%10, n)
	taken := w.within(time.Minute, func() bool {
		resp, err := w.events.Post("http://relay/v1/events", "application/json", strings.NewReader(body))
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusAccepted || resp.StatusCode == http.StatusOK
	})
	if !taken {
		w.t.Errorf("the event %s was not taken", n)
	}
}

// status is what this test reads of GET /v1/status.
type status struct {
	State    string
	Webhooks []struct {
		Counts struct {
			Pending  int `json:"pending"`
			InFlight int `json:"in_flight"`
			Failed   int `json:"failed"`
		}
	}
	Plugins []struct {
		State string
		PID   int
	}
}

func (s status) pid() int {
	for _, p := range s.Plugins {
		if p.State == "ready" {
			return p.PID
		}
	}
	return 0
}

func (s status) pending() (n int) {
	for _, w := range s.Webhooks {
		n += w.Counts.Pending + w.Counts.InFlight
	}
	return n
}

func (s status) inFlight() (n int) {
	for _, w := range s.Webhooks {
		n += w.Counts.InFlight
	}
	return n
}

func (w *world) status() (s status) {
	if text := w.get("/v1/status"); text != "" {
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			w.t.Error(err)
		}
	}
	return s
}

// get asks the admin API; "" = there was no answer.
func (w *world) get(path string) string {
	resp, err := w.admin.Get("http://relay" + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, resp.Body); err != nil {
		return ""
	}
	return b.String()
}

// delivery is the one that an event's document tells of.
func (w *world) delivery(event string) string {
	_, rest, _ := strings.Cut(event, `"del_`)
	id, _, _ := strings.Cut(rest, `"`)
	return w.get("/v1/deliveries/del_" + id)
}

// settled waits until every delivery has ended, each with success.
func (w *world) settled() {
	w.t.Helper()
	w.await("everything is delivered", func(s status) bool { return len(s.Webhooks) > 0 && s.pending() == 0 })
	if s := w.status(); s.Webhooks[0].Counts.Failed != 0 {
		w.t.Fatalf("%d deliveries failed", s.Webhooks[0].Counts.Failed)
	}
}

func (w *world) await(what string, is func(status) bool) {
	w.t.Helper()
	if !w.within(time.Minute, func() bool { return is(w.status()) }) {
		w.t.Fatalf("waited in vain until %s: %+v", what, w.status())
	}
}

// within asks again and again until the answer is yes or the time is over.
func (w *world) within(limit time.Duration, is func() bool) bool {
	tick, end := time.NewTicker(5*time.Millisecond), time.Now().Add(limit)
	defer tick.Stop()
	for time.Now().Before(end) {
		if is() {
			return true
		}
		<-tick.C
	}
	return false
}
