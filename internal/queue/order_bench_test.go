package queue

import (
	"context"
	"fmt"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// BenchmarkCall measures the end of a head that has so many followers, half of
// which have come and gone: the cost of finding the next must not grow with
// them. Run it with -benchtime 1000x.
func BenchmarkCall(b *testing.B) {
	for _, n := range []int{4000, 100000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkCall(b, n) })
	}
}

func benchmarkCall(b *testing.B, n int) {
	s, err := Open(b.Context(), Options{Dir: b.TempDir() + "/q", stat: roomy})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	lanes, err := s.SetLanes(b.Context(), wants("x.a"))
	if err != nil {
		b.Fatal(err)
	}
	lane := lanes["x.a"].Lane
	for left := n; left > 0; left -= 100 {
		evs := make([]*Event, 100)
		for i := range evs {
			evs[i] = testEvent(1, lane)
		}
		if err := s.Accept(b.Context(), evs); err != nil {
			b.Fatal(err)
		}
	}
	all, _, err := s.ReadReady(lane, 0, n, 1<<30)
	if err != nil {
		b.Fatal(err)
	}
	s.Complete(Completion{Delivery: all[0], Attempt: attemptOf(all[0], delivery.Pending, 0), Ordered: true})
	ps := make([]Parking, 0, n)
	for _, d := range all[1:] {
		ps = append(ps, Parking{Delivery: d, Behind: all[0].Seq})
	}
	for len(ps) > 0 {
		_, done, err := s.Park(b.Context(), ps)
		if err != nil {
			b.Fatal(err)
		}
		ps = ps[done:]
	}
	var last Delivery
	end := func() {
		ds, _, err := s.ReadWaiting(lane, last.Due, last.Seq, s.Now()+1, 1, 1)
		if err != nil || len(ds) == 0 {
			b.Fatal("no head is due", err)
		}
		last = ds[0]
		s.Complete(Completion{Delivery: last, Attempt: attemptOf(last, delivery.Success, 0)})
		if err := s.do(b.Context(), func(*group) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	for range n / 2 {
		end()
	}
	b.ResetTimer()
	for range b.N {
		end()
	}
}
