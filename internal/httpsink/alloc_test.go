//go:build !race

package httpsink

import (
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// plainReceiver answers whatever arrives in one piece and allocates nothing.
func plainReceiver(t testing.TB) string {
	return rawServer(t, func(c net.Conn, _ int) {
		answer := []byte(ok200 + "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok")
		for buf := make([]byte, 8<<10); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
}

// Under the race detector a sync.Pool drops entries at random.
func TestADeliveryAllocatesLittle(t *testing.T) {
	const most = 14
	s := newSink(t, "http://"+plainReceiver(t)+"/hook", nil)
	o := outbound()
	got := testing.AllocsPerRun(1000, func() {
		var a delivery.Attempt
		s.Deliver(t.Context(), o, &a)
		if a.Outcome != delivery.Delivered {
			t.Fatal(a.Error)
		}
	})
	if got > most {
		t.Errorf("%v allocations, want at most %d", got, most)
	}
}

func BenchmarkDeliverToAPlainReceiver(b *testing.B) {
	s := newSink(b, "http://"+plainReceiver(b)+"/hook", nil)
	o := outbound()
	b.ReportAllocs()
	for b.Loop() {
		var a delivery.Attempt
		s.Deliver(b.Context(), o, &a)
	}
}

// refusing is an address on which nothing listens, and that nobody else gets.
func refusing(t testing.TB) string {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
}

// resetting resets each connection after the first bytes.
func resetting(t testing.TB) string {
	return rawServer(t, func(c net.Conn, _ int) {
		var buf [4 << 10]byte
		_, _ = c.Read(buf[:])
		_ = c.(*net.TCPConn).SetLinger(0)
	})
}

// A webhook that fails hundreds of times a second must cost its neighbours little.
func TestADeliveryThatFailsAllocatesLittle(t *testing.T) {
	for _, x := range []struct {
		name, address string
		code          delivery.Code
		most          float64
	}{
		{"refused", refusing(t), delivery.CodeConnect, 50},
		{"reset, the receiver of the test included", resetting(t), delivery.CodeConnection, 80},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := newSink(t, "http://"+x.address+"/hook", nil)
			o := outbound()
			got := testing.AllocsPerRun(500, func() {
				var a delivery.Attempt
				s.Deliver(t.Context(), o, &a)
				if a.Code != x.code {
					t.Fatal(a.Code, a.Error)
				}
			})
			if got > x.most {
				t.Errorf("%v allocations, want at most %v", got, x.most)
			}
		})
	}
}
