package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

type versionDocument struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"` // "" when the build did not record it
	GoVersion string `json:"go_version"`
	Platform  string `json:"platform"`
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	c := a.command(&cobra.Command{
		Use:   "version",
		Short: "shows which version this is",
		Example: `peanuts-relay version
peanuts-relay version --json`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.printVersion(asJSON) },
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (a *app) printVersion(asJSON bool) error {
	v := a.version()
	if asJSON {
		return writeJSON(a.Out, v)
	}
	commit := ""
	if v.Commit != "" {
		commit = "commit " + v.Commit + ", "
	}
	_, err := fmt.Fprintf(a.Out, "%s %s (%s%s, %s)\n", programName, v.Version, commit, v.GoVersion, v.Platform)
	return err
}

func (a *app) version() versionDocument {
	v := versionDocument{Version: a.deps.Version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
		if v.Version == "" && info.Main.Version != "(devel)" {
			v.Version = info.Main.Version
		}
	}
	if v.Version == "" {
		v.Version = "development"
	}
	return v
}
