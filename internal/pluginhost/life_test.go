package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// step is one thing that happens in the life of a host.
type step struct {
	do    string
	which int
	wait  time.Duration
}

// TestWhateverHappensEveryDeliveryHasAnHonestOutcomeAndNothingIsLeft lets webhooks come,
// go and deliver while processes crash, hang, refuse and are replaced, in any order and
// at the same time.
func TestWhateverHappensEveryDeliveryHasAnHonestOutcomeAndNothingIsLeft(t *testing.T) {
	kinds := []string{"open", "open", "patient", "close", "crash", "replace", "break", "mend", "refuse", "accept", "hang", "deliver", "deliver", "deliver", "suspect", "inspect", "wait"}
	rapid.Check(t, func(rt *rapid.T) {
		var steps []step
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			steps = append(steps, step{rapid.SampledFrom(kinds).Draw(rt, "do"), rapid.IntRange(0, 7).Draw(rt, "which"),
				time.Duration(rapid.SampledFrom([]int{0, 0, 1, 100, 700, 5_000, 20_000, 70_000}).Draw(rt, "wait")) * time.Millisecond})
		}
		synctest.Test(t, func(t *testing.T) { (&life{rig: newRig(t)}).play(steps) })
	})
}

type life struct {
	*rig
	broken, refuse, hang atomic.Bool
	crashed              atomic.Int64 // when the last one was, ns since 1970
	wg                   sync.WaitGroup
	mu                   sync.Mutex
	open                 []*used
}

// used is an instance and those who deliver through it: the dispatcher closes it after
// the last of them.
type used struct {
	*Instance
	by sync.WaitGroup
}

func (l *life) version(n int) *version {
	return &version{name: "fake", number: fmt.Sprint(n), caps: &sinkpb.Capabilities{MaxBatch: uint32(n%3) * 10},
		refuse: func(int) error {
			if l.broken.Load() {
				return errors.New("it is broken")
			}
			return nil
		},
		on: func(ctx context.Context, _ *fakeChild, call string, _ any) (any, error) {
			switch {
			case call == "deliver":
				time.Sleep(50 * time.Millisecond)
			case call == "configure" && l.refuse.Load():
				return &sinkpb.ConfigureResponse{Diagnostics: []*sinkpb.Diagnostic{{Path: "/x", Summary: "no"}}}, nil
			case call == "configure":
				time.Sleep(20 * time.Millisecond)
			}
			if l.hang.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, nil
		}}
}

func (l *life) play(steps []step) {
	l.disk.put(path, l.version(0))
	for n, s := range steps {
		l.wg.Go(func() { l.take(s, n) })
		time.Sleep(s.wait)
	}
	l.wg.Wait()
	// From here on everything works, and has to become well by itself.
	l.broken.Store(false)
	l.refuse.Store(false)
	time.Sleep(30 * time.Minute)
	l.mu.Lock()
	for _, i := range l.open {
		if i.Held() != "" {
			l.Errorf("%s is held (%s) long after all is well: %s; %+v", i.id, i.Held(), i.Why(), l.host.Status())
		}
		if a := deliverOne(l.Context(), i.Instance, outbound("last")); a.Outcome != delivery.Delivered {
			l.Errorf("%s does not deliver: %s %s", i.id, a.Outcome, a.Error)
		}
		i.Close()
	}
	l.mu.Unlock()
	time.Sleep(time.Minute)
	if s := l.host.Status(); len(s) != 0 || len(l.disk.living()) != 0 {
		l.Errorf("nobody uses them any more: %+v, %d processes", s, len(l.disk.living()))
	}
}

func (l *life) take(s step, n int) {
	switch s.do {
	case "open", "patient":
		i, found, err := l.host.Open(l.Context(), InstanceOptions{File: file(), Webhook: fmt.Sprintf("w.%d", s.which), Patient: s.do == "patient"})
		if i == nil && err == nil && !hasError(found) || err != nil && i != nil || s.do == "patient" && err != nil {
			l.Errorf("Open: %v, %v, %v", i, found, err)
		}
		if i != nil {
			l.mu.Lock()
			l.open = append(l.open, &used{Instance: i})
			l.mu.Unlock()
		}
	case "inspect":
		if p, err := l.host.Inspect(l.Context(), file()); err == nil {
			if _, err := p.Validate(l.Context(), []byte(`{}`), nil, false); err == nil && p.Description().Name != "fake" {
				l.Error("a description without a name")
			}
			p.Release()
		}
	case "close":
		l.mu.Lock()
		var i *used
		if len(l.open) > 0 {
			k := s.which % len(l.open)
			i = l.open[k]
			l.open = append(l.open[:k], l.open[k+1:]...)
		}
		l.mu.Unlock()
		if i != nil {
			i.by.Wait()
			i.Close()
		}
	case "crash":
		if living := l.disk.living(); len(living) > 0 {
			l.crashed.Store(time.Now().UnixNano())
			living[s.which%len(living)].crash()
		}
	case "replace":
		l.disk.put(path, l.version(n))
	case "break", "mend":
		l.broken.Store(s.do == "break")
	case "refuse", "accept":
		l.refuse.Store(s.do == "refuse")
	case "hang":
		l.hang.Store(true)
		time.Sleep(90 * time.Second)
		l.hang.Store(false)
	case "deliver", "suspect":
		l.deliver(s)
	}
}

func (l *life) deliver(s step) {
	l.mu.Lock()
	if len(l.open) == 0 {
		l.mu.Unlock()
		return
	}
	i := l.open[s.which%len(l.open)]
	i.by.Add(1)
	l.mu.Unlock()
	defer i.by.Done()
	os, as := outbounds(1 + s.which)
	if s.do == "suspect" {
		os[0].Crashes = 1
	}
	hung := l.hang.Load()
	began := time.Now()
	ctx, cancel := context.WithTimeout(l.Context(), 30*time.Second)
	defer cancel()
	i.DeliverBatch(ctx, os, as)
	if took := time.Since(began); took > 30*time.Second {
		l.Errorf("it took %s", took)
	}
	for _, a := range as {
		honest := false
		switch a.Outcome {
		case delivery.Delivered:
			honest = a.Code == "" && a.Error == ""
		case delivery.Interrupted:
			honest = a.Code == delivery.CodePluginDown && a.Error != ""
		case delivery.Crashed: // by us, at the latest at this very moment, or killed because its health was bad
			honest = a.Code == delivery.CodePluginCrash && (l.crashed.Load() >= began.UnixNano() || hung || l.hang.Load() || time.Since(began) > 10*time.Second)
		case delivery.Retry: // a hang; a process that forgot the instance never is
			honest = a.Code == delivery.CodeTimeout
		}
		if !honest {
			l.Errorf("an attempt through %s: %s %s: %s", i.id, a.Outcome, a.Code, a.Error)
		}
	}
}

// A large executable takes long to read, and all of it is read for its checksum.
func TestAPatientOpenDoesNotWaitForTheFileToBeRead(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, &version{name: "fake"})
		r.host.open = func(path, sum string) (executable, error) {
			time.Sleep(time.Hour)
			return r.disk.open(path, sum)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		i, _, err := r.host.Open(ctx, InstanceOptions{File: file(), Webhook: "a.b", Patient: true})
		if took := time.Since(began); err != nil || i.Held() != delivery.HoldPluginDown || took != time.Second {
			t.Fatalf("%v, held %q after %v", err, i.Held(), took)
		}
		time.Sleep(2 * time.Hour)
		if i.Held() != "" || r.disk.started() != 1 {
			t.Errorf("held %q, %d processes", i.Held(), r.disk.started())
		}
	})
}
