package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestStalledClientIsClosed(t *testing.T) {
	t.Parallel()
	const stall = time.Second
	s := serve(t, Options{StallTimeout: stall})
	head := "POST /v1/events HTTP/1.1\r\nHost: x\r\n"
	rows := []struct {
		name, sent string
		status     int // 0: no answer
	}{
		{"nothing", "", 0},
		{"half a header", head, 0},
		{"no body", head + "Content-Length: 10\r\n\r\n", 408},
		{"half a body", head + "Content-Length: 10\r\n\r\n{", 408},
		{"half a chunk", head + "Transfer-Encoding: chunked\r\n\r\na\r\n{", 408},
		{"refused, and half a body", "PUT /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{", 405},
	}
	t.Cleanup(func() {
		if len(s.store.all()) != 0 {
			t.Error("something was taken")
		}
	})
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			c := s.dial(t)
			io.WriteString(c, r.sent)
			in := bufio.NewReader(c)
			if r.status != 0 {
				if resp, body := readResponse(t, in); resp.StatusCode != r.status || !resp.Close {
					t.Errorf("%d close %v %s", resp.StatusCode, resp.Close, body)
				}
			}
			if b, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("not closed: %q %v", b, err)
			}
		})
	}
}

func TestSlowButMovingClientIsServed(t *testing.T) {
	t.Parallel()
	const stall = 3 * time.Second
	s := serve(t, Options{StallTimeout: stall})
	c := s.dial(t)
	request := post(created("e"))
	cut := len(request) - 20
	io.WriteString(c, request[:cut])
	tick := time.NewTicker(stall / 10)
	defer tick.Stop()
	for i := cut; i < len(request); i++ { // twice the stall timeout in all
		<-tick.C
		io.WriteString(c, request[i:i+1])
	}
	if resp, body := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 202 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	const limit = 2
	s := serve(t, Options{MaxConns: limit})
	open := func() net.Conn {
		c := s.dial(t)
		io.WriteString(c, post(created("e")))
		return c
	}
	var held []net.Conn
	for range limit {
		c := open()
		if resp, body := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 202 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		held = append(held, c)
	}
	c := open()
	resp, body := readResponse(t, bufio.NewReader(c))
	if e := decodeError(t, body).Error; resp.StatusCode != 503 || e.Code != CodeTooManyConns || resp.Header.Get("Retry-After") == "" || !resp.Close {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	c.Close()

	// Beyond the spare ones they wait in the backlog until somebody leaves.
	for range spareConns {
		held = append(held, s.dial(t))
	}
	s.await(t, limit+spareConns)
	waiting := open()
	for _, c := range held {
		c.Close()
	}
	// Its turn came with the first that left, when there still were too many.
	if resp, body := readResponse(t, bufio.NewReader(waiting)); resp.StatusCode != 202 && resp.StatusCode != 503 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	waiting.Close()
	s.await(t, 0)
	if resp, body := s.raw(t, post(created("e"))); resp.StatusCode != 202 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// await waits until n connections are open.
func (s *served) await(t testing.TB, n int64) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.Metrics().Connections != n {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d connections, want %d", s.Metrics().Connections, n)
		}
	}
}

func TestShutdownFinishesWhatIsUnderWay(t *testing.T) {
	g := newGate(t)
	s := serve(t, Options{Store: &fakeStore{before: g.pass}})
	c := s.dial(t)
	io.WriteString(c, post(created("e")))
	g.entered(t)
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	for !s.isStopping() {
		<-time.After(time.Millisecond)
	}
	g.release(t)
	if resp, body := readResponse(t, bufio.NewReader(c)); resp.StatusCode != 202 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownCutsWhenItsTimeIsOver(t *testing.T) {
	g := newGate(t)
	s := serve(t, Options{Store: &fakeStore{before: g.pass}})
	c := s.dial(t)
	io.WriteString(c, post(created("e")))
	g.entered(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("answered without a commit")
	}
	select {
	case err := <-done:
		t.Errorf("returned while a handler is in the store: %v", err)
	default:
	}
	g.release(t)
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestRequestAfterShutdownBegan(t *testing.T) {
	s := serve(t, Options{})
	s.mu.Lock()
	s.refusing = true
	s.mu.Unlock()
	resp, body := s.raw(t, post(created("e")))
	if e := decodeError(t, body).Error; resp.StatusCode != 503 || e.Code != CodeShuttingDown {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// Shell tools (nc -N, socat) end their half of the connection when they have
// sent the request, and read then.
func TestClientThatEndsItsHalfIsAnswered(t *testing.T) {
	g := newGate(t)
	s := serve(t, Options{Store: &fakeStore{before: g.pass}})
	for _, request := range []string{post(created("e")), postAs(typeNDJSON, created("e"))} {
		c := s.dial(t)
		io.WriteString(c, request)
		c.(*net.UnixConn).CloseWrite()
		g.entered(t)
		g.release(t)
		if resp, body := readResponse(t, bufio.NewReader(c)); resp.StatusCode/100 != 2 || !strings.Contains(body, `{"id":"evt_`) && !strings.Contains(body, `"status":202`) {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
}

func TestHeaderIsBounded(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{})
	resp, _ := s.raw(t, "POST /v1/events HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d", resp.StatusCode)
	}
}

func TestClientThatLeavesBeforeTheStoreIsAsked(t *testing.T) {
	gone := make(chan struct{})
	var c net.Conn
	s := serve(t, Options{Gate: func() error {
		c.Close()
		close(gone)
		return nil
	}})
	c = s.dial(t)
	io.WriteString(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	<-gone
	s.settle(t)
	if got := s.Metrics().Rejected[CodeIncomplete]; got != 1 {
		t.Errorf("counted %v", s.Metrics().Rejected)
	}
}

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"":                 `""`,
		"plain":            `"plain"`,
		"a\"b\\c\nd\x00\t": `"a\"b\\c\nd\u0000\u0009"`,
		"é😀":               `"é😀"`,
		"a\xffb\xc3":       "\"a\ufffdb\ufffd\"",
	} {
		if got := string(appendString(nil, in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestFirstLineOfEveryMessageIsShort(t *testing.T) {
	s := serve(t, Options{})
	long := strings.Repeat("x", 3000)
	for _, request := range []string{
		fmt.Sprintf("POST /%s HTTP/1.1\r\nHost: x\r\n\r\n", long),
		postAs(long, "{}"),
		post("{}", "Content-Encoding: "+long),
		post(`{"event":"` + long + `","helper":"expenses","entry":{"id":"e"}}`),
	} {
		if _, body := s.raw(t, request); len(body) > 600 {
			t.Errorf("%d bytes: %s", len(body), body)
		}
	}
}
