// Package zapiertest is a Zapier for tests: the part that takes hooks.
//
// Guarantee: it answers as hooks.zapier.com does, errors included, and keeps every
// request and every run that it caused. What it does and why:
//
//   - A hook that was caught answers 200 with a JSON document, whether the Zap is on or
//     off, even when there is none (https://help.zapier.com/hc/en-us/articles/8496288690317-Trigger-Zaps-from-webhooks);
//     with silent mode the body is empty. Only a Zap that is on runs.
//   - An array as body starts one run per element.
//   - A body over 10 MB is answered 413, more than 30 requests a second for one hook 429
//     (https://docs.zapier.com/integrations/build/operating-constraints).
//   - A hook that was unsubscribed is answered 410, another path 404.
//   - Nothing is redirected.
package zapiertest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxBody      = 10_000_000
	maxPerSecond = 30
)

// State is what became of the Zap behind a hook.
type State int

const (
	On           State = iota // runs
	Off                       // is answered as if it ran
	Unsubscribed              // 410
)

// Request is one that arrived, as it arrived.
type Request struct {
	Path   string
	Header http.Header
	Body   []byte
	Status int // of the answer; 0 when there was none
}

// Fault replaces the answers of a number of requests.
type Fault struct {
	Times      int // how many requests; 0 = 1
	Status     int
	RetryAfter string // header; "" = none
	Location   string // header; "" = none
	Body       string
	// AfterRun takes the hook first, so that the Zap runs although the sender is told
	// otherwise, or nothing at all: see Hang.
	AfterRun bool
	// Hang does not answer until the sender gives up.
	Hang bool
}

// Service is a Zapier. It is safe for concurrent use.
type Service struct {
	now func() time.Time

	mu       sync.Mutex
	states   map[string]State
	requests []Request
	runs     []json.RawMessage
	faults   []Fault
	recent   map[string][]time.Time // of each hook, the requests of the last second
	ids      int
}

// New is a Zapier whose clock is now; nil is the real one.
func New(now func() time.Time) *Service {
	if now == nil {
		now = time.Now
	}
	return &Service{now: now, states: map[string]State{}, recent: map[string][]time.Time{}}
}

// Set says what is behind the hook of a path such as "/hooks/catch/123456/abcdef/". A hook
// that was not set is On.
func (s *Service) Set(path string, state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[hook(path)] = state
}

// Break adds faults, which are used up in order, one request after the other.
func (s *Service) Break(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		for range max(1, f.Times) {
			s.faults = append(s.faults, f)
		}
	}
}

// Requests are all that arrived, in order.
func (s *Service) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Runs are what the Zaps were started with, in order: one JSON value for each run.
func (s *Service) Runs() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.runs)
}

// answer is what a request gets.
type answer struct {
	status     int
	retryAfter string
	location   string
	body       string
	hang       bool
}

// ServeHTTP takes a hook.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return // the sender gave up
	}
	a := s.take(r, body)
	if a.hang {
		<-r.Context().Done()
		return
	}
	if a.retryAfter != "" {
		w.Header().Set("Retry-After", a.retryAfter)
	}
	if a.location != "" {
		w.Header().Set("Location", a.location)
	}
	if strings.HasPrefix(a.body, "{") {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body) // the sender may be gone
}

func (s *Service) take(r *http.Request, body []byte) (a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		kept := Request{Path: r.URL.Path, Header: r.Header.Clone(), Body: body, Status: a.status}
		if a.hang {
			kept.Status = 0
		}
		s.requests = append(s.requests, kept)
	}()
	if len(s.faults) > 0 {
		f := s.faults[0]
		s.faults = s.faults[1:]
		if f.AfterRun {
			s.run(r.URL.Path, body)
		}
		return answer{status: f.Status, retryAfter: f.RetryAfter, location: f.Location, body: f.Body, hang: f.Hang}
	}
	switch name := hook(r.URL.Path); {
	case r.Method != http.MethodPost && r.Method != http.MethodPut && r.Method != http.MethodGet:
		return answer{status: http.StatusMethodNotAllowed, body: "Method Not Allowed"}
	case name == "":
		return answer{status: http.StatusNotFound, body: "not found"}
	case len(body) > maxBody:
		return answer{status: http.StatusRequestEntityTooLarge, body: "payload too large"}
	case s.states[name] == Unsubscribed:
		return answer{status: http.StatusGone, body: "please unsubscribe me"}
	case s.tooFast(name):
		return answer{status: http.StatusTooManyRequests, retryAfter: "1", body: "throttled"}
	}
	s.run(r.URL.Path, body)
	if strings.HasSuffix(strings.TrimSuffix(r.URL.Path, "/"), "/silent") {
		return answer{status: http.StatusOK}
	}
	s.ids++
	id := fmt.Sprintf("0199f2b3-7c1d-7e5a-9b44-%012d", s.ids)
	return answer{status: http.StatusOK, body: fmt.Sprintf(`{"attempt":%q,"id":%q,"request_id":%q,"status":"success"}`, id, id, id)}
}

// tooFast counts a request, unless there were too many. s.mu is held.
func (s *Service) tooFast(name string) bool {
	now := s.now()
	recent := slices.DeleteFunc(s.recent[name], func(t time.Time) bool { return now.Sub(t) >= time.Second })
	if len(recent) < maxPerSecond {
		s.recent[name] = append(recent, now)
		return false
	}
	s.recent[name] = recent
	return true
}

// run starts the Zap. s.mu is held.
func (s *Service) run(path string, body []byte) {
	if s.states[hook(path)] != On {
		return
	}
	var several []json.RawMessage
	if json.Unmarshal(body, &several) == nil {
		s.runs = append(s.runs, several...)
		return
	}
	s.runs = append(s.runs, json.RawMessage(body))
}

// hook is the account and the name in a path, "" when it is that of no hook.
func hook(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) < 3 || parts[0] != "hooks" || (parts[1] != "catch" && parts[1] != "standard") {
		return ""
	}
	parts = parts[2:]
	if parts[len(parts)-1] == "silent" {
		parts = parts[:len(parts)-1]
	}
	return strings.Join(parts, "/")
}
