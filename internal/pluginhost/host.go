package pluginhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
)

// Options are what a host needs. SocketDir is required.
type Options struct {
	Logger *slog.Logger // nil = discard
	// SocketDir is where the sockets of the plugins are. It is made with mode 0700 at the
	// first start, and then swept of sockets that no process has. Its path has at most 69
	// bytes, and only one host uses it at a time.
	SocketDir string
	Version   string // of the relay, for the plugins
	// Changed is called after the answer of some instance's Held or Limits has changed,
	// without locks. It must not block, and may be called concurrently. nil = nobody asks.
	Changed func()
	Times   Times
	Process process.Limits // a zero field has its default
}

// Times are how long things take, at most or at least. A zero field has the default.
type Times struct {
	Describe, Validate, Configure, Close time.Duration // one call; 5 s, 10 s, 10 s, 5 s

	Health         time.Duration // from one call of Health to the next; 15 s
	HealthDeadline time.Duration // for its answer; 2 s. The third miss in a row ends the process

	MinPause time.Duration // bounds the pause before the first start anew; it doubles each time; 500 ms
	MaxPause time.Duration // until it is this; 60 s
	Settled  time.Duration // a process that was ready for so long starts the pauses over; 5 min
	Window   time.Duration // five ends within it suspend the plugin; 10 min
	Probe    time.Duration // between the starts of a suspended plugin, and the tries of an instance that was refused; 5 min

	Linger time.Duration // how long a plugin that nobody uses is kept; 5 s
	Drain  time.Duration // how long deliveries under way may take when a plugin ends; 20 s
}

// Numbers that are not times.
const (
	maxMisses  = 3 // calls of Health in a row without an answer
	maxEnds    = 5 // of the process, within Times.Window
	maxCrashes = 3 // of the process while an instance was being configured alone
)

func (t Times) withDefaults() Times {
	return Times{
		Describe:       cmp.Or(t.Describe, 5*time.Second),
		Validate:       cmp.Or(t.Validate, 10*time.Second),
		Configure:      cmp.Or(t.Configure, 10*time.Second),
		Close:          cmp.Or(t.Close, 5*time.Second),
		Health:         cmp.Or(t.Health, 15*time.Second),
		HealthDeadline: cmp.Or(t.HealthDeadline, 2*time.Second),
		MinPause:       cmp.Or(t.MinPause, 500*time.Millisecond),
		MaxPause:       cmp.Or(t.MaxPause, time.Minute),
		Settled:        cmp.Or(t.Settled, 5*time.Minute),
		Window:         cmp.Or(t.Window, 10*time.Minute),
		Probe:          cmp.Or(t.Probe, 5*time.Minute),
		Linger:         cmp.Or(t.Linger, 5*time.Second),
		Drain:          cmp.Or(t.Drain, 20*time.Second),
	}
}

// File names a plugin's executable.
type File struct {
	Sink   string // what the plugin must call itself
	Path   string // absolute
	SHA256 string // what the file must be, hex; "" = anything
}

// Host runs the plugins. It is safe for concurrent use.
type Host struct {
	opts  Options
	times Times
	log   *slog.Logger
	open  func(path, sha256 string) (executable, error)

	ctx  context.Context // ends when Stop has no time left
	kill context.CancelFunc
	// calls ends when no call of Deliver may go on.
	calls     context.Context
	interrupt context.CancelFunc

	wg sync.WaitGroup // a goroutine for each binary

	sockets sockets

	mu       sync.Mutex
	binaries []*binary // in the order in which they came
	stopping bool
	serial   uint64 // of instances
}

var errStopping = errors.New("the plugins are being stopped")

// New makes a host. Nothing is started before it is needed.
func New(o Options) *Host {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	h := &Host{opts: o, times: o.Times.withDefaults(), log: o.Logger, open: openFile, sockets: sockets{dir: o.SocketDir, log: o.Logger}}
	h.ctx, h.kill = context.WithCancel(context.Background())
	h.calls, h.interrupt = context.WithCancel(context.Background())
	return h
}

// Inspect makes sure that the plugin of f runs, and describes it: the process that runs,
// if it was started from that very file, else a new one beside it. [Plugin.Release] lets
// go of it.
//
// The error says what the plugin did wrong. A plugin that could not be started is tried
// again by the next Inspect.
func (h *Host) Inspect(ctx context.Context, f File) (*Plugin, error) {
	b, err := h.find(f, false)
	if err != nil {
		return nil, err
	}
	if err := b.await(ctx, false); err != nil {
		b.release()
		return nil, err
	}
	return &Plugin{b: b, about: b.description()}, nil
}

// find returns the binary of f, held for the caller. later = the file may be opened later,
// and by the supervisor: that takes as long as it takes to read all of it.
func (h *Host) find(f File, later bool) (*binary, error) {
	for _, b := range h.all() {
		if b.serves(f) && b.current() && b.hold() {
			return b, nil
		}
	}
	if later {
		return h.add(f, nil)
	}
	file, err := h.open(f.Path, f.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sink plugin %s: %w", f.Sink, err)
	}
	b, err := h.add(f, file)
	if file != nil && (err != nil || b.opened() != file) {
		err = errors.Join(err, file.Close())
	}
	return b, err
}

// add returns the binary of an open file, or of one that could not be opened yet: one
// that is there, or a new one.
func (h *Host) add(f File, file executable) (*binary, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		return nil, errStopping
	}
	for _, b := range h.binaries {
		there := b.opened()
		same := there == nil && file == nil || there != nil && file != nil && there.Identity() == file.Identity()
		if same && b.serves(f) && b.hold() {
			return b, nil
		}
	}
	b := newBinary(h, f, file)
	h.binaries = append(h.binaries, b)
	h.wg.Go(b.supervise)
	return b, nil
}

func (h *Host) all() []*binary {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.binaries)
}

func (h *Host) forget(b *binary) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.binaries = slices.DeleteFunc(h.binaries, func(x *binary) bool { return x == b })
}

// Outdated lists the sinks whose file on the disk is no longer the one that runs. Opening
// their instances anew starts the new file beside the old one.
func (h *Host) Outdated() []string {
	current := map[string]bool{}
	for _, b := range h.all() { // the newest of a sink comes last
		if b.inUse() {
			current[b.file.Sink] = b.current()
		}
	}
	var out []string
	for sink, ok := range current {
		if !ok {
			out = append(out, sink)
		}
	}
	slices.Sort(out)
	return out
}

// Hasten tries at once what would be tried later: to start a plugin that ended or could
// not be started, suspended ones included, and to configure the webhooks whose settings
// were refused. Somebody says that what was wrong is put right. It does not block.
func (h *Host) Hasten() {
	for _, b := range h.all() {
		b.hasten()
	}
}

// Interrupt ends the calls of Deliver that are under way, and each later one, with the
// outcome of [delivery.ErrShutdown]: their deliveries are interrupted, not attempted. The
// plugins themselves go on until Stop. It does not block.
func (h *Host) Interrupt() { h.interrupt() }

// Stop ends all plugins and returns when nothing of them is left. Deliveries under way
// are waited for, but none should be: the dispatcher stops first. When ctx ends, what is
// left is killed; that is the error.
func (h *Host) Stop(ctx context.Context) error {
	h.mu.Lock()
	h.stopping = true
	h.mu.Unlock()
	stop := context.AfterFunc(ctx, h.kill)
	for _, b := range h.all() {
		b.quit()
	}
	h.wg.Wait()
	killed := !stop()
	h.kill()
	h.interrupt()
	h.sockets.remove()
	if killed {
		return fmt.Errorf("plugins were killed: %w", context.Cause(ctx))
	}
	return nil
}
