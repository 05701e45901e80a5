package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
)

const (
	// killGrace is how long a process that was killed may take to be gone before the host
	// goes on without it. Only the kernel can keep it so long.
	killGrace = 10 * time.Second
	// maxReason is the length of what is said of a failure, in bytes.
	maxReason = 1 << 10
)

// supervise is the life of a binary. It makes every change of state.
func (b *binary) supervise() {
	defer b.finish()
	for {
		r, err := b.start()
		if err == nil {
			if err = b.serve(r); err == nil {
				return
			}
		}
		if !b.pause(r, err) {
			return
		}
	}
}

// finish is the end of the binary.
func (b *binary) finish() {
	b.tasks.Wait()
	b.update(func() { b.enter(stateStopped) })
	b.host.forget(b)
	if file := b.opened(); file != nil {
		if err := file.Close(); err != nil {
			b.host.log.Warn("the file of a sink plugin could not be closed", "sink", b.file.Sink, "err", err)
		}
	}
}

// start starts a process and returns when it is ready.
func (b *binary) start() (*run, error) {
	ctx, cancel := context.WithCancel(b.host.ctx)
	defer cancel()
	b.mu.Lock()
	if !b.wanted() {
		cancel()
	}
	b.cancel = cancel
	if b.state != StateStarting {
		b.enter(StateStarting)
	}
	b.history.next = time.Time{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.cancel = nil
		b.mu.Unlock()
	}()
	b.forgetSecrets()
	file, err := b.executableNow()
	if err != nil {
		return nil, err
	}
	if err := b.host.sockets.prepare(); err != nil {
		return nil, err
	}
	c, err := file.start(ctx, process.Options{Sink: b.file.Sink, SocketDir: b.host.opts.SocketDir, Logger: b.host.opts.Logger,
		Mask: func(s string) string { return b.mask.Load().Text(s) }, Limits: b.host.opts.Process})
	if err != nil {
		return nil, err
	}
	r := &run{child: c, healthy: true}
	b.mu.Lock()
	b.run = r
	b.mu.Unlock()
	if err := b.prepare(ctx, r); err != nil {
		return r, b.abandon(r, err)
	}
	b.logReady(r)
	return r, nil
}

// executableNow opens the file, if that has not worked before.
func (b *binary) executableNow() (executable, error) {
	if file := b.opened(); file != nil {
		return file, nil
	}
	file, err := b.host.open(b.file.Path, b.file.SHA256)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.executable = file
	return file, nil
}

// prepare describes a new process and gives it the instances. Commit point: with the last
// update deliveries go to it. An instance that comes later is its Open's to configure.
func (b *binary) prepare(ctx context.Context, r *run) error {
	about, err := b.describe(ctx, r)
	if err != nil {
		return err
	}
	b.update(func() { b.about, r.about = about, about })
	for {
		todo := b.unconfigured(r)
		if len(todo) > 0 {
			if err := b.configureAll(ctx, r, todo); err != nil {
				return err
			}
			continue
		}
		ready := false
		b.update(func() {
			ready = !b.hasUnconfigured(r)
			if !ready || ctx.Err() != nil {
				return
			}
			r.ready = time.Now()
			b.history.started++
			b.enter(StateReady)
		})
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if ready {
			return nil
		}
	}
}

// abandon kills a process that could not be made ready and says why: err, unless it had
// ended by itself.
func (b *binary) abandon(r *run, err error) error {
	select {
	case <-r.child.Done():
		if _, died := errors.AsType[*diedError](err); !died {
			err = fmt.Errorf("%w; it %s", err, r.child.Exit())
		}
	default:
		r.child.Abort(false)
		b.awaitEnd(r)
	}
	return err
}

// awaitEnd waits for a process that was killed.
func (b *binary) awaitEnd(r *run) {
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case <-r.child.Done():
	case <-timer.C:
		b.host.log.Error("a sink plugin does not end after SIGKILL; the host goes on without it", "sink", b.file.Sink, "pid", r.child.PID())
	}
}

// serve watches over a process that is ready. It returns nil when nobody wanted the
// process any more and it is gone, else how it ended.
func (b *binary) serve(r *run) error {
	health := time.NewTicker(b.host.times.Health)
	defer health.Stop()
	idle := time.NewTimer(0)
	defer idle.Stop()
	for {
		if drain, wait := b.unwanted(); drain {
			b.drain(r)
			return nil
		} else if wait > 0 {
			idle.Reset(wait)
		}
		select {
		case <-r.child.Done():
			b.lose(r, "")
			return b.died(r)
		case <-health.C:
			if b.checkHealth(r) {
				b.lose(r, fmt.Sprintf("it did not answer %d health checks of %s each and was killed", maxMisses, b.host.times.HealthDeadline))
				b.host.log.Error("a sink plugin does not answer and is killed; it is started again; the stacks of its goroutines follow if it can write them",
					"sink", b.file.Sink, "pid", r.child.PID(), "misses", maxMisses)
				r.child.Abort(true)
				b.awaitEnd(r)
				return b.died(r)
			}
			b.configureLate(r)
		case <-b.wake:
			b.configureLate(r)
		case <-idle.C:
		}
	}
}

// unwanted decides whether the process ends now, because of quit or because nobody has
// held it for Times.Linger; else wait is how long until then, 0 = there are holders.
func (b *binary) unwanted() (drain bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.quitting {
		if b.unused.IsZero() {
			return false, 0
		}
		if wait = b.host.times.Linger - time.Since(b.unused); wait > 0 {
			return false, wait
		}
	}
	b.enter(StateDraining) // from here on hold refuses
	return true, 0
}

// drain ends a process that is not needed any more: nothing new goes to it, what is under
// way ends, then it is asked to go, and made to.
func (b *binary) drain(r *run) {
	b.update(func() {}) // the instances learn of the new state
	b.host.log.Info("a sink plugin is ended: nothing uses it any more", "sink", b.file.Sink, "pid", r.child.PID(), "version", r.about.Version)
	ctx, cancel := context.WithTimeout(b.host.ctx, b.host.times.Drain)
	defer cancel()
	select {
	case <-r.gate.close():
	case <-r.child.Done():
	case <-ctx.Done():
	}
	b.tasks.Wait()
	r.child.Stop(b.host.ctx)
}

// pause follows the end of a process, or a start that failed: it waits for the time of
// the next start. false = there is none.
func (b *binary) pause(r *run, err error) bool {
	up, crash, served := time.Duration(0), "", false
	if r != nil {
		crash = crashReport(r)
		if served = !r.ready.IsZero(); served {
			up = time.Since(r.ready)
		}
	}
	wanted, suspended := false, false
	var next time.Time
	var recent int
	b.update(func() {
		b.run = nil
		select { // a wish from before the failure was heard
		case <-b.retry:
		default:
		}
		h := &b.history
		before := h.suspended
		h.failed(time.Now(), up, &b.host.times, b.text(reason(err, b.file.Sink), maxReason), crash)
		wanted, suspended, next = b.wanted(), h.suspended && !before, h.next
		recent = h.recent(time.Now(), &b.host.times)
		switch {
		case !wanted:
			b.enter(StateDraining) // from here on hold refuses
		case h.suspended:
			b.enter(StateSuspended)
		default:
			b.enter(StateBackoff)
		}
	})
	b.logDown(served, suspended, wanted, recent, next)
	if !wanted {
		return false
	}
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return b.stillWanted()
		case <-b.retry:
			return b.stillWanted()
		case <-b.wake:
			if !b.stillWanted() {
				return false
			}
		}
	}
}

// stillWanted decides whether there will be another start. A holder that comes after the
// answer no takes another binary.
func (b *binary) stillWanted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.wanted() {
		b.enter(StateDraining)
		return false
	}
	return true
}

func (b *binary) logReady(r *run) {
	b.mu.Lock()
	restarts := b.history.started - 1
	b.mu.Unlock()
	b.host.log.Info("a sink plugin is ready", "sink", b.file.Sink, "version", r.about.Version, "pid", r.child.PID(), "restarts", restarts)
}

// logDown says what a failure means and what the operator can do.
func (b *binary) logDown(served, suspended, wanted bool, recent int, next time.Time) {
	b.mu.Lock()
	last, state, used := b.history.last, b.state, len(b.instances) > 0
	b.mu.Unlock()
	log := b.host.log.With("sink", b.file.Sink, "path", b.file.Path, "err", last)
	switch {
	case !wanted:
		log.Info("a sink plugin is gone and not needed any more")
	case suspended:
		log.Error("a sink plugin ended too often and is suspended: its webhooks are held and lose nothing; replace or repair it, then reload",
			"ends", recent, "within", b.host.times.Window, "next_start", next)
	case state == StateSuspended:
		log.Warn("a suspended sink plugin still cannot run; replace or repair it, then reload", "next_start", next)
	case !used:
		log.Warn("a sink plugin that no webhook uses yet cannot be started")
	case served:
		log.Warn("a sink plugin ended and is started again; its webhooks are held meanwhile", "ends", recent, "next_start", next)
	default:
		log.Warn("a sink plugin cannot be started and is tried again; its webhooks are held meanwhile", "ends", recent, "next_start", next)
	}
}

// reason is the text of an error, without the name that is said beside it.
func reason(err error, sink string) string {
	return strings.TrimPrefix(err.Error(), "start sink plugin "+sink+": ")
}
