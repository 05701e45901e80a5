package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// State is what a plugin's process is doing. See the package documentation.
type State string

const (
	StateStarting  State = "starting"  // a process is started, described and given its instances
	StateReady     State = "ready"     // it takes deliveries
	StateBackoff   State = "backoff"   // it ended, or could not be started, and is tried again soon
	StateSuspended State = "suspended" // that happened too often; it is tried again every five minutes
	StateDraining  State = "draining"  // nobody uses it any more; it ends
	stateStopped   State = "stopped"   // it is gone for good, and so is the plugin
)

// binary is one executable file and the process that runs it. Its supervisor, one
// goroutine, makes every change of state; others add and remove holders, and wake it.
//
// It has more fields than a struct should, because they change together under one lock.
type binary struct {
	host *Host
	file File

	mask atomic.Pointer[secret.Masker] // hides the secrets of all instances of this process

	tasks sync.WaitGroup // calls of Configure and Close beside the supervisor
	wake  chan struct{}  // holders or quitting changed
	retry chan struct{}  // somebody wants a start now

	mu         sync.Mutex
	executable executable // nil until it could be opened
	state      State
	since      time.Time     // of state
	changed    chan struct{} // closed when state changes
	run        *run          // the process; nil = there is none
	cancel     context.CancelFunc
	handles    int // holders other than instances
	instances  []*Instance
	unused     time.Time // since when there is no holder; zero = there is one
	quitting   bool
	about      *about // what the process said of itself last; nil = never
	secrets    secret.Patterns
	history    history
	complaints complaints
}

// run is one process, from its start to its end.
type run struct {
	child child
	about *about
	gate  gate
	ready time.Time // when it was; set by the supervisor

	// Guarded by the binary's lock.
	lost     bool   // the process has ended, or is being ended for good
	why      string // why the host ended it; "" = it did not
	misses   int    // calls of Health without an answer
	healthy  bool
	feelings string // what it says of its health
}

func newBinary(h *Host, f File, file executable) *binary {
	b := &binary{host: h, file: f, executable: file, handles: 1, state: StateStarting, since: time.Now(),
		changed: make(chan struct{}), wake: make(chan struct{}, 1), retry: make(chan struct{}, 1)}
	b.mask.Store(secret.NewMasker(&b.secrets))
	return b
}

func (b *binary) opened() executable {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.executable
}

// serves reports whether f names this binary.
func (b *binary) serves(f File) bool {
	if b.file.Sink != f.Sink || b.file.Path != f.Path {
		return false
	}
	file := b.opened()
	if file == nil {
		return b.file.SHA256 == f.SHA256
	}
	return f.SHA256 == "" || strings.EqualFold(f.SHA256, file.Identity().SHA256)
}

// current reports whether the path still leads to the file that is open.
func (b *binary) current() bool {
	file := b.opened()
	return file == nil || !file.Changed()
}

// inUse reports whether an instance has, or is to have, this binary.
func (b *binary) inUse() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.instances) > 0
}

// hold keeps the process; false = it is too late.
func (b *binary) hold() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ending() {
		return false
	}
	b.handles++
	b.unused = time.Time{}
	return true
}

func (b *binary) release() {
	b.mu.Lock()
	b.handles--
	b.left()
	b.mu.Unlock()
}

// ending reports whether the binary can have no new holders. The caller holds mu.
func (b *binary) ending() bool {
	return b.quitting || b.state == StateDraining || b.state == stateStopped
}

// left notes that a holder has gone. The caller holds mu.
func (b *binary) left() {
	if b.handles > 0 || len(b.instances) > 0 {
		return
	}
	b.unused = time.Now()
	if b.state == StateStarting && b.cancel != nil {
		b.cancel()
	}
	b.poke()
}

func (b *binary) poke() {
	select {
	case b.wake <- struct{}{}:
	default: // it is being woken already
	}
}

// quit ends the plugin, whoever holds it.
func (b *binary) quit() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.quitting = true
	if b.cancel != nil {
		b.cancel()
	}
	b.poke()
}

// wanted reports whether a process is to be started. The caller holds mu.
func (b *binary) wanted() bool {
	return !b.quitting && (b.handles > 0 || len(b.instances) > 0)
}

// update changes something that instances look at, and tells.
func (b *binary) update(f func()) {
	b.mu.Lock()
	f()
	changed := b.refresh()
	b.mu.Unlock()
	if changed {
		b.host.opts.Changed()
	}
}

// refresh gives the instances what they answer from. The caller holds mu.
func (b *binary) refresh() (changed bool) {
	for _, i := range b.instances {
		changed = i.refresh(b) || changed
	}
	return changed
}

// enter changes the state. The caller holds mu.
func (b *binary) enter(s State) {
	b.state, b.since = s, time.Now()
	close(b.changed)
	b.changed = make(chan struct{})
}

// await waits until the process is ready. When it cannot be started it says why; patient
// = without trying again what failed before.
func (b *binary) await(ctx context.Context, patient bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	failed := b.history.failures
	for {
		switch b.state {
		case StateReady:
			return nil
		case StateBackoff, StateSuspended:
			if patient || b.history.failures > failed {
				return b.down()
			}
			b.startNow()
		case StateDraining, stateStopped:
			if b.history.failures > failed {
				return b.down()
			}
			return errStopping
		}
		changed := b.changed
		b.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = fmt.Errorf("sink plugin %s is not ready: %w", b.file.Sink, context.Cause(ctx))
		}
		b.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// hasten makes what is due later due now.
func (b *binary) hasten() {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case StateBackoff, StateSuspended:
		b.startNow()
	case StateReady:
		for _, i := range b.instances {
			if !i.next.IsZero() {
				i.next = time.Now()
			}
		}
		b.poke()
	}
}

// startNow ends the pause before the next start. The caller holds mu.
func (b *binary) startNow() {
	select {
	case b.retry <- struct{}{}:
	default: // it was asked for already
	}
}

// down says why there is no process. The caller holds mu.
func (b *binary) down() error {
	return fmt.Errorf("sink plugin %s: %w", b.file.Sink, errors.New(b.history.last))
}

func (b *binary) description() Description {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.about == nil {
		return Description{}
	}
	return b.about.Description
}

// serving is the process that takes calls, nil when there is none.
func (b *binary) serving() *run {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.servingLocked()
}

func (b *binary) servingLocked() *run {
	if b.state != StateReady || b.run == nil || b.run.lost {
		return nil
	}
	return b.run
}

// lose notes that a process takes no calls any more, as soon as somebody notices.
func (b *binary) lose(r *run, why string) {
	b.update(func() {
		r.lost = true
		if r.why == "" {
			r.why = why
		}
	})
	r.gate.close()
}

// hide adds secrets to what is masked in whatever the process says, before it gets to
// know them.
func (b *binary) hide(list []secret.String) {
	if len(list) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	addSecrets(&b.secrets, list)
	b.mask.Store(secret.NewMasker(&b.secrets))
}

// forgetSecrets leaves those of the instances that there are, for a process that never
// knew others.
func (b *binary) forgetSecrets() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.secrets = secret.Patterns{}
	for _, i := range b.instances {
		addSecrets(&b.secrets, i.secrets)
	}
	b.mask.Store(secret.NewMasker(&b.secrets))
}

// text is what the process said, fit to be shown in one line.
func (b *binary) text(s string, most int) string {
	return strings.TrimSpace(b.mask.Load().Line(s, most))
}
