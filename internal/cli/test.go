package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) testCommand() *cobra.Command {
	var asJSON bool
	var typ string
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "test WEBHOOK",
		Short: "sends a sample to a webhook and shows request, response and timings",
		Long: `sends a signed sample, fitted to the helper's fields, to a webhook and shows request,
response and timings. It works while the webhook is disabled, is not queued and
never retried. Exit status 1 when the receiver did not accept it`,
		Example: `peanuts-relay test expenses.backend
peanuts-relay test expenses.backend --event deleted`,
		Args:              wantArgs(1, 1, "a webhook, such as expenses.backend"),
		ValidArgsFunction: a.completeWebhooks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(func(c *adminclient.Client) error {
				result, err := c.Test(cmd.Context(), args[0], rest.TestRequest{Event: eventType(typ)})
				if err != nil {
					return err
				}
				if asJSON {
					err = writeJSON(a.Out, result)
				} else {
					a.printTest(&result)
				}
				if err == nil && !result.Delivered {
					err = exitQuietly(ExitFailure)
				}
				return err
			})
		},
	}))
	c.Flags().StringVar(&typ, "event", "", "`TYPE` of the sample; default the first that the webhook takes")
	c.Flags().BoolVar(&asJSON, "json", false, "print the document of the REST API")
	return c
}

func (a *app) printTest(t *rest.TestResult) {
	st := a.outStyle()
	if r := t.Attempt.Request; r != nil {
		fmt.Fprintf(a.Out, "%s\n> %s %s\n", st.bold("Request"), r.Method, safeText(r.URL))
		for _, h := range r.Headers {
			fmt.Fprintf(a.Out, "> %s: %s\n", oneLine(h.Name), oneLine(h.Value))
		}
	} else {
		fmt.Fprintf(a.Out, "%s\n", st.bold("Payload"))
	}
	fmt.Fprintf(a.Out, ">\n> %s\n", safeText(t.Payload))
	if r := t.Attempt.Response; r != nil {
		fmt.Fprintf(a.Out, "\n%s\n< %d\n", st.bold("Response"), r.Status)
		for _, h := range r.Headers {
			fmt.Fprintf(a.Out, "< %s: %s\n", oneLine(h.Name), oneLine(h.Value))
		}
		fmt.Fprintln(a.Out, "<")
		printExcerpt(a.Out, "< ", r)
	}
	a.section("Timings")
	p := a.fields()
	for _, phase := range []struct {
		name string
		took rest.Millis
	}{{"dns", t.Attempt.Phases.DNS}, {"connect", t.Attempt.Phases.Connect}, {"tls", t.Attempt.Phases.TLS},
		{"first byte", t.Attempt.Phases.FirstByte}, {"in all", t.Attempt.Duration}} {
		if phase.took > 0 {
			p.add("  "+phase.name, millis(phase.took.Duration()))
		}
	}
	p.addIf("  to", t.Attempt.Remote)
	p.addIf("  sink says", t.Attempt.Message)
	p.addIf("  see", t.Attempt.RemoteURL)
	_ = p.write()
	verdict := st.good("delivered")
	if !t.Delivered {
		verdict = st.bad("not delivered")
	}
	why := firstOf(t.Attempt.Error, t.Attempt.RuleText, t.Attempt.Rule)
	fmt.Fprintf(a.Out, "\n%s: %s\n", verdict, oneLine(why))
}
