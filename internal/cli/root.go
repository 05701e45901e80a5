package cli

import (
	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/event"
)

const (
	groupDaemon   = "daemon"
	groupEvents   = "events"
	groupLog      = "log"
	groupReceiver = "receiver"
	groupQueue    = "queue"
	groupOther    = "other"
)

// root builds the whole tree anew for each invocation, so that nothing is
// shared between two.
func (a *app) root() *cobra.Command {
	version := false
	root := a.command(&cobra.Command{
		Use:   programName,
		Short: "accepts events on a Unix socket and delivers them to webhooks",
		Example: `peanuts-relay serve --config /etc/peanuts-relay/config.yaml
peanuts-relay send --helper expenses --event created --entry e1 --set amount=42.5`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return a.printVersion(false)
			}
			cmd.SetOut(a.Err)
			_ = cmd.Help()
			return exitQuietly(ExitUsage)
		},
	})
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		writeHelp(cmd.OutOrStdout(), cmd)
		return nil
	})
	root.PersistentFlags().SortFlags = false
	root.PersistentFlags().StringVarP(&a.configPath, "config", "c", "", "`FILE` to read; default $PEANUTS_RELAY_CONFIG, else /etc/peanuts-relay/config.yaml")
	root.PersistentFlags().BoolP("help", "h", false, "show this help")
	root.Flags().BoolVar(&version, "version", false, "show which version this is")

	root.AddGroup(
		&cobra.Group{ID: groupDaemon, Title: "The daemon:"},
		&cobra.Group{ID: groupEvents, Title: "Events:"},
		&cobra.Group{ID: groupLog, Title: "The delivery log:"},
		&cobra.Group{ID: groupReceiver, Title: "Receivers:"},
		&cobra.Group{ID: groupQueue, Title: "The queue:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupDaemon, a.serveCommand(), a.checkCommand(), a.planCommand(), a.reloadCommand(), a.configCommand(), a.statusCommand())
	add(groupEvents, a.sendCommand(), a.eventCommand())
	add(groupLog, a.webhooksCommand(), a.enableCommand(), a.disableCommand(), a.testCommand(), a.deliveriesCommand(), a.deliveryCommand(),
		a.retryCommand(), a.replayCommand(), a.dropCommand())
	add(groupReceiver, a.doctorCommand(), a.receiveCommand(), a.verifyCommand())
	add(groupQueue, a.auditCommand(), a.fsckCommand(), a.backupCommand(), a.restoreCommand())
	add(groupOther, a.sinksCommand(), a.completionCommand(), a.manCommand(), a.versionCommand())
	root.SetHelpCommand(a.helpCommand())
	root.InitDefaultHelpCmd()
	return root
}

// noSuchCommand answers the first word that is not a command.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usagef(didYouMean(event.Suggest(args[0], names))+seeHelp(cmd), "unknown command %q for %q", args[0], cmd.CommandPath())
}

func didYouMean(word string) string {
	if word == "" {
		return ""
	}
	return "did you mean \"" + word + "\"? "
}

func seeHelp(cmd *cobra.Command) string { return "see " + cmd.CommandPath() + " --help" }
