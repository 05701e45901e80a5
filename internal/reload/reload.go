package reload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/config/history"
	"github.com/peanutsapp/peanuts-relay/internal/config/watch"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// prepareTime bounds the preparation of one configuration, plugins included.
const prepareTime = 30 * time.Second

// ErrStopped answers a reload that was asked of a daemon that ends. As an error
// of Options.Prepare it says that this is why.
var ErrStopped = errors.New("the daemon is stopping")

// Cause says who asked for a reload.
type Cause struct {
	Trigger string  // of package rest
	UID     *uint32 // of the process that asked; nil when nobody did or it is not known
}

// Prepared is a configuration of which everything has been built.
type Prepared interface {
	// Commit makes it what runs. It is always called, once.
	Commit(generation uint64)
}

// Watcher tells of changes; *watch.Watcher is one.
type Watcher interface {
	Set(watch.Paths)
	Changed() <-chan struct{}
	Mode() string
}

// History keeps what ran; *history.Log is one. Nil fields of an entry are plain
// zeros.
type History interface {
	Append(e history.Entry, sources []config.File) error
	Entries() []history.Entry
	Generation() uint64 // the highest that was ever given out
	Files(generation uint64) ([]config.File, error)
}

// Options are what a [Reloader] works with. Every field but Hangup, Rejected,
// LastKnownGood and Logger is required.
type Options struct {
	// Load reads files, or those of the daemon when files is nil, and runs the
	// tests that they contain.
	Load func(files []config.File) (*config.Config, *config.Report)
	Path string // of the main file

	// Boot is the configuration that the daemon starts with, and its report. Its
	// keys that need a restart are those that run until the end.
	Boot       *config.Config
	BootReport *config.Report
	// Rejected is what is wrong with the files when Boot is not what they say but
	// the last known good configuration, and LastKnownGood the number of that.
	Rejected      *config.Report
	LastKnownGood uint64

	// Plugins has the plugins that a valid configuration names look at their
	// settings, and adds what they find to its report. later says that the same files
	// may be fine later: a plugin could not be asked. It changes nothing that runs.
	// nil finds nothing.
	Plugins func(context.Context, *config.Config, *config.Report) (later bool)
	// Outdated lists the sinks of which another executable runs than is on the disk.
	// A reload that somebody asks for replaces them, though the files are the same.
	// nil is none.
	Outdated func() []string
	// Asked follows a reload that somebody asked for and that found nothing to change:
	// what waits for a change elsewhere is to be tried now. nil is nothing.
	Asked func()
	// Prepare builds everything that a configuration needs and changes nothing
	// that runs. Its error is shown to the operator.
	Prepare func(context.Context, *config.Config) (Prepared, error)
	// Outlook says how a webhook's deliveries stand, for plans.
	Outlook func(w *config.Webhook) Outlook
	History History
	Watcher Watcher
	Hangup  <-chan struct{} // one element for every SIGHUP, or for several
	// Notify tells the service manager (sd_notify(3)); nil is nothing.
	Notify func(state string)
	Logger *slog.Logger
}

// Outlook is how a webhook's deliveries stand before a change.
type Outlook struct {
	Pending int64
	// Moved says that it would come back with another sink or host than the
	// pending deliveries were made for, and be held for that.
	Moved bool
}

// Reloader is the one place that changes which configuration runs. Its methods
// may be called concurrently.
type Reloader struct {
	Options

	wake chan struct{} // capacity 1: a request waits

	mu      sync.Mutex // guards the rest
	waiting []request
	stopped bool
	state   state
}

// request waits for a reload that begins after it.
type request struct {
	cause  Cause
	answer chan rest.ReloadResult // capacity 1; closed when the daemon ends
}

// state is what runs and what was last tried.
type state struct {
	cfg        *config.Config // as the files said, keys that need a restart included
	report     *config.Report // of it
	generation uint64
	loaded     time.Time
	lastGood   bool // started with the last known good configuration and not reloaded since

	seen   *config.Report // of the newest load, refused or not
	again  bool           // seen is valid but could not be prepared: the next look tries once more
	result rest.ReloadResult
	last   *rest.Reload
	counts map[Count]uint64
}

// Count names reloads by what asked for them and how they ended.
type Count struct{ Trigger, Result string }

// New returns a reloader for a daemon that starts with o.Boot. The caller has
// that running, with the number that [Reloader.Generation] gives, before Run.
func New(o Options) *Reloader {
	r := &Reloader{Options: o, wake: make(chan struct{}, 1)}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	if r.Notify == nil {
		r.Notify = func(string) {}
	}
	if r.Plugins == nil {
		r.Plugins = func(context.Context, *config.Config, *config.Report) bool { return false }
	}
	if r.Outdated == nil {
		r.Outdated = func() []string { return nil }
	}
	if r.Asked == nil {
		r.Asked = func() {}
	}
	r.state = state{cfg: o.Boot, report: facts(o.BootReport), seen: facts(o.BootReport), loaded: time.Now(), counts: map[Count]uint64{}}
	r.begin()
	r.BootReport, r.Rejected = nil, nil
	return r
}

// facts is a report without the text of the files and what was parsed of it,
// which would stay in memory with it.
func facts(report *config.Report) *config.Report {
	return &config.Report{Findings: report.Findings, Files: report.Files, References: report.References, Digest: report.Digest}
}

// begin finds the number of the first configuration, and records it unless it is
// the one that ran last.
func (r *Reloader) begin() {
	s := &r.state
	last, known := r.lastApplied()
	s.generation = last.Generation
	e := history.Entry{At: s.loaded, Trigger: rest.TriggerStart, Result: rest.ReloadApplied, Digest: s.report.Digest}
	switch {
	case r.Rejected != nil:
		s.generation, s.lastGood, s.seen = r.LastKnownGood, true, facts(r.Rejected)
		e.Result, e.Digest = rest.ReloadRestored, r.Rejected.Digest
		e.Errors, e.Error = countErrors(r.Rejected)
		s.result = r.outcome(rest.ReloadRejected, nil, r.Rejected)
		s.last = &rest.Reload{At: rest.At(e.At), Trigger: rest.TriggerStart, Result: rest.ReloadRejected, Errors: e.Errors, Error: e.Error}
	case known && last.Digest == s.report.Digest && r.wouldBeFound(last.Generation):
		return
	default:
		s.generation = r.next()
		e.Changes = kept(r.since(last, known))
	}
	e.Generation = s.generation
	r.record(e, r.BootReport.Sources)
}

// wouldBeFound reports whether a start with broken files would find this
// configuration as the last known good one.
func (r *Reloader) wouldBeFound(generation uint64) bool {
	for _, e := range r.History.Entries() {
		if e.Result != rest.ReloadRejected {
			_, err := r.History.Files(generation)
			return e.Generation == generation && err == nil
		}
	}
	return false
}

// since is what changed since a configuration that ran before the start.
func (r *Reloader) since(last history.Entry, known bool) []config.Change {
	if !known {
		return nil
	}
	files, err := r.History.Files(last.Generation)
	if err != nil {
		return nil
	}
	if before, _ := r.Load(files); before != nil {
		return config.Diff(before, r.state.cfg)
	}
	return nil
}

func (r *Reloader) lastApplied() (history.Entry, bool) {
	for _, e := range r.History.Entries() {
		if e.Result == rest.ReloadApplied {
			return e, true
		}
	}
	return history.Entry{}, false
}

// next is the number of the next configuration.
func (r *Reloader) next() uint64 { return max(r.History.Generation(), r.state.generation) + 1 }

// Generation is the number of the configuration that runs.
func (r *Reloader) Generation() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.generation
}

// Run reloads whenever the files change, a SIGHUP comes or Reload is called,
// until ctx ends. What was prepared by then takes effect.
func (r *Reloader) Run(ctx context.Context) {
	defer r.stop()
	r.watch(r.state.seen)
	r.compare(ctx) // what changed since the files were read
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.Watcher.Changed():
			r.compare(ctx)
		case <-r.Hangup:
			r.serve(ctx, request{cause: Cause{Trigger: rest.TriggerSignal}})
		case <-r.wake:
			r.serve(ctx)
		}
	}
}

// stop answers everybody who still waits.
func (r *Reloader) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for _, q := range r.waiting {
		close(q.answer)
	}
	r.waiting = nil
}

// Reload waits until the files, as they are now or later, are applied or
// refused. Only the wait ends with ctx. Errors: [ErrStopped], that of ctx.
func (r *Reloader) Reload(ctx context.Context, cause Cause) (rest.ReloadResult, error) {
	q := request{cause: cause, answer: make(chan rest.ReloadResult, 1)}
	r.mu.Lock()
	if r.stopped {
		r.mu.Unlock()
		return rest.ReloadResult{}, ErrStopped
	}
	r.waiting = append(r.waiting, q)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	select {
	case result, ok := <-q.answer:
		if !ok {
			return rest.ReloadResult{}, ErrStopped
		}
		return result, nil
	case <-ctx.Done():
		return rest.ReloadResult{}, ctx.Err()
	}
}

// compare reloads when the files are not what was read last.
func (r *Reloader) compare(ctx context.Context) {
	seen := r.state.seen // only this goroutine changes it
	if r.state.again || config.Fingerprint(r.Path, seen.References) != seen.Digest {
		r.serve(ctx, request{cause: Cause{Trigger: rest.TriggerWatch}})
	}
}

// serve makes one reload for everybody who waits.
func (r *Reloader) serve(ctx context.Context, also ...request) {
	r.mu.Lock()
	all := append(r.waiting, also...)
	r.waiting = nil
	r.mu.Unlock()
	if len(all) == 0 {
		return
	}
	result, err := r.once(ctx, all[0].cause)
	for _, q := range all {
		switch {
		case q.answer == nil:
		case err != nil:
			close(q.answer)
		default:
			q.answer <- result
		}
	}
}

// watch tells the watcher what to look at: everything that the newest load
// depends on, and what runs does, so that a reference that is mended is noticed.
func (r *Reloader) watch(seen *config.Report) {
	refs := slices.Concat(seen.References, r.state.report.References)
	r.Watcher.Set(watch.Paths{Main: r.Path, DropIns: config.DropIns(r.Path), References: refs})
}

// once is one reload. Its error is [ErrStopped]: the daemon ends, which says nothing
// about the files.
func (r *Reloader) once(ctx context.Context, cause Cause) (rest.ReloadResult, error) {
	r.Notify("RELOADING=1")
	defer r.Notify("READY=1")
	s := &r.state
	cfg, report := r.Load(nil)
	if cause.Trigger == rest.TriggerWatch && report.Digest == s.seen.Digest && !s.again {
		return s.result, nil // changed and changed back: it is known already
	}
	r.watch(report)
	var outdated []string
	if cause.Trigger != rest.TriggerWatch {
		outdated = r.Outdated()
	}
	e := history.Entry{Generation: s.generation, At: time.Now(), Trigger: cause.Trigger, UID: cause.UID, Digest: report.Digest}
	switch {
	case report.Err() != nil:
		return r.reject(e, report, false), nil
	case report.Digest == s.report.Digest && len(outdated) == 0:
		if cause.Trigger != rest.TriggerWatch {
			defer r.Asked()
		}
		return r.unchanged(e, report), nil
	}
	changes := append(config.Diff(s.cfg, cfg), upgrades(outdated)...)
	prepared, later, err := r.prepare(ctx, cfg, report)
	switch {
	case err != nil && (ctx.Err() != nil || errors.Is(err, ErrStopped)):
		return rest.ReloadResult{}, ErrStopped
	case errors.Is(err, errPlugins):
		return r.reject(e, report, later), nil
	case err != nil:
		report.Add(config.Finding{Severity: config.SeverityError, Code: "not_prepared", Message: err.Error()}, culprit(err)...)
		return r.reject(e, report, true), nil
	}
	e.Generation, e.Result, e.Changes = r.next(), rest.ReloadApplied, kept(changes)
	prepared.Commit(e.Generation)
	result := r.settle(&e, report, changes, func() {
		s.cfg, s.report, s.generation, s.loaded, s.lastGood = cfg, facts(report), e.Generation, e.At, false
	})
	failpoint.Here("reload.settled")
	r.record(e, report.Sources)
	failpoint.Here("reload.recorded")
	r.tellApplied(&e, report)
	return result, nil
}

// errPlugins says that the report has errors that plugins found.
var errPlugins = errors.New("a plugin refuses its settings")

func (r *Reloader) prepare(ctx context.Context, cfg *config.Config, report *config.Report) (p Prepared, later bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	later = r.plugins(ctx, cfg, report)
	if report.Err() != nil {
		return nil, later, errPlugins
	}
	p, err = r.Prepare(ctx, cfg.KeepRestartKeys(r.Boot))
	return p, later, err
}

// plugins asks the plugins, as long as a reload may take.
func (r *Reloader) plugins(ctx context.Context, cfg *config.Config, report *config.Report) (later bool) {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	return r.Plugins(ctx, cfg, report)
}

// upgrades are the changes of sinks whose executable was replaced.
func upgrades(sinks []string) (changes []config.Change) {
	for _, sink := range sinks {
		changes = append(changes, config.Change{Object: config.ObjectSink, ID: sink, Op: config.OpChanged, Fields: []string{"executable"}})
	}
	return changes
}

// unchanged ends a reload of files that say what runs. A former failure is over.
func (r *Reloader) unchanged(e history.Entry, report *config.Report) rest.ReloadResult {
	e.Result = rest.ReloadUnchanged
	failed := r.state.last != nil && r.state.last.Result == rest.ReloadRejected
	if failed {
		r.Logger.Info("configuration is what runs again", "trigger", e.Trigger, "generation", e.Generation)
		r.Notify("STATUS=configuration " + fmt.Sprint(e.Generation) + " runs")
	} else {
		r.Logger.Debug("configuration is unchanged", "trigger", e.Trigger, "generation", e.Generation)
	}
	return r.settle(&e, report, nil, func() {
		r.state.lastGood = false       // the files say again what was started with
		r.state.report = facts(report) // what it warns of may be over
	})
}

// reject ends a reload of files that are refused; again says that the same files
// may be taken later.
func (r *Reloader) reject(e history.Entry, report *config.Report, again bool) rest.ReloadResult {
	e.Result = rest.ReloadRejected
	e.Errors, e.Error = countErrors(report)
	r.record(e, nil)
	failpoint.Here("reload.rejected")
	r.Logger.Error("configuration rejected; what ran before goes on", "trigger", e.Trigger, "generation", e.Generation,
		"errors", e.Errors, "findings", lines(report))
	r.Notify(fmt.Sprintf("STATUS=configuration rejected (%s); generation %d goes on", plural(e.Errors, "error"), e.Generation))
	return r.settle(&e, report, nil, func() { r.state.again = again })
}

// settle makes the end of a reload known, all of it at once.
func (r *Reloader) settle(e *history.Entry, report *config.Report, changes []config.Change, change func()) rest.ReloadResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.state
	s.seen, s.again = facts(report), false
	change()
	s.result = r.outcome(e.Result, changes, report)
	s.last = &rest.Reload{At: rest.At(e.At), Trigger: e.Trigger, Result: e.Result, Errors: e.Errors, Error: e.Error}
	s.counts[Count{e.Trigger, e.Result}]++
	return s.result
}

func (r *Reloader) outcome(result string, changes []config.Change, report *config.Report) rest.ReloadResult {
	s := &r.state
	return rest.ReloadResult{Result: result, Generation: s.generation, Digest: s.report.Digest, FileDigest: report.Digest,
		Changes: shownChanges(changes), RestartRequired: list(config.RestartKeys(r.Boot, s.cfg)),
		Findings: shownFindings(report), Report: report.Text()}
}

// record appends to the history. What runs does not depend on it.
func (r *Reloader) record(e history.Entry, sources []config.File) {
	if err := r.History.Append(e, sources); err != nil {
		r.Logger.Warn("history of the configuration was not written; a start with broken files would not find this configuration", "generation", e.Generation, "err", err)
	}
}

// tellApplied logs one line for each object that changed. It names keys, never
// values.
func (r *Reloader) tellApplied(e *history.Entry, report *config.Report) {
	waiting := config.RestartKeys(r.Boot, r.state.cfg)
	for i := range e.Changes {
		c := &e.Changes[i]
		args := []any{"id", c.ID}
		if len(c.Fields) > 0 {
			args = append(args, "fields", c.Fields)
		}
		level := slog.LevelInfo
		text := c.Object + " " + c.Op
		switch {
		case c.Restart && slices.Contains(waiting, c.ID):
			level, text = slog.LevelWarn, text+"; it takes effect at the next start"
		case c.Restart:
			text += "; it is what runs again"
		}
		r.Logger.Log(context.Background(), level, text, args...)
	}
	for _, f := range lines(report) {
		r.Logger.Warn("configuration warning", "finding", f)
	}
	r.Logger.Info("configuration applied", "generation", e.Generation, "trigger", e.Trigger, "changes", len(e.Changes), "digest", short(e.Digest))
	r.Notify("STATUS=configuration " + fmt.Sprint(e.Generation) + " runs")
}
