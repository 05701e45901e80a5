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
// bytes of a request are those that net/http would send. Requests through a
// proxy are made by net/http's own transport.
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
	"crypto/tls"
	"errors"
	"fmt"
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

	// dialGrace is how much later than its attempt a dial ends by itself, where
	// the attempt does not end it: net/http goes on dialling. It must not end
	// first, because then it would look as if the connection had failed before the
	// time was over.
	dialGrace = 250 * time.Millisecond
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
type Sink struct {
	timeout   time.Duration
	signer    *signing.Signer
	template  *http.Request // copied for each attempt; its Header is static
	transport *http.Transport
	proxied   error // what egress says of a target behind a proxy
	host      string
	shown     *delivery.Request
	remark    string // of each attempt
	masker    masker
	buffers   sync.Pool // *[]byte of bufferSize

	// Without a proxy the transport only dials.
	address   string
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
	tlsConfig, err := tlsConfig(o.TLS, u, o.Concurrency)
	if err != nil {
		return nil, err
	}
	s := &Sink{
		timeout: cmp.Or(o.Timeout, defaultTimeout),
		signer:  o.Signer,
		host:    u.Host,
		shown:   shownRequest(&o, u),
		address: dialAddress(u),
		most:    max(o.Concurrency, 1),
	}
	user := u.User
	u.User = nil // sent as a header; net/http would print it in errors
	if o.TLS.InsecureSkipVerify && u.Scheme == "https" {
		s.remark = delivery.UnverifiedMessage
	}
	if user != nil && static["Authorization"] == nil {
		static["Authorization"] = []string{basicAuth(user)}
	}
	s.template = &http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Header: static,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	proxy, err := proxyOf(&o, s.template)
	if err != nil {
		return nil, err
	}
	s.transport = s.newTransport(&o, tlsConfig, proxy)
	s.masker = newMasker(&o, u, user, proxy)
	s.head = newHead(s.template)
	s.idle = http1.NewPool(s.most, idleConnTimeout)
	s.exchanges.New = func() any { return &exchange{wire: http1.NewExchange()} }
	s.buffers.New = func() any { return new(make([]byte, s.bufferSize())) }
	return s, nil
}

// proxyOf is the proxy that requests to the target go through, nil for none.
func proxyOf(o *Options, to *http.Request) (*url.URL, error) {
	from := o.Proxy
	if from == nil {
		from = http.ProxyFromEnvironment
	}
	proxy, err := from(to)
	if err != nil {
		// The error quotes the variable, which may hold a password.
		return nil, errors.New("the proxy that the environment names for this url is not a valid address")
	}
	return proxy, nil
}

func (s *Sink) newTransport(o *Options, tlsConfig *tls.Config, proxy *url.URL) *http.Transport {
	d := &dialer{timeout: s.timeout + dialGrace, control: o.Egress.Control(s.template.URL.Hostname())}
	t := &http.Transport{
		DialContext:            d.dial,
		TLSClientConfig:        tlsConfig,
		DisableCompression:     true, // a kept body is what was sent, and no gzip bomb unpacks
		MaxIdleConnsPerHost:    s.most,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: http1.MaxHeaderBytes,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if proxy == nil {
		d.tls = tlsConfig
		t.DialTLSContext = d.dialTLS
		return t
	}
	d.control = o.Egress.ProxyControl()
	s.proxied = o.Egress.CheckProxied(s.template.URL.Hostname())
	t.Proxy = http.ProxyURL(proxy)
	t.TLSClientConfig = tlsConfig.Clone()
	t.TLSClientConfig.ServerName = "" // net/http fills in the target's
	// The settings of the webhook are for its receiver: the connection to an https
	// proxy trusts the system's authorities and shows no certificate of ours.
	d.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: proxy.Hostname(), NextProtos: []string{"http/1.1"}}
	t.DialTLSContext = d.dialTLS
	t.OnProxyConnectResponse = checkProxyAnswer
	t.TLSHandshakeTimeout = s.timeout + dialGrace
	return t
}

// Close closes the idle connections. Attempts in flight are not disturbed.
func (s *Sink) Close() {
	s.idle.Close()
	s.watch.close()
	s.transport.CloseIdleConnections()
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
	if s.proxied != nil {
		s.fail(a, &attempt{Context: ctx}, s.proxied)
		return
	}
	end := start.Add(s.timeout)
	if t, ok := ctx.Deadline(); ok && t.Before(end) {
		end = t
	}
	if s.signer != nil {
		a.Signatures = s.signer.Sign(nil, o.DeliveryID, start, o.Payload)
	}
	if s.transport.Proxy == nil {
		s.direct(ctx, end, o, a)
		return
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	s.viaProxy(ctx, o, a)
}
