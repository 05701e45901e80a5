package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// load hands in events all the time until stop is called, which returns when all are
// acknowledged.
func (c *cage) load() (stop func()) {
	var next atomic.Int64
	next.Store(int64(c.sent))
	end := c.flood(c.l, &next, 4)
	return func() {
		end()
		c.sent = int(next.Load())
	}
}

// ready waits until a plugin takes deliveries, and returns its status.
func (c *cage) ready(behaviour string) (p rest.Plugin) {
	c.t.Helper()
	c.await(behaviour+" to be ready", func() bool {
		p = c.plugin(behaviour)
		return p.State == rest.PluginReady && p.PID > 0
	})
	return p
}

// repeated is how many deliveries of a webhook came more than once.
func (c *cage) repeated(webhook string, times map[string]int) (n int) {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	for _, a := range c.l.acked {
		for _, d := range a.Deliveries {
			if d.Webhook == webhook && times[d.ID] > 1 {
				n++
			}
		}
	}
	return n
}

// One event kills the process of each plugin that gets it, here two that take batches.
// Each delivery of it is found and given up after three times, with the reason;
// everything else arrives.
func TestAPoisonPillFailsAndNothingElse(t *testing.T) {
	t.Parallel()
	c := newCage(t, 20*time.Millisecond, "", "batch")
	p := c.up()
	c.ready("batch")
	const pill = poisonEvents + 1
	c.hand(60)
	c.persist(c.l, pill, nil)
	c.hand(60)
	c.sent++
	c.arrived()
	poison, times := c.accounts()
	for other, n := range times {
		if _, ok := poison[other]; !ok && n > 2 {
			t.Errorf("delivery %s came %d times: it paid for another one", other, n)
		}
	}
	if len(poison) != 2 {
		t.Errorf("failed: %v", poison)
	}
	for _, d := range c.l.acked[pill].Deliveries {
		if !strings.HasPrefix(d.Webhook, "crash.ok") {
			c.isPoison(d.ID)
		}
	}
	if log := p.output(); strings.Count(log, "the process of its sink died each time") != 2 {
		t.Error("the log does not say of each once that it was given up")
	}
	p.stop()
	c.nobody()
	verifyStore(t, c.data)
}

// isPoison looks at a delivery that was given up.
func (c *cage) isPoison(id string) {
	c.t.Helper()
	detail, err := c.admin.Delivery(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	if n := len(detail.Log); detail.Status != rest.StatusFailed || n != delivery.MaxCrashes || detail.Log[n-1].Rule != string(delivery.RulePoison) || detail.Log[0].Rule != string(delivery.RuleCrashed) ||
		!strings.Contains(detail.Log[0].Error, "killed by signal 9 (SIGKILL)") {
		c.t.Errorf("delivery %s to %s is %s, its attempts: %+v", id, detail.Webhook, detail.Status, detail.Log)
	}
	if text := c.command("delivery", id); !strings.Contains(text, "plugin_crash") || !strings.Contains(text, "killed by signal 9 (SIGKILL)") {
		c.t.Errorf("the program says of it:\n%s", text)
	}
}

// The executable of a plugin is replaced again and again while deliveries are under
// way, mostly by one that works. Nothing is lost, nothing comes twice, and one that does
// not work leaves the old one serving.
func TestAnUpgradeUnderLoadLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	c := newCage(t, 20*time.Millisecond, ", concurrency: 4", "batch")
	p := c.up()
	c.ready("batch")
	stop := c.load()
	upgrades := times(t, "DAEMON_ZOO_UPGRADES", 2)
	testhost.Cases(t, 2*upgrades) // half of them are refused
	for n := range upgrades {
		version := strconv.Itoa(n+2) + ".0.0"
		zoo.InstallAs(t, c.path("batch"), "batch", version)
		if n%2 == 0 {
			if r := c.reload(); r.Result != rest.ReloadApplied {
				t.Fatalf("upgrade to %s: %+v", version, r)
			}
		} else if err := p.cmd.Process.Signal(unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
		c.await("version "+version+" alone", func() bool {
			all := c.now().Plugins
			return len(all) == 2 && c.plugin("batch").Version == version && c.plugin("batch").State == rest.PluginReady
		})
		c.refusesUpgrade(p, []string{"crash-describe", "crash-configure", "name"}[n%3])
	}
	stop()
	c.neighbours()
	c.arrived()
	poison, times := c.accounts()
	if n := c.repeated("crash.batch", times); n != 0 || len(poison) != 0 {
		t.Errorf("%d deliveries came twice, %d failed", n, len(poison))
	}
	p.stop()
	c.nobody()
	verifyStore(t, c.data)
}

// refusesUpgrade puts an executable that does not work in the place of the one that
// runs, which goes on.
func (c *cage) refusesUpgrade(p *process, behaviour string) {
	c.t.Helper()
	before := c.plugin("batch")
	zoo.InstallAs(c.t, c.path("batch"), behaviour, "6.6.6")
	r := c.reload()
	if r.Result != rest.ReloadRejected {
		c.t.Fatalf("an upgrade to %s: %+v", behaviour, r)
	}
	s := c.now()
	if s.Config.LastReload == nil || s.Config.LastReload.Result != rest.ReloadRejected || !strings.Contains(s.Config.LastReload.Error, zoo.Name("batch")) {
		c.t.Errorf("the status after an upgrade to %s: %+v", behaviour, s.Config.LastReload)
	}
	if text := c.command("status"); !strings.Contains(text, "sink plugin "+zoo.Name("batch")) {
		c.t.Errorf("the table after an upgrade to %s:\n%s", behaviour, text)
	}
	if !strings.Contains(p.output(), "configuration rejected") {
		c.t.Errorf("the log does not tell of the upgrade to %s", behaviour)
	}
	at := c.counts()["crash.batch"].Success
	c.await("the old process to go on", func() bool { return c.counts()["crash.batch"].Success > at })
	c.await("the new process to be gone", func() bool { return len(c.now().Plugins) == 2 })
	if now := c.plugin("batch"); now.PID != before.PID || now.Version != before.Version || now.State != rest.PluginReady {
		c.t.Errorf("before a bad upgrade %+v, after it %+v", before, now)
	}
}

// inFlight is how many deliveries of the webhook under test are under way at most: four
// calls of fifty.
const inFlight = 4 * 50

// A plugin's process is killed while deliveries are under way.
func TestKillsOfAPluginLoseNothing(t *testing.T) {
	t.Parallel()
	kills := min(times(t, "DAEMON_ZOO_KILLS", 3), 4) // the fifth within ten minutes suspends it
	testhost.Cases(t, kills)
	chance := testhost.Chance(t)
	c := newCage(t, 200*time.Millisecond, ", concurrency: 4", "batch")
	p := c.up()
	for range kills {
		pid := c.ready("batch").PID
		stop := c.load()
		time.Sleep(time.Duration(50+chance.IntN(300)) * time.Millisecond)
		c.await("deliveries to be under way", func() bool { return c.counts()["crash.batch"].InFlight > 0 })
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.await("the status to say so", func() bool {
			return strings.Contains(c.plugin("batch").LastError, "killed by signal 9 (SIGKILL)") && c.plugin("batch").PID != pid
		})
		stop()
		c.neighbours()
		c.arrived() // else the next kill could be the third for one of them
	}
	poison, times := c.accounts()
	if n := c.repeated("crash.batch", times); n > kills*inFlight || len(poison) != 0 {
		t.Errorf("%d deliveries came more than once after %d kills, %d failed", n, kills, len(poison))
	} else {
		t.Logf("%d deliveries came more than once", n)
	}
	if !strings.Contains(p.output(), endedAgain) {
		t.Error("the log does not say that it ended")
	}
	p.stop()
	c.nobody()
	verifyStore(t, c.data)
}

// The daemon is killed while a plugin has deliveries.
func TestKillsOfADaemonWithAPluginLoseNothing(t *testing.T) {
	t.Parallel()
	kills := min(times(t, "DAEMON_ZOO_KILLS", 3), 4) // the fifth within ten minutes suspends it
	testhost.Cases(t, 2*kills)
	chance := testhost.Chance(t)
	c := newCage(t, 200*time.Millisecond, ", concurrency: 4", "batch")
	for range kills {
		p := c.up()
		c.ready("batch")
		stop := c.load()
		time.Sleep(time.Duration(50+chance.IntN(300)) * time.Millisecond)
		before := c.perish(p, false)
		c.gone(before)
		c.nobody()
		p = c.up() // the senders wait for it
		stop()
		p.kill()
		c.nobody()
	}
	p := c.up()
	c.neighbours()
	c.arrived()
	poison, times := c.accounts()
	if n := c.repeated("crash.batch", times); n > 2*kills*inFlight || len(poison) != 0 {
		t.Errorf("%d deliveries came more than once after %d kills, %d failed", n, 2*kills, len(poison))
	} else {
		t.Logf("%d deliveries came more than once", n)
	}
	p.stop()
	c.nobody()
	verifyStore(t, c.data)
}

// The kernel kills a plugin that takes more memory than it may have.
func TestAPluginThatTheKernelKillsForItsMemoryLosesNothing(t *testing.T) {
	t.Parallel()
	procs := zoo.MemoryGroup(t, 64<<20)
	c := newCage(t, 0, ", retry: {timeout: 2s, schedule: [1s, 8s, 8s, 8s"+strings.Repeat(", 20s", 16)+"]}", "eat-96")
	p := c.up()
	if err := os.WriteFile(procs, []byte(strconv.Itoa(c.ready("eat-96").PID)), 0); err != nil {
		t.Fatal(err)
	}
	c.hand(3)
	c.neighbours()
	const words = "by the kernel for lack of memory"
	c.await("the status to say so", func() bool { return strings.Contains(c.plugin("eat-96").LastError, words) })
	if n := c.counts()["crash.eat-96"]; n.Pending != 3 {
		t.Errorf("%+v", n)
	}
	if !strings.Contains(p.output(), words) {
		t.Error("the log does not say so")
	}
	c.heal("eat-96")
	c.arrived()
	if poison, _ := c.accounts(); len(poison) != 0 {
		t.Errorf("failed: %v", poison)
	}
	p.stop()
	c.nobody()
	verifyStore(t, c.data)
}
