package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// process is the plugin as the relay would have it: a process that speaks gRPC.
type process struct {
	cmd    *exec.Cmd
	conn   *grpc.ClientConn
	client sinkpb.SinkClient
	copied chan struct{}
}

func start(t *testing.T, path string) *process {
	t.Helper()
	dir, err := os.MkdirTemp("", "sheets") // short: sockets have names of at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &process{cmd: exec.Command(path), copied: make(chan struct{})}
	p.cmd.Env = []string{sinks.MagicCookieKey + "=" + sinks.MagicCookieValue, "PLUGIN_PROTOCOL_VERSIONS=1", "PLUGIN_UNIX_SOCKET_DIR=" + dir}
	if _, err := p.cmd.StdinPipe(); err != nil { // its end is the end of the process
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	line, err := out.ReadString('\n')
	go func() {
		defer close(p.copied)
		_, _ = io.Copy(io.Discard, out)
	}()
	t.Cleanup(p.kill)
	m := regexp.MustCompile(`^1\|1\|unix\|(/[^|]+)\|grpc`).FindStringSubmatch(line)
	if err != nil || m == nil {
		t.Fatalf("handshake %q: %v", line, err)
	}
	p.conn, err = grpc.NewClient("unix:"+m[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	p.client = sinkpb.NewSinkClient(p.conn)
	return p
}

// kill is kill -9.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.copied
	_ = p.cmd.Wait()
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

func (p *process) configure(t *testing.T, base string) {
	t.Helper()
	raw, err := json.Marshal(map[string]string{
		"spreadsheet": "https://docs.google.com/spreadsheets/d/" + sheetstest.ID + "/edit#gid=0",
		"tab":         "Expenses", "credentials": sheetstest.Key(email, base), "base_url": base,
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.client.Validate(t.Context(), &sinkpb.ValidateRequest{SettingsJson: raw, Online: true})
	if err != nil || len(v.GetDiagnostics()) > 0 {
		t.Fatalf("validate: %v, %v", v.GetDiagnostics(), err)
	}
	c, err := p.client.Configure(t.Context(), &sinkpb.ConfigureRequest{Instance: "one", Webhook: "expenses.sheet", SettingsJson: raw})
	if err != nil || len(c.GetDiagnostics()) > 0 {
		t.Fatalf("configure: %v, %v", c.GetDiagnostics(), err)
	}
}

func (p *process) deliver(ctx context.Context, ds []*sinks.Delivery) ([]*sinkpb.Result, error) {
	req := &sinkpb.DeliverRequest{Instance: "one"}
	for _, d := range ds {
		req.Deliveries = append(req.Deliveries, &sinkpb.Delivery{
			Id: d.ID, Webhook: d.Webhook, EventId: d.EventID, Event: d.Event, Sequence: d.Sequence, Attempt: 1,
			Timestamp: timestamppb.New(d.Timestamp),
			Entry:     &sinkpb.Entry{Id: d.Entry.ID, DataJson: d.Entry.Data},
		})
	}
	r, err := p.client.Deliver(ctx, req)
	return r.GetResults(), err
}

// interrupt sends a batch whose write meets a failure that leaves it without an answer,
// and ends the call, or the whole process, when Google has the request.
func (p *process) interrupt(t *testing.T, google *sheetstest.Server, what sheetstest.Failure, ds []*sinks.Delivery, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := len(google.Calls(sheetstest.Write))
	google.Fail(sheetstest.Write, what)
	failed := make(chan error, 1)
	go func() {
		_, err := p.deliver(ctx, ds)
		failed <- err
	}()
	for deadline := time.Now().Add(30 * time.Second); len(google.Calls(sheetstest.Write)) == before; {
		if time.Now().After(deadline) {
			t.Fatal("the write does not come")
		}
		<-time.After(time.Millisecond)
	}
	if end == nil {
		end = cancel
	}
	end()
	if err := <-failed; err == nil {
		t.Fatal("a call that was interrupted was answered")
	}
}

// settle sends a batch as the relay would until all of it is in the sheet.
func (p *process) settle(t *testing.T, ds []*sinks.Delivery) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		results, err := p.deliver(t.Context(), ds)
		if err != nil || len(results) != len(ds) {
			t.Fatalf("%d results: %v", len(results), err)
		}
		wait, left := time.Duration(0), 0
		for _, r := range results {
			switch r.GetOutcome() {
			case sinkpb.Outcome_OUTCOME_DELIVERED, sinkpb.Outcome_OUTCOME_SKIPPED:
			case sinkpb.Outcome_OUTCOME_RATE_LIMITED, sinkpb.Outcome_OUTCOME_RETRY:
				wait = max(wait, r.GetRetryAfter().AsDuration())
				left++
			default:
				t.Fatalf("%s: %v %s", r.GetDeliveryId(), r.GetOutcome(), r.GetMessage())
			}
			if strings.Contains(r.String(), "PRIVATE") {
				t.Error("a result shows the key")
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d deliveries are left", left)
		}
		<-time.After(wait)
	}
}

// A process that is killed while Google has the request, and before it could say so,
// leaves nothing behind that a resend would repeat or miss.
func TestKillingTheProcessLosesAndRepeatsNothing(t *testing.T) {
	google := sheetstest.New(time.Now)
	google.Share(email, sheetstest.Editor)
	server := httptest.NewServer(google)
	defer server.Close()

	path := installed(t)
	m := &model{onDelete: remove, rows: map[string]*modelRow{}}
	n := 0
	for round, what := range []sheetstest.Failure{sheetstest.HangAfter, sheetstest.HangBefore, ""} {
		var ds []*sinks.Delivery
		for i := range 300 {
			n++
			kind := []string{sinks.Created, sinks.Created, sinks.Updated, sinks.Deleted}[(i+round)%4]
			d := event(n, kind, fmt.Sprint("entry-", i/2), map[string]any{"n": n})
			ds = append(ds, d)
			m.apply(d)
		}
		p := start(t, path)
		p.configure(t, server.URL)
		if what != "" {
			p.interrupt(t, google, what, ds, p.kill)
			p = start(t, path)
			p.configure(t, server.URL)
		}
		p.settle(t, ds)
		p.kill()
		v, _ := google.Look("Expenses")
		if wrong := m.differences(v); len(wrong) > 0 {
			t.Fatalf("round %d: %d differences, the first %q", round, len(wrong), wrong[0])
		}
	}
}

// The program takes five thousand entries through a quota that is used up, a timeout
// after the write, a lost answer, and two kill -9, with the real clock.
func TestFiveThousandEntriesThroughAProgramThatIsKilled(t *testing.T) {
	google := sheetstest.New(time.Now)
	google.Share(email, sheetstest.Editor)
	server := httptest.NewServer(google)
	defer server.Close()

	path := installed(t)
	p := start(t, path)
	p.configure(t, server.URL)
	restart := func() {
		p = start(t, path)
		p.configure(t, server.URL)
	}
	m := &model{onDelete: remove, rows: map[string]*modelRow{}}
	for batch := range 10 {
		var ds []*sinks.Delivery
		for i := range maxBatch {
			n := batch*maxBatch + i + 1
			d := event(n, sinks.Created, fmt.Sprintf("entry-%04d", n), map[string]any{"amount": float64(n) / 4, "category": "=Food", "no": fmt.Sprintf("%03d", n)})
			ds = append(ds, d)
			m.apply(d)
		}
		switch batch {
		case 1:
			google.Fail(sheetstest.Write, sheetstest.BriefQuota)
		case 3:
			p.interrupt(t, google, sheetstest.HangAfter, ds, nil)
		case 5:
			p.interrupt(t, google, sheetstest.HangAfter, ds, p.kill)
			restart()
		case 7:
			p.interrupt(t, google, sheetstest.HangBefore, ds, p.kill)
			restart()
		case 8:
			google.Fail(sheetstest.Write, sheetstest.ResetAfter)
		}
		p.settle(t, ds)
	}
	p.kill()
	if n := google.Settle(); n > 0 {
		t.Errorf("%d failures were met by nobody", n)
	}
	v, _ := google.Look("Expenses")
	if wrong := m.differences(v); len(wrong) > 0 || len(v.Cells) != 5001 {
		t.Errorf("%d rows; %d differences, the first %.200q", len(v.Cells), len(wrong), wrong[:min(1, len(wrong))])
	}
	for _, op := range []sheetstest.Op{sheetstest.Read, sheetstest.Write} {
		if n := busiest(google.Calls(op)); n > perMinute {
			t.Errorf("%d calls in a minute: %s", n, op)
		}
	}
}
