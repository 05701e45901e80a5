package ingest

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

const fastRequest = "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

func TestTheShortWayTakesOneFormOnly(t *testing.T) {
	for _, c := range []struct {
		what, old, new string
		ok             bool
	}{
		{"the form itself", "", "", true},
		{"headers in any case", "Host: ", "host: ", true},
		{"what curl sends", "Host: localhost", "Host: localhost\r\nUser-Agent: curl/8\r\nAccept: */*", true},
		{"more behind it", "{}", "{}POST", true},
		{"another method", "POST", "PUT", false},
		{"another path", "/v1/events", "/v1/event", false},
		{"a query", "/v1/events", "/v1/events?a", false},
		{"HTTP/1.0", "HTTP/1.1", "HTTP/1.0", false},
		{"no host", "Host: localhost\r\n", "", false},
		{"no type", "Content-Type: application/json\r\n", "", false},
		{"a parameter of the type", "application/json", "application/json; charset=utf-8", false},
		{"lines", "application/json", "application/x-ndjson", false},
		{"two lengths", "Content-Length: 2", "Content-Length: 2\r\nContent-Length: 2", false},
		{"a signed length", "Length: 2", "Length: +2", false},
		{"no body", "Length: 2", "Length: 0", false},
		{"a body that is not all there", "Length: 2", "Length: 3", false},
		{"a coding", "Content-Length: 2", "Content-Length: 2\r\nTransfer-Encoding: chunked", false},
		{"an expectation", "Content-Length: 2", "Content-Length: 2\r\nExpect: 100-continue", false},
		{"an idempotency key", "Content-Length: 2", "Content-Length: 2\r\nIdempotency-Key: a", false},
		{"a last request", "Content-Length: 2", "Content-Length: 2\r\nConnection: close", false},
		{"bare line feeds", "\r\n", "\n", false},
		{"a space before the colon", "Host: ", "Host : ", false},
		{"a folded header", "Host: localhost", "Host: localhost\r\n more", false},
		{"a control character", "Host: localhost", "Host: local\x00host", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			head, ok := parseFast([]byte(strings.ReplaceAll(fastRequest, c.old, c.new)))
			if c.old == "" {
				head, ok = parseFast([]byte(fastRequest))
			}
			if ok != c.ok {
				t.Errorf("parseFast = %+v, %v", head, ok)
			}
		})
	}
}

// FuzzFast compares with net/http: what the short way takes must mean the same
// there.
func FuzzFast(f *testing.F) {
	f.Add([]byte(fastRequest))
	f.Add([]byte(strings.Replace(fastRequest, "Host: localhost", "Host: localhost\r\nAccept: */*\r\nConnection: Keep-Alive", 1)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		head, ok := parseFast(raw)
		if !ok {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			t.Fatalf("net/http refuses what the short way takes: %v", err)
		}
		if r.Method != http.MethodPost || r.URL.Path != Path || r.URL.RawQuery != "" || r.ContentLength != int64(head.length) ||
			r.Header.Get("Content-Type") != typeJSON || len(r.TransferEncoding) != 0 || r.Close {
			t.Errorf("net/http reads %s %s, length %d, %v", r.Method, r.URL, r.ContentLength, r.Header)
		}
		if head.size+head.length > len(raw) {
			t.Errorf("head %d and body %d are more than the %d bytes there are", head.size, head.length, len(raw))
		}
	})
}

func TestAPanicOnTheShortWayCostsItsConnectionOnly(t *testing.T) {
	var log bytes.Buffer
	var calls atomic.Int32
	s := serve(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Gate: func() error {
		if calls.Add(1) == 1 {
			panic("with the words of an event")
		}
		return nil
	}})
	request := post(`{"event":"entry.created","helper":"expenses","entry":{"id":"e1"}}`)
	c := s.dial(t)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(c); len(answer) > 0 {
		t.Errorf("the request that panicked was answered %q", answer)
	}
	if resp, body := s.raw(t, request); resp.StatusCode != http.StatusAccepted {
		t.Errorf("the next one was answered %d %s", resp.StatusCode, body)
	}
	if text := log.String(); !strings.Contains(text, "a request panicked") || strings.Contains(text, "words of an event") {
		t.Errorf("logged: %s", text)
	}
}
