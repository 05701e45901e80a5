package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/unixsock"
)

const (
	// maxConns bounds the connections of one listener: the readers of the
	// stream, the tests, and ample room for the rest.
	maxConns      = 64
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// server bounds what a client can hold. It has neither a ReadTimeout nor a
// WriteTimeout, which would end streams and tests: guard and write set
// deadlines of their own.
func (a *API) server() *http.Server {
	return &http.Server{Handler: a.Handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ConnContext: withPeer, ErrorLog: slog.NewLogLogger(a.Logger.Handler(), slog.LevelDebug)}
}

// Serve answers requests on l, which it closes, until Shutdown. It may be
// called for several listeners.
func (a *API) Serve(l net.Listener) error {
	return serve(a.srv, newBounded(l, maxConns, &a.full), "admin socket")
}

func serve(srv *http.Server, l net.Listener, what string) error {
	err := srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", what, err)
}

// Shutdown stops listening, ends all streams, audits and backups, and waits for the requests under
// way. When ctx ends first their connections are closed.
func (a *API) Shutdown(ctx context.Context) error {
	a.Feed.close()
	a.end()
	return shutdown(ctx, a.srv, "admin")
}

func shutdown(ctx context.Context, srv *http.Server, what string) error {
	if err := srv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop %s server: %w", what, err), srv.Close())
	}
	return nil
}

// peerKey is the key of a request's context under which the uid of the peer
// is.
type peerKey struct{}

// withPeer notes who connected, so that the history can tell who changed what.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	// Connections that are not of a Unix socket have no uid.
	if _, uid, _, err := unixsock.PeerCred(c); err == nil {
		ctx = context.WithValue(ctx, peerKey{}, uid)
	}
	return ctx
}

// peer is the user at the other end of r's connection; nil = not known.
func peer(r *http.Request) *uint32 {
	if uid, ok := r.Context().Value(peerKey{}).(uint32); ok {
		return new(uid)
	}
	return nil
}

// Full reports whether a listener takes no connection because as many are open as may
// be.
func (a *API) Full() bool { return a.full.Load() > 0 }

// bounded accepts a connection only when fewer than its capacity are open; the
// others wait in the kernel's backlog.
type bounded struct {
	net.Listener
	open   chan struct{}
	full   *atomic.Int64 // listeners that wait for one of theirs to end
	closed chan struct{}
	once   sync.Once
}

func newBounded(l net.Listener, capacity int, full *atomic.Int64) *bounded {
	return &bounded{Listener: l, open: make(chan struct{}, capacity), full: full, closed: make(chan struct{})}
}

// slot waits for one; false when the listener was closed.
func (b *bounded) slot() bool {
	select {
	case b.open <- struct{}{}:
		return true
	default:
	}
	b.full.Add(1)
	defer b.full.Add(-1)
	select {
	case b.open <- struct{}{}:
		return true
	case <-b.closed:
		return false
	}
}

func (b *bounded) Accept() (net.Conn, error) {
	if !b.slot() {
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.open
		return nil, err
	}
	return &boundedConn{Conn: c, release: sync.OnceFunc(func() { <-b.open })}, nil
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	release func()
}

// NetConn is what unixsock.PeerCred looks for.
func (c *boundedConn) NetConn() net.Conn { return c.Conn }

func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
