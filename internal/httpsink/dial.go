package httpsink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
)

// dialer opens connections and remembers how long each part took. It does not
// use the dial hooks of httptrace: net/http calls those for an attempt that may
// be long over.
type dialer struct {
	timeout time.Duration
	control func(network, address string, c syscall.RawConn) error
	tls     *tls.Config // for dialTLS
}

// conn is a connection with what there is to tell about its birth.
type conn struct {
	net.Conn
	socket *http1.Socket // under it; nil when the dialled connection is none
	remote string
	opened time.Time
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

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.open(ctx, network, address)
	if err != nil {
		return nil, err // not a *conn that is nil
	}
	return c, nil
}

func (d *dialer) open(ctx context.Context, network, address string) (*conn, error) {
	at, _ := ctx.Value(attemptKey{}).(*attempt)
	if at == nil {
		at = new(attempt)
	}
	at.mu.Lock()
	at.started = time.Now()
	at.mu.Unlock()
	nd := net.Dialer{
		// Behind a proxy net/http lets a dial go on after the attempt has ended.
		Timeout: d.timeout,
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
	nc, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	at.opened = time.Now()
	c := &conn{Conn: nc, socket: http1.NewSocket(nc), remote: nc.RemoteAddr().String(), opened: at.opened}
	if c.socket != nil {
		c.Conn = c.socket
	}
	c.phases.Connect = at.opened.Sub(at.control)
	if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host) == nil {
		c.phases.DNS = at.control.Sub(at.started)
	}
	return c, nil
}

// handshakeError is a TLS handshake that failed.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	c, err := d.open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	tc := tls.Client(c.Conn, d.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = c.Conn.Close() // the handshake's error is the one that matters
		return nil, &handshakeError{err}
	}
	c.phases.TLS = time.Since(start)
	c.Conn = tc
	return c, nil
}

// proxyError is a proxy that did not open the tunnel.
type proxyError struct{ status int }

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy answered %d %s", e.status, http.StatusText(e.status))
}

func checkProxyAnswer(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return &proxyError{resp.StatusCode}
	}
	return nil
}

func tlsConfig(o TLS, u *url.URL, concurrency int) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: strings.TrimSuffix(u.Hostname(), "."),
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
		// Read now: the first attempt would pay for it with its own time.
		if roots, err := x509.SystemCertPool(); err == nil {
			c.RootCAs = roots
		}
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
