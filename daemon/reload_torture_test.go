package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// The configuration changes hundreds of times, in valid and invalid ways, by every
// way that leads to a reload, while events come in and go out. What was acknowledged
// arrives, no attempt is cancelled, no request is made of two configurations, what was
// refused never runs, and nothing is left over.
func TestReloadsUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	count := times(t, "DAEMON_RELOADS", 40)
	w := newReloads(t)
	p := w.up()
	l := newLedger()
	var next atomic.Int64
	w.burst(l, &next)
	before := w.resources(p)
	stop := senders(4, func(quit <-chan struct{}) { w.insist(l, int(next.Add(1)), quit) })
	for range count {
		w.change(p)
	}
	stop()
	w.restore(p)
	w.settleAll()
	w.accounts(l)
	w.burst(l, &next)
	w.noLeak(p, before)
	w.t.Logf("%d reloads: %s", count, w.counts())
	testhost.Cases(t, count)
	p.stop()
	verifyStore(t, w.data)
}

// The daemon is killed at any moment of a reload. The next one runs what the files
// say, or else the last configuration that was applied.
func TestKillsDuringReloadsLoseNothing(t *testing.T) {
	t.Parallel()
	w := newReloads(t)
	w.c.cuts = true
	l := newLedger()
	var next atomic.Int64
	p := w.up()
	kills := times(t, "DAEMON_RELOAD_KILLS", 4)
	testhost.Cases(t, kills)
	for range kills {
		stop := senders(4, func(quit <-chan struct{}) { w.insist(l, int(next.Add(1)), quit) })
		for range 1 + w.rng.IntN(3) {
			w.edit()
			time.Sleep(time.Duration(w.rng.IntN(400)) * time.Millisecond)
		}
		p.kill()
		p = w.up()
		stop()
		w.caughtUp()
	}
	w.restore(p)
	w.settleAll()
	w.accounts(l)
	p.stop()
	verifyStore(t, w.data)
}

// change edits the files and has them taken over, mostly waiting for it.
func (w *reloads) change(p *process) {
	w.t.Helper()
	switch w.rng.IntN(8) {
	case 0: // an operator asks
		w.edit()
		ctx, cancel := context.WithTimeout(w.t.Context(), patience)
		defer cancel()
		if _, err := w.admin.Reload(ctx); err != nil {
			w.t.Fatal(err)
		}
		w.caughtUp()
	case 1: // SIGHUP
		w.edit()
		if err := p.cmd.Process.Signal(unix.SIGHUP); err != nil {
			w.t.Fatal(err)
		}
		w.caughtUp()
	case 2: // through the API
		w.throughAPI()
	case 3: // several at once
		for range 3 {
			w.edit()
		}
	default: // the watcher alone
		w.edit()
		w.caughtUp()
	}
}

// throughAPI changes a webhook by REST. It is refused while the files are wrong, or
// do not have the webhook.
func (w *reloads) throughAPI() {
	w.t.Helper()
	w.caughtUp()
	_, valid := w.files()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var err error
	if w.rng.IntN(2) == 0 {
		_, err = w.admin.ChangeWebhook(ctx, "crash.a", rest.WebhookChange{Active: new(w.rng.IntN(2) == 0)})
	} else {
		w.n++
		w.c.offer(w.n, false)
		number := strconv.Itoa(w.n)
		name := "api" + number
		w.hooks[name] = true
		_, err = w.admin.CreateWebhook(ctx, rest.WebhookChange{Helper: new("crash"), ID: new(name), URL: new(w.c.URL + "/" + name + "/" + number),
			Headers: map[string]*string{"X-Config": &number}, Secret: new(numberedSecret(w.n))})
		if err == nil && w.rng.IntN(2) == 0 {
			_, err = w.admin.DeleteWebhook(ctx, "crash."+name)
		}
	}
	if err != nil && valid && !strings.Contains(err.Error(), "crash") {
		w.t.Errorf("a change through the API: %v", err)
	}
	w.caughtUp()
}

// restore brings every webhook back that ever was, so that all that is held goes on.
func (w *reloads) restore(p *process) {
	w.t.Helper()
	for _, name := range []string{"50-d.yaml", "90-api.yaml"} {
		os.Remove(w.dropIn(name))
	}
	w.save(w.config(), w.text(w.hooks))
	w.caughtUp()
	if c := w.status().Config; c.State != rest.ConfigCurrent {
		w.t.Fatalf("at the end: %+v\n%s", c, p.output())
	}
}

// insist sends an event until it is acknowledged, or nobody waits for that any
// more: the helper may be gone for a while.
func (w *reloads) insist(l *ledger, n int, quit <-chan struct{}) {
	for {
		switch status := w.send(context.Background(), l, n); status {
		case http.StatusAccepted, http.StatusOK:
			return
		case 0, http.StatusUnprocessableEntity, http.StatusServiceUnavailable: // no daemon, no helper, a daemon that starts
		default:
			l.complain("event %d was answered %d", n, status)
			return
		}
		select {
		case <-quit:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// burst sends a number of events and waits for their deliveries.
func (w *reloads) burst(l *ledger, next *atomic.Int64) {
	w.t.Helper()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				w.insist(l, int(next.Add(1)), nil)
			}
		})
	}
	all.Wait()
	w.settleAll()
}

// settleAll waits until nothing is pending.
func (w *reloads) settleAll() {
	w.t.Helper()
	until(w.t, "all deliveries to end", func() bool { return w.status().Queue.Counts.Pending == 0 })
}

// accounts compares what was acknowledged with what was received.
func (w *reloads) accounts(l *ledger) {
	w.t.Helper()
	listed := w.listing()
	l.mu.Lock()
	defer l.mu.Unlock()
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	wrong := append(append([]string{}, l.wrong...), w.c.wrong...)
	deliveries, lost := 0, 0
	for n, a := range l.acked {
		for _, d := range a.Deliveries {
			deliveries++
			if row, ok := listed[d.ID]; !ok || row.Status != rest.StatusSuccess || w.c.accepted[d.ID] == 0 {
				lost++
				wrong = append(wrong, fmt.Sprintf("event %d: delivery %s to %s: listed %v as %q, accepted %d times", n, d.ID, d.Webhook, ok, row.Status, w.c.accepted[d.ID]))
			}
		}
	}
	for _, problem := range wrong[:min(len(wrong), 20)] {
		w.t.Error(problem)
	}
	if w.c.slow == 0 || deliveries == 0 {
		w.t.Errorf("%d deliveries, %d slow requests: nothing was put to the test", deliveries, w.c.slow)
	}
	w.t.Logf("%d events acknowledged, %d deliveries, %d requests of which %d slow, %d lost", len(l.acked), deliveries, w.c.requests, w.c.slow, lost)
	l.tell(w.t, lost)
}

// counts are the reloads by trigger and result.
func (w *reloads) counts() string {
	text, err := json.Marshal(w.status().Config.Reloads)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// resources is what a daemon holds, by kind.
func (s *site) resources(p *process) map[string]int {
	s.t.Helper()
	out := map[string]int{}
	proc := filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, fd := range fds {
		// The database's own files grow with what it stores.
		if to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil && !strings.HasPrefix(to, s.data) {
			kind, _, _ := strings.Cut(to, ":[")
			out["descriptors of "+kind]++
		}
	}
	tasks, err := os.ReadDir(filepath.Join(proc, "task"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, task := range tasks {
		if children, err := os.ReadFile(filepath.Join(proc, "task", task.Name(), "children")); err == nil {
			out["children"] += len(strings.Fields(string(children)))
		}
	}
	metrics, err := s.admin.Metrics(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(metrics)) {
		if value, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			if out["goroutines"], err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return out
}

// noLeak compares what the daemon holds with what it held with as much to do. There
// are more webhooks now, each with its idle connections: two goroutines and a
// descriptor each.
func (w *reloads) noLeak(p *process, before map[string]int) {
	w.t.Helper()
	more := (len(w.hooks)-3)*12 + 16 // most connections that may have been added
	var now map[string]int
	fits := func() bool {
		now = w.resources(p)
		for kind, n := range now {
			allowed := 0
			switch kind {
			case "goroutines":
				allowed = 3 * more
			case "descriptors of socket":
				allowed = more
			}
			if n > before[kind]+allowed {
				return false
			}
		}
		return true
	}
	deadline := time.After(patience)
	for !fits() {
		select {
		case <-deadline:
			w.t.Errorf("held before: %v; now, with %d webhooks: %v", before, len(w.hooks), now)
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	w.t.Logf("held before: %v; now, with %d webhooks: %v", before, len(w.hooks), now)
}
