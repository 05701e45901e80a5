package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/cli"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// limited starts daemons in a shell that has set a limit.
func (s *site) limited(ulimit string) {
	s.prepare = func(cmd *exec.Cmd) {
		shell, err := exec.LookPath("bash")
		if err != nil {
			testhost.Missing(s.t, "no bash, which is asked to execute a program under another name")
		}
		cmd.Args = append([]string{"bash", "-c", "ulimit " + ulimit + ` && exec -a peanuts-relay "$@"`, "bash", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = shell
	}
}

// A daemon that may not have as much of the kernel as it needs says so before it does
// anything, and how to help it; the queue is as it was.
func TestAStartUnderALimitIsRefusedClearly(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := newSite(t, "", fmt.Sprintf("      ok: {url: %q}\n", r.URL+"/ok"))
	l := newLedger()
	var next atomic.Int64
	p := s.up()
	for range 20 {
		s.answers(l, &next, http.StatusAccepted)
	}
	p.stop()
	before := names(t, s.data)
	cases := map[string]string{"-n 10": "LimitNOFILE=", "-n 12": "LimitNOFILE=", "-n 14": "LimitNOFILE=", "-n 15": "LimitNOFILE=", "-n 16": "LimitNOFILE=",
		"-n 18": "LimitNOFILE=", "-n 20": "LimitNOFILE=", "-n 64": "LimitNOFILE=", "-n 255": "LimitNOFILE=", "-f 1": "LimitFSIZE=", "-f 100000": "LimitFSIZE="}
	for limit, says := range cases {
		s.limited(limit)
		p := s.start()
		if code, text := p.wait(), p.output(); !refusal(code, text, says) {
			t.Errorf("ulimit %s: ended with %d:\n%s", limit, code, text)
		}
	}
	if after := names(t, s.data); !slices.Equal(before, after) {
		t.Errorf("the queue had %q, and has %q", before, after)
	}
	s.limited("-n 256") // the least that is enough
	p = s.up()
	s.repeats(l)
	s.answers(l, &next, http.StatusAccepted)
	s.settle()
	s.check(l, r, 1)
	p.stop()
	verifyStore(t, s.data)
	testhost.Cases(t, len(cases)+1)
}

// Threads cannot be counted before they are needed: it is the runtime that says so.
func TestADaemonWithoutThreadsSaysSo(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := newSite(t, "", fmt.Sprintf("      ok: {url: %q}\n", r.URL+"/ok"))
	l := newLedger()
	var next atomic.Int64
	p := s.up()
	for range 20 {
		s.answers(l, &next, http.StatusAccepted)
	}
	p.stop()
	s.limited("-n 1024 && echo $$ >" + zoo.TaskGroup(t, 2))
	p = s.start()
	if code, text := p.wait(), p.output(); code == 0 || !regexp.MustCompile("failed to create new OS thread|pthread_create failed|ThreadSanitizer").MatchString(text) {
		t.Errorf("ended with %d:\n%s", code, text)
	}
	s.prepare = nil
	p = s.up()
	s.repeats(l)
	s.settle()
	s.check(l, r, 1)
	p.stop()
	verifyStore(t, s.data)
	testhost.Cases(t, 1)
}

// refusal reports whether a start that ended with this status and these words was refused
// as it should.
func refusal(code int, text, says string) bool {
	return code == cli.ExitConfig && strings.Contains(text, "and needs ") && strings.Contains(text, says) && !strings.Contains(text, "goroutine ")
}

// The control: ends that there were before limits were looked at.
func TestWithoutAWordTheCheckOfAStartFails(t *testing.T) {
	for _, end := range []struct {
		code int
		text string
	}{
		{1, ""}, // the database, at 15 files
		{1, "error: listen on /run/peanuts-relay/admin.sock: socket: too many open files"},
		{2, "runtime: epollcreate failed with 24\nfatal error: runtime: netpollinit failed\n\ngoroutine 1 [running]:"},
		{cli.ExitConfig, "error: the file cannot be read: too many open files"},
		{cli.ExitStoreFormat, "error: the database is damaged: file too large"},
		{cli.ExitStorage, "error: stopped on a storage error: too many open files"},
	} {
		if refusal(end.code, end.text, "LimitNOFILE=") {
			t.Errorf("%d %q passes", end.code, end.text)
		}
	}
}

// names lists the files of a directory and below it, with their sizes.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			list = append(list, fmt.Sprint(path, " ", info.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// lower sets a limit of a running process and returns how to undo that.
func lower(t *testing.T, pid, resource int, to uint64) (undo func()) {
	t.Helper()
	var former unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &former); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: to, Max: former.Max}, nil); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Prlimit(pid, resource, &former, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Error(err)
		}
	}
}

// pressure is a limit that a daemon meets while it works.
type pressure struct {
	press func(t *testing.T, pid int) (undo func())
	says  string // in the log, or in the status of a daemon that refuses; "" = the kernel says it
}

// pressures are all such limits.
func pressures() map[string]pressure {
	join := func(t *testing.T, procs string, pid int) {
		t.Helper()
		if err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]pressure{
		"file descriptors": {func(t *testing.T, pid int) func() {
			open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				t.Fatal(err)
			}
			return lower(t, pid, unix.RLIMIT_NOFILE, uint64(len(open))+2)
		}, "file descriptors|too many open files"},
		"the size of files": {func(t *testing.T, pid int) func() {
			return lower(t, pid, unix.RLIMIT_FSIZE, 1<<20)
		}, "file too large|file size limit exceeded"},
		"addresses": {func(t *testing.T, pid int) func() {
			return lower(t, pid, unix.RLIMIT_AS, 1<<20)
		}, "cannot allocate memory|out of memory|failed to create new OS thread|cannot map pages|ThreadSanitizer"},
		"memory": {func(t *testing.T, pid int) func() {
			join(t, zoo.MemoryGroup(t, 8<<20), pid)
			return func() {}
		}, ""},
	}
}

// A limit that is met under load ends the daemon, or makes it refuse until there is room.
// Either way it is said why, and nothing that was acknowledged is lost.
func TestLimitsThatAreMetUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	for name, c := range pressures() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rounds := times(t, "DAEMON_LIMITS", 1)
			testhost.Cases(t, rounds)
			for range rounds {
				c.meet(t)
			}
		})
	}
}

func (c *pressure) meet(t *testing.T) {
	t.Helper()
	r := newReceiver(t)
	s := newSite(t, "", fmt.Sprintf("      ok: {url: %q}\n", r.URL+"/ok"))
	l := newLedger()
	var next atomic.Int64
	next.Store(largeEvents) // so that files and memory are needed soon
	p := s.up()
	stop := s.flood(l, &next, 4)
	until(t, "events to be acknowledged", func() bool { return l.len() > 8 })
	undo := c.press(t, p.cmd.Process.Pid)
	said, code := "", 0
	over := func() bool {
		select {
		case <-p.over:
			code = p.cmd.ProcessState.ExitCode()
			return true
		default:
			return false
		}
	}
	until(t, "the limit to be met", func() bool {
		if over() {
			return true
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if st, err := s.admin.Status(ctx); err == nil {
			said = strings.Join(st.Reasons, " ")
		}
		return said != ""
	})
	undo()
	until(t, "an end, or room by itself", func() bool {
		return over() || s.send(t.Context(), l, int(next.Add(1))) == http.StatusAccepted
	})
	p.kill()
	if !slices.Contains([]int{0, cli.ExitStorage, 2, -1, 66}, code) { // 0 goes on, 2 is the runtime, -1 the kernel, 66 the race detector
		t.Errorf("ended with %d:\n%s", code, p.output())
	}
	t.Logf("said %q, ended with %d; %d events were acknowledged", said, code, l.len())
	if said += p.output(); !regexp.MustCompile(c.says).MatchString(said) {
		t.Errorf("nothing says %q:\n%s", c.says, said)
	}
	p = s.up()
	stop()
	s.repeats(l)
	s.settle()
	s.check(l, r, 1)
	p.stop()
	verifyStore(t, s.data)
}

// The control: where the kernel allows as much as is needed, nothing is refused, and what
// it allows too little of is named.
func TestEnoughIsEnough(t *testing.T) {
	for _, n := range needs() {
		for at, refused := range map[uint64]bool{0: true, n.least - 1: true, n.least: false, unix.RLIM_INFINITY: false} {
			err := enough(func(resource int, lim *unix.Rlimit) error {
				lim.Cur = unix.RLIM_INFINITY
				if resource == n.resource {
					lim.Cur = at
				}
				return nil
			})
			if (err != nil) != refused {
				t.Errorf("%d of %s: %v", at, n.setting, err)
			}
		}
	}
	if err := enough(func(int, *unix.Rlimit) error { return unix.ENOSYS }); err != nil {
		t.Errorf("a kernel that does not tell: %v", err)
	}
}
