package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// The short way. Nearly every request on this socket looks the same: one small
// event from a client that keeps its connection, arriving in one piece. net/http
// spends more on such a request than parsing, matching and storing the event
// take together, a goroutine that watches for the client's departure among
// them. So a connection begins here: as long as each request is of that exact
// form it is answered here, and at the first that is not, whatever the reason,
// the connection is handed to net/http with all bytes that were read, for good.
// Nothing is refused here for its form; what HTTP allows is net/http's to know.

// fastBuffer is how large a request may be, head and body, to be answered on
// the short way. Every connection has one.
const fastBuffer = 8 << 10

// fastConns counts the connections on the short way, so that Shutdown can end
// them.
type fastConns struct {
	mu       sync.Mutex // guards the rest
	stopping bool
	open     map[*conn]struct{}
	all      sync.WaitGroup
}

// add reports false when the server is stopping.
func (f *fastConns) add(c *conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopping {
		return false
	}
	if f.open == nil {
		f.open = map[*conn]struct{}{}
	}
	f.open[c] = struct{}{}
	f.all.Add(1)
	return true
}

func (f *fastConns) remove(c *conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, c)
	f.all.Done()
}

// stop ends the wait for a next request on every connection; what was sent before is
// answered. Who has connected and sent nothing yet may still send, see firstWait.
func (f *fastConns) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopping = true
	for c := range f.open {
		switch c.waits.Load() {
		case waitsForFirst:
			c.Conn.SetReadDeadline(time.Now().Add(firstWait))
		case waitsForNext:
			c.lastCall()
		}
	}
}

func (f *fastConns) isStopping() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopping
}

// ended waits until no connection is left; the error is ctx's when it ends first.
func (f *fastConns) ended(ctx context.Context) error {
	none := make(chan struct{})
	go func() {
		f.all.Wait()
		close(none)
	}()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cut closes every connection.
func (f *fastConns) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.open {
		c.Close()
	}
}

// read waits for a request, the first of the connection or a next one.
func (f *fastConns) read(c *conn, buf []byte, waits int32, limit time.Duration) (int, error) {
	f.mu.Lock()
	c.waits.Store(waits)
	stopping := f.stopping
	if stopping {
		limit = firstWait
	}
	c.Conn.SetReadDeadline(time.Now().Add(limit))
	f.mu.Unlock()
	if stopping && waits == waitsForNext {
		c.lastCall()
	}
	n, err := c.Conn.Read(buf)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && f.isStopping() {
		c.lastCall()
		n, err = c.Conn.Read(buf) // of what came since
	}
	c.waits.Store(waitsNot)
	return n, err
}

// accept takes connections until the listener fails, and hands those to net/http
// that need it.
func (s *Server) accept(l *listener, to *handover) {
	for {
		nc, err := l.Accept()
		if err != nil {
			if l.isClosed() {
				return // net/http goes on with what it has
			}
			to.fail(err)
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				continue // net/http has waited before it asked again
			}
			return
		}
		c := nc.(*conn)
		if c.excess || !s.fast.add(c) {
			to.give(c)
			continue
		}
		go func() {
			defer s.fast.remove(c)
			defer s.survive(c)
			if s.serveFast(c) {
				to.give(c)
			} else {
				c.Close()
			}
		}()
	}
}

// survive does for the short way what net/http does for the long one: a panic
// costs its connection, not the daemon. The text of a panic may quote an event,
// so it is shown only when it comes from the runtime.
func (s *Server) survive(c *conn) {
	v := recover()
	if v == nil {
		return
	}
	defer c.Close()
	what := fmt.Sprintf("%T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	s.o.Logger.Error("events socket: a request panicked", "panic", what, "stack", string(debug.Stack()))
}

// serveFast answers requests on the short way. It reports true when the
// connection is net/http's from now on.
func (s *Server) serveFast(c *conn) (handOver bool) {
	if s.forbidden(c) {
		return true
	}
	buf := make([]byte, fastBuffer)
	have := 0
	waits, limit := waitsForFirst, s.o.StallTimeout // net/http's ReadHeaderTimeout for a new connection
	for {
		if have == 0 {
			n, err := s.fast.read(c, buf, waits, limit)
			if n == 0 {
				return err == nil // a read of nothing: let net/http see
			}
			have = n
			waits, limit = waitsForNext, idleTimeout
		}
		head, ok := parseFast(buf[:have])
		if !ok || int64(head.length) > s.o.MaxEventBytes {
			return s.leave(c, buf[:have])
		}
		if !s.answerFast(c, buf[head.size:head.size+head.length]) {
			return false
		}
		have = copy(buf, buf[head.size+head.length:have])
	}
}

// leave prepares a connection for net/http.
func (s *Server) leave(c *conn, unread []byte) bool {
	c.unread = bytes.Clone(unread)
	return c.Conn.SetReadDeadline(time.Time{}) == nil
}

// answerFast is what serveHTTP and serveSingle do with a request that both ways
// know. It reports whether the connection can go on.
func (s *Server) answerFast(c *conn, body []byte) bool {
	s.metrics.requests.Add(1)
	s.metrics.inFlight.Add(1)
	defer s.metrics.inFlight.Add(-1)
	q := s.getRequest()
	defer s.putRequest(q)
	q.body = append(q.body[:0], body...)
	var f *failure
	if !s.begin() {
		f = shuttingDown()
		s.metrics.reject(f.code)
	} else {
		defer s.handlers.Done()
		if err := s.o.Gate(); err != nil {
			f = ofQueue(err)
			s.metrics.reject(f.code)
		} else {
			f = s.take(q, "")
		}
	}
	status, retryAfter := 0, 0
	if f != nil {
		s.explain(context.Background(), c, f)
		status, retryAfter = f.status, f.retryAfter
	} else {
		status = statusOf(&q.it.ev)
	}
	q.out = s.appendAnswer(q.out[:0], q, f)
	last := s.fast.isStopping()
	q.scratch = appendHead(q.scratch[:0], status, retryAfter, len(q.out), last)
	q.scratch = append(q.scratch, q.out...)
	_, err := c.Write(q.scratch)
	return err == nil && !last
}

func appendHead(dst []byte, status, retryAfter, length int, last bool) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(status)...)
	dst = append(dst, "\r\nContent-Type: application/json\r\nDate: "...)
	dst = time.Now().UTC().AppendFormat(dst, http.TimeFormat)
	if retryAfter > 0 {
		dst = append(dst, "\r\nRetry-After: "...)
		dst = strconv.AppendInt(dst, int64(retryAfter), 10)
	}
	if last {
		dst = append(dst, "\r\nConnection: close"...)
	}
	dst = append(dst, "\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(length), 10)
	return append(dst, "\r\n\r\n"...)
}

// fastHead is what counts of a request's head.
type fastHead struct {
	size   int // of the head, with the empty line
	length int // of the body
}

// parseFast recognises a request that is complete in b: POST of the one path in
// HTTP/1.1 with a JSON body of known length and none but the commonest headers,
// none of them twice. ok is false for everything else, be it right or wrong.
func parseFast(b []byte) (h fastHead, ok bool) {
	rest, found := bytes.CutPrefix(b, []byte("POST "+Path+" HTTP/1.1\r\n"))
	if !found {
		return h, false
	}
	seen := 0
	for {
		line, after, found := bytes.Cut(rest, []byte("\r\n"))
		if !found {
			return h, false
		}
		rest = after
		if len(line) == 0 {
			break
		}
		name, value, found := bytes.Cut(line, []byte(": "))
		if !found || !plain(value) {
			return h, false
		}
		bit := 0
		switch bit = fastHeader(name); bit {
		case headerOther:
			return h, false
		case headerLength:
			if h.length, ok = fastLength(value); !ok {
				return h, false
			}
		case headerType:
			if string(value) != typeJSON {
				return h, false
			}
		case headerConnection:
			if !bytes.EqualFold(value, []byte("keep-alive")) {
				return h, false
			}
		}
		if seen&bit != 0 {
			return h, false
		}
		seen |= bit
	}
	const needed = headerHost | headerLength | headerType
	h.size = len(b) - len(rest)
	return h, seen&needed == needed && len(rest) >= h.length
}

// Headers that the short way knows, as bits.
const (
	headerOther = 0
	headerHost  = 1 << iota
	headerLength
	headerType
	headerConnection
	headerAgent
	headerAccept
	headerEncoding
)

func fastHeader(name []byte) int {
	for _, known := range [...]struct {
		name string
		bit  int
	}{{"Content-Length", headerLength}, {"Content-Type", headerType}, {"Host", headerHost}, {"User-Agent", headerAgent},
		{"Accept", headerAccept}, {"Connection", headerConnection}, {"Accept-Encoding", headerEncoding}} {
		if len(name) == len(known.name) && bytes.EqualFold(name, []byte(known.name)) {
			return known.bit
		}
	}
	return headerOther
}

// plain reports whether a header's value is printable ASCII without space at
// its ends.
func plain(value []byte) bool {
	if len(value) == 0 || value[0] == ' ' || value[len(value)-1] == ' ' {
		return false
	}
	for _, c := range value {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// fastLength reads a length of at most five digits.
func fastLength(value []byte) (n int, ok bool) {
	if len(value) == 0 || len(value) > 5 {
		return 0, false
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, n > 0
}

// handover is the listener of net/http: it gets what the short way cannot take.
type handover struct {
	*listener
	conns  chan *conn
	failed chan error
	over   chan struct{} // nothing is taken any more
	end    sync.Once
}

func newHandover(l *listener) *handover {
	return &handover{listener: l, conns: make(chan *conn), failed: make(chan error), over: make(chan struct{})}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.end.Do(func() { close(h.over) })
	return h.listener.Close()
}

func (h *handover) give(c *conn) {
	h.s.follow(c, http.StateNew) // from here on, not from when net/http gets round to it
	select {
	case h.conns <- c:
	case <-h.over:
		h.s.follow(c, http.StateClosed)
		c.Close()
	}
}

func (h *handover) fail(err error) {
	select {
	case h.failed <- err:
	case <-h.over:
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case err := <-h.failed:
		return nil, err
	case <-h.over:
		return nil, net.ErrClosed
	}
}
