package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/backup"
)

func (a *app) backupCommand() *cobra.Command {
	force := false
	c := a.adminFlag(a.command(&cobra.Command{
		Use:   "backup [FILE|-]",
		Short: "copies the queue of the running daemon into one file",
		Long: `copies the queue as it is at one moment into one file, while the daemon goes on: all
that was accepted before, and what became of it. Without FILE it is
peanuts-relay-TIME.backup in the current directory, - is standard output. A file is
there when it is whole, and not before. It holds the payloads of events and what
receivers answered, so keep it as safe as the queue itself; it holds neither the
configuration nor its secrets`,
		Example: `peanuts-relay backup /var/backups/peanuts-relay.backup --force
peanuts-relay backup - | age -r age1example >relay.backup.age`,
		Args: wantArgs(0, 1, "one file at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "peanuts-relay-" + a.Now().UTC().Format("20060102T150405Z") + ".backup"
			if len(args) > 0 {
				name = args[0]
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			return a.backup(ctx, name, force)
		},
	}))
	c.Flags().BoolVar(&force, "force", false, "replace FILE when it exists")
	return c
}

func (a *app) backup(ctx context.Context, name string, force bool) error {
	if name == "-" {
		if a.OutTerm.Width > 0 {
			return usagef("redirect it, or name a file", "a backup is not for a terminal")
		}
		return a.withAdmin(func(c *adminclient.Client) error {
			f, err := a.receiveBackup(ctx, c, a.Out)
			if err == nil {
				a.sayBackup("standard output", &f)
			}
			return err
		})
	}
	if _, err := os.Lstat(name); err == nil && !force {
		return failf("--force replaces it", "%s exists", name)
	}
	tmp, err := os.OpenFile(filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+fmt.Sprintf(".%d.tmp", os.Getpid())), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failf("", "write backup: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	defer tmp.Close()
	return a.withAdmin(func(c *adminclient.Client) error {
		f, err := a.receiveBackup(ctx, c, tmp)
		if err != nil {
			return err
		}
		if err := finish(tmp, name, force); err != nil {
			return failf("", "write backup: %w", err)
		}
		a.sayBackup(name, &f)
		return nil
	})
}

// receiveBackup copies the daemon's stream and reads it meanwhile, so that what ends
// without its footer is not taken for a backup.
func (a *app) receiveBackup(ctx context.Context, c *adminclient.Client, w io.Writer) (f backup.Footer, err error) {
	body, err := c.Backup(ctx)
	if err != nil {
		return f, err
	}
	defer body.Close()
	defer a.clearLine()
	into := &sink{w: w}
	in, err := backup.NewReader(io.TeeReader(body, into))
	var drawn time.Time
	for err == nil {
		if now := a.Now(); now.Sub(drawn) >= progressEvery {
			drawn = now
			a.drawLine(byteSize(in.Offset()) + " copied")
		}
		if _, err = in.Next(); errors.Is(err, io.EOF) {
			return in.Footer(), nil
		}
	}
	switch {
	case into.err != nil:
		return f, failf("", "write backup: %w", into.err)
	case ctx.Err() != nil:
		return f, context.Canceled
	}
	return f, WithExit(ExitUnavailable, fmt.Errorf("the backup is not whole, and was not kept: %w", err), "the daemon's log says why it gave up; peanuts-relay status says whether it runs")
}

// sink remembers that writing failed, which a TeeReader says as an error of reading.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}

// finish makes a whole file visible under its name, durably. A crash leaves the file
// that was there before, or none, or this one.
func finish(tmp *os.File, name string, force bool) error {
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	var err error
	if force {
		err = os.Rename(tmp.Name(), name)
	} else {
		err = os.Link(tmp.Name(), name) // fails when the name was taken meanwhile
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (a *app) sayBackup(name string, f *backup.Footer) {
	fmt.Fprintf(a.Err, "%s: %s, %s (%s pending), %s, sha256 %s\n", name, plural(f.Events, "event", "events"), plural(f.Deliveries, "delivery", "deliveries"),
		grouped(f.Pending), byteSize(f.Bytes), f.SHA256[:12])
	if f.Damaged > 0 {
		fmt.Fprintf(a.Err, "%s %s of the queue were damaged already and are in the backup as they are; peanuts-relay audit names what is concerned\n",
			a.errStyle().warn("warning:"), plural(f.Damaged, "row", "rows"))
	}
}

// Restored is what a restore made.
type Restored struct {
	Dir string
	backup.Footer
}

// RestoreOptions is what the command line says about a restore.
type RestoreOptions struct {
	File     string // of the backup
	Size     int64  // bytes
	Dir      string // that gets the queue; "" = only check the file
	Progress func(done int64)
}

func (a *app) restoreCommand() *cobra.Command {
	var dir string
	check := false
	c := a.command(&cobra.Command{
		Use:   "restore FILE",
		Short: "makes a queue from a backup, for a daemon that does not run",
		Long: `makes a queue from a backup, in queue.dir of the configuration or the directory that
--dir names. It never touches a queue that is there: move that one away first. The file
is checked before anything is written, and the queue appears when it is whole; after a
crash, run it again.

The daemon that is started on it sends what was pending when the backup was made, under
the same delivery ids: receivers get again what was delivered since then, and tell it by
the id. Events that were accepted after the backup are not there. Do not let it run
beside the queue that the backup is of`,
		Example: `peanuts-relay restore /var/backups/peanuts-relay.backup
peanuts-relay restore relay.backup --check`,
		Args: wantArgs(1, 1, "the file of a backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			return a.restore(ctx, args[0], dir, check)
		},
	})
	c.Flags().StringVar(&dir, "dir", "", "make the queue in this `DIRECTORY`; default queue.dir of the configuration")
	c.Flags().BoolVar(&check, "check", false, "only check that FILE is a whole backup")
	c.MarkFlagsMutuallyExclusive("dir", "check")
	return c
}

func (a *app) restore(ctx context.Context, file, dir string, check bool) error {
	if a.deps.Restore == nil {
		return failf("", "this program was built without the queue")
	}
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is read twice, so it must be a file")
	}
	if errors.Is(err, fs.ErrPermission) {
		return WithExit(ExitPermission, err, "")
	}
	if err != nil {
		return failf("", "read backup %s: %w", file, err)
	}
	o := RestoreOptions{File: file, Size: info.Size(), Dir: dir}
	total := 2 * o.Size
	if check {
		total = o.Size
	} else if dir == "" {
		if o.Dir, err = a.queueDir(); err != nil {
			return err
		}
	}
	drawn := time.Time{}
	o.Progress = func(done int64) {
		if now := a.Now(); now.Sub(drawn) >= progressEvery {
			drawn = now
			a.drawLine(fmt.Sprintf("%s of %s", byteSize(done), byteSize(total)))
		}
	}
	r, err := a.deps.Restore(ctx, o)
	a.clearLine()
	if err != nil {
		return err
	}
	if check {
		_, err = fmt.Fprintf(a.Out, "%s is whole: %s, %s (%s pending), %s\n", file, plural(r.Events, "event", "events"),
			plural(r.Deliveries, "delivery", "deliveries"), grouped(r.Pending), byteSize(r.Bytes))
		return err
	}
	_, err = fmt.Fprintf(a.Out, "%s: restored %s and %s\n", r.Dir, plural(r.Events, "event", "events"), plural(r.Deliveries, "delivery", "deliveries"))
	if r.Pending > 0 {
		fmt.Fprintf(a.Err, "a daemon that is started on it sends %s under the same ids; receivers may have some of them already\n", plural(r.Pending, "pending delivery", "pending deliveries"))
	}
	return err
}
