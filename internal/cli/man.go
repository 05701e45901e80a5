package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (a *app) manCommand() *cobra.Command {
	return a.command(&cobra.Command{
		Use:   "man [DIR]",
		Short: "writes the manual pages: into DIR, else all of them to standard output",
		Example: `peanuts-relay man | man -l -
peanuts-relay man /usr/local/share/man/man1`,
		Args: wantArgs(0, 1, "at most the name of a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.eachPage(cmd.Root(), func(_ string, page []byte) error {
					_, err := a.Out.Write(page)
					return err
				})
			}
			return a.eachPage(cmd.Root(), func(name string, page []byte) error {
				if err := os.WriteFile(filepath.Join(args[0], name), page, 0o644); err != nil { // #nosec G306 -- manual pages are for everybody
					return fileFault(err, "write manual page")
				}
				return nil
			})
		},
	})
}

// eachPage makes the page of cmd and those of its commands.
func (a *app) eachPage(cmd *cobra.Command, write func(name string, page []byte) error) error {
	cmd.InitDefaultHelpFlag()
	cmd.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "1", Source: programName + " " + a.version().Version, Manual: "Peanuts Relay", Date: a.pageDate()}
	var page bytes.Buffer
	if err := doc.GenMan(cmd, header, &page); err != nil {
		return fmt.Errorf("make manual page of %q: %w", cmd.CommandPath(), err)
	}
	if err := write(strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1", page.Bytes()); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		if err := a.eachPage(sub, write); err != nil {
			return err
		}
	}
	return nil
}

// pageDate is SOURCE_DATE_EPOCH where a package build sets it, so that its
// pages are the same every time
// (https://reproducible-builds.org/specs/source-date-epoch/).
func (a *app) pageDate() *time.Time {
	if seconds, err := strconv.ParseInt(a.env("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		return new(time.Unix(seconds, 0).UTC())
	}
	return new(a.Now())
}
