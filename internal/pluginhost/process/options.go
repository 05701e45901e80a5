package process

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Options say what to start. Sink, SocketDir, and Path or File are required.
type Options struct {
	Sink   string // tags what the plugin logs
	Path   string // of the executable, absolute; not needed with File
	SHA256 string // what the executable must be, hex; "" = anything. Not looked at with File
	// File is the executable when it was opened already; nil = Path is opened. It stays
	// the caller's to close, at any time after Start has returned.
	File *File
	// SocketDir is where each process gets a directory for its sockets. It must exist,
	// belong to this user with mode 0700, and be at most 69 bytes long.
	SocketDir string
	Logger    *slog.Logger // for what the plugin logs; nil = discard
	// Mask hides the secrets in whatever the plugin writes: it gets a line, a value or a
	// stack of several lines, and must be safe for concurrent use. nil = nothing is hidden.
	Mask   func(string) string
	Limits Limits
}

// Limits bound what a plugin can do. A zero field has the default.
type Limits struct {
	Start    time.Duration // until the plugin is connected; 10 s
	Drain    time.Duration // how long Stop waits for the Drain call; 5 s
	Shutdown time.Duration // then for the end after the Shutdown call; 2 s
	Term     time.Duration // then for the end after SIGTERM; 3 s
	Dump     time.Duration // how long Abort waits for the stacks after SIGQUIT; 2 s
	Output   time.Duration // how long output is read after the end, if somebody still holds it; 2 s

	Receive int // bytes of the largest answer; 4 MiB
	Send    int // bytes of the largest request; 32 MiB

	LogLine  int // bytes of a line of output that are kept; 64 KiB
	LogLines int // lines a second that are logged, on average; 200, and ten times that at once
	LogBytes int // bytes a second that are logged, on average; 256 KiB, and ten times that at once
	Read     int // bytes a second that are read of each of stdout and stderr: a plugin that writes more waits; 64 MiB
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Start:    cmp.Or(l.Start, 10*time.Second),
		Drain:    cmp.Or(l.Drain, 5*time.Second),
		Shutdown: cmp.Or(l.Shutdown, 2*time.Second),
		Term:     cmp.Or(l.Term, 3*time.Second),
		Dump:     cmp.Or(l.Dump, 2*time.Second),
		Output:   cmp.Or(l.Output, 2*time.Second),
		Receive:  cmp.Or(l.Receive, 4<<20),
		Send:     cmp.Or(l.Send, 32<<20),
		LogLine:  cmp.Or(l.LogLine, 64<<10),
		LogLines: cmp.Or(l.LogLines, 200),
		LogBytes: cmp.Or(l.LogBytes, 256<<10),
		Read:     cmp.Or(l.Read, 64<<20),
	}
}

const (
	// maxSocketPath is the length of the longest path of a Unix socket, in bytes.
	maxSocketPath = 107
	// socketName is the longest that go-plugin makes of a socket directory:
	// /plugin-dir<10 digits>/plugin<10 digits>.
	socketName = len("/plugin-dir") + 10 + len("/plugin") + 10
)

func (o Options) withDefaults() (Options, error) {
	if o.Sink == "" {
		return o, errors.New("start plugin: no name")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Mask == nil {
		o.Mask = func(s string) string { return s }
	}
	o.Limits = o.Limits.withDefaults()
	return o, checkSocketDir(o.SocketDir)
}

func checkSocketDir(dir string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
		return fmt.Errorf("socket directory %q: the path is not absolute and clean", dir)
	}
	if n := len(dir) + socketName; n > maxSocketPath {
		return fmt.Errorf("socket directory %s: its path has %d bytes, at most %d are possible: the path of a socket in it would have %d, and the system allows %d", dir, len(dir), maxSocketPath-socketName, n, maxSocketPath)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("socket directory: %w", err)
	}
	switch {
	case info.Mode().Type() != fs.ModeDir:
		return fmt.Errorf("socket directory %s: not a directory", dir)
	case !ours(info) || info.Mode().Perm() != 0o700:
		return fmt.Errorf("socket directory %s: it must belong to the user of this process, with mode 0700", dir)
	}
	return nil
}

// ours reports whether a directory belongs to this process's user, or to root.
func ours(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}
