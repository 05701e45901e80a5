package cli

import "github.com/spf13/cobra"

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return a.command(&cobra.Command{
		Use:   "completion SHELL",
		Short: "prints the completion script for a shell: bash, zsh, fish or powershell",
		Example: `peanuts-relay completion bash > /usr/share/bash-completion/completions/peanuts-relay
source <(peanuts-relay completion zsh)`,
		ValidArgs: shells,
		Args:      wantArgs(1, 1, "the name of a shell: bash, zsh, fish or powershell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Out, true)
			case "zsh":
				return root.GenZshCompletion(a.Out)
			case "fish":
				return root.GenFishCompletion(a.Out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Out)
			}
			return usagef(seeHelp(cmd), "no completion for shell %q: want bash, zsh, fish or powershell", args[0])
		},
	})
}
