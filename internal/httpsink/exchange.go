package httpsink

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// exchange is what one request needs and the next can use again: the header
// map, the body and the trace. It goes back to the pool only when net/http has
// demonstrably let go of it, see finished.
type exchange struct {
	header http.Header
	values struct{ event, eventID, delivery, attempt [1]string }
	data   []byte
	reader bytes.Reader
	body   io.ReadCloser // over reader; see newExchange
	rewind func() (io.ReadCloser, error)
	hooks  httptrace.ClientTrace

	mu sync.Mutex // guards what the hooks write, from goroutines of net/http
	traced
}

type traced struct {
	conns   int // connections that the request was given: more than one after a stale one
	written int
	reused  bool
	conn    net.Conn
	gotAt   time.Time
	wroteAt time.Time
	firstAt time.Time
}

func (s *Sink) newExchange() *exchange {
	x := &exchange{header: maps.Clone(s.template.Header)}
	x.header[headerEvent] = x.values.event[:]
	x.header[headerEventID] = x.values.eventID[:]
	x.header[headerDelivery] = x.values.delivery[:]
	x.header[headerAttempt] = x.values.attempt[:]
	// net/http sends headers and body in one packet only when it knows the type
	// of the body to be in memory, and it knows this combination.
	x.body = io.NopCloser(&x.reader)
	x.rewind = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.data)), nil }
	x.hooks = httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.conns++
			x.conn, x.reused, x.gotAt = info.Conn, info.Reused, time.Now()
			x.wroteAt, x.firstAt = time.Time{}, time.Time{}
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if info.Err != nil {
				return
			}
			x.written++
			x.wroteAt = time.Now()
		},
		GotFirstResponseByte: func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.firstAt = time.Now()
		},
	}
	return x
}

// prepare fills the headers and the body. The names of the signature headers
// are the same in all requests of a sink, so they are overwritten.
func (x *exchange) prepare(o *delivery.Outbound, sigs []delivery.Header) {
	x.values.event[0] = o.EventType
	x.values.eventID[0] = o.EventID
	x.values.delivery[0] = o.DeliveryID
	x.values.attempt[0] = strconv.Itoa(o.Attempt)
	for _, sig := range sigs {
		if v := x.header[sig.Name]; len(v) == 1 {
			v[0] = sig.Value
		} else {
			x.header[sig.Name] = []string{sig.Value}
		}
	}
	delete(x.header, headerTest)
	if o.Test {
		x.header[headerTest] = []string{"true"}
	}
	x.data = o.Payload
	x.reader.Reset(o.Payload)
	x.traced = traced{}
}

// release drops the references to the delivery, so that an idle pool holds no
// payload.
func (x *exchange) release() {
	x.data = nil
	x.reader.Reset(nil)
	x.traced = traced{}
}

func (x *exchange) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &x.hooks)
}

// finished reports whether no goroutine of net/http can touch the exchange any
// more: the answer came over the first connection tried, and the request had
// been written completely. A receiver that answers before it has read the
// request leaves the writer at work, and then the exchange is left to the
// garbage collector.
func (x *exchange) finished() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.conns == 1 && x.written == 1
}

// stale reports whether the request failed because an idle connection had been
// closed meanwhile.
func (x *exchange) stale(err error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.reused && x.firstAt.IsZero() && (brokenConnection(err) || unsolicited(err))
}

// request makes the request of an attempt out of the sink's template.
func (s *Sink) request(ctx context.Context, x *exchange) *http.Request {
	req := s.template.WithContext(ctx)
	req.Header = x.header
	req.ContentLength = int64(len(x.data))
	if req.ContentLength == 0 {
		req.Body = http.NoBody
		return req
	}
	req.Body = x.body
	req.GetBody = x.rewind
	return req
}

// attempt is the context of one request. The dialer finds it by its Value and
// notes how far it came, also when nobody waits for the connection any longer:
// net/http goes on dialling for the pool. That is why it is not reused.
type attempt struct {
	context.Context

	mu      sync.Mutex
	started time.Time // of the dial
	control time.Time // first address tried: the name is resolved
	opened  time.Time // TCP connection established
	addr    string    // last address tried

	given bool  // there was a connection, set by take
	sent  bool  // the request was written, set by take
	ended error // how the receiver ended the connection, set by take; nil = not
}

type attemptKey struct{}

// Value implements context.Context.
func (at *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return at
	}
	if at.Context == nil {
		return nil
	}
	return at.Context.Value(key)
}

// take copies what the hooks and the dialer saw into a.
func (at *attempt) take(x *exchange, a *delivery.Attempt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at.given, at.sent = x.conns > 0, !x.wroteAt.IsZero()
	if x.conn == nil {
		at.takeDial(a)
		return
	}
	a.Reused = x.reused
	if c := unwrap(x.conn); c != nil {
		a.Remote = c.remote
		if err := c.ended.Load(); err != nil {
			at.ended = *err
		}
		if !x.reused {
			a.Phases = c.phases
			if x.conn != c {
				// Through a proxy: net/http opened the tunnel and shook hands.
				a.Phases.TLS = x.gotAt.Sub(c.opened)
			}
		}
	}
	if at.sent && !x.firstAt.IsZero() {
		a.Phases.FirstByte = max(x.firstAt.Sub(x.wroteAt), 1)
	}
}

// takeDial tells of a connection that did not come about.
func (at *attempt) takeDial(a *delivery.Attempt) {
	at.mu.Lock()
	defer at.mu.Unlock()
	a.Remote = at.addr
	switch now := time.Now(); {
	case at.started.IsZero():
	case at.control.IsZero():
		a.Phases.DNS = now.Sub(at.started)
	case at.opened.IsZero():
		a.Phases.DNS, a.Phases.Connect = at.control.Sub(at.started), now.Sub(at.control)
	default:
		a.Phases.DNS, a.Phases.Connect, a.Phases.TLS = at.control.Sub(at.started), at.opened.Sub(at.control), now.Sub(at.opened)
	}
}

// unwrap finds our connection under the TLS that net/http put around it, which
// it does behind a proxy.
func unwrap(c net.Conn) *conn {
	switch c := c.(type) {
	case *conn:
		return c
	case *tls.Conn:
		return unwrap(c.NetConn())
	}
	return nil
}
