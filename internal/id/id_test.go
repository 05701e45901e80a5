package id_test

import (
	"math"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/id"
	"pgregory.net/rapid"
)

func TestIDsReadBackAndSortByAcceptance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := rapid.Uint64Range(0, 1<<id.StoreBits-1).Draw(t, "store")
		lane := rapid.Uint32().Draw(t, "lane")
		seq := rapid.Uint64Range(0, math.MaxUint64-1).Draw(t, "seq")

		e := id.Event(store, seq)
		if s, q, ok := id.ParseEvent(e); !ok || s != store || q != seq || len(e) != id.EventLen {
			t.Fatalf("ParseEvent(%q) = %d, %d, %v", e, s, q, ok)
		}
		d := id.Delivery(store, lane, seq)
		if s, l, q, ok := id.ParseDelivery(d); !ok || s != store || l != lane || q != seq || len(d) != id.DeliveryLen {
			t.Fatalf("ParseDelivery(%q) = %d, %d, %d, %v", d, s, l, q, ok)
		}
		if next := id.Event(store, seq+1); e >= next {
			t.Fatalf("%q does not sort before %q", e, next)
		}
	})
}

func TestForeignTextIsNoID(t *testing.T) {
	for _, s := range []string{"", "evt_", "evt_my-own-id", "del_", "evt_0000000000000000000u0", "evt_00000000zzzzzzzzzzzzz"} {
		if _, _, ok := id.ParseEvent(s); ok {
			t.Errorf("ParseEvent(%q) succeeds", s)
		}
		if _, _, _, ok := id.ParseDelivery(s); ok {
			t.Errorf("ParseDelivery(%q) succeeds", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("evt_0000000a0000000000001")
	f.Add("del_0000000a00000010000000000001")
	f.Fuzz(func(t *testing.T, s string) {
		if store, seq, ok := id.ParseEvent(s); ok && id.Event(store, seq) != s {
			t.Errorf("%q reads as another id", s)
		}
		if store, lane, seq, ok := id.ParseDelivery(s); ok && id.Delivery(store, lane, seq) != s {
			t.Errorf("%q reads as another id", s)
		}
	})
}
