package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lab builds test binaries and runs them, each in a process group, a directory for
// temporary files and, as root, a mount namespace of its own.
type lab struct {
	root, logs string
	work       string // of temporary files; short, because sockets are made below it
	race       bool
	seed       uint64
	say        io.Writer
	goroot     string
	reader     string // test2json
	namespaces bool   // tests get a mount namespace of their own

	mu      sync.Mutex // guards the rest
	numbers int        // directories and logs given out
	bins    map[string]string
}

func newLab(o options, say io.Writer) (l *lab, err error) {
	l = &lab{race: o.race, seed: o.seed, say: say, bins: map[string]string{}}
	if l.root, err = filepath.Abs(o.root); err != nil {
		return nil, err
	}
	if l.logs = o.logs; l.logs == "" {
		l.logs, err = os.MkdirTemp("", "peanuts-torture-logs-")
	} else if l.logs, err = filepath.Abs(o.logs); err == nil {
		err = os.MkdirAll(l.logs, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("directory for the logs: %w", err)
	}
	l.namespaces = namespaces()
	l.work = filepath.Join(os.TempDir(), "pt"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(l.work, 0o755); err != nil {
		return nil, err
	}
	// Tests of other users reach their binaries through it, whatever the umask.
	if err := os.Chmod(l.work, 0o755); err != nil {
		return nil, errors.Join(err, os.RemoveAll(l.work))
	}
	return l, nil
}

// namespaces reports whether mount namespaces can be made here: root can, the root of
// some containers cannot.
func namespaces() bool {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd.Run() == nil
}

// close removes what the tests left. Nothing of theirs runs any more.
func (l *lab) close() {
	unmountBelow(l.work)
	if err := os.RemoveAll(l.work); err != nil {
		fmt.Fprintln(l.say, "torture: temporary files are left:", err)
	}
}

// unmountBelow takes away what is mounted below dir, which is only so where tests
// could not have a mount namespace of their own.
func unmountBelow(dir string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return // no /proc, no way to tell
	}
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			_ = unix.Unmount(f[1], unix.MNT_DETACH) // what is left is told of when the directory is removed
		}
	}
}

// number is one of a directory or a file that nobody else has.
func (l *lab) number() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numbers++
	return l.numbers
}

// binary says what a test binary is built with.
type binary struct {
	pkg    string
	guided bool   // for the fuzzer
	tags   string // of a planted bug
}

func (b binary) file() string {
	name := strings.ReplaceAll(strings.Trim(b.pkg, "./"), "/", "-")
	if b.guided {
		name += "-fuzz"
	}
	if b.tags != "" {
		name += "-" + b.tags
	}
	return name + ".test"
}

// buildAll builds what the tasks need, each once.
func (l *lab) buildAll(ctx context.Context, tasks []*task) error {
	need := map[binary]bool{}
	soak := false
	for _, t := range tasks {
		if t.part.soak > 0 {
			soak = true
			continue
		}
		need[binary{pkg: t.part.pkg, guided: t.part.fuzz > 0}] = true
	}
	if err := l.findGo(ctx); err != nil {
		return err
	}
	all := slices.SortedFunc(maps.Keys(need), func(a, b binary) int { return strings.Compare(a.file(), b.file()) })
	for i, b := range all {
		fmt.Fprintf(l.say, "torture: building the tests of %s (%d of %d)\n", b.pkg, i+1, len(all))
		if out, err := l.build(ctx, b); err != nil {
			return fmt.Errorf("build the tests of %s: %w\n%s", b.pkg, err, out)
		}
	}
	if soak {
		return l.buildBench(ctx)
	}
	return nil
}

// findGo finds the tree of the Go that is used, and its program that turns the output of
// tests into events.
func (l *lab) findGo(ctx context.Context) error {
	out, err := l.goTool(ctx, "env", "GOROOT")
	if err != nil {
		return fmt.Errorf("go env: %w: %s", err, out)
	}
	l.goroot = strings.TrimSpace(out)
	out, err = l.goTool(ctx, "tool", "-n", "test2json")
	if err != nil {
		return fmt.Errorf("go tool test2json: %w: %s", err, out)
	}
	l.reader = strings.TrimSpace(out)
	return nil
}

// build makes a test binary, unless it is there. It returns what the compiler said.
func (l *lab) build(ctx context.Context, b binary) (out string, err error) {
	path := filepath.Join(l.work, b.file())
	args := []string{"test", "-c", "-o", path}
	if b.guided {
		args = append(args, "-fuzz=Fuzz")
	}
	if b.tags != "" {
		args = append(args, "-tags="+b.tags)
	}
	if l.race && !b.guided {
		args = append(args, "-race")
	}
	if out, err = l.goTool(ctx, append(args, b.pkg)...); err != nil {
		return out, err
	}
	if _, err := os.Stat(path); err != nil {
		return out, errors.New("the package has no tests")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bins[b.file()] = path
	return out, nil
}

// buildBench builds the daemon and the program that measures it, as scripts/bench does.
func (l *lab) buildBench(ctx context.Context) error {
	for file, pkg := range map[string]string{"relay": "./daemon", "bench": "./internal/bench"} {
		if out, err := l.goTool(ctx, "build", "-o", filepath.Join(l.work, file), pkg); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

// goTool runs the go command in the repository. The compilers that it starts end with it.
func (l *lab) goTool(ctx context.Context, args ...string) (out string, err error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = l.root
	var b strings.Builder
	cmd.Stdout, cmd.Stderr = &b, &b
	err = l.runGroup(ctx, cmd, 30*time.Minute)
	return b.String(), err
}

// run runs a job and says what it showed.
func (l *lab) run(ctx context.Context, j job) (t tally, log string) {
	return l.runBinary(ctx, binary{pkg: j.part.pkg, guided: j.part.fuzz > 0}, j)
}

func (l *lab) runBinary(ctx context.Context, b binary, j job) (t tally, log string) {
	n := l.number()
	log = filepath.Join(l.logs, fmt.Sprintf("%03d-%s.log", n, j.part.key()))
	began := time.Now()
	f, err := os.Create(log)
	if err == nil {
		fmt.Fprintf(f, "%s\n\n", j.command(nil))
		t, err = l.runInto(ctx, b, j, n, f)
		err = errors.Join(err, f.Close())
	}
	if err != nil && ctx.Err() == nil {
		if t.why == "" || len(t.failed) == 0 {
			t.why = err.Error()
		}
		if len(t.failed) == 0 {
			t.failed = strings.Split(j.part.run, "|")
		}
	}
	t.took = time.Since(began)
	return t, log
}

// patience is how long one run may take before it counts as hanging: many times what the
// longest short form takes, for each time that it grew.
func (j *job) patience() time.Duration {
	return 10*time.Minute + time.Duration(j.m)*(time.Minute+3*j.part.fuzz+3*j.part.soak)
}

// runInto runs the binary with its output as events into the tally and as text into log.
func (l *lab) runInto(ctx context.Context, b binary, j job, n int, log *os.File) (tally, error) {
	tmp := filepath.Join(l.work, strconv.Itoa(n))
	if err := errors.Join(os.Mkdir(tmp, 0o777), os.Chmod(tmp, 0o777|os.ModeSticky)); err != nil {
		return tally{}, err
	}
	defer os.RemoveAll(tmp) // what it leaves, close tells of
	if j.part.soak > 0 {
		return l.soak(ctx, j, tmp, log)
	}
	l.mu.Lock()
	path := l.bins[b.file()]
	l.mu.Unlock()
	args := append(j.flags("test."), "-test.v=test2json", "-test.paniconexit0", "-test.timeout="+j.patience().String())
	if j.part.fuzz > 0 {
		args = append(args, "-test.fuzzcachedir="+filepath.Join(l.work, "corpus-"+j.part.key()))
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = filepath.Join(l.root, j.part.pkg)
	cmd.Env = append(os.Environ(), j.environment()...)
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp, "PWD="+cmd.Dir, "PATH="+filepath.Join(l.goroot, "bin")+":"+os.Getenv("PATH"))
	return l.follow(ctx, cmd, j, log)
}

// follow runs a test binary and reads its events.
func (l *lab) follow(ctx context.Context, cmd *exec.Cmd, j job, log *os.File) (t tally, err error) {
	convert := exec.Command(l.reader, "-t")
	convert.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it ends when its input does
	in, err := convert.StdinPipe()
	if err != nil {
		return t, err
	}
	out, err := convert.StdoutPipe()
	if err == nil {
		err = convert.Start()
	}
	if err != nil {
		return t, err
	}
	read := make(chan error, 1)
	go func() {
		var err error
		t, err = readEvents(out, log)
		read <- err
	}()
	// The pipe between has this program in the middle, so that whoever inherits the output
	// of a test and outlives it keeps nothing waiting.
	between := &struct{ io.Writer }{in}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = between, between, 10*time.Second
	ended := l.runGroup(ctx, cmd, j.patience()+30*time.Second)
	err = errors.Join(in.Close(), <-read, convert.Wait())
	if errors.Is(ended, exec.ErrWaitDelay) {
		ended = nil
	}
	if len(t.failed) > 0 {
		return t, err
	}
	if ended != nil {
		return t, errors.Join(fmt.Errorf("the tests ended: %w", ended), err)
	}
	if err == nil && t.passed == 0 && len(t.skipped) == 0 {
		err = errors.New("no test is named so")
	}
	return t, err
}

// runGroup runs a program in a process group of its own, so that Ctrl-C reaches this
// program alone, until it ends, ctx does or its time is over. Then it is killed with
// all that it started.
func (l *lab) runGroup(ctx context.Context, cmd *exec.Cmd, most time.Duration) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if l.namespaces {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	over := time.NewTimer(most)
	defer over.Stop()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		killTree(cmd.Process.Pid)
		<-ended
		return ctx.Err()
	case <-over.C:
		killTree(cmd.Process.Pid)
		<-ended
		return fmt.Errorf("did not end within %v, and was killed", most)
	}
}
