// Package watch says when the files of the configuration may have changed.
//
// Guarantees:
//
//   - Nothing is missed for good. A change of the main file, of a drop-in, or of
//     a referenced file is signalled after it has settled: [Options.Debounce]
//     after its last event, at most [Options.MaxWait] after its first. What the
//     kernel does not tell of (network file systems, bind mounts) is signalled at
//     the next [Options.Recheck].
//   - However a file is replaced, the next change is noticed too: in place, by a
//     rename, through any link of a chain of symbolic links, by a directory that
//     is removed, renamed or made anew.
//   - It never ends by itself. When the kernel has no events to give, it compares
//     sizes and times every [Options.PollEvery], and returns to events when it can.
//   - A signal says "compare", not "changed": the receiver decides by the content.
//     Files that merely lie beside those of the configuration cause no signal.
//   - The cost is bounded: one goroutine and fsnotify's own, at most one inotify
//     instance, a watch for each directory and none for a file, and one timer
//     while nothing happens. [Watcher.Close] gives all of it back.
//
// A path is watched by watching every directory on the way to it and listening
// for the one name in it that matters: directories stay when files are replaced,
// and a link, a file or a directory that is missing is noticed when it comes.
package watch

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The modes of [Watcher.Mode].
const (
	ModeEvents  = "events"
	ModePolling = "polling"
)

// closeWait bounds Close: a file system that hangs must not hang the stop.
const closeWait = 5 * time.Second

// ErrStillRunning is returned by Close when the watcher's goroutine did not end
// in time, because a file system does not answer. It ends when that does.
var ErrStillRunning = errors.New("close the watcher: a file system does not answer")

// Options say how patient a watcher is. The default of a duration, which zero stands
// for, is named with it; negative ones make no sense.
type Options struct {
	// Logger gets changes of the mode and lost events; nil logs nothing.
	Logger *slog.Logger
	// Debounce is how long nothing must happen before a change counts as
	// complete; 250 ms. An editor's save takes a few.
	Debounce time.Duration
	// MaxWait is how long events that do not stop may put off the signal; 2 s.
	MaxWait time.Duration
	// Recheck is how often to signal although nothing was noticed; 30 s.
	Recheck time.Duration
	// PollEvery is how often sizes and times are compared while there are no
	// events; 5 s.
	PollEvery time.Duration

	open  func() (source, error) // the kernel's events; tests stand in for them
	stamp func(Paths) uint64     // what stat says; likewise
}

// Paths say what to watch. Relative ones are meant from the working directory
// at the time of Set. Nothing of it needs to exist.
type Paths struct {
	// Main is the main file; "" for none.
	Main string
	// DropIns is the directory of drop-ins; "" for none.
	DropIns string
	// References are other files whose content counts. The order is of no
	// importance.
	References []string
}

// Watcher watches the files of one configuration. Its methods may be called
// concurrently.
type Watcher struct {
	opts    Options
	changed chan struct{}
	poke    chan struct{} // paths were set; capacity 1
	cancel  context.CancelFunc
	done    chan struct{} // closed when the goroutine has ended
	polling atomic.Bool

	mu    sync.Mutex // guards paths
	paths Paths
}

// New starts a watcher, which watches nothing before the first Set. It must be
// closed.
func New(o Options) *Watcher {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&o.Debounce, 250 * time.Millisecond},
		{&o.MaxWait, 2 * time.Second},
		{&o.Recheck, 30 * time.Second},
		{&o.PollEvery, 5 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if o.open == nil {
		o.open = openEvents
	}
	if o.stamp == nil {
		o.stamp = newStamper().of
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{
		opts:    o,
		changed: make(chan struct{}, 1),
		poke:    make(chan struct{}, 1),
		cancel:  cancel,
		done:    make(chan struct{}),
	}
	go w.run(ctx)
	return w
}

// Set says what to watch from now on. It does not wait: when the paths are others
// than before, the new ones are watched soon, and a signal follows, so that a
// change between the caller's reading and the watching is not missed. A Set of the same
// paths does nothing. After Close it has no effect.
func (w *Watcher) Set(paths Paths) {
	paths = paths.normal()
	w.mu.Lock()
	defer w.mu.Unlock()
	if paths.equal(w.paths) {
		return
	}
	w.paths = paths
	select {
	case w.poke <- struct{}{}:
	default: // the goroutine has yet to take the paths, and will find these
	}
}

// Changed is where the signals come: something may have changed, or it is time
// to compare. One signal is kept while nobody receives; more are merged into it.
// The channel is never closed.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Mode is [ModeEvents], or [ModePolling] while the kernel cannot tell of all
// changes. In polling mode the directories that can be watched still are.
func (w *Watcher) Mode() string {
	if w.polling.Load() {
		return ModePolling
	}
	return ModeEvents
}

// Close ends the watching and gives back what it took. A further call waits as
// well. The error is nil or [ErrStillRunning], after 5 s.
func (w *Watcher) Close() error {
	w.cancel()
	limit := time.NewTimer(closeWait)
	defer limit.Stop()
	select {
	case <-w.done:
		return nil
	case <-limit.C:
		return ErrStillRunning
	}
}

// DropIn reports whether a file of this name in the directory of drop-ins is one
// of them. It is the rule of package config, which its tests hold it to; what
// editors leave behind (.x.yaml.swp, x.yaml~, .#x.yaml, #x.yaml#, 4913) is not.
func DropIn(name string) bool {
	return strings.HasSuffix(name, ".yaml") && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#")
}

// normal is p with absolute paths and the references in order, each once. Dots
// are left in: after a symbolic link they mean another directory than they seem to.
func (p Paths) normal() Paths {
	n := Paths{Main: absolute(p.Main), DropIns: absolute(p.DropIns)}
	for _, ref := range p.References {
		if ref != "" {
			n.References = append(n.References, absolute(ref))
		}
	}
	slices.Sort(n.References)
	n.References = slices.Compact(n.References)
	return n
}

func (p Paths) equal(q Paths) bool {
	return p.Main == q.Main && p.DropIns == q.DropIns && slices.Equal(p.References, q.References)
}

func absolute(path string) string {
	if path == "" || strings.HasPrefix(path, "/") {
		return path
	}
	here, err := filepath.Abs(".")
	if err != nil { // the working directory is gone, and the path with it
		return ""
	}
	return here + "/" + path
}
