package pluginhost

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// InstanceOptions are one webhook under one configuration. File and Webhook are required.
type InstanceOptions struct {
	File     File
	Webhook  string // "helper.webhook"
	Settings []byte // a JSON object, secrets in clear; nil = {}
	// Secrets are to be masked in whatever the plugin says. It is called with the schema of
	// the settings, once for each process of the plugin. nil = there are none.
	Secrets func(schema []byte) []secret.String
	Signer  *signing.Signer // nil = unsigned
	Helper  sinks.Helper    // for payloads that do not tell of it
	// Patient gives an instance also of a plugin that cannot be started or configured now,
	// or that refuses the settings: it is held, and usable as soon as the plugin takes
	// them. A file that is not there yet may come.
	Patient bool
}

// Instance is one webhook's sink within a plugin. All methods may be called concurrently.
type Instance struct {
	b     *binary
	id    string // opaque to the plugin
	opts  InstanceOptions
	terms atomic.Pointer[terms]

	// Guarded by b.mu.
	secrets []secret.String
	on      *run      // that has it configured
	tried   *run      // the last that was asked to
	busy    bool      // a call of Configure is under way
	refused string    // why the plugin does not take the settings; "" = it does, or was not asked
	trouble string    // why the call failed; "" = it did not
	tries   int       // calls that failed, one after the other
	next    time.Time // of the next try in the same process; zero = none
	crashes int       // of the process while this was being configured
	logged  string
	closed  bool
}

// terms are what Held and Limits answer, and where calls go. They change as a whole.
type terms struct {
	run    *run // nil = there is none that can be called
	held   delivery.HoldReason
	limits delivery.Limits
}

// Open makes an instance: it makes sure that the plugin runs, as Inspect does, and
// configures it. Without an error it returns an instance, or findings of which at least
// one is not a warning: then there is no instance, unless the caller is patient.
func (h *Host) Open(ctx context.Context, o InstanceOptions) (*Instance, []Diagnostic, error) {
	if o.Settings == nil {
		o.Settings = []byte("{}")
	}
	b, err := h.find(o.File, o.Patient)
	if err != nil {
		return nil, nil, err
	}
	defer b.release()
	if err := b.await(ctx, o.Patient); err != nil && !o.Patient {
		return nil, nil, err
	}
	i := h.newInstance(b, o)
	r := b.attach(i)
	if r == nil {
		if o.Patient {
			return i, nil, nil // the supervisor configures it
		}
		i.Close()
		return nil, nil, fmt.Errorf("sink plugin %s ended meanwhile", o.File.Sink)
	}
	found, err := b.configure(ctx, r, i, false)
	switch {
	case err != nil && o.Patient:
		if ctx.Err() != nil {
			b.configureSoon(i) // the caller's time was over, not the plugin's
			return i, nil, nil
		}
		b.logInstance(i)
		b.giveUp(r, err)
		return i, nil, nil
	case err != nil:
		i.Close()
		if ctx.Err() == nil {
			b.giveUp(r, err)
		}
		return nil, nil, fmt.Errorf("sink plugin %s: %w", o.File.Sink, err)
	case hasError(found) && o.Patient:
		b.logInstance(i)
	case hasError(found):
		i.Close()
		return nil, found, nil
	}
	return i, found, nil
}

func (h *Host) newInstance(b *binary, o InstanceOptions) *Instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serial++
	i := &Instance{b: b, opts: o, id: o.Webhook + "#" + strconv.FormatUint(h.serial, 10)}
	i.terms.Store(&terms{held: delivery.HoldPluginDown})
	return i
}

// attach adds an instance. When a process is ready it is the caller's to configure the
// instance in it; else the supervisor does so before the next one is ready.
func (b *binary) attach(i *Instance) *run {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.instances = append(b.instances, i)
	b.unused = time.Time{}
	r := b.servingLocked()
	if r != nil {
		i.tried, i.busy = r, true
	}
	i.refresh(b)
	return r
}

// giveUp ends a process that did not answer for the only instance it was asked about. One
// that serves others is left to its health checks.
func (b *binary) giveUp(r *run, err error) {
	if r.gone() || b.hasAnswered(r) {
		return
	}
	b.lose(r, err.Error())
	r.child.Abort(false)
}

// Held is why the instance takes no deliveries now; "" = it takes them.
func (i *Instance) Held() delivery.HoldReason { return i.terms.Load().held }

// Limits is how the plugin wants to be called; zero before it has said so.
func (i *Instance) Limits() delivery.Limits { return i.terms.Load().limits }

// Capabilities are what the plugin says of itself; zero before it has.
func (i *Instance) Capabilities() sinks.Capabilities { return i.b.description().Capabilities }

// refresh computes the terms anew. The caller holds b.mu.
func (i *Instance) refresh(b *binary) (changed bool) {
	before := i.terms.Load()
	now := terms{held: delivery.HoldPluginDown, limits: before.limits}
	if b.about != nil {
		now.limits = b.about.limits
	}
	if r := b.servingLocked(); r != nil && !i.closed {
		switch {
		case i.on == r:
			now.run, now.held = r, ""
		case i.refused != "":
			now.held = delivery.HoldMisconfigured
		}
	}
	if now == *before {
		return false
	}
	i.terms.Store(&now)
	return now.held != before.held || now.limits != before.limits
}

// Close ends the instance: nothing is delivered through it any more. The plugin learns of
// it later; one that has no other use is ended. Closing again does nothing.
func (i *Instance) Close() {
	b := i.b
	b.mu.Lock()
	if i.closed {
		b.mu.Unlock()
		return
	}
	i.closed = true
	r := i.on
	configured := r != nil && r == b.run
	i.refresh(b)
	b.mu.Unlock()
	if configured {
		b.closeIn(r, i)
	}
	b.mu.Lock()
	b.instances = slices.DeleteFunc(b.instances, func(x *Instance) bool { return x == i })
	b.left()
	b.mu.Unlock()
}

// Why says why no call is possible, to an operator.
func (i *Instance) Why() string {
	b := i.b
	b.mu.Lock()
	defer b.mu.Unlock()
	name := "the sink plugin " + b.file.Sink
	last := ""
	if b.history.last != "" {
		last = ": " + b.history.last
	}
	switch {
	case i.closed:
		return name + " no longer serves this configuration of the webhook"
	case b.ending():
		return name + " is being stopped"
	case b.state == StateStarting:
		return name + " is being started" + last
	case b.state == StateBackoff, b.state == StateSuspended:
		return fmt.Sprintf("%s is not running%s; the next start is in %s", name, last, time.Until(b.history.next).Round(time.Second))
	case b.run == nil || b.run.lost:
		return name + " has just ended"
	case i.refused != "":
		return name + " refuses the settings: " + i.refused
	case i.trouble != "":
		return name + ": " + i.trouble
	}
	return name + " is not ready for this webhook yet"
}
