package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// writeHelp starts with what most readers look for, two examples to change,
// then says how to use the command, what it does and what its flags are.
func writeHelp(w io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(w, "Examples:\n%s\n\nUsage:\n  %s\n\n%s\n", indent(cmd.Example), useLine(cmd), description(cmd))
	for _, group := range cmd.Groups() {
		writeCommands(w, group.Title, cmd, group.ID)
	}
	if len(cmd.Groups()) == 0 {
		writeCommands(w, "Commands:", cmd, "")
	}
	writeFlags(w, "Flags:", cmd.LocalFlags())
	writeFlags(w, "Flags of every command:", cmd.InheritedFlags())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n\"%s COMMAND --help\" shows a command's own examples and flags.\n", cmd.CommandPath())
	}
}

func useLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND [flags]"
	}
	return cmd.UseLine() + " [flags]"
}

func description(cmd *cobra.Command) string {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	return strings.ToUpper(text[:1]) + strings.TrimSuffix(text[1:], ".") + "."
}

func writeCommands(w io.Writer, title string, cmd *cobra.Command, group string) {
	first := true
	for _, c := range cmd.Commands() {
		if c.GroupID != group || !c.IsAvailableCommand() && c.Name() != "help" {
			continue
		}
		if first {
			fmt.Fprintf(w, "\n%s\n", title)
			first = false
		}
		fmt.Fprintf(w, "  %-*s  %s\n", cmd.NamePadding(), c.Name(), c.Short)
	}
}

func writeFlags(w io.Writer, title string, flags *pflag.FlagSet) {
	if flags.HasAvailableFlags() {
		fmt.Fprintf(w, "\n%s\n%s\n", title, strings.TrimRight(flags.FlagUsages(), "\n"))
	}
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

func (a *app) helpCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "shows the help of a command",
		Example: `peanuts-relay help
peanuts-relay help send`,
		GroupID: groupOther,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return noSuchCommand(target, rest)
			}
			target.InitDefaultHelpFlag()
			return target.Help()
		},
	})
}
