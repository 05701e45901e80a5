package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

func (a *app) serveCommand() *cobra.Command {
	strict := false
	c := a.command(&cobra.Command{
		Use:   "serve",
		Short: "runs the daemon",
		Long: `runs the daemon: takes events, delivers them, answers the other commands. It logs to
standard error. SIGHUP reads the configuration again. One SIGTERM or Ctrl-C stops it
gracefully, a second one at once. When the configuration is not valid it starts with
the one that ran last, and says so; exit status 78 when there is none`,
		Example: `peanuts-relay serve --config /etc/peanuts-relay/config.yaml
PEANUTS_RELAY_CONFIG=./config.yaml peanuts-relay serve`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), strict) },
	})
	c.Flags().BoolVar(&strict, "strict", false, "do not start with the last known good configuration: exit with 78 when the file is not valid")
	return c
}

func (a *app) serve(ctx context.Context, strict bool) error {
	began, activated := time.Now(), a.activated()
	err := a.serveUntilEnd(ctx, strict)
	if err != nil && activated {
		outlast(ctx, began)
	}
	return err
}

// activated reports whether the service manager handed sockets over to this process
// (sd_listen_fds(3)). Whoever takes them takes the variables away.
func (a *app) activated() bool {
	pid, ok := a.Env("LISTEN_PID")
	return ok && pid == strconv.Itoa(os.Getpid())
}

// shortestLife is how long a daemon lives at least that ends with an error, when its
// sockets are those of a service manager: an event that waits there starts the next one
// at once, whatever the pause between restarts is. systemd gives a socket up, and who
// sends is refused, after twenty starts in two seconds (TriggerLimitBurst= in
// systemd.socket(5)).
const shortestLife = 2 * time.Second

// outlast waits until that is over.
func outlast(ctx context.Context, began time.Time) {
	select {
	case <-time.After(time.Until(began.Add(shortestLife))):
	case <-ctx.Done():
	}
}

func (a *app) serveUntilEnd(ctx context.Context, strict bool) error {
	if a.deps.Serve == nil {
		return failf("", "this program was built without the daemon")
	}
	// Before anything is read: a hangup must not end a daemon that starts, and
	// what it asks for must not be missed.
	hangup, stopHangup := untilHangup()
	defer stopHangup()
	a.markErr()
	path, err := a.configFile()
	if errors.Is(err, config.ErrNotFound) && !strict && a.ranBefore(config.DefaultPath) {
		path, err = config.DefaultPath, nil // it was removed; that is an error in it like any other
	}
	if err != nil {
		return err
	}
	s, err := a.startWith(path, strict)
	if err != nil {
		return err
	}
	ctx, stop := a.untilSignal(ctx)
	defer stop()
	v, log := a.version(), a.newLog(s.cfg.Log)
	s.warn(log.Logger(), path)
	err = a.deps.Serve(ctx, s.cfg, ServeOptions{Logger: log.Logger(), Version: v.Version, Commit: v.Commit,
		Path: path, Report: s.report,
		Hangup: hangup, SetLog: log.Set, Notify: newNotifier().notify, Watchdog: a.watchdogLimit(),
		Rejected: s.rejected, LastKnownGood: s.entry.Generation})
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// writeFindings prints what was found on standard error, apart from what comes
// after it.
func (a *app) writeFindings(report *config.Report) error {
	if len(report.Findings) == 0 {
		return nil
	}
	err := report.WriteText(a.Err, a.errStyle().on)
	fmt.Fprintln(a.Err)
	return err
}

// invalidConfig ends a command that cannot go on without the configuration;
// its findings were printed before.
func invalidConfig(err error, path string) error {
	return WithExit(ExitConfig, fmt.Errorf("%s is not valid: %s", path, countErrors(err)), "")
}

func countErrors(err error) string {
	n := 1
	if invalid, ok := errors.AsType[*config.InvalidError](err); ok {
		n = invalid.Errors
	}
	return plural(n, "error", "errors")
}

// untilSignal returns a context that the first SIGINT or SIGTERM cancels. The
// second one ends the process at once: also as PID 1 of a container, for which
// the kernel has no default action.
func (a *app) untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	ended := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-signals:
			fmt.Fprintf(a.Err, "%s: %s: stopping; once more stops at once\n", programName, s)
			cancel()
		case <-ended:
			return
		}
		select {
		case s := <-signals:
			fmt.Fprintf(a.Err, "%s: %s: stopped at once; what was in flight is delivered again after the next start\n", programName, s)
			a.abort(signalExit(s))
		case <-ended:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(ended)
		<-done
		cancel()
	}
}

// untilHangup returns a channel that receives after a SIGHUP. Several that come
// before somebody looks are one.
func untilHangup() (<-chan struct{}, func()) {
	hangup := make(chan struct{}, 1)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP)
	ended := make(chan struct{})
	var forward sync.WaitGroup
	forward.Go(func() {
		for {
			select {
			case <-signals:
				select {
				case hangup <- struct{}{}:
				default:
				}
			case <-ended:
				return
			}
		}
	})
	return hangup, func() {
		// The signal stays taken: one that comes while the process ends must not
		// change how it ends.
		close(ended)
		forward.Wait()
	}
}

// signalExit is how a shell reports a process that a signal ended.
func signalExit(s os.Signal) int {
	if n, ok := s.(unix.Signal); ok {
		return 128 + int(n)
	}
	return ExitFailure
}
