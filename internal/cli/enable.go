package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) enableCommand() *cobra.Command {
	return a.activeCommand(true, &cobra.Command{
		Use:   "enable WEBHOOK",
		Short: "switches a webhook on: what it held goes on",
		Long: `switches a webhook on, through the drop-in conf.d/90-api.yaml, and waits until that
runs. What it held goes on, also when it came back with another sink or host`,
		Example: `peanuts-relay enable expenses.alerts
peanuts-relay enable expenses.alerts --json`,
	})
}

func (a *app) disableCommand() *cobra.Command {
	return a.activeCommand(false, &cobra.Command{
		Use:   "disable WEBHOOK",
		Short: "switches a webhook off: what waits is held, new events are not for it",
		Long: `switches a webhook off, through the drop-in conf.d/90-api.yaml, and waits until that
runs. What waits for it is held and lost to nobody; new events make no deliveries for it`,
		Example: `peanuts-relay disable expenses.alerts
peanuts-relay disable expenses.alerts --json`,
	})
}

// activeCommand completes a command that switches a webhook.
func (a *app) activeCommand(active bool, c *cobra.Command) *cobra.Command {
	var asJSON bool
	c.Args = wantArgs(1, 1, "a webhook, such as expenses.backend")
	c.ValidArgsFunction = a.completeWebhooks
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withAdmin(func(c *adminclient.Client) error {
			changed, err := c.ChangeWebhook(cmd.Context(), args[0], rest.WebhookChange{Active: &active})
			switch {
			case err != nil:
				return err
			case asJSON:
				return writeJSON(a.Out, changed)
			}
			a.printActive(&changed)
			return nil
		})
	}
	c = a.adminFlag(a.command(c))
	c.Flags().BoolVar(&asJSON, "json", false, "print the document of the REST API")
	return c
}

func (a *app) printActive(w *rest.WebhookChanged) {
	st := a.outStyle()
	word := st.good("enabled:")
	if !w.Active {
		word = st.warn("disabled:")
	}
	where := "it was already"
	if w.File != "" {
		where = "in " + w.File
	}
	fmt.Fprintf(a.Out, "%s %s (%s)\n", word, oneLine(w.ID), oneLine(where))
	if w.Released {
		fmt.Fprintln(a.Out, "the deliveries that waited since it came back are attempted again")
	}
}
