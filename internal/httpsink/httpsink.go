// Package httpsink is the built-in sink: it posts a payload to an HTTP
// endpoint.
//
// Guarantee: Deliver returns when the attempt is over and not before, at the
// latest when its timeout has passed; it always sets an outcome, never panics,
// follows no redirect and asks for no second answer. What a receiver sends back
// costs bounded memory and time, whatever it is. No secret of the webhook and
// no path or query of its URL gets into an error, a kept header or a kept body.
// Every connection goes through the egress policy, on the address really
// dialled.
//
// A 2xx status line is success, even when the body after it breaks off: the
// receiver has said that it took the event.
//
// A request is written and its answer read on the goroutine that called Deliver,
// by package http1, which leaves the parsing to net/http: what counts as an
// answer, as malformed and as the end of a body is what it is there, and the
// bytes of a request are those that net/http would send. A proxy is part of
// opening a connection, and of nothing else: http requests are sent to it in
// absolute form, for https it is asked for a tunnel, and a SOCKS5 proxy connects to
// the receiver. Whether a connection may be used again is decided in one place.
//
// An idle connection is looked at before it is used again: one that the receiver
// closed, reset or wrote to meanwhile is thrown away. One that breaks only while
// it is used, before the first byte of an answer, is replaced at once, as part of
// the same attempt. The request that met it can have been read by the receiver
// before it closed; then it sees the same delivery id twice, as at-least-once
// delivery allows. A receiver may answer before it has read the request, and its
// answer counts; its connection is used again only if it reads the rest at once.
//
// Requests use HTTP/1.1 only. One connection for each attempt in flight keeps
// attempts independent of each other (a lost packet, a GOAWAY or a flow-control
// window of HTTP/2 stalls all of them), and header names travel as documented.
package httpsink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

const (
	// DefaultUserAgent is the User-Agent of requests that configure no other.
	DefaultUserAgent = "Peanuts-Webhook/1.0"

	defaultTimeout = 30 * time.Second

	// idleConnTimeout is below the 60 s after which common load balancers and
	// proxies drop an idle connection, some of them without a word (AWS ALB:
	// idle_timeout 60 s; nginx: keepalive_timeout 75 s).
	idleConnTimeout = 55 * time.Second
)

// Header is one of the webhook's own headers.
type Header struct {
	Name  string
	Value secret.String
}

// TLS is what the files of a webhook's tls settings contain, in PEM form; empty is
// the system's roots, or no client certificate. CertPEM and KeyPEM come together.
type TLS struct {
	CAPEM   []byte // replaces the system's roots
	CertPEM []byte
	KeyPEM  secret.String
	// InsecureSkipVerify takes any certificate for the receiver's; that of a proxy
	// is verified all the same. Each attempt's Message says it.
	InsecureSkipVerify bool
}

// Options describe one webhook.
type Options struct {
	URL         secret.String                         // http or https
	Headers     []Header                              // in the order of the file
	Signer      *signing.Signer                       // nil = unsigned
	Timeout     time.Duration                         // of an attempt, all phases and the body; 0 = 30 s
	Concurrency int                                   // how many idle connections are kept; 0 = 1
	Egress      *egress.Policy                        // nil = no exceptions
	TLS         TLS                                   //
	UserAgent   string                                // "" = DefaultUserAgent
	Proxy       func(*http.Request) (*url.URL, error) // nil = HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the environment
}

// Sink delivers to one webhook. It is safe for concurrent use.
//
// One request needs nearly all of it, so it is one struct.
type Sink struct {
	timeout time.Duration
	signer  *signing.Signer
	url     *url.URL // without its user
	proxy   *proxy   // nil = none
	refused error    // what egress says of a target behind a proxy
	shown   *delivery.Request
	remark  string // of each attempt
	masker  masker
	buffers sync.Pool // *[]byte of bufferSize

	address   string // that is dialled: the receiver's or the proxy's
	dial      func(ctx context.Context, address string) (net.Conn, error)
	most      int // idle connections
	head      *head
	idle      *http1.Pool
	watch     watch
	exchanges sync.Pool // *exchange
}

// New checks the options and decides on the proxy. It reads no file but the
// system's roots. Its errors name the setting and show no secret.
func New(o Options) (*Sink, error) {
	u, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	static, err := staticHeaders(&o)
	if err != nil {
		return nil, err
	}
	if o.Egress == nil {
		if o.Egress, err = egress.New(nil); err != nil {
			return nil, err
		}
	}
	d := &dialer{control: o.Egress.Control(u.Hostname())}
	if d.tls, err = tlsConfig(o.TLS, u, o.Concurrency); err != nil {
		return nil, err
	}
	s := &Sink{
		timeout: cmp.Or(o.Timeout, defaultTimeout),
		signer:  o.Signer,
		url:     u,
		shown:   shownRequest(&o, u),
		address: dialAddress(u),
		dial:    d.dial,
		most:    max(o.Concurrency, 1),
	}
	user := u.User
	u.User = nil // sent as a header; net/http would print it in errors
	switch {
	case u.Scheme != "https":
		d.tls = nil
	case o.TLS.InsecureSkipVerify:
		s.remark = delivery.UnverifiedMessage
	}
	if user != nil && static["Authorization"] == nil {
		static["Authorization"] = []string{basicAuth(user)}
	}
	through, err := proxyOf(&o, u)
	if err != nil {
		return nil, err
	}
	if through != nil {
		if s.proxy, err = newProxy(through, u); err != nil {
			return nil, err
		}
		s.refused = o.Egress.CheckProxied(u.Hostname())
		s.address, d.proxy, d.control = dialAddress(through), s.proxy, o.Egress.ProxyControl()
	}
	s.masker = newMasker(&o, u, user, through)
	s.head = newHead(u, static, s.proxy)
	s.idle = http1.NewPool(s.most, idleConnTimeout)
	s.exchanges.New = func() any { return &exchange{wire: http1.NewExchange()} }
	s.buffers.New = func() any { return new(make([]byte, s.bufferSize())) }
	return s, nil
}

// errBadProxy quotes nothing: the variable may hold a password.
var errBadProxy = errors.New("the proxy that the environment names for this url is not a valid address")

// proxyOf is the proxy that requests to u go through, nil for none.
func proxyOf(o *Options, u *url.URL) (*url.URL, error) {
	from := o.Proxy
	if from == nil {
		from = http.ProxyFromEnvironment
	}
	through, err := from(&http.Request{Method: http.MethodPost, URL: u, Host: u.Host})
	if err != nil {
		return nil, errBadProxy
	}
	return through, nil
}

// Close closes the idle connections. Attempts in flight are not disturbed.
func (s *Sink) Close() {
	s.idle.Close()
	s.watch.close()
}

// Timeout is after how long Deliver returns at the latest.
func (s *Sink) Timeout() time.Duration { return s.timeout }

// Deliver makes one attempt and tells of it in a, which must be zero but for
// what package retry fills in. It returns when the attempt is over. ctx is for
// shutdown: cancelling it with the cause delivery.ErrShutdown interrupts the
// attempt, which then does not count.
func (s *Sink) Deliver(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
	start := time.Now()
	a.Number, a.Started, a.Request = o.Attempt, start.UTC(), s.shown
	a.Message = s.remark
	defer func() {
		a.Duration = time.Since(start)
		if v := recover(); v != nil {
			// The text of a panic can hold anything, so it is masked as well.
			a.Outcome, a.Code = delivery.Retry, delivery.CodePanic
			a.Error = s.masker.line(fmt.Sprintf("the http sink failed: %v", v))
		}
	}()
	if s.refused != nil {
		s.fail(a, &attempt{Context: ctx}, s.refused)
		return
	}
	end := start.Add(s.timeout)
	if t, ok := ctx.Deadline(); ok && t.Before(end) {
		end = t
	}
	if s.signer != nil {
		a.Signatures = s.signer.Sign(nil, o.DeliveryID, start, o.Payload)
	}
	s.send(ctx, end, o, a)
}
