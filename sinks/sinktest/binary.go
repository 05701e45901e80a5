package sinktest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

const (
	startWithin  = 10 * time.Second
	maxSend      = 32 << 20
	maxOutput    = 16 << 20 // bytes of output that are kept
	maxHandshake = 4 << 10
)

// binary is a sink as a program. The suite starts it by itself and not as the relay
// does, because it looks at the ends of its pipes; the check "launch" is the relay's way.
type binary struct {
	path     string // absolute
	dir      string // for sockets
	patience time.Duration
	output   kept // of all processes

	now   *proc // the one that the checks share; nil = not started
	ever  bool  // a process of it has served
	never bool  // the first did not: none will
}

func newBinary(path string, patience time.Duration) (*binary, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return nil, fmt.Errorf("%s is not an executable file", path)
	}
	// Not where TMPDIR of a test is: the path of a socket has at most 107 bytes.
	dir, err := os.MkdirTemp("/tmp", "sinktest-")
	if err != nil {
		return nil, err
	}
	return &binary{path: path, dir: dir, patience: patience}, nil
}

func (b *binary) base() string { return filepath.Base(b.path) }

func (b *binary) logs() string { return b.output.String() }

// stop ends the process that the checks share; the next check starts another.
func (b *binary) stop() {
	if b.now != nil {
		b.now.kill()
		b.now = nil
	}
}

func (b *binary) close() {
	b.stop()
	_ = os.RemoveAll(b.dir)
}

// running is the process that the checks share.
func (b *binary) running() (*proc, error) {
	if b.now != nil {
		select {
		case <-b.now.gone:
			b.stop()
		default:
			return b.now, nil
		}
	}
	p, err := b.serving()
	if err != nil {
		return nil, err
	}
	b.now = p
	return p, nil
}

// errNever is that of every start but the first when that failed: the program is what is
// wrong, which is to be said once.
var errNever = errors.New("it did not start before")

// serving starts a process that serves.
func (b *binary) serving() (*proc, error) {
	if b.never {
		return nil, errNever
	}
	p, err := b.start()
	b.never = err != nil && !b.ever
	b.ever = b.ever || err == nil
	return p, err
}

// ended says how the shared process came to its end; "" = it runs, or was not started.
func (b *binary) ended() string {
	if b.now == nil {
		return ""
	}
	select {
	case <-b.now.gone:
	default:
		return ""
	}
	text := b.now.fate()
	b.stop()
	return text
}

// proc is one process.
type proc struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	conn   *grpc.ClientConn
	client sinkpb.SinkClient
	gone   chan struct{} // closed when it has ended and its output was read
	stray  kept          // what it wrote to its standard output after the handshake
	stderr kept
}

func (b *binary) environment() []string {
	env := []string{
		sinks.MagicCookieKey + "=" + sinks.MagicCookieValue,
		"PLUGIN_PROTOCOL_VERSIONS=1",
		"PLUGIN_UNIX_SOCKET_DIR=" + b.dir,
	}
	for _, name := range []string{"TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "GOCOVERDIR"} {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// start starts the program and connects to it.
func (b *binary) start() (*proc, error) {
	p := &proc{gone: make(chan struct{})}
	p.cmd = &exec.Cmd{Path: b.path, Args: []string{b.base()}, Dir: "/", Env: b.environment(), SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	p.cmd.WaitDelay = 2 * time.Second
	p.cmd.Stderr = io.MultiWriter(&p.stderr, &b.output)
	handshake := &firstLine{rest: io.MultiWriter(&p.stray, &b.output), line: make(chan string, 1)}
	p.cmd.Stdout = handshake
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // its state says how it ended
		close(p.gone)
	}()
	if err := p.connect(handshake.line, b.patience); err != nil {
		p.kill()
		return nil, fmt.Errorf("%w%s", err, p.lastWords())
	}
	return p, nil
}

func (p *proc) connect(handshake <-chan string, patience time.Duration) error {
	timeout := time.NewTimer(startWithin + patience)
	defer timeout.Stop()
	line := ""
	select {
	case line = <-handshake:
	case <-p.gone:
		return fmt.Errorf("it ended before a handshake (%s)", p.cmd.ProcessState)
	case <-timeout.C:
		return fmt.Errorf("there was no handshake on its standard output within %v", startWithin)
	}
	parts := strings.Split(strings.TrimSpace(line), "|")
	if len(parts) < 5 || parts[0] != "1" || parts[1] != "1" || parts[2] != "unix" || parts[4] != "grpc" {
		return fmt.Errorf("the first line on its standard output is %q; want the handshake 1|1|unix|PATH|grpc", short(line, 200))
	}
	conn, err := grpc.NewClient("unix:"+parts[3], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(maxSend), grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return err
	}
	p.conn, p.client = conn, sinkpb.NewSinkClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), startWithin+patience)
	defer cancel()
	if _, err := p.client.Describe(ctx, &sinkpb.DescribeRequest{}, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("it does not answer Describe at %s: %w", parts[3], err)
	}
	return nil
}

// kill ends the process and its group, and waits for that.
func (p *proc) kill() {
	_ = p.stdin.Close()
	select {
	case <-p.gone:
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it is not reaped yet, or was just now: then nobody has its number
	}
	<-p.gone
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

// within waits for the end of the process.
func (p *proc) within(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.gone:
		return true
	case <-timer.C:
		return false
	}
}

// fate is how a process that is gone ended.
func (p *proc) fate() string { return p.cmd.ProcessState.String() + p.lastWords() }

// lastWords are the last lines of its standard error.
func (p *proc) lastWords() string {
	lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	if lines[0] == "" {
		return ""
	}
	const most = 12
	return "; it wrote: " + strings.Join(lines[max(0, len(lines)-most):], " / ")
}

// kept is output, up to a limit. It is safe for concurrent use.
type kept struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (k *kept) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if room := maxOutput - k.buf.Len(); room > 0 {
		k.buf.Write(b[:min(len(b), room)])
	}
	return len(b), nil
}

func (k *kept) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.buf.String()
}

// firstLine takes the handshake out of what is written. It is used by one goroutine.
type firstLine struct {
	buf  bytes.Buffer
	done bool
	line chan string
	rest io.Writer
}

func (f *firstLine) Write(b []byte) (int, error) {
	if f.done {
		return f.rest.Write(b)
	}
	f.buf.Write(b)
	line, err := bufio.NewReader(bytes.NewReader(f.buf.Bytes())).ReadString('\n')
	switch {
	case err == nil:
		f.done = true
		f.line <- line
		_, _ = f.rest.Write(f.buf.Bytes()[len(line):])
	case f.buf.Len() > maxHandshake:
		return 0, errors.New("the first line is too long for a handshake")
	}
	return len(b), nil
}
