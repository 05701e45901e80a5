package httpsink

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

const (
	// overtime is how much later than its timeout an attempt may end.
	overtime = time.Second
	// tries is how often an attempt may end late, or before what came in time,
	// until it counts: the machine that runs the tests may have been away.
	tries = 4
	// hostileMemory bounds what is allocated during an attempt, by the receiver
	// as well.
	hostileMemory = 16 << 20
)

// arena is a hostile receiver that can become a good one.
type arena struct {
	addr string

	mu   sync.Mutex // guards the rest
	good bool
	open []net.Conn
}

// newArena starts a receiver. Each connection goes through wrap first, if that is
// not nil, and is served by good once the receiver has turned.
func newArena(t testing.TB, serve func(net.Conn, int), wrap func(net.Conn) net.Conn, good func(net.Conn)) *arena {
	a := &arena{}
	a.addr = rawServer(t, func(c net.Conn, number int) {
		turned := a.keep(c)
		if wrap != nil {
			c = wrap(c)
		}
		if turned {
			good(c)
			return
		}
		serve(c, number)
	})
	return a
}

// keep notes a connection and reports whether the receiver is good.
func (a *arena) keep(c net.Conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.good {
		return true
	}
	a.open = append(a.open, c)
	return false
}

// turn makes the receiver good and ends what it has open.
func (a *arena) turn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.good = true
	for _, c := range a.open {
		_ = c.Close() // it may be closed
	}
}

// answersWell takes every request.
func answersWell(c net.Conn) {
	br := bufio.NewReader(c)
	for {
		if _, _, err := readRequest(br); err != nil {
			return
		}
		if _, err := io.WriteString(c, ok200+"Content-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}

// mode is a way on which requests reach a hostile receiver.
type mode struct {
	name string
	url  func(addr string) string
	wrap func(net.Conn) net.Conn
	good func(net.Conn)
	set  func(t *testing.T, o *Options, addr string)
	// exact says that code and words of the outcome are those of the table; else
	// the network between may change them.
	exact bool
	// refused says that no attempt succeeds: it is the proxy that is hostile.
	refused bool
	// forwards says that requests are sent to a proxy, in absolute form.
	forwards bool
	// alone says that one attempt is made at a time, so that memory can be measured.
	alone bool
}

// hostileRounds is how often each case is played, for longer runs.
func hostileRounds(t testing.TB) int {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv("HTTPSINK_HOSTILE_ROUNDS")); err == nil {
		return n
	}
	return 1
}

// play runs the cases in a mode, and then looks for what was left behind.
func (m *mode) play(t *testing.T, cases []hostile) (played int) {
	t.Helper()
	for range hostileRounds(t) {
		t.Run(m.name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			descriptors := openDescriptors(t)
			t.Run("all", func(t *testing.T) {
				for _, h := range cases {
					if !m.applies(&h) {
						continue
					}
					played++
					t.Run(h.name, func(t *testing.T) {
						if !m.alone {
							t.Parallel()
						}
						m.meet(t, &h)
					})
				}
			})
			for end := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
				// The receivers end a little later than the attempts.
				leaked, open := goleak.Find(leaks), openDescriptors(t)
				if leaked == nil && open <= descriptors {
					return
				}
				if time.Now().After(end) {
					t.Errorf("%d descriptors are open, before there were %d; %v", open, descriptors, leaked)
					return
				}
			}
		})
	}
	return played
}

// applies leaves out what a network between takes away.
func (m *mode) applies(h *hostile) bool { return m.exact || h.listen == nil }

// timed reports whether an attempt may have nothing but its timeout to end it.
func (m *mode) timed(h *hostile) bool { return h.waits || h.code == delivery.CodeTimeout || m.refused }

func openDescriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// meet makes an attempt at a hostile receiver, and one more when it has turned
// good: nothing of the first may stand in its way. An attempt that ends late, or too
// early for what the receiver said in time, is made again with more time.
func (m *mode) meet(t *testing.T, h *hostile) {
	t.Helper()
	timeout := hostileTimeout
	for try := 1; ; try++ {
		a := &arena{}
		if h.listen != nil {
			a.addr = h.listen(t)
		} else {
			a = newArena(t, h.serve, m.wrap, m.good)
		}
		sink := func(timeout time.Duration) *Sink {
			return newSink(t, m.url(a.addr), func(o *Options) {
				o.Timeout = timeout
				if m.set != nil {
					m.set(t, o, a.addr)
				}
			})
		}
		const ample = 30 * time.Second
		s := sink(ample)
		if m.timed(h) {
			s = sink(timeout)
		}
		wrong, again := m.attempt(t, s, h)
		if wrong != "" && again && try < tries {
			timeout *= 4
			t.Log(wrong + "; once more")
			continue
		}
		if wrong != "" {
			t.Error(wrong)
		}
		if h.listen == nil {
			a.turn()
			if m.timed(h) {
				s = sink(ample) // a handshake with a good one may take longer, too
			}
			if next := deliver(t, s, outbound()); next.Outcome != delivery.Delivered {
				t.Errorf("the next delivery to the receiver, which is good now: %v %q %q", next.Outcome, next.Code, next.Error)
			}
		}
		s.Close()
		return
	}
}

// attempt makes one attempt and checks the bounds that hold for all. It returns what
// is wrong, and whether time may be the reason.
func (m *mode) attempt(t *testing.T, s *Sink, h *hostile) (wrong string, again bool) {
	t.Helper()
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
	if used := after.TotalAlloc - before.TotalAlloc; m.alone && used > hostileMemory {
		t.Errorf("allocated %d MiB", used>>20)
	}
	if len(a.Body) > keepFailure {
		t.Errorf("kept %d bytes", len(a.Body))
	}
	if strings.Contains(a.Error, "/hook") || strings.ContainsFunc(a.Error, func(r rune) bool { return r < ' ' }) {
		t.Errorf("the error shows the path, or is not one clean line: %q", a.Error)
	}
	if late := took - s.timeout - overtime; late > 0 {
		return fmt.Sprintf("the attempt ended %v after its time", late), true
	}
	if wrong := m.judge(h, &a); wrong != "" {
		return wrong, a.Code == delivery.CodeTimeout || m.timed(h)
	}
	if h.check != nil && m.exact {
		h.check(t, &a)
	}
	return "", false
}

// judge compares an outcome with what the table says; "" is that it fits.
func (m *mode) judge(h *hostile, a *delivery.Attempt) string {
	fits := a.Outcome == h.outcome && strings.Contains(a.Error, h.says) && (a.Code == h.code || h.or != "" && a.Code == h.or)
	switch {
	case m.refused:
		fits = a.Outcome == delivery.Retry && a.Code != "" && a.Error != ""
	case m.forwards && h.proxys:
		fits = a.Outcome == delivery.Retry && a.Code == delivery.CodeProxy
	case !m.exact:
		// Resets and closed connections are told by whoever noticed them first.
		same := a.Code == h.code || a.Code == h.or || h.outcome == delivery.Retry && h.code != delivery.CodeStatus && h.code != delivery.CodeTimeout
		fits = a.Outcome == h.outcome && same
	}
	if fits {
		return ""
	}
	return fmt.Sprintf("%v, code %q, error %q; want %v, code %q, error with %q", a.Outcome, a.Code, a.Error, h.outcome, h.code, h.says)
}

// hostileModes are all ways to a receiver that answers wrongly, without TLS faults.
func hostileModes(t *testing.T) []mode {
	ca := newAuthority(t)
	client, key := ca.client(t)
	server := clientAuth(t, ca, tls.VersionTLS13)
	partner := serverConfig(ca.issue(t, nil))
	proxied := func(_ *testing.T, o *Options, addr string) {
		o.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: addr})
	}
	partnerURL := func(scheme string) func(string) string {
		return func(string) string { return scheme + "://partner.example/hook" }
	}
	return []mode{
		{name: "direct", url: func(addr string) string { return "http://" + addr + "/hook" }, good: answersWell, exact: true, alone: true},
		{name: "behind TLS with a client certificate", url: func(addr string) string { return "https://" + addr + "/hook" },
			wrap: func(c net.Conn) net.Conn { return tls.Server(c, server) }, good: answersWell,
			set: func(_ *testing.T, o *Options, _ string) {
				o.TLS = TLS{CAPEM: ca.pem(), CertPEM: client, KeyPEM: key}
			}},
		{name: "through a proxy", url: partnerURL("http"), good: answersWell, set: proxied, forwards: true},
		{name: "through SOCKS5", url: partnerURL("http"), good: answersWell,
			set: func(t *testing.T, o *Options, addr string) { throughSOCKS(newSOCKS(t, addr).addr)(o) }},
		{name: "a proxy that is asked for a tunnel", url: partnerURL("https"), refused: true,
			good: func(c net.Conn) {
				if _, _, err := readRequest(c); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
					answersWell(tls.Server(c, partner))
				}
			},
			set: func(t *testing.T, o *Options, addr string) { o.TLS.CAPEM = ca.pem(); proxied(t, o, addr) }},
	}
}

func TestHostileReceivers(t *testing.T) {
	cases := hostileReceivers()
	cases = append(cases, moreHostileReceivers()...)
	played := 0
	for _, m := range hostileModes(t) {
		played += m.play(t, cases)
	}
	t.Attr("cases", strconv.Itoa(played))
}
