package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/sinks/sinktest"
)

// remotePlaceholder stands in a settings file for where the suite's own server is.
const remotePlaceholder = "${REMOTE}"

type sinksTestFlags struct {
	settings string
	offline  bool
	run      string
	patience time.Duration
	json     bool
}

func (a *app) sinksTestCommand() *cobra.Command {
	f := &sinksTestFlags{}
	c := a.command(&cobra.Command{
		Use:   "test BIN",
		Short: "checks whether a sink plugin, in whatever language, does all that it has to",
		Long: `checks whether a sink plugin, in whatever language, does all that it has to: it starts
the program as the daemon would and plays a service for it that fails in every way. A
settings file is the content of settings at a webhook, with ` + remotePlaceholder + ` where the
address of the service belongs; without one only what needs no settings is checked. Exit
status 1 when a check fails`,
		Example: `peanuts-relay sinks test ./peanuts-sink-acme --settings settings.yaml
peanuts-relay sinks test ./peanuts-sink-acme --settings settings.yaml --run 'answer-.*'`,
		Args: wantArgs(1, 1, "a program, such as ./peanuts-sink-acme"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.sinksTest(cmd, f, args[0]) },
	})
	flags := c.Flags()
	flags.StringVar(&f.settings, "settings", "", "`FILE` with settings that work, YAML or JSON")
	flags.BoolVar(&f.offline, "offline", false, "the sink sends to nowhere over HTTP: make deliveries although the settings have no "+remotePlaceholder)
	flags.StringVar(&f.run, "run", "", "run only the checks whose names match this `REGEXP`")
	flags.DurationVar(&f.patience, "patience", 4*time.Second, "`TIME` that is added to every limit, for a slow machine")
	flags.BoolVar(&f.json, "json", false, "print one JSON object")
	return c
}

func (a *app) sinksTest(cmd *cobra.Command, f *sinksTestFlags, program string) error {
	o, err := f.options(cmd)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	report := newSinkReport(program)
	err = sinktest.CheckBinary(ctx, program, o, func(r sinktest.Result) {
		report.add(r)
		if !f.json {
			a.printCheck(r)
		}
	})
	switch {
	case errors.Is(err, context.Canceled) && cmd.Context().Err() == nil:
		return failf("", "interrupted after %s", plural(len(report.Checks), "check", "checks"))
	case err != nil:
		return fileFault(err, "test sink")
	case len(report.Checks) == 0:
		return usagef("the names are those that a run without it prints", "--run %q matches no check", f.run)
	}
	if f.json {
		err = writeJSON(a.Out, report)
	} else {
		a.printSum(report)
	}
	if err == nil && report.Failed > 0 {
		return exitQuietly(ExitFailure)
	}
	return err
}

func (f *sinksTestFlags) options(cmd *cobra.Command) (o sinktest.Options, err error) {
	if f.patience <= 0 {
		return o, usagef(seeHelp(cmd), "--patience %v: want a time, such as 10s", f.patience)
	}
	o.Patience = f.patience
	if f.run != "" {
		if o.Only, err = regexp.Compile("^(?:" + f.run + ")$"); err != nil {
			return o, usagef(seeHelp(cmd), "--run %q is no regular expression", f.run)
		}
	}
	if f.settings == "" {
		if f.offline {
			o.Settings, o.Offline = func(string) any { return map[string]any{} }, "--offline was given"
		}
		return o, nil
	}
	text, err := readBounded(f.settings, 1<<20)
	if err != nil {
		return o, fileFault(err, "read settings")
	}
	if !strings.Contains(string(text), remotePlaceholder) {
		if !f.offline {
			return o, usagef("put "+remotePlaceholder+" where the address of the service belongs; --offline if the sink has none",
				"%s has no %s: more than a thousand deliveries would go where the settings lead", f.settings, remotePlaceholder)
		}
		o.Offline = "the settings name no address: --offline was given"
	}
	read := func(remote string) (map[string]any, error) {
		return config.SettingsFile([]byte(strings.ReplaceAll(string(text), remotePlaceholder, remote)))
	}
	if _, err := read("http://127.0.0.1:1"); err != nil {
		return o, failf("it is the content of settings at a webhook", "settings file %s: %w", f.settings, err)
	}
	o.Settings = func(remote string) any {
		settings, _ := read(remote) // it was read once already
		return settings
	}
	return o, nil
}

// sinkReport is what `sinks test --json` prints.
type sinkReport struct {
	Program string          `json:"program"`
	Checks  []reportedCheck `json:"checks"`
	Passed  int             `json:"passed"`
	Failed  int             `json:"failed"`
	Skipped int             `json:"skipped"`
}

type reportedCheck struct {
	Name    string   `json:"name"`
	Why     string   `json:"why"`
	Status  string   `json:"status"` // pass, fail or skip
	Details []string `json:"details"`
	TookMS  int64    `json:"took_ms"`
}

func newSinkReport(program string) *sinkReport {
	return &sinkReport{Program: program, Checks: []reportedCheck{}}
}

func (r *sinkReport) add(result sinktest.Result) {
	r.Checks = append(r.Checks, reportedCheck{result.Check, result.Why, result.Status.String(), append([]string{}, result.Details...), result.Took.Milliseconds()})
	switch result.Status {
	case sinktest.Passed:
		r.Passed++
	case sinktest.Failed:
		r.Failed++
	case sinktest.Skipped:
		r.Skipped++
	}
}

func (a *app) printCheck(r sinktest.Result) {
	st := a.outStyle()
	switch r.Status {
	case sinktest.Passed:
		fmt.Fprintf(a.Out, "%s  %s\n", st.good("pass"), r.Check)
	case sinktest.Skipped:
		fmt.Fprintf(a.Out, "%s  %s: %s\n", st.faint("skip"), r.Check, oneLine(strings.Join(r.Details, "; ")))
	default:
		fmt.Fprintf(a.Out, "%s  %s: %s\n", st.bad("fail"), r.Check, r.Why)
		for _, d := range r.Details {
			fmt.Fprintf(a.Out, "        %s\n", strings.ReplaceAll(safeText(d), "\n", "\n        "))
		}
	}
}

func (a *app) printSum(r *sinkReport) {
	st := a.outStyle()
	word := st.good("passes:")
	if r.Failed > 0 {
		word = st.bad("fails:")
	}
	fmt.Fprintf(a.Out, "\n%s %s: %s passed, %d failed, %d skipped\n", word, r.Program, plural(r.Passed, "check", "checks"), r.Failed, r.Skipped)
}
