package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/configtest"
	"github.com/peanutsapp/peanuts-relay/internal/plugincheck"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost"
)

func (a *app) checkCommand() *cobra.Command {
	var format, environ string
	var online bool
	c := a.command(&cobra.Command{
		Use:   "check [FILE]",
		Short: "validates the configuration: everything that a start would need",
		Long: `validates the configuration: everything that a start would need, references to
secrets included. It starts the sink plugins that the file names, has them look at their
settings and ends them, and runs the file's own tests. It changes nothing. With --online
the plugins also ask the remote side, which may take a while, whether the settings work.
With --environ the references to the environment are those of another process, such as
the daemon that runs. Exit status 78 when there is an error or a test does not hold;
warnings do not count`,
		Example: `peanuts-relay check --online
peanuts-relay check ./config.yaml --format json`,
		Args: wantArgs(0, 1, "at most one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf(cmd, "format", format, []string{"text", "json"}); err != nil {
				return err
			}
			if environ != "" {
				if err := a.takeEnvironment(environ); err != nil {
					return err
				}
			}
			return a.check(cmd.Context(), args, format == "json", online)
		},
	})
	c.Flags().StringVar(&format, "format", "text", "`FORMAT` of the report: text or json")
	c.Flags().BoolVar(&online, "online", false, "let plugins ask the remote side")
	c.Flags().StringVar(&environ, "environ", "", "take the environment from `FILE`, as in /proc/PID/environ; - is standard input")
	return c
}

// maxEnvironment is more than the kernel lets a process have by default.
const maxEnvironment = 8 << 20

// takeEnvironment has this command see the environment in a file, whose lines end in a
// zero byte, instead of its own. As in a process, the first of two with one name counts.
func (a *app) takeEnvironment(path string) error {
	in := a.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fileFault(err, "read the environment")
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxEnvironment))
	if err != nil {
		return fmt.Errorf("read the environment: %w", err)
	}
	env := map[string]string{}
	for line := range strings.SplitSeq(string(text), "\x00") {
		if name, value, ok := strings.Cut(line, "="); ok {
			if _, twice := env[name]; !twice {
				env[name] = value
			}
		}
	}
	a.Env = func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
	return nil
}

func (a *app) check(ctx context.Context, args []string, asJSON, online bool) error {
	if len(args) > 0 {
		a.configPath = args[0]
	}
	path, err := a.configFile()
	if err != nil {
		return err
	}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: a.Env})
	tests := 0
	if cfg != nil {
		tests = len(cfg.Tests)
		configtest.Run(cfg, report, config.SeverityError)
		if err := a.checkPlugins(ctx, cfg, report, online); err != nil {
			return err
		}
	}
	invalid := report.Err()
	if asJSON {
		if err := report.WriteJSON(a.Out); err != nil {
			return err
		}
		if invalid != nil {
			return exitQuietly(ExitConfig)
		}
		return nil
	}
	// The findings are what was asked for: they go to standard output.
	if err := report.WriteText(a.Out, a.outStyle().on); err != nil {
		return err
	}
	if len(report.Findings) > 0 {
		fmt.Fprintln(a.Out)
	}
	st := a.outStyle()
	if invalid != nil {
		fmt.Fprintf(a.Out, "%s %s: %s\n", st.bad("invalid:"), path, countErrors(invalid))
		return exitQuietly(ExitConfig)
	}
	more := ""
	if n := len(report.Files); n > 1 {
		more += " and " + plural(n-1, "drop-in", "drop-ins")
	}
	if n := len(report.Findings); n > 0 {
		more += ", " + plural(n, "warning", "warnings")
	}
	switch tests {
	case 0:
	case 1:
		more += ", 1 test holds"
	default:
		more += fmt.Sprintf(", %d tests hold", tests)
	}
	fmt.Fprintf(a.Out, "%s %s%s\n", st.good("valid:"), path, more)
	return nil
}

// pluginTime is how long all plugins together may take, as in a reload.
const pluginTime = 30 * time.Second

// checkPlugins has the plugins look at their settings, in a host that lives as long as
// that takes.
func (a *app) checkPlugins(ctx context.Context, cfg *config.Config, report *config.Report, online bool) (err error) {
	if !slices.ContainsFunc(cfg.Webhooks(), func(w config.Webhook) bool { return w.Sink != config.SinkHTTP }) {
		return nil
	}
	dir, err := os.MkdirTemp("", "peanuts-relay-")
	if err != nil {
		return fmt.Errorf("make a directory for the plugins' sockets: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	host := pluginhost.New(pluginhost.Options{SocketDir: filepath.Join(dir, "sinks"), Version: a.version().Version})
	ctx, cancel := context.WithTimeout(ctx, pluginTime)
	defer cancel()
	plugincheck.Run(ctx, host, cfg, report, online)
	return host.Stop(ctx)
}
