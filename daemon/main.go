// Command peanuts-relay is the daemon and its command line.
//
// Guarantee: nothing happens here but the joining of the two: what a command
// does is decided in package cli, how events are kept and delivered in package
// relay. Only the exit status of a daemon that could not go on is chosen here.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/peanutsapp/peanuts-relay/internal/cli"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/relay"
)

// version is set by the linker in released builds (scripts/build).
var version string

func main() {
	os.Exit(run())
}

func run() int {
	if err := keepMemory(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return cli.ExitFailure
	}
	return cli.Main(context.Background(), os.Args[1:], cli.Standard(), cli.Deps{Version: version, Serve: serve, Restore: restore, Fsck: fsck})
}

func serve(ctx context.Context, cfg *config.Config, o cli.ServeOptions) error {
	return exit(relay.Run(ctx, cfg, relay.Options{Logger: o.Logger, Version: o.Version, Commit: o.Commit,
		Path: o.Path, Report: o.Report, Hangup: o.Hangup, SetLog: o.SetLog, Notify: o.Notify, Watchdog: o.Watchdog,
		Rejected: o.Rejected, LastKnownGood: o.LastKnownGood}))
}

func fsck(ctx context.Context, o cli.FsckOptions) (any, error) {
	report, err := queue.Fsck(ctx, queue.FsckOptions{Dir: o.Dir, Repair: o.Repair, Progress: o.Progress})
	if _, locked := errors.AsType[*queue.LockedError](err); locked {
		return nil, cli.WithExit(cli.ExitTryAgain, err, "stop the daemon first; peanuts-relay status asks the one that runs")
	}
	if _, full := errors.AsType[*queue.SpaceError](err); full {
		return nil, cli.WithExit(cli.ExitTryAgain, err, "a repair needs as much room as the queue takes; what is there was left as it is")
	}
	return report, exit(err)
}

// exit chooses the status of a daemon that ended with err.
func exit(err error) error {
	format, _ := errors.AsType[*queue.FormatError](err)
	switch {
	case err == nil:
		return nil
	case format != nil:
		return cli.WithExit(cli.ExitStoreFormat, err, "")
	case errors.Is(err, fs.ErrPermission):
		return cli.WithExit(cli.ExitPermission, err, fmt.Sprintf("the daemon runs as user %d; give that user access, or start it as the one who has it", os.Geteuid()))
	case errors.Is(err, relay.ErrStorage):
		return cli.WithExit(cli.ExitStorage, err, "nothing that was acknowledged is lost; the supervisor starts the daemon again")
	}
	return err
}
