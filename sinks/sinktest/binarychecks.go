package sinktest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

const (
	endWithin = 5 * time.Second

	deliveries = 1000 // of the check for leaks
	warmUp     = 50   // before it counts: pools and idle connections
	maxGrowth  = 16   // descriptors that a pool may still gain
)

// binaryChecks are those that only a process can fail.
func binaryChecks() []check {
	list := []check{
		{name: "file", run: checkFile, why: "the relay executes no file that others could change"},
		{name: "launch", run: checkLaunch, why: "the relay starts a sink in its own way, and ends it so"},
		{name: "describe-command", run: checkDescribeCommand, why: "`describe` tells people and packagers what a sink is, without the relay"},
		{name: "by-hand", run: checkByHand, why: "started by hand a sink explains itself and ends"},
		{name: "stdin", run: checkStdin, why: "the end of standard input means that the relay is gone: no process may stay behind"},
		{name: "signals", run: checkSignals, why: "the relay decides when a sink ends: a Ctrl-C or a SIGTERM for all must not cut off deliveries"},
		{name: "descriptors", run: checkDescriptors, why: "a sink runs for months"},
		{name: "stdout", run: checkStdout, why: "standard output belongs to the handshake; logs go to standard error"},
	}
	for n := range list {
		list[n].binary = true
	}
	return list
}

func checkFile(p *probe) {
	f, err := process.Open(p.binary.path, "")
	if err != nil {
		p.fatalf("the relay refuses the file: %v", err)
	}
	_ = f.Close()
}

// checkLaunch starts the program as the relay does, handshake and all.
func checkLaunch(p *probe) {
	if f, err := process.Open(p.binary.path, ""); err != nil {
		p.skipf("the relay refuses the file: see the check file")
	} else {
		_ = f.Close()
	}
	patience := p.patience()
	launched, err := process.Start(p.ctx, process.Options{Sink: "sinktest", Path: p.binary.path, SocketDir: p.binary.dir,
		Logger: slog.New(slog.NewJSONHandler(&p.binary.output, nil)),
		Limits: process.Limits{Start: startWithin + patience, Drain: drainWithin + patience, Shutdown: 2*time.Second + patience, Term: 3*time.Second + patience}})
	if err != nil {
		p.fatalf("%v", err)
	}
	d, err := launched.Client().Describe(p.ctx, &sinkpb.DescribeRequest{})
	launched.Stop(p.ctx)
	if err != nil {
		p.fatalf("Describe: %v", p.told(err))
	}
	if !proto.Equal(d, p.describe()) {
		p.failf("Describe answers otherwise when the relay starts the sink")
	}
	if exit := launched.Exit(); exit.Killed || exit.Status != 0 {
		p.failf("told to end it %s; it has to end by itself, with status 0", exit)
	}
}

// mustStart starts a process of the check's own.
func (p *probe) mustStart() *proc {
	proc, err := p.binary.serving()
	p.started(err)
	return proc
}

func checkDescribeCommand(p *probe) {
	out, errs, err := p.runByHand(nil, "describe")
	if err != nil {
		p.fatalf("%s describe: %v %s", p.binary.base(), err, short(errs, 300))
	}
	told := map[string]any{}
	if err := json.Unmarshal([]byte(out), &told); err != nil {
		p.fatalf("%s describe prints no JSON object: %v", p.binary.base(), err)
	}
	d := p.describe()
	want := map[string]any{"name": d.GetName(), "version": d.GetVersion(), "summary": d.GetSummary(), "homepage": d.GetHomepage(), "settings_schema": nil, "capabilities": map[string]any{}}
	if schema := d.GetSettingsSchema(); len(schema) > 0 {
		want["settings_schema"] = decodeJSON(schema)
	}
	if c := d.GetCapabilities(); c != nil {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(c)
		if err != nil {
			p.fatalf("capabilities: %v", err)
		}
		want["capabilities"] = decodeJSON(text)
	}
	for key, value := range want {
		have := told[key]
		if key == "capabilities" {
			have = withoutZeros(have)
		}
		if have == nil && value == "" {
			continue
		}
		if !reflect.DeepEqual(have, value) {
			p.failf("%s describe: %s is %s; Describe answers %s", p.binary.base(), key, short(string(encode(have)), 300), short(string(encode(value)), 300))
		}
	}
}

func decodeJSON(text []byte) (v any) {
	if err := json.Unmarshal(text, &v); err != nil {
		return string(text)
	}
	return v
}

// withoutZeros leaves out what proto3 does not tell from its absence.
func withoutZeros(v any) any {
	object, isObject := v.(map[string]any)
	if !isObject {
		return v
	}
	kept := map[string]any{}
	for key, value := range object {
		list, isList := value.([]any)
		if value != nil && value != false && value != 0.0 && (!isList || len(list) > 0) {
			kept[key] = value
		}
	}
	return kept
}

// runByHand runs the program as a person would, without the relay's variables.
func (p *probe) runByHand(stdin *os.File, args ...string) (out, errs string, err error) {
	ctx, cancel := context.WithTimeout(p.ctx, endWithin+p.patience())
	defer cancel()
	cmd := exec.CommandContext(ctx, p.binary.path, args...) // #nosec G204 -- running the program is what was asked for
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, &stdout, &stderr
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.Dir, cmd.WaitDelay = "/", 2*time.Second
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("did not end within %v", endWithin)
	}
	return stdout.String(), stderr.String(), err
}

func checkByHand(p *probe) {
	// An open pipe: whoever waits for the end of its input would wait for ever.
	r, w, err := os.Pipe()
	if err != nil {
		p.fatalf("%v", err)
	}
	defer r.Close()
	defer w.Close()
	out, errs, err := p.runByHand(r)
	switch {
	case err == nil:
		p.failf("started by hand it ends with status 0, as if it had done something")
	case strings.Contains(err.Error(), "did not end"):
		p.failf("started by hand it serves; without the variable PEANUTS_RELAY_SINK it has to explain itself and end")
	}
	if strings.TrimSpace(out+errs) == "" {
		p.failf("started by hand it says nothing")
	}
	if strings.HasPrefix(out, "1|") {
		p.failf("started by hand it writes a handshake")
	}
}

func checkStdin(p *probe) {
	proc := p.mustStart()
	defer proc.kill()
	_ = proc.stdin.Close()
	if !proc.within(endWithin + p.patience()) {
		p.fatalf("%v after the end of its standard input it still runs", endWithin+p.patience())
	}
	if code := proc.cmd.ProcessState.ExitCode(); code != 0 {
		p.failf("at the end of its standard input it ends badly: %s", proc.fate())
	}
	if p.o.Offline != "" || p.o.Settings == nil {
		return
	}
	busy := p.mustStart()
	defer busy.kill()
	p.stallAt(busy)
	_ = busy.stdin.Close()
	if !busy.within(endWithin + p.patience()) {
		p.failf("%v after the end of its standard input it still waits for the service", endWithin+p.patience())
	}
}

// stallAt makes a delivery of another process wait at the service.
func (p *probe) stallAt(proc *proc) {
	configured, err := proc.client.Configure(p.ctx, &sinkpb.ConfigureRequest{Instance: "stall", Webhook: sampleWebhook, SettingsJson: encode(p.settings())})
	if err != nil || len(p.errorsIn(configured.GetDiagnostics())) > 0 {
		p.fatalf("Configure: %v %s", err, list(configured.GetDiagnostics()))
	}
	p.remote.hold()
	d := wire(p.created())
	go func() {
		_, _ = proc.client.Deliver(p.ctx, &sinkpb.DeliverRequest{Instance: "stall", Deliveries: []*sinkpb.Delivery{d}})
	}()
	ctx, cancel := context.WithTimeout(p.ctx, startWithin+p.patience())
	defer cancel()
	if !p.remote.held(ctx, 1) {
		p.fatalf("no request came to the suite's server: are the settings made with it?")
	}
}

func checkSignals(p *probe) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		proc := p.mustStart()
		_ = proc.cmd.Process.Signal(sig)
		// Time for the signal to arrive, and for two answers: one may have been on its way.
		ended := proc.within(300 * time.Millisecond)
		for range 2 {
			ctx, cancel := context.WithTimeout(p.ctx, healthWithin+p.patience())
			_, err := proc.client.Health(ctx, &sinkpb.HealthRequest{})
			cancel()
			if err != nil || ended {
				p.failf("%v ends it or makes it refuse (%v)", sig, err)
				break
			}
		}
		proc.kill()
	}
}

func checkDescriptors(p *probe) {
	i := p.open()
	defer i.close()
	proc := p.binary.now
	for range warmUp {
		i.succeed(p.created())
		p.remote.forget()
	}
	before, err := descriptors(proc.cmd.Process.Pid)
	if err != nil {
		p.skipf("its descriptors cannot be counted: %v", err)
	}
	for range deliveries - warmUp {
		i.succeed(p.created())
		p.remote.forget()
	}
	after, err := descriptors(proc.cmd.Process.Pid)
	if err != nil {
		p.fatalf("%v", err)
	}
	if after > before+maxGrowth {
		p.failf("%d open descriptors after %d deliveries, and %d after %d: does it close what it reads?", before, warmUp, after, deliveries)
	}
}

func descriptors(pid int) (int, error) {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(list), err
}

func checkStdout(p *probe) {
	i := p.open()
	defer i.close()
	i.deliver(p.ctx, p.created())
	if out := p.binary.now.stray.String(); out != "" {
		p.failf("it writes to standard output after the handshake: %q", short(out, 200))
	}
}
