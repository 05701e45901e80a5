package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// said is a connection on which the other end has said everything already.
type said struct {
	bytes.Reader
}

func (*said) Write(p []byte) (int, error)      { return len(p), nil }
func (*said) Close() error                     { return nil }
func (*said) LocalAddr() net.Addr              { return nil }
func (*said) RemoteAddr() net.Addr             { return nil }
func (*said) SetDeadline(time.Time) error      { return nil }
func (*said) SetReadDeadline(time.Time) error  { return nil }
func (*said) SetWriteDeadline(time.Time) error { return nil }

// FuzzExchange gives an exchange any bytes as the answer. It never panics, means by
// the head what net/http's parser does, reads no more header bytes than it may, and
// uses a connection again only when nothing came after the answer. The exchange is one
// and the same throughout, so that nothing of an answer may be left for the next.
func FuzzExchange(f *testing.F) {
	for _, answer := range []string{
		ok200, "", "H", ok200 + "x", ok200 + ok200, "HTTP/1.1 103 Early Hints\r\n\r\n" + ok200, "HTTP/1.1 101 X\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\nraw",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 200 OK\r\n\r\nuntil the end", "HTTP/1.1 +20 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX-A: " + string(bytes.Repeat([]byte("a"), 70<<10)) + "\r\n\r\n",
	} {
		f.Add([]byte(answer))
	}
	x := NewExchange()
	f.Fuzz(func(t *testing.T, answer []byte) {
		conn := &said{*bytes.NewReader(answer)}
		resp, err := x.Do(NewConn(conn), []byte("first"), nil)
		want, wrong := headByNetHTTP(answer)
		if err != nil {
			if wrong == nil && len(answer) < MaxHeaderBytes && !errors.Is(err, ErrInterim) {
				t.Fatalf("%q is refused: %v", answer, err)
			}
			return
		}
		if wrong != nil || resp.StatusCode != want.StatusCode || len(resp.Header) != len(want.Header) || resp.ContentLength != want.ContentLength {
			t.Fatalf("%q is taken as %+v, net/http says %+v, %v", answer, resp, want, wrong)
		}
		body, err := io.ReadAll(resp.Body)
		rest := conn.Len() > 0 || x.reader.Buffered() > 0
		if x.Finish(resp, err == nil) && (err != nil || rest || len(body) > len(answer)) {
			t.Fatalf("%q: the connection is used again after %q, %v", answer, body, err)
		}
	})
}

// headByNetHTTP is the first answer that is not an interim one.
func headByNetHTTP(answer []byte) (*http.Response, error) {
	r := bufio.NewReader(bytes.NewReader(answer))
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}

func TestAnEndlessHeadCostsNoMoreThanItsBound(t *testing.T) {
	head := append([]byte("HTTP/1.1 200 OK\r\n"), bytes.Repeat([]byte("A: b\r\n"), 4<<20/6)...)
	conn := &said{*bytes.NewReader(head)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := NewExchange().Do(NewConn(conn), []byte("first"), nil)
	runtime.ReadMemStats(&after)
	if err == nil || len(head)-conn.Len() > MaxHeaderBytes {
		t.Errorf("%d bytes were read: %v", len(head)-conn.Len(), err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d bytes were allocated for it", used)
	}
}
