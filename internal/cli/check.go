package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/configtest"
)

func (a *app) checkCommand() *cobra.Command {
	var format string
	c := a.command(&cobra.Command{
		Use:   "check [FILE]",
		Short: "validates the configuration: everything that a start would need",
		Long: `validates the configuration: everything that a start would need, references to
secrets included, and runs the file's own tests. It changes nothing. Exit status 78
when there is an error or a test does not hold; warnings do not count`,
		Example: `peanuts-relay check
peanuts-relay check ./config.yaml --format json`,
		Args: wantArgs(0, 1, "at most one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf(cmd, "format", format, []string{"text", "json"}); err != nil {
				return err
			}
			return a.check(args, format == "json")
		},
	})
	c.Flags().StringVar(&format, "format", "text", "`FORMAT` of the report: text or json")
	return c
}

func (a *app) check(args []string, asJSON bool) error {
	if len(args) > 0 {
		a.configPath = args[0]
	}
	path, err := a.configFile()
	if err != nil {
		return err
	}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: a.Env})
	tests := 0
	if cfg != nil {
		tests = len(cfg.Tests)
		configtest.Run(cfg, report, config.SeverityError)
	}
	invalid := report.Err()
	if asJSON {
		if err := report.WriteJSON(a.Out); err != nil {
			return err
		}
		if invalid != nil {
			return exitQuietly(ExitConfig)
		}
		return nil
	}
	// The findings are what was asked for: they go to standard output.
	if err := report.WriteText(a.Out, a.outStyle().on); err != nil {
		return err
	}
	if len(report.Findings) > 0 {
		fmt.Fprintln(a.Out)
	}
	st := a.outStyle()
	if invalid != nil {
		fmt.Fprintf(a.Out, "%s %s: %s\n", st.bad("invalid:"), path, countErrors(invalid))
		return exitQuietly(ExitConfig)
	}
	more := ""
	if n := len(report.Files); n > 1 {
		more += " and " + plural(n-1, "drop-in", "drop-ins")
	}
	if n := len(report.Findings); n > 0 {
		more += ", " + plural(n, "warning", "warnings")
	}
	switch tests {
	case 0:
	case 1:
		more += ", 1 test holds"
	default:
		more += fmt.Sprintf(", %d tests hold", tests)
	}
	fmt.Fprintf(a.Out, "%s %s%s\n", st.good("valid:"), path, more)
	return nil
}
