package httpsink

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// wire serves one request and hands over its head and body, byte for byte.
func wire(t *testing.T) (url string, got func() (head []string, body string)) {
	type message struct {
		head []string
		body string
	}
	messages := make(chan message, 10)
	addr := rawServer(t, func(c net.Conn, _ int) {
		br := bufio.NewReader(c)
		for {
			var m message
			length := 0
			for {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\r\n" {
					break
				}
				m.head = append(m.head, strings.TrimSuffix(line, "\r\n"))
				_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
			}
			body := make([]byte, length)
			if _, err := io.ReadFull(br, body); err != nil {
				return
			}
			m.body = string(body)
			messages <- m
			_, _ = io.WriteString(c, ok200+"Content-Length: 2\r\n\r\nok")
		}
	})
	return "http://" + addr, func() ([]string, string) { m := <-messages; return m.head, m.body }
}

func TestARequestIsWhatTheDocumentsSay(t *testing.T) {
	url, got := wire(t)
	s := newSink(t, url+"/hook?token=abcdef", func(o *Options) {
		o.Signer = testSigner(t, signing.Spec{Scheme: signing.Peanuts}, signing.Spec{Scheme: signing.Standard})
		o.Headers = []Header{{"X-env", secret.New("prod")}, {"Authorization", secret.New("Bearer t0ken-t0ken")}}
	})
	for _, test := range []bool{false, true, false} {
		o := outbound()
		o.Test, o.Replayed, o.Attempt = test, !test, 3
		a := deliver(t, s, o)
		head, body := got()
		if body != testPayload {
			t.Errorf("body %q", body)
		}
		if head[0] != "POST /hook?token=abcdef HTTP/1.1" {
			t.Errorf("request line %q", head[0])
		}
		shown := RequestHeaders(o, a.Signatures, []delivery.Header{{Name: "X-env", Value: "prod"}, {Name: "Authorization", Value: "Bearer t0ken-t0ken"}})
		want := []string{"Host: " + strings.TrimPrefix(url, "http://"), fmt.Sprintf("Content-Length: %d", len(testPayload))}
		var names []string
		for _, h := range shown {
			want = append(want, h.Name+": "+h.Value)
			names = append(names, h.Name)
		}
		slices.Sort(want)
		sent := slices.Sorted(slices.Values(head[1:]))
		if !slices.Equal(sent, want) {
			t.Errorf("sent\n %s\nwant\n %s", strings.Join(sent, "\n "), strings.Join(want, "\n "))
		}
		order := []string{"Content-Type", "User-Agent", "X-Peanuts-Signature", "webhook-id", "webhook-timestamp", "webhook-signature",
			"X-Peanuts-Event", "X-Peanuts-Event-Id", "X-Peanuts-Delivery", "X-Peanuts-Attempt"}
		if test {
			order = append(order, "X-Peanuts-Test")
		} else {
			order = append(order, "X-Peanuts-Replay")
		}
		if order = append(order, "X-env", "Authorization"); !slices.Equal(names, order) {
			t.Errorf("shown in the order %v, want %v", names, order)
		}
	}
}

func TestOwnHeadersMayReplaceContentTypeAndUserAgent(t *testing.T) {
	url, got := wire(t)
	own := []delivery.Header{{Name: "content-type", Value: "application/cloudevents+json"}, {Name: "user-agent", Value: "mine/1"}, {Name: "Idempotency-Key", Value: "k"}}
	s := newSink(t, strings.Replace(url, "http://", "http://user:pa%20ss@", 1), func(o *Options) {
		for _, h := range own {
			o.Headers = append(o.Headers, Header{h.Name, secret.New(h.Value)})
		}
	})
	o := outbound()
	a := deliver(t, s, o)
	head, _ := got()
	for _, want := range []string{"Content-Type: application/cloudevents+json", "User-Agent: mine/1", "Idempotency-Key: k", "Authorization: Basic dXNlcjpwYSBzcw=="} {
		if !slices.Contains(head, want) {
			t.Errorf("%q is not in %q", want, head)
		}
	}
	shown := RequestHeaders(o, a.Signatures, own)
	if shown[0].Value != own[0].Value || shown[1].Value != own[1].Value || len(shown) != 8 {
		t.Errorf("shown as %v", shown)
	}
}

// A second packet would cost the receiver a second read, and us a second write.
func TestAnOrdinaryRequestIsOneWrite(t *testing.T) {
	sizes := make(chan int, 1)
	addr := rawServer(t, func(c net.Conn, _ int) {
		buf := make([]byte, 64<<10)
		n, _ := c.Read(buf)
		sizes <- n
		_, _ = io.WriteString(c, ok200+"Content-Length: 0\r\n\r\n")
		untilClosed(c)
	})
	s := newSink(t, "http://"+addr, nil)
	writes := make(chan int, 10)
	dial := s.dial
	s.dial = func(ctx context.Context, address string) (net.Conn, error) {
		c, err := dial(ctx, address)
		return countingConn{c, writes}, err
	}
	if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered {
		t.Fatal(a.Error)
	}
	if n := len(writes); n != 1 || <-writes != <-sizes {
		t.Errorf("%d writes", n)
	}
}

type countingConn struct {
	net.Conn
	writes chan int
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes <- len(p)
	return c.Conn.Write(p)
}

func TestAnEmptyPayloadIsSent(t *testing.T) {
	url, got := wire(t)
	o := outbound()
	o.Payload = nil
	if a := deliver(t, newSink(t, url, nil), o); a.Outcome != delivery.Delivered {
		t.Errorf("%v: %s", a.Outcome, a.Error)
	}
	if head, _ := got(); !slices.Contains(head, "Content-Length: 0") {
		t.Errorf("%q", head)
	}
}

func TestPhasesAreTold(t *testing.T) {
	ca := newAuthority(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	srv.TLS = serverConfig(ca.issue(t, nil))
	srv.StartTLS()
	defer srv.Close()
	s := newSink(t, srv.URL, func(o *Options) { o.TLS.CAPEM = ca.pem() })
	first := deliver(t, s, outbound())
	p := first.Phases
	if first.Reused || p.DNS != 0 || p.Connect <= 0 || p.TLS <= 0 || p.FirstByte <= 0 || first.Duration < p.Connect+p.TLS {
		t.Errorf("first: %+v in %v, reused %v", p, first.Duration, first.Reused)
	}
	if first.Remote != srv.Listener.Addr().String() || first.Started.IsZero() || first.Started.Location() != time.UTC || first.Number != 1 {
		t.Errorf("remote %s, started %v, number %d", first.Remote, first.Started, first.Number)
	}
	second := deliver(t, s, outbound())
	p = second.Phases
	if !second.Reused || p.DNS != 0 || p.Connect != 0 || p.TLS != 0 || p.FirstByte <= 0 || second.Remote != first.Remote {
		t.Errorf("second: %+v, reused %v, remote %s", p, second.Reused, second.Remote)
	}
}

func TestANameIsResolvedAndTold(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	a := deliver(t, newSink(t, "http://localhost:"+port, nil), outbound())
	if a.Outcome != delivery.Delivered || a.Phases.DNS <= 0 {
		t.Errorf("%v %q, DNS %v", a.Outcome, a.Error, a.Phases.DNS)
	}
}

// A receiver that closes idle connections: what the sender writes into one is
// lost, and goes out again over a new connection as part of the same attempt.
func TestAStaleConnectionIsReplacedWithoutAnAttempt(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"closed": func(c net.Conn) { c.Close() },
		"reset":  reset,
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int64
			addr := rawServer(t, func(c net.Conn, number int) {
				br := bufio.NewReader(c)
				if _, _, err := readRequest(br); err != nil {
					return
				}
				requests.Add(1)
				_, _ = io.WriteString(c, ok200+"Content-Length: 0\r\n\r\n")
				if number == 0 {
					// The next request is on its way when the end comes: the
					// moment that no sender can avoid.
					_, _ = br.Peek(1)
					end(c)
					return
				}
				untilClosed(c)
			})
			s := newSink(t, "http://"+addr, nil)
			for i, reused := range []bool{false, false} {
				a := deliver(t, s, outbound())
				if a.Outcome != delivery.Delivered || a.Reused != reused {
					t.Fatalf("delivery %d: %v %q, reused %v", i, a.Outcome, a.Error, a.Reused)
				}
			}
			if n := requests.Load(); n != 2 {
				t.Errorf("%d requests served, want 2", n)
			}
		})
	}
}

func TestAFreshConnectionThatIsClosedIsAnAttempt(t *testing.T) {
	var connections atomic.Int64
	addr := rawServer(t, func(c net.Conn, _ int) {
		connections.Add(1)
		_, _, _ = readRequest(c)
	})
	a := deliver(t, newSink(t, "http://"+addr, nil), outbound())
	if a.Outcome != delivery.Retry || a.Code != delivery.CodeConnection || connections.Load() != 1 {
		t.Errorf("%v %q over %d connections", a.Outcome, a.Code, connections.Load())
	}
}

func TestConnectionsAreKeptForTheConcurrency(t *testing.T) {
	const n = 8
	var connections atomic.Int64
	var arrived sync.WaitGroup
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		arrived.Wait() // all n are in flight at once
	}))
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	s := newSink(t, srv.URL, func(o *Options) { o.Concurrency = n })
	for range 5 {
		arrived.Add(n)
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { deliver(t, s, outbound()) })
		}
		wg.Wait()
	}
	if got := connections.Load(); got != n {
		t.Errorf("%d connections for 5 rounds of %d", got, n)
	}
}

func TestShutdownInterrupts(t *testing.T) {
	arrived := make(chan struct{})
	addr := rawServer(t, func(c net.Conn, _ int) {
		_, _, _ = readRequest(c)
		close(arrived)
		untilClosed(c)
	})
	s := newSink(t, "http://"+addr, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-arrived
		cancel(delivery.ErrShutdown)
	}()
	var a delivery.Attempt
	s.Deliver(ctx, outbound(), &a)
	if a.Outcome != delivery.Interrupted || a.Code != delivery.CodeInterrupted || !strings.Contains(a.Error, "the daemon is stopping") {
		t.Errorf("%v %q %q", a.Outcome, a.Code, a.Error)
	}
	s.Deliver(ctx, outbound(), &a)
	if a.Outcome != delivery.Interrupted {
		t.Errorf("after the shutdown: %v", a.Outcome)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	a := deliver(t, newSink(t, "http://"+l.Addr().String()+"/hook", nil), outbound())
	if a.Outcome != delivery.Retry || a.Code != delivery.CodeConnect || a.Error != "connection refused by "+l.Addr().String() || a.Remote != l.Addr().String() {
		t.Errorf("%v %q %q %q", a.Outcome, a.Code, a.Error, a.Remote)
	}
}

// Many deliveries at once, to a receiver that answers now and then before it
// has read the request: pooled requests must not mix.
func TestConcurrentDeliveriesDoNotMix(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Early") != "" || r.Header.Get(headerAttempt) == "3" {
			w.WriteHeader(http.StatusAccepted) // before the body is read
			_ = http.NewResponseController(w).Flush()
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if id := r.Header.Get(headerDelivery); !strings.HasPrefix(string(body), id+" ") || r.Header.Get(headerEventID) != "evt_"+id {
			t.Errorf("delivery %s has the body %.20q", id, body)
		}
	}))
	defer srv.Close()
	s := newSink(t, srv.URL, func(o *Options) { o.Concurrency = 16 })
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 30 {
				id := fmt.Sprintf("del_%d_%d", g, i)
				o := &delivery.Outbound{DeliveryID: id, EventID: "evt_" + id, EventType: "entry.created", Attempt: 1 + i%4, Test: i%5 == 0,
					Payload: []byte(id + " " + strings.Repeat("x", (i%4)*40_000))}
				if a := deliver(t, s, o); a.Outcome != delivery.Delivered {
					t.Errorf("%s: %v %s", id, a.Outcome, a.Error)
				}
			}
		})
	}
	wg.Wait()
}

func TestAPanicIsAnOutcome(t *testing.T) {
	s := newSink(t, "http://127.0.0.1:1/secret-path", nil)
	s.exchanges.New = func() any { panic("at /secret-path\n") }
	a := deliver(t, s, outbound())
	if a.Outcome != delivery.Retry || a.Code != delivery.CodePanic || strings.Contains(a.Error, "secret-path") {
		t.Errorf("%v %q %q", a.Outcome, a.Code, a.Error)
	}
}
