package httpsink

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	socks "golang.org/x/net/proxy"

	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
)

// proxy is what stands between the relay and a receiver. It is immutable.
type proxy struct {
	host          string      // as the environment names it, without its user
	tls           *tls.Config // nil = it is spoken to in plain
	forwards      bool        // requests are sent to it, in absolute form
	authorization string      // a header line; "" = none

	// One that makes a connection to the receiver of its own; nil when not asked so.
	connect []byte // the request that asks for it
	auth    *socks.Auth
	socks5  bool
	target  string // the receiver's address
	err     error  // why there is no connect
}

// newProxy returns the proxy at u, through which requests to the receiver go.
func newProxy(u, receiver *url.URL) (*proxy, error) {
	p := &proxy{host: u.Host, target: dialAddress(receiver)}
	switch u.Scheme {
	case "socks5", "socks5h": // either way it resolves the name, as in net/http
		p.socks5 = true
		if u.User != nil {
			p.auth = &socks.Auth{User: u.User.Username()}
			p.auth.Password, _ = u.User.Password()
		}
		return p, nil
	case "https":
		// The settings of the webhook are for its receiver: the connection to the
		// proxy trusts the system's authorities and shows no certificate of ours.
		p.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName(u), NextProtos: []string{"http/1.1"}, RootCAs: systemRoots()}
	case "http":
	default:
		return nil, errBadProxy
	}
	if u.User != nil {
		p.authorization = "Proxy-Authorization: " + basicAuth(u.User) + "\r\n"
	}
	if receiver.Scheme == "http" {
		p.forwards = true
		return p, nil
	}
	p.connect, p.err = p.connectRequest()
	return p, nil
}

// connectRequest asks for a tunnel, in the words of net/http.
func (p *proxy) connectRequest() ([]byte, error) {
	req := http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: p.target}, Host: p.target,
		Header: http.Header{headerUserAgent: {DefaultUserAgent}}}
	var text bytes.Buffer
	if err := req.Write(&text); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(text.String(), "\r\n") + p.authorization + "\r\n"), nil
}

// What a proxy failed at, as sentences begin.
const (
	noProxy  = "no connection to the proxy"
	noTunnel = "no connection through the proxy"
)

// proxyError is a proxy that was not reached, or did not open the way.
type proxyError struct {
	what   string // noProxy or noTunnel
	status int    // that it answered; 0 = none
	err    error  // nil with a status
}

func (e *proxyError) Error() string {
	if e.err == nil {
		return "the proxy answered " + statusText(e.status)
	}
	return e.what + ": " + e.err.Error()
}

func (e *proxyError) Unwrap() error { return e.err }

// receiver names the other end of c once the proxy lets through. p may be nil.
func (p *proxy) receiver(c *conn) string {
	if p == nil {
		return c.remote
	}
	return p.target + " through the proxy " + c.remote
}

// pass brings c, which is connected to the proxy, to where requests can be sent.
func (p *proxy) pass(ctx context.Context, at *attempt, c *conn) error {
	if p.tls != nil {
		at.enter("in the TLS handshake with the proxy " + c.remote)
		if err := c.secure(ctx, p.tls); err != nil {
			return &proxyError{what: noProxy, err: err}
		}
	}
	if p.forwards {
		return nil
	}
	at.enter("waiting for the proxy " + c.remote)
	ask := p.askHTTP
	if p.socks5 {
		ask = p.askSOCKS
	}
	// What is under way then fails, whichever it is.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err := ask(ctx, c)
	if !stop() && err == nil {
		err = &proxyError{what: noTunnel, err: ctx.Err()}
	}
	return err
}

// askHTTP asks for a tunnel. Any 2xx opens it (RFC 9110 section 9.3.6).
func (p *proxy) askHTTP(_ context.Context, c *conn) error {
	if p.err != nil {
		return p.err
	}
	status, err := http1.NewExchange().Tunnel(http1.NewConn(c), p.connect)
	switch {
	case err != nil:
		return &proxyError{what: noTunnel, err: err}
	case status/100 != 2:
		return &proxyError{what: noTunnel, status: status}
	}
	return nil
}

// askSOCKS speaks RFC 1928 and 1929. It is the proxy that resolves the name.
func (p *proxy) askSOCKS(ctx context.Context, c *conn) error {
	d, err := socks.SOCKS5("tcp", c.remote, p.auth, opened{c})
	if err != nil {
		return &proxyError{what: noTunnel, err: err}
	}
	asks, ok := d.(socks.ContextDialer)
	if !ok {
		return &proxyError{what: noTunnel, err: errors.ErrUnsupported}
	}
	// What it returns is c with an address that nobody needs.
	if _, err := asks.DialContext(ctx, "tcp", p.target); err != nil {
		if oe, ok := err.(*net.OpError); ok {
			err = oe.Err // the rest of it are addresses
		}
		return &proxyError{what: noTunnel, err: err}
	}
	return nil
}

// opened is a dialer that returns one connection, which there is.
type opened struct{ c *conn }

// Dial implements [socks.Dialer].
func (o opened) Dial(string, string) (net.Conn, error) { return o.c, nil }

// DialContext implements [socks.ContextDialer].
func (o opened) DialContext(context.Context, string, string) (net.Conn, error) { return o.c, nil }
