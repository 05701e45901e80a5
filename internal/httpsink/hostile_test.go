package httpsink

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// hostileTimeout is for attempts that only their timeout ends. The others have as
// long as they need.
const hostileTimeout = 500 * time.Millisecond

// hostile is a receiver that does its worst, and what an attempt at it ends as.
type hostile struct {
	name    string
	serve   func(c net.Conn, number int)
	outcome delivery.Outcome
	code    delivery.Code
	or      delivery.Code // what the kernel may make of it as well
	says    string        // part of the error
	check   func(t *testing.T, a *delivery.Attempt)
	payload int  // bytes; 0 = the usual payload
	waits   bool // for the timeout although the code does not say so
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
			<-time.After(3 * hostileTimeout)
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

func TestHostileReceivers(t *testing.T) {
	writer := log.Writer()
	log.SetOutput(io.Discard) // net/http tells of unsolicited bytes there
	t.Cleanup(func() { log.SetOutput(writer) })
	for _, h := range hostileReceivers() {
		t.Run(h.name, func(t *testing.T) { h.run(t, "http://"+rawServer(t, h.serve), nil) })
	}
}

// run makes one attempt and checks the bounds that hold for all.
func (h *hostile) run(t *testing.T, url string, change func(*Options)) {
	s := newSink(t, url+"/hook", func(o *Options) {
		if h.waits || h.code == delivery.CodeTimeout {
			o.Timeout = hostileTimeout
		}
		if change != nil {
			change(o)
		}
	})
	o := outbound()
	if h.payload > 0 {
		o.Payload = bytes.Repeat([]byte("x"), h.payload)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	a := deliver(t, s, o)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if took > s.timeout+10*time.Second {
		t.Errorf("took %v", took)
	}
	// All that was allocated meanwhile, by the receiver as well.
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("allocated %d MiB", used>>20)
	}
	if a.Outcome != h.outcome || (a.Code != h.code && (h.or == "" || a.Code != h.or)) || !strings.Contains(a.Error, h.says) {
		t.Errorf("%v, code %q, error %q; want %v, code %q, error with %q", a.Outcome, a.Code, a.Error, h.outcome, h.code, h.says)
	}
	if len(a.Body) > keepFailure {
		t.Errorf("kept %d bytes", len(a.Body))
	}
	if strings.Contains(a.Error, "/hook") || strings.Contains(a.Error, "\n") {
		t.Errorf("the error shows the path, or is not one line: %q", a.Error)
	}
	if h.check != nil {
		h.check(t, &a)
	}
}

// tlsServer shakes hands with config and answers every request with 200.
func tlsServer(t *testing.T, config *tls.Config) string {
	return rawServer(t, func(c net.Conn, _ int) {
		tc := tls.Server(c, config)
		br := bufio.NewReader(tc)
		for {
			if _, _, err := readRequest(br); err != nil {
				return
			}
			_, _ = io.WriteString(tc, ok200+"Content-Length: 0\r\n\r\n")
		}
	})
}

// TestHostileTLS is long because it is two tables.
func TestHostileTLS(t *testing.T) {
	ca := newAuthority(t)
	trust := func(o *Options) { o.TLS.CAPEM = ca.pem() }
	expired := time.Date(2025, 1, 1, 12, 0, 0, 0, time.UTC)
	future := time.Now().AddDate(1, 0, 0)
	for _, c := range []struct {
		hostile
		config *tls.Config
		change func(*Options)
	}{
		{hostile{name: "expired", says: "certificate expired on 2025-01-01"}, serverConfig(ca.issue(t, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = expired.AddDate(-1, 0, 0), expired
		})), trust},
		{hostile{name: "not yet valid", says: "not valid before " + future.UTC().Format(time.DateOnly)},
			serverConfig(ca.issue(t, func(c *x509.Certificate) { c.NotBefore = future })), trust},
		{hostile{name: "wrong name", says: "is for other.example, not for 127.0.0.1"}, serverConfig(ca.issue(t, func(c *x509.Certificate) {
			c.IPAddresses, c.DNSNames = nil, []string{"other.example"}
		})), trust},
		{hostile{name: "no name", says: "names no host"}, serverConfig(ca.issue(t, func(c *x509.Certificate) { c.IPAddresses = nil })), trust},
		{hostile{name: "unknown authority", says: "does not trust; name the authority in tls.ca"}, serverConfig(ca.issue(t, nil)), nil},
		{hostile{name: "self-signed", says: "self-signed"}, serverConfig(selfSigned(t)), nil},
		{hostile{name: "TLS 1.0", says: "TLS"}, tlsVersion(ca.issue(t, nil), tls.VersionTLS10), trust},
		{hostile{name: "TLS 1.1", says: "TLS"}, tlsVersion(ca.issue(t, nil), tls.VersionTLS11), trust},
		// TLS 1.3 tells after the handshake, and the reset that follows can
		// overtake it.
		{hostile{name: "wants a client certificate", or: delivery.CodeConnection}, clientAuth(t, ca, tls.VersionTLS13), trust},
		{hostile{name: "wants a client certificate, TLS 1.2", says: "refused the TLS connection"}, clientAuth(t, ca, tls.VersionTLS12), trust},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.outcome, c.code = delivery.Retry, delivery.CodeTLS
			c.run(t, "https://"+tlsServer(t, c.config), c.change)
		})
	}
	for _, h := range []hostile{
		{name: "plain HTTP on a TLS port", serve: func(c net.Conn, _ int) {
			_, _ = c.Read(make([]byte, 100))
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			untilClosed(c)
		}, code: delivery.CodeTLS, says: "speaks plain HTTP"},
		{name: "nonsense on a TLS port", serve: func(c net.Conn, _ int) {
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
			untilClosed(c)
		}, code: delivery.CodeTLS, says: "does not speak TLS"},
		{name: "silent handshake", serve: func(c net.Conn, _ int) { untilClosed(c) }, code: delivery.CodeTimeout, says: "in the TLS handshake with 127.0.0.1:"},
		{name: "reset in the handshake", serve: func(c net.Conn, _ int) {
			_, _ = c.Read(make([]byte, 100))
			reset(c)
		}, code: delivery.CodeTLS, says: "closed during the TLS handshake"},
		{name: "closed in the handshake", serve: func(c net.Conn, _ int) { _, _ = c.Read(make([]byte, 4096)) }, code: delivery.CodeTLS, says: "closed during the TLS handshake"},
	} {
		t.Run(h.name, func(t *testing.T) {
			h.outcome = delivery.Retry
			h.run(t, "https://"+rawServer(t, h.serve), trust)
		})
	}
	t.Run("TLS on a plain port", func(t *testing.T) {
		h := hostile{outcome: delivery.Retry, code: delivery.CodeConnection, says: "by 127.0.0.1:"}
		h.run(t, "http://"+tlsServer(t, serverConfig(ca.issue(t, nil))), nil)
	})
}

func serverConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

func tlsVersion(cert tls.Certificate, v uint16) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: v}
}

func clientAuth(t *testing.T, ca *authority, version uint16) *tls.Config {
	c := tlsVersion(ca.issue(t, nil), version)
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	c.ClientCAs.AddCert(ca.cert)
	return c
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	return tls.Certificate{Certificate: [][]byte{certify(t, tmpl, tmpl, key, key).Raw}, PrivateKey: key}
}
