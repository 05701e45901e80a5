package sinktest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// maxRequest is how much of a request the server reads: more than the relay's largest
// event, in any encoding.
const maxRequest = 64 << 20

// remote is the service as the suite plays it. It is safe for concurrent use.
type remote struct {
	url       string
	server    *http.Server
	healthy   http.Handler
	untouched func(*http.Request) bool
	served    sync.WaitGroup

	mu       sync.Mutex
	fault    *fault          // guarded by mu; nil = all is well
	gate     chan struct{}   // guarded by mu; requests wait until it is closed; nil = no gate
	parked   []chan struct{} // guarded by mu; gates that hold who came before pass
	requests []Request       // guarded by mu
	waiting  int             // guarded by mu; requests at a gate
	gone     int             // guarded by mu; requests whose client left them at a gate
	stray    int             // guarded by mu; requests that followed a redirect
	changed  chan struct{}   // guarded by mu; closed when any of these changes
}

// straying is where the redirect leads.
const straying = "/sinktest-redirected"

func newRemote(o Options) (*remote, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the suite's own server: %w", err)
	}
	r := &remote{url: "http://" + l.Addr().String(), healthy: o.Remote, untouched: o.Untouched, changed: make(chan struct{})}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	r.served.Go(func() { _ = r.server.Serve(l) })
	return r, nil
}

func (r *remote) close() {
	r.calm()
	_ = r.server.Close()
	r.served.Wait()
}

// ServeHTTP records a request and answers it as the check under way wants.
func (r *remote) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, maxRequest))
	if err != nil {
		return // the client left
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	if r.untouched != nil && r.untouched(req) {
		r.wellServed(w, req)
		return
	}
	fault, gate := r.arrive(req, body)
	if gate != nil && !r.wait(req.Context(), gate) {
		return
	}
	if fault != nil {
		fault.serve(w)
		return
	}
	r.wellServed(w, req)
}

func (r *remote) wellServed(w http.ResponseWriter, req *http.Request) {
	if r.healthy != nil {
		r.healthy.ServeHTTP(w, req)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

func (r *remote) arrive(req *http.Request, body []byte) (*fault, chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.URL.Path == straying {
		r.stray++
	}
	r.requests = append(r.requests, Request{req.Method, req.URL.RequestURI(), req.Header.Clone(), body})
	if r.gate != nil {
		r.waiting++
	}
	r.change()
	return r.fault, r.gate
}

// wait holds a request until the gate opens. It is false when the client left first.
func (r *remote) wait(ctx context.Context, gate chan struct{}) (opened bool) {
	select {
	case <-gate:
		opened = true
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
	if !opened {
		r.gone++
	}
	r.change()
	return opened
}

func (r *remote) change() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// play makes the service answer with a fault from now on.
func (r *remote) play(f *fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// hold makes requests wait from now on, until release or calm.
func (r *remote) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate, r.gone = make(chan struct{}), 0
}

func (r *remote) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate != nil {
		r.parked = append(r.parked, r.gate)
	}
	for _, gate := range r.parked {
		close(gate)
	}
	r.gate, r.parked = nil, nil
}

// calm makes all well again, and forgets.
func (r *remote) calm() {
	r.release()
	r.play(nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests, r.stray = nil, 0
}

// forget lets go of the requests that came; counts begin anew.
func (r *remote) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}

// seen is how many requests have come; since(n) are those after the first n.
func (r *remote) seen() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests)
}

func (r *remote) since(n int) []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests[min(n, len(r.requests)):])
}

func (r *remote) strays() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stray
}

// held waits until n requests are at the gate; left, until n clients have left it.
func (r *remote) held(ctx context.Context, n int) bool {
	return r.until(ctx, func() bool { return r.waiting >= n })
}

func (r *remote) left(ctx context.Context, n int) bool {
	return r.until(ctx, func() bool { return r.gone >= n })
}

// until waits for a condition, which is called with mu held.
func (r *remote) until(ctx context.Context, holds func() bool) bool {
	for {
		r.mu.Lock()
		done, changed := holds(), r.changed
		r.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// fault is a [Fault] that is complete.
type fault struct {
	name string
	Fault
	url string // of the service
}

func (f *fault) serve(w http.ResponseWriter) {
	switch f.name {
	case faultGarbage, faultClosed:
		if f.Status == 0 {
			f.breakOff(w)
			return
		}
	case faultRedirect:
		w.Header().Set("Location", f.url+straying)
	}
	w.Header().Set("Content-Type", "application/json")
	maps.Copy(w.Header(), f.Header)
	w.WriteHeader(f.Status)
	body := f.Body
	if body == "" {
		body = fmt.Sprintf(`{"error":"the suite answers %s"}`, f.name)
	}
	_, _ = io.WriteString(w, body)
}

// breakOff answers what is not HTTP, or nothing.
func (f *fault) breakOff(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // HTTP/1 always can
	}
	defer conn.Close()
	if f.name == faultGarbage {
		_, _ = io.WriteString(conn, "\x00\x01\x02 this is not HTTP\n\n\n")
	}
}

// nobody is an address where nothing listens.
func nobody() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return "http://" + l.Addr().String(), nil
}

// pass lets those that wait go on waiting, and the others through.
func (r *remote) pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate != nil {
		r.parked = append(r.parked, r.gate)
		r.gate = nil
	}
}
