package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// zooPatience is how long a test waits for what a plugin does: some need a minute
// before the daemon gives them up.
const zooPatience = 3 * time.Minute

// cage is a daemon with plugins of the zoo beside webhooks that are well: three over
// http, and "good", a plugin without faults.
type cage struct {
	*site
	r       *receiver
	l       *ledger
	bin     string            // where the plugins' executables are
	healthy string            // an executable that behaves, whatever it is called
	hooks   map[string]string // behaviour by webhook, of those with a plugin
	sent    int
	daemons []*process // all that ran, for their logs
}

// healthyWebhooks are those of every cage.
var healthyWebhooks = []string{"crash.ok", "crash.ok2", "crash.ok3", "crash.good"}

// newCage installs plugins, by behaviour, and writes the configuration. extra are
// further keys of the plugins' webhooks, delay is how long each of their calls takes.
func newCage(t *testing.T, delay time.Duration, extra string, behaviours ...string) *cage {
	t.Helper()
	c := &cage{r: newReceiver(t), l: newLedger(), hooks: map[string]string{}}
	var err error
	if c.bin, err = os.MkdirTemp("", "zoo"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(c.bin) })
	var b strings.Builder
	for _, name := range []string{"ok", "ok2", "ok3"} {
		fmt.Fprintf(&b, "      %s: {url: %q}\n", name, c.r.URL+"/"+name)
	}
	hook := func(name, behaviour, extra string, delay time.Duration) {
		zoo.Install(t, c.bin, behaviour)
		fmt.Fprintf(&b, "      %s: {sink: %s, settings: {record: %s, token: %s, delay_ms: %d}%s}\n",
			name, zoo.Name(behaviour), c.record(name), zooToken(behaviour), delay.Milliseconds(), extra)
		c.hooks[name] = behaviour
	}
	for _, behaviour := range behaviours {
		hook(behaviour, behaviour, extra, delay)
	}
	hook("good", "ordered", "", 0)
	fmt.Fprintf(&b, "plugins: {dir: %s}\n", c.bin)
	c.site = newSite(t, "", b.String())
	c.healthy = filepath.Join(c.bin, "peanuts-sink-healthy")
	zoo.InstallAs(t, c.healthy, "batch", "2.0.0")
	t.Cleanup(c.inCaseOfFailure)
	return c
}

// zooToken is the secret of an animal. No part of it is found anywhere else.
func zooToken(behaviour string) string {
	var b strings.Builder
	for _, r := range behaviour {
		fmt.Fprintf(&b, "Q%xz", r)
	}
	return "ZqWk" + b.String()
}

// record is the file in which a webhook's plugin notes what it gets.
func (c *cage) record(webhook string) string { return filepath.Join(c.bin, "record-"+webhook) }

func (c *cage) path(behaviour string) string {
	return filepath.Join(c.bin, "peanuts-sink-"+zoo.Name(behaviour))
}

func (c *cage) inCaseOfFailure() {
	if !c.t.Failed() || len(c.daemons) == 0 {
		return
	}
	for _, p := range c.daemons {
		lines := strings.Split(p.output(), "\n")
		for _, line := range lines[max(0, len(lines)-60):] {
			c.t.Logf("%.400s", line)
		}
	}
}

// up starts a daemon and waits until it takes events.
func (c *cage) up() *process {
	c.t.Helper()
	p := c.site.up()
	c.daemons = append(c.daemons, p)
	return p
}

// hand hands in so many further events and waits until all are acknowledged.
func (c *cage) hand(n int) {
	c.t.Helper()
	var all sync.WaitGroup
	const senders = 4
	for s := range senders {
		all.Go(func() {
			for i := s; i < n; i += senders {
				c.persist(c.l, c.sent+i+1, nil)
			}
		})
	}
	all.Wait()
	c.sent += n
}

// await is until, with the patience that plugins need. At its end also says more.
func (c *cage) await(what string, done func() bool, also ...func() string) {
	c.t.Helper()
	deadline := time.After(zooPatience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			for _, f := range also {
				what += ": " + f()
			}
			s, err := c.admin.Status(context.Background())
			c.t.Fatalf("waited %v for %s; status %+v, %v", zooPatience, what, s, err)
		case <-tick.C:
		}
	}
}

// now is the daemon's status.
func (c *cage) now() rest.Status {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	s, err := c.admin.Status(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// counts are those of each webhook.
func (c *cage) counts() map[string]rest.Counts {
	c.t.Helper()
	out := map[string]rest.Counts{}
	for _, l := range c.now().Webhooks {
		out[l.Webhook] = l.Counts
	}
	return out
}

// plugin is the status of a plugin, the newest of that name.
func (c *cage) plugin(behaviour string) rest.Plugin {
	c.t.Helper()
	var out rest.Plugin
	for _, p := range c.now().Plugins {
		if p.Sink == zoo.Name(behaviour) {
			out = p
		}
	}
	return out
}

// neighbours waits until everything that was handed in has arrived where nothing is
// wrong.
func (c *cage) neighbours() {
	c.t.Helper()
	c.await(fmt.Sprintf("%d deliveries of each healthy webhook", c.sent), func() bool {
		counts := c.counts()
		for _, w := range healthyWebhooks {
			if counts[w].Success != int64(c.sent) {
				return false
			}
		}
		return true
	})
}

// command runs the program and returns what it prints.
func (c *cage) command(args ...string) string {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.CommandContext(c.t.Context(), self, append(args, "--config", c.config())...)
	cmd.Args[0] = "peanuts-relay"
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// heal puts an executable that behaves in the place of each that does not, and
// reloads.
func (c *cage) heal(behaviours ...string) {
	c.t.Helper()
	for _, behaviour := range behaviours {
		fresh := c.path(behaviour) + ".new"
		if err := os.Link(c.healthy, fresh); err != nil {
			c.t.Fatal(err)
		}
		if err := os.Rename(fresh, c.path(behaviour)); err != nil {
			c.t.Fatal(err)
		}
	}
	result := c.reload()
	if result.Result != rest.ReloadApplied {
		c.t.Fatalf("the reload: %+v", result)
	}
}

func (c *cage) reload() rest.ReloadResult {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), zooPatience)
	defer cancel()
	result, err := c.admin.Reload(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	return result
}

// arrived waits until nothing is pending.
func (c *cage) arrived() {
	c.t.Helper()
	c.await("all deliveries to end", func() bool { return c.now().Queue.Counts.Pending == 0 })
}

// accounts compares what was acknowledged with what the receivers and the plugins
// got, and with what the daemon says. Whatever failed must have been with a process
// that died three times. It returns those, and how often each delivery came.
func (c *cage) accounts() (poison map[string]rest.Delivery, times map[string]int) {
	c.t.Helper()
	listed := c.listing()
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	seen, times, wrong := maps.Clone(c.r.seen), map[string]int{}, []string{}
	number := map[string]int{}
	for n, a := range c.l.acked {
		for _, d := range a.Deliveries {
			number[d.ID] = n
		}
	}
	for id, a := range c.r.seen {
		times[id] = a.attempts
	}
	for name := range c.hooks {
		for _, rec := range zoo.Records(c.t, c.record(name)) {
			n, ok := number[rec.ID]
			if !ok {
				wrong = append(wrong, fmt.Sprintf("%s got delivery %s, which nobody was told of", rec.Webhook, rec.ID))
				continue
			}
			a := seen[rec.ID]
			if a == nil {
				a = &arrival{n: n, webhook: rec.Webhook, hashes: map[[32]byte]bool{}}
				seen[rec.ID] = a
			}
			a.attempts++
			a.accepted++
			a.hashes[unhex(rec.Payload)] = true
			times[rec.ID]++
		}
	}
	more, lost := account(c.l.acked, seen, listed, 3+len(c.hooks))
	wrong = append(append(append(wrong, more...), c.l.wrong...), c.r.wrong...)
	poison = map[string]rest.Delivery{}
	for id, d := range listed {
		switch d.Status {
		case rest.StatusSuccess:
		case rest.StatusFailed:
			poison[id] = d
			if d.Code != string(delivery.CodePluginCrash) {
				wrong = append(wrong, fmt.Sprintf("delivery %s to %s failed: %s: %s", id, d.Webhook, d.Code, d.Error))
			}
		default:
			wrong = append(wrong, fmt.Sprintf("delivery %s to %s is %s", id, d.Webhook, d.Status))
		}
	}
	for _, problem := range wrong[:min(len(wrong), 20)] {
		c.t.Error(problem)
	}
	c.t.Logf("%d events acknowledged, %d deliveries, %d of them killed their plugin three times, %d lost", len(c.l.acked), len(listed), len(poison), lost)
	c.l.tell(c.t, lost)
	return poison, times
}

// noSecrets looks for the tokens in everything that a daemon tells an operator.
func (c *cage) noSecrets() {
	c.t.Helper()
	texts := map[string]string{"status": c.command("status"), "status --json": c.command("status", "--json"), "deliveries": c.command("deliveries", "--all")}
	for i, p := range c.daemons {
		texts[fmt.Sprintf("the log of daemon %d", i+1)] = p.output()
	}
	metrics, err := c.admin.Metrics(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	texts["metrics"] = string(metrics)
	for id, d := range c.listing() {
		if d.Attempts > 1 || d.Status != rest.StatusSuccess {
			detail, err := c.admin.Delivery(c.t.Context(), id)
			if err != nil {
				c.t.Fatal(err)
			}
			text, err := json.Marshal(detail)
			if err != nil {
				c.t.Fatal(err)
			}
			texts["delivery "+id] = string(text)
		}
	}
	for where, text := range texts {
		if strings.Contains(text, crashSecret) {
			c.t.Errorf("%s shows the secret of the signatures", where)
		}
		for _, behaviour := range c.hooks {
			token := zooToken(behaviour)
			for i := range len(token) - 11 {
				if strings.Contains(text, token[i:i+12]) {
					c.t.Errorf("%s shows the token of %s", where, behaviour)
					break
				}
			}
		}
	}
}
