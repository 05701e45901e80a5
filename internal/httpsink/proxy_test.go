package httpsink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// forwardProxy records what it was asked for and connects
// everything to one address.
func forwardProxy(t *testing.T, target string, status int) (address string, asked func() []string) {
	requests := make(chan string, 200)
	addr := rawServer(t, func(c net.Conn, _ int) {
		r, _, err := readRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		requests <- r.Method + " " + r.RequestURI + " " + r.Header.Get("Proxy-Authorization")
		if status != http.StatusOK || r.Method != http.MethodConnect {
			fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", status)
			return
		}
		up, err := net.Dial("tcp4", target)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		splice(c, up)
	})
	return addr, func() []string {
		var list []string
		for {
			select {
			case r := <-requests:
				list = append(list, r)
			default:
				return list
			}
		}
	}
}

// splice carries what either end says until one has closed.
func splice(c, up net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(up, c)
		up.Close()
	}()
	_, _ = io.Copy(c, up)
	c.Close()
	up.Close()
	<-done
}

func through(address string) func(*Options) {
	return func(o *Options) {
		o.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: address, User: url.UserPassword("relay", "pr0xy-password")})
	}
}

func TestAProxyCarriesRequests(t *testing.T) {
	ca := newAuthority(t)
	target := tlsServer(t, serverConfig(ca.issue(t, func(c *x509.Certificate) { c.DNSNames = []string{"partner.example"} })))
	addr, asked := forwardProxy(t, target, 200)
	s := newSink(t, "https://partner.example/hook", func(o *Options) {
		o.TLS.CAPEM = ca.pem()
		through(addr)(o)
	})
	for i := range 2 {
		a := deliver(t, s, outbound())
		if a.Outcome != delivery.Delivered || a.Remote != addr || a.Reused != (i == 1) || (a.Phases.TLS > 0) != (i == 0) {
			t.Fatalf("%d: %v %q over %s, reused %v, %+v", i, a.Outcome, a.Error, a.Remote, a.Reused, a.Phases)
		}
	}
	if list := asked(); len(list) != 1 || list[0] != "CONNECT partner.example:443 Basic cmVsYXk6cHIweHktcGFzc3dvcmQ=" {
		t.Errorf("the proxy was asked for %q", list)
	}
	a := deliver(t, newSink(t, "http://partner.example/hook", through(addr)), outbound())
	if list := asked(); a.Outcome != delivery.Delivered || len(list) != 1 || !strings.HasPrefix(list[0], "POST http://partner.example/hook ") {
		t.Errorf("%v %q: the proxy was asked for %q", a.Outcome, a.Error, list)
	}
}

func TestAProxyThatFailsIsTold(t *testing.T) {
	refusing, _ := forwardProxy(t, "", 403)
	silent := rawServer(t, func(c net.Conn, _ int) { untilClosed(c) })
	says := func(text string) string { return rawServer(t, afterRequest(text)) }
	hangsUp, babbles, hasty := rawServer(t, func(c net.Conn, _ int) { _, _, _ = readRequest(c) }), says("220 ready\r\n"), says(ok200+"\r\nHTTP/1.1 200 OK\r\n\r\n")
	endlessHeaders := rawServer(t, endless(ok200, "X-Filler: "+strings.Repeat("a", 1000)+"\r\n"))
	mute := says(ok200 + "Content-Length: 5\r\n\r\n") // of a length that a tunnel does not have
	plain := rawServer(t, func(c net.Conn, _ int) {
		if _, _, err := readRequest(c); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 299 Here you are\r\n\r\n")
			_, _ = c.Read(make([]byte, 1)) // of the handshake
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
			untilClosed(c)
		}
	})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, c := range []struct {
		proxy string
		code  delivery.Code
		says  string
	}{
		{refusing, delivery.CodeProxy, "the proxy answered 403 Forbidden"},
		{l.Addr().String(), delivery.CodeProxy, "no connection to the proxy: connection refused by " + l.Addr().String()},
		{silent, delivery.CodeTimeout, "waiting for the proxy " + silent},
		{"nobody.invalid:3128", delivery.CodeProxy, "no connection to the proxy: no such host: nobody.invalid"},
		{hangsUp, delivery.CodeProxy, "no connection through the proxy: the proxy " + hangsUp + " closed it"},
		{babbles, delivery.CodeProxy, "no connection through the proxy: the answer is not HTTP/1.1"},
		{hasty, delivery.CodeProxy, "no connection through the proxy: the proxy said more than its answer"},
		{endlessHeaders, delivery.CodeProxy, "no connection through the proxy: the response headers exceed 64 KiB"},
		{plain, delivery.CodeTLS, "the receiver does not speak TLS on this port"},
		{mute, delivery.CodeTimeout, "in the TLS handshake with partner.example:443 through the proxy " + mute},
		{"169.254.169.254:3128", delivery.CodeForbiddenAddr, "never dialled"},
	} {
		a := deliver(t, newSink(t, "https://partner.example/hook", func(o *Options) {
			if c.code == delivery.CodeTimeout {
				o.Timeout = hostileTimeout
			}
			through(c.proxy)(o)
		}), outbound())
		if a.Code != c.code || !strings.Contains(a.Error, c.says) || strings.Contains(a.Error, "pr0xy") {
			t.Errorf("%s: %q %q", c.proxy, a.Code, a.Error)
		}
	}
}

func TestAProxyIsNotAskedForAForbiddenTarget(t *testing.T) {
	addr, asked := forwardProxy(t, "", 200)
	for _, host := range []string{"169.254.169.254", "[fd00:ec2::254]", "0x7f.1", "2130706433", "[::ffff:10.0.0.1]", "metadata.google.internal", "0"} {
		for _, scheme := range []string{"http", "https"} {
			a := deliver(t, newSink(t, scheme+"://"+host+"/latest", through(addr)), outbound())
			if a.Outcome != delivery.Rejected || a.Code != delivery.CodeForbiddenAddr {
				t.Errorf("%s: %v %q", host, a.Outcome, a.Error)
			}
		}
	}
	if list := asked(); len(list) != 0 {
		t.Errorf("the proxy was asked for %q", list)
	}
}

// net/http reads the proxy variables once in a process, so this needs its own.
func TestTheProxyOfTheEnvironmentIsUsed(t *testing.T) {
	const marker = "HTTPSINK_TEST_PROXIED"
	if os.Getenv(marker) != "" {
		s, err := New(Options{URL: secret.New("http://partner.example/hook"), Timeout: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered {
			t.Fatalf("%v: %s", a.Outcome, a.Error)
		}
		return
	}
	addr, asked := forwardProxy(t, "", 200)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$")
	cmd.Dir = t.TempDir()
	cmd.Env = []string{marker + "=1", "HTTP_PROXY=http://" + addr, "HOME=" + filepath.Join(cmd.Dir, "home")}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if list := asked(); len(list) != 1 {
		t.Errorf("the proxy was asked for %q", list)
	}
}

// A receiver, or a proxy, may say more than it was asked for. None of it is ever the
// answer of the delivery that comes next.
func TestNoAnswerIsTakenForThatOfAnotherDelivery(t *testing.T) {
	ca := newAuthority(t)
	partner := serverConfig(ca.issue(t, nil))
	// Both answers are one write: the second is there when the first is.
	twice := func(c net.Conn) {
		for br := bufio.NewReader(c); ; {
			if _, _, err := readRequest(br); err != nil {
				return
			}
			if _, err := io.WriteString(c, ok200+"Content-Length: 2\r\n\r\nokHTTP/1.1 500 Not yours\r\nContent-Length: 0\r\n\r\n"); err != nil {
				return
			}
		}
	}
	plain := rawServer(t, func(c net.Conn, _ int) { twice(c) })
	secure := rawServer(t, func(c net.Conn, _ int) { twice(tls.Server(c, partner)) })
	tunnel, _ := forwardProxy(t, secure, http.StatusOK)
	trusted := func(o *Options) { o.TLS.CAPEM = ca.pem() }
	for name, s := range map[string]*Sink{
		"direct":           newSink(t, "http://"+plain+"/hook", nil),
		"direct, TLS":      newSink(t, "https://"+secure+"/hook", trusted),
		"through a proxy":  newSink(t, "http://partner.example/hook", through(plain)),
		"through a tunnel": newSink(t, "https://partner.example/hook", func(o *Options) { trusted(o); through(tunnel)(o) }),
		"through SOCKS5":   newSink(t, "http://partner.example/hook", throughSOCKS(newSOCKS(t, plain).addr)),
	} {
		n := 200
		if s.url.Scheme == "https" {
			n = 10 // each a handshake
		}
		// Who waits for a connection gets one that is given back at once.
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for range n {
					if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered || a.Reused {
						t.Errorf("%s: %v %q, reused %v", name, a.Outcome, a.Error, a.Reused)
						return
					}
				}
			})
		}
		workers.Wait()
	}
}

// What a proxy is sent is what net/http sends it, so that each that has worked goes on
// to do so.
func TestRequestsThroughAProxyAreThoseOfNetHTTP(t *testing.T) {
	asked := make(chan []byte, 10)
	addr := rawServer(t, func(c net.Conn, _ int) {
		var raw bytes.Buffer
		if _, _, err := readRequest(io.TeeReader(c, &raw)); err != nil {
			return
		}
		asked <- raw.Bytes()
		_, _ = io.WriteString(c, "HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	for _, target := range []string{"http://partner.example", "http://partner.example:80/a?b=c", "http://partner.example:8080/%C3%BC", "http://bücher.example/ü", "http://[2606:4700::1]:81/",
		"https://partner.example/a", "https://PARTNER.example.:8443/a", "https://bücher.example/", "https://[2606:4700::1]/", "http://a_b.example//x?y"} {
		for _, user := range []*url.Userinfo{nil, url.User("relay"), url.UserPassword("relay", "a:b/ü")} {
			via := &url.URL{Scheme: "http", Host: addr, User: user}
			o := Options{URL: secret.New(target), Signer: testSigner(t), Timeout: 30 * time.Second, Proxy: http.ProxyURL(via),
				Headers: []Header{{"A-First", secret.New("1")}, {"Z-Last", secret.New("2")}}}
			s, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			deliver(t, s, outbound())
			ours := <-asked
			newNetHTTP(t, s, &o, via).deliver(t, outbound())
			if theirs := <-asked; !bytes.Equal(mask(ours), mask(theirs)) {
				t.Errorf("%s, %v: sent\n%q\nnet/http sends\n%q", target, user, ours, theirs)
			}
			s.Close()
		}
	}
}

// mask takes out what changes with the time.
func mask(request []byte) []byte {
	lines := bytes.Split(request, []byte("\r\n"))
	return bytes.Join(slices.DeleteFunc(lines, func(l []byte) bool { return bytes.HasPrefix(l, []byte("X-Peanuts-Signature")) }), []byte("\r\n"))
}

// A name that is not ASCII is in certificates as it is in the DNS.
func TestACertificateIsComparedWithTheNameOfTheDNS(t *testing.T) {
	ca := newAuthority(t)
	addr := tlsServer(t, serverConfig(ca.issue(t, func(c *x509.Certificate) { c.DNSNames = []string{"xn--bcher-kva.example"} })))
	tunnel, _ := forwardProxy(t, addr, http.StatusOK)
	trusted := func(o *Options) { o.TLS.CAPEM = ca.pem() }
	loopback, err := egress.New([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	direct := newSink(t, "https://bücher.example/hook", func(o *Options) { trusted(o); o.Egress = loopback })
	dial := direct.dial
	direct.dial = func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, addr) }
	for _, s := range []*Sink{direct, newSink(t, "https://BÜCHER.example./hook", func(o *Options) { trusted(o); through(tunnel)(o) })} {
		if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered {
			t.Errorf("%v %q %q", a.Outcome, a.Code, a.Error)
		}
	}
}

// The receiver has not seen a request for which the proxy wants a password.
func TestAProxyThatWantsAPasswordRejectsNothing(t *testing.T) {
	addr, _ := forwardProxy(t, "", http.StatusProxyAuthRequired)
	for _, target := range []string{"http://partner.example/hook", "https://partner.example/hook"} {
		a := deliver(t, newSink(t, target, through(addr)), outbound())
		if a.Outcome != delivery.Retry || a.Code != delivery.CodeProxy || a.Error != "the proxy answered 407 Proxy Authentication Required" {
			t.Errorf("%s: %v %q %q", target, a.Outcome, a.Code, a.Error)
		}
	}
}

// socksServer is a SOCKS5 proxy that connects everything to one address.
type socksServer struct {
	addr  string
	asked chan string // user, password and target
	reply atomic.Int32
}

func newSOCKS(t *testing.T, target string) *socksServer {
	s := &socksServer{asked: make(chan string, 2000)}
	s.addr = rawServer(t, func(c net.Conn, _ int) { s.serve(c, target) })
	return s
}

func throughSOCKS(address string) func(*Options) {
	return func(o *Options) {
		o.Proxy = http.ProxyURL(&url.URL{Scheme: "socks5", Host: address, User: url.UserPassword("relay", "pr0xy-password")})
	}
}

// serve speaks RFC 1928 with the user and password of RFC 1929.
func (s *socksServer) serve(c net.Conn, target string) {
	read := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(c, b)
		return b
	}
	text := func() string { return string(read(int(read(1)[0]))) }
	read(int(read(2)[1]))
	_, _ = c.Write([]byte{5, 2})
	read(1)
	who := text() + ":" + text()
	_, _ = c.Write([]byte{1, 0})
	read(4)
	name := text()
	s.asked <- fmt.Sprintf("%s %s:%d", who, name, binary.BigEndian.Uint16(read(2)))
	_, _ = c.Write([]byte{5, byte(s.reply.Load()), 0, 1, 0, 0, 0, 0, 0, 0})
	up, err := net.Dial("tcp4", target)
	if err != nil || s.reply.Load() != 0 {
		return
	}
	splice(c, up)
}

func TestASOCKSProxyConnects(t *testing.T) {
	ca := newAuthority(t)
	plain := rawServer(t, func(c net.Conn, _ int) { answersWell(c) })
	secure := tlsServer(t, serverConfig(ca.issue(t, nil)))
	for target, at := range map[string]string{"http://partner.example/hook": plain, "https://partner.example:8443/hook": secure} {
		server := newSOCKS(t, at)
		s := newSink(t, target, func(o *Options) {
			o.TLS.CAPEM = ca.pem()
			throughSOCKS(server.addr)(o)
		})
		for i := range 2 {
			if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered || a.Reused != (i == 1) || a.Remote != server.addr || (a.Phases.Connect > 0) != (i == 0) {
				t.Errorf("%s, %d: %v %q over %s, reused %v, %+v", target, i, a.Outcome, a.Error, a.Remote, a.Reused, a.Phases)
			}
		}
		if got, want := <-server.asked, "relay:pr0xy-password "+dialAddress(s.url); got != want || len(server.asked) != 0 {
			t.Errorf("asked for %q and %d more, want %q", got, len(server.asked), want)
		}
	}
}

func TestASOCKSProxyThatFailsIsTold(t *testing.T) {
	refusing := newSOCKS(t, "127.0.0.1:1")
	refusing.reply.Store(4)
	silent := rawServer(t, func(c net.Conn, _ int) { untilClosed(c) })
	hangsUp := rawServer(t, func(net.Conn, int) {})
	anonymous := rawServer(t, func(c net.Conn, _ int) {
		_, _ = io.ReadFull(c, make([]byte, 4))
		_, _ = c.Write([]byte{5, 255})
		untilClosed(c)
	})
	other := rawServer(t, func(c net.Conn, _ int) {
		_, _ = io.WriteString(c, "HTTP/1.1 400 No\r\n\r\n")
		untilClosed(c)
	})
	for _, c := range []struct {
		proxy string
		code  delivery.Code
		says  string
	}{
		{refusing.addr, delivery.CodeProxy, "no connection through the proxy: host unreachable"},
		{silent, delivery.CodeTimeout, "waiting for the proxy " + silent},
		{hangsUp, delivery.CodeProxy, "no connection through the proxy: the proxy " + hangsUp},
		{anonymous, delivery.CodeProxy, "no connection through the proxy: no acceptable authentication methods"},
		{other, delivery.CodeProxy, "no connection through the proxy: unexpected protocol version 72"},
		{"127.0.0.1:1", delivery.CodeProxy, "no connection to the proxy: connection refused by 127.0.0.1:1"},
		{"169.254.169.254:1080", delivery.CodeForbiddenAddr, "never dialled"},
	} {
		a := deliver(t, newSink(t, "http://partner.example/hook", func(o *Options) {
			if c.code == delivery.CodeTimeout {
				o.Timeout = hostileTimeout
			}
			throughSOCKS(c.proxy)(o)
		}), outbound())
		if a.Code != c.code || !strings.Contains(a.Error, c.says) || strings.Contains(a.Error, "pr0xy") {
			t.Errorf("%s: %q %q, want %q", c.proxy, a.Code, a.Error, c.says)
		}
	}
}
