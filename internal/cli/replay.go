package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/where"
)

type replayFlags struct {
	status       []string
	since, until string
	event        string // a type, or the id of one event
	where        string
	to           string
	sign         bool
	secretFile   string
	rate         float64
	dryRun, wait bool
	cancel       string
	list         bool
	json         bool
}

func (a *app) replayCommand() *cobra.Command {
	f := &replayFlags{}
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "replay WEBHOOK",
		Short: "sends finished deliveries of a webhook again, under the same ids",
		Long: `sends finished deliveries of a webhook again, under the same ids: the failed ones, or
those that --status names, or the one event that --event names. Live traffic goes
first. A replay goes on after a restart of the daemon. --where takes an expression
of jq over the payload and replays what it selects. With --to the payloads go to
another URL, once each, and nothing changes here: no state, no attempt in the log.
They carry X-Peanuts-Replay: true, none of the webhook's own headers, and no
signature without --sign: whoever holds a signed payload can hand it to the real
receiver`,
		Example: `peanuts-relay replay expenses.backend --since 2d --dry-run
peanuts-relay replay expenses.backend --where '.entry.data.amount > 100' --to http://127.0.0.1:9000/`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.list || f.cancel != "" {
				return noArgs(cmd, args)
			}
			return wantArgs(1, 1, "a webhook, such as expenses.backend, or --list or --cancel")(cmd, args)
		},
		ValidArgsFunction: a.completeWebhooks,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.replay(cmd, f, args) },
	}))
	flags := c.Flags()
	flags.StringSliceVar(&f.status, "status", nil, "those in this `STATUS`: failed (the default), success, or both with a comma")
	flags.StringVar(&f.since, "since", "", "only those accepted since this `TIME`: 2h, 7d, 14:30, 2025-01-15, RFC 3339")
	flags.StringVar(&f.until, "until", "", "only those accepted before this `TIME`")
	flags.StringVar(&f.event, "event", "", "only those of this event `TYPE`, or of the one event with this id (evt_…)")
	flags.StringVar(&f.where, "where", "", "only those whose payload this `EXPRESSION` of jq selects")
	flags.Float64Var(&f.rate, "rate", 0, "at most `NUMBER` a second; default as many as the webhook takes")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say how many it would be")
	flags.StringVar(&f.to, "to", "", "send the payloads to this `URL` instead, and change nothing here")
	flags.BoolVar(&f.sign, "sign", false, "with --to: sign them with the secrets that the configuration has for the webhook")
	flags.StringVar(&f.secretFile, "secret-file", "", "with --sign: with the secret in this `FILE` instead")
	flags.BoolVar(&f.wait, "wait", false, "wait until all are queued again, and show how far it is")
	flags.BoolVar(&f.list, "list", false, "list the replays")
	flags.StringVar(&f.cancel, "cancel", "", "end the replay with this `ID`")
	flags.BoolVar(&f.json, "json", false, "print the document of the REST API")
	c.MarkFlagsMutuallyExclusive("list", "cancel", "dry-run")
	c.MarkFlagsMutuallyExclusive("list", "cancel", "to")
	c.MarkFlagsMutuallyExclusive("to", "wait")
	// The flag exists, so this cannot fail.
	_ = c.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{rest.StatusFailed, rest.StatusSuccess}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) replay(cmd *cobra.Command, f *replayFlags, args []string) error {
	in, err := a.replayRequest(cmd, f)
	if err != nil {
		return err
	}
	if f.to == "" && (f.sign || f.secretFile != "") {
		return usagef(seeHelp(cmd), "--sign and --secret-file are for --to: the webhook's own receiver always gets signed requests")
	}
	if f.secretFile != "" && !f.sign {
		return usagef(seeHelp(cmd), "--secret-file is for --sign")
	}
	return a.withAdmin(func(c *adminclient.Client) error {
		switch {
		case f.to != "":
			return a.replayTo(cmd.Context(), c, args[0], &in, f)
		case f.list:
			return a.listReplays(cmd.Context(), c, f.json)
		case f.cancel != "":
			r, err := c.CancelReplay(cmd.Context(), f.cancel)
			if err != nil {
				return err
			}
			return a.printReplay("cancelled", &r, f.json)
		}
		return a.startReplay(cmd.Context(), c, args[0], in, f)
	})
}

func (a *app) replayRequest(cmd *cobra.Command, f *replayFlags) (in rest.ReplayRequest, err error) {
	for _, s := range f.status {
		if err := oneOf(cmd, "status", s, []string{rest.StatusFailed, rest.StatusSuccess}); err != nil {
			return in, err
		}
	}
	if f.rate < 0 {
		return in, usagef(seeHelp(cmd), "--rate %v: want a number of deliveries a second", f.rate)
	}
	in = rest.ReplayRequest{Status: strings.Join(f.status, ","), Where: f.where, Rate: f.rate, DryRun: f.dryRun}
	if strings.HasPrefix(f.event, eventIDPrefix) && !strings.Contains(f.event, ".") {
		in.EventID = f.event
	} else {
		in.Event = eventType(f.event)
	}
	if f.where != "" {
		if _, err := where.Compile(f.where); err != nil {
			return in, badExpression(f.where, err)
		}
	}
	if in.Since, err = a.moment(cmd, "since", f.since); err != nil {
		return in, err
	}
	in.Until, err = a.moment(cmd, "until", f.until)
	return in, err
}

func (a *app) startReplay(ctx context.Context, c *adminclient.Client, webhook string, in rest.ReplayRequest, f *replayFlags) error {
	r, err := c.Replay(ctx, webhook, in)
	switch {
	case err != nil:
		return err
	case f.dryRun:
		return a.printReplay("would replay", &r, f.json)
	case f.wait:
		return a.waitReplay(ctx, c, r, f.json)
	}
	return a.printReplay("started", &r, f.json)
}

// eventIDPrefix tells the id of an event from a type.
const eventIDPrefix = "evt_"

// badExpression shows where an expression is wrong.
func badExpression(expression string, err error) error {
	bad, ok := errors.AsType[*where.Error](err)
	if !ok {
		return usagef("", "--where: %w", err)
	}
	line, before := oneLine(expression), expression[:min(bad.Offset, len(expression))]
	hint := "it is an expression of jq over the payload, such as .entry.data.amount > 100"
	if textWidth(line) < 200 {
		hint = line + "\n" + strings.Repeat(" ", len("  ")+textWidth(oneLine(before))) + "^"
	}
	return usagef(hint, "--where: %w", err)
}

// replayPoll is how often --wait asks how far a replay is.
const replayPoll = 500 * time.Millisecond

// waitReplay follows a replay to its end. Ctrl-C ends the wait, not the replay.
func (a *app) waitReplay(ctx context.Context, c *adminclient.Client, r rest.Replay, asJSON bool) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	tick := time.NewTicker(replayPoll)
	defer tick.Stop()
	for !r.Done {
		a.drawReplay(&r)
		select {
		case <-ctx.Done():
			a.clearLine()
			return failf("it goes on; peanuts-relay replay --list shows how far it is, --cancel "+r.ID+" ends it", "interrupted while replay %s is under way", r.ID)
		case <-tick.C:
		}
		list, err := c.Replays(ctx)
		if err != nil && ctx.Err() != nil {
			continue
		}
		if err != nil {
			a.clearLine()
			return err
		}
		found := false
		for _, other := range list.Replays {
			if other.ID == r.ID {
				r, found = other, true
			}
		}
		if !found {
			a.clearLine()
			return failf("", "replay %s is no longer known: it was cancelled, or ended long ago", r.ID)
		}
	}
	a.clearLine()
	return a.printReplay("done", &r, asJSON)
}

func (a *app) drawReplay(r *rest.Replay) {
	if width := a.ErrTerm.Width; width > 0 {
		text := fmt.Sprintf("%s of %s queued again", grouped(r.Requeued), grouped(r.Matched))
		fmt.Fprintf(a.Err, "\r\x1b[K%s", cutMiddle(text, width-1))
	}
}

func (a *app) clearLine() {
	if a.ErrTerm.Width > 0 {
		fmt.Fprint(a.Err, "\r\x1b[K")
	}
}

func (a *app) printReplay(verdict string, r *rest.Replay, asJSON bool) error {
	if asJSON {
		return writeJSON(a.Out, r)
	}
	text := verdict
	if r.ID != "" {
		text += " replay " + r.ID
	}
	text += fmt.Sprintf(" of %s: %s", r.Webhook, plural(r.Matched, "delivery", "deliveries"))
	if !r.DryRun {
		text += fmt.Sprintf(", %s queued again", grouped(r.Requeued))
	}
	if r.Undecided > 0 {
		text += fmt.Sprintf(", %s left out: --where could not be decided, first of %s", grouped(r.Undecided), oneLine(r.Trouble))
	}
	if r.Expired > 0 {
		text += fmt.Sprintf(", %s left out: their payloads are no longer kept", grouped(r.Expired))
	}
	_, err := fmt.Fprintln(a.Out, text)
	return err
}

func (a *app) listReplays(ctx context.Context, c *adminclient.Client, asJSON bool) error {
	list, err := c.Replays(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.Out, list)
	}
	if len(list.Replays) == 0 {
		fmt.Fprintln(a.Err, "no replays")
		return nil
	}
	t := &table{columns: []column{{title: "REPLAY"}, {title: "WEBHOOK", least: 12}, {title: "STATUS"}, {title: "STARTED", short: a.shortClock, drop: 2},
		{title: "QUEUED AGAIN", right: true}, {title: "OF", right: true}, {title: "LEFT OUT", right: true, drop: 1}, {title: "STATE"}}}
	for _, r := range list.Replays {
		state := "under way"
		if r.Done {
			state = "done"
		}
		t.add(r.ID, r.Webhook, strings.Join(r.Status, ","), clock(r.StartedAt.Time), grouped(r.Requeued), grouped(r.Matched), grouped(r.Expired), state)
	}
	return t.write(a.Out, a.OutTerm.Width, a.outStyle())
}
