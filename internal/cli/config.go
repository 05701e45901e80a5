package cli

import (
	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	c := a.command(&cobra.Command{
		Use:   "config",
		Short: "shows the effective configuration and its schema",
		Example: `peanuts-relay config show
peanuts-relay config schema > config.schema.json`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef(seeHelp(cmd), "%s needs a command: show or schema", cmd.CommandPath())
		},
	})
	c.AddCommand(
		a.command(&cobra.Command{
			Use:   "show",
			Short: "shows the effective configuration: files merged, defaults filled in, secrets masked",
			Example: `peanuts-relay config show
peanuts-relay config show --config ./config.yaml`,
			Args: noArgs,
			RunE: func(*cobra.Command, []string) error { return a.configShow() },
		}),
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
