package ingest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// Path is the one resource of the events socket.
const Path = "/v1/events"

const (
	typeJSON   = "application/json"
	typeNDJSON = "application/x-ndjson"

	// drainMost bounds how much of a refused body is read and thrown away, so
	// that a client which reads only after it has sent sees the refusal rather
	// than a broken pipe.
	drainMost = 64 << 20
)

// request is the memory of one single-event request, used again and again.
type request struct {
	it      item
	evs     []*queue.Event // the one in it
	body    []byte
	scratch []byte
	out     []byte
}

func newRequest() *request {
	q := &request{body: make([]byte, 0, 2<<10), out: make([]byte, 0, 512)}
	q.evs = []*queue.Event{&q.it.ev}
	return q
}

func (s *Server) getRequest() *request { return s.requests.Get().(*request) }

// putRequest keeps q for the next one unless it grew large.
func (s *Server) putRequest(q *request) {
	if cap(q.body)+cap(q.scratch) <= 2*bigBody {
		q.it.reset(0)
		s.requests.Put(q)
	}
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	c := connOf(r.Context())
	s.metrics.requests.Add(1)
	if !s.begin() {
		s.refuse(w, r, c, shuttingDown())
		return
	}
	defer s.handlers.Done()
	s.metrics.inFlight.Add(1)
	defer s.metrics.inFlight.Add(-1)

	if f := s.admit(w, r, c); f != nil {
		s.refuse(w, r, c, f)
		return
	}
	media, f := mediaType(r.Header, c.socket)
	if f != nil {
		s.refuse(w, r, c, f)
		return
	}
	key, f := idempotencyKey(r.Header)
	if f != nil {
		s.refuse(w, r, c, f)
		return
	}
	if media == typeNDJSON {
		if key != "" {
			s.refuse(w, r, c, fail(http.StatusBadRequest, CodeBadKey,
				"Idempotency-Key header is for a single event; in a stream give each event its own id").of("Idempotency-Key"))
			return
		}
		s.serveStream(w, r, c)
		return
	}
	s.serveSingle(w, r, c, key)
}

// admit refuses what needs no look at the body.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, c *conn) *failure {
	if s.forbidden(c) {
		return fail(http.StatusForbidden, CodePeer, "user %d may not send events; listen.allow_uids does not list it", c.uid)
	}
	if c.excess {
		return fail(http.StatusServiceUnavailable, CodeTooManyConns,
			"more than %d connections are open; keep one and reuse it", s.o.MaxConns).after(retryBusy)
	}
	if r.URL.Path != Path {
		return fail(http.StatusNotFound, CodeNotFound,
			"%s does not exist; this socket takes POST %s, everything else is on the admin socket (listen.admin)", clip(r.URL.Path), Path)
	}
	if r.Method != http.MethodPost {
		w.Header()["Allow"] = []string{http.MethodPost}
		return fail(http.StatusMethodNotAllowed, CodeMethod,
			"%s %s does not exist; this socket takes POST %s", clip(r.Method), Path, Path)
	}
	if err := s.o.Gate(); err != nil {
		return ofQueue(err)
	}
	return nil
}

func (s *Server) forbidden(c *conn) bool {
	return len(s.o.AllowUIDs) > 0 && (c.credErr != nil || !slices.Contains(s.o.AllowUIDs, c.uid))
}

// mediaType is typeJSON or typeNDJSON.
func mediaType(h http.Header, socket string) (string, *failure) {
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return "", fail(http.StatusUnsupportedMediaType, CodeMediaType,
			"Content-Encoding %s is not supported; send the body as it is", clip(enc)).of("Content-Encoding")
	}
	got := h.Get("Content-Type")
	switch got {
	case typeJSON, typeNDJSON:
		return got, nil
	case "":
		return typeJSON, nil
	}
	media, params, err := mime.ParseMediaType(got)
	charset := strings.ToLower(params["charset"])
	if err == nil && (media == typeJSON || media == typeNDJSON) && (charset == "" || charset == "utf-8" || charset == "utf8") {
		return media, nil
	}
	return "", fail(http.StatusUnsupportedMediaType, CodeMediaType,
		"Content-Type %s is not supported; send one event as %s or lines of events as %s, in UTF-8: "+
			"curl --unix-socket %s -H 'Content-Type: %s' --data-binary @event.json http://localhost%s",
		clip(got), typeJSON, typeNDJSON, socket, typeJSON, Path).of("Content-Type")
}

// clip shortens what a client sent before it goes into a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

func (s *Server) serveSingle(w http.ResponseWriter, r *http.Request, c *conn, key string) {
	if r.ContentLength > s.o.MaxEventBytes {
		s.refuse(w, r, c, tooLarge("the body", s.o.MaxEventBytes))
		return
	}
	q := s.getRequest()
	defer s.putRequest(q)
	release, f := s.readBody(q, r, c)
	defer release()
	if f != nil {
		s.refuse(w, r, c, f)
		return
	}
	f = s.take(q, key)
	header := w.Header()
	header["Content-Type"] = []string{typeJSON}
	if f != nil {
		s.explain(r.Context(), c, f)
		setRetryAfter(header, f)
		w.WriteHeader(f.status)
	} else {
		w.WriteHeader(statusOf(&q.it.ev))
	}
	q.out = s.appendAnswer(q.out[:0], q, f)
	w.Write(q.out) // a client that is gone learns nothing; its repeat will
}

// take makes the event in q.body durable; nil means that it is.
func (s *Server) take(q *request, key string) *failure {
	started := s.clock()
	s.metrics.bytes.Add(int64(len(q.body)))
	q.it.reset(0)
	q.scratch = s.prepare(&q.it, q.body, key, q.scratch)
	if q.it.failure == nil {
		// Without the request's context: net/http ends that when the client ends
		// its half of the connection, as nc -N does, and still waits for the answer.
		if err := s.o.Store.Accept(context.Background(), q.evs); err != nil {
			q.it.failure = ofQueue(err)
		} else if q.it.ev.Err != nil {
			q.it.failure = ofQueue(q.it.ev.Err)
		}
	}
	failpoint.Here("answer.event")
	s.count(&q.it)
	if q.it.failure == nil {
		s.o.Observe(s.clock() - started)
	}
	return q.it.failure
}

// appendAnswer appends the body of the answer to a single event.
func (s *Server) appendAnswer(dst []byte, q *request, f *failure) []byte {
	dst = append(dst, '{')
	if f != nil {
		dst = appendError(dst, f, false)
	} else {
		dst = s.appendAccepted(dst, &q.it)
	}
	return append(dst, "}\n"...)
}

// count books the fate of one event.
func (s *Server) count(it *item) {
	switch {
	case it.failure != nil:
		s.metrics.reject(it.failure.code)
	case it.ev.Duplicate:
		s.metrics.duplicates.Add(1)
	default:
		s.metrics.accept(it.ev.Helper)
		if it.ev.Unstable {
			s.metrics.unstable.Add(1)
		}
	}
}

// readBody reads the whole body into q.body. release gives back what a large
// one had to ask for, and is never nil.
func (s *Server) readBody(q *request, r *http.Request, c *conn) (release func(), f *failure) {
	release = func() {}
	grow := func(size int64) *failure {
		if size > bigBody && int64(cap(q.body)) <= bigBody {
			if f := s.takeBig(r.Context()); f != nil {
				return f
			}
			release = s.giveBig
		}
		q.body = slices.Grow(q.body, int(size)-len(q.body))
		return nil
	}
	q.body = q.body[:0]
	c.beginBody(hooks{})
	defer c.endBody()
	if n := r.ContentLength; n >= 0 {
		if f := grow(n); f != nil {
			return release, f
		}
		read, err := io.ReadFull(r.Body, q.body[:n])
		q.body = q.body[:read]
		if err != nil {
			return release, s.bodyFailure(c, err)
		}
		return release, nil
	}
	for {
		if len(q.body) == cap(q.body) {
			if f := grow(min(int64(2*cap(q.body)), s.o.MaxEventBytes+1)); f != nil {
				return release, f
			}
		}
		n, err := r.Body.Read(q.body[len(q.body):cap(q.body)])
		q.body = q.body[:len(q.body)+n]
		switch {
		case int64(len(q.body)) > s.o.MaxEventBytes:
			return release, tooLarge("the body", s.o.MaxEventBytes)
		case errors.Is(err, io.EOF):
			return release, nil
		case err != nil:
			return release, s.bodyFailure(c, err)
		}
	}
}

// takeBig waits for the right to hold more than bigBody, no longer than a
// client may stall.
func (s *Server) takeBig(ctx context.Context) *failure {
	select {
	case s.big <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(s.o.StallTimeout)
	defer timer.Stop()
	select {
	case s.big <- struct{}{}:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return fail(http.StatusServiceUnavailable, CodeBusy,
		"%d bodies above %d bytes are being received already; try again", cap(s.big), bigBody).after(retryBusy)
}

func (s *Server) giveBig() { <-s.big }

// bodyFailure says why the rest of a body cannot be read.
func (s *Server) bodyFailure(c *conn, err error) *failure {
	c.cutOff()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fail(http.StatusRequestTimeout, CodeTimeout, "no byte came for %s; nothing of this event was taken", s.o.StallTimeout)
	}
	return fail(http.StatusBadRequest, CodeIncomplete,
		"the body ends before its announced length, or is not framed as HTTP/1.1 says; nothing of this event was taken")
}

// refuse answers without having read all of the body. The answer goes out
// before anything more is read; then the rest is thrown away, within bounds, and
// the connection ends.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, c *conn, f *failure) {
	s.metrics.reject(f.code)
	s.explain(r.Context(), c, f)
	header := w.Header()
	header["Content-Type"] = []string{typeJSON}
	setRetryAfter(header, f)
	rc := http.NewResponseController(w)
	unread := r.ContentLength != 0
	if unread {
		header["Connection"] = []string{"close"}
		rc.EnableFullDuplex() // else net/http reads the body first
	}
	answer := append(appendError([]byte{'{'}, f, false), "}\n"...)
	// With its length the client knows the answer to be whole before we are
	// done with the rest of its body.
	header["Content-Length"] = []string{strconv.Itoa(len(answer))}
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		w.Write(answer)
	}
	if !unread {
		return
	}
	rc.Flush()
	if r.Header.Get("Expect") == "" { // else the client waits for our word
		c.beginBody(hooks{})
		io.CopyN(io.Discard, r.Body, drainMost)
		c.endBody()
	}
	c.cutOff()
}

func setRetryAfter(h http.Header, f *failure) {
	if f.retryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(f.retryAfter)}
	}
}

// explain logs a refusal for who debugs a sender.
func (s *Server) explain(ctx context.Context, c *conn, f *failure) {
	s.o.Logger.LogAttrs(ctx, slog.LevelDebug, "event refused", slog.Int("status", f.status), slog.String("code", f.code),
		slog.String("field", f.field), slog.Int("peer_pid", int(c.pid)), slog.Int("peer_uid", int(c.uid)))
}
