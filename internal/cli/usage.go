package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/peanutsapp/peanuts-relay/internal/event"
)

// flagError words what pflag says and adds what was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	hint := seeHelp(cmd)
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		// For a letter the typed name is a single one, and nothing is near that.
		if near := event.Suggest(unknown.GetSpecifiedName(), flagNames(cmd)); near != "" {
			hint = didYouMean("--"+near) + hint
		}
		return usagef(hint, "%s", firstLower(err.Error()))
	}
	return usagef(hint, "%s", firstLower(err.Error()))
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return names
}

func firstLower(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// noArgs refuses any argument.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(seeHelp(cmd), "%s takes no argument, got %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// wantArgs requires between least and most arguments; most < 0 is any number.
// what is the argument's name as the usage line has it.
func wantArgs(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef(seeHelp(cmd), "%s needs %s", cmd.CommandPath(), what)
		case most >= 0 && len(args) > most:
			return usagef(seeHelp(cmd), "%s takes %s and nothing after it, got %q", cmd.CommandPath(), what, args[most])
		}
		return nil
	}
}

// oneOf checks the value of a flag that takes one of a few words.
func oneOf(cmd *cobra.Command, flag, value string, words []string) error {
	if slices.Contains(words, value) {
		return nil
	}
	return usagef(didYouMean(event.Suggest(value, words))+seeHelp(cmd), "--%s %q: want %s", flag, value, strings.Join(words, ", "))
}
