package sinks_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// play is the variable that makes the test binary a plugin: "good", or "bad" for one
// that is described wrongly.
const play = "SINKS_TEST_PLAY"

// patience is for a machine that is slow and busy.
const patience = 30 * time.Second

// settings of the sink that the test binary plays.
type settings struct {
	Token sinks.Secret `json:"token" description:"what the service gave you" required:"true"`
	Mode  string       `json:"mode" enum:"good,bad" default:"good"`
}

// played is a sink whose behaviour the deliveries choose.
func played(name string) sinks.Plugin[settings] {
	return sinks.Plugin[settings]{
		Name: name, Version: "1.2.3", Summary: "a sink for tests", Homepage: "https://example.com/played",
		Capabilities: sinks.Capabilities{Idempotent: true, MaxConcurrency: 3, UsesState: true},
		Open: func(_ context.Context, env sinks.Env, s settings) (sinks.Sink, error) {
			if s.Mode == "bad" {
				return nil, &sinks.SettingError{Path: "/mode", Err: errors.New("is bad")}
			}
			return &playedSink{env, s}, nil
		},
	}
}

type playedSink struct {
	env sinks.Env
	s   settings
}

func (p *playedSink) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	switch d.Event {
	case "panic":
		panic("over " + string(d.Payload))
	case "print":
		fmt.Fprintln(os.Stderr, "plain to stderr")
		fmt.Println("plain to stdout")
		p.env.Log.Info("structured", "token", p.s.Token.Reveal())
		slog.Warn("by default")
	case "wait":
		fmt.Fprintln(os.Stderr, "waiting")
		<-ctx.Done()
		return sinks.Receipt{}, ctx.Err()
	}
	return sinks.Receipt{Message: "did " + d.ID, Status: 200}, nil
}

func (p *playedSink) Close() error {
	fmt.Fprintln(os.Stderr, "closed")
	return nil
}

// process is the test binary as a plugin, started as the relay does it.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	socket string
	out    *lines // what it wrote to stdout after the handshake, and to stderr
	errs   *lines
	client sinkpb.SinkClient
}

var handshake = regexp.MustCompile(`^1\|1\|unix\|(/[^|]+)\|grpc\|?\n$`)

func startProcess(t *testing.T) *process {
	t.Helper()
	dir := shortDir(t)
	p := &process{t: t, cmd: exec.Command(os.Args[0]), out: &lines{}, errs: &lines{}}
	p.cmd.Env = []string{play + "=good", sinks.MagicCookieKey + "=" + sinks.MagicCookieValue, "PLUGIN_PROTOCOL_VERSIONS=1", "PLUGIN_UNIX_SOCKET_DIR=" + dir}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.errs
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	r := bufio.NewReader(stdout)
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("no handshake: %v; stderr: %s", err, p.errs)
	}
	m := handshake.FindStringSubmatch(line)
	if m == nil || filepath.Dir(m[1]) != dir {
		t.Fatalf("handshake %q", line)
	}
	p.socket = m[1]
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(p.out, r)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-copied
	})
	p.client = dial(t, "unix:"+p.socket)
	return p
}

// shortDir is a directory for sockets, whose names have a limit of 108 bytes.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "sinks")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func dial(t *testing.T, target string, opts ...grpc.DialOption) sinkpb.SinkClient {
	t.Helper()
	conn, err := grpc.NewClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return sinkpb.NewSinkClient(conn)
}

// exit waits for the end of the process.
func (p *process) exit() int {
	p.t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case <-done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("the process does not end; stderr: %s", p.errs)
		return -1
	}
}

// configure makes an instance of the played sink.
func configure(t *testing.T, client sinkpb.SinkClient, instance, settings string) []*sinkpb.Diagnostic {
	t.Helper()
	r, err := client.Configure(t.Context(), &sinkpb.ConfigureRequest{Instance: instance, Webhook: "expenses." + instance, SettingsJson: []byte(settings)})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetDiagnostics()
}

// deliver sends one delivery.
func deliver(t *testing.T, client sinkpb.SinkClient, instance string, d *sinkpb.Delivery) *sinkpb.Result {
	t.Helper()
	r, err := client.Deliver(t.Context(), &sinkpb.DeliverRequest{Instance: instance, Deliveries: []*sinkpb.Delivery{d}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.GetResults()) != 1 || r.GetResults()[0].GetDeliveryId() != d.GetId() {
		t.Fatalf("results %v", r.GetResults())
	}
	return r.GetResults()[0]
}

// lines collects output, and tells when something came.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait returns the first line that contains what.
func (l *lines) wait(t *testing.T, what string) string {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		for line := range strings.Lines(l.String()) {
			if strings.Contains(line, what) && strings.HasSuffix(line, "\n") {
				return strings.TrimSuffix(line, "\n")
			}
		}
		<-time.After(time.Millisecond)
	}
	t.Fatalf("no line with %q in %q", what, l)
	return ""
}
