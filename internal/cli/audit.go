package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) auditCommand() *cobra.Command {
	var asJSON bool
	var ids string
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "audit",
		Short: "accounts for everything that was ever accepted",
		Long: `has the running daemon account for everything that it ever accepted: each delivery of each
event is in exactly one state, and the counts add up. It reads the whole queue, beside
the daemon's work, and changes nothing. What does not fit is printed, and the exit
status is 1. With --ids, each of these events is looked up as well, and those that the
daemon does not know are named`,
		Example: `peanuts-relay audit
peanuts-relay audit --ids acknowledged.txt --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			return a.withAdmin(func(c *adminclient.Client) error { return a.audit(ctx, c, ids, asJSON) })
		},
	}))
	c.Flags().StringVar(&ids, "ids", "", "`FILE` with ids of events, one a line, that a sender believes accepted; - is standard input")
	c.Flags().BoolVar(&asJSON, "json", false, "print one document")
	return c
}

// auditReport is what --json prints. IDs is null without --ids.
type auditReport struct {
	rest.Audit
	IDs *idsReport `json:"ids"`
}

// idsReport counts the events that were asked for.
type idsReport struct {
	Asked     int64    `json:"asked"`
	Known     int64    `json:"known"`
	Forgotten int64    `json:"forgotten"` // of these, let go by retention
	Unknown   []string `json:"unknown"`
}

func (a *app) audit(ctx context.Context, c *adminclient.Client, ids string, asJSON bool) error {
	found, err := c.Audit(ctx, func(p rest.AuditProgress) {
		a.drawLine(fmt.Sprintf("%s of %s events, %s rows", grouped(p.Events), grouped(p.Of), grouped(p.Rows)))
	})
	a.clearLine()
	if err != nil {
		return err
	}
	report := auditReport{Audit: found}
	if ids != "" {
		if report.IDs, err = a.auditIDs(ctx, c, ids); err != nil {
			return err
		}
	}
	if asJSON {
		err = writeJSON(a.Out, report)
	} else {
		err = a.printAudit(&report)
	}
	if err == nil && (!report.OK || report.IDs != nil && len(report.IDs.Unknown) > 0) {
		err = exitQuietly(ExitFailure)
	}
	return err
}

// drawLine replaces the line that shows how far something is, on a terminal.
func (a *app) drawLine(text string) {
	if width := a.ErrTerm.Width; width > 0 {
		fmt.Fprintf(a.Err, "\r\x1b[K%s", cutMiddle(text, width-1))
	}
}

// auditBatch is how many ids are asked for at once.
const auditBatch = 1000

// auditIDs looks up every id of a file, a batch at a time.
func (a *app) auditIDs(ctx context.Context, c *adminclient.Client, name string) (*idsReport, error) {
	in := a.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, failf("", "read ids: %w", err)
		}
		defer f.Close()
		in = f
	}
	report := &idsReport{Unknown: []string{}}
	batch := make([]string, 0, auditBatch)
	ask := func() error {
		if len(batch) == 0 {
			return nil
		}
		answer, err := c.AuditEvents(ctx, batch)
		if err != nil {
			return err
		}
		for _, e := range answer.Events {
			report.Asked++
			switch {
			case !e.Known:
				report.Unknown = append(report.Unknown, e.ID)
			case e.Forgotten:
				report.Forgotten++
				fallthrough
			default:
				report.Known++
			}
		}
		a.drawLine(grouped(report.Asked) + " ids looked up")
		batch = batch[:0]
		return nil
	}
	defer a.clearLine()
	lines := bufio.NewScanner(io.Reader(in))
	for lines.Scan() {
		if id := strings.TrimSpace(lines.Text()); id != "" {
			if batch = append(batch, id); len(batch) == auditBatch {
				if err := ask(); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, failf("one id a line", "read ids: %w", err)
	}
	return report, ask()
}

func (a *app) printAudit(r *auditReport) error {
	d := &r.Deliveries
	rows := [][2]string{
		{"events accepted", grouped(r.Events.Accepted)},
		{"  kept", grouped(r.Events.Kept)},
		{"  let go by retention", grouped(r.Events.Forgotten)},
		{"deliveries accepted", grouped(d.Accepted)},
		{"  delivered", grouped(d.Success)},
		{"  failed", grouped(d.Failed)},
		{"  pending", grouped(d.Pending)},
	}
	for _, p := range r.Pending {
		if p.HeldReason != "" {
			rows = append(rows, [2]string{"    held: " + p.HeldReason, grouped(p.Count)})
		} else {
			rows = append(rows, [2]string{"    not held", grouped(p.Count)})
		}
	}
	if r.Events.Lost > 0 {
		rows = slices.Insert(rows, 3, [2]string{"  lost, and named by a repair", grouped(r.Events.Lost)})
	}
	rows = append(rows, [2]string{"delivered and failed, in the log", grouped(d.InLog)}, [2]string{"  let go by retention", grouped(d.Forgotten)})
	for _, more := range []struct {
		name string
		n    int64
	}{{"  removed by hand, or lost", d.Removed}, {"  damaged and set aside", d.SetAside}} {
		if more.n > 0 {
			rows = append(rows, [2]string{more.name, grouped(more.n)})
		}
	}
	if ids := r.IDs; ids != nil {
		rows = append(rows, [2]string{"ids asked for", grouped(ids.Asked)}, [2]string{"  known", grouped(ids.Known)}, [2]string{"  unknown", grouped(int64(len(ids.Unknown)))})
	}
	for _, row := range rows {
		fmt.Fprintf(a.Out, "%-34s %15s\n", row[0], row[1])
	}
	st := a.outStyle()
	if r.IDs != nil {
		for _, id := range r.IDs.Unknown {
			fmt.Fprintf(a.Out, "%s %s: no such event was accepted, or it was let go by retention\n", st.bad("unknown:"), id)
		}
	}
	for _, p := range r.Problems {
		text := p.What
		if p.ID != "" {
			text = p.ID + ": " + text
		}
		fmt.Fprintf(a.Out, "%s %s\n", st.bad("wrong:"), text)
	}
	if more := r.Wrong - int64(len(r.Problems)); more > 0 {
		fmt.Fprintf(a.Out, "and %s more\n", grouped(more))
	}
	verdict := st.good("everything is accounted for")
	if !r.OK {
		verdict = st.bad(plural(r.Wrong, "thing does", "things do") + " not add up")
	}
	_, err := fmt.Fprintln(a.Out, verdict)
	return err
}
