package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/peanutsapp/peanuts-relay/internal/backup"
	"github.com/peanutsapp/peanuts-relay/internal/cli"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// restore makes a queue from a backup, or checks the file when no directory is named.
func restore(ctx context.Context, o cli.RestoreOptions) (cli.Restored, error) {
	r := cli.Restored{Dir: o.Dir}
	open := func() (io.ReadCloser, error) { return os.Open(o.File) }
	if o.Dir == "" {
		in, err := open()
		if err != nil {
			return r, exitRestore(o, err)
		}
		defer in.Close()
		_, r.Footer, err = queue.CheckBackup(ctx, in, o.Progress)
		return r, exitRestore(o, err)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return r, err
	}
	r.Dir = dir
	r.Footer, err = queue.Restore(ctx, queue.RestoreOptions{Dir: dir, Open: open, Size: o.Size, Progress: o.Progress})
	return r, exitRestore(o, err)
}

// exitRestore chooses the status of a restore that ended with err.
func exitRestore(o cli.RestoreOptions, err error) error {
	_, damaged := errors.AsType[*backup.DamageError](err)
	_, newer := errors.AsType[*backup.VersionError](err)
	_, format := errors.AsType[*queue.FormatError](err)
	_, locked := errors.AsType[*queue.LockedError](err)
	_, short := errors.AsType[*queue.SpaceError](err)
	switch {
	case err == nil:
		return nil
	case damaged:
		return cli.WithExit(cli.ExitStoreFormat, fmt.Errorf("%s: %w", o.File, err), "nothing was restored; use another backup")
	case newer:
		return cli.WithExit(cli.ExitStoreFormat, fmt.Errorf("%s: %w", o.File, err), "install the version that wrote it")
	case format:
		return cli.WithExit(cli.ExitStoreFormat, err, "")
	case errors.Is(err, queue.ErrNotEmpty):
		return cli.WithExit(cli.ExitFailure, err, "move the queue away first, or name another directory with --dir")
	case locked:
		return cli.WithExit(cli.ExitFailure, err, "stop the daemon, and move its queue away")
	case short:
		return cli.WithExit(cli.ExitTryAgain, err, "make room, or name another directory with --dir")
	case errors.Is(err, fs.ErrPermission):
		return cli.WithExit(cli.ExitPermission, err, "run it as the user of the daemon, or as root")
	}
	return err
}
