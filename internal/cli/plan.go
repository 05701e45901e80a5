package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// mainFileName is the main file of a directory that is a candidate.
const mainFileName = "config.yaml"

func (a *app) planCommand() *cobra.Command {
	var asJSON bool
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "plan [FILE|DIR]",
		Short: "shows what a configuration would change, and changes nothing",
		Long: `shows what a configuration would change in the running daemon, and what that means for
deliveries that wait. Nothing is applied. FILE stands for the daemon's main file, or,
from a directory conf.d, for the drop-in of its name; the daemon's other files stay. DIR,
with config.yaml and conf.d, stands for all of them. Without either it is what the
daemon's own files say now. Exit status 0 no change, 3 changes, 78 invalid`,
		Example: `peanuts-relay plan ./config.yaml
peanuts-relay plan ./conf.d/50-crm.yaml`,
		Args: wantArgs(0, 1, "at most one file or directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			candidate, what, err := readCandidate(args)
			if err != nil {
				return err
			}
			return a.withAdmin(func(c *adminclient.Client) error {
				result, err := c.Plan(cmd.Context(), candidate)
				if err != nil {
					return err
				}
				if asJSON {
					err = writeJSON(a.Out, result)
				} else {
					a.printPlan(&result, what)
				}
				return cmp.Or(err, planExit(&result))
			})
		},
	}))
	c.Flags().BoolVar(&asJSON, "json", false, "print the document of the REST API")
	return c
}

func planExit(r *rest.PlanResult) error {
	switch {
	case !r.Valid:
		return exitQuietly(ExitConfig)
	case len(r.Changes)+len(r.RestartRequired) > 0:
		return exitQuietly(ExitChanges)
	}
	return nil
}

// readCandidate reads what the argument names; what is how to call it.
func readCandidate(args []string) (in rest.PlanRequest, what string, err error) {
	if len(args) == 0 {
		return in, "the daemon's files", nil
	}
	what = args[0]
	info, err := os.Stat(what)
	if err != nil {
		return in, what, fileFault(err, "plan")
	}
	if !info.IsDir() {
		return readCandidateFile(what)
	}
	in.Replace = true
	if err := addFile(&in, rest.RoleMain, filepath.Join(what, mainFileName)); err != nil {
		return in, what, err
	}
	entries, err := os.ReadDir(filepath.Join(what, config.DropInDir))
	if err != nil && !os.IsNotExist(err) {
		return in, what, fileFault(err, "plan")
	}
	for _, e := range entries {
		if config.IsDropIn(e.Name()) {
			if err := addFile(&in, e.Name(), filepath.Join(what, config.DropInDir, e.Name())); err != nil {
				return in, what, err
			}
		}
	}
	return in, what, nil
}

func readCandidateFile(path string) (in rest.PlanRequest, what string, err error) {
	// The name of the directory decides, also for a path that does not show it.
	whole, err := filepath.Abs(path)
	if err != nil {
		return in, path, fileFault(err, "plan")
	}
	role := rest.RoleMain
	if filepath.Base(filepath.Dir(whole)) == config.DropInDir {
		if role = filepath.Base(whole); !config.IsDropIn(role) {
			return in, path, usagef("the name of a drop-in ends in .yaml and begins with neither . nor #", "the daemon would not read %s", path)
		}
	}
	return in, path, addFile(&in, role, path)
}

func addFile(in *rest.PlanRequest, role, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fileFault(err, "plan")
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, config.MaxFileBytes+1))
	switch {
	case err != nil:
		return fileFault(err, "plan")
	case len(content) > config.MaxFileBytes:
		return WithExit(ExitConfig, fmt.Errorf("%s is larger than %s", path, byteSize(config.MaxFileBytes)), "")
	case !utf8.Valid(content):
		// JSON would carry it with its bytes replaced.
		return WithExit(ExitConfig, fmt.Errorf("%s is not UTF-8", path), "peanuts-relay check "+shellWord(path)+" says where")
	}
	in.Files = append(in.Files, rest.PlanFile{Role: role, Name: path, Content: string(content)})
	return nil
}

// printPlan writes the findings as check does, then the changes, what they mean
// and a summary.
func (a *app) printPlan(r *rest.PlanResult, what string) {
	st := a.outStyle()
	if report := findingsText(st, r.Report); report != "" {
		fmt.Fprintln(a.Out, report)
	}
	if !r.Valid {
		fmt.Fprintf(a.Out, "%s %s: %s\n", st.bad("invalid:"), what, plural(errorsIn(r.Findings), "error", "errors"))
		return
	}
	lines := changeLines(r.Changes, r.RestartRequired)
	if len(lines) == 0 {
		fmt.Fprintf(a.Out, "%s %s: this is what runs\n", st.good("no change:"), what)
		return
	}
	a.printChanges(lines)
	for _, w := range r.Webhooks {
		a.printEffect(&w)
	}
	fmt.Fprintf(a.Out, "\n%s %s; nothing was applied\n", st.bold("plan:"), tally(lines, "to add", "to change", "to remove", "at the next start"))
}

// printEffect says what a plan means for one webhook.
func (a *app) printEffect(w *rest.PlanWebhook) {
	pending := "no delivery waits"
	if w.Pending > 0 {
		pending = plural(w.Pending, "delivery waits", "deliveries wait")
	}
	fmt.Fprintf(a.Out, "\n%s: %s\n", a.outStyle().bold(oneLine(w.Webhook)), pending)
	for _, row := range [][2]string{{"  these       ", w.Queued}, {"  new events  ", w.NewEvents}} {
		if row[1] == "" || row[0] == "  these       " && w.Pending == 0 {
			continue
		}
		margin := strings.Repeat(" ", len(row[0]))
		fmt.Fprintln(a.Out, row[0]+strings.Join(wrap(oneLine(row[1]), a.OutTerm.Width-len(margin)), "\n"+margin))
	}
}
