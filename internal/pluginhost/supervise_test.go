package pluginhost

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

func bubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newRig(t)) })
}

func TestAPluginServesAllItsWebhooksWithOneProcess(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake", number: "1.2.3", caps: &sinkpb.Capabilities{MaxBatch: 10, UsesState: true}})
		a, b := r.openWebhook(InstanceOptions{Webhook: "expenses.sheet", Settings: []byte(`{"a":1}`)}), r.openWebhook(InstanceOptions{Webhook: "expenses.other"})
		if a.Held() != "" || b.Held() != "" || r.disk.started() != 1 {
			t.Fatalf("held %q and %q, %d processes", a.Held(), b.Held(), r.disk.started())
		}
		if l := a.Limits(); l.Batch != 10 || !l.Ordered || !l.State || l.Linger != 100*time.Millisecond {
			t.Errorf("limits %+v", l)
		}
		if got := deliverOne(t.Context(), a, outbound("1")); got.Outcome != delivery.Delivered || got.Number != 1 {
			t.Errorf("got %+v", got)
		}
		s := r.host.Status()[0]
		if s.Sink != "fake" || s.Version != "1.2.3" || s.State != StateReady || s.PID != 1000 || s.Restarts != 0 || !s.Healthy ||
			strings.Join(s.Webhooks, " ") != "expenses.other expenses.sheet" || s.Dropped != 7 || s.LastError != "" {
			t.Errorf("status %+v", s)
		}
		a.Close()
		b.Close()
		b.Close()
		synctest.Wait()
		if c := r.only(); len(c.instances) != 0 {
			t.Errorf("the process still has %v", c.instances)
		}
		time.Sleep(6 * time.Second)
		if s := r.host.Status(); len(s) != 0 || len(r.disk.living()) != 0 {
			t.Errorf("a plugin that nobody uses is still there: %+v", s)
		}
		if got := deliverOne(t.Context(), a, outbound("2")); got.Outcome != delivery.Interrupted || got.Code != delivery.CodePluginDown {
			t.Errorf("after Close: %+v", got)
		}
	})
}

func TestWhatFollowsACheckUsesTheSameProcess(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake"})
		p, err := r.host.Inspect(t.Context(), file())
		if err != nil {
			t.Fatal(err)
		}
		p.Release()
		p.Release()
		time.Sleep(4 * time.Second)
		i := r.openWebhook(InstanceOptions{})
		time.Sleep(time.Hour)
		if r.disk.started() != 1 || i.Held() != "" {
			t.Errorf("%d processes, held %q", r.disk.started(), i.Held())
		}
	})
}

func TestAProcessThatEndsIsStartedAgainAndItsInstancesAreConfiguredFirst(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var slow atomic.Bool
		r.disk.put(path, &version{name: "fake", on: func(ctx context.Context, c *fakeChild, call string, _ any) (any, error) {
			if slow.Load() && call == "configure" {
				time.Sleep(3 * time.Second)
			}
			return nil, nil
		}})
		i := r.openWebhook(InstanceOptions{Settings: []byte(`{"a":1}`)})
		slow.Store(true)
		rung := r.rung()
		r.only().crash()
		synctest.Wait()
		if i.Held() != delivery.HoldPluginDown || r.rung() == rung {
			t.Fatalf("held %q, rung %d", i.Held(), r.rung()-rung)
		}
		if s := r.host.Status()[0]; s.State != StateBackoff || s.NextStart.IsZero() || time.Until(s.NextStart) > 500*time.Millisecond ||
			s.LastError != "exited with status 2; its last words: panic: oh no" || !strings.Contains(s.CrashReport, "goroutine 1") || s.PID != 0 {
			t.Errorf("status %+v", s)
		}
		rung = r.rung()
		time.Sleep(3 * time.Second) // between the start and the end of Configure
		if i.Held() != delivery.HoldPluginDown || r.state() != StateStarting {
			t.Errorf("while it is configured: held %q, %s", i.Held(), r.state())
		}
		if a := deliverOne(t.Context(), i, outbound("1")); a.Outcome != delivery.Interrupted || a.Code != delivery.CodePluginDown || !strings.Contains(a.Error, "is being started") {
			t.Errorf("while it is configured: %+v", a)
		}
		time.Sleep(3 * time.Second)
		if i.Held() != "" || r.rung() == rung || r.host.Status()[0].Restarts != 1 {
			t.Errorf("held %q, status %+v", i.Held(), r.host.Status()[0])
		}
		if c := r.only(); len(c.instances) != 1 || c.instances[i.id] != `{"a":1}` {
			t.Errorf("instances %v", c.instances)
		}
		if a := deliverOne(t.Context(), i, outbound("2")); a.Outcome != delivery.Delivered {
			t.Errorf("then: %+v", a)
		}
		for _, line := range []string{"a sink plugin is ready", "ended and is started again", "oh no"} {
			if !strings.Contains(r.log.String(), line) {
				t.Errorf("the log does not say %q:\n%s", line, r.log)
			}
		}
	})
}

func TestPausesDoubleWithJitterAndStartOverWhenItWasReadyForLong(t *testing.T) {
	var longest [8]time.Duration
	for range 40 { // jitter: each round draws anew
		synctest.Test(t, func(t *testing.T) {
			h, times := &history{}, Times{Window: time.Nanosecond}.withDefaults()
			most := 500 * time.Millisecond
			for n := range longest {
				time.Sleep(time.Second)
				h.failed(time.Now(), time.Minute, &times, "", "")
				pause := time.Until(h.next)
				if pause <= 0 || pause > most {
					t.Fatalf("pause %d is %s, at most %s", n, pause, most)
				}
				longest[n] = max(longest[n], pause)
				most = min(2*most, time.Minute)
			}
			h.failed(time.Now(), 5*time.Minute, &times, "", "")
			if pause := time.Until(h.next); pause > 500*time.Millisecond {
				t.Fatalf("after five healthy minutes the pause is %s", pause)
			}
		})
	}
	if longest[7] < 30*time.Second || longest[0] < 250*time.Millisecond {
		t.Errorf("the longest pauses of 40 were %v: that is not the whole range", longest)
	}
}

func TestFiveEndsInTenMinutesSuspendUntilAProbeStaysWell(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var healthy atomic.Bool
		v := r.disk.put(path, &version{name: "fake", on: func(_ context.Context, c *fakeChild, call string, _ any) (any, error) {
			if call == "configure" && !healthy.Load() {
				time.AfterFunc(time.Second, c.crash)
			}
			return nil, nil
		}})
		i := r.openWebhook(InstanceOptions{})
		time.Sleep(2 * time.Minute)
		if r.state() != StateSuspended || v.starts() != 5 || i.Held() != delivery.HoldPluginDown {
			t.Fatalf("%s after %d starts, held %q", r.state(), v.starts(), i.Held())
		}
		if !strings.Contains(r.log.String(), "is suspended") {
			t.Errorf("the log is\n%s", r.log)
		}
		time.Sleep(30 * time.Minute)
		if v.starts() < 10 || v.starts() > 12 || r.state() != StateSuspended {
			t.Errorf("%s after %d starts: one probe in five minutes was wanted", r.state(), v.starts())
		}
		healthy.Store(true)
		time.Sleep(6 * time.Minute)
		if i.Held() != "" || r.state() != StateReady {
			t.Errorf("a probe that works: held %q, %s", i.Held(), r.state())
		}
		time.Sleep(6 * time.Minute)
		r.only().crash()
		synctest.Wait()
		if r.state() != StateBackoff {
			t.Errorf("after five healthy minutes an end leads to %s", r.state())
		}
	})
}

func TestASuspendedPluginIsTriedAtOnceWhenSomebodyAsks(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var broken atomic.Bool
		broken.Store(true)
		v := r.disk.put(path, &version{name: "fake", refuse: func(int) error {
			if broken.Load() {
				return errors.New("it is broken")
			}
			return nil
		}})
		i := r.openWebhook(InstanceOptions{Patient: true})
		time.Sleep(time.Minute)
		if r.state() != StateSuspended {
			t.Fatalf("%s", r.state())
		}
		before := v.starts()
		r.host.Hasten()
		synctest.Wait()
		if v.starts() != before+1 || r.state() != StateSuspended {
			t.Errorf("%s after %d starts", r.state(), v.starts()-before)
		}
		before = v.starts()
		if _, err := r.host.Inspect(t.Context(), file()); err == nil || err.Error() != "sink plugin fake: it is broken" || v.starts() != before+1 {
			t.Errorf("%v after %d starts", err, v.starts()-before)
		}
		broken.Store(false)
		p, err := r.host.Inspect(t.Context(), file())
		if err != nil || i.Held() != "" {
			t.Errorf("%v, held %q", err, i.Held())
		}
		p.Release()
	})
}

func TestSettingsThatWereRefusedAreTriedAtOnceWhenSomebodyAsks(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var right atomic.Bool
		var calls atomic.Int64
		r.disk.put(path, &version{name: "fake", on: func(_ context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if call != "configure" {
				return nil, nil
			}
			calls.Add(1)
			if right.Load() {
				return nil, nil
			}
			return &sinkpb.ConfigureResponse{Diagnostics: []*sinkpb.Diagnostic{{Severity: sinkpb.Severity_SEVERITY_ERROR, Summary: "the directory does not exist"}}}, nil
		}})
		i, _, err := r.host.Open(t.Context(), InstanceOptions{File: file(), Webhook: "expenses.w", Settings: []byte(`{}`), Patient: true})
		if err != nil || i == nil {
			t.Fatal(err)
		}
		defer i.Close()
		time.Sleep(20 * time.Second)
		if i.Held() != delivery.HoldMisconfigured || calls.Load() != 1 {
			t.Fatalf("held %q after %d calls", i.Held(), calls.Load())
		}
		right.Store(true)
		r.host.Hasten()
		synctest.Wait()
		if i.Held() != "" || calls.Load() != 2 {
			t.Errorf("held %q after %d calls", i.Held(), calls.Load())
		}
		r.host.Hasten()
		synctest.Wait()
		if calls.Load() != 2 {
			t.Errorf("%d calls: settings that were taken are given again", calls.Load())
		}
	})
}

func TestAProcessThatMissesThreeHealthChecksIsKilled(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var hang atomic.Bool
		r.disk.put(path, &version{name: "fake", on: func(ctx context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if hang.Load() && (call == "health" || call == "deliver") {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, nil
		}})
		i := r.openWebhook(InstanceOptions{})
		time.Sleep(20 * time.Second)
		hang.Store(true)
		got := make(chan *delivery.Attempt, 1)
		time.AfterFunc(25*time.Second, func() { got <- deliverOne(t.Context(), i, outbound("1")) })
		time.Sleep(47 * time.Second) // three checks, 15 s apart, of 2 s
		hang.Store(false)
		a := <-got
		if a.Outcome != delivery.Crashed || a.Code != delivery.CodePluginCrash || !strings.Contains(a.Error, "fake ended while it had the delivery: it did not answer 3 health checks") ||
			!strings.Contains(string(a.Body), "goroutine 7") {
			t.Errorf("the delivery in flight: %+v", a)
		}
		time.Sleep(2 * time.Second)
		if i.Held() != "" || r.disk.started() != 2 {
			t.Errorf("held %q, %d processes", i.Held(), r.disk.started())
		}
		if s := r.host.Status()[0]; !strings.Contains(s.LastError, "health") || !strings.Contains(s.CrashReport, "SIGQUIT") {
			t.Errorf("status %+v", s)
		}
	})
}

func TestTwoMissedHealthChecksAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var n atomic.Int64
		r.disk.put(path, &version{name: "fake", on: func(ctx context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if call != "health" {
				return nil, nil
			}
			if n := n.Add(1); n%3 != 0 {
				<-ctx.Done()
			} else if n%2 == 0 {
				return nil, status.Error(codes.Unimplemented, "an answer is an answer")
			}
			return nil, nil
		}})
		r.openWebhook(InstanceOptions{})
		time.Sleep(10 * time.Minute)
		if r.disk.started() != 1 || n.Load() < 30 {
			t.Errorf("%d processes after %d checks", r.disk.started(), n.Load())
		}
	})
}

func TestWhatAPluginSaysOfItsHealthIsShown(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var sick atomic.Bool
		sick.Store(true)
		r.disk.put(path, &version{name: "fake", on: func(_ context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if sick.Load() && call == "health" {
				return &sinkpb.HealthResponse{Message: "the quota of tok-12345 is\nused up"}, nil
			}
			return nil, nil
		}})
		i := r.openWebhook(InstanceOptions{Secrets: func([]byte) []secret.String { return []secret.String{secret.New("tok-12345")} }})
		time.Sleep(16 * time.Second)
		if s := r.host.Status()[0]; s.Healthy || s.HealthMessage != "the quota of ******** is used up" || i.Held() != "" {
			t.Errorf("status %+v", s)
		}
		sick.Store(false)
		time.Sleep(16 * time.Second)
		if s := r.host.Status()[0]; !s.Healthy || s.HealthMessage != "" {
			t.Errorf("status %+v", s)
		}
		if log := r.log.String(); !strings.Contains(log, "is not well") || !strings.Contains(log, "well again") || strings.Contains(log, "tok-1") {
			t.Errorf("the log is\n%s", log)
		}
	})
}

func TestAStartThatFailsLeavesNothing(t *testing.T) {
	for name, v := range map[string]*version{
		"cannot be executed": {name: "fake", refuse: func(int) error { return errors.New("no such interpreter") }},
		"another name":       {name: "slack"},
		"bad schema":         {name: "fake", schema: `{"type":7}`},
		"no answer to Describe": {name: "fake", on: func(ctx context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if call == "describe" {
				<-ctx.Done()
			}
			return nil, nil
		}},
		"death in Describe": {name: "fake", on: func(_ context.Context, c *fakeChild, call string, _ any) (any, error) {
			if call == "describe" {
				c.crash()
			}
			return nil, nil
		}},
	} {
		want := map[string]string{
			"cannot be executed":    "sink plugin fake: no such interpreter",
			"another name":          `sink plugin fake: it calls itself "slack", but the file is configured as the plugin of sink fake`,
			"bad schema":            "sink plugin fake: the JSON Schema of its settings cannot be used: it is no JSON Schema: at /type",
			"no answer to Describe": "sink plugin fake: its description failed: it did not answer in time",
			"death in Describe":     "sink plugin fake: its process ended during its description: it exited with status 2; its last words: panic: oh no",
		}[name]
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.disk.put(path, v)
				began := time.Now()
				_, err := r.host.Inspect(r.Context(), file())
				if err == nil || !strings.HasPrefix(err.Error(), want) {
					r.Errorf("got  %v\nwant %s", err, want)
				}
				if _, _, err = r.host.Open(r.Context(), InstanceOptions{File: file(), Webhook: "a.b"}); err == nil || !strings.HasPrefix(err.Error(), want) {
					r.Errorf("Open: %v", err)
				}
				if time.Since(began) > 12*time.Second {
					r.Errorf("it took %s", time.Since(began))
				}
				synctest.Wait()
				if len(r.disk.living()) != 0 || len(r.host.Status()) != 0 || v.descriptors() != 0 {
					r.Errorf("left: %d processes, %+v, %d descriptors", len(r.disk.living()), r.host.Status(), v.descriptors())
				}
			})
		})
	}
}
