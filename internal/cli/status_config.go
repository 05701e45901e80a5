package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// printRefused begins the status of a daemon that does not run what its files
// say: what is wrong, what runs instead, what to do.
func (a *app) printRefused(c *rest.Config) {
	st, instead := a.outStyle(), ""
	switch c.State {
	case rest.ConfigRejected:
		instead = fmt.Sprintf("generation %d goes on running", c.Generation)
	case rest.ConfigLastKnownGood:
		instead = fmt.Sprintf("the daemon started with the last known good ones, generation %d", c.Generation)
	default:
		return
	}
	fmt.Fprintf(a.Out, "%s %s\n", st.bad("THE CONFIGURATION FILES ARE INVALID:"), instead)
	if r := c.LastReload; r != nil && r.Error != "" {
		text := oneLine(r.Error)
		if r.Errors > 1 {
			text += fmt.Sprintf(" (and %d more)", r.Errors-1)
		}
		fmt.Fprintln(a.Out, "  "+strings.Join(wrap(text, a.OutTerm.Width-2), "\n  "))
	}
	fmt.Fprintln(a.Out, "  To see all of it:       peanuts-relay check "+shellWord(c.Path))
	fmt.Fprintln(a.Out, "  To put it right:        correct the files and save them; they are read at once")
	fmt.Fprintf(a.Out, "  To have the files back: peanuts-relay config rollback %d\n\n", c.Generation)
}

// otherReasons are those of the state that printRefused has not told.
func otherReasons(s *rest.Status) []string {
	if r := s.Config.LastReload; s.Config.State != rest.ConfigCurrent && r != nil && r.Error != "" {
		return slices.DeleteFunc(slices.Clone(s.Reasons), func(reason string) bool { return strings.Contains(reason, r.Error) })
	}
	return s.Reasons
}

// addConfig adds what is to be said of the configuration.
func addConfig(p *fields, c *rest.Config) {
	p.add("config", fmt.Sprintf("%s, generation %d, loaded %s", c.Path, c.Generation, clock(c.LoadedAt.Time)))
	for _, w := range c.Warnings {
		p.add("", p.st.warn("warning: ")+oneLine(w))
	}
	if len(c.RestartRequired) > 0 {
		p.add("", p.st.warn("restart required: ")+oneLine(strings.Join(c.RestartRequired, ", ")))
	}
	if r := c.LastReload; r != nil {
		p.add("reload", fmt.Sprintf("%s %s, asked for by %s", p.st.status(r.Result), clock(r.At.Time), trigger(r.Trigger)))
	}
	if c.Watching == rest.WatchingPolling {
		p.add("", "changed files are noticed by polling: the system reports none")
	}
}

// trigger is what asked for a reload, in words.
func trigger(word string) string {
	switch word {
	case rest.TriggerWatch:
		return "a changed file"
	case rest.TriggerSignal:
		return "SIGHUP"
	case rest.TriggerReload:
		return "peanuts-relay reload"
	case rest.TriggerWebhooks:
		return "a change of a webhook"
	case rest.TriggerStart:
		return "the start"
	}
	return oneLine(word)
}

// waiting is a webhook whose deliveries wait for a decision of the operator's.
type waiting struct {
	id, reason string
	pending    int64
	until      rest.Time
}

// printWaiting says what can be done about webhooks that left or came back.
func (a *app) printWaiting(list []waiting) {
	first := true
	for _, w := range list {
		var text string
		n, id := plural(w.pending, "delivery", "deliveries"), oneLine(w.id)
		switch {
		case w.pending == 0:
			continue
		case w.reason == heldRemoved:
			waits, fails := " wait", " fail "
			if w.pending == 1 {
				waits, fails = " waits", " fails "
			}
			text = id + " left the configuration: " + n + waits + " for its return"
			if !w.until.IsZero() {
				text += " and" + fails + clock(w.until.Time)
			}
			text += "; peanuts-relay drop " + id + " discards them now"
		case w.reason == heldReturned:
			text = fmt.Sprintf("%s came back with another sink or host while %s waited: peanuts-relay enable %s sends them there, peanuts-relay drop %s discards them", id, n, id, id)
		default:
			continue
		}
		if first {
			fmt.Fprintln(a.Out)
			first = false
		}
		fmt.Fprintln(a.Out, strings.Join(wrap(text, a.OutTerm.Width), "\n"))
	}
}

// Reasons of a held webhook that say what an operator can do.
const (
	heldRemoved  = "removed"
	heldReturned = "returned"
)
