//go:build !race

package httpsink

import (
	"net"
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
