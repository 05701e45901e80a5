package httpsink

import (
	"context"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
)

// watch interrupts exchanges whose time is over, or whose context is cancelled.
// One timer and one callback serve all of a sink's: nearly every exchange ends
// long before its time, and nearly all have the dispatcher's context, so that a
// timer and a callback for each would be made to be thrown away.
type watch struct {
	mu          sync.Mutex
	first, last *watched // in flight, the earliest end first
	timer       *time.Timer
	armed       time.Time // when timer will go off; zero = it will not

	done   <-chan struct{} // of the context that release belongs to
	forget func() bool     // ends the callback; nil without one
	users  int             // exchanges in flight with done
}

// watched is an exchange in flight. It is used again.
type watched struct {
	next, prev *watched
	conn       *http1.Conn
	end        time.Time
	done       <-chan struct{} // of its context; nil = it is never cancelled
	forget     func() bool     // of a callback of its own; nil without one
	cut        bool            // it was interrupted
}

// add watches an exchange over c until remove: ctx and end bound it.
func (w *watch) add(x *watched, ctx context.Context, c *http1.Conn, end time.Time) {
	done := ctx.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	// Under the lock, for the callback of the exchange before may still look at x.
	*x = watched{conn: c, end: end, done: done}
	w.insert(x)
	w.arm()
	if done == nil {
		return
	}
	if w.users == 0 && w.done != done {
		if w.forget != nil {
			w.forget()
		}
		w.done, w.forget = done, context.AfterFunc(ctx, func() { w.cancelled(done) })
	}
	if w.done == done {
		w.users++
	} else {
		x.forget = context.AfterFunc(ctx, func() { w.interrupt(x, c) })
	}
	// The callback may have come before the exchange was in the list.
	if ctx.Err() != nil {
		x.interrupt()
	}
}

// remove ends the watch. It returns false when the connection was interrupted.
func (w *watch) remove(x *watched) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if x.prev == nil {
		w.first = x.next
	} else {
		x.prev.next = x.next
	}
	if x.next == nil {
		w.last = x.prev
	} else {
		x.next.prev = x.prev
	}
	whole := !x.cut
	switch {
	case x.forget != nil:
		whole = x.forget() && whole // else the callback waits for the lock
	case x.done != nil:
		w.users--
	}
	*x = watched{}
	return whole
}

// insert puts x where its end belongs, which is nearly always at the end.
func (w *watch) insert(x *watched) {
	after := w.last
	for after != nil && x.end.Before(after.end) {
		after = after.prev
	}
	x.prev = after
	if after == nil {
		x.next, w.first = w.first, x
	} else {
		x.next, after.next = after.next, x
	}
	if x.next == nil {
		w.last = x
	} else {
		x.next.prev = x
	}
}

// arm sees to it that expired is called at the first end. A timer that goes off
// too early does no harm.
func (w *watch) arm() {
	next := w.first
	for next != nil && next.cut {
		next = next.next
	}
	if next == nil || (!w.armed.IsZero() && !next.end.Before(w.armed)) {
		return
	}
	w.armed = next.end
	if w.timer == nil {
		w.timer = time.AfterFunc(time.Until(w.armed), w.expired)
		return
	}
	w.timer.Reset(time.Until(w.armed))
}

func (w *watch) expired() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for x := w.first; x != nil && !x.end.After(now); x = x.next {
		x.interrupt()
	}
	w.armed = time.Time{}
	w.arm()
}

func (w *watch) cancelled(done <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := w.first; x != nil; x = x.next {
		if x.done == done {
			x.interrupt()
		}
	}
}

// interrupt is the callback of a single exchange, which may be over.
func (w *watch) interrupt(x *watched, c *http1.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if x.conn == c {
		x.interrupt()
	}
}

func (x *watched) interrupt() {
	if !x.cut {
		x.cut = true
		x.conn.Interrupt()
	}
}

// close ends the callback and the timer when nothing is in flight.
func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first != nil {
		return // the timer will find nothing and stay quiet
	}
	if w.forget != nil {
		w.forget()
		w.done, w.forget = nil, nil
	}
	if w.timer != nil {
		w.timer.Stop()
		w.armed = time.Time{}
	}
}
