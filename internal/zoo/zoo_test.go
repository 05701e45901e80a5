package zoo_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

func TestMain(m *testing.M) {
	zoo.Main()
	goleak.VerifyTestMain(m)
}

// start starts an animal that is configured with a record and a token.
func start(t *testing.T, behaviour string) (p *process.Process, record string) {
	t.Helper()
	sockets, err := os.MkdirTemp("", "zoo")
	if err != nil {
		t.Fatal(err)
	}
	p, err = process.Start(t.Context(), process.Options{
		Sink: zoo.Name(behaviour), Path: zoo.Install(t, t.TempDir(), behaviour), SocketDir: sockets,
		Limits: process.Limits{Start: 30 * time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Abort(false)
		<-p.Done()
		if err := os.Remove(sockets); err != nil {
			t.Error(err)
		}
	})
	return p, filepath.Join(t.TempDir(), "record")
}

func configure(t *testing.T, p *process.Process, record string) {
	t.Helper()
	settings := `{"record": "` + record + `", "token": "t0ken-of-the-zoo"}`
	if _, err := p.Client().Configure(t.Context(), &sinkpb.ConfigureRequest{Instance: "i", Webhook: "h.w", SettingsJson: []byte(settings)}); err != nil {
		t.Fatal(err)
	}
}

func deliver(ctx context.Context, p *process.Process, attempt uint32, data ...string) ([]*sinkpb.Result, error) {
	req := &sinkpb.DeliverRequest{Instance: "i"}
	for i, d := range data {
		id := string(rune('a' + i))
		req.Deliveries = append(req.Deliveries, &sinkpb.Delivery{
			Id: id, Webhook: "h.w", EventId: "evt", Event: "entry.created", Attempt: attempt, Sequence: uint64(i + 1),
			Helper: &sinkpb.Helper{Id: "h"}, Entry: &sinkpb.Entry{Id: "e" + id, DataJson: []byte(d)}, State: []byte("4"),
		})
	}
	res, err := p.Client().Deliver(ctx, req)
	return res.GetResults(), err
}

func TestAnEntryDecidesWhatBecomesOfItsDelivery(t *testing.T) {
	for _, row := range []struct {
		data    string
		attempt uint32
		outcome sinkpb.Outcome
		code    string
	}{
		{`{}`, 1, sinkpb.Outcome_OUTCOME_DELIVERED, ""},
		{`[1]`, 1, sinkpb.Outcome_OUTCOME_DELIVERED, ""},
		{`{"zoo":"skip"}`, 1, sinkpb.Outcome_OUTCOME_SKIPPED, ""},
		{`{"zoo":"retry"}`, 9, sinkpb.Outcome_OUTCOME_RETRY, "zoo"},
		{`{"zoo":"retry","times":2}`, 2, sinkpb.Outcome_OUTCOME_RETRY, "zoo"},
		{`{"zoo":"retry","times":2}`, 3, sinkpb.Outcome_OUTCOME_DELIVERED, ""},
		{`{"zoo":"reject"}`, 1, sinkpb.Outcome_OUTCOME_REJECTED, "zoo"},
		{`{"zoo":"limit","ms":5000}`, 1, sinkpb.Outcome_OUTCOME_RATE_LIMITED, "rate_limited"},
		{`{"zoo":"misconfigured"}`, 1, sinkpb.Outcome_OUTCOME_MISCONFIGURED, "zoo"},
		{`{"zoo":"slow","ms":1}`, 1, sinkpb.Outcome_OUTCOME_DELIVERED, ""},
		{`{"zoo":"leak"}`, 1, sinkpb.Outcome_OUTCOME_DELIVERED, ""},
	} {
		for _, behaviour := range []string{"state", "bare"} {
			p, record := start(t, behaviour)
			configure(t, p, record)
			rs, err := deliver(t.Context(), p, row.attempt, row.data)
			if err != nil || len(rs) != 1 || rs[0].GetOutcome() != row.outcome || rs[0].GetCode() != row.code {
				t.Errorf("%s answers %s in attempt %d with %v, %v", behaviour, row.data, row.attempt, rs, err)
			}
			if row.code == "rate_limited" && rs[0].GetRetryAfter().AsDuration() != 5*time.Second {
				t.Errorf("%s asks for a pause of %v", behaviour, rs[0].GetRetryAfter())
			}
			if behaviour == "state" && row.outcome == sinkpb.Outcome_OUTCOME_DELIVERED && string(rs[0].GetState()) != "5" {
				t.Errorf("%s answers the state %q", behaviour, rs[0].GetState())
			}
			recorded := zoo.Records(t, record)
			if len(recorded) != 1 || recorded[0].ID != "a" || recorded[0].Entry != "ea" || recorded[0].State != "4" || recorded[0].Sequence != 1 || recorded[0].Attempt != int(row.attempt) || recorded[0].PID != p.PID() {
				t.Errorf("%s recorded %+v", behaviour, recorded)
			}
		}
	}
}

func TestAnswersAreWrongInTheirOwnWay(t *testing.T) {
	for _, row := range []struct{ behaviour, want string }{
		{"bare", "a b c"}, {"too-few", "b c"}, {"too-many", "a b c nobody_asked"}, {"unknown", "nobody_asked nobody_asked nobody_asked"},
		{"duplicate", "a b c a b c"}, {"none", ""}, {"shuffled", "c b a"}, {"bad-outcome", "a b c"}, {"big-state", "a b c"}, {"big-message", "a b c"},
	} {
		p, record := start(t, row.behaviour)
		configure(t, p, record)
		rs, err := deliver(t.Context(), p, 1, `{}`, `{}`, `{}`)
		if err != nil {
			t.Errorf("%s: %v", row.behaviour, err)
			continue
		}
		var ids []string
		for _, r := range rs {
			ids = append(ids, r.GetDeliveryId())
		}
		if got := strings.Join(ids, " "); got != row.want {
			t.Errorf("%s answers for %s, want %s", row.behaviour, got, row.want)
		}
		switch row.behaviour {
		case "bad-outcome":
			if rs[0].GetOutcome() != 99 {
				t.Errorf("%s answers %v", row.behaviour, rs[0])
			}
		case "big-state":
			if len(rs[0].GetState()) != 5<<10 {
				t.Errorf("its state has %d bytes", len(rs[0].GetState()))
			}
		case "big-message":
			if len(rs[0].GetMessage()) < 1<<20 {
				t.Errorf("its message has %d bytes", len(rs[0].GetMessage()))
			}
		}
	}
}

// TestCallsFailWhereTheySay also shows that every other call is answered.
func TestCallsFailWhereTheySay(t *testing.T) {
	points := []struct {
		name string
		call func(context.Context, *process.Process) error
	}{
		{"describe", func(ctx context.Context, p *process.Process) error {
			_, err := p.Client().Describe(ctx, &sinkpb.DescribeRequest{})
			return err
		}},
		{"validate", func(ctx context.Context, p *process.Process) error {
			_, err := p.Client().Validate(ctx, &sinkpb.ValidateRequest{SettingsJson: []byte("{}")})
			return err
		}},
		{"configure", func(ctx context.Context, p *process.Process) error {
			_, err := p.Client().Configure(ctx, &sinkpb.ConfigureRequest{Instance: "i", SettingsJson: []byte("{}")})
			return err
		}},
		{"deliver", func(ctx context.Context, p *process.Process) error {
			_, err := deliver(ctx, p, 1, `{}`)
			return err
		}},
		{"health", func(ctx context.Context, p *process.Process) error {
			_, err := p.Client().Health(ctx, &sinkpb.HealthRequest{})
			return err
		}},
		{"drain", func(ctx context.Context, p *process.Process) error {
			_, err := p.Client().Drain(ctx, &sinkpb.DrainRequest{})
			return err
		}},
	}
	for _, kind := range []string{"crash", "hang"} {
		for i, bad := range points {
			p, _ := start(t, kind+"-"+bad.name)
			for j, point := range points {
				switch {
				case j < i:
					if err := point.call(t.Context(), p); err != nil {
						t.Errorf("%s-%s in %s: %v", kind, bad.name, point.name, err)
					}
				case j == i && kind == "crash":
					if err := point.call(t.Context(), p); status.Code(err) != codes.Unavailable || p.Exit().Status != zoo.ExitCrash {
						t.Errorf("%s-%s: %v", kind, bad.name, err)
					}
				case j == i:
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					if err := point.call(ctx, p); status.Code(err) != codes.DeadlineExceeded {
						t.Errorf("%s-%s: %v", kind, bad.name, err)
					}
					cancel()
				case kind == "hang":
					if err := point.call(t.Context(), p); err != nil && point.name != "deliver" { // not configured
						t.Errorf("%s-%s in %s: %v", kind, bad.name, point.name, err)
					}
				}
			}
		}
	}
}

func TestTheNthBatchCrashes(t *testing.T) {
	p, record := start(t, "crash-batch-3")
	configure(t, p, record)
	for i := range 3 {
		if _, err := deliver(t.Context(), p, 1, `{}`); (err != nil) != (i == 2) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if e := p.Exit(); e.Status != zoo.ExitCrash {
		t.Errorf("it %s", e)
	}
	if rs := zoo.Records(t, record); len(rs) != 3 || rs[2].Call != 3 {
		t.Errorf("recorded %+v", rs)
	}
}

func TestCapabilitiesAreTheirs(t *testing.T) {
	for behaviour, want := range map[string]func(*sinkpb.Capabilities) bool{
		"healthy":   func(c *sinkpb.Capabilities) bool { return c.GetIdempotent() && c.GetMaxBatch() <= 1 },
		"batch":     func(c *sinkpb.Capabilities) bool { return c.GetMaxBatch() == 50 && !c.GetOrderedPerEntry() },
		"ordered":   func(c *sinkpb.Capabilities) bool { return c.GetMaxBatch() == 50 && c.GetOrderedPerEntry() },
		"state":     func(c *sinkpb.Capabilities) bool { return c.GetUsesState() },
		"paced-20":  func(c *sinkpb.Capabilities) bool { return c.GetMaxPerSecond() == 20 && c.GetBurst() == 1 },
		"too-few":   func(c *sinkpb.Capabilities) bool { return c.GetMaxBatch() == 50 },
		"unhealthy": func(*sinkpb.Capabilities) bool { return true },
	} {
		p, record := start(t, behaviour)
		d, err := p.Client().Describe(t.Context(), &sinkpb.DescribeRequest{})
		if err != nil || d.GetName() != zoo.Name(behaviour) || !want(d.GetCapabilities()) || !strings.Contains(string(d.GetSettingsSchema()), "delay_ms") {
			t.Errorf("%s describes itself as %v, %v", behaviour, d, err)
		}
		configure(t, p, record)
		h, err := p.Client().Health(t.Context(), &sinkpb.HealthRequest{})
		if err != nil || h.GetHealthy() != (behaviour != "unhealthy") {
			t.Errorf("%s is healthy: %v, %v", behaviour, h, err)
		}
	}
}

func TestBehavioursAreListed(t *testing.T) {
	all := zoo.Behaviours()
	if !slices.IsSorted(all) || len(all) < 60 || !slices.Contains(all, "healthy") || !slices.Contains(all, "flood-message") {
		t.Errorf("there are %d: %v", len(all), all)
	}
	sockets := t.TempDir()
	if err := os.Chmod(sockets, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := process.Start(t.Context(), process.Options{Sink: "x", Path: zoo.Install(t, t.TempDir(), "unheard-of"), SocketDir: sockets})
	if err == nil || !strings.Contains(err.Error(), `the zoo has no "unheard-of"`) {
		t.Errorf("an unknown animal: %v", err)
	}
}
