package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// fate is what becomes of the deliveries of an animal while it is what it is.
type fate int

const (
	fateHeld    fate = iota // none is ever sent: the plugin is not there
	fateRetried             // all are tried again and again
	fatePartly              // some arrive, the others are tried again
	fateDeadly              // they kill the process, and the third time each is given up
	fateWorks               // all arrive
)

// animal is a plugin, and what an operator must be told of it.
type animal struct {
	behaviour string
	fate      fate
	code      string // of the attempts that are to be repeated
	status    string // "plugin zoo-…: " and this is in the status, "" = nothing is wrong
	log       string // with sink=zoo-… in one line; "" = nothing special
}

const (
	triedAgain = "cannot be started and is tried again"
	endedAgain = "ended and is started again"
	notOneEach = "its results do not match the deliveries"
	dropped    = "lines were dropped"
)

// flood is how many MiB are poured: with ZOO_FLOOD=1024 what the zoo was built for.
func flood() string {
	if n := os.Getenv("ZOO_FLOOD"); n != "" {
		return "-" + n
	}
	return "-16"
}

// zooGroups are the animals by the daemon that they are put into. Those of more are in
// the longer run only.
var zooGroups = []struct {
	name          string
	animals, more []animal
}{
	{"not ready", []animal{
		{"crash-start", fateHeld, "", "exited with status 3", triedAgain},
		{"hang-start", fateHeld, "", "was not ready within 10s", triedAgain},
		{"protocol", fateHeld, "", "of the sink protocol; this relay speaks 1", triedAgain},
		{"cookie", fateHeld, "", "exited with status", triedAgain},
		{"name", fateHeld, "", "it calls itself", triedAgain},
		{"crash-children", fateHeld, "", "exited with status 3", triedAgain},
		{"flood-stdout", fateHeld, "", "before a handshake", triedAgain},
		{"crash-describe", fateHeld, "", "its process ended during its description: it exited with status 3", triedAgain},
		{"hang-describe", fateHeld, "", "its description failed: it did not answer in time", triedAgain},
		{"crash-configure", fateHeld, "", "exited with status 3", triedAgain},
		{"hang-configure", fateHeld, "", "did not answer in time", "it did not answer in time"},
		// The daemon is sure of these after 45 s.
		{"stopped", fateRetried, "timeout", "did not answer 3 health checks", "does not answer and is killed"},
		{"hang-health", fateWorks, "", "did not answer 3 health checks", "does not answer and is killed"},
		{"crash-health", fateWorks, "", "exited with status 3", endedAgain},
	}, []animal{
		{"panic-start", fateHeld, "", "panic: I cannot find my shoes", triedAgain},
		{"exit-0", fateHeld, "", "exited with status 0", triedAgain},
		{"stop-start", fateHeld, "", "was not ready within 10s", triedAgain},
		{"garbage", fateHeld, "", "is no handshake", triedAgain},
		{"core", fateHeld, "", "of go-plugin, which is not supported", triedAgain},
		{"netrpc", fateHeld, "", "only grpc is supported", triedAgain},
		{"network", fateHeld, "", "only unix is allowed", triedAgain},
		{"socket-outside", fateHeld, "", "is not in the directory that it was given", triedAgain},
		{"certificate", fateHeld, "", "a certificate, which was not asked for", triedAgain},
		{"mute", fateHeld, "", "10s", triedAgain},
		{"crash-handshake", fateHeld, "", "exited with status 3", triedAgain},
		{"flood-lines", fateHeld, "", "is no handshake", triedAgain},
		{"close-socket", fateRetried, "no_result", "did not answer 3 health checks", "does not answer and is killed"},
		{"unhealthy", fateWorks, "", "a paw hurts", "says that it is not well"},
	}},
	{"ready", []animal{
		{"crash-deliver", fateDeadly, "plugin_crash", "exited with status 3", "ended too often and is suspended"},
		{"leak", fateDeadly, "plugin_crash", "panic: the token is " + secret.Mask, "message " + secret.Mask},
		{"crash-batch-3", fatePartly, "plugin_crash", "exited with status 3", endedAgain},
		{"hang-deliver", fateRetried, "timeout", "", ""},
		{"too-few", fatePartly, "no_result", "", notOneEach},
		{"too-many", fateWorks, "", "", notOneEach},
		{"unknown", fateRetried, "no_result", "", notOneEach},
		{"big-state", fateRetried, "no_result", "", ""},
		{"huge-64", fateRetried, "no_result", "", ""},
		{"flood-stderr" + flood(), fateWorks, "", "", dropped},
		{"flood-long" + flood(), fateWorks, "", "", "yyyy"},
		{"flood-message" + flood(), fateWorks, "", "", dropped},
		{"ignore-term", fateWorks, "", "", ""},
		{"grandchild", fateWorks, "", "", ""},
		{"fork-8", fateWorks, "", "", ""},
		{"escape", fateWorks, "", "", ""},
	}, []animal{
		{"panic-deliver", fateDeadly, "plugin_crash", "panic: the stairs were wet", "ended too often and is suspended"},
		{"starve-64", fateDeadly, "plugin_crash", "exited with status", "ended too often and is suspended"},
		{"duplicate", fateRetried, "no_result", "", notOneEach},
		{"none", fateRetried, "no_result", "", notOneEach},
		{"bad-outcome", fateRetried, "no_result", "", ""},
		{"big-message", fateRetried, "no_result", "", ""},
		{"crash-validate", fateWorks, "", "", ""},
		{"hang-validate", fateWorks, "", "", ""},
		{"flood-empty" + flood(), fateWorks, "", "", ""},
		{"flood-panic" + flood(), fateWorks, "", "", dropped},
		{"flood-after" + flood(), fateWorks, "", "", ""},
		{"flood-stdio" + flood(), fateWorks, "", "", ""},
		{"hang-drain", fateWorks, "", "", ""},
		{"crash-drain", fateWorks, "", "", ""},
		{"bare", fateWorks, "", "", ""},
	}},
}

// Each animal of the zoo in a webhook of one daemon with others that are well. While
// they do what they do everything else arrives, nothing that was accepted for them is
// lost, and the log and the status say what is the matter. When the daemon is killed
// nothing of them is left. When an executable that behaves takes the place of each,
// everything arrives there too.
func TestNoPluginOfTheZooHurtsItsNeighbours(t *testing.T) {
	for _, group := range zooGroups {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			animals := group.animals
			if number("DAEMON_ZOO", 0) > 0 {
				animals = append(slices.Clone(animals), group.more...)
			}
			ordeal(t, animals)
		})
	}
}

// ordeal puts animals beside webhooks that are well, and kills the daemon twice.
func ordeal(t *testing.T, animals []animal) {
	began := time.Now()
	stage := func(what string) { t.Logf("%5.1fs %s", time.Since(began).Seconds(), what) }
	var behaviours []string
	for _, a := range animals {
		behaviours = append(behaviours, a.behaviour)
	}
	// Twenty tries over five minutes: none is used up before it has a plugin that works.
	c := newCage(t, 0, ", retry: {timeout: 2s, schedule: [1s, 3s, 8s, 8s"+strings.Repeat(", 20s", 16)+"]}", behaviours...)
	p := c.up()
	stage("ready")
	c.hand(40)
	c.neighbours()
	if slices.Contains(behaviours, "crash-batch-3") {
		c.third("crash-batch-3")
	}
	stage("the neighbours have everything")
	c.fates(animals)
	c.told(p, animals)
	stage("log and status say what is the matter")
	c.hand(40)
	c.neighbours()
	c.fates(animals)
	before := c.perish(p, false)
	c.gone(before)
	c.nobody()
	stage(fmt.Sprintf("killed: of %d processes, %d of them left by plugins, nothing is left", len(before), sleepers(before)))
	if slices.Contains(behaviours, "fork-8") && sleepers(before) < 8 {
		t.Errorf("%d processes were left by plugins: nothing was put to the test", sleepers(before))
	}

	p = c.up()
	c.hand(20)
	c.neighbours()
	before = c.perish(p, true)

	p = c.up()
	c.gone(before) // without the guards it is the next start that puts away what is left
	c.noStaleSocket()
	c.hand(20)
	c.neighbours()
	c.fates(animals)
	stage("killed again, with the guards, and all is as it was")
	c.heal(behaviours...)
	c.arrived()
	stage("healed, and everything has arrived")
	c.givenUp(animals)
	c.noSecrets()
	p.stop()
	c.nobody()
	verifyStore(t, c.data)
	stage("stopped, and nothing is left")
}

// third makes calls until the plugin has had the one that it dies of, however many
// deliveries the first ones took, and however long it needed to be ready.
func (c *cage) third(behaviour string) {
	c.t.Helper()
	died := func() bool { return strings.Contains(c.plugin(behaviour).LastError, "exited with status 3") }
	for range 3 {
		c.await(behaviour+" to have everything, or to have ended", func() bool {
			return died() || c.counts()["crash."+behaviour].Success == int64(c.sent)
		})
		if died() {
			return
		}
		c.hand(1)
		c.neighbours()
	}
}

// fates compares what is recorded of the deliveries with what may have happened.
func (c *cage) fates(animals []animal) {
	c.t.Helper()
	counts := c.counts()
	for _, a := range animals {
		n := counts["crash."+a.behaviour]
		if all := n.Pending + n.Success + n.Failed; all != int64(c.sent) {
			c.t.Errorf("%s: %+v of %d deliveries", a.behaviour, n, c.sent)
		}
		ok := n.Failed == 0
		switch a.fate {
		case fateHeld, fateRetried:
			ok = ok && n.Success == 0
		case fateDeadly:
			ok = n.Success == 0
		}
		if !ok {
			c.t.Errorf("%s: %+v", a.behaviour, n)
		}
		if a.fate == fateWorks {
			c.await(a.behaviour+" to have everything", func() bool { return c.counts()["crash."+a.behaviour].Success == int64(c.sent) })
		}
	}
}

// told waits until log and status say of each animal what is the matter with it, and
// the deliveries why they have not arrived.
func (c *cage) told(p *process, animals []animal) {
	c.t.Helper()
	for _, a := range animals {
		sink := zoo.Name(a.behaviour)
		c.await(fmt.Sprintf("the status to say of %s: %s", sink, a.status), func() bool {
			s := c.plugin(a.behaviour)
			said := []string{s.LastError, s.Health}
			for _, r := range s.Refused {
				said = append(said, r.Reason)
			}
			return strings.Contains(strings.Join(said, "\n"), a.status)
		})
		c.await(fmt.Sprintf("the log to say of %s: %s", sink, a.log), func() bool {
			for line := range strings.Lines(p.output()) {
				if a.log == "" || strings.Contains(line, "sink="+sink+" ") && strings.Contains(line, a.log) {
					return true
				}
			}
			return false
		})
		if a.fate == fateHeld {
			c.await("the table to say it", func() bool {
				for line := range strings.Lines(c.command("status")) {
					if (strings.HasPrefix(line, "! plugin "+sink+": ") || strings.HasPrefix(line, "! plugin "+sink+", webhook crash."+a.behaviour+": ")) && strings.Contains(line, a.status) {
						return true
					}
				}
				return false
			})
		}
		c.explained(a)
	}
}

// explained finds a delivery of an animal that says why it has not arrived, or not at
// once: held without an attempt, or an attempt with the code and a reason.
func (c *cage) explained(a animal) {
	c.t.Helper()
	if a.fate == fateWorks {
		return
	}
	c.await("a delivery of "+a.behaviour+" that says what came of it", func() bool {
		for id, d := range c.listing() {
			if d.Webhook != "crash."+a.behaviour {
				continue
			}
			if a.fate == fateHeld {
				if d.Status != rest.StatusHeld || d.HeldReason != string(delivery.HoldPluginDown) || d.Attempts != 0 {
					c.t.Errorf("%s: a delivery that cannot be sent: %+v", a.behaviour, d)
				}
				return true
			}
			if d.Attempts > 0 && c.hasAttempt(id, a.code) {
				return true
			}
		}
		return false
	})
}

// hasAttempt reports whether an attempt of the delivery ended with this code.
func (c *cage) hasAttempt(id, code string) (ok bool) {
	c.t.Helper()
	detail, err := c.admin.Delivery(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, at := range detail.Log {
		if at.Rule == "" || at.RuleText == "" || at.Error == "" && at.State != rest.StatusSuccess {
			c.t.Errorf("%s: an attempt without a reason: %+v", detail.Webhook, at)
		}
		ok = ok || at.Code == code
	}
	return ok
}

// givenUp settles accounts: only what killed its process three times has failed.
func (c *cage) givenUp(animals []animal) {
	c.t.Helper()
	poison, _ := c.accounts()
	may := map[string]bool{}
	for _, a := range animals {
		may["crash."+a.behaviour] = a.fate == fateDeadly
	}
	for id, d := range poison {
		detail, err := c.admin.Delivery(c.t.Context(), id)
		if err != nil {
			c.t.Fatal(err)
		}
		if last := detail.Log[len(detail.Log)-1]; !may[d.Webhook] || last.Rule != string(delivery.RulePoison) {
			c.t.Errorf("a delivery to %s failed by the rule %q: %s", d.Webhook, last.Rule, d.Error)
		}
	}
}

// sleepers are the processes that plugins have left behind.
func sleepers(all map[int]creature) (n int) {
	for _, one := range all {
		if strings.HasSuffix(one.name, "-sleeper") {
			n++
		}
	}
	return n
}

// number is a field of the environment, or def.
func number(env string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
		return n
	}
	return def
}
