package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) eventCommand() *cobra.Command {
	var asJSON bool
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "event ID",
		Short: "says what became of one event, and why a webhook did not get it",
		Example: `peanuts-relay event evt_4mz7k0r900000000000a3
peanuts-relay event order-1234 --json`,
		Args: wantArgs(1, 1, "the id of an event, ours or the sender's"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(func(c *adminclient.Client) error {
				list, err := c.Event(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(a.Out, list)
				}
				for i := range list.Events {
					if i > 0 {
						fmt.Fprintln(a.Out)
					}
					if err := a.printEvent(&list.Events[i]); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}))
	c.Flags().BoolVar(&asJSON, "json", false, "print the document of the REST API")
	return c
}

func (a *app) printEvent(e *rest.Event) error {
	st := a.outStyle()
	p := a.fields()
	p.add("event", oneLine(e.ID))
	p.add("type", oneLine(e.Event))
	p.add("helper", oneLine(e.Helper))
	p.addIf("entry", e.EntryID)
	p.add("timestamp", clock(e.Timestamp.Time))
	p.add("accepted", clock(e.AcceptedAt.Time))
	if e.Unstable {
		p.add("note", st.warn("unstable_json")+": a number in it does not survive JSON.parse in JavaScript")
	}
	if err := p.write(); err != nil {
		return err
	}
	if len(e.Explanation) > 0 {
		a.section("What became of it")
	}
	for _, line := range e.Explanation {
		fmt.Fprintf(a.Out, "  %s\n", oneLine(line))
	}
	if len(e.Deliveries) > 0 {
		a.section("Deliveries")
		if err := a.deliveryTable(e.Deliveries).write(a.Out, a.OutTerm.Width, st); err != nil {
			return err
		}
	}
	for _, body := range e.Payloads {
		a.section("Payload, format " + body.Format)
		fmt.Fprintf(a.Out, "  %s\n", safeText(body.Body))
	}
	return nil
}
