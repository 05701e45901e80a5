// Package sheetstest is Google Sheets for tests: the part of its API that keeps rows,
// the exchange of a service account's key for a token, and the people who have the
// spreadsheet open at the same time.
//
// Guarantee: the server keeps a real grid. A batchUpdate is applied request by request,
// each seeing the rows and columns as the one before it left them, and either all of it
// or nothing. Quotas, limits and refusals are those of Google, with its bodies; what
// Google leaves open (the order of ranges in an answer) is as inconvenient as it may
// be. It shares no type with Google's client, so that a mistake of one shows.
package sheetstest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Op is a kind of call, as quotas count.
type Op string

// The kinds of calls.
const (
	Token Op = "token"
	Read  Op = "read"
	Write Op = "write"
)

// Failure is what goes wrong with one call.
type Failure string

// What can go wrong. Before and After say whether the call has had its effect.
const (
	Quota        Failure = "429"
	Internal     Failure = "500"
	Unavailable  Failure = "503"
	Redirect     Failure = "302"
	TooLarge     Failure = "413"
	HangBefore   Failure = "no answer, and no effect"
	HangAfter    Failure = "no answer, but the effect"
	ResetBefore  Failure = "connection reset, and no effect"
	ResetAfter   Failure = "connection reset, but the effect"
	BriefQuota   Failure = "429, with a Retry-After of a second" // as a proxy before Google gives it
	InvalidGrant Failure = "invalid_grant"                       // for Token
	LostToken    Failure = "401"
)

// Role is what a service account may do with the spreadsheet.
type Role int

// The roles.
const (
	Stranger Role = iota
	Viewer
	Editor
)

// Call is a call that the server had.
type Call struct {
	At     time.Time
	Op     Op
	Status int // 0 = no answer
}

// Server is one spreadsheet and the token endpoint. It is an http.Handler and safe for
// concurrent use.
type Server struct {
	now func() time.Time

	mu       sync.Mutex
	id       string
	book     *workbook
	roles    map[string]Role // by client_email
	disabled bool            // the API, in the project
	cells    int             // most cells of the spreadsheet
	poison   string          // a text that no cell may have, for a reason that is nobody's business
	tokens   map[string]grant
	issued   int
	failures map[Op][]Failure
	used     map[string][]time.Time // by quota
	calls    []Call
	limit    int // reads and writes a minute and user
	project  int // and of all users of a project
}

type grant struct {
	email string
	until time.Time
}

// ID is the id of the spreadsheet of a new Server.
const ID = "1sheetstest-0123456789_abcdefghijklmnopqrstuv"

// New is a server with an empty tab "Sheet1", as new spreadsheets have, that nobody
// shares. now is its clock.
func New(now func() time.Time) *Server {
	return &Server{
		now: now, id: ID, roles: map[string]Role{}, cells: 10_000_000, limit: 60, project: 300,
		book:     &workbook{tabs: []*tab{newTab(0, "Sheet1", 1000, 26)}},
		tokens:   map[string]grant{},
		failures: map[Op][]Failure{},
		used:     map[string][]time.Time{},
	}
}

// Share gives an account a role.
func (s *Server) Share(email string, r Role) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[email] = r
}

// Disable switches the API off for the project, or on again.
func (s *Server) Disable(off bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disabled = off
}

// LimitCells changes Google's limit of 10 million cells.
func (s *Server) LimitCells(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cells = n
}

// LimitCalls changes the quota of a user.
func (s *Server) LimitCalls(perMinute int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = perMinute
}

// LimitProject changes the quota of all users together.
func (s *Server) LimitProject(perMinute int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.project = perMinute
}

// Poison is a text that makes a request invalid when a cell holds it.
func (s *Server) Poison(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poison = text
}

// Fail makes the next calls of a kind go wrong, one each.
func (s *Server) Fail(op Op, what ...Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures[op] = append(s.failures[op], what...)
}

// Settle takes back the failures that no call has met, and says how many there were.
func (s *Server) Settle() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, q := range s.failures {
		n += len(q)
	}
	clear(s.failures)
	return n
}

// Calls are the calls so far.
func (s *Server) Calls(op Op) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Call
	for _, c := range s.calls {
		if c.Op == op {
			out = append(out, c)
		}
	}
	return out
}

// Transport is a way to the server without a network, for tests in a bubble of
// testing/synctest.
func (s *Server) Transport() http.RoundTripper { return direct{s} }

type direct struct{ s *Server }

func (d direct) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			if e, ok := p.(error); !ok || !errors.Is(e, http.ErrAbortHandler) {
				panic(p)
			}
			resp, err = nil, syscall.ECONNRESET
		}
	}()
	w := httptest.NewRecorder()
	served := req.Clone(req.Context())
	if served.Body == nil {
		served.Body = http.NoBody // as a server has it
	}
	d.s.ServeHTTP(w, served)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	resp = w.Result()
	resp.Request = req
	return resp, nil
}

// failure is an error of the API.
type failure struct {
	status  int
	state   string // of google.rpc.Status
	message string
	details []any
}

func (f *failure) Error() string { return f.message }

func invalid(format string, args ...any) *failure {
	return &failure{status: 400, state: "INVALID_ARGUMENT", message: fmt.Sprintf(format, args...)}
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op, serve := s.route(r)
	if serve == nil {
		http.NotFound(w, r)
		return
	}
	what := s.begin(op)
	switch what {
	case HangBefore:
		_, _ = io.Copy(io.Discard, r.Body) // with a body left to read, nobody would notice that the client has gone
		s.record(op, 0)
		<-r.Context().Done()
		return
	case ResetBefore:
		s.record(op, 0)
		panic(http.ErrAbortHandler)
	case BriefQuota:
		s.record(op, 429)
		w.Header().Set("Retry-After", "1")
		writeFailure(w, failureOf(Quota))
		return
	case InvalidGrant:
		s.record(op, 400)
		writeJSON(w, 400, map[string]any{"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
		return
	case Redirect:
		s.record(op, 302)
		http.Redirect(w, r, "https://accounts.google.com/", http.StatusFound)
		return
	}
	var body any
	err := failureOf(what)
	if err == nil {
		body, err = serve(r)
	}
	switch what {
	case HangAfter:
		s.record(op, 0)
		<-r.Context().Done()
		return
	case ResetAfter:
		s.record(op, 0)
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		s.record(op, err.status)
		writeFailure(w, err)
		return
	}
	s.record(op, 200)
	writeJSON(w, 200, body)
}

// route says what a request is.
func (s *Server) route(r *http.Request) (Op, func(*http.Request) (any, *failure)) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/v4/spreadsheets/")
	switch {
	case r.URL.Path == "/token" && r.Method == http.MethodPost:
		return Token, s.token
	case !ok:
		return "", nil
	case r.Method == http.MethodPost && strings.HasSuffix(rest, "/values:batchGetByDataFilter"):
		return Read, s.admit(Read, strings.TrimSuffix(rest, "/values:batchGetByDataFilter"), s.values)
	case r.Method == http.MethodPost && strings.HasSuffix(rest, ":batchUpdate"):
		return Write, s.admit(Write, strings.TrimSuffix(rest, ":batchUpdate"), s.batchUpdate)
	case r.Method == http.MethodGet && !strings.ContainsAny(rest, "/:"):
		return Read, s.admit(Read, rest, s.get)
	}
	return "", nil
}

// begin takes the failure that is due.
func (s *Server) begin(op Op) Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.failures[op]; len(q) > 0 {
		s.failures[op] = q[1:]
		return q[0]
	}
	return ""
}

func (s *Server) record(op Op, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, Call{s.now(), op, status})
}

func failureOf(what Failure) *failure {
	switch what {
	case Quota:
		return exhausted("Write requests", "WriteRequestsPerMinutePerUser")
	case Internal:
		return &failure{status: 500, state: "INTERNAL", message: "Internal error encountered."}
	case Unavailable:
		return &failure{status: 503, state: "UNAVAILABLE", message: "The service is currently unavailable."}
	case LostToken:
		return unauthenticated()
	case TooLarge:
		return &failure{status: 413, state: "", message: "Request Entity Too Large"}
	}
	return nil
}
