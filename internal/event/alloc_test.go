//go:build !race

package event

import (
	"testing"
	"time"
)

// TestAnOrdinaryEventCostsThreeAllocations: the Input with its data, its
// strings, the payload. The race detector moves more to the heap.
func TestAnOrdinaryEventCostsThreeAllocations(t *testing.T) {
	body, now, h := []byte(benchEvent), time.Now(), benchHelper()
	for _, format := range []Format{FormatPeanuts, FormatEvent} {
		allocs := testing.AllocsPerRun(100, func() {
			in, err := Parse(body, now)
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Check(h); err != nil {
				t.Fatal(err)
			}
			Encode(nil, in, h, format, "")
		})
		if allocs > 3 {
			t.Errorf("format %d: %v allocations", format, allocs)
		}
	}
}
