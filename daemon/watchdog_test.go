//go:build linux

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/disktest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// watchdogLimit is WatchdogSec= of the tests: long enough for a machine that is busy.
const watchdogLimit = 8 * time.Second

// manager is what systemd is to a service of Type=notify with WatchdogSec=: it hears what
// the main process tells, and when it hears no WATCHDOG=1 for so long it sends SIGABRT, and
// SIGCONT after it, for a process that was stopped.
type manager struct {
	t     *testing.T
	conn  *net.UnixConn
	blind bool // a process that lives counts as one that has fed: the control

	mu       sync.Mutex // guards the rest
	main     *process
	ready    bool
	fed      time.Time
	statuses []string
	bitten   time.Time
	timer    *time.Timer
}

func newManager(t *testing.T, s *site) *manager {
	t.Helper()
	path := filepath.Join(s.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, conn: conn}
	m.timer = time.AfterFunc(time.Hour, m.bite)
	var hearing sync.WaitGroup
	hearing.Go(m.hear)
	t.Cleanup(func() {
		conn.Close()
		hearing.Wait()
		m.timer.Stop()
	})
	s.env = append(s.env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC="+strconv.FormatInt(watchdogLimit.Microseconds(), 10))
	// The daemon's own number is known to a shell that becomes the daemon. What a program
	// is, this test goes by the name that it is called by.
	s.prepare = func(c *exec.Cmd) {
		name := filepath.Join(s.dir, "peanuts-relay")
		_ = os.Remove(name)
		if err := os.Symlink(c.Path, name); err != nil {
			t.Fatal(err)
		}
		c.Args = append([]string{"sh", "-c", `export WATCHDOG_PID=$$; exec "$@"`, "sh", name}, c.Args[1:]...)
		c.Path = testhost.Program(t, "sh")
	}
	return m
}

func (m *manager) hear() {
	message := make([]byte, 8<<10)
	for {
		n, err := m.conn.Read(message)
		if err != nil {
			return
		}
		m.mu.Lock()
		for line := range strings.SplitSeq(string(message[:n]), "\n") {
			switch status, ok := strings.CutPrefix(line, "STATUS="); {
			case ok:
				m.statuses = append(m.statuses, status)
			case line == "READY=1" && !m.ready:
				m.ready = true
				m.feed()
			case line == "WATCHDOG=1":
				m.feed()
			case line == "STOPPING=1":
				m.timer.Stop()
			}
		}
		m.mu.Unlock()
	}
}

func (m *manager) feed() {
	m.fed = time.Now()
	if m.ready {
		m.timer.Reset(watchdogLimit)
	}
}

func (m *manager) bite() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blind {
		m.feed()
		return
	}
	m.bitten = time.Now()
	for _, s := range []os.Signal{unix.SIGABRT, unix.SIGCONT} {
		_ = m.main.cmd.Process.Signal(s) // it may have ended
	}
}

// up starts the daemon and waits until events are accepted.
func (m *manager) up(s *site) *process {
	m.t.Helper()
	m.mu.Lock()
	m.ready, m.statuses, m.bitten = false, nil, time.Time{}
	m.mu.Unlock()
	p := s.start()
	m.mu.Lock()
	m.main = p
	m.mu.Unlock()
	p.waitLine("msg=ready")
	until(m.t, "READY=1", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.ready })
	return p
}

func (m *manager) said(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.statuses, func(s string) bool { return strings.Contains(s, text) })
}

func (m *manager) lastStatus() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.statuses) == 0 {
		return ""
	}
	return m.statuses[len(m.statuses)-1]
}

// A daemon that does nothing any more, because it was stopped or because its committer
// waits for ever, is ended by the watchdog within its time, and what it had acknowledged
// is there. A daemon that works, idle or busy, is not.
func TestAHangEndsInARestartByTheWatchdog(t *testing.T) {
	t.Parallel()
	rounds := times(t, "DAEMON_HANGS", 1)
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		hangs(t, rounds, "", func(p *process) {
			if err := p.cmd.Process.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("deadlock", func(t *testing.T) {
		t.Parallel()
		hangs(t, rounds, "commit.durable=hang@200", func(p *process) { p.waitLine("failpoint commit.durable: hang") })
	})
}

func hangs(t *testing.T, rounds int, failpoint string, hang func(*process)) {
	r := newReceiver(t)
	s := newSite(t, "", crashWebhooks(r))
	m := newManager(t, s)
	if failpoint != "" {
		s.binary = failingDaemon(t)
	}
	l := newLedger()
	var next atomic.Int64
	env := s.env
	var slowest time.Duration
	for range rounds {
		if failpoint != "" {
			s.env = append(slices.Clone(env), "FAILPOINT="+failpoint)
		}
		p := m.up(s)
		want := l.len() + 20
		stop := s.flood(l, &next, 4)
		until(t, "events to be acknowledged", func() bool { return l.len() > want })
		hang(p)
		began := time.Now()
		select {
		case <-p.over:
		case <-time.After(patience):
			t.Fatalf("the watchdog does not end it; status %q", m.lastStatus())
		}
		m.mu.Lock()
		bitten := m.bitten
		m.mu.Unlock()
		if bitten.IsZero() {
			t.Fatalf("it ended by itself:\n%s", p.output())
		}
		// On a machine that has time it is half a second; what had gone round before the
		// hang may be fed for after it.
		if bitten.Sub(began) > watchdogLimit*5/4 {
			t.Errorf("it ended %v after it hung", bitten.Sub(began))
		}
		slowest = max(slowest, bitten.Sub(began))
		if failpoint != "" && (!m.said("hangs: queue: the committer has not gone round") || !strings.Contains(p.output(), "the daemon hangs; the watchdog is not fed")) {
			t.Errorf("nobody was told: status %q", m.lastStatus())
		}
		if out := p.output(); !strings.Contains(out, "SIGABRT") || !strings.Contains(out, "goroutine ") {
			t.Error("it left no stacks")
		}
		s.env = env
		p = m.up(s)
		stop()
		s.settle()
		s.repeats(l)
		p.stop()
	}
	p := m.up(s)
	s.check(l, r, 4)
	p.stop()
	verifyStore(t, s.data)
	testhost.Cases(t, rounds)
	t.Logf("%d hangs, ended after at most %v", rounds, slowest.Round(time.Millisecond))
}

// The control: where living is enough, the same daemon in the same deadlock goes on for
// as long as one looks.
func TestAWatchdogThatLivingSatisfiesMissesTheDeadlock(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := newSite(t, "", crashWebhooks(r))
	m := newManager(t, s)
	s.binary = failingDaemon(t)
	m.blind = true
	s.env = append(s.env, "FAILPOINT=commit.durable=hang@50")
	l := newLedger()
	var next atomic.Int64
	p := m.up(s)
	stop := s.flood(l, &next, 4)
	p.waitLine("failpoint commit.durable: hang")
	until(t, "the hang to be told", func() bool { return m.said("hangs: queue") })
	<-time.After(2 * watchdogLimit)
	select {
	case <-p.over:
		t.Errorf("it ended although nobody did it:\n%s", p.output())
	default:
	}
	p.kill()
	s.env = slices.DeleteFunc(s.env, func(v string) bool { return strings.HasPrefix(v, "FAILPOINT=") })
	p = m.up(s)
	stop()
	p.stop()
}

// A disk that does not answer holds the daemon up inside the kernel, where no signal
// reaches it: it says so, is not ended, and goes on when the disk does.
func TestADiskThatDoesNotAnswerIsToldAndWaitedFor(t *testing.T) {
	t.Parallel()
	disk := disktest.New(t, "ext4", "", diskSize)
	r := newReceiver(t)
	s := newSite(t, filepath.Join(disk.Dir, "data"), crashWebhooks(r))
	m := newManager(t, s)
	l := newLedger()
	var next atomic.Int64
	p := m.up(s)
	stop := s.flood(l, &next, 4)
	until(t, "events to be acknowledged", func() bool { return l.len() > 50 })
	thaw := disk.Freeze()
	until(t, "the wait to be told", func() bool { return m.said("the storage does not answer") })
	<-time.After(2 * watchdogLimit)
	select {
	case <-p.over:
		t.Fatalf("it was ended:\n%s", p.output())
	default:
	}
	if st := m.lastStatus(); strings.Contains(st, "hangs") {
		t.Errorf("status %q", st)
	}
	thaw()
	want := l.len() + 50
	until(t, "events to be acknowledged again", func() bool { return l.len() > want })
	until(t, "the end of the wait to be told", func() bool { return m.lastStatus() == "configuration 1 runs" })
	stop()
	s.settle()
	s.check(l, r, 4)
	p.stop()
}
