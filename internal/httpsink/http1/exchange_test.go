package http1

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

const ok200 = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// ask makes an exchange and reads its body.
func ask(x *Exchange, c *Conn, first, rest string) (body string, reusable bool, err error) {
	resp, err := x.Do(c, []byte(first), []byte(rest))
	if err != nil {
		return "", false, err
	}
	b, err := io.ReadAll(resp.Body)
	return string(b), x.Finish(resp, err == nil), err
}

// answer writes text once n bytes have come.
func answer(t *testing.T, c net.Conn, n int, text string) {
	t.Helper()
	go func() {
		_, _ = io.ReadFull(c, make([]byte, n))
		_, _ = io.WriteString(c, text)
	}()
}

func TestExchangesFollowEachOtherOnOneConnection(t *testing.T) {
	for _, rest := range []string{"", strings.Repeat("r", 1<<20)} {
		ours, theirs := link(t)
		x := NewExchange()
		for range 5 {
			answer(t, theirs, len("first")+len(rest), ok200)
			body, reusable, err := ask(x, ours, "first", rest)
			if body != "ok" || !reusable || err != nil {
				t.Fatalf("%q, reusable %v, %v", body, reusable, err)
			}
			if written, answered := x.Timing(); written.IsZero() || answered.IsZero() {
				t.Error("the timing is not told")
			}
		}
	}
}

func TestWhatComesAfterAnAnswerEndsTheConnection(t *testing.T) {
	for _, after := range []string{"x", "\r\n", ok200} {
		ours, theirs := link(t)
		answer(t, theirs, 5, ok200+after)
		if body, reusable, err := ask(NewExchange(), ours, "first", ""); body != "ok" || err != nil || (reusable && ours.alive()) {
			t.Errorf("%q: %q, %v, reusable %v", after, body, err, reusable)
		}
	}
}

func TestAnEarlyAnswerIsTaken(t *testing.T) {
	rest := strings.Repeat("r", 32<<20) // more than the buffers of two sockets
	for name, after := range map[string]func(*net.TCPConn){
		"and nothing more is read":     func(*net.TCPConn) {},
		"and the connection is closed": func(c *net.TCPConn) { c.Close() }, // with unread bytes: a reset
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := link(t)
			go func() {
				_, _ = io.ReadFull(theirs, make([]byte, 5))
				_, _ = io.WriteString(theirs, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
				after(theirs)
			}()
			x := NewExchange()
			resp, err := x.Do(ours, []byte("first"), []byte(rest))
			if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Fatalf("%v", err)
			}
			if x.Finish(resp, true) {
				t.Error("the connection is to be used again")
			}
			if written, _ := x.Timing(); !written.IsZero() {
				t.Error("the request counts as written")
			}
			if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
}

func TestAReceiverThatAnswersWhileItReadsKeepsTheConnection(t *testing.T) {
	rest := strings.Repeat("r", 8<<20)
	// The last write may be slow to return on a busy machine.
	eventually(t, "the connection is never kept", func() bool {
		ours, theirs := link(t)
		go func() {
			_, _ = io.WriteString(theirs, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
			_, _ = io.ReadFull(theirs, make([]byte, 5+len(rest)))
			_, _ = io.WriteString(theirs, "0\r\n\r\n")
		}()
		body, reusable, err := ask(NewExchange(), ours, "first", rest)
		if body != "a" || err != nil {
			t.Fatalf("%q, %v", body, err)
		}
		return reusable
	})
}

func TestBrokenConnectionsAreTold(t *testing.T) {
	big := strings.Repeat("r", 32<<20)
	for _, c := range []struct {
		name    string
		rest    string
		end     func(*net.TCPConn)
		want    []error // one of these
		written bool
	}{
		{"closed instead of an answer", "", func(c *net.TCPConn) { c.Close() }, []error{io.EOF}, true},
		{"half-closed instead of an answer", "", func(c *net.TCPConn) { _ = c.CloseWrite() }, []error{io.EOF}, true},
		{"reset instead of an answer", "", reset, []error{syscall.ECONNRESET}, true},
		{"reset while the request is written", big, reset, []error{syscall.ECONNRESET, syscall.EPIPE}, false},
		{"half-closed while the request is written", big, func(c *net.TCPConn) { _ = c.CloseWrite() }, []error{io.EOF}, false},
		{"cut off in the head", "", func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-"); c.Close() }, []error{io.ErrUnexpectedEOF, nil}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := link(t)
			go func() {
				_, _ = io.ReadFull(theirs, make([]byte, 5))
				c.end(theirs)
			}()
			x := NewExchange()
			_, err := x.Do(ours, []byte("first"), []byte(c.rest))
			known := err != nil && c.want[len(c.want)-1] == nil
			for _, want := range c.want {
				known = known || errors.Is(err, want)
			}
			if !known {
				t.Errorf("%v, want one of %v", err, c.want)
			}
			if written, _ := x.Timing(); written.IsZero() == c.written {
				t.Errorf("written %v", written)
			}
			if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
}

func TestAnInterruptEndsEveryPhase(t *testing.T) {
	for name, c := range map[string]struct {
		rest string
		say  string // before silence
	}{
		"writing":  {rest: strings.Repeat("r", 32<<20)},
		"waiting":  {},
		"the head": {say: "HTTP/1.1 200 OK\r\nX-A: b\r\n"},
		"the body": {say: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := link(t)
			go func() {
				_, _ = io.ReadFull(theirs, make([]byte, 5))
				_, _ = io.WriteString(theirs, c.say)
				ours.Interrupt()
			}()
			if _, reusable, err := ask(NewExchange(), ours, "first", c.rest); !errors.Is(err, os.ErrDeadlineExceeded) || reusable {
				t.Errorf("%v, reusable %v", err, reusable)
			}
		})
	}
}

func TestTheHeadOfAnAnswerIsBounded(t *testing.T) {
	interim := "HTTP/1.1 102 P\r\n\r\n"
	for _, c := range []struct {
		name, head string
		want       error
	}{
		{"headers just fit", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", MaxHeaderBytes-100) + "\r\nContent-Length: 2\r\n\r\nok", nil},
		{"headers do not fit", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", MaxHeaderBytes) + "\r\nContent-Length: 2\r\n\r\nok", ErrHeaders},
		{"interim answers count", strings.Repeat("HTTP/1.1 103 H\r\nX-A: "+strings.Repeat("a", 1000)+"\r\n\r\n", 70) + ok200, ErrHeaders},
		{"as many interim answers as may be", strings.Repeat(interim, maxInterim-1) + ok200, nil},
		{"too many interim answers", strings.Repeat(interim, maxInterim) + ok200, ErrInterim},
		{"the body does not count", "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("b", 200_000), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := link(t)
			answer(t, theirs, 5, c.head)
			if _, _, err := ask(NewExchange(), ours, "first", ""); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// One Exchange after the other, good and bad: nothing of one gets into the next.
func TestAnExchangeStartsAfresh(t *testing.T) {
	x := NewExchange()
	for range 3 {
		ours, theirs := link(t)
		answer(t, theirs, 5, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart of the body")
		resp, err := x.Do(ours, []byte("first"), nil)
		if err != nil {
			t.Fatal(err)
		}
		x.Finish(resp, false)
		ours, theirs = link(t)
		theirs.Close()
		if _, err := x.Do(ours, []byte("first"), bytes.Repeat([]byte("r"), 1<<20)); err == nil {
			t.Fatal("no error")
		}
		ours, theirs = link(t)
		answer(t, theirs, 5, ok200)
		if body, reusable, err := ask(x, ours, "first", ""); body != "ok" || !reusable || err != nil {
			t.Fatalf("%q, %v, %v", body, reusable, err)
		}
	}
}

func TestAnEarlyAnswerIsTakenOverTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ours, theirs := tlsLink(t, version)
		go func() {
			_, _ = io.ReadFull(theirs, make([]byte, 5))
			_, _ = io.WriteString(theirs, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
		}()
		x := NewExchange()
		resp, err := x.Do(ours, []byte("first"), bytes.Repeat([]byte("r"), 32<<20))
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Fatalf("%v", err)
		}
		if x.Finish(resp, true) {
			t.Error("the connection is to be used again")
		}
	}
}

func TestExchangesFollowEachOtherOverTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ours, theirs := tlsLink(t, version)
		x := NewExchange()
		for range 5 {
			answer(t, theirs, 5, ok200)
			if body, reusable, err := ask(x, ours, "first", ""); body != "ok" || !reusable || err != nil || !ours.alive() {
				t.Fatalf("%q, reusable %v, %v", body, reusable, err)
			}
		}
	}
}
