package process_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// patience is how long something may take that should take no time.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	zoo.Main()
	playHost()
	goleak.VerifyTestMain(reaped{m})
}

// reaped makes sure that no child is left at the very end, zombies included.
type reaped struct{ m *testing.M }

func (r reaped) Run() int {
	code := r.m.Run()
	if left := children(); len(left) > 0 {
		fmt.Printf("children were left: %v\n", left)
		return 1
	}
	return code
}

// keeper is one host of the tests: a socket directory, and what is logged.
type keeper struct {
	t       *testing.T
	sockets string
	log     *capture
}

// keep makes a host that, at the end of the test, must have left nothing behind.
func keep(t *testing.T) *keeper {
	t.Helper()
	// t.TempDir makes long names for long tests; a socket's path is short.
	dir, err := os.MkdirTemp("", "zoo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("sockets were left: %v", err)
		}
		if left := marked(dir); len(left) > 0 {
			t.Errorf("processes were left: %v", left)
		}
	})
	return &keeper{t, dir, &capture{}}
}

func (k *keeper) options(behaviour string, change ...func(*process.Options)) process.Options {
	o := process.Options{
		Sink: zoo.Name(behaviour), Path: zoo.Install(k.t, k.t.TempDir(), behaviour),
		SocketDir: k.sockets, Logger: slog.New(slog.NewJSONHandler(k.log, &slog.HandlerOptions{Level: slog.LevelDebug - 8})),
		Limits: process.Limits{Start: patience},
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

// start starts an animal that must start. It is stopped at the end of the test.
func (k *keeper) start(behaviour string, change ...func(*process.Options)) *process.Process {
	k.t.Helper()
	p, err := process.Start(k.t.Context(), k.options(behaviour, change...))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() {
		p.Abort(false)
		wait(k.t, p.Done(), "the end of the process")
	})
	return p
}

// capture holds the last of what was logged, and can be asked while it grows.
type capture struct {
	mu  sync.Mutex
	buf bytes.Buffer
	n   int // bytes that were logged
}

// captured is how much a capture holds, in bytes.
const captured = 2 << 20

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += len(p)
	c.buf.Next(max(0, c.buf.Len()+len(p)-captured))
	return c.buf.Write(p)
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

func (c *capture) has(text string) func() bool {
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return bytes.Contains(c.buf.Bytes(), []byte(text))
	}
}

// size is how much was logged, in bytes.
func (c *capture) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func wait(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// marked are the living processes that were given a directory below dir for sockets.
func marked(dir string) (found []string) {
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		env, err := os.ReadFile(path)
		if err == nil && bytes.Contains(env, []byte("PLUGIN_UNIX_SOCKET_DIR="+dir+"/")) {
			found = append(found, filepath.Base(filepath.Dir(path)))
		}
	}
	return found
}

// children are those of this process, zombies included.
func children() (found []string) {
	paths, _ := filepath.Glob("/proc/self/task/*/children")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err == nil {
			found = append(found, strings.Fields(string(b))...)
		}
	}
	return found
}

// alive reports whether a process exists and has not ended.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	return ok && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func configure(t *testing.T, p *process.Process, settings string) {
	t.Helper()
	res, err := p.Client().Configure(t.Context(), &sinkpb.ConfigureRequest{Instance: "i", Webhook: "h.w", SettingsJson: []byte(settings)})
	if err != nil || len(res.GetDiagnostics()) > 0 {
		t.Fatalf("configure: %v %v", res, err)
	}
}

// deliver makes one call with a delivery for each entry's data.
func deliver(ctx context.Context, p *process.Process, data ...string) ([]*sinkpb.Result, error) {
	req := &sinkpb.DeliverRequest{Instance: "i"}
	for i, d := range data {
		id := strconv.Itoa(i)
		req.Deliveries = append(req.Deliveries, &sinkpb.Delivery{
			Id: "dlv_" + id, Webhook: "h.w", EventId: "evt_" + id, Event: "entry.created", Attempt: 1, Sequence: uint64(i),
			Helper: &sinkpb.Helper{Id: "h"}, Entry: &sinkpb.Entry{Id: "e" + id, DataJson: []byte(d)}, Payload: []byte("{}"),
		})
	}
	res, err := p.Client().Deliver(ctx, req)
	return res.GetResults(), err
}

func TestAHealthyPluginIsStartedCalledAndStopped(t *testing.T) {
	k := keep(t)
	p := k.start("healthy")
	d, err := p.Client().Describe(t.Context(), &sinkpb.DescribeRequest{})
	if err != nil || d.GetName() != "zoo-healthy" {
		t.Fatalf("described itself as %v, %v", d, err)
	}
	record := filepath.Join(t.TempDir(), "record")
	configure(t, p, `{"record": "`+record+`"}`)
	results, err := deliver(t.Context(), p, `{}`)
	if err != nil || len(results) != 1 || results[0].GetOutcome() != sinkpb.Outcome_OUTCOME_DELIVERED {
		t.Fatalf("delivered: %v, %v", results, err)
	}
	if rs := zoo.Records(t, record); len(rs) != 1 || rs[0].ID != "dlv_0" || rs[0].PID != p.PID() {
		t.Errorf("recorded %v", rs)
	}
	p.Stop(t.Context())
	if e := p.Exit(); e.Status != 0 || e.Signal != 0 || !e.Asked || e.String() != "exited with status 0" {
		t.Errorf("it %s: %+v", e, e)
	}
	want := fmt.Sprintf(`"msg":"opened","sink":"zoo-healthy","pid":%d,"webhook":"h.w"`, p.PID())
	if !k.log.has(want)() {
		t.Errorf("the log has no %s:\n%s", want, k.log)
	}
}

func TestAPluginYieldsTheProcessorToTheHost(t *testing.T) {
	k := keep(t)
	p := k.start("healthy")
	ours, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := unix.Getpriority(unix.PRIO_PROCESS, p.PID())
	if err != nil {
		t.Fatal(err)
	}
	if want := max(ours-10, 1); theirs != want { // 20 less the nice value, as the system call has it
		t.Errorf("its priority is %d, ours %d, want %d", theirs, ours, want)
	}
}

func TestAPluginGetsNothingOfTheHostButWhatItNeeds(t *testing.T) {
	t.Setenv("ZOO_SECRET", "do not tell")
	t.Setenv("TZ", "Europe/Vienna")
	k := keep(t)
	p := k.start("healthy")
	proc := "/proc/" + strconv.Itoa(p.PID())

	env, err := os.ReadFile(proc + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	for v := range strings.SplitSeq(strings.TrimSuffix(string(env), "\x00"), "\x00") {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "PEANUTS_RELAY_SINK", "PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR", "TZ",
			"LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy":
		default:
			t.Errorf("it got %s", v)
		}
	}
	if !bytes.Contains(env, []byte("TZ=Europe/Vienna")) {
		t.Errorf("it did not get TZ: %q", env)
	}
	if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != "/" {
		t.Errorf("it runs in %s, %v", cwd, err)
	}
	if line, err := os.ReadFile(proc + "/cmdline"); err != nil || string(line) != "peanuts-sink-zoo-healthy\x00" {
		t.Errorf("its command line is %q, %v", line, err)
	}
	if pgid, err := unix.Getpgid(p.PID()); err != nil || pgid != p.PID() {
		t.Errorf("its group is %d, %v", pgid, err)
	}
	if adj, err := os.ReadFile(proc + "/oom_score_adj"); err != nil || strings.TrimSpace(string(adj)) != "500" {
		t.Errorf("its oom_score_adj is %q, %v", adj, err)
	}
	inherited(t, proc)
	sockets, err := filepath.Glob(k.sockets + "/*/*")
	if err != nil || len(sockets) != 1 {
		t.Fatalf("its sockets are %v, %v", sockets, err)
	}
	if info, err := os.Stat(filepath.Dir(sockets[0])); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of its sockets has %v, %v", info.Mode(), err)
	}
}

// inherited makes sure that the plugin has none of our descriptors but its pipes and its
// executable.
func inherited(t *testing.T, proc string) {
	t.Helper()
	ours := map[string]bool{}
	for _, fd := range glob(t, "/proc/self/fd/*") {
		to, err := os.Readlink(fd)
		if n, _ := strconv.Atoi(filepath.Base(fd)); err != nil || strings.HasPrefix(to, "/sys/") || strings.HasPrefix(to, "/dev/") || strings.HasPrefix(to, "anon_inode:") {
			continue
		} else if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC != 0 {
			ours[to] = true // what came from whoever started the tests has no such flag
		}
	}
	for _, fd := range glob(t, proc+"/fd/*") {
		to, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		switch n, _ := strconv.Atoi(filepath.Base(fd)); {
		case n < 3 && !strings.HasPrefix(to, "pipe:"):
			t.Errorf("its descriptor %d is %s", n, to)
		case n == 3 && !strings.HasSuffix(to, "peanuts-sink-zoo-healthy"):
			t.Errorf("its descriptor 3 is %s", to)
		case n > 3 && ours[to]:
			t.Errorf("it has inherited descriptor %d: %s", n, to)
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: nothing, %v", pattern, err)
	}
	return found
}

func TestAStartThatIsGivenUpLeavesNothing(t *testing.T) {
	k := keep(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the operator went home")
	go func() {
		eventually(t, "a process", func() bool { return len(marked(k.sockets)) > 0 })
		cancel(why)
	}()
	_, err := process.Start(ctx, k.options("hang-start"))
	if !errors.Is(err, why) {
		t.Errorf("the start failed with %v", err)
	}
	cancel(nil)
	if _, err := process.Start(ctx, k.options("healthy")); !errors.Is(err, why) {
		t.Errorf("a start under a context that has ended failed with %v", err)
	}
}
