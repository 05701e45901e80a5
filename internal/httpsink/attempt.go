package httpsink

import (
	"context"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// attempt is the context of one request. The dialer finds it by its Value and
// notes how far it came, also when nobody waits for the connection any longer:
// another address of the host may still be tried. That is why one that has
// dialled is not used again.
type attempt struct {
	context.Context

	end time.Time // of the attempt; zero = that of the Context

	mu      sync.Mutex
	started time.Time // of the dial
	control time.Time // first address tried: the name is resolved
	opened  time.Time // there is a connection to the receiver, TLS not yet
	addr    string    // last address tried
	step    string    // what is done over the TCP connection to make it ready

	given bool  // there was a connection, set by note
	sent  bool  // the request was written, set by note
	ended error // how the receiver ended the connection, set by note; nil = not
}

type attemptKey struct{}

// Value implements context.Context.
func (at *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return at
	}
	if at.Context == nil {
		return nil
	}
	return at.Context.Value(key)
}

// Deadline implements context.Context. A net.Dialer that knew of the end would
// come before it by a hair, and by more when a host has several addresses; then
// it would look as if the connection had failed before the time was over.
func (at *attempt) Deadline() (time.Time, bool) { return time.Time{}, false }

// enter notes what is waited for from now on.
func (at *attempt) enter(step string) {
	at.mu.Lock()
	at.step = step
	at.mu.Unlock()
}

// over is why the attempt has to end; nil = it need not.
func (at *attempt) over() error {
	if err := at.Err(); err != nil {
		return err
	}
	if !at.end.IsZero() && !time.Now().Before(at.end) {
		return context.DeadlineExceeded
	}
	return nil
}

// note copies what was seen of an exchange over c into a. c is nil for a
// connection that is none of ours.
func (at *attempt) note(a *delivery.Attempt, c *conn, written, answered time.Time) {
	at.given, at.sent = true, !written.IsZero()
	if c != nil {
		a.Remote = c.remote
		if !a.Reused {
			a.Phases = c.phases
		}
		if err := c.ended.Load(); err != nil {
			at.ended = *err
		}
	}
	if at.sent && !answered.IsZero() {
		a.Phases.FirstByte = max(answered.Sub(written), 1)
	}
}

// takeDial tells of a connection that did not come about.
func (at *attempt) takeDial(a *delivery.Attempt) {
	at.mu.Lock()
	defer at.mu.Unlock()
	a.Remote = at.addr
	switch now := time.Now(); {
	case at.started.IsZero():
	case at.control.IsZero():
		a.Phases.DNS = now.Sub(at.started)
	case at.opened.IsZero():
		a.Phases.DNS, a.Phases.Connect = at.control.Sub(at.started), now.Sub(at.control)
	default:
		a.Phases.DNS, a.Phases.Connect, a.Phases.TLS = at.control.Sub(at.started), at.opened.Sub(at.control), now.Sub(at.opened)
	}
}
