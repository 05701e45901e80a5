package pluginhost

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

func TestAProcessThatIsEndingIsNotUsedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake", on: func(_ context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if call == "close" {
				time.Sleep(4 * time.Second) // longer than the process is kept for
			}
			return nil, nil
		}})
		r.host.times.Linger = 2 * time.Second
		r.openWebhook(InstanceOptions{}).Close()
		time.Sleep(3 * time.Second)
		if r.state() != StateDraining {
			t.Fatalf("%s", r.state())
		}
		i := r.openWebhook(InstanceOptions{})
		if s := r.host.Status(); len(s) != 2 || s[0].State != StateDraining || s[1].State != StateReady {
			t.Errorf("status %+v", s)
		}
		time.Sleep(time.Minute)
		if i.Held() != "" || r.state() != StateReady || r.disk.started() != 2 {
			t.Errorf("held %q, %s, %d processes", i.Held(), r.state(), r.disk.started())
		}
	})
}

func TestStopEndsWhateverStateAPluginIsIn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake", on: func(ctx context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if call == "deliver" {
				select {
				case <-time.After(5 * time.Second):
				case <-ctx.Done():
				}
			}
			return nil, nil
		}})
		for name, v := range map[string]*version{
			"/x/starting": {name: "starting", on: func(ctx context.Context, _ *fakeChild, _ string, _ any) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}},
			"/x/backoff": {name: "backoff", refuse: func(int) error { return errors.New("broken") }},
		} {
			r.disk.put(name, v)
			go r.host.Open(t.Context(), InstanceOptions{File: File{Sink: v.name, Path: name}, Webhook: "a.b", Patient: true})
		}
		i := r.openWebhook(InstanceOptions{})
		got := make(chan *delivery.Attempt, 1)
		go func() { got <- deliverOne(t.Context(), i, outbound("1")) }()
		synctest.Wait()
		began := time.Now()
		if err := r.host.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if a := <-got; a.Outcome != delivery.Delivered || time.Since(began) != 5*time.Second {
			t.Errorf("the delivery in flight: %+v after %s", a, time.Since(began))
		}
		if len(r.disk.living()) != 0 || i.Held() != delivery.HoldPluginDown {
			t.Errorf("held %q, %d processes", i.Held(), len(r.disk.living()))
		}
		if _, err := r.host.Inspect(t.Context(), file()); !errors.Is(err, errStopping) {
			t.Errorf("after Stop: %v", err)
		}
	})
}

func TestStopKillsWhenItsTimeIsOver(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake", on: func(ctx context.Context, _ *fakeChild, call string, _ any) (any, error) {
			if call == "deliver" {
				<-ctx.Done()
			}
			return nil, nil
		}})
		i := r.openWebhook(InstanceOptions{})
		got := make(chan *delivery.Attempt, 1)
		go func() { got <- deliverOne(t.Context(), i, outbound("1")) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := r.host.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if a := <-got; a.Outcome != delivery.Interrupted || a.Code != delivery.CodePluginDown {
			t.Errorf("the delivery in flight: %+v", a)
		}
	})
}

func TestAnEndThatWasNotAskedForIsACrashWhateverItsStatus(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake"})
		i := r.openWebhook(InstanceOptions{})
		r.only().die(process.Exit{Status: 0, Last: []string{"bye"}})
		synctest.Wait()
		if s := r.host.Status()[0]; s.State != StateBackoff || s.LastError != "exited with status 0; its last words: bye" || s.CrashReport != "bye" {
			t.Errorf("status %+v", s)
		}
		if i.Held() != delivery.HoldPluginDown {
			t.Errorf("held %q", i.Held())
		}
	})
}

func TestASecretThatIsTheNameOfThePluginDoesNotKeepItFromStartingAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake"})
		i := r.openWebhook(InstanceOptions{Secrets: func([]byte) []secret.String { return []secret.String{secret.New("fake")} }})
		r.only().crash()
		time.Sleep(6 * time.Second)
		if s := r.host.Status()[0]; i.Held() != "" || s.State != StateReady || s.Restarts != 1 {
			t.Errorf("held %q, status %+v", i.Held(), s)
		}
	})
}
