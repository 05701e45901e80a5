package cli

import (
	"fmt"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *app) historyCommand() *cobra.Command {
	var asJSON bool
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "history",
		Short: "lists the configurations that ran, and those that were refused",
		Long: `lists the configurations that ran and those that were refused, newest first: when,
what asked for it, by which user, with which result and what it changed`,
		Example: `peanuts-relay config history
peanuts-relay config history --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(func(c *adminclient.Client) error {
				h, err := c.ConfigHistory(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(a.Out, h)
				}
				if len(h.Entries) == 0 {
					fmt.Fprintln(a.Err, "no history")
					return nil
				}
				return a.historyTable(h.Entries).write(a.Out, a.OutTerm.Width, a.outStyle())
			})
		},
	}))
	c.Flags().BoolVar(&asJSON, "json", false, "print the document of the REST API")
	return c
}

func (a *app) historyTable(entries []rest.ConfigEntry) *table {
	t := &table{columns: []column{
		{title: "GENERATION"}, {title: "TIME", short: a.shortClock}, {title: "TRIGGER"}, {title: "BY", drop: 2}, {title: "RESULT", paint: paintResult},
		{title: "DIGEST", drop: 1}, {title: "WHAT", least: 16, below: 30},
	}}
	for _, e := range entries {
		// What was refused has no number that could be gone back to.
		generation := "-"
		if e.Result != rest.ReloadRejected {
			generation = strconv.FormatUint(e.Generation, 10)
		}
		if e.Running {
			generation += " running"
		}
		t.add(generation, clock(e.At.Time), e.Trigger, userName(e.UID), e.Result, shortDigest(e.Digest), changeSummary(&e))
	}
	return t
}

func paintResult(st style, text string) string {
	switch text {
	case rest.ReloadApplied:
		return st.good(text)
	case rest.ReloadRestored:
		return st.warn(text)
	}
	return st.status(text)
}

// userName is the name of a user of this machine, or the number.
func userName(uid *uint32) string {
	if uid == nil {
		return "-"
	}
	number := strconv.FormatUint(uint64(*uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}

// shortDigest is enough of a digest to tell two apart.
func shortDigest(digest string) string {
	_, hex, found := strings.Cut(digest, ":")
	if !found {
		hex = digest
	}
	return dash(hex[:min(len(hex), 12)])
}

// changeSummary is what an entry is about, in one line.
func changeSummary(e *rest.ConfigEntry) string {
	if e.Result == rest.ReloadRejected {
		text := e.Error
		if e.Errors > 1 {
			text += fmt.Sprintf(" (and %d more)", e.Errors-1)
		}
		return text
	}
	var parts []string
	for _, l := range changeLines(e.Changes, nil) {
		parts = append(parts, l.sign+" "+l.object)
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func (a *app) rollbackCommand() *cobra.Command {
	var asJSON bool
	var name string
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "rollback GENERATION",
		Short: "prints a former configuration file, for you to put back",
		Long: `prints a file of a former configuration as it was, references unexpanded, on standard
output, and what else differs from now on standard error. It changes nothing: you put
the file back, best with cp, which leaves owner and mode as they are. When several files
differ, --file says which one is printed. A file may hold literal secrets`,
		Example: `peanuts-relay config rollback 41 >~/former.yaml && cp ~/former.yaml /etc/peanuts-relay/config.yaml
peanuts-relay config rollback 41 --file 50-crm.yaml`,
		Args: wantArgs(1, 1, "a generation, see peanuts-relay config history"),
		RunE: func(cmd *cobra.Command, args []string) error {
			generation, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || generation == 0 {
				return usagef("peanuts-relay config history lists them", "%q is not the number of a generation", args[0])
			}
			return a.withAdmin(func(c *adminclient.Client) error {
				files, err := c.ConfigFiles(cmd.Context(), generation)
				switch {
				case err != nil:
					return err
				case asJSON:
					return writeJSON(a.Out, files)
				}
				return a.rollback(&files, name)
			})
		},
	}))
	c.Flags().StringVar(&name, "file", "", "print this one: its `PATH`, or its name when no other file has it")
	c.Flags().BoolVar(&asJSON, "json", false, "print all files, as the document of the REST API")
	return c
}

// rollback prints one file and says on standard error what belongs to the rest
// of the way back.
func (a *app) rollback(files *rest.ConfigFiles, name string) error {
	chosen, err := chooseFile(files, name)
	if err != nil {
		return err
	}
	for _, f := range files.Files {
		what := "this is " + f.Path + " of generation " + strconv.FormatUint(files.Generation, 10) + ", "
		switch {
		case f.Path != chosen.Path && f.Now == rest.FileSame:
			continue
		case f.Path != chosen.Path:
			what = "also " + f.Path + " "
		}
		fmt.Fprintln(a.Err, what+now(f.Now))
	}
	for _, path := range files.Extra {
		fmt.Fprintf(a.Err, "also remove %s: generation %d did not have it\n", path, files.Generation)
	}
	_, err = fmt.Fprint(a.Out, chosen.Content)
	return err
}

// now says how a former file compares with that of today.
func now(state string) string {
	switch state {
	case rest.FileSame:
		return "as it is now"
	case rest.FileMissing:
		return "is missing now"
	}
	return "differs from now"
}

// chooseFile finds the file that is meant: the named one, else the only one that
// is not as it was, else, when all are, the main file.
func chooseFile(files *rest.ConfigFiles, name string) (*rest.ConfigFile, error) {
	var found []*rest.ConfigFile
	for i := range files.Files {
		f := &files.Files[i]
		switch {
		case name == f.Path:
			return f, nil
		case name == "" && f.Now != rest.FileSame, name != "" && name == filepath.Base(f.Path):
			found = append(found, f)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(files.Files) == 0:
		return nil, failf("", "generation %d has no files", files.Generation)
	case name == "" && len(found) == 0:
		return &files.Files[0], nil
	case len(found) == 0:
		all := make([]string, len(files.Files))
		for i, f := range files.Files {
			all[i] = f.Path
		}
		return nil, usagef("it had: "+strings.Join(all, ", "), "generation %d had no file %q", files.Generation, name)
	}
	lines := make([]string, len(found))
	for i, f := range found {
		lines[i] = fmt.Sprintf("peanuts-relay config rollback %d --file %s", files.Generation, shellWord(f.Path))
	}
	return nil, usagef(strings.Join(lines, "\n  "), "%d files are not as in generation %d; print them one by one:", len(found), files.Generation)
}
