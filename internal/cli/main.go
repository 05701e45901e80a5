package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

// programName is what the binary is called in help, errors and examples.
const programName = "peanuts-relay"

// Deps is what the command line cannot do itself.
type Deps struct {
	// Serve runs the daemon until ctx is cancelled; nil is returned after a
	// graceful stop. An error made with [WithExit] decides the exit status, any
	// other is [ExitFailure].
	Serve func(ctx context.Context, cfg *config.Config, opts ServeOptions) error
	// Restore makes a queue from a backup, or only checks the file. An error made with
	// [WithExit] decides the exit status, any other is [ExitFailure].
	Restore func(ctx context.Context, o RestoreOptions) (Restored, error)
	// Fsck checks a queue, and repairs it when it is told to. The report is a document
	// for JSON with the fields of fsckDocument; errors are as those of Serve.
	Fsck func(ctx context.Context, o FsckOptions) (report any, err error)
	// Version is the released version, "" for a development build.
	Version string
}

// ServeOptions is what the command line adds to the configuration.
type ServeOptions struct {
	Logger  *slog.Logger
	Version string
	Commit  string         // "" when the build did not record it
	Path    string         // of the configuration's main file
	Report  *config.Report // of the configuration

	// Hangup receives when the files are to be read again (SIGHUP). Several that
	// come before somebody looks are one; one may be there from the beginning.
	Hangup <-chan struct{}
	// SetLog changes level and format of Logger and of all derived from it. It may
	// be called concurrently.
	SetLog func(config.Log)
	// Notify tells the service manager a state, such as READY=1; RELOADING=1 gets
	// its MONOTONIC_USEC. Without a service manager it does nothing.
	Notify func(state string) error
	// Watchdog is how long the service manager waits for word (WATCHDOG_USEC); 0 = it
	// does not watch.
	Watchdog time.Duration
	// Rejected is the report of the files on the disk when the configuration is the
	// last known good one instead; nil = they are fine. LastKnownGood is its
	// generation, 0 likewise.
	Rejected      *config.Report
	LastKnownGood uint64
}

// Streams is the world that a command sees. The zero value of every function
// and number is usable.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Env      func(name string) (string, bool) // nil = os.LookupEnv
	InTerm   Terminal                         // what In is
	OutTerm  Terminal                         // what Out is
	ErrTerm  Terminal                         // what Err is
	Now      func() time.Time                 // nil = time.Now
}

// Terminal describes a stream. The zero value is a file or a pipe.
type Terminal struct {
	Width  int  // in columns; 0 = not a terminal: nothing is cut
	Colour bool // whether escape sequences are welcome
}

// app is what the commands of one invocation share.
type app struct {
	Streams

	deps Deps
	// abort ends the process at once; replaced in tests.
	abort func(code int)

	configPath string // --config
	admin      string // --admin
}

// Main runs one command line, without the program's name, and returns the exit
// status. It may run several times in one process, also at the same time.
func Main(ctx context.Context, args []string, streams Streams, deps Deps) int {
	a := &app{Streams: streams, deps: deps, abort: os.Exit}
	if a.Env == nil {
		a.Env = os.LookupEnv
	}
	if a.Now == nil {
		a.Now = time.Now
	}
	out := &output{w: a.Out}
	if a.Out != nil {
		a.Out = out
	}
	root := a.root()
	// A nil slice would make cobra read os.Args.
	root.SetArgs(append([]string{}, args...))
	err := root.ExecuteContext(ctx)
	if failed := out.failure(); failed != nil {
		// Whatever else went wrong followed from it.
		err = failf("", "write standard output: %w", rootCause(failed))
	}
	return a.report(err)
}

// output is standard output, which remembers that it failed: most commands
// print as they go and look at no error.
type output struct {
	w io.Writer

	mu  sync.Mutex
	err error // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
	}
	return n, err
}

func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// report prints err for people and returns its exit status.
func (a *app) report(err error) int {
	if err == nil {
		return ExitOK
	}
	f, ok := errors.AsType[*fault](err)
	if !ok {
		f = &fault{code: ExitFailure, err: err}
	}
	if f.err == nil {
		return f.code
	}
	fmt.Fprintf(a.Err, "%s %s\n", a.errStyle().bad("error:"), err)
	if f.hint != "" {
		fmt.Fprintf(a.Err, "  %s\n", f.hint)
	}
	return f.code
}

func (a *app) env(name string) string {
	value, _ := a.Env(name)
	return value
}

// command finishes the definition of a command: all of them parse, complain
// and print help alike.
func (a *app) command(c *cobra.Command) *cobra.Command {
	c.SilenceErrors = true
	c.SilenceUsage = true
	c.DisableFlagsInUseLine = true
	c.Flags().SortFlags = false
	return c
}
