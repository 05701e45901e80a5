package pluginhost

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

func TestZooOfPluginsThatDoNotStart(t *testing.T) {
	for behaviour, want := range map[string]string{
		"crash-start":     "exited with status 3",
		"panic-start":     "panic: ",
		"exit-0":          "exited with status 0",
		"hang-start":      "it was not ready within 2s",
		"stop-start":      "it was not ready within 2s",
		"garbage":         "is no handshake",
		"core":            "of go-plugin, which is not supported",
		"protocol":        "of the sink protocol; this relay speaks 1",
		"netrpc":          "only grpc is supported",
		"network":         "only unix is allowed",
		"socket-outside":  "is not in the directory that it was given",
		"socket-missing":  "no such file",
		"socket-file":     "is no socket",
		"certificate":     "a certificate, which was not asked for",
		"cookie":          "exited with status",
		"name":            "it calls itself",
		"mute":            "2s",
		"deaf":            "2s",
		"crash-handshake": "exited with status 3",
		"crash-children":  "exited with status 3",
		"flood-stdout":    "before a handshake",
		"flood-lines":     "is no handshake",
		"crash-describe":  "its process ended during its description: it exited with status 3",
		"hang-describe":   "its description failed: it did not answer in time",
	} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			c := newCage(t, behaviour, Options{}).withNeighbour()
			if strings.Contains(want, "2s") {
				c.host.opts.Process.Start = 2 * time.Second // the neighbour has taken the time that it needs
			}
			if behaviour == "hang-describe" {
				c.host.times.Describe = 2 * time.Second
			}
			_, err := c.host.Inspect(t.Context(), c.file)
			if err == nil || !strings.HasPrefix(err.Error(), "sink plugin "+c.file.Sink+": ") || !strings.Contains(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			c.await("the plugin is gone", func() bool { return c.ofAnimal().Sink == "" })
			o := options(c.file, "bad.hook", nil)
			o.Patient = true
			i, _, err := c.host.Open(t.Context(), o)
			if err != nil || i.Held() != delivery.HoldPluginDown {
				t.Fatalf("a patient Open: %v", err)
			}
			if s := c.ofAnimal(); !strings.Contains(s.LastError, want) || s.Ends == 0 {
				t.Errorf("status %+v", s)
			}
			if a := attempt(i, outbound("1"), time.Second); a.Outcome != delivery.Interrupted || a.Code != delivery.CodePluginDown {
				t.Errorf("a delivery: %s", shown(a))
			}
			c.await("the log says so", func() bool { return strings.Contains(c.log.String(), "cannot be started and is tried again") })
			c.neighbourGoesOn()
		})
	}
}

func TestZooOfPluginsThatFailInACall(t *testing.T) {
	for behaviour, want := range map[string]string{
		"crash-validate":  "its process ended during the check of the settings: it exited with status 3",
		"hang-validate":   "the check of the settings failed: it did not answer in time",
		"crash-configure": "its process ended during the configuration of webhook bad.hook: it exited with status 3",
		"hang-configure":  "the configuration of webhook bad.hook failed: it did not answer in time",
	} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			c := newCage(t, behaviour, Options{}).withNeighbour()
			if strings.HasPrefix(behaviour, "hang") {
				c.host.times.Validate, c.host.times.Configure = 2*time.Second, 2*time.Second
			}
			p, err := c.host.Inspect(t.Context(), c.file)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Release()
			if strings.HasSuffix(behaviour, "validate") {
				_, err = p.Validate(t.Context(), []byte(`{}`), nil, false)
			} else {
				_, _, err = c.host.Open(t.Context(), options(c.file, "bad.hook", nil))
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			c.neighbourGoesOn()
		})
	}
}

func TestZooOfPluginsThatDieOfADelivery(t *testing.T) {
	for behaviour, want := range map[string]string{
		"crash-deliver": "exited with status 3",
		"panic-deliver": "panic: the stairs were wet",
		// 2 is the runtime's own end; where the tests are built with -race it may be the race
		// detector's allocation that fails first, and that ends a process with 66.
		"starve-64": "exited with status (2|66)",
	} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			ends := regexp.MustCompile(want)
			c := newCage(t, behaviour, Options{Times: Times{MinPause: 50 * time.Millisecond, MaxPause: 100 * time.Millisecond}}).withNeighbour()
			i := c.open(c.file, "bad.hook", nil)
			for n := range maxEnds {
				c.await("it is ready", func() bool { return i.Held() == "" })
				o := outbound("1")
				o.Crashes = n
				a := attempt(i, o, patience)
				if a.Outcome != delivery.Crashed || a.Code != delivery.CodePluginCrash || !ends.MatchString(a.Error) {
					t.Fatalf("%d: %s", n, shown(a))
				}
				if strings.HasPrefix(want, "panic") && !strings.Contains(string(a.Body), "goroutine ") {
					t.Errorf("the body has no stack: %s", a.Body)
				}
				if i.Held() != delivery.HoldPluginDown {
					t.Errorf("held %q", i.Held())
				}
			}
			c.await("it is suspended", func() bool { return c.ofAnimal().State == StateSuspended })
			if s := c.ofAnimal(); !ends.MatchString(s.LastError) || s.Ends != maxEnds || s.NextStart.IsZero() {
				t.Errorf("status %+v", s)
			}
			c.await("the log says so", func() bool { return strings.Contains(c.log.String(), "ended too often and is suspended") })
			c.neighbourGoesOn()
		})
	}
}

func TestZooOfPluginsThatAnswerNothing(t *testing.T) {
	for behaviour, want := range map[string]delivery.Code{"hang-deliver": delivery.CodeTimeout, "stopped": delivery.CodeTimeout, "close-socket": delivery.CodeNoResult} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			c := newCage(t, behaviour, Options{Times: Times{Health: 500 * time.Millisecond, HealthDeadline: 3 * time.Second}})
			i := c.open(c.file, "bad.hook", nil)
			pid := c.ofAnimal().PID
			a := attempt(i, outbound("1"), 3*time.Second)
			if a.Outcome != delivery.Retry || a.Code != want || !strings.Contains(a.Error, c.file.Sink) {
				t.Errorf("%s", shown(a))
			}
			if behaviour == "hang-deliver" {
				return // it is well otherwise
			}
			c.await("it was killed and is ready again", func() bool { s := c.ofAnimal(); return s.State == StateReady && s.PID != pid })
			if s := c.ofAnimal(); !strings.Contains(s.LastError, "did not answer 3 health checks") {
				t.Errorf("status %+v", s)
			}
			if !strings.Contains(c.log.String(), "does not answer and is killed") {
				t.Error("the log does not say so")
			}
			if behaviour == "stopped" && !strings.Contains(c.ofAnimal().CrashReport, "SIGQUIT") {
				t.Errorf("no stacks: %s", c.ofAnimal().CrashReport)
			}
		})
	}
}

func TestZooOfPluginsWhoseHealthIsBad(t *testing.T) {
	t.Run("hang-health", func(t *testing.T) {
		t.Parallel()
		c := newCage(t, "hang-health", Options{Times: Times{Health: 100 * time.Millisecond, HealthDeadline: 500 * time.Millisecond}})
		i := c.open(c.file, "bad.hook", nil)
		c.await("it was killed", func() bool { return c.ofAnimal().LastError != "" })
		if s := c.ofAnimal(); !strings.Contains(s.CrashReport, "goroutine ") {
			t.Errorf("no stacks: %+v", s)
		}
		c.await("it is ready again", func() bool { return i.Held() == "" })
	})
	t.Run("crash-health", func(t *testing.T) {
		t.Parallel()
		c := newCage(t, "crash-health", Options{Times: Times{Health: 300 * time.Millisecond}})
		c.open(c.file, "bad.hook", nil)
		c.await("it ended", func() bool { return strings.Contains(c.ofAnimal().LastError, "exited with status 3") })
	})
	t.Run("unhealthy", func(t *testing.T) {
		t.Parallel()
		c := newCage(t, "unhealthy", Options{Times: Times{Health: 100 * time.Millisecond, HealthDeadline: patience}})
		i := c.open(c.file, "bad.hook", nil)
		c.await("it says so", func() bool { s := c.ofAnimal(); return !s.Healthy && s.HealthMessage != "" })
		if a := attempt(i, outbound("1"), patience); a.Outcome != delivery.Delivered {
			t.Errorf("%s", shown(a))
		}
	})
}

func TestZooOfPluginsThatAnswerWrongly(t *testing.T) {
	noResult := func(a *delivery.Attempt) bool {
		return a.Outcome == delivery.Retry && a.Code == delivery.CodeNoResult && a.Error != ""
	}
	delivered := func(a *delivery.Attempt) bool { return a.Outcome == delivery.Delivered }
	for behaviour, want := range map[string]func(n int, a *delivery.Attempt) bool{
		"too-few":     func(n int, a *delivery.Attempt) bool { return n == 0 && noResult(a) || n > 0 && delivered(a) },
		"too-many":    func(_ int, a *delivery.Attempt) bool { return delivered(a) },
		"unknown":     func(_ int, a *delivery.Attempt) bool { return noResult(a) },
		"duplicate":   func(_ int, a *delivery.Attempt) bool { return noResult(a) },
		"none":        func(_ int, a *delivery.Attempt) bool { return noResult(a) },
		"bad-outcome": func(_ int, a *delivery.Attempt) bool { return noResult(a) },
		"big-state":   func(_ int, a *delivery.Attempt) bool { return noResult(a) },
		"big-message": func(_ int, a *delivery.Attempt) bool {
			return noResult(a) && strings.Contains(a.Error, "larger than allowed")
		},
		"huge-64": func(_ int, a *delivery.Attempt) bool {
			return noResult(a) && strings.Contains(a.Error, "larger than allowed")
		},
		"shuffled": func(_ int, a *delivery.Attempt) bool { return delivered(a) },
	} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			c := newCage(t, behaviour, Options{}).withNeighbour()
			i := c.open(c.file, "bad.hook", nil)
			n := i.Limits().Batch
			os, as := outbounds(min(n, 5))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			i.DeliverBatch(ctx, os, as)
			for n, a := range as {
				// One delivery a call is the first of its call each time.
				if i.Limits().Batch == 1 {
					n = 0
				}
				if !want(n, a) {
					t.Errorf("%d: %s", n, shown(a))
				}
			}
			if s := c.ofAnimal(); s.State != StateReady || s.Ends != 0 {
				t.Errorf("status %+v", s)
			}
			c.neighbourGoesOn()
		})
	}
}

func TestZooAHugeAnswerDoesNotCostMemory(t *testing.T) {
	c := newCage(t, "huge-128", Options{})
	i := c.open(c.file, "bad.hook", nil)
	if a := attempt(i, outbound("1"), patience); a.Outcome != delivery.Retry {
		t.Fatalf("%s", shown(a))
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 3 {
		if a := attempt(i, outbound("1"), patience); a.Outcome != delivery.Retry || a.Code != delivery.CodeNoResult {
			t.Errorf("%s", shown(a))
		}
	}
	runtime.ReadMemStats(&after)
	grown := int64(after.TotalAlloc - before.TotalAlloc)
	t.Logf("three answers of 128 MiB made the host allocate %d KiB", grown>>10)
	if grown > 8<<20 {
		t.Errorf("the host allocated %d bytes", grown)
	}
}

func TestZooOfFloods(t *testing.T) {
	for _, behaviour := range []string{"flood-stderr-32", "flood-long-32", "flood-message-8", "flood-empty-2", "flood-after-32", "flood-stdio-16"} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			c := newCage(t, behaviour, Options{}).withNeighbour()
			i := c.open(c.file, "bad.hook", nil)
			for n := range 20 {
				if a := attempt(i, outbound(fmt.Sprint(n)), patience); a.Outcome != delivery.Delivered {
					t.Errorf("%s", shown(a))
				}
			}
			c.neighbourGoesOn()
			c.await("something was dropped", func() bool {
				// Empty lines are none, and three of 10 MiB are three short ones.
				return c.ofAnimal().Dropped > 0 || behaviour == "flood-empty-2" || behaviour == "flood-long-32"
			})
			if n := len(c.log.String()); n > 16<<20 {
				t.Errorf("the log has %d bytes", n)
			}
		})
	}
}

func TestZooNoSecretIsShown(t *testing.T) {
	c := newCage(t, "leak", Options{Times: Times{MinPause: 10 * time.Millisecond}})
	p, err := c.host.Inspect(t.Context(), c.file)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	settings := options(c.file, "bad.hook", nil)
	if found, err := p.Validate(t.Context(), settings.Settings, settings.Secrets(nil), true); err != nil || hasError(found) {
		t.Fatalf("%v, %v", found, err)
	}
	i := c.open(c.file, "bad.hook", nil)
	a := attempt(i, outbound("1"), patience)
	if a.Outcome != delivery.Crashed || len(a.Body) == 0 {
		t.Errorf("%s", shown(a))
	}
	c.await("it is ready again", func() bool { return i.Held() == "" })
	h := c.open(File{Sink: zoo.Name("healthy"), Path: zoo.Install(t, c.dir, "healthy")}, "other.hook", nil)
	b := attempt(h, zooOutbound("2", `{"zoo":"leak"}`), patience)
	if b.Outcome != delivery.Delivered || !strings.Contains(b.Message, secret.Mask) {
		t.Errorf("%s", shown(b))
	}
	c.await("the log has what it wrote", func() bool { return strings.Contains(c.log.String(), "the token is "+secret.Mask) })
	for where, text := range map[string]string{
		"the log": c.log.String(), "the attempt": fmt.Sprintf("%+v %s", a, a.Body), "the other attempt": fmt.Sprintf("%+v", b),
		"the status": fmt.Sprintf("%+v", c.host.Status()), "what Deliver says": attempt(i, outbound("3"), patience).Error,
	} {
		for n := range len(token) - 8 {
			if strings.Contains(text, token[n:n+9]) {
				t.Errorf("%s shows %s", where, token[n:n+9])
				break
			}
		}
	}
}

func TestZooOfPluginsThatDoNotWantToEnd(t *testing.T) {
	limits := process.Limits{Drain: time.Second, Shutdown: 500 * time.Millisecond, Term: 500 * time.Millisecond}
	for _, behaviour := range []string{"ignore-term", "crash-drain", "hang-drain", "grandchild", "fork-8", "escape", "bare"} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			c := newCage(t, behaviour, Options{Process: limits, Times: Times{Linger: time.Millisecond}}).withNeighbour()
			i := c.open(c.file, "bad.hook", nil)
			if a := attempt(i, outbound("1"), patience); a.Outcome != delivery.Delivered {
				t.Errorf("%s", shown(a))
			}
			i.Close()
			c.await("it has ended", func() bool { return c.ofAnimal().Sink == "" })
			c.neighbourGoesOn()
			c.open(c.file, "bad.hook", nil) // and once more, for Stop to end
		})
	}
}

func TestZooAPoisonPillIsFoundAndNobodyElsePays(t *testing.T) {
	c := newCage(t, "batch", Options{Times: Times{MinPause: 10 * time.Millisecond, MaxPause: 20 * time.Millisecond}})
	record := filepath.Join(c.dir, "record")
	i := c.open(c.file, "bad.hook", &zoo.Settings{Record: record})
	var os []*delivery.Outbound
	for n := range 10 {
		o := outbound(fmt.Sprint(n))
		if n == 4 {
			o = zooOutbound("4", `{"zoo":"kill"}`)
		}
		os = append(os, o)
	}
	attempts := map[string]int{}
	for round := 0; len(os) > 0; round++ {
		if round > 5 {
			t.Fatalf("%d deliveries go on for ever", len(os))
		}
		var left []*delivery.Outbound
		batch := os
		for len(batch) > 0 {
			c.await("it is ready", func() bool { return i.Held() == "" })
			n := together(batch, i.Limits())
			as := make([]*delivery.Attempt, n)
			for k := range as {
				as[k] = &delivery.Attempt{}
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			i.DeliverBatch(ctx, batch[:n], as)
			cancel()
			for k, a := range as {
				o := batch[k]
				attempts[o.DeliveryID]++
				switch {
				case a.Outcome == delivery.Crashed:
					if o.Crashes++; o.Crashes < 3 {
						left = append(left, o)
					} else if o.DeliveryID != "del_4" {
						t.Errorf("%s is taken for a poison pill", o.DeliveryID)
					}
				case a.Outcome != delivery.Delivered:
					t.Errorf("%s: %s", o.DeliveryID, shown(a))
				}
			}
			batch = batch[n:]
		}
		os = left
	}
	for id, n := range attempts {
		if want := map[bool]int{true: 3, false: 2}[id == "del_4"]; n != want {
			t.Errorf("%s was attempted %d times, want %d", id, n, want)
		}
	}
	if n := len(zoo.Records(t, record)); n != 10+9+2 {
		t.Errorf("the plugin saw %d deliveries", n)
	}
}

func TestZooAReplacedFileIsTakenOverWithoutAGap(t *testing.T) {
	c := newCage(t, "healthy", Options{Times: Times{Linger: time.Millisecond}})
	path := filepath.Join(c.dir, "peanuts-sink-acme")
	f := File{Sink: "acme", Path: path}
	zoo.InstallAs(t, path, "healthy", "1.0.0")
	old := c.open(f, "a.b", nil)
	zoo.InstallAs(t, path, "crash-describe", "1.1.0")
	if got := c.host.Outdated(); len(got) != 1 || got[0] != "acme" {
		t.Errorf("outdated: %v", got)
	}
	if _, err := c.host.Inspect(t.Context(), f); err == nil {
		t.Error("a new file that crashes was taken")
	}
	if a := attempt(old, zooOutbound("1", `{"zoo":"exit"}`), patience); a.Outcome != delivery.Crashed {
		t.Errorf("%s", shown(a))
	}
	c.await("the old file runs again", func() bool { return old.Held() == "" })
	zoo.InstallAs(t, path, "batch", "2.0.0")
	p, err := c.host.Inspect(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	next := c.open(f, "a.b", nil)
	p.Release()
	var versions strings.Builder
	for _, s := range c.host.Status() {
		versions.WriteString(s.Version + " ")
	}
	if versions.String() != "1.0.0 2.0.0 " || p.Description().Version != "2.0.0" || next.Limits().Batch != 50 {
		t.Errorf("versions %s, %+v, limits %+v", versions.String(), p.Description(), next.Limits())
	}
	for _, i := range []*Instance{old, next} {
		if a := attempt(i, outbound("2"), patience); a.Outcome != delivery.Delivered {
			t.Errorf("%s", shown(a))
		}
	}
	old.Close()
	c.await("the old process is gone", func() bool { s := c.host.Status(); return len(s) == 1 && s[0].Version == "2.0.0" })
	if a := attempt(next, outbound("3"), patience); a.Outcome != delivery.Delivered {
		t.Errorf("%s", shown(a))
	}
}

func TestZooStateTravelsWithTheEntry(t *testing.T) {
	c := newCage(t, "state", Options{})
	i := c.open(c.file, "a.b", nil)
	if l := i.Limits(); !l.State || !l.Ordered || l.Batch < 2 {
		t.Errorf("limits %+v", l)
	}
	o := outbound("1")
	for n := 1; n < 4; n++ {
		a := attempt(i, o, patience)
		if a.Outcome != delivery.Delivered || string(a.EntryState) != fmt.Sprint(n) {
			t.Fatalf("%s", shown(a))
		}
		o.EntryState = a.EntryState
	}
}

func TestZooSettingsAreCheckedByTheSchemaAndThePlugin(t *testing.T) {
	c := newCage(t, "healthy", Options{})
	p, err := c.host.Inspect(t.Context(), c.file)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	if d := p.Description(); d.Name != c.file.Sink || d.Version != "1.0.0" || !bytes.Contains(d.Schema, []byte(`"token"`)) {
		t.Errorf("description %+v", d)
	}
	found, err := p.Validate(t.Context(), []byte(`{"recrod":"/x"}`), nil, false)
	if err != nil || len(found) != 1 || found[0].Path != "/recrod" || found[0].Detail != `did you mean "record"?` {
		t.Errorf("%+v, %v", found, err)
	}
	if i, found, err := c.host.Open(t.Context(), InstanceOptions{File: c.file, Webhook: "a.b", Settings: []byte(`{"delay_ms":-1}`)}); i != nil || err != nil || len(found) != 1 || found[0].Path != "/delay_ms" {
		t.Errorf("%v, %+v, %v", i, found, err)
	}
}

func TestZooAFileThatOthersCanWriteToIsNotExecuted(t *testing.T) {
	c := newCage(t, "healthy", Options{})
	if err := os.Chmod(c.file.Path, 0o777); err != nil {
		t.Skip("the executable cannot be changed:", err)
	}
	defer os.Chmod(c.file.Path, 0o755)
	if _, err := c.host.Inspect(t.Context(), c.file); err == nil || !strings.Contains(err.Error(), "lets its group or others write") {
		t.Errorf("got %v", err)
	}
	if _, err := c.host.Inspect(t.Context(), File{Sink: "x", Path: c.dir + "/none"}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}
