package sinks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

type clientPlugin struct{ plugin.NetRPCUnsupportedPlugin }

func (clientPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this is the side of the relay")
}

func (clientPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return sinkpb.NewSinkClient(conn), nil
}

func TestServeAnswersGoPluginsOwnClient(t *testing.T) {
	for _, mtls := range []bool{false, true} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = []string{play + "=good"}
		client := plugin.NewClient(&plugin.ClientConfig{
			HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: sinks.ProtocolVersion, MagicCookieKey: sinks.MagicCookieKey, MagicCookieValue: sinks.MagicCookieValue},
			Plugins:          plugin.PluginSet{sinks.PluginName: clientPlugin{}},
			Cmd:              cmd,
			AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
			AutoMTLS:         mtls,
			Logger:           hclog.NewNullLogger(),
		})
		t.Cleanup(client.Kill)
		protocol, err := client.Client()
		if err != nil {
			t.Fatal(err)
		}
		if err := protocol.Ping(); err != nil {
			t.Fatal(err)
		}
		raw, err := protocol.Dispense(sinks.PluginName)
		if err != nil {
			t.Fatal(err)
		}
		sink := raw.(sinkpb.SinkClient)
		about, err := sink.Describe(t.Context(), &sinkpb.DescribeRequest{})
		if err != nil || about.GetName() != "played" || about.GetVersion() != "1.2.3" || !about.GetCapabilities().GetOrderedPerEntry() {
			t.Fatalf("%v, %v", about, err)
		}
		configure(t, sink, "a", `{"token":"abcdefgh"}`)
		if r := deliver(t, sink, "a", &sinkpb.Delivery{Id: "d1"}); r.GetMessage() != "did d1" || r.GetOutcome() != sinkpb.Outcome_OUTCOME_DELIVERED {
			t.Errorf("result %v", r)
		}
		client.Kill()
		if !client.Exited() || cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("it ended with %v", cmd.ProcessState)
		}
	}
}

func TestASinkEndsWithTheRelaysPipe(t *testing.T) {
	p := startProcess(t)
	configure(t, p.client, "a", `{"token":"abcdefgh"}`)
	under := make(chan error, 1)
	go func() {
		_, err := p.client.Deliver(context.Background(), &sinkpb.DeliverRequest{Instance: "a", Deliveries: []*sinkpb.Delivery{{Id: "d1", Event: "wait"}}})
		under <- err
	}()
	p.errs.wait(t, "waiting")
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if status := p.exit(); status != 0 {
		t.Errorf("exit status %d; stderr: %s", status, p.errs)
	}
	if err := <-under; err == nil {
		t.Error("a call was answered after the relay was gone")
	}
	if _, err := os.Lstat(p.socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its socket is left: %v", err)
	}
	p.errs.wait(t, "closed")
}

func TestSignalsDoNotEndASink(t *testing.T) {
	p := startProcess(t)
	for range 3 {
		for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
			if err := p.cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.client.Health(t.Context(), &sinkpb.HealthRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALargeBatchIsTaken(t *testing.T) {
	p := startProcess(t)
	configure(t, p.client, "a", `{"token":"abcdefgh"}`)
	deliver(t, p.client, "a", &sinkpb.Delivery{Id: "d1", Payload: bytes.Repeat([]byte("x"), 20<<20)})
}

func TestWhatAnAuthorPrintsReachesTheLog(t *testing.T) {
	p := startProcess(t)
	configure(t, p.client, "a", `{"token":"abcdefgh"}`)
	deliver(t, p.client, "a", &sinkpb.Delivery{Id: "d1", Event: "print"})
	if line := p.errs.wait(t, "plain to"); line != "plain to stderr" {
		t.Errorf("printed %q", line)
	}
	p.out.wait(t, "plain to stdout")
	for _, row := range []struct{ message, level, webhook string }{{"structured", "INFO", "expenses.a"}, {"by default", "WARN", ""}} {
		var line struct {
			Time                       time.Time
			Level, Msg, Webhook, Token string
		}
		if err := json.Unmarshal([]byte(p.errs.wait(t, row.message)), &line); err != nil {
			t.Fatal(err)
		}
		if line.Time.IsZero() || line.Level != row.level || line.Msg != row.message || line.Webhook != row.webhook {
			t.Errorf("logged %+v, want %+v", line, row)
		}
	}
	if strings.Contains(p.errs.String(), "abcdefgh") {
		t.Errorf("the token is in the log: %s", p.errs)
	}
}

func TestAPanicIsARetryAndTheProcessLives(t *testing.T) {
	p := startProcess(t)
	configure(t, p.client, "a", `{"token":"abcdefgh"}`)
	r := deliver(t, p.client, "a", &sinkpb.Delivery{Id: "d1", Event: "panic", Payload: []byte("salary fortyseven")})
	if r.GetOutcome() != sinkpb.Outcome_OUTCOME_RETRY || r.GetCode() != "panic" || !strings.Contains(r.GetMessage(), "panic in Deliver: a value of type string") {
		t.Errorf("result %v", r)
	}
	line := p.errs.wait(t, "panic in a sink")
	if !strings.Contains(line, "playedSink") || !strings.Contains(line, `"level":"ERROR"`) || strings.Contains(p.errs.String(), "fortyseven") {
		t.Errorf("logged %s", p.errs)
	}
	if r := deliver(t, p.client, "a", &sinkpb.Delivery{Id: "d2"}); r.GetOutcome() != sinkpb.Outcome_OUTCOME_DELIVERED {
		t.Errorf("result %v", r)
	}
}

// run runs the test binary as a plugin that somebody started by hand.
func run(t *testing.T, playing string, args ...string) (out, errs string, status int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = []string{play + "=" + playing, "GOCOVERDIR=" + t.TempDir()} // with -cover it would complain
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func TestAPluginStartedByHandExplainsItself(t *testing.T) {
	out, errs, status := run(t, "good")
	if status != 2 || out != "" || !strings.Contains(errs, "peanuts-sink-played 1.2.3: a sink for tests") || !strings.Contains(errs, "peanuts-relay check") || !strings.Contains(errs, "https://example.com/played") {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	for _, arg := range []string{"help", "--help", "-h"} {
		if out, _, status := run(t, "good", arg); status != 0 || out != errs {
			t.Errorf("%s: status %d, %q", arg, status, out)
		}
	}
	if out, _, status := run(t, "good", "--version"); status != 0 || out != "played 1.2.3\n" {
		t.Errorf("status %d, %q", status, out)
	}
	if out, errs, status := run(t, "good", "dance"); status != 2 || out != "" || !strings.Contains(errs, `unknown command "dance"`) {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	if _, errs, status := run(t, "bad"); status != 1 || !strings.Contains(errs, `plugin name "Not A Name"`) {
		t.Errorf("status %d, %q", status, errs)
	}
}

func TestDescribeNeedsNoRelay(t *testing.T) {
	out, errs, status := run(t, "good", "describe")
	if status != 0 || errs != "" {
		t.Fatalf("status %d, %q", status, errs)
	}
	var about struct {
		Name, Version, Summary, Homepage string
		SettingsSchema                   json.RawMessage `json:"settings_schema"`
		Capabilities                     map[string]any
	}
	if err := json.Unmarshal([]byte(out), &about); err != nil {
		t.Fatal(err)
	}
	want, err := sinks.Schema[settings]()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Compact(&got, about.SettingsSchema); err != nil || got.String() != string(want) {
		t.Errorf("schema %s, %v", got.String(), err)
	}
	if about.Name != "played" || about.Capabilities["idempotent"] != true || about.Capabilities["ordered_per_entry"] != true || about.Capabilities["max_concurrency"] != 3.0 {
		t.Errorf("described %s", out)
	}
}

func TestASinkIsSeenByItsName(t *testing.T) {
	p := startProcess(t)
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.cmd.Process.Pid))
	if err != nil || string(name) != "sink-played\n" {
		t.Errorf("%q, %v", name, err)
	}
}
