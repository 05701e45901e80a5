package httpsink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
)

// dialer opens the connections of one webhook and remembers how long each part
// took. It does not change once it is in use.
type dialer struct {
	control func(network, address string, c syscall.RawConn) error
	proxy   *proxy      // on the way; nil = none
	tls     *tls.Config // for the receiver; nil = it speaks none
}

// conn is a connection with what there is to tell about its birth.
type conn struct {
	net.Conn
	socket *http1.Socket // under it; nil when the dialled connection is none
	remote string
	phases delivery.Phases
	ended  atomic.Pointer[error] // why reading failed; nil = it did not
}

// Read notes how the connection ended. net/http takes a line that was cut off
// for a whole one and then complains of its form; and when writing fails it
// does not tell of the TLS alert that said why.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && err != (http1.NotReady{}) {
		c.ended.CompareAndSwap(nil, new(err))
	}
	return n, err
}

// Socket returns what carries the connection.
func (c *conn) Socket() *http1.Socket { return c.socket }

// abort closes the connection without a farewell.
func (c *conn) abort() {
	if c.socket != nil {
		_ = c.socket.Close() // it is given up
		return
	}
	_ = c.Conn.Close()
}

// dial returns a connection to address that carries requests. The attempt in ctx,
// if there is one, is told how far it came.
func (d *dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	at, _ := ctx.Value(attemptKey{}).(*attempt)
	if at == nil {
		at = new(attempt)
	}
	c, err := d.open(ctx, at, address)
	if err != nil {
		if d.proxy != nil {
			err = &proxyError{what: noProxy, err: err}
		}
		return nil, err // not a *conn that is nil
	}
	if err := d.prepare(ctx, at, c); err != nil {
		c.abort()
		return nil, err
	}
	return c, nil
}

// open makes the TCP connection.
func (d *dialer) open(ctx context.Context, at *attempt, address string) (*conn, error) {
	at.mu.Lock()
	at.started = time.Now()
	at.mu.Unlock()
	nd := net.Dialer{
		Control: func(network, address string, c syscall.RawConn) error {
			at.mu.Lock()
			at.addr = address
			if at.control.IsZero() {
				at.control = time.Now()
			}
			at.mu.Unlock()
			return d.control(network, address, c)
		},
	}
	nc, err := nd.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, socket: http1.NewSocket(nc), remote: nc.RemoteAddr().String()}
	if c.socket != nil {
		c.Conn = c.socket
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	at.addr = c.remote // of the addresses tried at the same time
	if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host) == nil {
		c.phases.DNS = at.control.Sub(at.started)
	}
	return c, nil
}

// prepare makes of a TCP connection one to the receiver.
func (d *dialer) prepare(ctx context.Context, at *attempt, c *conn) error {
	if d.proxy != nil {
		if err := d.proxy.pass(ctx, at, c); err != nil {
			return err
		}
	}
	at.mu.Lock()
	at.opened = time.Now()
	c.phases.Connect = at.opened.Sub(at.control)
	at.mu.Unlock()
	if d.tls == nil {
		return nil
	}
	at.enter("in the TLS handshake with " + d.proxy.receiver(c))
	if err := c.secure(ctx, d.tls); err != nil {
		return err
	}
	c.phases.TLS = time.Since(at.opened)
	return nil
}

// handshakeError is a TLS handshake that failed.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// secure speaks TLS from here on.
func (c *conn) secure(ctx context.Context, config *tls.Config) error {
	tc := tls.Client(c.Conn, config)
	if err := tc.HandshakeContext(ctx); err != nil {
		return &handshakeError{err}
	}
	c.Conn = tc
	return nil
}

// tlsConfig is for connections to a receiver.
func tlsConfig(o TLS, u *url.URL, concurrency int) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: serverName(u),
		NextProtos: []string{"http/1.1"},
		// Resumption spares the receiver most of a handshake.
		ClientSessionCache: tls.NewLRUClientSessionCache(max(concurrency, 1)),
		InsecureSkipVerify: o.InsecureSkipVerify, // which the operator asked for, by a key that each check warns of
	}
	switch {
	case len(o.CAPEM) > 0:
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(o.CAPEM) {
			return nil, errors.New("tls.ca: the file holds no PEM certificate")
		}
	case u.Scheme == "https":
		c.RootCAs = systemRoots()
	}
	switch {
	case len(o.CertPEM) == 0 && o.KeyPEM.IsZero():
		return c, nil
	case len(o.CertPEM) == 0 || o.KeyPEM.IsZero():
		return nil, errors.New("tls.cert and tls.key come together")
	}
	pair, err := tls.X509KeyPair(o.CertPEM, []byte(o.KeyPEM.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("tls.cert, tls.key: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// serverName is the host of a URL as certificates name it.
func serverName(u *url.URL) string {
	host, _, err := net.SplitHostPort(dialAddress(u))
	if err != nil {
		host = u.Hostname()
	}
	return strings.TrimSuffix(host, ".")
}

// systemRoots reads the system's authorities now: the first attempt would pay for
// it with its own time. nil leaves it to that.
func systemRoots() *x509.CertPool {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil
	}
	return roots
}
