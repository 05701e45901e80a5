package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// eventsStub answers on an events socket as docs/api.md says the daemon does:
// an event whose entry id is "bad" is rejected, "again" is a duplicate.
type eventsStub struct {
	status     int // != 0: every request is refused so
	breakAfter int // > 0: the connection breaks after this many results

	mu       sync.Mutex
	requests []stubRequest
}

type stubRequest struct {
	contentType, idempotencyKey, body string
}

func (s *eventsStub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.status != 0 {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(s.status)
		fmt.Fprintf(w, `{"error":{"code":"refused","message":"refused with %d","field":""}}`, s.status)
		return
	}
	if r.Header.Get("Content-Type") == "application/x-ndjson" {
		s.stream(w, r)
		return
	}
	var body strings.Builder
	_, _ = bufio.NewReader(r.Body).WriteTo(&body)
	s.record(r, body.String())
	status, text := stubResult([]byte(body.String()))
	w.WriteHeader(status)
	fmt.Fprintf(w, "{%s}\n", text)
}

func (s *eventsStub) record(r *http.Request, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, stubRequest{r.Header.Get("Content-Type"), r.Header.Get("Idempotency-Key"), body})
}

func (s *eventsStub) bodies() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, r := range s.requests {
		list = append(list, r.body)
	}
	return list
}

func (s *eventsStub) stream(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		s.record(r, lines.Text())
		status, text := stubResult(lines.Bytes())
		fmt.Fprintf(w, `{"line":%d,"status":%d,%s}`+"\n", n, status, text)
		_ = rc.Flush()
		if n == s.breakAfter {
			panic(http.ErrAbortHandler)
		}
	}
}

// stubResult is the status and the members of an answer.
func stubResult(body []byte) (int, string) {
	var e struct {
		Entry struct {
			ID string `json:"id"`
		} `json:"entry"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return http.StatusBadRequest, `"error":{"code":"malformed","message":"not JSON","field":"","offset":4}`
	}
	switch id := e.Entry.ID; id {
	case "bad":
		return http.StatusUnprocessableEntity, `"error":{"code":"unknown_helper","message":"no helper \"expense\"; did you mean \"expenses\"?","field":"helper"}`
	case "full":
		return http.StatusTooManyRequests, `"error":{"code":"queue_full","message":"the queue is full","field":"","retry_after":5}`
	case "again":
		return http.StatusOK, `"id":"evt_first","duplicate":true,"deliveries":[{"id":"del_first","webhook":"expenses.backend"}],"skipped":[]`
	case "unwanted":
		return http.StatusAccepted, `"id":"evt_u","deliveries":[],"skipped":[{"webhook":"expenses.alerts","reason":"disabled"}]`
	default:
		return http.StatusAccepted, `"id":"evt_` + id + `","deliveries":[{"id":"del_` + id + `","webhook":"expenses.backend"}],"skipped":[]`
	}
}

func (s *eventsStub) listen(path string) (stop func(), err error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: s}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	return func() {
		_ = server.Close()
		<-ended
	}, nil
}

// eventsd SOCKET [refuse CODE | break N]: a stub for the rest of the session.
// What it was handed is in the file SOCKET.log at the end of each request.
func eventsd(ts *testscript.TestScript, neg bool, args []string) {
	stub := &eventsStub{}
	switch {
	case len(args) == 3 && args[1] == "refuse":
		stub.status, _ = strconv.Atoi(args[2])
	case len(args) == 3 && args[1] == "break":
		stub.breakAfter, _ = strconv.Atoi(args[2])
	case len(args) != 1 || neg:
		ts.Fatalf("usage: eventsd SOCKET [refuse CODE | break N]")
	}
	stop, err := stub.listen(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(stop)
}

// shortTempDir is a directory whose path leaves room for a socket's name: a
// socket's path has at most 107 bytes (unix(7)).
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
