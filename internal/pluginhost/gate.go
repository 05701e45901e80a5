package pluginhost

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// gate lets calls into one process: any number together, or one alone. Whoever waits is
// let in in the order of arrival, so that neither kind keeps the other out. The zero
// value is open.
type gate struct {
	mu      sync.Mutex
	active  int
	alone   bool // the one active call is alone
	waiting []*waiter
	closed  bool
	idle    chan struct{} // made by close, closed when nothing is active any more
}

type waiter struct {
	alone bool
	done  chan struct{} // closed when err and in are set
	in    bool
	err   error
}

var errClosed = errors.New("the plugin's process ends")

// enter waits for its turn. A caller that was let in leaves afterwards.
func (g *gate) enter(ctx context.Context, alone bool) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errClosed
	}
	if len(g.waiting) == 0 && g.fits(alone) {
		g.admit(alone)
		g.mu.Unlock()
		return nil
	}
	w := &waiter{alone: alone, done: make(chan struct{})}
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case w.in:
		g.out()
	case w.err == nil:
		g.waiting = slices.DeleteFunc(g.waiting, func(x *waiter) bool { return x == w })
		g.next() // it may have stood in the way
	}
	return context.Cause(ctx)
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.out()
}

// close turns everybody away who waits or comes later. The channel is closed when the
// last one has left.
func (g *gate) close() (idle <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return g.idle
	}
	g.closed, g.idle = true, make(chan struct{})
	for _, w := range g.waiting {
		w.err = errClosed
		close(w.done)
	}
	g.waiting = nil
	if g.active == 0 {
		close(g.idle)
	}
	return g.idle
}

func (g *gate) fits(alone bool) bool { return g.active == 0 || !alone && !g.alone }

func (g *gate) admit(alone bool) {
	g.active++
	g.alone = alone
}

func (g *gate) out() {
	g.active--
	g.alone = false
	if g.closed && g.active == 0 {
		close(g.idle)
	}
	g.next()
}

func (g *gate) next() {
	for len(g.waiting) > 0 && g.fits(g.waiting[0].alone) {
		w := g.waiting[0]
		g.waiting = g.waiting[1:]
		g.admit(w.alone)
		w.in = true
		close(w.done)
	}
}
