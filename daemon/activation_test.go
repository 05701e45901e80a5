//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// activate has the site's events socket belong to the test, as it belongs to systemd under
// a socket unit: it is there, and senders wait in its backlog, while no daemon is.
func activate(t *testing.T, s *site, backlog int) {
	t.Helper()
	path := filepath.Join(s.dir, "events.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { f.Close() })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, backlog)); err != nil {
		t.Fatal(err)
	}
	s.prepare = func(c *exec.Cmd) {
		name := filepath.Join(s.dir, "peanuts-relay")
		_ = os.Remove(name)
		if err := os.Symlink(c.Path, name); err != nil {
			t.Fatal(err)
		}
		c.ExtraFiles = []*os.File{f} // 3
		c.Args = append([]string{"sh", "-c", `export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=events; exec "$@"`, "sh", name}, c.Args[1:]...)
		c.Path = testhost.Program(t, "sh")
	}
}

// Senders that give up at the first difficulty do not notice that the daemon is restarted
// again and again: each connects once, with a connection of its own, or keeps one and does
// what HTTP says of those, and gets a 202.
func TestARestartRefusesNothing(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := newSite(t, "", crashWebhooks(r))
	activate(t, s, 4096)
	l := newLedger()
	restarts := times(t, "DAEMON_RESTARTS", 6)
	if refused, why := s.restarts(l, restarts); refused > 0 {
		t.Errorf("%d events were refused, the first: %v", refused, why)
	}
	p := s.up()
	s.settle()
	s.check(l, r, 4)
	p.stop()
	testhost.Cases(t, restarts)
	t.Logf("%d restarts, %d events acknowledged", restarts, l.len())
}

// The control: without the socket of a service manager the same senders do notice.
func TestARestartWithoutASocketUnitRefusesSomething(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := newSite(t, "", crashWebhooks(r))
	if refused, _ := s.restarts(newLedger(), 1); refused == 0 {
		t.Error("nobody noticed: the senders cannot tell")
	}
}

// restarts restarts the daemon under load. It returns how many events were refused, and why
// the first one.
func (s *site) restarts(l *ledger, times int) (refused int64, why error) {
	var next, bad atomic.Int64
	var first sync.Once
	each := func(client *http.Client) func(<-chan struct{}) {
		return func(<-chan struct{}) {
			n := int(next.Add(1))
			if err := s.sendOnce(client, l, n); err != nil {
				first.Do(func() { why = fmt.Errorf("event %d: %w", n, err) })
				bad.Add(1)
			}
		}
	}
	alone := &http.Client{Timeout: patience, Transport: s.client.Transport.(*http.Transport).Clone()}
	alone.Transport.(*http.Transport).DisableKeepAlives = true
	p := s.up()
	stop, stopKept := senders(8, each(alone)), senders(4, each(s.client))
	for range times {
		want := l.len() + 100
		until(s.t, "events to be acknowledged", func() bool { return l.len() > want })
		p.stop()
		<-time.After(100 * time.Millisecond) // as RestartSec=: senders wait meanwhile
		p = s.up()
	}
	stop()
	stopKept()
	p.stop()
	return bad.Load(), why
}

// sendOnce hands in event n; an error is whatever is no acknowledgement. Of a connection that
// was kept it is what HTTP says of those: when it turns out to be closed, another one is
// taken. net/http does so by itself for a request with this key, but not when a body of some
// KiB meets the end (it takes the broken pipe for an error of the body).
func (s *site) sendOnce(client *http.Client, l *ledger, n int) error {
	kept := client == s.client
	for {
		req, err := http.NewRequest(http.MethodPost, "http://relay/v1/events", strings.NewReader(crashRequest(n)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", fmt.Sprintf("own-%d", n))
		resp, err := client.Do(req)
		if kept && errors.Is(err, unix.EPIPE) {
			continue
		}
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status + " " + string(body))
		}
		return l.bookAnswer(n, body)
	}
}
