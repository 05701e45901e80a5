package queue

import (
	"strings"
	"testing"

	"github.com/dgraph-io/ristretto/v2/z"
)

func TestTheMemoryForBuildingTablesIsGivenBack(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	if h.Store.c.builders.pool == nil {
		t.Fatal("Badger's pool was not found")
	}
	ev := testEvent(1, lane)
	ev.Payloads[FormatPeanuts] = []byte(strings.Repeat("x", 1500)) // below the value threshold
	before := h.db.Levels()[0].NumTables
	waitUntil(t, "a table of level zero", func() bool {
		for range 10 {
			evs := make([]*Event, 200)
			for i := range evs {
				evs[i] = new(*ev)
			}
			h.accept(evs...)
		}
		return h.db.Levels()[0].NumTables > before
	})
	var sum uint64
	h.do(t.Context(), func(*group) error {
		b := &h.Store.c.builders
		b.trim()
		var all []*z.Allocator
		for a := b.pool.Get(1, ""); a.Allocated() > 1<<10; a = b.pool.Get(1, "") {
			sum += a.Allocated()
			all = append(all, a)
		}
		for _, a := range all {
			b.pool.Return(a)
		}
		return nil
	})
	if sum == 0 || sum > buildersKept*builderMemory {
		t.Errorf("the pool holds %d bytes", sum)
	}
}
