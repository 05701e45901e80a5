package httpsink

import (
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// hostileTimeout is for attempts that only their timeout ends, at the first try. The
// others have as long as they need.
const hostileTimeout = 250 * time.Millisecond

// hostile is a receiver that does its worst, and what an attempt at it ends as.
type hostile struct {
	name    string
	serve   func(c net.Conn, number int)
	outcome delivery.Outcome
	code    delivery.Code
	or      delivery.Code // what the kernel may make of it as well
	says    string        // part of the error
	check   func(t *testing.T, a *delivery.Attempt)
	proxys  bool                      // a proxy may say it of itself: retried with its code
	payload int                       // bytes; 0 = the usual payload
	waits   bool                      // for the timeout although the code does not say so
	listen  func(t testing.TB) string // instead of serve: the address of a receiver that never accepts
}

// afterRequest answers with fixed bytes and holds the connection.
func afterRequest(answer string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		if _, _, err := readRequest(c); err == nil {
			_, _ = io.WriteString(c, answer)
			untilClosed(c)
		}
	}
}

// thenReset answers with fixed bytes and resets the connection.
func thenReset(answer string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		if _, _, err := readRequest(c); err == nil {
			_, _ = io.WriteString(c, answer)
			reset(c)
		}
	}
}

// endless repeats a piece after a beginning until the sender hangs up.
func endless(begin, piece string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		if _, _, err := readRequest(c); err != nil {
			return
		}
		block := []byte(strings.Repeat(piece, 1+8<<10/len(piece)))
		_, err := io.WriteString(c, begin)
		for err == nil {
			_, err = c.Write(block)
		}
	}
}

// drip is endless with a pause between the pieces.
func drip(begin, piece string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		if _, _, err := readRequest(c); err != nil {
			return
		}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for _, err := io.WriteString(c, begin); err == nil; _, err = io.WriteString(c, piece) {
			<-tick.C
		}
	}
}

const ok200 = "HTTP/1.1 200 OK\r\n"

// hostileReceivers is long because it is a table.
func hostileReceivers() []hostile {
	truncated := func(t *testing.T, a *delivery.Attempt) {
		if !a.BodyTruncated {
			t.Error("the body is not marked as truncated")
		}
	}
	retryAfter := func(want time.Duration) func(*testing.T, *delivery.Attempt) {
		return func(t *testing.T, a *delivery.Attempt) {
			if a.RetryAfter != want {
				t.Errorf("Retry-After %v, want %v", a.RetryAfter, want)
			}
		}
	}
	const d, j, r = delivery.Delivered, delivery.Rejected, delivery.Retry
	busy := func(v string) func(net.Conn, int) {
		return afterRequest("HTTP/1.1 503 Busy\r\nRetry-After: " + v + "\r\nContent-Length: 0\r\n\r\n")
	}
	return []hostile{
		{name: "never answers", serve: afterRequest(""), outcome: r, code: delivery.CodeTimeout, says: "waiting for the response of 127.0.0.1:"},
		{name: "never reads", serve: func(c net.Conn, _ int) {
			untilGone(c)
		}, outcome: r, code: delivery.CodeTimeout, says: "sending the request", payload: 8 << 20},
		{name: "drips the status line", serve: drip("HTTP/1.1 ", "2"), outcome: r, code: delivery.CodeTimeout},
		{name: "drips headers", serve: drip(ok200, "X-A: b\r\n"), outcome: r, code: delivery.CodeTimeout},
		{name: "drips the body of a success", serve: drip(ok200+"Content-Length: 1000\r\n\r\n", "a"), outcome: d, check: truncated, waits: true},
		{name: "drips the chunks of a failure", serve: drip("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"),
			outcome: r, code: delivery.CodeStatus, says: "500 Internal Server Error", check: truncated, waits: true},
		{name: "endless body of a success", serve: endless(ok200+"\r\n", "a"), outcome: d, check: truncated},
		{name: "endless body of a failure", serve: endless("HTTP/1.1 503 No\r\n\r\n", "a"), outcome: r, code: delivery.CodeStatus, check: truncated},
		{name: "endless chunk extension", serve: endless(ok200+"Transfer-Encoding: chunked\r\n\r\n1;", "a"), outcome: d, check: truncated},
		{name: "endless trailers", serve: endless(ok200+"Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-A: b\r\n"), outcome: d, check: truncated},
		{name: "tiny chunks", serve: endless(ok200+"Transfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"), outcome: d, check: truncated},
		{name: "gzip bomb", serve: gzipBomb(), outcome: d, check: func(t *testing.T, a *delivery.Attempt) {
			if len(a.Body) != keepSuccess || !bytes.HasPrefix(a.Body, []byte{0x1f, 0x8b}) {
				t.Errorf("kept %d bytes beginning with % x, want the compressed bytes", len(a.Body), a.Body[:min(4, len(a.Body))])
			}
		}},
		{name: "10 MB of headers", serve: endless(ok200, "X-Filler: "+strings.Repeat("a", 1000)+"\r\n"), outcome: r, code: delivery.CodeProtocol, says: "exceed 64 KiB"},
		{name: "endless header line", serve: endless(ok200+"X-A: ", "a"), outcome: r, code: delivery.CodeProtocol, says: "exceed 64 KiB"},
		{name: "endless status line", serve: endless("HTTP/1.1 200 ", "a"), outcome: r, code: delivery.CodeProtocol, says: "exceed 64 KiB"},
		{name: "many headers", serve: afterRequest(ok200 + strings.Repeat("Set-Cookie: a=b\r\n", 3000) + "Content-Length: 0\r\n\r\n"), outcome: d,
			check: func(t *testing.T, a *delivery.Attempt) {
				if len(a.Headers) > keepHeaders {
					t.Errorf("kept %d headers", len(a.Headers))
				}
			}},
		{name: "1xx flood", serve: endless("", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), outcome: r, code: delivery.CodeProtocol},
		{name: "100-continue flood", serve: endless("", "HTTP/1.1 100 Continue\r\n\r\n"), outcome: r, code: delivery.CodeProtocol},
		{name: "switches protocols", serve: afterRequest("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
			outcome: r, code: delivery.CodeProtocol, says: "101 Switching Protocols"},
		{name: "reset on accept", serve: func(c net.Conn, _ int) { reset(c) }, outcome: r, code: delivery.CodeConnection, or: delivery.CodeConnect},
		{name: "reset while the request is sent", serve: func(c net.Conn, _ int) {
			_, _ = io.ReadFull(c, make([]byte, 1000))
			reset(c)
		}, outcome: r, code: delivery.CodeConnection, payload: 8 << 20},
		{name: "reset instead of an answer", serve: thenReset(""), outcome: r, code: delivery.CodeConnection, says: "before an answer"},
		{name: "reset in the status line", serve: thenReset("HTTP/1.1 20"), outcome: r, code: delivery.CodeConnection},
		{name: "reset in the headers", serve: thenReset(ok200 + "Content-"), outcome: r, code: delivery.CodeConnection},
		{name: "closed instead of an answer", serve: func(c net.Conn, _ int) { _, _, _ = readRequest(c) }, outcome: r, code: delivery.CodeConnection, says: "was closed by 127.0.0.1:"},
		{name: "closed in the headers", serve: func(c net.Conn, _ int) {
			_, _, _ = readRequest(c)
			_, _ = io.WriteString(c, ok200+"Content-")
		}, outcome: r, code: delivery.CodeConnection, says: "in the middle of the response headers"},
		{name: "closed in the body of a success", serve: func(c net.Conn, _ int) {
			_, _, _ = readRequest(c)
			_, _ = io.WriteString(c, ok200+"Content-Length: 100\r\n\r\nabc")
		}, outcome: d, check: truncated},
		{name: "Content-Length too long", serve: afterRequest("HTTP/1.1 500 No\r\nContent-Length: 99999999999\r\n\r\nabc"), outcome: r, code: delivery.CodeStatus, check: truncated, waits: true},
		{name: "Content-Length negative", serve: afterRequest(ok200 + "Content-Length: -1\r\n\r\n"), outcome: r, code: delivery.CodeProtocol, says: "Content-Length"},
		{name: "two Content-Lengths", serve: afterRequest(ok200 + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), outcome: r, code: delivery.CodeProtocol, says: "Content-Length"},
		{name: "unknown Transfer-Encoding", serve: afterRequest(ok200 + "Transfer-Encoding: rot13\r\n\r\n"), outcome: r, code: delivery.CodeProtocol, says: "Transfer-Encoding"},
		{name: "chunk of nonsense", serve: afterRequest("HTTP/1.1 502 No\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"), outcome: r, code: delivery.CodeStatus},
		{name: "204 with a body", serve: afterRequest("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"), outcome: d},
		{name: "HTTP/0.9", serve: afterRequest("<html>hello</html>\n"), outcome: r, code: delivery.CodeProtocol, says: "not HTTP/1.1"},
		{name: "ssh", serve: func(c net.Conn, _ int) {
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
			untilClosed(c)
		}, outcome: r, code: delivery.CodeProtocol, says: "not HTTP/1.1"},
		{name: "NUL in a header", serve: afterRequest(ok200 + "X-A\x00: b\r\n\r\n"), outcome: r, code: delivery.CodeProtocol, says: "malformed header"},
		{name: "terminal escapes in the reason", serve: afterRequest("HTTP/1.1 500 \x1b[2Jgone\r\nContent-Length: 0\r\n\r\n"), outcome: r, code: delivery.CodeStatus,
			check: func(t *testing.T, a *delivery.Attempt) {
				if strings.ContainsRune(a.Error, 0x1b) {
					t.Errorf("the error has an escape: %q", a.Error)
				}
			}},
		{name: "status 999", serve: afterRequest("HTTP/1.1 999 Hm\r\nContent-Length: 0\r\n\r\n"), outcome: r, code: delivery.CodeStatus, says: "999"},
		{name: "status 000", serve: afterRequest("HTTP/1.1 000 Hm\r\nContent-Length: 0\r\n\r\n"), outcome: r, code: delivery.CodeStatus},
		{name: "Retry-After 1e9 seconds", serve: busy("1000000000"), outcome: r, code: delivery.CodeStatus, check: retryAfter(maxRetryAfter)},
		{name: "Retry-After that overflows", serve: busy("99999999999999999999"), outcome: r, code: delivery.CodeStatus, check: retryAfter(maxRetryAfter)},
		{name: "Retry-After in the year 9999", serve: busy("Fri, 31 Dec 9999 23:59:59 GMT"), outcome: r, code: delivery.CodeStatus, check: retryAfter(maxRetryAfter)},
		{name: "Retry-After 1e9 as text", serve: busy("1e9"), outcome: r, code: delivery.CodeStatus, check: retryAfter(0)},
		{name: "Retry-After in the past", serve: busy("Thu, 01 Jan 1970 00:00:00 GMT"), outcome: r, code: delivery.CodeStatus, check: retryAfter(0)},
		{name: "redirect to itself", serve: redirectLoop(), outcome: j, code: delivery.CodeRedirect, says: "another path on http://127.0.0.1:"},
		{name: "redirect to a metadata address", serve: afterRequest("HTTP/1.1 307 No\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0\r\n\r\n"),
			outcome: j, code: delivery.CodeRedirect, says: "pointing to http://169.254.169.254;"},
		{name: "redirect nowhere", serve: afterRequest("HTTP/1.1 302 No\r\nLocation: ://%zz\r\nContent-Length: 0\r\n\r\n"), outcome: j, code: delivery.CodeRedirect, says: "unreadable Location"},
	}
}

func gzipBomb() func(net.Conn, int) {
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
	block := make([]byte, 1<<20)
	for range 4 {
		_, _ = w.Write(block)
	}
	_ = w.Close()
	return endless(ok200+"Content-Encoding: gzip\r\n\r\n", z.String())
}

func redirectLoop() func(net.Conn, int) {
	return func(c net.Conn, number int) {
		if _, _, err := readRequest(c); err != nil || number > 0 {
			return // a second connection would be a followed redirect
		}
		_, _ = io.WriteString(c, "HTTP/1.1 308 No\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")
		untilClosed(c)
	}
}
