package pluginhost

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

func TestAPatientInstanceBecomesUsableWhenItsPluginDoes(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		i := r.openWebhook(InstanceOptions{Patient: true})
		j := r.openWebhook(InstanceOptions{Patient: true, Webhook: "other.hook"})
		if i.Held() != delivery.HoldPluginDown || j.Held() != delivery.HoldPluginDown || i.Limits() != (delivery.Limits{}) {
			t.Fatalf("held %q, limits %+v", i.Held(), i.Limits())
		}
		test := outbound("1")
		test.Test = true
		if a := deliverOne(t.Context(), i, test); a.Outcome != delivery.Interrupted || !strings.Contains(a.Error, "fake is not running: "+path+": no such file; the next start is in") {
			t.Errorf("a test says %+v", a)
		}
		r.disk.put(path, &version{name: "fake", caps: &sinkpb.Capabilities{MaxBatch: 5}})
		time.Sleep(2 * time.Minute)
		if i.Held() != "" || j.Held() != "" || i.Limits().Batch != 5 || r.disk.started() != 1 {
			t.Errorf("held %q and %q, limits %+v, %d processes", i.Held(), j.Held(), i.Limits(), r.disk.started())
		}
	})
}

func TestAFileThatWasReplacedIsUsedByNewInstancesOnly(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake", number: "1"})
		old := r.openWebhook(InstanceOptions{})
		if got := r.host.Outdated(); len(got) != 0 {
			t.Errorf("outdated: %v", got)
		}
		r.disk.put(path, &version{name: "fake", number: "2"})
		if got := r.host.Outdated(); len(got) != 1 || got[0] != "fake" || !r.host.Status()[0].Outdated {
			t.Errorf("outdated: %v", got)
		}
		r.only().crash()
		time.Sleep(2 * time.Second)
		if s := r.host.Status()[0]; s.Version != "1" || old.Held() != "" {
			t.Errorf("a restart took another file: %+v", s)
		}

		next := r.openWebhook(InstanceOptions{Settings: []byte(`{"new":true}`)})
		if s := r.host.Status(); len(s) != 2 || s[0].Version != "1" || s[1].Version != "2" || old.Held() != "" || next.Held() != "" {
			t.Fatalf("side by side: %+v", s)
		}
		if a := deliverOne(t.Context(), old, outbound("1")); a.Outcome != delivery.Delivered {
			t.Errorf("the old one: %+v", a)
		}
		if got := r.host.Outdated(); len(got) != 0 {
			t.Errorf("outdated although the new one runs: %v", got)
		}
		old.Close()
		time.Sleep(6 * time.Second)
		if s := r.host.Status(); len(s) != 1 || s[0].Version != "2" || len(r.disk.living()) != 1 {
			t.Errorf("after the switch: %+v", s)
		}
		if a := deliverOne(t.Context(), next, outbound("2")); a.Outcome != delivery.Delivered {
			t.Errorf("the new one: %+v", a)
		}
	})
}

func TestABadNewFileLeavesTheOldOneServing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake", number: "1"})
		old := r.openWebhook(InstanceOptions{})
		r.disk.put(path, &version{name: "fake", refuse: func(int) error { return errors.New("it is broken") }})
		if _, err := r.host.Inspect(t.Context(), file()); err == nil {
			t.Error("a broken file was taken")
		}
		r.disk.put(path, &version{name: "fake", on: func(_ context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if call == "configure" {
				return &sinkpb.ConfigureResponse{Diagnostics: []*sinkpb.Diagnostic{{Path: "/url", Summary: "no longer known"}}}, nil
			}
			return nil, nil
		}})
		i, found, err := r.host.Open(t.Context(), InstanceOptions{File: file(), Webhook: "expenses.sheet"})
		if i != nil || err != nil || len(found) != 1 || found[0].Path != "/url" {
			t.Errorf("%v, %v, %v", i, found, err)
		}
		time.Sleep(time.Minute)
		if s := r.host.Status(); len(s) != 1 || s[0].Version != "1" || old.Held() != "" {
			t.Errorf("status %+v, held %q", s, old.Held())
		}
	})
}

func TestAnInstanceThatIsRefusedAfterARestartIsHeldAloneAndTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var refuse atomic.Bool
		r.disk.put(path, &version{name: "fake", on: func(_ context.Context, _ *fakeChild, call string, req any) (any, error) {
			if c, ok := req.(*sinkpb.ConfigureRequest); ok && refuse.Load() && c.GetWebhook() == "a.b" {
				return &sinkpb.ConfigureResponse{Diagnostics: []*sinkpb.Diagnostic{{Path: "/token", Summary: "it has expired"}}}, nil
			}
			return nil, nil
		}})
		i, other := r.openWebhook(InstanceOptions{Webhook: "a.b"}), r.openWebhook(InstanceOptions{Webhook: "c.d"})
		refuse.Store(true)
		r.only().crash()
		time.Sleep(2 * time.Second)
		if i.Held() != delivery.HoldMisconfigured || other.Held() != "" {
			t.Errorf("held %q and %q", i.Held(), other.Held())
		}
		if s := r.host.Status()[0]; len(s.Refused) != 1 || s.Refused[0] != (Refused{"a.b", "/token: it has expired"}) {
			t.Errorf("status %+v", s)
		}
		if a := deliverOne(t.Context(), i, outbound("1")); !strings.Contains(a.Error, "refuses the settings: /token: it has expired") {
			t.Errorf("a test says %+v", a)
		}
		refuse.Store(false)
		time.Sleep(6 * time.Minute)
		if i.Held() != "" || !strings.Contains(r.log.String(), "a webhook is no longer held") {
			t.Errorf("held %q; log\n%s", i.Held(), r.log)
		}
	})
}

func TestSettingsThatKillTheProcessAreLeftOutSoThatOthersGoOn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var kill atomic.Bool
		v := r.disk.put(path, &version{name: "fake", on: func(_ context.Context, p *fakeChild, call string, req any) (any, error) {
			if c, ok := req.(*sinkpb.ConfigureRequest); ok && kill.Load() && c.GetWebhook() == "a.b" {
				p.crash()
			}
			return nil, nil
		}})
		i, other := r.openWebhook(InstanceOptions{Webhook: "a.b"}), r.openWebhook(InstanceOptions{Webhook: "c.d"})
		kill.Store(true)
		r.only().crash()
		time.Sleep(time.Minute)
		if i.Held() != delivery.HoldMisconfigured || other.Held() != "" || v.starts() != 5 {
			t.Errorf("held %q and %q after %d starts", i.Held(), other.Held(), v.starts())
		}
		if s := r.host.Status()[0]; len(s.Refused) != 1 || !strings.Contains(s.Refused[0].Reason, "died 3 times when it got these settings") {
			t.Errorf("status %+v", s)
		}
	})
}

func TestAPluginThatHangsInConfigureIsKilledUnlessItServesOthers(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake", on: func(ctx context.Context, _ *fakeChild, call string, req any) (any, error) {
			if c, ok := req.(*sinkpb.ConfigureRequest); ok && c.GetWebhook() == "a.b" {
				<-ctx.Done()
			}
			return nil, nil
		}})
		_, _, err := r.host.Open(t.Context(), InstanceOptions{File: file(), Webhook: "a.b"})
		if err == nil || !strings.Contains(err.Error(), "the configuration of webhook a.b failed: it did not answer in time") {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if len(r.disk.living()) != 0 {
			t.Error("it was not killed")
		}
		other := r.openWebhook(InstanceOptions{Webhook: "c.d"})
		if _, _, err = r.host.Open(t.Context(), InstanceOptions{File: file(), Webhook: "a.b"}); err == nil {
			t.Error("no error")
		}
		patient := r.openWebhook(InstanceOptions{Webhook: "a.b", Patient: true})
		if other.Held() != "" || patient.Held() != delivery.HoldPluginDown || r.only() == nil {
			t.Errorf("held %q and %q", other.Held(), patient.Held())
		}
		r.only().crash()
		time.Sleep(20 * time.Second)
		if other.Held() != "" || patient.Held() != delivery.HoldPluginDown {
			t.Errorf("after a restart: held %q and %q", other.Held(), patient.Held())
		}
	})
}

func TestAPatientOpenGoesOnWithoutItsCaller(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake", on: func(ctx context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if call == "describe" || call == "configure" {
				select {
				case <-time.After(3 * time.Second):
				case <-ctx.Done():
				}
			}
			return nil, nil
		}})
		for _, during := range []string{"the start", "its own configuration"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			i, _, err := r.host.Open(ctx, InstanceOptions{File: file(), Webhook: "a.b", Patient: true})
			cancel()
			if err != nil || i.Held() != delivery.HoldPluginDown {
				t.Fatalf("during %s: %v, held %q", during, err, i.Held())
			}
			time.Sleep(10 * time.Second)
			if i.Held() != "" || r.disk.started() != 1 {
				t.Errorf("during %s: held %q, %d processes: %s", during, i.Held(), r.disk.started(), i.Why())
			}
		}
	})
}

func TestAnInstanceThatComesDuringAStartIsConfiguredBeforeItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake", on: func(_ context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if call == "configure" {
				time.Sleep(3 * time.Second)
			}
			return nil, nil
		}})
		first := r.openWebhook(InstanceOptions{Webhook: "a.b"})
		r.only().crash()
		time.Sleep(2 * time.Second) // the first is being configured in the next process
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		second, _, err := r.host.Open(ctx, InstanceOptions{File: file(), Webhook: "c.d", Patient: true})
		if err != nil || r.state() != StateStarting {
			t.Fatalf("%v, %s", err, r.state())
		}
		time.Sleep(3 * time.Second)
		if r.state() != StateStarting || first.Held() == "" {
			t.Errorf("%s, held %q although the second is not configured", r.state(), first.Held())
		}
		time.Sleep(3 * time.Second)
		if first.Held() != "" || second.Held() != "" {
			t.Errorf("held %q and %q", first.Held(), second.Held())
		}
	})
}

func TestACallOfConfigureThatFailedIsTriedAgainSoon(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var hang atomic.Bool
		r.disk.put(path, &version{name: "fake", on: func(ctx context.Context, _ *fakeChild, call string, req any) (any, error) {
			if c, ok := req.(*sinkpb.ConfigureRequest); ok && hang.Load() && c.GetWebhook() == "a.b" {
				<-ctx.Done()
			}
			return nil, nil
		}})
		r.openWebhook(InstanceOptions{Webhook: "c.d"})
		hang.Store(true)
		i := r.openWebhook(InstanceOptions{Webhook: "a.b", Patient: true})
		time.Sleep(5 * time.Minute)
		if s := r.host.Status()[0]; i.Held() != delivery.HoldPluginDown || len(s.Refused) != 1 || !strings.Contains(s.Refused[0].Reason, "did not answer in time") {
			t.Errorf("held %q, status %+v", i.Held(), s)
		}
		hang.Store(false)
		time.Sleep(6 * time.Minute)
		if i.Held() != "" || r.disk.started() != 1 {
			t.Errorf("held %q, %d processes", i.Held(), r.disk.started())
		}
	})
}
