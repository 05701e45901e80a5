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
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// traced is what net/http tells of one request, from goroutines of its own.
type traced struct {
	mu      sync.Mutex // guards the rest
	reused  bool
	conn    net.Conn
	gotAt   time.Time
	wroteAt time.Time
	firstAt time.Time
}

func (x *traced) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.conn, x.reused, x.gotAt = info.Conn, info.Reused, time.Now()
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
	c := unwrap(x.conn)
	a.Reused = x.reused
	at.note(a, c, x.wroteAt, x.firstAt)
	if c != nil && x.conn != c && !x.reused {
		// net/http opened the tunnel and shook hands.
		a.Phases.TLS = x.gotAt.Sub(c.opened)
	}
}

// stale reports whether the request failed because an idle connection had been
// closed meanwhile.
func (x *traced) stale(err error) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.reused && x.firstAt.IsZero() && (brokenConnection(err) || unsolicited(err))
}

// viaProxy has net/http send the request until it was sent over a connection
// that was not stale.
//
// net/http sends a POST again by itself only when it wrote nothing or failed to
// read, so it is done here.
func (s *Sink) viaProxy(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
	end, _ := ctx.Deadline() // which the context may be late to tell of
	for stale := 0; ; stale++ {
		x := &traced{}
		at := &attempt{Context: httptrace.WithClientTrace(ctx, x.hooks()), end: end}
		resp, err := s.transport.RoundTrip(s.request(at, o, a.Signatures))
		x.take(at, a)
		switch {
		case err == nil:
			s.answer(a, resp)
			_ = resp.Body.Close() // what it says changes nothing of the answer
			return
		case stale > s.most || !x.stale(err) || ctx.Err() != nil:
			s.fail(a, at, err)
			return
		}
		a.Reused, a.Remote, a.Phases = false, "", delivery.Phases{}
	}
}

// request makes the request of an attempt out of the sink's template.
func (s *Sink) request(ctx context.Context, o *delivery.Outbound, sigs []delivery.Header) *http.Request {
	req := s.template.WithContext(ctx)
	req.Header = maps.Clone(s.template.Header)
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
