package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) deliveryCommand() *cobra.Command {
	var asJSON bool
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "delivery ID",
		Short: "explains one delivery: every attempt, the exact request, why, and what comes next",
		Example: `peanuts-relay delivery del_4mz7k0r9000000100000000000a3
peanuts-relay delivery del_4mz7k0r9000000100000000000a3 --json`,
		Args: wantArgs(1, 1, "the id of a delivery"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(func(c *adminclient.Client) error {
				d, err := c.Delivery(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(a.Out, d)
				}
				return a.printDelivery(&d)
			})
		},
	}))
	c.Flags().BoolVar(&asJSON, "json", false, "print the document of the REST API")
	return c
}

func (a *app) printDelivery(d *rest.DeliveryDetail) error {
	st := a.outStyle()
	p := a.fields()
	p.add("delivery", d.ID)
	p.add("status", paintState(st, stateOf(d.Status, d.HeldReason)))
	p.add("webhook", oneLine(d.Webhook))
	p.add("event", oneLine(d.Event+"  "+d.EventID))
	p.addIf("entry", d.EntryID)
	p.addIf("waits for", d.WaitsFor)
	p.add("accepted", clock(d.CreatedAt.Time))
	if !d.NextAttemptAt.IsZero() {
		p.add("next attempt", clock(d.NextAttemptAt.Time)+" ("+relative(d.NextAttemptAt.Time, a.Now())+")")
	}
	if d.Unstable {
		p.add("note", st.warn("unstable_json")+": a number in it does not survive JSON.parse in JavaScript; verify the raw body")
	}
	if err := p.write(); err != nil {
		return err
	}
	a.section("Why, and what comes next")
	for _, line := range d.Explanation {
		fmt.Fprintf(a.Out, "  %s\n", oneLine(line))
	}
	if len(d.Log) > 0 {
		a.section("Attempts")
	}
	for i := range d.Log {
		a.printAttempt(&d.Log[i])
	}
	switch {
	case d.PayloadExpired:
		a.section("Payload")
		fmt.Fprintln(a.Out, "  no longer kept (history.payloads)")
	case d.Payload != "":
		a.section("Payload")
		fmt.Fprintf(a.Out, "  %s\n", safeText(d.Payload))
	}
	a.printCurl(d.Curl)
	return nil
}

func (a *app) section(title string) { fmt.Fprintf(a.Out, "\n%s\n", a.outStyle().bold(title)) }

// printCurl prints the request as a script. It is not indented: it is there to
// be copied.
func (a *app) printCurl(script string) {
	if script == "" {
		return
	}
	a.section("The request, for a shell")
	fmt.Fprintln(a.Out, strings.TrimRight(safeText(script), "\n"))
}

// printAttempt is the part of the timeline that one attempt takes.
func (a *app) printAttempt(t *rest.Attempt) {
	st := a.outStyle()
	result := t.Outcome
	if t.Response != nil {
		result = strconv.Itoa(t.Response.Status)
	} else if t.Code != "" {
		result = t.Code
	}
	painted := st.bad(result)
	if t.State == rest.StatusSuccess {
		painted = st.good(result)
	}
	fmt.Fprintf(a.Out, "  #%d  %s  %s  after %s\n", t.Number, clock(t.StartedAt.Time), painted, millis(t.Duration.Duration()))
	if timings := timings(t); timings != "" {
		fmt.Fprintf(a.Out, "      %s\n", st.faint(timings))
	}
	if t.Error != "" {
		fmt.Fprintf(a.Out, "      %s\n", oneLine(t.Error))
	}
	for _, said := range []string{t.Message, t.RemoteURL} {
		if said != "" {
			fmt.Fprintf(a.Out, "      %s\n", oneLine(said))
		}
	}
	if t.Response != nil {
		for _, h := range t.Response.Headers {
			if strings.EqualFold(h.Name, "Location") { // what a redirect is about
				fmt.Fprintf(a.Out, "      < %s: %s\n", oneLine(h.Name), oneLine(h.Value))
			}
		}
		printExcerpt(a.Out, "      | ", t.Response)
	}
	rule := firstOf(t.RuleText, t.Rule)
	if !t.NextAttemptAt.IsZero() {
		rule += "; next attempt " + clock(t.NextAttemptAt.Time)
	}
	if t.RetryAfter > 0 {
		rule += "; the receiver asked for " + span(t.RetryAfter.Duration())
	}
	if rule != "" {
		fmt.Fprintf(a.Out, "      → %s\n", oneLine(rule))
	}
}

// timings is where the time of an attempt went, and over which connection.
func timings(t *rest.Attempt) string {
	var parts []string
	for _, phase := range []struct {
		name string
		took rest.Millis
	}{{"dns", t.Phases.DNS}, {"connect", t.Phases.Connect}, {"tls", t.Phases.TLS}, {"first byte", t.Phases.FirstByte}} {
		if phase.took > 0 {
			parts = append(parts, phase.name+" "+millis(phase.took.Duration()))
		}
	}
	if t.Reused {
		parts = append(parts, "connection reused")
	}
	if t.Remote != "" {
		parts = append(parts, "to "+t.Remote)
	}
	return strings.Join(parts, ", ")
}

// excerptLines bounds what a terminal shows of a response; --json has it all.
const excerptLines = 10

// printExcerpt prints what is kept of a response's body, every line after a
// prefix, so that nothing in it can be taken for ours.
func printExcerpt(w io.Writer, prefix string, r *rest.Response) {
	if r.Body == "" {
		return
	}
	if r.BodyEncoding == "base64" {
		fmt.Fprintf(w, "%sin base64: %s\n", prefix, cutMiddle(r.Body, 200))
		return
	}
	lines := strings.Split(strings.TrimRight(safeText(r.Body), "\n"), "\n")
	cut := r.BodyTruncated
	if len(lines) > excerptLines {
		lines, cut = lines[:excerptLines], true
	}
	for _, line := range lines {
		fmt.Fprintf(w, "%s%s\n", prefix, cutMiddle(line, 400))
	}
	if cut {
		fmt.Fprintf(w, "%s…\n", prefix)
	}
}
