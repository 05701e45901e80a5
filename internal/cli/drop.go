package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) dropCommand() *cobra.Command {
	var yes bool
	c := a.onDeliveries(&cobra.Command{
		Use:   "drop WEBHOOK|DELIVERY...",
		Short: "discards all deliveries that wait for a webhook, or single ones",
		Long: `discards all deliveries that wait for a webhook, or single ones: a held or waiting one
fails with the code dropped, a failed one that is named leaves the log. They are not
sent any more. On a terminal it asks first; elsewhere a webhook needs --yes`,
		Example: `peanuts-relay drop expenses.old --yes
peanuts-relay drop del_4mz7k0r9000000100000000000a3`,
		ValidArgsFunction: a.completeWebhooks,
	}, func(*rest.Delivery) string { return "dropped:" }, (*adminclient.Client).Drop)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			for _, arg := range args {
				if isWebhook(arg) {
					return usagef(seeHelp(cmd), "%s takes one webhook, or deliveries: %q is a webhook", cmd.CommandPath(), arg)
				}
			}
		}
		return wantArgs(1, -1, "a webhook, such as expenses.backend, or ids of deliveries")(cmd, args)
	}
	one := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if isWebhook(args[0]) {
			return a.dropWebhook(cmd, args[0], yes)
		}
		if !yes {
			if err := a.confirm(fmt.Sprintf("Drop %s? They are not sent any more.", plural(len(args), "delivery", "deliveries"))); err != nil {
				return err
			}
		}
		return one(cmd, args)
	}
	return c
}

// isWebhook tells helper.webhook from the id of a delivery, which begins with
// del_ and has no dot.
func isWebhook(arg string) bool {
	return strings.Contains(arg, ".") || !strings.HasPrefix(arg, "del_")
}

func (a *app) dropWebhook(cmd *cobra.Command, webhook string, yes bool) error {
	if !yes && !a.canAsk() {
		return usagef("--yes drops them without asking", "drop of all deliveries that wait for %s: standard input is no terminal to ask on", webhook)
	}
	return a.withAdmin(func(c *adminclient.Client) error {
		if !yes {
			if err := a.askAboutWebhook(cmd.Context(), c, webhook); err != nil {
				return err
			}
		}
		dropped, err := c.DropDeliveries(cmd.Context(), webhook)
		if err != nil {
			return err
		}
		// The flag exists, so this cannot fail.
		if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
			return writeJSON(a.Out, dropped)
		}
		fmt.Fprintf(a.Out, "dropped: %s of %s\n", plural(dropped.Dropped, "delivery", "deliveries"), oneLine(dropped.Webhook))
		return nil
	})
}

// askAboutWebhook asks with the number of those that are meant.
func (a *app) askAboutWebhook(ctx context.Context, c *adminclient.Client, webhook string) error {
	w, err := c.Webhook(ctx, webhook)
	if err != nil {
		return err
	}
	return a.confirm(fmt.Sprintf("Drop all deliveries that wait for %s (%s now)? They are not sent any more.", oneLine(w.ID), grouped(w.Counts.Pending)))
}

// canAsk reports whether somebody sits at a terminal and can answer.
func (a *app) canAsk() bool { return a.InTerm.Width > 0 && a.ErrTerm.Width > 0 }

// confirm asks whether to go on. Without a terminal nobody is asked.
func (a *app) confirm(question string) error {
	if !a.canAsk() {
		return nil
	}
	fmt.Fprintf(a.Err, "%s [y/N] ", question)
	// An end of the input is no.
	line, _ := bufio.NewReader(a.In).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer == "y" || answer == "yes" {
		return nil
	}
	return WithExit(ExitFailure, errors.New("nothing was dropped"), "")
}
