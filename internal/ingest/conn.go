package ingest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/unixsock"
)

// listener bounds the open connections and wraps each in a [conn].
type listener struct {
	net.Listener
	s    *Server
	once sync.Once
	done chan struct{}
	err  error // of Close
}

func newListener(s *Server, l net.Listener) *listener {
	return &listener{Listener: l, s: s, done: make(chan struct{})}
}

// Accept waits while all slots are taken, so that clients queue in the kernel's
// backlog instead of in our memory.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.s.conns <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	nc, err := l.Listener.Accept()
	if err != nil {
		<-l.s.conns
		return nil, err
	}
	c := &conn{Conn: nc, s: l.s, excess: len(l.s.conns) > l.s.o.MaxConns, socket: l.Addr().String()}
	c.pid, c.uid, _, c.credErr = unixsock.PeerCred(nc)
	l.s.metrics.connections.Add(1)
	return c, nil
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.err = l.Listener.Close()
	})
	return l.err
}

func (l *listener) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// conn closes on a client that stalls: it gives every read of a body and every
// write its own deadline. Between requests the deadlines are net/http's.
type conn struct {
	net.Conn
	s      *Server
	socket string // path of the socket, for messages

	pid     int32
	uid     uint32
	credErr error
	excess  bool // beyond MaxConns: to be told so and closed

	unread  []byte       // read on the short way and left to net/http
	waits   atomic.Int32 // what for: see waitsNot
	closing sync.Once

	// progress is when the client last sent or took something, or could not
	// because of us ([Server.clock]).
	progress atomic.Int64

	mu          sync.Mutex
	inBody      bool
	armed       bool // a read deadline of ours is set
	interrupted bool
	cut         bool
	hooks       hooks
}

// What a connection waits for, as Shutdown has to know.
const (
	waitsNot      int32 = iota // a request is under way
	waitsForFirst              // its client has sent nothing yet
	waitsForNext               // its client may send another request, or not
)

// lastCall ends what the client can send. What it has sent is still read, and whatever it
// sends from now on fails before a byte of it is taken: so a client that keeps a connection
// knows that its request was not taken, and makes it on another. That is what sets a Unix
// socket apart from TCP, where the two cross (SHUT_RD in shutdown(2)).
func (c *conn) lastCall() {
	half, ok := c.Conn.(interface{ CloseRead() error })
	if !ok || half.CloseRead() != nil {
		c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// hooks tell whether a silent client has a reason to be silent; nil = none has.
type hooks struct {
	reading func() bool // while we wait for its bytes
	writing func() bool // while it does not take ours
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) *conn { return ctx.Value(connKey{}).(*conn) }

// beginBody makes reads subject to the stall timeout, until endBody.
func (c *conn) beginBody(h hooks) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inBody, c.hooks = true, h
	c.moved()
}

// endBody must be called as soon as the body was read: net/http then waits in
// a read of its own for the client to go away, for as long as the handler
// takes.
func (c *conn) endBody() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inBody, c.hooks = false, hooks{}
	if c.armed {
		c.armed = false
		c.Conn.SetReadDeadline(time.Time{})
	}
}

// interrupt ends the present and later reads of this body with a timeout.
func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted, c.armed = true, true
	c.Conn.SetReadDeadline(time.Unix(1, 0))
}

// cutOff makes the connection end after the answer: what is left of a body that
// was given up must not be read as the next request.
func (c *conn) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
}

func (c *conn) arm() (armed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cut:
		return false, io.EOF
	case c.interrupted && c.inBody:
		return false, os.ErrDeadlineExceeded
	case !c.inBody:
		return false, nil
	}
	c.armed = true
	wait := c.s.o.StallTimeout - c.quiet()
	if wait <= 0 { // excused, or we did not look for so long
		wait = c.s.o.StallTimeout
	}
	return true, c.Conn.SetReadDeadline(time.Now().Add(wait))
}

// moved books progress.
func (c *conn) moved() { c.progress.Store(int64(c.s.clock())) }

// quiet is how long ago the last progress was.
func (c *conn) quiet() time.Duration { return c.s.clock() - time.Duration(c.progress.Load()) }

func (c *conn) Read(p []byte) (int, error) {
	for {
		armed, err := c.arm()
		if err != nil {
			return 0, err
		}
		if len(c.unread) > 0 {
			n := copy(p, c.unread)
			c.unread = c.unread[n:]
			return n, nil
		}
		n, err := c.Conn.Read(p)
		if !armed {
			return n, err
		}
		if n > 0 {
			c.moved()
			return n, err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !c.excused() {
			return n, err
		}
	}
}

// excused reports whether a client that sent nothing may go on so.
func (c *conn) excused() bool {
	c.mu.Lock()
	ok, reading := c.inBody && !c.interrupted && !c.cut, c.hooks.reading
	c.mu.Unlock()
	return ok && (c.quiet() < c.s.o.StallTimeout || reading != nil && reading())
}

// Write gives each piece its own time, so that a large answer to a slow but
// living reader arrives. A client that does not read because it is still
// sending is waited for too.
func (c *conn) Write(p []byte) (written int, err error) {
	const piece = 32 << 10
	for {
		part := p[written:min(len(p), written+piece)]
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.s.o.StallTimeout)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(part)
		written += n
		stalled := errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && (!stalled || n == 0 && !c.sending()) {
			return written, err
		}
		if written == len(p) {
			return written, nil
		}
	}
}

// sending reports whether the client got ahead lately, or is kept from it by
// us.
func (c *conn) sending() bool {
	c.mu.Lock()
	writing := c.hooks.writing
	c.mu.Unlock()
	return c.quiet() < c.s.o.StallTimeout || writing != nil && writing()
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.closing.Do(func() {
		c.s.metrics.connections.Add(-1)
		<-c.s.conns
	})
	return err
}

// CloseWrite lets net/http end an answer so that a client still sending can
// read it.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}
