package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	c := a.command(&cobra.Command{
		Use:   "config",
		Short: "shows the configuration, its history and its schema",
		Example: `peanuts-relay config show
peanuts-relay config schema > config.schema.json`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef(seeHelp(cmd), "%s needs a command: show, history, rollback or schema", cmd.CommandPath())
		},
	})
	c.AddCommand(
		a.configShowCommand(),
		a.historyCommand(),
		a.rollbackCommand(),
		a.command(&cobra.Command{
			Use:   "schema",
			Short: "prints the JSON Schema (draft-07) of the configuration file, for editors",
			Example: `peanuts-relay config schema
peanuts-relay config schema > config.schema.json`,
			Args: noArgs,
			RunE: func(*cobra.Command, []string) error {
				_, err := a.Out.Write(config.Schema())
				return err
			},
		}),
	)
	return c
}

func (a *app) configShowCommand() *cobra.Command {
	var running bool
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "show",
		Short: "shows the effective configuration: files merged, defaults filled in, secrets masked",
		Long: `shows the effective configuration: files merged, defaults filled in, secrets masked. It
is what the files say now, with --running what the daemon runs`,
		Example: `peanuts-relay config show
peanuts-relay config show --running`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if running {
				return a.runningShow(cmd.Context())
			}
			return a.configShow()
		},
	}))
	c.Flags().BoolVar(&running, "running", false, "ask the daemon what it runs")
	return c
}

func (a *app) runningShow(ctx context.Context) error {
	return a.withAdmin(func(c *adminclient.Client) error {
		r, err := c.RunningConfig(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(a.Out, safeText(r.YAML))
		return err
	})
}

func (a *app) configShow() error {
	path, err := a.configFile()
	if err != nil {
		return err
	}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: a.Env})
	if err := report.Err(); err != nil {
		if werr := a.writeFindings(report); werr != nil {
			return werr
		}
		return invalidConfig(err, path)
	}
	return cfg.Show(a.Out)
}
