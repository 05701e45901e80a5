package egress_test

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nameServer answers every A query with what answer says of it, and every other
// query with nothing.
func nameServer(answer func(query int) netip.Addr) *net.Resolver {
	queries := 0
	return testhost.Resolver(func(_ string, six bool) netip.Addr {
		if six {
			return netip.Addr{}
		}
		queries++
		return answer(queries - 1)
	})
}

// A name that is public when it is looked at and private when it is used: the
// address is judged when it is dialled, so only the second look counts. Nothing
// outside of this machine is dialled: what is allowed is cut off afterwards.
func TestADNSAnswerThatChangesChangesNothing(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepted atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			c.Close()
		}
	})
	defer wg.Wait()
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())

	const host = "rebind.example.com"
	for _, answers := range [][]string{{"93.184.216.34", "127.0.0.1"}, {"8.8.8.8", "127.0.0.1", "8.8.8.8", "127.0.0.1"}} {
		resolver := nameServer(func(q int) netip.Addr { return netip.MustParseAddr(answers[q%len(answers)]) })
		control := policy(t).Control(host)
		notDialled := errors.New("allowed, but not dialled by a test")
		dialer := net.Dialer{Resolver: resolver, Timeout: time.Minute, Control: func(network, address string, c syscall.RawConn) error {
			if err := control(network, address, c); err != nil {
				return err
			}
			return notDialled
		}}
		for i, answer := range answers {
			_, err := dialer.DialContext(t.Context(), "tcp4", net.JoinHostPort(host, port))
			if netip.MustParseAddr(answer).IsLoopback() {
				if _, ok := errors.AsType[*egress.ForbiddenError](err); !ok {
					t.Errorf("look-up %d gave %s: %v", i, answer, err)
				}
			} else if !errors.Is(err, notDialled) {
				t.Errorf("look-up %d gave %s: %v", i, answer, err)
			}
		}
	}
	if n := accepted.Load(); n != 0 {
		t.Errorf("%d connections to a forbidden address", n)
	}

	// The control of this test: with the name listed the same dial connects.
	resolver := nameServer(func(int) netip.Addr { return netip.MustParseAddr("127.0.0.1") })
	dialer := net.Dialer{Resolver: resolver, Timeout: time.Minute, Control: policy(t, host).Control(host)}
	c, err := dialer.DialContext(t.Context(), "tcp4", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatalf("a listed name: %v", err)
	}
	c.Close()
}
