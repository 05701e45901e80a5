package relay

import (
	"errors"
	"time"
)

// gateState says why events cannot be taken; a nil err is open.
type gateState struct{ err error }

var (
	errStarting = errors.New("the daemon is starting")
	errStopping = errors.New("the daemon is stopping")
)

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
