package httpsink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// verdict is what both clients must agree on.
func verdict(a *delivery.Attempt) string {
	return fmt.Sprintf("%v %q status %d, retry after %v, headers %q, body %q, truncated %v, told %v",
		a.Outcome, a.Code, a.Status, a.RetryAfter, a.Headers, a.Body, a.BodyTruncated, a.Remote != "")
}

// quiet drops what net/http logs of unsolicited bytes.
func quiet(t testing.TB) {
	writer := log.Writer()
	log.SetOutput(io.Discard)
	t.Cleanup(func() { log.SetOutput(writer) })
}

// parrot answers every request with what say holds and closes, so that no
// answer waits for its timeout.
func parrot(t testing.TB, say *atomic.Pointer[[]byte]) string {
	return "http://" + rawServer(t, func(c net.Conn, _ int) {
		if _, _, err := readRequest(c); err == nil {
			_, _ = c.Write(*say.Load())
		}
	})
}

// FuzzAnswersAreJudgedAsByNetHTTP sends the same bytes to the exchange of this
// package and to net/http's transport.
func FuzzAnswersAreJudgedAsByNetHTTP(f *testing.F) {
	for _, answer := range oddAnswers() {
		f.Add([]byte(answer))
	}
	quiet(f)
	var say atomic.Pointer[[]byte]
	s := newSink(f, parrot(f, &say), nil)
	f.Fuzz(func(t *testing.T, answer []byte) {
		say.Store(&answer)
		ours, theirs := deliver(t, s, outbound()), newNetHTTP(t, s, nil, nil).deliver(t, outbound())
		if strings.Contains(ours.Error, http1.ErrInterim.Error()) {
			return // net/http counts their bytes only
		}
		if got, want := verdict(&ours), verdict(&theirs); got != want {
			t.Errorf("%q\n is %s\nnot %s\n(%s; %s)", answer, got, want, ours.Error, theirs.Error)
		}
	})
}

// Answers out of pieces that matter, put together at random.
func TestAnswersAreJudgedAsByNetHTTP(t *testing.T) {
	quiet(t)
	var say atomic.Pointer[[]byte]
	s := newSink(t, parrot(t, &say), nil)
	rapid.Check(t, func(rt *rapid.T) {
		pieces := rapid.SliceOfN(rapid.SampledFrom([]string{
			"HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.1 500\r\n", "HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\n", "HTTP/1.1 204 No Content\r\n",
			"HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n", "HTTP/2.0 200 OK\r\n", "HTTP/1.1  302 Found\r\n",
			"HTTP/1.1 200\r\n", "HTTP/1.1 20 OK\r\n", "HTTP/1.1 +20 OK\r\n", "http/1.1 200 OK\r\n", "HTTP/1.1 200 OK\n", "\r\n", "\n", "\r", " ", "\x00", ": ",
			"Content-Length: 5\r\n", "Content-Length: 3\r\n", "Content-Length: 0\r\n", "Content-Length: -1\r\n", "Content-Length: +5\r\n", "Content-Length:\r\n",
			"Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "Connection: close\r\n", "Connection: keep-alive\r\n", "Upgrade: websocket\r\n",
			"Location: /elsewhere\r\n", "X-A: b\r\n", "X-A : b\r\n", " folded\r\n", "X-Ü: ü\r\n", "Trailer: X-T\r\n", "X-T: t\r\n",
			"hello", "5\r\nhello\r\n", "0\r\n", "0\r\n\r\n", "5;ext=1\r\nhello\r\n", "fffffffff\r\n", strings.Repeat("a", 5000), strings.Repeat("X-F: "+strings.Repeat("f", 900)+"\r\n", 72),
		}), 0, 10).Draw(rt, "pieces")
		answer := []byte(strings.Join(pieces, ""))
		say.Store(&answer)
		once := newNetHTTP(t, s, nil, nil) // which may take what follows an answer for the next one
		ours, theirs := deliver(t, s, outbound()), once.deliver(t, outbound())
		if got, want := verdict(&ours), verdict(&theirs); got != want {
			rt.Errorf("%q\n is %s\nnot %s\n(%s; %s)", answer, got, want, ours.Error, theirs.Error)
		}
	})
}

func oddAnswers() []string {
	return []string{
		ok200 + "Content-Length: 2\r\n\r\nok", ok200 + "\r\nuntil the end", ok200 + "Content-Length: 10\r\n\r\nshort", "", "H", "HTTP/1.1 2", ok200, ok200 + "X-A",
		ok200 + "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n", ok200 + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + ok200 + "Content-Length: 0\r\n\r\n", "HTTP/1.1 102 Wait\r\n\r\n",
		"HTTP/1.1 101 X\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\nraw", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
		ok200 + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", ok200 + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		ok200 + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", ok200 + "Pragma: no-cache\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 More\r\n\r\n",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 3000), "<html>no HTTP</html>", "\x15\x03\x01\x00\x02\x02\x28", "HTTP/1.1 308 P\r\nLocation: http://b\xff/\r\nContent-Length: 0\r\n\r\n",
		ok200 + "Content-Length: 70000\r\n\r\n" + strings.Repeat("b", 70000), "HTTP/1.1 500 X\r\n\r\n" + strings.Repeat("e", 40000),
	}
}

// A receiver that keeps its connections: whether the next delivery may have one
// is decided as by net/http.
func TestConnectionsAreReusedAsByNetHTTP(t *testing.T) {
	for _, answer := range []string{
		ok200 + "Content-Length: 2\r\n\r\nok", ok200 + "Content-Length: 0\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n",
		ok200 + "Content-Length: 2\r\nConnection: close\r\n\r\nok", ok200 + "Content-Length: 0\r\nConnection: Close, X\r\n\r\n",
		ok200 + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", ok200 + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
		"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 404 No\r\nContent-Length: 60000\r\n\r\n" + strings.Repeat("a", 60000),
		"HTTP/1.1 404 No\r\nContent-Length: 90000\r\n\r\n" + strings.Repeat("a", 90000), "HTTP/1.1 103 Hints\r\n\r\n" + ok200 + "Content-Length: 0\r\n\r\n",
		"HTTP/1.1 101 X\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 999 Hm\r\nContent-Length: 0\r\n\r\n",
	} {
		var reused [2]bool
		for i := range reused {
			s := newSink(t, "http://"+rawServer(t, func(c net.Conn, _ int) {
				for {
					if _, _, err := readRequest(c); err != nil {
						return
					}
					_, _ = io.WriteString(c, answer)
				}
			}), nil)
			by := func() delivery.Attempt { return deliver(t, s, outbound()) }
			if i == 1 {
				model := newNetHTTP(t, s, nil, nil)
				by = func() delivery.Attempt { return model.deliver(t, outbound()) }
			}
			by()
			reused[i] = by().Reused
			s.Close()
		}
		if reused[0] != reused[1] {
			t.Errorf("%.60q: reused %v, by net/http %v", answer, reused[0], reused[1])
		}
	}
}

// sender takes what a client writes, byte for byte.
func sender(t testing.TB) (url string, next func() []byte) {
	requests := make(chan []byte, 1)
	addr := rawServer(t, func(c net.Conn, _ int) {
		var raw bytes.Buffer
		if _, _, err := readRequest(io.TeeReader(c, &raw)); err != nil {
			return
		}
		requests <- raw.Bytes()
		_, _ = io.WriteString(c, ok200+"Content-Length: 0\r\nConnection: close\r\n\r\n")
	})
	return "http://" + addr, func() []byte { return <-requests }
}

// The documents promise no order, but receivers may have come to rely on the one
// there has always been.
func TestRequestsAreThoseOfNetHTTPByteForByte(t *testing.T) {
	base, next := sender(t)
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z!#$%&'*+.^_|~-][A-Za-z0-9-]{0,12}`)
		value := rapid.StringMatching(`[ \t]?[!-~ äß\t]{0,20}[ \t]?`)
		o := Options{URL: secret.New(base + rapid.SampledFrom([]string{"", "/", "/a/b?c=d", "/%C3%BC?x=%20&y", "?q", "//a"}).Draw(rt, "path")),
			Timeout: 30 * time.Second, Proxy: http.ProxyURL(nil), UserAgent: rapid.SampledFrom([]string{"", "mine/2"}).Draw(rt, "agent")}
		for range rapid.IntRange(0, 6).Draw(rt, "headers") {
			h := Header{rapid.OneOf(name, rapid.SampledFrom([]string{"user-agent", "Content-type", "Authorization", "Y-Last", "A-First", "x-lower"})).Draw(rt, "name"),
				secret.New(value.Draw(rt, "value"))}
			if !slices.ContainsFunc(o.Headers, func(other Header) bool { return strings.EqualFold(other.Name, h.Name) }) {
				o.Headers = append(o.Headers, h)
			}
		}
		if rapid.Bool().Draw(rt, "signed") {
			o.Signer = testSigner(t)
		}
		s, err := New(o)
		if err != nil {
			rt.Skip(err)
		}
		defer s.Close()
		d := outbound()
		d.Test, d.Attempt = rapid.Bool().Draw(rt, "test"), rapid.IntRange(1, 1000).Draw(rt, "attempt")
		d.EventType = rapid.StringMatching(`[ -~]{0,20}`).Draw(rt, "type")
		d.Payload = bytes.Repeat([]byte("p"), rapid.SampledFrom([]int{0, 1, 400, 32 << 10, 100_000}).Draw(rt, "size"))
		deliver(t, s, d)
		ours := next()
		newNetHTTP(t, s, &o, nil).deliver(t, d)
		if theirs := next(); !bytes.Equal(ours, theirs) {
			rt.Errorf("sent\n%.2000q\nnet/http sends\n%.2000q", ours, theirs)
		}
	})
}

func TestNoHeaderIsInjected(t *testing.T) {
	var connections atomic.Int64
	s := newSink(t, "http://"+rawServer(t, func(net.Conn, int) { connections.Add(1) }), nil)
	model := newNetHTTP(t, s, nil, nil)
	for _, evil := range []string{"a\r\nX-Evil: 1", "a\nb", "a\rb", "a\x00", "\x7f", "\x1b[2J"} {
		for _, set := range []func(*delivery.Outbound){
			func(o *delivery.Outbound) { o.EventType = evil }, func(o *delivery.Outbound) { o.EventID = evil }, func(o *delivery.Outbound) { o.DeliveryID = evil },
		} {
			o := outbound()
			set(o)
			a, theirs := deliver(t, s, o), model.deliver(t, o)
			if a.Outcome != delivery.Retry || a.Error != theirs.Error || !strings.Contains(a.Error, "invalid header field value") {
				t.Errorf("%q: %v %q, by net/http %q", evil, a.Outcome, a.Error, theirs.Error)
			}
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// The address that net/http would dial.
func TestTheAddressDialledIsThatOfNetHTTP(t *testing.T) {
	for _, text := range []string{
		"http://partner.example", "https://partner.example", "http://partner.example:81/x", "https://PARTNER.example", "http://partner.example.",
		"http://bücher.example", "https://BÜCHER.example:8443", "http://127.0.0.1", "http://[::1]", "https://[::1]:8443", "http://[fe80::1%25eth0]:1", "http://a_b.example",
		"http://straße.example", "http://xn--bcher-kva.example", "http://ü..example", "http://２.example", "http://" + strings.Repeat("ü", 70) + ".example",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		var dialled string
		probe := &http.Transport{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			dialled = address
			return nil, errors.New("only asking")
		}}
		probe.DialTLSContext = probe.DialContext
		if _, err := probe.RoundTrip(&http.Request{Method: http.MethodPost, URL: u, Header: http.Header{}}); err == nil || dialled == "" {
			t.Fatalf("%s: %v, dialled %q", text, err, dialled)
		}
		if got := dialAddress(u); got != dialled {
			t.Errorf("%s: %q, net/http dials %q", text, got, dialled)
		}
	}
}

// No name server knows such a host, but a hosts file may.
func TestAHostThatCannotBeWrittenIsTold(t *testing.T) {
	s := newSink(t, "http://xn--zzzzzü.invalid/hook", nil)
	s.dial = func(context.Context, string) (net.Conn, error) {
		c, other := net.Pipe()
		t.Cleanup(func() { other.Close() })
		return c, nil
	}
	ours, theirs := deliver(t, s, outbound()), newNetHTTP(t, s, nil, nil).deliver(t, outbound())
	if ours.Outcome != delivery.Retry || ours.Code != theirs.Code || !strings.Contains(ours.Error, "idna") || !strings.Contains(theirs.Error, "idna") {
		t.Errorf("%v %q %q, by net/http %q %q", ours.Outcome, ours.Code, ours.Error, theirs.Code, theirs.Error)
	}
}
