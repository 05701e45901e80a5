package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/peanutsapp/peanuts-relay/internal/api"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/config/watch"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/dispatch"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink"
	"github.com/peanutsapp/peanuts-relay/internal/ingest"
	"github.com/peanutsapp/peanuts-relay/internal/notice"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/reload"
	"github.com/peanutsapp/peanuts-relay/internal/unixsock"
	"github.com/peanutsapp/peanuts-relay/internal/webhookedit"
)

// ErrStorage wraps the error that made the store stop. The process must end; a
// new one finds everything that was acknowledged.
var ErrStorage = errors.New("stopped on a storage error")

// Names under which a service manager may hand over the sockets
// (FileDescriptorName= of a .socket unit).
const (
	EventsSocketName = "events"
	AdminSocketName  = "admin"
)

const (
	// drainTime is how long attempts in flight may go on after the signal to
	// stop: as long as the longest default attempt.
	drainTime = 30 * time.Second
	// pluginDrainTime is the same for attempts of plugins. What a plugin needs to end
	// comes on top of it, see pluginTime, so that all of it takes no longer than drainTime.
	pluginDrainTime = 20 * time.Second
	// closeTime bounds each of the other steps of stopping.
	closeTime = 10 * time.Second
	// pluginTime is how long plugins have to end once nothing is in flight: to finish
	// what they do of their own accord (5 s), to end by themselves (2 s), after a signal
	// (3 s), and to be killed.
	pluginTime = 15 * time.Second
	// StopLimit is how long a stop may take, all its steps together. A service manager has
	// to wait longer (TimeoutStopSec=).
	StopLimit = closeTime + drainTime + pluginTime + 3*closeTime
	// hasteTime bounds a step once the store has failed: nothing that is waited for
	// then can be recorded.
	hasteTime = time.Second
	// startPatience is how long an event waits for a daemon that starts. Opening
	// the store takes well below a second; after a crash it may take longer.
	startPatience = 8 * time.Second
	// defaultMemoryLimit is for the worst, and GOMEMLIMIT overrides it. It must stay
	// well above what is in use: close to it the collector runs all the time, and
	// counts memory that was reserved and never touched (at 112 MiB it took half of
	// the processor).
	defaultMemoryLimit = 256 << 20
)

// Options are what the daemon is told besides its configuration.
type Options struct {
	Logger  *slog.Logger // nil discards
	Version string
	Commit  string
	Path    string         // of the configuration, absolute
	Report  *config.Report // of the configuration
	Ready   func()         // called once everything runs; nil is nothing

	// Hangup receives when the files are to be read again (SIGHUP). It has a
	// capacity of one, and may have received before Run is called. nil = never.
	Hangup <-chan struct{}
	// SetLog changes level and format of Logger. nil = they cannot be changed.
	SetLog func(config.Log)
	// Notify tells the service manager a state, as sd_notify(3) has it. It does
	// nothing when there is no service manager. nil is nothing.
	Notify func(state string) error
	// Watchdog is how long the service manager waits for word before it restarts the
	// daemon (WATCHDOG_USEC); 0 = it does not watch.
	Watchdog time.Duration
	// LookupEnv reads the environment at every load of the files; nil is
	// os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Rejected is the report of the files on the disk when the configuration is the
	// last known good one instead. nil = they are fine.
	Rejected *config.Report
	// LastKnownGood is the generation of the last known good configuration that
	// takes the place of the rejected one; 0 when Rejected is nil.
	LastKnownGood uint64

	drainTime, pluginDrainTime, sideAgain time.Duration // tests: other than the constants
}

// Run is the daemon. It returns nil after ctx ended and everything was stopped
// in order; *queue.FormatError when the data directory cannot be used;
// ErrStorage after a storage error.
func Run(ctx context.Context, cfg *config.Config, o Options) error { return newRelay(cfg, o).run(ctx) }

func (r *relay) run(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(mostGCPercent))
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(defaultMemoryLimit))
	}
	defer takeStandardLog(r.log)()
	events, admin, err := r.listen()
	if err != nil {
		return err
	}
	if err := r.build(); err != nil {
		return errors.Join(err, events.Close(), admin.Close())
	}
	served := make(chan error, 2)
	var servers sync.WaitGroup
	servers.Go(func() { served <- r.ingest.Serve(events) })
	servers.Go(func() { served <- r.api.Serve(admin) })
	r.startWeb()
	r.metrics.start(r.boot.Listen.Metrics, r.api.ServeMetrics, r.api.ShutdownMetrics)

	unwatch := r.watch(events, admin)
	err = r.openStore(ctx, served)
	if err == nil {
		err = r.deliver(ctx, served)
	}
	unwatch()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	err = errors.Join(err, r.stop())
	servers.Wait() // the socket files are gone when this returns
	return err
}

// relay is the running daemon.
type relay struct {
	Options
	boot    *config.Config // what it started with: keys that need a restart are as here
	invalid error          // why boot is not what the files said; nil when it is
	log     *slog.Logger
	started time.Time

	store      lateStore
	dispatcher lateDispatcher
	feed       *api.Feed
	timings    *api.Timings
	ingest     *ingest.Server
	api        *api.API
	web        *sideListener
	space      *spaceWatch
	metrics    *sideListener
	host       *pluginhost.Host
	notices    *notice.Watch

	current   atomic.Pointer[snapshot]
	switching sync.Mutex // held by whoever replaces current, from the first look at it on
	reloader  atomic.Pointer[reload.Reloader]
	editor    *webhookedit.Editor
	gate      atomic.Pointer[gateState]
	settled   chan struct{} // closed when the gate says anything but errStarting
	settle    sync.Once
	stopping  atomic.Bool
	word      word

	// storage ends with the store's first error, which is its cause.
	storage       context.Context
	storageFailed context.CancelCauseFunc
}

// gateState says why events cannot be taken; a nil err is open.
type gateState struct{ err error }

var (
	errStarting = errors.New("the daemon is starting")
	errStopping = errors.New("the daemon is stopping")
)

func newRelay(cfg *config.Config, o Options) *relay {
	r := &relay{Options: o, boot: cfg, log: o.Logger, started: time.Now(), feed: api.NewFeed(), timings: api.NewTimings(), settled: make(chan struct{})}
	if path, err := filepath.Abs(r.Path); err == nil {
		r.Path = path
	}
	if r.Rejected != nil {
		r.invalid = r.Rejected.Err()
	}
	r.drainTime = cmp.Or(r.drainTime, drainTime)
	r.pluginDrainTime = cmp.Or(r.pluginDrainTime, pluginDrainTime)
	r.storage, r.storageFailed = context.WithCancelCause(context.Background())
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.current.Store(&snapshot{ingest: &ingest.Catalog{}, shown: &api.Catalog{}})
	r.gate.Store(&gateState{errStarting})
	r.dispatcher.store = &r.store
	r.space = newSpaceWatch(r)
	r.metrics = r.newSideListener("listen.metrics", "metrics")
	r.web = r.newSideListener("listen.web", "the page")
	r.editor = r.newEditor()
	r.host = r.newHost()
	r.notices = r.newNotices()
	return r
}

// close says why events cannot be taken from now on; nil takes them.
func (r *relay) close(err error) {
	r.gate.Store(&gateState{err})
	r.settle.Do(func() { close(r.settled) })
}

// admit is the gate as a sender meets it: one that comes while the daemon starts
// waits a while, as the one whose event started it by socket activation must.
func (r *relay) admit() error {
	if state := r.gate.Load(); state.err != errStarting {
		return state.err
	}
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	select {
	case <-r.settled:
	case <-patience.C:
	}
	return r.ready()
}

// listen takes both sockets, so that a second daemon fails before it touches
// anything.
func (r *relay) listen() (events, admin net.Listener, err error) {
	l := &r.boot.Listen
	admin, err = unixsock.Listen(l.Admin, unixsock.Options{Mode: 0o600, Activated: AdminSocketName})
	if err != nil {
		return nil, nil, err
	}
	events, err = unixsock.Listen(l.Events, unixsock.Options{Mode: l.EventsMode, Group: l.EventsGroup, Activated: EventsSocketName})
	if err != nil {
		return nil, nil, errors.Join(err, admin.Close())
	}
	r.sayOthers(events, l.Events)
	r.sayOthers(admin, l.Admin)
	return events, admin, nil
}

// build makes the two servers. They run before the store is open and say so.
func (r *relay) build() error {
	r.ingest = ingest.New(ingest.Options{
		Store:         &r.store,
		Catalog:       func() *ingest.Catalog { return r.current.Load().ingest },
		Gate:          r.admit,
		Logger:        r.log,
		MaxEventBytes: r.boot.Listen.MaxEventBytes,
		AllowUIDs:     r.boot.Listen.AllowUIDs,
		Observe:       r.timings.Accepted,
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var err error
	r.api, err = api.New(api.Options{
		Store:          &r.store,
		Dispatcher:     &r.dispatcher,
		Control:        control{r},
		Feed:           r.feed,
		Catalog:        func() *api.Catalog { return r.current.Load().shown },
		Status:         r.status,
		Ingest:         r.ingestStatus,
		AcceptedBy:     func() map[string]int64 { return r.ingest.Metrics().AcceptedBy },
		Timings:        r.timings,
		Sample:         r.sample,
		RequestHeaders: httpsink.RequestHeaders,
		Ready:          r.ready,
		Registry:       registry,
		Logger:         r.log,
	})
	return err
}

// openStore opens the store, waiting for space as long as it takes: opening it
// on a full disk would crash, and crash again after every restart.
func (r *relay) openStore(ctx context.Context, served <-chan error) error {
	for {
		opened := r.sayStarting()
		s, err := queue.Open(ctx, r.queueOptions())
		opened()
		if err == nil {
			r.store.set(s)
			return nil
		}
		short, ok := errors.AsType[*queue.SpaceError](err)
		if !ok {
			return ofStorage(err)
		}
		_, again := errors.AsType[*queue.SpaceError](r.ready())
		r.close(short)
		if !again {
			r.log.Error("queue is not opened until there is space; events are answered 507", "err", short)
			// It answers; a boot or an upgrade that waited for it could wait for ever.
			r.notify("READY=1\nSTATUS=degraded: events are answered 507: " + short.Error())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-served:
			return err
		case <-time.After(spaceInterval):
		}
	}
}

// ofStorage wraps an error of the disk or of the database with ErrStorage.
// What an operator must change first is none.
func ofStorage(err error) error {
	_, format := errors.AsType[*queue.FormatError](err)
	_, locked := errors.AsType[*queue.LockedError](err)
	if format || locked || errors.Is(err, fs.ErrPermission) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrStorage, err)
}

func (r *relay) queueOptions() queue.Options {
	l := limits(r.boot)
	return queue.Options{
		Dir:               r.boot.Queue.Dir,
		Logger:            r.log,
		MaxBytes:          l.MaxBytes,
		MaxBytesPerHelper: l.MaxBytesPerHelper,
		MinFree:           l.MinFree,
		Retention:         l.Retention,
		OnReady:           r.onReady,
		OnChange:          r.onChange,
		OnTurn:            r.dispatcher.turned,
		OnCommit:          r.timings.Committed,
		OnFatal:           r.onFatal,
		Where:             chooser,
		Busy:              r.dispatcher.busy,
	}
}

// deliver starts the lanes, opens the gate and waits for the end.
func (r *relay) deliver(ctx context.Context, served <-chan error) error {
	d := dispatch.New(dispatch.Options{Store: r.store.get(), StoreID: r.store.StoreID(), Logger: r.log, Observe: r.timings.Attempted})
	r.dispatcher.set(d)
	first, err := r.prepare(ctx, r.boot)
	switch {
	case errors.Is(err, queue.ErrStopped) && r.storage.Err() != nil:
		return nil // stop reports why
	case err != nil:
		return err
	}
	watcher := watch.New(watch.Options{Logger: r.log})
	reloader, endHistory := r.newReloader(watcher)
	r.Report, r.Rejected = nil, nil // they hold the files
	first.Commit(reloader.Generation())
	r.reloader.Store(reloader)
	r.rebuildNotices()
	failpoint.Here("start.lanes")
	d.Start()
	r.space.start()
	following, unfollow := context.WithCancel(context.Background())
	var followers sync.WaitGroup
	followers.Go(func() { reloader.Run(following) })
	followers.Go(func() { r.notices.Run(following) })
	defer func() {
		unfollow()
		followers.Wait()
		if err := errors.Join(watcher.Close(), endHistory()); err != nil {
			r.log.Warn("watching the configuration did not end well", "err", err)
		}
	}()
	r.close(nil)
	failpoint.Here("start.open")
	r.tellReady(reloader)
	select {
	case <-ctx.Done():
		r.log.Info("stopping")
		r.notify("STOPPING=1\nSTATUS=stopping")
		return ctx.Err()
	case <-r.storage.Done():
		r.notify("STOPPING=1\nSTATUS=stopping on a storage error")
		return nil // stop reports it, whenever it happened
	case err := <-served:
		return err
	}
}

// tellReady says what runs to the log and the service manager.
func (r *relay) tellReady(l *reload.Reloader) {
	r.log.Info("ready", "version", r.Version, "config", r.Path, "generation", l.Generation(), "webhooks", len(r.current.Load().targets),
		"events", r.boot.Listen.Events, "admin", r.boot.Listen.Admin, "queue", r.boot.Queue.Dir)
	status := fmt.Sprintf("configuration %d runs", l.Generation())
	if degraded := l.Degraded(); degraded != "" {
		status = "degraded: " + degraded
	}
	r.notify("READY=1\nSTATUS=" + status)
	if r.Ready != nil {
		r.Ready()
	}
}

// onReady is called by the committer for new deliveries, before their events
// are answered.
func (r *relay) onReady(ds []queue.Delivery) {
	if d := r.dispatcher.running(); d != nil {
		d.Offer(ds)
	}
}

func (r *relay) onChange(cs []queue.Change) {
	if d := r.dispatcher.running(); d != nil {
		d.Changed(cs)
	}
	r.notices.Observe(cs)
	r.feed.Publish(cs)
	r.space.look()
}

// onFatal is called by the store with its first error. From here on nothing can
// be recorded, so nothing more is delivered: what would be sent now is sent
// again after the restart.
func (r *relay) onFatal(err error) {
	r.close(queue.ErrStopped)
	if d := r.dispatcher.running(); d != nil {
		d.Pause(delivery.HoldStorage)
	}
	r.storageFailed(err)
}

// stop ends everything in the order in which work flows: nothing new comes in,
// what is under way is finished, what it changed is committed. A client or a
// receiver that is too slow for that is cut off, which is no error. A storage
// error cuts short what can no longer be recorded, also when it happens here.
func (r *relay) stop() error {
	r.stopping.Store(true)
	if r.gate.Load().err != nil {
		// Whoever waits for the start is told. A gate that is open stays so: what a
		// sender has begun is still taken.
		r.close(queue.ErrStopped)
	}
	step := func(limit time.Duration, f func(context.Context) error) error {
		if r.storage.Err() != nil {
			limit = min(limit, hasteTime)
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		return f(ctx)
	}
	if err := step(closeTime, r.ingest.Shutdown); err != nil {
		r.log.Warn("senders were cut off; their events were not accepted", "err", err)
	}
	failpoint.Here("stop.senders")
	r.space.stop()
	if d := r.dispatcher.running(); d != nil {
		ctx, cancel := context.WithTimeoutCause(r.storage, r.drainTime, delivery.ErrShutdown)
		plugins := time.AfterFunc(r.pluginDrainTime, r.host.Interrupt)
		if err := d.Stop(ctx); err != nil {
			r.log.Warn("attempts were interrupted and stay pending", "err", err)
		}
		plugins.Stop()
		cancel()
	}
	if err := step(pluginTime, r.host.Stop); err != nil {
		r.log.Warn("plugins were killed", "err", err)
	}
	if err := step(closeTime, r.stopAPI); err != nil {
		r.log.Warn("admin clients were cut off", "err", err)
	}
	if err := step(closeTime, r.metrics.stop); err != nil {
		r.log.Warn("clients of the metrics listener were cut off", "err", err)
	}
	failpoint.Here("stop.attempts")
	var err error
	if s := r.store.get(); s != nil {
		if err = step(closeTime, s.Close); errors.Is(err, queue.ErrStopped) {
			err = nil // for the reason that is told below
		}
	}
	if cause := context.Cause(r.storage); cause != nil {
		err = errors.Join(fmt.Errorf("%w: %w", ErrStorage, cause), err)
	}
	r.storageFailed(nil)
	r.log.Info("stopped")
	return err
}
