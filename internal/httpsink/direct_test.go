package httpsink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

const empty200 = ok200 + "Content-Length: 0\r\n\r\n"

// What a receiver does to a connection between two deliveries. The second must
// not be tried over it, so it reaches the receiver once.
func TestAConnectionThatEndedWhileIdleIsNotTried(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"closed":      func(c *net.TCPConn) { c.Close() },
		"half-closed": func(c *net.TCPConn) { _ = c.CloseWrite() },
		"reset":       func(c *net.TCPConn) { reset(c) },
		"timed out by status": func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
		},
		"a second answer": func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 500 Smuggled\r\nContent-Length: 0\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			var stray atomic.Int64
			s := newSink(t, "http://"+rawServer(t, func(c net.Conn, number int) {
				for first := true; first || number > 0; first = false {
					if _, _, err := readRequest(c); err != nil {
						return
					}
					_, _ = io.WriteString(c, empty200)
				}
				<-ended
				end(c.(*net.TCPConn))
				ended <- struct{}{}
				n, _ := io.Copy(io.Discard, c)
				stray.Add(n)
			}), nil)
			if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered {
				t.Fatal(a.Error)
			}
			ended <- struct{}{}
			<-ended // loopback delivers before the call returns
			if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered || a.Reused || a.Status != 200 {
				t.Errorf("%v %q, status %d, reused %v", a.Outcome, a.Error, a.Status, a.Reused)
			}
			if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered || !a.Reused {
				t.Errorf("the new connection is not used again: %v %q", a.Outcome, a.Error)
			}
			if n := stray.Load(); n != 0 {
				t.Errorf("%d bytes went into the connection that had ended", n)
			}
		})
	}
}

// Bytes behind the answer are no answer to the next request.
func TestASecondAnswerInOnePacketIsNotTaken(t *testing.T) {
	var connections atomic.Int64
	s := newSink(t, "http://"+rawServer(t, func(c net.Conn, _ int) {
		connections.Add(1)
		for {
			if _, _, err := readRequest(c); err != nil {
				return
			}
			_, _ = io.WriteString(c, empty200+"HTTP/1.1 500 Smuggled\r\nContent-Length: 0\r\n\r\n")
		}
	}), nil)
	for range 3 {
		if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered || a.Reused {
			t.Errorf("%v, status %d, reused %v", a.Outcome, a.Status, a.Reused)
		}
	}
	if n := connections.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

func large() *delivery.Outbound {
	o := outbound()
	o.Payload = bytes.Repeat([]byte("x"), 16<<20) // more than the buffers of two sockets
	return o
}

func TestAnEarlyRefusalOfALargePayloadIsTaken(t *testing.T) {
	for name, after := range map[string]func(net.Conn){
		"and the connection is held":   heldUnread,
		"and the connection is closed": func(c net.Conn) { c.Close() },
		"and the connection is reset":  reset,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSink(t, "http://"+rawServer(t, func(c net.Conn, _ int) {
				_, _ = c.Read(make([]byte, 1000))
				_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
				after(c)
			}), nil)
			for range 2 {
				a := deliver(t, s, large())
				// A reset may overtake the answer.
				if name != "and the connection is reset" && (a.Outcome != delivery.Rejected || a.Status != 413 || string(a.Body) != "big") ||
					a.Outcome != delivery.Rejected && a.Code != delivery.CodeConnection || a.Reused {
					t.Errorf("%v %q %q, status %d, body %q, reused %v", a.Outcome, a.Code, a.Error, a.Status, a.Body, a.Reused)
				}
			}
		})
	}
}

// heldUnread holds a connection without reading until the test is over.
func heldUnread(c net.Conn) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for raw.Control(func(uintptr) {}) == nil { // fails once the connection is closed
		<-tick.C
	}
}

func TestALargePayloadArrivesWhole(t *testing.T) {
	ca := newAuthority(t)
	var sum atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		sum.Add(n)
	})
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(handler)
	secure.TLS = serverConfig(ca.issue(t, nil))
	secure.StartTLS()
	defer secure.Close()
	for _, url := range []string{plain.URL, secure.URL} {
		s := newSink(t, url, func(o *Options) { o.TLS.CAPEM = ca.pem() })
		sum.Store(0)
		for i := range 3 {
			a := deliver(t, s, large())
			if a.Outcome != delivery.Delivered || a.Reused != (i > 0) || a.Phases.FirstByte <= 0 {
				t.Errorf("%s: %v %q, reused %v, %+v", url, a.Outcome, a.Error, a.Reused, a.Phases)
			}
		}
		if n := sum.Load(); n != 3*16<<20 {
			t.Errorf("%d bytes arrived", n)
		}
	}
}

func TestTLSConnectionsAreKept(t *testing.T) {
	ca := newAuthority(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := newSink(t, "https://"+tlsServer(t, tlsVersion(ca.issue(t, nil), version)), func(o *Options) { o.TLS.CAPEM = ca.pem() })
		for i := range 5 {
			if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered || a.Reused != (i > 0) {
				t.Errorf("%x, delivery %d: %v %q, reused %v", version, i, a.Outcome, a.Error, a.Reused)
			}
		}
	}
}

func TestATLSConnectionThatEndedWhileIdleIsNotTried(t *testing.T) {
	ca := newAuthority(t)
	for name, end := range map[string]func(*tls.Conn){
		"with a farewell":    func(c *tls.Conn) { c.Close() },
		"without a farewell": func(c *tls.Conn) { c.NetConn().Close() },
		"with bytes":         func(c *tls.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 500 Smuggled\r\nContent-Length: 0\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			config := serverConfig(ca.issue(t, nil))
			ended := make(chan struct{})
			s := newSink(t, "https://"+rawServer(t, func(c net.Conn, number int) {
				tc := tls.Server(c, config)
				if _, _, err := readRequest(tc); err != nil {
					return
				}
				_, _ = io.WriteString(tc, empty200)
				if number == 0 {
					<-ended
					end(tc)
					ended <- struct{}{}
				}
				untilClosed(c)
			}), func(o *Options) { o.TLS.CAPEM = ca.pem() })
			deliver(t, s, outbound())
			ended <- struct{}{}
			<-ended
			if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered || a.Reused || a.Status != 200 {
				t.Errorf("%v %q, status %d, reused %v", a.Outcome, a.Error, a.Status, a.Reused)
			}
		})
	}
}

// The daemon stops: whatever an attempt is waiting for, it is over.
func TestShutdownInterruptsEveryPhase(t *testing.T) {
	silent := func(begin string) func(net.Conn, int) {
		return func(c net.Conn, _ int) {
			_, _ = c.Read(make([]byte, 100))
			_, _ = io.WriteString(c, begin)
			heldUnread(c)
		}
	}
	for _, c := range []struct {
		name    string
		scheme  string
		serve   func(net.Conn, int)
		o       *delivery.Outbound
		outcome delivery.Outcome
		says    string
	}{
		{"the handshake", "https://", silent(""), outbound(), delivery.Interrupted, "in the TLS handshake with"},
		{"the request", "http://", silent(""), large(), delivery.Interrupted, "sending the request to"},
		{"the answer", "http://", silent(""), outbound(), delivery.Interrupted, "waiting for the response of"},
		{"the head", "http://", silent(ok200 + "X-A: b"), outbound(), delivery.Interrupted, "waiting for the response of"},
		{"the body of a success", "http://", silent(ok200 + "Content-Length: 10\r\n\r\nhalf"), outbound(), delivery.Delivered, ""},
		{"the body of a failure", "http://", silent("HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nhalf"), outbound(), delivery.Retry, "500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reached := make(chan struct{}, 1)
			s := newSink(t, c.scheme+rawServer(t, func(nc net.Conn, n int) {
				reached <- struct{}{}
				c.serve(nc, n)
			}), nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-reached
				time.AfterFunc(50*time.Millisecond, func() { cancel(delivery.ErrShutdown) })
			}()
			var a delivery.Attempt
			s.Deliver(ctx, c.o, &a)
			if a.Outcome != c.outcome || !strings.Contains(a.Error, c.says) {
				t.Errorf("%v %q", a.Outcome, a.Error)
			}
			// Later attempts have another context, and a connection of their own.
			if s.idle.Get() != nil {
				t.Error("the interrupted connection is kept")
			}
		})
	}
}

// A request that cannot be written whole reaches the receiver at most once per
// connection, and a stale connection is told from a failing receiver.
func TestAStaleConnectionIsReplacedForALargePayload(t *testing.T) {
	s := newSink(t, "http://"+rawServer(t, func(c net.Conn, number int) {
		br := bufio.NewReader(c)
		if _, _, err := readRequest(br); err != nil {
			return
		}
		_, _ = io.WriteString(c, empty200)
		if number == 0 {
			_, _ = br.Peek(1)
			reset(c)
			return
		}
		untilClosed(c)
	}), nil)
	deliver(t, s, outbound())
	if a := deliver(t, s, large()); a.Outcome != delivery.Delivered || a.Reused {
		t.Errorf("%v %q, reused %v", a.Outcome, a.Error, a.Reused)
	}
}

func TestInterimAnswersAreSkipped(t *testing.T) {
	s := newSink(t, "http://"+rawServer(t, afterRequest("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 202 Accepted\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok")), nil)
	if a := deliver(t, s, outbound()); a.Status != 202 || string(a.Body) != "ok" || len(a.Headers) != 2 {
		t.Errorf("status %d, body %q, headers %v", a.Status, a.Body, a.Headers)
	}
	s = newSink(t, "http://"+rawServer(t, afterRequest(strings.Repeat("HTTP/1.1 102 P\r\n\r\n", 1001)+empty200)), nil)
	if a := deliver(t, s, outbound()); a.Code != delivery.CodeProtocol || !strings.Contains(a.Error, "more than 1000 interim answers") {
		t.Errorf("%v %q %q", a.Outcome, a.Code, a.Error)
	}
}
