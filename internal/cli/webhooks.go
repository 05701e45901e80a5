package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) webhooksCommand() *cobra.Command {
	var asJSON bool
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "webhooks",
		Short: "lists the webhooks, their state and what waits for them",
		Example: `peanuts-relay webhooks
peanuts-relay webhooks --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(func(c *adminclient.Client) error {
				list, err := c.Webhooks(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(a.Out, list)
				}
				if len(list.Webhooks) == 0 {
					fmt.Fprintln(a.Err, "no webhooks")
					return nil
				}
				return a.printWebhooks(list.Webhooks)
			})
		},
	}))
	c.Flags().BoolVar(&asJSON, "json", false, "print the document of the REST API")
	return c
}

func (a *app) printWebhooks(list []rest.Webhook) error {
	if err := a.webhookTable(list).write(a.Out, a.OutTerm.Width, a.outStyle()); err != nil {
		return err
	}
	wait := make([]waiting, len(list))
	for i, w := range list {
		wait[i] = waiting{w.ID, w.HeldReason, w.Counts.Pending, w.HeldUntil}
	}
	a.printWaiting(wait)
	return nil
}

func (a *app) webhookTable(list []rest.Webhook) *table {
	t := &table{columns: []column{
		{title: "WEBHOOK", least: 16}, {title: "SINK", drop: 1}, {title: "URL", least: 24, drop: 2}, {title: "STATE", least: 14, paint: paintState},
		{title: "PENDING", right: true}, {title: "SUCCESS", right: true, drop: 3}, {title: "FAILED", right: true}, {title: "LAST", least: 11},
	}}
	for _, w := range list {
		t.add(w.ID, dash(w.Sink), dash(w.URL), stateOf(w.State, w.HeldReason), grouped(w.Counts.Pending), grouped(w.Counts.Success),
			grouped(w.Counts.Failed), lastResult(w.Last))
	}
	return t
}

// lastResult is what the last attempt ended with.
func lastResult(d *rest.Delivery) string {
	switch {
	case d == nil:
		return "-"
	case d.StatusCode != 0:
		return fmt.Sprintf("%s %d", d.Status, d.StatusCode)
	case d.Code != "":
		return d.Status + " " + d.Code
	}
	return d.Status
}
