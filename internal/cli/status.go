package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "status",
		Short: "shows how the running daemon fares",
		Example: `peanuts-relay status
peanuts-relay status --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(func(c *adminclient.Client) error {
				s, err := c.Status(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(a.Out, s)
				}
				return a.printStatus(&s)
			})
		},
	}))
	c.Flags().BoolVar(&asJSON, "json", false, "print the document of the REST API")
	return c
}

func (a *app) printStatus(s *rest.Status) error {
	a.printRefused(&s.Config)
	st := a.outStyle()
	p := a.fields()
	state, more := reasons(otherReasons(s))
	p.add("state", st.status(s.State)+state)
	for _, reason := range more {
		p.add("", reason)
	}
	p.add("version", s.Version)
	p.add("running", fmt.Sprintf("since %s (%s), pid %d", clock(s.StartedAt.Time), span(s.Uptime.Duration()), s.PID))
	addConfig(p, &s.Config)
	p.add("events", s.Listen.Events)
	p.add("admin", s.Listen.Admin)
	if s.Listen.Metrics != "" {
		p.add("metrics", s.Listen.Metrics)
	}
	p.add("accepted", fmt.Sprintf("%s since the start, %s repeated%s", plural(s.Ingest.Accepted, "event", "events"), grouped(int64(s.Ingest.Duplicates)), rejections(s.Ingest.Rejected)))
	c := s.Queue.Counts
	p.add("queue", fmt.Sprintf("%s, %s of %s", st.status(s.Queue.State), byteSize(c.LiveBytes), byteSize(s.Queue.MaxBytes)))
	oldest := ""
	if !s.Queue.OldestPendingAt.IsZero() {
		oldest = ", oldest from " + clock(s.Queue.OldestPendingAt.Time)
	}
	p.add("deliveries", fmt.Sprintf("%s pending (%s held, %s in flight%s), %s success, %s failed",
		grouped(c.Pending), grouped(c.Held), grouped(c.InFlight), oldest, grouped(c.Success), grouped(c.Failed)))
	if s.Queue.MinFree > 0 { // not measured before the store is open
		p.add("disk", fmt.Sprintf("%s free in %s, events are refused below %s", byteSize(s.Queue.DiskFree), s.Queue.Dir, byteSize(s.Queue.MinFree)))
	}
	if s.Queue.Quarantined > 0 {
		p.add("damaged", st.bad(plural(s.Queue.Quarantined, "record", "records")+" set aside"))
	}
	if s.Replays > 0 {
		p.add("replays", fmt.Sprintf("%d under way", s.Replays))
	}
	if err := p.write(); err != nil {
		return err
	}
	if err := a.printPlugins(s.Plugins, s.Config.LastReload); err != nil || len(s.Webhooks) == 0 {
		return err
	}
	fmt.Fprintln(a.Out)
	if err := a.laneTable(s.Webhooks).write(a.Out, a.OutTerm.Width, st); err != nil {
		return err
	}
	list := make([]waiting, len(s.Webhooks))
	for i, l := range s.Webhooks {
		list[i] = waiting{l.Webhook, l.HeldReason, l.Counts.Pending, l.HeldUntil}
	}
	a.printWaiting(list)
	return nil
}

// reasons are what follows the state on its line, or else lines of their own.
func reasons(list []string) (state string, more []string) {
	if len(list) == 1 {
		return ": " + oneLine(list[0]), nil
	}
	for _, reason := range list {
		more = append(more, oneLine(reason))
	}
	return "", more
}

func rejections(list []rest.Rejected) string {
	var parts []string
	for _, r := range list {
		if r.Count > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", grouped(int64(r.Count)), r.Reason))
		}
	}
	if len(parts) == 0 {
		return ", none rejected"
	}
	return ", rejected: " + strings.Join(parts, ", ")
}

func (a *app) laneTable(lanes []rest.Lane) *table {
	t := &table{columns: []column{
		{title: "WEBHOOK", least: 16}, {title: "STATE", least: 14, paint: paintState}, {title: "PENDING", right: true}, {title: "IN FLIGHT", right: true, drop: 1},
		{title: "SUCCESS", right: true, drop: 2}, {title: "FAILED", right: true}, {title: "NEXT ATTEMPT"},
	}}
	for _, l := range lanes {
		next := l.NextAttemptAt.Time
		if l.HeldReason != heldRemoved && next.IsZero() {
			next = l.HeldUntil.Time
		}
		t.add(l.Webhook, stateOf(l.State, l.HeldReason), grouped(l.Counts.Pending), grouped(l.Counts.InFlight),
			grouped(l.Counts.Success), grouped(l.Counts.Failed), relative(next, a.Now()))
	}
	return t
}

// stateOf is a state and, for held, why.
func stateOf(state, heldReason string) string {
	if heldReason != "" {
		return state + ": " + heldReason
	}
	return state
}

// paintState paints what stateOf made by its first word.
func paintState(st style, text string) string {
	word, _, _ := strings.Cut(text, ":")
	painted := st.status(word)
	return painted + strings.TrimPrefix(text, word)
}
