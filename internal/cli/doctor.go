package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/doctor"
	"github.com/peanutsapp/peanuts-relay/internal/event"
)

type doctorFlags struct {
	noPing, json bool
}

// diagnosis is what doctor --json prints.
type diagnosis struct {
	Worst   string          `json:"worst"` // ok, warning, failed
	Results []doctor.Result `json:"results"`
}

func (a *app) doctorCommand() *cobra.Command {
	f := &doctorFlags{}
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "doctor [WEBHOOK]",
		Short: "looks for what keeps deliveries from arriving, and says what to do",
		Long: `looks for what keeps deliveries from arriving, and says what to do: the files, the
daemon, the machine, and for each webhook, or the one given, DNS, TCP, TLS, a signed
test, redirects, clocks, and what the receiver answered before. It works without a
running daemon too, as far as it gets. Exit status 0 when nothing failed; 1 when
something did; 69 or 77 when nothing did but the daemon could not be asked; 78 when
the files are not valid`,
		Example: `peanuts-relay doctor
peanuts-relay doctor expenses.backend --json`,
		Args:              wantArgs(0, 1, "at most one webhook, such as expenses.backend"),
		ValidArgsFunction: a.completeWebhooks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.doctor(cmd.Context(), f, strings.Join(args, ""))
		},
	}))
	c.Flags().BoolVar(&f.noPing, "no-ping", false, "send no test to any receiver")
	c.Flags().BoolVar(&f.json, "json", false, "print a JSON document")
	return c
}

func (a *app) doctor(ctx context.Context, f *doctorFlags, only string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	o := doctor.Options{Only: only, Ping: !f.noPing, Now: a.Now}
	if path, err := config.Find(a.configPath, a.Env); err == nil {
		from := config.Options{Path: path, LookupEnv: a.Env}
		if o.Config, o.Report = config.Load(from); o.Config == nil {
			// A plugin that cannot be used keeps nobody from looking at the others.
			from.WithoutPlugins = true
			o.Config, _ = config.Load(from)
		}
	}
	if err := knownWebhook(o.Config, only); err != nil {
		return err
	}
	offline := a.askDaemon(ctx, &o)
	if o.Client != nil {
		defer o.Client.Close()
	}
	d := diagnosis{Results: []doctor.Result{}}
	subject := ""
	o.Found = func(r doctor.Result) {
		d.Results = append(d.Results, r)
		if !f.json {
			a.printResult(&r, r.Subject != subject)
			subject = r.Subject
		}
	}
	d.Worst = doctor.Run(ctx, o)
	if ctx.Err() != nil {
		return failf("", "interrupted")
	}
	if f.json {
		if err := writeJSON(a.Out, d); err != nil {
			return err
		}
	} else {
		a.printVerdict(&d)
	}
	switch {
	case o.Config == nil, o.Report.Err() != nil:
		return exitQuietly(ExitConfig)
	case d.Worst == doctor.Failed:
		return exitQuietly(ExitFailure)
	case offline != nil:
		return exitQuietly(exitCode(offline))
	}
	return nil
}

func knownWebhook(cfg *config.Config, only string) error {
	if cfg == nil || only == "" {
		return nil
	}
	var names []string
	for _, w := range slices.Concat(cfg.Webhooks(), cfg.Notices()) {
		names = append(names, w.ID)
	}
	if slices.Contains(names, only) {
		return nil
	}
	return failf(didYouMean(event.Suggest(only, names))+"peanuts-relay webhooks lists them", "there is no webhook %q", only)
}

// askDaemon fills in what the running daemon says; the error is why it could not be
// asked.
func (a *app) askDaemon(ctx context.Context, o *doctor.Options) error {
	socket, err := a.adminSocket()
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		o.Client = adminclient.New(socket)
		status, asked := o.Client.Status(ctx)
		if err = adminFault(socket, asked); err == nil {
			o.Status = &status
			return nil
		}
	}
	o.Offline = oneLine(rootMessage(err))
	return err
}

func rootMessage(err error) string {
	return strings.TrimPrefix(err.Error(), "find the daemon's socket: ")
}

func (a *app) printResult(r *doctor.Result, first bool) {
	st := a.outStyle()
	if first {
		a.section(r.Subject)
	}
	paint := map[string]func(string) string{doctor.OK: st.good, doctor.Skipped: st.faint, doctor.Warning: st.warn, doctor.Failed: st.bad}[r.Status]
	fmt.Fprintf(a.Out, "  %s%s  %s: %s\n", paint(r.Status), strings.Repeat(" ", len(doctor.Warning)-len(r.Status)), oneLine(r.Check), oneLine(r.Message))
	if r.Status == doctor.OK || r.Status == doctor.Skipped {
		return
	}
	const indent = "           "
	if r.File != "" {
		place := filepath.Clean(r.File)
		if r.Line > 0 {
			place += fmt.Sprintf(":%d:%d", r.Line, max(r.Column, 1))
		}
		fmt.Fprintf(a.Out, "%s%s %s\n", indent, st.faint("-->"), oneLine(place))
	}
	if r.Fix != "" {
		fmt.Fprintf(a.Out, "%s%s %s\n", indent, st.faint("fix:"), oneLine(r.Fix))
	}
}

func (a *app) printVerdict(d *diagnosis) {
	failed, warnings := 0, 0
	for _, r := range d.Results {
		switch r.Status {
		case doctor.Failed:
			failed++
		case doctor.Warning:
			warnings++
		}
	}
	fmt.Fprintf(a.Out, "\n%s failed, %s\n", plural(failed, "check", "checks"), plural(warnings, "warning", "warnings"))
}
