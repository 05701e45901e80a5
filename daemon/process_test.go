package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
)

// patience is how long a test waits for anything.
const patience = 60 * time.Second

// site is the directory, the configuration and the sockets of a daemon that a
// test starts again and again.
type site struct {
	t      *testing.T
	dir    string   // sockets and configuration
	data   string   // the queue's directory
	env    []string // of the daemon, besides the test's own
	binary string   // "" = this test, or what DAEMON_BINARY names
	// prepare changes the daemon's command before it is started; nil = nothing.
	prepare func(*exec.Cmd)
	client  *http.Client
	admin   *adminclient.Client
}

// newSite writes the configuration: the helper "crash" with these webhooks.
// data is the queue's directory, "" for one beside the sockets.
func newSite(t *testing.T, data, webhooks string) *site {
	t.Helper()
	// A socket's path has room for 107 bytes, which t.TempDir may exceed.
	dir, err := os.MkdirTemp("", "relay")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: dir, data: data}
	if s.data == "" {
		s.data = filepath.Join(t.TempDir(), "data")
	}
	text := fmt.Sprintf(`listen: {events: %[1]s/events.sock, admin: %[1]s/admin.sock}
log: {format: text}
queue: {dir: %[2]s, min_free: 128MiB}
retry: {timeout: 30s, schedule: [100ms, 1s, 5s]}
helpers:
  crash:
    name: Crash
    secret: %[3]s
    webhooks:
%[4]s`, dir, s.data, crashSecret, webhooks)
	if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.client = &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "events.sock"))
		}}}
	s.admin = adminclient.New(filepath.Join(dir, "admin.sock"))
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.admin.Close()
		os.RemoveAll(dir)
	})
	return s
}

func (s *site) config() string { return filepath.Join(s.dir, "config.yaml") }

// process is one daemon: this test binary under the program's name.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	over chan struct{}

	mu    sync.Mutex // guards the rest
	lines []string
	grew  chan struct{} // closed when a line was added
}

// start runs serve: of this test binary, or of the program that DAEMON_BINARY
// names. The process is killed at the end of the test if it is still
// there.
func (s *site) start() *process {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	self = cmp.Or(s.binary, os.Getenv("DAEMON_BINARY"), self)
	p := &process{t: s.t, over: make(chan struct{}), grew: make(chan struct{})}
	p.cmd = exec.Command(self, "serve", "--config", s.config())
	p.cmd.Args[0] = "peanuts-relay"
	p.cmd.Env = append(append(os.Environ(), "STATE_DIRECTORY="+s.dir), s.env...)
	if s.prepare != nil {
		s.prepare(p.cmd)
	}
	out, err := p.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20) // a plugin's line has up to 64 KiB, and what the daemon says of it
		for lines.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			close(p.grew)
			p.grew = make(chan struct{})
			p.mu.Unlock()
		}
		_ = p.cmd.Wait() // ProcessState has it
		close(p.over)
	}()
	s.t.Cleanup(p.kill)
	return p
}

// up is start, and waits until events are accepted.
func (s *site) up() *process {
	s.t.Helper()
	p := s.start()
	p.waitLine("msg=ready")
	return p
}

// waitLine waits for a line of the log that contains text.
func (p *process) waitLine(text string) {
	p.t.Helper()
	deadline := time.After(patience)
	for seen := 0; ; {
		p.mu.Lock()
		lines, grew := p.lines[seen:], p.grew
		p.mu.Unlock()
		for _, line := range lines {
			if strings.Contains(line, text) {
				return
			}
		}
		seen += len(lines)
		select {
		case <-grew:
		case <-p.over:
			p.t.Fatalf("the daemon ended with %v before it logged %q:\n%s", p.cmd.ProcessState, text, p.output())
		case <-deadline:
			p.t.Fatalf("waited %v for %q:\n%s", patience, text, p.output())
		}
	}
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.over
}

// wait returns the exit status, -1 for a signal.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.over:
	case <-time.After(patience):
		p.t.Fatalf("the daemon does not end:\n%s", p.output())
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop ends the daemon as a service manager does.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
	if code := p.wait(); code != 0 {
		p.t.Fatalf("the daemon ended with %d:\n%s", code, p.output())
	}
}

// until asks again and again until done says yes.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited %v for %s", patience, what)
		case <-tick.C:
		}
	}
}
