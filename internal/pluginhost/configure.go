package pluginhost

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

const (
	// atOnce is how many instances are configured at the same time.
	atOnce = 8
	// retryConfigure is how long the first retry of a failed call waits. The wait doubles
	// each time, up to Times.Probe.
	retryConfigure = 15 * time.Second
)

// unconfigured lists the instances that this process does not know yet.
func (b *binary) unconfigured(r *run) (todo []*Instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range b.instances {
		if i.tried != r {
			i.tried, i.busy = r, true
			todo = append(todo, i)
		}
	}
	return todo
}

// hasUnconfigured is the same question. The caller holds mu.
func (b *binary) hasUnconfigured(r *run) bool {
	for _, i := range b.instances {
		if i.tried != r {
			return true
		}
	}
	return false
}

// configureAll gives a new process its instances. Those that were being configured when
// an earlier process died come last, and one by one; after three deaths they are left
// out, if there are others to protect.
//
// It fails when the process died, or answered none of the calls. A single call that fails
// costs the webhook of its instance only.
func (b *binary) configureAll(ctx context.Context, r *run, todo []*Instance) error {
	var clean, suspects []*Instance
	b.mu.Lock()
	for _, i := range todo {
		if i.crashes == 0 {
			clean = append(clean, i)
		} else {
			suspects = append(suspects, i)
		}
	}
	// The one that did it has the most deaths, sooner or later, and comes last.
	slices.SortStableFunc(suspects, func(x, y *Instance) int { return cmp.Compare(x.crashes, y.crashes) })
	b.mu.Unlock()
	errs := make([]error, len(clean))
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for n, i := range clean {
		slots <- struct{}{}
		wg.Go(func() {
			if !r.gone() { // else it would look as if the process had died of this one too
				_, errs[n] = b.configure(ctx, r, i, true)
			}
			<-slots
		})
	}
	wg.Wait()
	for _, i := range suspects {
		if r.gone() || ctx.Err() != nil {
			break
		}
		if b.leaveOut(r, i) {
			continue
		}
		_, err := b.configure(ctx, r, i, true)
		errs = append(errs, err)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if r.gone() {
		return b.died(r)
	}
	if failed := slices.IndexFunc(errs, func(err error) bool { return err != nil }); failed >= 0 && !b.hasAnswered(r) {
		return errs[failed]
	}
	return nil
}

// leaveOut decides whether an instance is refused because the process died of it too
// often.
func (b *binary) leaveOut(r *run, i *Instance) (left bool) {
	b.update(func() {
		others := false
		for _, x := range b.instances {
			others = others || x.on == r
		}
		if left = others && i.crashes >= maxCrashes; left {
			i.busy = false
			i.refused = fmt.Sprintf("the process of the plugin died %d times when it got these settings", i.crashes)
		}
	})
	if left {
		b.logInstance(i)
	}
	return left
}

// hasAnswered reports whether the process has answered for any instance.
func (b *binary) hasAnswered(r *run) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range b.instances {
		if i.on == r || i.tried == r && i.refused != "" {
			return true
		}
	}
	return false
}

// configure makes one instance in one process, after it was marked as busy and tried in it. log = nobody
// else tells the operator what comes of it.
func (b *binary) configure(ctx context.Context, r *run, i *Instance, log bool) (found []Diagnostic, err error) {
	b.learn(r, i)
	found = r.about.schema.check(i.opts.Settings)
	if !hasError(found) {
		found, err = b.callConfigure(ctx, r, i, found)
	}
	closed, mine := false, false
	b.update(func() {
		closed, mine = i.closed, i.tried == r
		if err != nil && r.gone() {
			i.crashes++
		}
		if !mine {
			return // a later process has got it meanwhile
		}
		i.busy, i.refused, i.trouble, i.next = false, "", "", time.Time{}
		switch {
		case err != nil && r.gone():
		case err != nil:
			i.trouble, i.next = err.Error(), time.Now().Add(min(retryConfigure<<min(i.tries, 10), b.host.times.Probe))
			i.tries++
		case hasError(found):
			i.refused, i.next = summary(found), time.Now().Add(b.host.times.Probe)
			i.crashes = 0
		default:
			i.on, i.crashes, i.tries = r, 0, 0
		}
	})
	if closed && err == nil {
		b.closeIn(r, i)
	}
	if log && mine {
		b.logInstance(i)
	}
	return found, err
}

// learn has the secrets of an instance masked before the process gets them.
func (b *binary) learn(r *run, i *Instance) {
	if i.opts.Secrets == nil {
		return
	}
	list := i.opts.Secrets(r.about.Schema)
	b.mu.Lock()
	i.secrets = list
	b.mu.Unlock()
	b.hide(list)
}

func (b *binary) callConfigure(ctx context.Context, r *run, i *Instance, found []Diagnostic) ([]Diagnostic, error) {
	ctx, cancel := context.WithTimeout(ctx, b.host.times.Configure)
	defer cancel()
	resp, err := r.child.Client().Configure(ctx, &sinkpb.ConfigureRequest{Instance: i.id, Webhook: i.opts.Webhook,
		SettingsJson: i.opts.Settings, HostVersion: b.host.opts.Version}, bounded(diagnosticsSize, maxDiagnostics)...)
	if err != nil {
		return found, b.callError(r, "the configuration of webhook "+i.opts.Webhook, err)
	}
	return append(found, b.diagnostics(resp.GetDiagnostics())...), nil
}

// configureSoon has the supervisor configure an instance beside its other work.
func (b *binary) configureSoon(i *Instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i.trouble, i.tries, i.next = "", 0, time.Now()
	b.poke()
}

// configureLate tries those instances again whose time has come, beside the supervisor.
func (b *binary) configureLate(r *run) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, i := range b.instances {
		if i.on == r || i.busy || i.next.IsZero() || now.Before(i.next) {
			continue
		}
		i.busy = true
		b.tasks.Go(func() { _, _ = b.configure(b.host.ctx, r, i, true) })
	}
}

// closeIn tells a process that an instance is not used any more, beside the caller.
func (b *binary) closeIn(r *run, i *Instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ending() || b.run != r || r.lost {
		return // it closes them all when it ends
	}
	b.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(b.host.ctx, b.host.times.Close)
		defer cancel()
		if _, err := r.child.Client().Close(ctx, &sinkpb.CloseRequest{Instance: i.id}, bounded(64<<10, 64)...); err != nil && !r.gone() {
			b.host.log.Debug("a sink plugin did not close an instance", "sink", b.file.Sink, "webhook", i.opts.Webhook, "err", b.words(err))
		}
	})
}

// logInstance tells the operator when an instance cannot be used, and when it can again.
func (b *binary) logInstance(i *Instance) {
	b.mu.Lock()
	refused, trouble, was := i.refused, i.trouble, i.logged
	i.logged = refused + trouble
	now, closed := i.logged, i.closed
	b.mu.Unlock()
	log := b.host.log.With("sink", b.file.Sink, "webhook", i.opts.Webhook)
	switch {
	case closed || now == was:
	case refused != "":
		log.Error("a webhook is held: its sink plugin refuses the settings; correct them and reload", "err", refused)
	case trouble != "":
		log.Warn("a webhook is held: its sink plugin could not be configured; that is tried again", "err", trouble)
	default:
		log.Info("a webhook is no longer held: its sink plugin takes the settings")
	}
}
