//go:build linux

package httpsink

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// everywhere is a machine that has all addresses of the internet, in a network of
// its own, and remembers under which of them it was reached.
type everywhere struct {
	port  string
	names map[string][]netip.Addr // what its name server says, one address after the other
	asked map[string]int          // how often it did

	mu     sync.Mutex // guards the rest
	at     []netip.Addr
	answer string
}

func newEverywhere(t *testing.T) *everywhere {
	t.Helper()
	testhost.Run(t, "ip", "route", "add", "local", "default", "dev", "lo")
	testhost.Run(t, "ip", "-6", "route", "add", "local", "::/0", "dev", "lo")
	e := &everywhere{names: map[string][]netip.Addr{}, asked: map[string]int{}, answer: ok200 + "Content-Length: 2\r\n\r\nok"}
	l, err := net.Listen("tcp", ":0") // IPv4 and IPv6
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			e.at = append(e.at, c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
			answer := e.answer
			e.mu.Unlock()
			all.Go(func() {
				defer c.Close()
				if _, _, err := readRequest(c); err == nil {
					_, _ = io.WriteString(c, answer)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	_, e.port, _ = net.SplitHostPort(l.Addr().String())
	before := net.DefaultResolver
	net.DefaultResolver = testhost.Resolver(e.resolve)
	t.Cleanup(func() { net.DefaultResolver = before })
	return e
}

// reached are the addresses of the connections since the last call.
func (e *everywhere) reached() []netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	at := e.at
	e.at = nil
	return at
}

// resolve is the next address of a name, if it is of the kind that is asked for.
func (e *everywhere) resolve(name string, six bool) netip.Addr {
	list := e.names[name]
	if len(list) == 0 {
		return netip.Addr{}
	}
	a := list[e.asked[name]%len(list)]
	if a.Is6() != six {
		return netip.Addr{}
	}
	e.asked[name]++
	return a
}

// notation is a way to write an address into a URL.
type notation struct {
	host string
	addr netip.Addr // that is reached by it
	aton bool       // C libraries read it, Go's resolver does not
}

// forbidden are addresses that nobody named plainly; the first never are dialled,
// whoever names them.
func forbidden() (never, private []netip.Addr) {
	parse := func(list string) (out []netip.Addr) {
		for a := range strings.FieldsSeq(list) {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	return parse("169.254.169.254 169.254.170.2 168.63.129.16 100.100.100.200 192.0.0.192 0.0.0.0"),
		parse("127.0.0.1 127.1.2.3 10.0.0.1 172.16.5.4 192.168.1.1 100.64.0.1 198.18.0.1")
}

// numbers are the notations of inet_aton(3).
func numbers(a netip.Addr) (out []string) {
	b := a.As4()
	n := binary.BigEndian.Uint32(b[:])
	low24, low16 := n&0xffffff, n&0xffff
	return []string{
		fmt.Sprint(n), fmt.Sprintf("0x%x", n), fmt.Sprintf("0X%08X", n), fmt.Sprintf("0x%016x", n), fmt.Sprintf("0%o", n), fmt.Sprintf("%012o", n),
		fmt.Sprintf("0x%x.0x%x.0x%x.0x%x", b[0], b[1], b[2], b[3]), fmt.Sprintf("0x%04X.0x%04X.0x%04X.0x%04X", b[0], b[1], b[2], b[3]),
		fmt.Sprintf("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3]), fmt.Sprintf("%08o.%08o.%08o.%08o", b[0], b[1], b[2], b[3]),
		fmt.Sprintf("0x%x.%d.0%o.%d", b[0], b[1], b[2], b[3]), fmt.Sprintf("%d.0%o.0x%x.%d", b[0], b[1], b[2], b[3]),
		fmt.Sprintf("%d.%d", b[0], low24), fmt.Sprintf("0x%x.0x%x", b[0], low24), fmt.Sprintf("0%o.%d", b[0], low24),
		fmt.Sprintf("%d.%d.%d", b[0], b[1], low16), fmt.Sprintf("%d.%d.0x%x", b[0], b[1], low16), fmt.Sprintf("0x%x.0%o.0%o", b[0], b[1], low16),
		a.String() + ".",
	}
}

// inside are IPv6 addresses that hold an IPv4 address.
func inside(a netip.Addr) (out []string) {
	b := a.As4()
	h := fmt.Sprintf("%x:%x", int(b[0])<<8|int(b[1]), int(b[2])<<8|int(b[3]))
	inverted := fmt.Sprintf("%x:%x", int(^b[0])<<8|int(^b[1]), int(^b[2])<<8|int(^b[3]))
	return []string{
		"::ffff:" + a.String(), "::ffff:" + h, "0:0:0:0:0:ffff:" + h, "0000:0000:0000:0000:0000:FFFF:" + a.String(),
		"::ffff:0:" + a.String(), "64:ff9b::" + h, "64:ff9b::" + a.String(), "64:ff9b:1::" + h,
		"2002:" + h + "::1", "2002:" + h + "::" + h, "2001:0:" + h + "::1", "2001:0:808:808:0:0:" + inverted,
		"2606:4700::5efe:" + h, "2606:4700::200:5efe:" + h,
	}
}

// digits are those of an address in another script, which IDNA maps to ASCII.
func digits(a netip.Addr, zero rune, dot string) string {
	var b strings.Builder
	for _, r := range a.String() {
		if r == '.' {
			b.WriteString(dot)
			continue
		}
		b.WriteRune(zero + r - '0')
	}
	return b.String()
}

// notations are all ways, and names for them in the name server of e.
func (e *everywhere) notations() (out []notation) {
	never, private := forbidden()
	for i, a := range append(never, private...) {
		for _, host := range numbers(a) {
			out = append(out, notation{host, a, true})
		}
		for _, host := range inside(a) {
			out = append(out, notation{"[" + host + "]", netip.MustParseAddr(host).Unmap(), false})
		}
		for _, host := range []string{digits(a, '０', "."), digits(a, '０', "。"), digits(a, '𝟎', "."), digits(a, '𝟬', "．"), digits(a, '𝟶', "｡")} {
			out = append(out, notation{host, a, false})
		}
		for _, host := range []string{"name", "name.in.a.zone", a.String() + ".nip", "xn--nme-ila"} {
			name := fmt.Sprintf("%s.n%d.example", host, i)
			e.names[name] = []netip.Addr{a}
			out = append(out, notation{name, a, false}, notation{strings.ToUpper(name), a, false})
		}
		out = append(out, notation{fmt.Sprintf("name.n%d.example.", i), a, false}) // absolute
		for n, host := range inside(a) {
			name := fmt.Sprintf("six%d.n%d.example", n, i)
			addr := netip.MustParseAddr(host)
			e.names[name] = []netip.Addr{addr}
			out = append(out, notation{name, addr.Unmap(), false})
		}
	}
	for _, a := range never {
		host := a.String()
		out = append(out, notation{host, a, false}, notation{"8.8.8.8@" + host, a, false}, notation{"8.8.8.8:80@" + host, a, false},
			notation{"user:8.8.8.8%40" + "@" + host, a, false})
	}
	return out
}

// atonDial has a dialer understand what a C library would.
func (n *notation) atonDial(dial func(context.Context, string) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
	if !n.aton {
		return dial
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(address)
		return dial(ctx, net.JoinHostPort(n.addr.String(), port))
	}
}

// Every notation of a forbidden address is tried where each would be reached, and
// reaches nothing. The control dials without the guard, and gets there each time.
func TestNoNotationOfAForbiddenAddressIsReached(t *testing.T) {
	if testhost.OwnNetwork(t) {
		return
	}
	e := newEverywhere(t)
	all := e.notations()
	for _, n := range all {
		for _, scheme := range []string{"http", "https"} {
			s := newSink(t, scheme+"://"+n.host+":"+e.port+"/latest/meta-data/", nil)
			s.dial = n.atonDial(s.dial)
			if a := deliver(t, s, outbound()); a.Code != delivery.CodeForbiddenAddr || a.Outcome != delivery.Rejected {
				t.Errorf("%s (%s) by %s: %v %q %q", n.host, n.addr, scheme, a.Outcome, a.Code, a.Error)
			}
			s.Close()
		}
		if at := e.reached(); len(at) > 0 {
			t.Errorf("%s reached %v", n.host, at)
		}
		s := newSink(t, "http://"+n.host+":"+e.port+"/", nil)
		unguarded := dialer{control: func(string, string, syscall.RawConn) error { return nil }}
		s.dial = n.atonDial(unguarded.dial)
		a := deliver(t, s, outbound())
		// Linux takes the unspecified address for itself.
		if at := e.reached(); a.Outcome != delivery.Delivered || len(at) != 1 || at[0] != n.addr && !n.addr.IsUnspecified() {
			t.Errorf("the control: %s reached %v, not %s: %q", n.host, at, n.addr, a.Error)
		}
		s.Close()
	}
	if len(all) < 300 {
		t.Errorf("%d notations, want at least 300", len(all))
	}
	t.Attr("cases", strconv.Itoa(len(all)))
}

// Names that change their address while they are used, redirects and proxies lead
// to no forbidden address either.
func TestNoDetourLeadsToAForbiddenAddress(t *testing.T) {
	if testhost.OwnNetwork(t) {
		return
	}
	e := newEverywhere(t)
	public := netip.MustParseAddr("8.8.8.8")
	never, private := forbidden()
	cases := 0
	for i, a := range append(never, private...) {
		name := fmt.Sprintf("rebind%d.example", i)
		e.names[name] = []netip.Addr{public, a}
		s := newSink(t, "http://"+name+":"+e.port+"/", nil)
		for n := range 4 {
			cases++
			got := deliver(t, s, outbound())
			if odd := n%2 == 1; odd && got.Code != delivery.CodeForbiddenAddr || !odd && got.Outcome != delivery.Delivered {
				t.Errorf("%s, attempt %d: %v %q", a, n, got.Outcome, got.Error)
			}
		}
		s.Close()
		for _, status := range []int{301, 302, 303, 307, 308, 300} {
			cases++
			e.mu.Lock()
			e.answer = fmt.Sprintf("HTTP/1.1 %d X\r\nLocation: http://%s:%s/\r\nRefresh: 0; url=http://%s:%s/\r\nContent-Length: 0\r\n\r\n", status, a, e.port, a, e.port)
			e.mu.Unlock()
			s := newSink(t, "http://8.8.8.8:"+e.port+"/", nil)
			if got := deliver(t, s, outbound()); got.Code != delivery.CodeRedirect {
				t.Errorf("%d to %s: %v %q", status, a, got.Outcome, got.Error)
			}
			s.Close()
		}
		e.mu.Lock()
		e.answer = ok200 + "Content-Length: 2\r\n\r\nok"
		e.mu.Unlock()
	}
	for _, at := range e.reached() {
		if at != public {
			t.Errorf("%s was reached", at)
		}
	}
	for _, a := range never { // as the address of a proxy
		cases++
		s := newSink(t, "http://partner.example/", func(o *Options) {
			o.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: net.JoinHostPort(a.String(), e.port)})
		})
		if got := deliver(t, s, outbound()); got.Code != delivery.CodeForbiddenAddr {
			t.Errorf("a proxy at %s: %v %q", a, got.Outcome, got.Error)
		}
		s.Close()
	}
	for _, a := range append(never, private...) { // as what a proxy is asked for
		for _, host := range numbers(a) {
			cases++
			s := newSink(t, "http://"+host+":"+e.port+"/", func(o *Options) {
				o.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "10.9.9.9:" + e.port})
			})
			if got := deliver(t, s, outbound()); got.Code != delivery.CodeForbiddenAddr {
				t.Errorf("%s by a proxy: %v %q", host, got.Outcome, got.Error)
			}
			s.Close()
		}
	}
	if at := e.reached(); len(at) > 0 {
		t.Errorf("a proxy was asked: %v", at)
	}
	t.Attr("cases", strconv.Itoa(cases))
}
