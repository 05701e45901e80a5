package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// ReloadWait is how long reload waits: plugins have 30 s to start, and a queue
// of reloads is at most two long.
const ReloadWait = 60 * time.Second

func (a *app) reloadCommand() *cobra.Command {
	var asJSON bool
	var wait string
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "reload",
		Short: "makes the daemon read its files now, and says what changed",
		Long: `makes the daemon read its files now, waits until they are applied or refused, and says
what changed. A saved file is read without this. Exit status 78 when the files are
invalid: what ran goes on running`,
		Example: `peanuts-relay reload
peanuts-relay reload --wait=5m`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit, err := duration(wait)
			if err != nil || limit <= 0 {
				return usagef(seeHelp(cmd), "--wait=%s: want how long to wait, such as 60s", wait)
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), limit, WithExit(ExitTryAgain,
				fmt.Errorf("the reload is not done after %s; it goes on", wait), "peanuts-relay status says how it ends"))
			defer cancel()
			return a.withAdmin(func(c *adminclient.Client) error {
				result, err := c.Reload(ctx)
				if err != nil {
					return err
				}
				return a.printReload(&result, asJSON)
			})
		},
	}))
	c.Flags().StringVar(&wait, "wait", ReloadWait.String(), "wait at most this `LONG` for the result, written --wait=5m")
	c.Flags().Lookup("wait").NoOptDefVal = ReloadWait.String()
	c.Flags().BoolVar(&asJSON, "json", false, "print the document of the REST API")
	return c
}

func (a *app) printReload(r *rest.ReloadResult, asJSON bool) error {
	rejected := r.Result == rest.ReloadRejected
	if asJSON {
		err := writeJSON(a.Out, r)
		if err == nil && rejected {
			err = exitQuietly(ExitConfig)
		}
		return err
	}
	fmt.Fprint(a.Err, findingsText(a.errStyle(), r.Report))
	if rejected {
		return WithExit(ExitConfig, fmt.Errorf("the configuration files are invalid: %s; generation %d goes on running",
			plural(errorsIn(r.Findings), "error", "errors"), r.Generation),
			"correct the files and save them: they are read at once; peanuts-relay check checks them without the daemon")
	}
	lines, st := changeLines(r.Changes, r.RestartRequired), a.outStyle()
	a.printChanges(lines)
	if r.Result == rest.ReloadUnchanged {
		fmt.Fprintf(a.Out, "%s generation %d is what the files say\n", st.good("unchanged:"), r.Generation)
		return nil
	}
	text := tally(lines, "added", "changed", "removed", "at the next start")
	if text != "" {
		text = ": " + text
	}
	fmt.Fprintf(a.Out, "%s generation %d%s\n", st.good("applied:"), r.Generation, text)
	return nil
}
