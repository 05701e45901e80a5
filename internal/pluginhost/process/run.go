package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin/runner"
)

// run is go-plugin's runner of one process. go-plugin sees one line of its standard
// output, made of a handshake that was checked here, and nothing of its standard error:
// its own parser of log lines can be made to panic.
//
// go-plugin calls Start once, and the rest after it.
type run struct {
	ctx  context.Context // of the start
	opts Options
	file *File
	env  []string
	out  *output

	dir    string // for its sockets; removed at the end
	guard  *guard
	kills  kills         // before the process was started
	since  time.Duration // of the kernel's log, when it was
	socket string
	mu     sync.Mutex
	child  *child        // written under mu, before Start returns
	gone   chan struct{} // closed when child is gone and its output was read; then exit is set
	pumps  sync.WaitGroup
	err    []*stream // of standard error: the process's own, and the one of go-plugin's stdio service
	std    []*stream // likewise of standard output
}

var _ runner.Runner = (*run)(nil)

func newRun(ctx context.Context, o Options, file *File) *run {
	r := &run{ctx: ctx, opts: o, file: file, gone: make(chan struct{})}
	r.out = newOutput(o.Logger.With("sink", o.Sink), o.Mask, o.Limits)
	for range 2 {
		r.err = append(r.err, r.out.stream(true, o.Limits.LogLine))
		r.std = append(r.std, r.out.stream(false, o.Limits.LogLine))
	}
	return r
}

// prepare is go-plugin's RunnerFunc. cmd holds the variables that a plugin of go-plugin
// reads; none of the host's.
func (r *run) prepare(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
	r.dir = dir
	env, hidden := environment(os.Environ(), cmd.Env)
	if len(hidden) > 0 {
		r.out.log.Warn("the sink plugin is told of the proxy without the user and the password that are in its address", "variables", hidden)
	}
	r.env = env
	return r, nil
}

// Start starts the process and returns when its handshake was read. Its context is
// go-plugin's and knows nothing of the caller's.
func (r *run) Start(context.Context) error {
	if err := r.ctx.Err(); err != nil {
		return context.Cause(r.ctx)
	}
	guard, err := newGuard(r.dir)
	if err != nil {
		r.out.log.Warn("a sink plugin runs without a guard: what it starts may outlive a kill of the relay", "err", err)
	}
	r.guard, r.since = guard, uptime()
	c, err := startChild(r.ctx, r.file, r.env)
	if err != nil {
		return err
	}
	r.guard.watch(c.pid)
	r.kills, _ = killsOf(c.pid)
	r.mu.Lock()
	r.child = c
	r.mu.Unlock()
	r.out.identify(c.pid)
	first := make(chan firstLine, 1)
	r.pumps.Go(func() { r.pump(c.stderr, r.err[0]) })
	r.pumps.Go(func() { r.pumpStdout(c.stdout, first) })
	go r.finish()
	select {
	case line := <-first:
		if line.err != nil {
			return line.err
		}
		r.socket, err = parseHandshake(line.text, r.dir)
		if err != nil {
			return err
		}
		return checkSocket(r.socket)
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// finish waits for the end of the process and of its output.
func (r *run) finish() {
	<-r.child.gone
	endStrays(r.dir)
	read := make(chan struct{})
	go func() {
		r.pumps.Wait()
		close(read)
	}()
	timer := time.NewTimer(r.opts.Limits.Output)
	defer timer.Stop()
	select {
	case <-read:
	case <-timer.C: // somebody who left the group holds the other ends
	}
	r.child.stdout.Close() // ends a read that waits
	r.child.stderr.Close()
	<-read
	for _, s := range append(r.err, r.std...) {
		s.close()
	}
	r.out.finish()
	close(r.gone)
}

// pump reads one stream to its end.
func (r *run) pump(f *os.File, s *stream) {
	buf := make([]byte, 32<<10)
	t := throttle{rate: float64(r.opts.Limits.Read)}
	for {
		var deadline time.Time
		if s.collecting() {
			deadline = time.Now().Add(stackIdle)
		}
		_ = f.SetReadDeadline(deadline)
		n, err := f.Read(buf)
		_, _ = s.Write(buf[:n])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.idle()
		case err != nil:
			return
		}
		t.wait(n, r.child.exited)
	}
}

// paced is where go-plugin writes what comes over its stdio service: the standard output
// and error of a Go program after go-plugin has replaced them. A plugin that writes too
// much is made to wait, as on its pipes.
func (r *run) paced(s *stream) io.Writer {
	t := &throttle{rate: float64(r.opts.Limits.Read)}
	return writerFunc(func(p []byte) (int, error) {
		n, err := s.Write(p)
		t.wait(n, r.gone)
		return n, err
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// abort kills the process of a start that takes too long.
func (r *run) abort() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.child != nil {
		r.child.kill()
	}
}

// firstLine is the first line of standard output, or why there is none.
type firstLine struct {
	text string
	err  error
}

// pumpStdout gives the first line away and logs the rest. After a first line that is too
// long nothing is logged: the start fails.
func (r *run) pumpStdout(f *os.File, first chan<- firstLine) {
	var line []byte
	buf := make([]byte, maxHandshake)
	for {
		n, err := f.Read(buf)
		before, after, found := bytes.Cut(buf[:n], []byte("\n"))
		line = append(line, before...)
		if len(line) > maxHandshake {
			first <- firstLine{err: fmt.Errorf("it wrote more than %d bytes to its standard output before a handshake: %s", maxHandshake, shown(r.opts.Mask(string(line))))}
			return
		}
		if found {
			first <- firstLine{text: string(line)}
			_, _ = r.std[0].Write(after)
			r.pump(f, r.std[0])
			return
		}
		if err != nil {
			text := ""
			if len(line) > 0 {
				text = ", after " + shown(r.opts.Mask(string(line)))
			}
			first <- firstLine{err: errors.New("it closed its standard output before a handshake" + text)}
			return
		}
	}
}

// Stdout is the handshake.
func (r *run) Stdout() io.ReadCloser {
	return io.NopCloser(strings.NewReader("1|1|unix|" + r.socket + "|grpc|\n"))
}

// Stderr is empty.
func (r *run) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Wait returns when the process is gone.
func (r *run) Wait(context.Context) error {
	<-r.gone
	return nil
}

// Kill kills the group. go-plugin calls it when its own start fails.
func (r *run) Kill(context.Context) error {
	if r.child != nil {
		r.child.kill()
	}
	return nil
}

// ID is the process id; "" before there is one.
func (r *run) ID() string {
	if r.child == nil {
		return ""
	}
	return strconv.Itoa(r.child.pid)
}

// Name is the path of the executable.
func (r *run) Name() string { return r.file.Path() }

// Diagnose has nothing to add: handshakes are checked before go-plugin sees them.
func (r *run) Diagnose(context.Context) string { return "" }

// PluginToHost leaves addresses as they are.
func (r *run) PluginToHost(network, addr string) (string, string, error) { return network, addr, nil }

// HostToPlugin leaves addresses as they are.
func (r *run) HostToPlugin(network, addr string) (string, string, error) { return network, addr, nil }
