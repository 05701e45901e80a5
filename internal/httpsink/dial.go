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
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
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
	remote string
	opened time.Time
	phases delivery.Phases
	ended  atomic.Bool // reading failed: the other end closed or reset it
}

// Read notes the end of the connection. net/http takes a line that was cut off
// for a whole one and then complains of its form.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.ended.Store(true)
	}
	return n, err
}

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
		// net/http lets a dial go on after the attempt has ended.
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
	c := &conn{Conn: nc, remote: nc.RemoteAddr().String(), opened: at.opened}
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

func tlsConfig(files TLS, u *url.URL, concurrency int) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: strings.TrimSuffix(u.Hostname(), "."),
		NextProtos: []string{"http/1.1"},
		// Resumption spares the receiver most of a handshake.
		ClientSessionCache: tls.NewLRUClientSessionCache(max(concurrency, 1)),
	}
	if files.CAFile != "" {
		pem, err := os.ReadFile(files.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: %s holds no PEM certificate", files.CAFile)
		}
	}
	switch {
	case files.CertFile == "" && files.KeyFile == "":
		return c, nil
	case files.CertFile == "" || files.KeyFile == "":
		return nil, errors.New("tls.cert and tls.key come together")
	}
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls.cert, tls.key: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
