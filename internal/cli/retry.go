package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) retryCommand() *cobra.Command {
	return a.onDeliveries(&cobra.Command{
		Use:   "retry ID...",
		Short: "makes deliveries due now; a finished one gets a fresh schedule",
		Example: `peanuts-relay retry del_4mz7k0r9000000100000000000a3
peanuts-relay deliveries --status failed --json | jq -r '.deliveries[].id' | xargs peanuts-relay retry`,
	}, dueNow, (*adminclient.Client).Retry)
}

// dueNow says whether a delivery that is due is attempted as well.
func dueNow(d *rest.Delivery) string {
	if d.Status == rest.StatusHeld {
		return "due now, but held (" + oneLine(d.HeldReason) + "):"
	}
	return "due now:"
}

// onDeliveries completes a command that does the same with each of several
// deliveries, and says of each what done makes of it. One that is refused does not
// keep the others from it.
func (a *app) onDeliveries(c *cobra.Command, done func(*rest.Delivery) string, do func(*adminclient.Client, context.Context, string) (rest.Delivery, error)) *cobra.Command {
	var asJSON bool
	c.Args = wantArgs(1, -1, "at least one id of a delivery")
	c.RunE = func(cmd *cobra.Command, ids []string) error {
		return a.withAdmin(func(client *adminclient.Client) error {
			list := rest.DeliveryPage{Deliveries: []rest.Delivery{}}
			var failed error
			for _, id := range ids {
				d, err := do(client, cmd.Context(), id)
				if refused, ok := errors.AsType[*adminclient.Error](err); ok {
					fmt.Fprintf(a.Err, "%s %s: %s\n", a.errStyle().bad("error:"), oneLine(id), oneLine(refused.Message))
					failed = worse(failed, refusal(refused))
					continue
				}
				if err != nil {
					return err
				}
				list.Deliveries = append(list.Deliveries, d)
				if !asJSON {
					fmt.Fprintf(a.Out, "%s %s  %s  %s %s\n", done(&d), d.ID, d.Webhook, d.Event, oneLine(d.EntryID))
				}
			}
			if asJSON {
				if err := writeJSON(a.Out, list); err != nil {
					return err
				}
			}
			if failed != nil {
				return exitQuietly(exitCode(failed))
			}
			return nil
		})
	}
	c = a.adminFlag(a.command(c))
	c.Flags().BoolVar(&asJSON, "json", false, "print the deliveries as a document of the REST API")
	return c
}

// worse keeps the exit status of failures that have one in common; mixed ones
// are just a failure.
func worse(before, now error) error {
	if before == nil || exitCode(before) == exitCode(now) {
		return now
	}
	return exitQuietly(ExitFailure)
}
