package relay

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/reload"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// save replaces the file of a daemon that runs.
func (d *daemon) save(rest string) {
	d.t.Helper()
	whole := d.path("config.yaml.new") // a reload must not see half of it
	if err := os.WriteFile(whole, []byte(d.text(rest)), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(whole, d.path("config.yaml")); err != nil {
		d.t.Fatal(err)
	}
}

// apply saves and has the file taken over.
func (d *daemon) apply(text string) rest.ReloadResult {
	d.t.Helper()
	d.save(text)
	result, err := d.Reload(d.t.Context())
	if err != nil || result.Result == rest.ReloadRejected {
		d.t.Fatalf("reload: %+v, %v", result, err)
	}
	return result
}

// held waits until the webhook is held for a reason, with so many deliveries.
func (d *daemon) held(reason string, pending int64) {
	d.t.Helper()
	await(d.t, fmt.Sprintf("%d held as %q", pending, reason), func() (rest.Webhook, error) { return d.Webhook(d.t.Context(), "expenses.backend") },
		func(w rest.Webhook) bool { return w.HeldReason == reason && w.Counts.Pending == pending })
}

func TestAWebhookThatReturnsToAnotherHostWaitsForAnOperator(t *testing.T) {
	none := "helpers: {expenses: {secret: 0123456789abcdef01234567}}\n"
	for name, end := range map[string]func(t *testing.T, d *daemon) (sent []string){
		"who enables it": func(t *testing.T, d *daemon) []string {
			changed, err := d.ChangeWebhook(t.Context(), "expenses.backend", rest.WebhookChange{Active: new(true)})
			if err != nil || !changed.Released {
				t.Errorf("%+v, %v", changed, err)
			}
			return []string{"e1", "e2"}
		},
		"who drops what it has": func(t *testing.T, d *daemon) []string {
			dropped, err := d.DropDeliveries(t.Context(), "expenses.backend")
			if err != nil || dropped.Dropped != 2 {
				t.Errorf("%+v, %v", dropped, err)
			}
			return nil
		},
		"who puts it back": func(t *testing.T, d *daemon) []string { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			gone, other := receive(t, nil), receive(t, nil)
			h := newHome(t)
			d := h.start(helperWith(gone.URL, ", enabled: true, concurrency: 1"))
			h.send("e0")
			gone.next(t)
			d.apply(helperWith(gone.URL, ", enabled: false"))
			d.held("disabled", 0)
			d.apply(helperWith(gone.URL, ""))
			// Nothing may be delivered before it leaves: the store pauses nothing, a
			// pause of the dispatcher does.
			d.relay.dispatcher.running().Pause("storage")
			h.send("e1")
			d.apply(none)
			d.held("removed", 1)
			d.apply(helperWith(other.URL, ""))
			d.held("returned", 1)
			h.send("e2")
			d.held("returned", 2)
			sent := end(t, d)
			d.relay.dispatcher.running().Resume()
			if name == "who puts it back" {
				d.apply(none)
				d.apply(helperWith(gone.URL, ""))
				for range 2 {
					gone.next(t)
				}
			}
			for range sent {
				other.next(t)
			}
			if name != "who puts it back" {
				h.send("e3")
				if g := other.next(t); !strings.Contains(g.body, `"id":"e3"`) {
					t.Errorf("the receiver got %s", g.body)
				}
			}
			d.held("", 0)
			d.stop()
			if n := len(gone.got) + len(other.got); n != 0 {
				t.Errorf("%d requests too many", n)
			}
		})
	}
}

func TestADaemonThatStartsWithTheLastKnownGoodConfigurationSaysSoFromTheBeginning(t *testing.T) {
	h := newHome(t)
	cfg := h.load(h.text(helperWith("http://127.0.0.1:1/", "")))
	o := h.options()
	_, o.Rejected = config.Load(config.Options{Path: o.Path, Files: []config.File{{Path: o.Path, Data: []byte("nonsense: 1\n")}}})
	o.LastKnownGood = 7
	s := newRelay(cfg, o).status()
	if s.Config.State != rest.ConfigLastKnownGood || s.Config.Generation != 7 || len(s.Reasons) != 2 || !strings.Contains(s.Reasons[0], `unknown key "nonsense"`) {
		t.Errorf("%+v", s)
	}
}

func TestAReloadOfAStoreThatHasStoppedIsNoRejection(t *testing.T) {
	d := newHome(t).start(helperWith("http://127.0.0.1:1/", ""))
	if err := d.relay.store.get().Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := d.relay.prepare(t.Context(), d.relay.boot)
	if !errors.Is(err, reload.ErrStopped) || !errors.Is(err, queue.ErrStopped) {
		t.Errorf("prepare: %v", err)
	}
	d.cancel()
	if err := d.end(); err != nil {
		t.Error(err)
	}
}

// Whatever an operator does while the daemon stops, it stops cleanly, answers
// everybody, and starts again with what the files say.
func TestAStopInTheMiddleOfChangesIsClean(t *testing.T) {
	rc := receive(t, status(http.StatusServiceUnavailable))
	h := newHome(t)
	file := func(n int) string {
		return fmt.Sprintf("retry: {schedule: [1h]}\nhelpers: {expenses: {secret: 0123456789abcdef01234567, webhooks: {backend: {url: %q}, w%d: {url: %q}}}}\n",
			rc.URL+fmt.Sprintf("/%d", n), n%3, rc.URL)
	}
	for round := range 5 {
		d := h.start(file(round))
		var operators sync.WaitGroup
		begun := make(chan struct{}, 4)
		again := func(do func(n int) error) {
			operators.Go(func() {
				for n := 0; ; n++ {
					if err := do(n); err != nil && d.relay.stopping.Load() {
						return
					}
					if n == 0 {
						begun <- struct{}{}
					}
					select {
					case <-d.ended:
						return
					default:
					}
				}
			})
		}
		again(func(n int) error { d.save(file(n)); _, err := d.Reload(t.Context()); return err })
		again(func(n int) error {
			_, err := d.ChangeWebhook(t.Context(), "expenses.backend", rest.WebhookChange{Active: new(n%2 == 0)})
			return err
		})
		again(func(int) error { _, err := d.DropDeliveries(t.Context(), "expenses.backend"); return err })
		again(func(int) error { _, err := d.Deliveries(t.Context(), adminclient.DeliveryQuery{}); return err })
		for range 4 {
			<-begun
		}
		d.stop()
		operators.Wait()
	}
	if log := h.log.String(); strings.Contains(log, "configuration rejected") || strings.Contains(log, "limits of the queue were not changed") {
		t.Error(log)
	}
}
