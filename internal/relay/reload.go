package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/config/history"
	"github.com/peanutsapp/peanuts-relay/internal/config/watch"
	"github.com/peanutsapp/peanuts-relay/internal/configtest"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/reload"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/webhookedit"
)

// prepared is a configuration of which everything has been built. It holds
// relay.switching until it takes effect.
type prepared struct {
	r    *relay
	snap *snapshot
}

// prepare builds what cfg needs and numbers its webhooks, which is the last step
// that can fail.
func (r *relay) prepare(ctx context.Context, cfg *config.Config) (reload.Prepared, error) {
	r.switching.Lock()
	old := r.current.Load()
	snap, err := r.assemble(ctx, cfg, old)
	if err == nil {
		err = snap.number(ctx, r.store.get())
	}
	if err != nil {
		if snap != nil {
			snap.discard()
		}
		r.switching.Unlock()
		if errors.Is(err, queue.ErrStopped) {
			err = fmt.Errorf("%w: %w", reload.ErrStopped, err)
		}
		return nil, err
	}
	return &prepared{r, snap}, nil
}

// assemble does not let a plugin delay the daemon's start for long.
func (r *relay) assemble(ctx context.Context, cfg *config.Config, old *snapshot) (*snapshot, error) {
	first := old.cfg == nil
	if first {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, bootPatience)
		defer cancel()
	}
	return assemble(ctx, cfg, old, sources{r.host, first})
}

// Commit implements [reload.Prepared]. Lanes exist before events can be matched
// with them.
func (p *prepared) Commit(generation uint64) {
	defer p.r.switching.Unlock()
	failpoint.Here("reload.prepared")
	p.snap.mark(generation)
	if err := p.r.store.get().Configure(context.Background(), limits(p.snap.cfg)); err != nil {
		p.r.log.Error("limits of the queue were not changed", "err", err) // it has stopped, and with it the daemon
	}
	failpoint.Here("reload.limits")
	p.r.dispatcher.running().Apply(p.snap.targets)
	failpoint.Here("reload.dispatch")
	p.r.current.Store(p.snap)
	p.r.notices.Set(p.snap.noticeTargets())
	failpoint.Here("reload.routes")
	if p.r.SetLog != nil {
		p.r.SetLog(p.snap.cfg.Log)
	}
}

// newReloader opens the history and makes the reloader of a daemon that starts
// with r.boot. A history that cannot be used costs the daemon only that.
func (r *relay) newReloader(w *watch.Watcher) (l *reload.Reloader, end func() error) {
	var kept reload.History
	end = func() error { return nil }
	if log, err := history.Open(history.Dir(r.boot.Queue.Dir), r.Path); err == nil {
		kept, end = log, log.Close
		r.noteQueue()
		for _, warning := range log.Warnings() {
			r.log.Warn("history of the configuration", "finding", warning)
		}
	} else {
		r.log.Error("history of the configuration cannot be used; a start with broken files would find no last known good configuration", "err", err)
		kept = noHistory{err}
	}
	return reload.New(reload.Options{
		Load:          r.load,
		Path:          r.Path,
		Boot:          r.boot,
		BootReport:    cmp.Or(r.Report, &config.Report{}),
		Rejected:      r.Rejected,
		LastKnownGood: r.LastKnownGood,
		Plugins:       r.checkPlugins,
		Outdated:      r.host.Outdated,
		Asked:         r.probe,
		Prepare:       r.prepare,
		Outlook:       r.outlook,
		History:       kept,
		Watcher:       w,
		Hangup:        r.Hangup,
		Notify:        r.notify,
		Logger:        r.log,
	}), end
}

// probe tries at once what would be tried later: plugins that are to be started again,
// settings that they refused, and a delivery of each webhook that its sink called
// misconfigured.
func (r *relay) probe() {
	r.host.Hasten()
	if d := r.dispatcher.running(); d != nil {
		d.Probe()
	}
}

// noteQueue writes down where the queue is, if it is not where everybody looks: a
// start with files that do not say it any more finds what ran last there.
func (r *relay) noteQueue() {
	usual := config.DefaultStateDir(config.Options{Path: r.Path, LookupEnv: r.LookupEnv})
	if usual == "" || usual == r.boot.Queue.Dir {
		return
	}
	if err := history.Note(usual, r.Path, r.boot.Queue.Dir); err != nil {
		r.log.Info("a start with files that do not say where the queue is would not find the last known good configuration", "err", err)
	}
}

// newEditor makes the editor of webhooks. Tests in the files are for the reload to
// run.
func (r *relay) newEditor() *webhookedit.Editor {
	return webhookedit.New(webhookedit.Options{
		MainFile: r.Path,
		Load: func(files []config.File) (*config.Config, *config.Report) {
			return config.Load(config.Options{Path: r.Path, Files: files, LookupEnv: r.LookupEnv})
		},
		Reload: func(ctx context.Context, uid *uint32) (rest.ReloadResult, error) {
			return control{r}.reload(ctx, reload.Cause{Trigger: rest.TriggerWebhooks, UID: uid})
		},
		Running: func() *config.Config { return r.current.Load().cfg },
	})
}

// load reads the configuration and runs the tests in it.
func (r *relay) load(files []config.File) (*config.Config, *config.Report) {
	cfg, report := config.Load(config.Options{Path: r.Path, Files: files, LookupEnv: r.LookupEnv})
	if cfg == nil {
		return nil, report
	}
	severity := config.SeverityWarning
	if cfg.Reload.RequireTests {
		severity = config.SeverityError
	}
	configtest.Run(cfg, report, severity)
	if report.Err() != nil {
		return nil, report
	}
	return cfg, report
}

// outlook says how the deliveries of a webhook stand.
func (r *relay) outlook(w *config.Webhook) reload.Outlook {
	pending, moved := r.store.get().Outlook(queue.LaneWant{Webhook: w.ID, Identity: identity(w)})
	return reload.Outlook{Pending: pending, Moved: moved}
}

// noHistory stands for a history that cannot be used.
type noHistory struct{ err error }

func (n noHistory) Append(history.Entry, []config.File) error { return n.err }
func (n noHistory) Entries() []history.Entry                  { return nil }
func (n noHistory) Generation() uint64                        { return 0 }
func (n noHistory) Files(uint64) ([]config.File, error)       { return nil, n.err }
