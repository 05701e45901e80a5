package cli

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serviceManager listens as systemd does, and tells the daemon where.
func serviceManager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // a test's own is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		os.RemoveAll(dir)
	})
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func told(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	message := make([]byte, 4096)
	n, err := conn.Read(message)
	if err != nil {
		t.Fatal(err)
	}
	return string(message[:n])
}

func monotonicMicros(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

func TestTheServiceManagerHearsOfAReload(t *testing.T) {
	conn := serviceManager(t)
	n := newNotifier()
	before := monotonicMicros(t)
	for _, state := range []string{"READY=1\nSTATUS=delivering", "RELOADING=1", "RELOADING=1\nSTATUS=reloading", "READY=1", "STOPPING=1"} {
		if err := n.notify(state); err != nil {
			t.Fatal(err)
		}
	}
	after := monotonicMicros(t)
	if got := told(t, conn); got != "READY=1\nSTATUS=delivering" {
		t.Errorf("told %q", got)
	}
	for _, want := range []string{"RELOADING=1\n", "RELOADING=1\nSTATUS=reloading\n"} {
		got := told(t, conn)
		found := regexp.MustCompile(`^MONOTONIC_USEC=(\d+)\n$`).FindStringSubmatch(strings.TrimPrefix(got, want))
		if found == nil {
			t.Fatalf("told %q, want %q and the time", got, want)
		}
		if at, err := strconv.ParseInt(found[1], 10, 64); err != nil || at < before || at > after {
			t.Errorf("time %s, not between %d and %d", found[1], before, after)
		}
	}
	if got := told(t, conn); got != "READY=1" {
		t.Errorf("told %q", got)
	}
	if got := told(t, conn); got != "STOPPING=1" {
		t.Errorf("told %q", got)
	}
}

func TestWithoutAServiceManagerNothingIsTold(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := newNotifier().notify("READY=1"); err != nil {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := newNotifier().notify("READY=1"); err == nil || !strings.Contains(err.Error(), "notify the service manager") {
		t.Errorf("a socket that is not there: %v", err)
	}
}

// fill writes to a socket that nobody reads until it takes no more, and returns how many
// messages that were.
func fill(t *testing.T, path string) (sent int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		switch err := unix.Sendto(fd, []byte("full"), 0, &unix.SockaddrUnix{Name: path}); err {
		case nil:
			sent++
		case unix.EAGAIN:
			return sent
		default:
			t.Fatal(err)
		}
	}
}

func TestAServiceManagerThatDoesNotReadStopsNobody(t *testing.T) {
	conn := serviceManager(t)
	sent := fill(t, conn.LocalAddr().String())
	n := newNotifier()
	n.patience = 50 * time.Millisecond
	if err := n.notify("STATUS=late"); err == nil || !strings.Contains(err.Error(), "has not taken the message for") {
		t.Errorf("error %v", err)
	}
	if err := n.notify("READY=1"); err == nil || !strings.Contains(err.Error(), "before") {
		t.Errorf("behind it: %v", err)
	}
	// When it reads again, the message that was under way comes, and then others.
	for range sent {
		if got := told(t, conn); got != "full" {
			t.Errorf("told %q", got)
		}
	}
	if got := told(t, conn); got != "STATUS=late" {
		t.Errorf("told %q", got)
	}
	n.patience = 30 * time.Second
	if err := n.notify("READY=1"); err != nil {
		t.Fatal(err)
	}
	if got := told(t, conn); got != "READY=1" {
		t.Errorf("told %q", got)
	}
}

func TestTheWatchdogOfTheServiceManagerIsForItsMainProcess(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, of := range []struct {
		usec, pid string
		want      time.Duration
		warns     bool
	}{
		{"60000000", own, time.Minute, false},
		{"60000000", "", time.Minute, false},
		{"60000000", "1", 0, false},
		{"", "", 0, false},
		{"soon", own, 0, true},
		{"-1", own, 0, true},
	} {
		t.Setenv("WATCHDOG_USEC", of.usec)
		t.Setenv("WATCHDOG_PID", of.pid)
		var said bytes.Buffer
		a := &app{Streams: Streams{Err: &said, Env: environment()}}
		if got := a.watchdogLimit(); got != of.want || (said.Len() > 0) != of.warns {
			t.Errorf("%q of %q: %v, said %q", of.usec, of.pid, got, said.String())
		}
	}
}
