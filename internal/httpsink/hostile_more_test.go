package httpsink

import (
	"bufio"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// moreHostileReceivers is long because it is a table.
func moreHostileReceivers() []hostile {
	const d, j, r = delivery.Delivered, delivery.Rejected, delivery.Retry
	retryAfter := func(want time.Duration) func(*testing.T, *delivery.Attempt) {
		return func(t *testing.T, a *delivery.Attempt) {
			if a.RetryAfter != want {
				t.Errorf("Retry-After %v, want %v", a.RetryAfter, want)
			}
		}
	}
	asIs := func(begin string) func(*testing.T, *delivery.Attempt) {
		return func(t *testing.T, a *delivery.Attempt) {
			if !strings.HasPrefix(string(a.Body), begin) {
				t.Errorf("kept %.20q", a.Body)
			}
		}
	}
	const empty = "Content-Length: 0\r\n\r\n"
	return []hostile{
		{name: "never accepts", listen: fullBacklog, outcome: r, code: delivery.CodeTimeout, says: "connecting to 127.0.0.1:"},
		{name: "deflate bomb", serve: endless(ok200+"Content-Encoding: deflate\r\n\r\n", deflated()), outcome: d, check: asIs(deflated()[:4])},
		{name: "brotli by its label only", serve: afterRequest(ok200 + "Content-Encoding: br\r\nContent-Length: 5\r\n\r\nhello"), outcome: d, check: asIs("hello")},
		{name: "10,000 headers", serve: afterRequest(ok200 + strings.Repeat("X-A: b\r\n", 10_000) + empty), outcome: r, code: delivery.CodeProtocol, says: "exceed 64 KiB"},
		{name: "10,000 headers, each another", serve: afterRequest(ok200 + manyNames(10_000) + empty), outcome: r, code: delivery.CodeProtocol, says: "exceed 64 KiB"},
		{name: "one header of 10 MB", serve: afterRequest(ok200 + "X-A: " + strings.Repeat("a", 10<<20) + "\r\n" + empty), outcome: r, code: delivery.CodeProtocol, says: "exceed 64 KiB"},
		{name: "drips chunk headers", serve: drip(ok200+"Transfer-Encoding: chunked\r\n\r\n", "0"), outcome: d, waits: true, check: func(t *testing.T, a *delivery.Attempt) {
			if !a.BodyTruncated {
				t.Error("the body is not marked as truncated")
			}
		}},
		{name: "drips nothing but line breaks", serve: drip("", "\r\n"), outcome: r, code: delivery.CodeProtocol, says: "not HTTP/1.1"},
		{name: "reset with the request half read", serve: func(c net.Conn, _ int) {
			_, _ = io.ReadFull(c, make([]byte, 10))
			c.Close() // the rest is unread, which makes it a reset
		}, outcome: r, code: delivery.CodeConnection, payload: 8 << 20},
		{name: "reset in the body of a success", serve: thenReset(ok200 + "Content-Length: 100\r\n\r\nabc"), outcome: d, or: delivery.CodeConnection},
		{name: "reset in the body of a failure", serve: thenReset("HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nabc"), outcome: r, code: delivery.CodeStatus, or: delivery.CodeConnection},
		{name: "reset in a chunk", serve: thenReset("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"), outcome: r, code: delivery.CodeStatus, or: delivery.CodeConnection},
		{name: "half-closed instead of an answer", serve: halfClosed(""), outcome: r, code: delivery.CodeConnection, says: "was closed by 127.0.0.1:"},
		{name: "half-closed after an answer", serve: halfClosed(ok200 + "Content-Length: 2\r\n\r\nok"), outcome: d},
		{name: "half-closed body without a length", serve: halfClosed(ok200 + "\r\nhello"), outcome: d, check: asIs("hello")},
		{name: "closes after each answer without saying so", serve: func(c net.Conn, _ int) {
			if _, _, err := readRequest(c); err == nil {
				_, _ = io.WriteString(c, ok200+empty)
			}
		}, outcome: d},
		{name: "closes after each answer and says so", serve: func(c net.Conn, _ int) {
			if _, _, err := readRequest(c); err == nil {
				_, _ = io.WriteString(c, ok200+"Connection: close\r\n"+empty)
			}
		}, outcome: d},
		{name: "says that it closes and does not", serve: afterRequest(ok200 + "Connection: close\r\n\r\nhello"), outcome: d, waits: true},
		{name: "answers before it has read the request", serve: func(c net.Conn, _ int) {
			_, _ = io.ReadFull(c, make([]byte, 10))
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\n"+empty)
			untilGone(c)
		}, outcome: j, code: delivery.CodeStatus, says: "413", payload: 8 << 20},
		{name: "answers before there is a request", serve: func(c net.Conn, _ int) {
			_, _ = io.WriteString(c, ok200+empty)
			untilClosed(c)
		}, outcome: d, or: delivery.CodeProtocol},
		{name: "a second answer behind the first", serve: afterRequest(ok200 + empty + "HTTP/1.1 500 No\r\n" + empty), outcome: d},
		{name: "a thousand answers behind the first", serve: afterRequest(ok200 + empty + strings.Repeat("HTTP/1.1 500 No\r\n"+empty, 1000)), outcome: d},
		{name: "Content-Length too short", serve: afterRequest(ok200 + "Content-Length: 3\r\n\r\nabcdef"), outcome: d, check: asIs("abc")},
		{name: "Content-Length of nonsense", serve: afterRequest(ok200 + "Content-Length: many\r\n\r\n"), outcome: r, code: delivery.CodeProtocol, says: "Content-Length"},
		{name: "Content-Length that overflows", serve: afterRequest(ok200 + "Content-Length: 99999999999999999999\r\n\r\n"), outcome: r, code: delivery.CodeProtocol, says: "Content-Length"},
		{name: "Content-Length and chunks", serve: afterRequest(ok200 + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), outcome: d, check: asIs("abc")},
		{name: "chunk that ends elsewhere", serve: afterRequest("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n"), outcome: r, code: delivery.CodeStatus},
		{name: "HTTP/2", serve: afterRequest("\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00\x00\x05\x00\xff\xff\xff"), outcome: r, code: delivery.CodeProtocol, or: delivery.CodeTimeout, waits: true},
		{name: "HTTP/2 with its preface", serve: afterRequest("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), outcome: r, code: delivery.CodeProtocol, says: "not HTTP/1.1"},
		{name: "HTTP/3 in the status line", serve: afterRequest("HTTP/3.0 200 OK\r\n" + empty), outcome: d},
		{name: "version of nonsense", serve: afterRequest("HTTP/9.9.9 200 OK\r\n" + empty), outcome: r, code: delivery.CodeProtocol},
		{name: "status 1000", serve: afterRequest("HTTP/1.1 1000 Hm\r\n" + empty), outcome: r, code: delivery.CodeProtocol, says: "not HTTP/1.1"},
		{name: "status -20", serve: afterRequest("HTTP/1.1 -20 Hm\r\n" + empty), outcome: r, code: delivery.CodeProtocol},
		{name: "status of letters", serve: afterRequest("HTTP/1.1 two OK\r\n" + empty), outcome: r, code: delivery.CodeProtocol},
		{name: "NUL in the value of a header", serve: afterRequest(ok200 + "X-A: a\x00b\r\n" + empty), outcome: r, code: delivery.CodeProtocol, says: "malformed header"},
		{name: "a folded header", serve: afterRequest(ok200 + "X-A: a\r\n b\r\n\tc\r\n" + empty), outcome: d},
		{name: "a header without a name", serve: afterRequest(ok200 + ": b\r\n" + empty), outcome: r, code: delivery.CodeProtocol, says: "malformed header"},
		{name: "a header without a colon", serve: afterRequest(ok200 + "nonsense\r\n" + empty), outcome: r, code: delivery.CodeProtocol, says: "malformed header"},
		{name: "bare line feeds", serve: afterRequest("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"), outcome: d},
		{name: "a cookie of 60 KiB", serve: afterRequest(ok200 + "Set-Cookie: a=" + strings.Repeat("b", 60<<10) + "\r\n" + empty), outcome: d},
		{name: "trailers that say another status", serve: afterRequest(ok200 + "Trailer: Status\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nStatus: 500\r\n\r\n"), outcome: d},
		{name: "205 with a body without end", serve: endless("HTTP/1.1 205 Reset\r\n\r\n", "a"), outcome: d},
		{name: "304 to a POST", serve: afterRequest("HTTP/1.1 304 Not Modified\r\n\r\n"), outcome: j, code: delivery.CodeRedirect},
		{name: "407, as if it were a proxy", serve: afterRequest("HTTP/1.1 407 Pay\r\nProxy-Authenticate: Basic\r\n" + empty), outcome: j, code: delivery.CodeStatus, proxys: true},
		{name: "Retry-After negative", serve: busyFor("-1"), outcome: r, code: delivery.CodeStatus, check: retryAfter(0)},
		{name: "Retry-After in both forms", serve: busyFor("120\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT"), outcome: r, code: delivery.CodeStatus, check: retryAfter(2 * time.Minute)},
		{name: "Retry-After in the year 99999", serve: busyFor("Fri, 31 Dec 99999 23:59:59 GMT"), outcome: r, code: delivery.CodeStatus, check: retryAfter(0)},
		{name: "Retry-After of 60 KiB", serve: busyFor(strings.Repeat("9", 60<<10)), outcome: r, code: delivery.CodeStatus, check: retryAfter(maxRetryAfter)},
		{name: "Retry-After from a clock of the year 1", serve: busyFor("Fri, 31 Dec 9999 23:59:59 GMT\r\nDate: Mon, 01 Jan 0001 00:00:00 GMT"), outcome: r, code: delivery.CodeStatus, check: retryAfter(maxRetryAfter)},
		{name: "redirect to a file", serve: afterRequest("HTTP/1.1 302 No\r\nLocation: file:///etc/passwd\r\n" + empty), outcome: j, code: delivery.CodeRedirect},
		{name: "redirect with a Location of 60 KiB", serve: afterRequest("HTTP/1.1 302 No\r\nLocation: http://" + strings.Repeat("a", 60<<10) + "/\r\n" + empty), outcome: j, code: delivery.CodeRedirect},
		{name: "redirect to two places", serve: afterRequest("HTTP/1.1 301 No\r\nLocation: http://a.example/\r\nLocation: http://b.example/\r\n" + empty), outcome: j, code: delivery.CodeRedirect},
	}
}

// untilGone holds a connection and reads nothing, until the test closes it.
func untilGone(c net.Conn) {
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		if err := c.SetWriteDeadline(time.Time{}); err != nil {
			tick.Stop()
			return
		}
	}
}

func busyFor(v string) func(net.Conn, int) {
	return afterRequest("HTTP/1.1 503 Busy\r\nRetry-After: " + v + "\r\nContent-Length: 0\r\n\r\n")
}

func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-%d: b\r\n", i)
	}
	return b.String()
}

// deflated is a block that unpacks to a thousand times its size.
func deflated() string {
	var z bytes.Buffer
	w, _ := flate.NewWriter(&z, flate.BestCompression)
	_, _ = w.Write(make([]byte, 1<<20))
	_ = w.Close()
	return z.String()
}

// halfClosed answers and closes its direction only.
func halfClosed(answer string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		if _, _, err := readRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, answer)
		if half, ok := c.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		untilClosed(c)
	}
}

// fullBacklog listens without ever accepting, and takes up the room that the
// kernel has for connections that wait.
func fullBacklog(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "backlog")
	t.Cleanup(func() { f.Close() })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: bound.(*syscall.SockaddrInet4).Port}).String()
	for range 10 {
		c, err := net.DialTimeout("tcp4", addr, 200*time.Millisecond)
		if err != nil {
			return addr // there is no room any more
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the backlog takes everything")
	return ""
}
