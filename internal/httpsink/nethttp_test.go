package httpsink

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
)

// netHTTP delivers what a sink delivers with net/http's transport as the client: the
// model that the sink is compared with. What follows an answer it takes for the answer to
// whoever gets the connection at that moment, so answers with something behind them are
// for one that is used once.
type netHTTP struct {
	s         *Sink
	static    http.Header
	transport *http.Transport
}

// newNetHTTP returns the model of s, which has been made of o. proxy is nil for none.
func newNetHTTP(t testing.TB, s *Sink, o *Options, proxy *url.URL) *netHTTP {
	t.Helper()
	static, err := staticHeaders(cmp.Or(o, &Options{}))
	if err != nil {
		t.Fatal(err)
	}
	n := &netHTTP{s: s, static: static, transport: &http.Transport{
		DialContext:            func(ctx context.Context, _, address string) (net.Conn, error) { return s.dial(ctx, address) },
		DisableCompression:     true,
		MaxIdleConnsPerHost:    s.most,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: http1.MaxHeaderBytes,
		Protocols:              new(http.Protocols),
	}}
	n.transport.Protocols.SetHTTP1(true)
	if proxy != nil {
		n.transport.Proxy = http.ProxyURL(proxy)
		n.transport.DialContext = new(net.Dialer).DialContext
		n.transport.ProxyConnectHeader = http.Header{headerUserAgent: {DefaultUserAgent}}
	}
	t.Cleanup(n.transport.CloseIdleConnections)
	return n
}

// deliver is that of the tests, by net/http.
func (n *netHTTP) deliver(t testing.TB, o *delivery.Outbound) delivery.Attempt {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), n.s.timeout)
	defer cancel()
	var a delivery.Attempt
	if n.s.signer != nil {
		a.Signatures = n.s.signer.Sign(nil, o.DeliveryID, time.Unix(1700000000, 0), o.Payload)
	}
	end, _ := ctx.Deadline() // which the context may be late to tell of
	for stale := 0; ; stale++ {
		x := &traced{}
		at := &attempt{Context: httptrace.WithClientTrace(ctx, x.hooks()), end: end}
		resp, err := n.transport.RoundTrip(n.request(at, o, a.Signatures))
		x.take(at, &a)
		switch {
		case err == nil:
			n.s.answer(&a, resp)
			_ = resp.Body.Close() // what it says changes nothing of the answer
			return a
		case stale > n.s.most || !x.stale(err) || ctx.Err() != nil:
			n.s.fail(&a, at, err)
			return a
		}
		a.Reused, a.Remote, a.Phases = false, "", delivery.Phases{}
	}
}

// request makes the request of an attempt.
func (n *netHTTP) request(ctx context.Context, o *delivery.Outbound, sigs []delivery.Header) *http.Request {
	req := (&http.Request{Method: http.MethodPost, URL: n.s.url, Host: n.s.url.Host, Header: n.static.Clone()}).WithContext(ctx)
	for _, h := range fields(nil, o, sigs) {
		req.Header[h.Name] = []string{h.Value}
	}
	req.ContentLength = int64(len(o.Payload))
	if req.ContentLength == 0 {
		req.Body = http.NoBody
		return req
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(o.Payload)), nil }
	req.Body, _ = req.GetBody() // which never fails
	return req
}

// traced is what net/http tells of one request, from goroutines of its own.
type traced struct {
	mu      sync.Mutex // guards the rest
	reused  bool
	conn    net.Conn
	wroteAt time.Time
	firstAt time.Time
}

func (x *traced) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.conn, x.reused = info.Conn, info.Reused
			x.wroteAt, x.firstAt = time.Time{}, time.Time{}
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if info.Err == nil {
				x.wroteAt = time.Now()
			}
		},
		GotFirstResponseByte: func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.firstAt = time.Now()
		},
	}
}

// take copies what was seen into at and a.
func (x *traced) take(at *attempt, a *delivery.Attempt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.conn == nil {
		at.takeDial(a)
		return
	}
	a.Reused = x.reused
	c, _ := x.conn.(*conn)
	at.note(a, c, x.wroteAt, x.firstAt)
}

// stale reports whether the request failed because an idle connection had been
// closed meanwhile.
func (x *traced) stale(err error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	// net/http does not export these.
	return x.reused && x.firstAt.IsZero() && (brokenConnection(err) || strings.Contains(err.Error(), "server closed idle connection") ||
		strings.Contains(err.Error(), "readLoopPeekFailLocked"))
}
