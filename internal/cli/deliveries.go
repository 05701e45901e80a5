package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

type deliveriesFlags struct {
	status       []string
	since, until string
	event        string
	limit        int
	all, follow  bool
	json         bool
}

// maxLimit is the most that the REST API puts on one page.
const maxLimit = 1000

func (a *app) deliveriesCommand() *cobra.Command {
	f := &deliveriesFlags{}
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "deliveries [WEBHOOK]",
		Short: "lists the delivery log, newest first",
		Example: `peanuts-relay deliveries expenses.backend --status failed --since 2h
peanuts-relay deliveries --follow`,
		Args:              wantArgs(0, 1, "at most one webhook, such as expenses.backend"),
		ValidArgsFunction: a.completeWebhooks,
		RunE: func(cmd *cobra.Command, args []string) error {
			webhook := ""
			if len(args) > 0 {
				webhook = args[0]
			}
			return a.deliveries(cmd, f, webhook)
		},
	}))
	flags := c.Flags()
	flags.StringSliceVar(&f.status, "status", nil, "only those in this `STATUS`: pending, held, in_flight, success, failed; several with commas")
	flags.StringVar(&f.since, "since", "", "only those accepted since this `TIME`: 2h, 7d, 14:30, 2025-01-15, RFC 3339")
	flags.StringVar(&f.until, "until", "", "only those accepted before this `TIME`")
	flags.StringVar(&f.event, "event", "", "only those of this event `TYPE`, such as entry.created")
	flags.IntVarP(&f.limit, "limit", "n", 50, "`NUMBER` of rows")
	flags.BoolVar(&f.all, "all", false, "every row, however many")
	flags.BoolVar(&f.follow, "follow", false, "print changes as they happen, until Ctrl-C")
	flags.BoolVar(&f.json, "json", false, "print the document of the REST API; with --all and --follow one object per line")
	completeStatuses(c)
	return c
}

func completeStatuses(c *cobra.Command) {
	// The flag exists, so this cannot fail.
	_ = c.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(rest.Statuses(), cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) deliveries(cmd *cobra.Command, f *deliveriesFlags, webhook string) error {
	q, err := a.deliveryQuery(cmd, f, webhook)
	if err != nil {
		return err
	}
	return a.withAdmin(func(c *adminclient.Client) error {
		switch {
		case f.follow:
			return a.follow(cmd.Context(), c, q, f.json)
		case f.all:
			return a.allDeliveries(cmd.Context(), c, q, f.json)
		}
		return a.listDeliveries(cmd.Context(), c, q, f)
	})
}

func (a *app) deliveryQuery(cmd *cobra.Command, f *deliveriesFlags, webhook string) (q adminclient.DeliveryQuery, err error) {
	q = adminclient.DeliveryQuery{Webhook: webhook, Status: f.status, Limit: min(f.limit, maxLimit)}
	switch {
	case f.limit < 1:
		return q, usagef(seeHelp(cmd), "--limit %d: want at least 1", f.limit)
	case f.all && f.follow:
		return q, usagef(seeHelp(cmd), "--all and --follow cannot be combined")
	case f.follow && (f.since != "" || f.until != "" || f.event != ""):
		return q, usagef(seeHelp(cmd), "--follow shows changes from now on: it takes WEBHOOK and --status only")
	case f.all && !cmd.Flags().Changed("limit"):
		q.Limit = maxLimit
	}
	for _, s := range f.status {
		if err := oneOf(cmd, "status", s, rest.Statuses()); err != nil {
			return q, err
		}
	}
	if f.event != "" {
		q.Event = eventType(f.event)
	}
	if q.Since, err = a.moment(cmd, "since", f.since); err != nil {
		return q, err
	}
	q.Until, err = a.moment(cmd, "until", f.until)
	return q, err
}

// moment turns what an operator typed into what the REST API takes.
func (a *app) moment(cmd *cobra.Command, flag, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	t, err := when(text, a.Now())
	if err != nil {
		return "", usagef(seeHelp(cmd), "--%s: %w", flag, err)
	}
	return t.UTC().Format(time.RFC3339Nano), nil
}

// listDeliveries prints one listing of at most --limit rows. A page of the REST
// API may be shorter than asked for, so several may be needed.
func (a *app) listDeliveries(ctx context.Context, c *adminclient.Client, q adminclient.DeliveryQuery, f *deliveriesFlags) error {
	list := rest.DeliveryPage{Deliveries: []rest.Delivery{}}
	for {
		q.Limit = min(f.limit-len(list.Deliveries), maxLimit)
		page, err := c.Deliveries(ctx, q)
		if err != nil {
			return err
		}
		list.Deliveries = append(list.Deliveries, page.Deliveries...)
		list.NextCursor, q.Cursor = page.NextCursor, page.NextCursor
		if page.NextCursor == "" || len(list.Deliveries) >= f.limit {
			break
		}
	}
	if f.json {
		return writeJSON(a.Out, list)
	}
	if len(list.Deliveries) == 0 {
		fmt.Fprintln(a.Err, "no deliveries")
		return nil
	}
	if err := a.deliveryTable(list.Deliveries).write(a.Out, a.OutTerm.Width, a.outStyle()); err != nil {
		return err
	}
	if list.NextCursor != "" {
		fmt.Fprintln(a.Err, "there are more: --limit or --all shows them")
	}
	return nil
}

func (a *app) deliveryTable(rows []rest.Delivery) *table {
	t := &table{columns: []column{
		{title: "ACCEPTED", short: a.shortClock, drop: 5}, {title: "DELIVERY"}, {title: "WEBHOOK", least: 10},
		{title: "EVENT", least: 7, short: shortEvent, drop: 4}, {title: "ENTRY", least: 6, drop: 1}, {title: "STATUS", least: 7, paint: paintState},
		{title: "CODE", right: true, drop: 3}, {title: "TRIES", right: true, drop: 2}, {title: "NEXT OR ERROR", least: 8, below: 30},
	}}
	for i := range rows {
		d := &rows[i]
		code := "-"
		if d.StatusCode != 0 {
			code = strconv.Itoa(int(d.StatusCode))
		}
		t.add(clock(d.CreatedAt.Time), d.ID, d.Webhook, d.Event, dash(d.EntryID), stateOf(d.Status, d.HeldReason), code,
			strconv.Itoa(d.Attempts), a.remark(d))
	}
	return t
}

// remark is what the last column says: when it goes on, and what was wrong.
func (a *app) remark(d *rest.Delivery) string {
	var parts []string
	if !d.NextAttemptAt.IsZero() {
		parts = append(parts, relative(d.NextAttemptAt.Time, a.Now()))
	}
	if why := firstOf(d.Error, d.Code); why != "" && d.Status != rest.StatusSuccess {
		parts = append(parts, why) // a code alone: dropped, webhook_removed
	}
	return strings.Join(parts, ": ")
}

// allDeliveries goes through every page. Each is printed as it comes, so that
// memory does not grow with the log.
func (a *app) allDeliveries(ctx context.Context, c *adminclient.Client, q adminclient.DeliveryQuery, asJSON bool) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	for {
		page, err := c.Deliveries(ctx, q)
		if err != nil {
			return err
		}
		if asJSON {
			for i := range page.Deliveries {
				if err := enc.Encode(&page.Deliveries[i]); err != nil {
					return err
				}
			}
		} else if len(page.Deliveries) > 0 {
			if err := a.deliveryTable(page.Deliveries).write(a.Out, a.OutTerm.Width, a.outStyle()); err != nil {
				return err
			}
		}
		if page.NextCursor == "" {
			return nil
		}
		q.Cursor = page.NextCursor
	}
}

// follow prints changes until the context or the daemon ends.
func (a *app) follow(ctx context.Context, c *adminclient.Client, q adminclient.DeliveryQuery, asJSON bool) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	stream, err := c.Follow(ctx, adminclient.FollowQuery{Webhook: q.Webhook, Status: q.Status})
	if err != nil {
		return err
	}
	defer stream.Close()
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	for change, err := range stream.All() {
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case errors.Is(err, adminclient.ErrStreamEnded):
			return WithExit(ExitUnavailable, err, "")
		case err != nil:
			return err
		case change.Missed > 0:
			fmt.Fprintf(a.Err, "%s %s left out: this terminal is too slow\n", a.errStyle().warn("warning:"), plural(change.Missed, "change was", "changes were"))
			continue
		case asJSON:
			err = enc.Encode(&change.Change)
		default:
			_, err = fmt.Fprintln(a.Out, a.changeLine(&change.Change))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// changeLine fits the terminal like a table does; only a line that fits is
// painted.
func (a *app) changeLine(c *rest.Change) string {
	line := a.changeText(c, style{})
	if width := a.OutTerm.Width; width > 0 && textWidth(line) > width {
		return cutMiddle(line, width)
	}
	return a.changeText(c, a.outStyle())
}

func (a *app) changeText(c *rest.Change, st style) string {
	d := &c.Delivery
	parts := []string{clock(c.At.Time), fmt.Sprintf("%-8s", c.Kind), d.ID, d.Webhook, d.Event, dash(d.EntryID), stateOf(d.Status, d.HeldReason)}
	for i := range parts {
		parts[i] = oneLine(parts[i])
	}
	parts[len(parts)-1] = paintState(st, parts[len(parts)-1])
	if d.StatusCode != 0 {
		parts = append(parts, strconv.Itoa(int(d.StatusCode)))
	}
	if d.Attempts > 0 {
		parts = append(parts, plural(d.Attempts, "try", "tries"))
	}
	if remark := a.remark(d); remark != "" {
		parts = append(parts, oneLine(remark))
	}
	return strings.Join(parts, "  ")
}
