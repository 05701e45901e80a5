package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lab is one benchmark's directory, receiver and daemon.
type lab struct {
	dir      string // everything that is written
	binary   string // the daemon
	secret   string
	recvAddr string
	downAddr string // the receiver's address that can be taken down
	tlsAddr  string // the receiver's address that speaks TLS
	caFile   string // the certificate that it shows there
	settings string // more top-level keys of the configuration
	helpers  string // more helpers of the configuration
	recv     *exec.Cmd
	daemon   *exec.Cmd
}

func (l *lab) socket() string { return filepath.Join(l.dir, "events.sock") }
func (l *lab) data() string   { return filepath.Join(l.dir, "data") }

// sibling is a second daemon, in a directory of its own, with the same receiver.
func (l *lab) sibling(name string) (*lab, error) {
	s := *l
	s.dir, s.daemon, s.settings, s.helpers = filepath.Join(l.dir, name), nil, "", ""
	return &s, os.Mkdir(s.dir, 0o700)
}

// command is a subcommand of this program, which ends with this process.
func command(args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.Command(exe, args...)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c, nil
}

// self runs a subcommand of this program and decodes what it prints.
func self[T any](args ...string) (out T, err error) {
	c, err := command(args...)
	if err != nil {
		return out, err
	}
	b, err := c.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w", args[0], err)
	}
	return out, json.Unmarshal(b, &out)
}

func (l *lab) startReceiver() error {
	l.caFile = filepath.Join(l.dir, "receiver.pem")
	var err error
	if l.recv, err = command("receiver", "-secret", l.secret, "-certificate", l.caFile); err != nil {
		return err
	}
	out, err := l.recv.StdoutPipe()
	if err != nil {
		return err
	}
	if err := l.recv.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	_, err = fmt.Sscan(line, &l.recvAddr, &l.downAddr, &l.tlsAddr)
	return err
}

// withReceiver runs f beside the receiver.
func (l *lab) withReceiver(f func() error) error {
	if err := l.startReceiver(); err != nil {
		return err
	}
	defer l.stopReceiver()
	return f()
}

func (l *lab) stopReceiver() {
	_ = l.recv.Process.Kill()
	_ = l.recv.Wait()
}

// writeConfig makes three helpers: bench for the measured deliveries, slow for a receiver that
// takes 5 s, quiet for events that nobody listens to; and what a part of the run has put into
// settings and helpers.
func (l *lab) writeConfig() error {
	const tmpl = `listen:
  events: %[1]s/events.sock
  admin: %[1]s/admin.sock
log: {level: error}
queue: {dir: %[1]s/data, min_free: 256MiB, max_bytes: 64GiB, max_bytes_per_helper: 100%%}
%[4]shelpers:
  bench:
    name: Daily Expenses
    command: /expenses
    secret: %[3]s
    webhooks:
      main: {url: "http://%[2]s/ok/main", concurrency: 64}
  slow:
    secret: %[3]s
    webhooks:
      main: {url: "http://%[2]s/delay/5000/slow", concurrency: 8}
  quiet:
    secret: %[3]s
    events: [nothing.happened]
    webhooks:
      none: {url: "http://%[2]s/ok/none", events: [nothing.happened]}
%[5]s`
	text := fmt.Sprintf(tmpl, l.dir, l.recvAddr, l.secret, l.settings, l.helpers)
	return os.WriteFile(filepath.Join(l.dir, "config.yaml"), []byte(text), 0o600)
}

// startDaemon starts the daemon on whatever data there is and returns how long
// it took until it accepts connections.
func (l *lab) startDaemon() (time.Duration, error) {
	t0 := time.Now()
	l.daemon = exec.Command(l.binary, "serve", "--config", filepath.Join(l.dir, "config.yaml"))
	l.daemon.Env = append(os.Environ(), "STATE_DIRECTORY="+l.dir)
	l.daemon.Stderr = os.Stderr
	l.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := l.daemon.Start(); err != nil {
		return 0, err
	}
	for time.Since(t0) < time.Minute {
		if resp, err := l.admin("/readyz"); err == nil && resp == http.StatusOK {
			return time.Since(t0), nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, fmt.Errorf("daemon was not ready within a minute")
}

func (l *lab) stopDaemon(sig syscall.Signal) {
	_ = l.daemon.Process.Signal(sig)
	_ = l.daemon.Wait()
}

// fresh starts the daemon on an empty queue, with the configuration as it is now.
func (l *lab) fresh() error {
	if err := os.RemoveAll(l.data()); err != nil {
		return err
	}
	if err := l.writeConfig(); err != nil {
		return err
	}
	if err := l.control("/_reset", nil, new(any)); err != nil {
		return err
	}
	_, err := l.startDaemon()
	return err
}

func (l *lab) control(path string, body io.Reader, into any) error {
	resp, err := http.Post("http://"+l.recvAddr+path, "text/plain", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

func (l *lab) stats(path, streamPath string) (streamStats, error) {
	m := map[string]streamStats{}
	err := l.control(path, nil, &m)
	return m[streamPath], err
}

// waitFor waits until the main stream has want unique events, or none came for
// idle.
func (l *lab) waitFor(want int64, idle time.Duration) (streamStats, error) {
	last, lastN := time.Now(), int64(-1)
	for {
		s, err := l.stats("/_count", mainStream)
		if err != nil {
			return s, err
		}
		if s.Unique != lastN {
			lastN, last = s.Unique, time.Now()
		}
		if s.Unique >= want || time.Since(last) > idle {
			return l.stats("/_stats", mainStream)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const mainStream = "/ok/main"

// usage is what the daemon has used since it started.
type usage struct {
	cpu       time.Duration
	written   int64 // bytes that it caused to be written to disk
	anonymous int64 // resident bytes that are not file pages
	resident  int64
}

func (l *lab) usage() (u usage, err error) {
	if u.cpu, err = processorTime(l.daemon.Process.Pid); err != nil {
		return u, err
	}
	p := fmt.Sprintf("/proc/%d/", l.daemon.Process.Pid)
	u.written, err = procField(p+"io", "write_bytes:", 1)
	if err != nil && !errors.Is(err, fs.ErrPermission) { // the daemon shows it to root only; then it is 0
		return u, err
	}
	if u.anonymous, err = procField(p+"status", "RssAnon:", 1024); err != nil {
		return u, err
	}
	u.resident, err = procField(p+"status", "VmRSS:", 1024)
	return u, err
}

// processorTime is what a process has used, to the nanosecond: its clock, see
// clock_getcpuclockid(3).
func processorTime(pid int) (time.Duration, error) {
	var spent unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|2), &spent)
	return time.Duration(spent.Nano()), err
}

// rested waits until the daemon has nothing to do: its database merges tables for
// a while after many events came in. A minute at most.
func (l *lab) rested() error {
	const look = 200 * time.Millisecond
	for quiet, end := 0, time.Now().Add(time.Minute); quiet < 3 && time.Now().Before(end); {
		before, err := l.usage()
		if err != nil {
			return err
		}
		time.Sleep(look)
		after, err := l.usage()
		if err != nil {
			return err
		}
		quiet++
		if after.cpu-before.cpu > look/20 {
			quiet = 0
		}
	}
	return nil
}

func procField(path, key string, unit int64) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			v, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return v * unit, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, key)
}

// peaks is the most that the daemon had at a time.
type peaks struct{ anonymous, files int64 }

// watchPeak samples the daemon's anonymous memory and its descriptors until stop is called.
func (l *lab) watchPeak() (stop func() peaks) {
	quit, peak := make(chan struct{}), make(chan peaks)
	go func() {
		var top peaks
		for {
			if u, err := l.usage(); err == nil {
				top.anonymous = max(top.anonymous, u.anonymous)
			}
			if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.daemon.Process.Pid)); err == nil {
				top.files = max(top.files, int64(len(fds)))
			}
			select {
			case <-quit:
				peak <- top
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	return func() peaks { close(quit); return <-peak }
}

// with runs a part, which starts its daemon itself, under a configuration with more in it.
func (l *lab) with(settings, helpers string, run func() error) error {
	l.settings, l.helpers = settings, helpers
	defer func() { l.settings, l.helpers = "", "" }()
	return run()
}
