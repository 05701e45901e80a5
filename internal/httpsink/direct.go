package httpsink

import (
	"cmp"
	"context"
	"net"
	"net/url"
	"time"

	"golang.org/x/net/idna"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
)

// exchange is what one request needs and the next can use again.
type exchange struct {
	attempt attempt // never dials
	watched watched
	wire    *http1.Exchange
	fields  []delivery.Header
	head    []byte
	first   []byte // head, and the body when it is small
	rest    []byte // the body when it is not
}

// render makes the request.
func (x *exchange) render(h *head, o *delivery.Outbound, sigs []delivery.Header) error {
	x.fields = fields(x.fields[:0], o, sigs)
	out, err := h.write(x.head[:0], x.fields, len(o.Payload))
	if err != nil {
		return err
	}
	x.first, x.rest = out, o.Payload
	// One packet and one write, where that costs no large copy.
	if len(out)+len(o.Payload) <= http1.Small {
		x.first, x.rest = append(out, o.Payload...), nil
	}
	x.head = x.first
	return nil
}

// release drops the references to the delivery, so that an idle pool holds no
// payload.
func (x *exchange) release() {
	clear(x.fields)
	x.first, x.rest = nil, nil
	x.attempt = attempt{}
}

// send sends the request until it was sent over a connection that was not stale.
func (s *Sink) send(ctx context.Context, end time.Time, o *delivery.Outbound, a *delivery.Attempt) {
	x := s.exchanges.Get().(*exchange)
	x.attempt = attempt{Context: ctx, end: end}
	if err := x.render(s.head, o, a.Signatures); err != nil {
		s.fail(a, &x.attempt, err)
		return
	}
	for stale := 0; !s.try(x, a, stale <= s.most); stale++ {
		a.Reused, a.Remote, a.Phases = false, "", delivery.Phases{}
	}
	x.release()
	s.exchanges.Put(x)
}

// try makes the request over one connection. It returns false when that was an
// idle one that broke before the first byte of an answer, and again is true: the
// receiver had closed it and could not know of the request. A new connection
// that breaks is a failure.
func (s *Sink) try(x *exchange, a *delivery.Attempt, again bool) (over bool) {
	at := &x.attempt
	if err := at.over(); err != nil {
		s.fail(a, at, err)
		return true
	}
	c := s.idle.Get()
	a.Reused = c != nil
	if c == nil {
		var err error
		if c, at, err = s.connect(at); err != nil {
			at.takeDial(a)
			s.fail(a, at, err)
			return true
		}
	}
	s.watch.add(&x.watched, at.Context, c, at.end)
	defer func() {
		if x.watched.conn != nil { // a panic
			s.watch.remove(&x.watched)
			c.Abort()
		}
	}()
	resp, err := x.wire.Do(c, x.first, x.rest)
	if err != nil {
		s.watch.remove(&x.watched)
		answered := at.take(a, c, x.wire)
		if again && a.Reused && !answered && at.over() == nil && brokenConnection(err) {
			return false
		}
		s.fail(a, at, err)
		return true
	}
	done := s.answer(a, resp)
	// One that was interrupted would fail whoever got it next.
	done = s.watch.remove(&x.watched) && done
	keep := x.wire.Finish(resp, done)
	at.take(a, c, x.wire)
	if keep {
		s.idle.Put(c, time.Now())
	}
	return true
}

// take copies what was seen of an exchange over c into a. answered says that
// there was something of an answer.
func (at *attempt) take(a *delivery.Attempt, c *http1.Conn, x *http1.Exchange) (answered bool) {
	written, first := x.Timing()
	ours, _ := c.Conn.(*conn)
	at.note(a, ours, written, first)
	return !first.IsZero()
}

// connect opens a connection. What the dialer notes, it may note after connect
// has returned, so it gets an attempt of its own, which takes the place of at.
func (s *Sink) connect(at *attempt) (*http1.Conn, *attempt, error) {
	at = &attempt{Context: at.Context, end: at.end}
	ctx, cancel := context.WithCancel(at)
	defer cancel()
	defer time.AfterFunc(time.Until(at.end), cancel).Stop()
	c, err := s.dial(ctx, s.address)
	if err == nil && s.head.err != nil {
		_ = c.Close() // nothing was sent
		err = s.head.err
	}
	if err != nil {
		return nil, at, err
	}
	return http1.NewConn(c), at, nil
}

// dialAddress is where a URL's connections go, or those to a proxy: the form that
// net/http dials.
func dialAddress(u *url.URL) string {
	host := u.Hostname()
	if ascii, err := idna.Lookup.ToASCII(host); err == nil && !isASCII(host) {
		host = ascii
	}
	port := "80"
	switch u.Scheme {
	case "https":
		port = "443"
	case "socks5", "socks5h":
		port = "1080"
	}
	return net.JoinHostPort(host, cmp.Or(u.Port(), port))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
