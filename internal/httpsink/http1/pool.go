package http1

import (
	"slices"
	"sync"
	"time"
)

// Pool keeps idle connections to one receiver. The last one in is the first one
// out, so that the others can grow old. Nobody reads from them: one that the
// receiver ends is found out, and closed, when it is asked for or has grown old.
// It is safe for concurrent use.
type Pool struct {
	most   int
	keep   time.Duration
	mu     sync.Mutex
	idle   []*Conn // the longest idle first
	timer  *time.Timer
	armed  bool
	closed bool
}

// NewPool returns a pool of at most most connections, each of which is kept for
// keep after its last use.
func NewPool(most int, keep time.Duration) *Pool { return &Pool{most: most, keep: keep} }

// Get takes a connection that is alive out of the pool and closes those that
// are not; nil when there is none.
func (p *Pool) Get() *Conn {
	for {
		p.mu.Lock()
		last := len(p.idle) - 1
		if last < 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[last]
		p.idle[last] = nil
		p.idle = p.idle[:last]
		p.mu.Unlock()
		if c.alive() {
			return c
		}
		c.Abort()
	}
}

// Put makes a connection idle, now being the time, or closes it when the pool is
// full or closed.
func (p *Pool) Put(c *Conn, now time.Time) {
	c.idle = now
	p.mu.Lock()
	if keep := !p.closed && len(p.idle) < p.most; keep {
		p.idle = append(p.idle, c)
		p.arm(p.keep)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	_ = c.Close() // the exchange is over, so nothing is lost
}

// arm sees to it that expire is called. p.mu is held.
func (p *Pool) arm(after time.Duration) {
	switch {
	case p.armed:
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(after, p.expire)
	default:
		p.timer.Reset(after)
	}
	p.armed = true
}

// expire closes what has been idle for too long.
func (p *Pool) expire() {
	p.mu.Lock()
	p.armed = false
	if p.closed {
		p.mu.Unlock()
		return
	}
	now := time.Now()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].idle) >= p.keep {
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	if len(p.idle) > 0 {
		p.arm(p.keep - now.Sub(p.idle[0].idle))
	}
	p.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
}

// Close closes the idle connections, and from then on each one that is put
// back. Connections in use are not disturbed.
func (p *Pool) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}
