// Package hostiletest is a server for tests that answers HTTP as nobody should.
//
// Guarantee: each way of [Each] has a server of its own on loopback, which reads one
// request of a connection whole, answers in that way, and is gone with the test. A
// client that follows a redirect, with or without what it signs in with, fails the test.
// What a sink says of such an answer must hold no secret, though the answer repeats the
// request.
package hostiletest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Way is one way to answer wrongly.
type Way struct {
	Name string
	// Answered reports whether what comes is a 2xx all the same, which some services mean
	// as a success whatever follows.
	Answered bool

	forever bool // it ends when the client does
	answer  func(w io.Writer, request, elsewhere string)
}

const (
	patience = 30 * time.Second
	// dripFor is how long a test bears a server that never ends.
	dripFor = time.Second
	// large is more than anybody should read, and no end of it is waited for.
	large = 100 << 20
)

// Ways are all of them.
func Ways() []Way {
	return slices.Concat(echoes(), withoutEnd(), wrongBodies(), wrongStatuses())
}

func echoes() []Way {
	return []Way{
		{Name: "an echo", answer: func(w io.Writer, request, _ string) { say(w, request) }},
		{Name: "an echo of the path as the status", answer: func(w io.Writer, request, _ string) {
			say(w, "HTTP/1.1 "+strings.Fields(request)[1]+" OK\r\n\r\n")
		}},
		{Name: "an echo of the headers, which are none", answer: func(w io.Writer, request, _ string) {
			say(w, "HTTP/1.1 200 OK\r\n"+flat(request)+"\r\n\r\n")
		}},
		{Name: "a redirect to an echo that is no URL", answer: func(w io.Writer, request, _ string) {
			say(w, "HTTP/1.1 302 Found\r\nLocation: http://%zz/"+flat(request)+"\r\nContent-Length: 0\r\n\r\n")
		}},
		{Name: "a redirect to another host", answer: func(w io.Writer, _, elsewhere string) {
			say(w, "HTTP/1.1 307 Temporary Redirect\r\nLocation: "+elsewhere+"\r\nContent-Length: 0\r\n\r\n")
		}},
	}
}

func withoutEnd() []Way {
	return []Way{
		{Name: "a body without end", Answered: true, forever: true, answer: func(w io.Writer, _, _ string) { endless(w, "200 OK", " ") }},
		{Name: "an array without end", Answered: true, forever: true, answer: func(w io.Writer, _, _ string) { endless(w, "200 OK", "[[1],") }},
		{Name: "an error without end", forever: true, answer: func(w io.Writer, _, _ string) { endless(w, "500 Internal Server Error", "no") }},
		{Name: "headers without end", forever: true, answer: func(w io.Writer, _, _ string) {
			say(w, "HTTP/1.1 200 OK\r\n")
			for say(w, "X-More: "+strings.Repeat("x", 1000)+"\r\n") {
			}
		}},
		{Name: "hints without end", forever: true, answer: func(w io.Writer, _, _ string) {
			for say(w, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") {
			}
		}},
		{Name: "a body that drips", Answered: true, forever: true, answer: func(w io.Writer, _, _ string) {
			say(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
			drip(w)
		}},
		{Name: "headers that drip", forever: true, answer: func(w io.Writer, _, _ string) {
			say(w, "HTTP/1.1 200 OK\r\nX-More: ")
			drip(w)
		}},
		{Name: "a hundred megabytes", Answered: true, forever: true, answer: func(w io.Writer, _, _ string) {
			say(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "+strconv.Itoa(large)+"\r\n\r\n")
			for n := 0; n < large && say(w, strings.Repeat(" ", 64<<10)); n += 64 << 10 {
			}
		}},
		{Name: "less than it announced", Answered: true, answer: func(w io.Writer, _, _ string) {
			say(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
		}},
	}
}

func wrongBodies() (ways []Way) {
	for _, body := range []string{"", "<html>", "{", "null", "[]", "7", `"ok"`, `{"ok":"true","status":7,"access_token":[],"expires_in":"x","sheets":7,"valueRanges":{}}`, "\x1f\x8b\x08\x00", "\x00\xff\xfe", strings.Repeat("[", 20_000)} {
		ways = append(ways, Way{Name: fmt.Sprintf("200 with %.20q", body), Answered: true, answer: func(w io.Writer, _, _ string) {
			say(w, page("200 OK\r\nContent-Encoding: gzip\r\nContent-Type: text/html", body))
		}})
	}
	return ways
}

func wrongStatuses() (ways []Way) {
	for _, status := range []int{400, 401, 403, 404, 409, 413, 429, 500, 503, 599, 999} {
		ways = append(ways, Way{Name: fmt.Sprintf("%d with an echo", status), answer: func(w io.Writer, request, _ string) {
			say(w, page(fmt.Sprintf("%d %s", status, flat(request)), request))
		}}, Way{Name: fmt.Sprintf("%d with an echo in JSON", status), answer: func(w io.Writer, request, _ string) {
			body, err := json.Marshal(map[string]any{
				"error": map[string]any{"code": status, "message": request, "status": request, "errors": []any{map[string]any{"reason": request, "message": request}}},
				"ok":    false, "needed": request, "error_description": request,
			})
			if err == nil {
				say(w, page(strconv.Itoa(status)+" No\r\nContent-Type: application/json", string(body)))
			}
		}})
	}
	return ways
}

// Each runs a subtest for each way, with the address of a server that answers so. ctx
// ends soon when the answer never does.
func Each(t *testing.T, test func(t *testing.T, ctx context.Context, way Way, base string)) {
	t.Helper()
	var visits atomic.Int64
	elsewhere := listen(t, func(io.Writer, string) { visits.Add(1) })
	for _, way := range Ways() {
		t.Run(way.Name, func(t *testing.T) {
			base := listen(t, func(w io.Writer, request string) { way.answer(w, request, elsewhere) })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if way.forever {
				ctx, cancel = context.WithTimeout(t.Context(), dripFor)
			}
			defer cancel()
			test(t, ctx, way, base)
		})
	}
	if n := visits.Load(); n > 0 {
		t.Errorf("%d requests went where a redirect pointed", n)
	}
}

// listen serves until the test has ended.
func listen(t *testing.T, answer func(w io.Writer, request string)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed below
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				if request, ok := read(c); ok {
					answer(c, request)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

// read takes one request, as it was sent.
func read(c net.Conn) (string, bool) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	var got []byte
	part := make([]byte, 32<<10)
	for {
		n, err := c.Read(part)
		got = append(got, part[:n]...)
		if head, body, whole := bytes.Cut(got, []byte("\r\n\r\n")); whole && len(body) >= length(head) {
			return string(got), true
		}
		if err != nil {
			return "", false
		}
	}
}

// length is the Content-Length of a request.
func length(head []byte) int {
	for line := range strings.SplitSeq(string(head), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if http.CanonicalHeaderKey(name) == "Content-Length" {
			n, _ := strconv.Atoi(strings.TrimSpace(value)) // our own client wrote it
			return n
		}
	}
	return 0
}

// say reports whether the client is still there.
func say(w io.Writer, text string) bool {
	_, err := io.WriteString(w, text)
	return err == nil
}

// flat is a request on one line without the colons of its headers.
func flat(request string) string {
	return strings.NewReplacer("\r\n", " ", "\n", " ", ":", "").Replace(request)
}

// page is an answer with a body.
func page(head, body string) string {
	return "HTTP/1.1 " + head + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

func endless(w io.Writer, status, part string) {
	part = strings.Repeat(part, 64<<10/len(part))
	say(w, "HTTP/1.1 "+status+"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
	for say(w, fmt.Sprintf("%x\r\n%s\r\n", len(part), part)) {
	}
}

func drip(w io.Writer) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if !say(w, " ") {
			return
		}
	}
}
