package queue

import (
	"testing"

	"github.com/dgraph-io/ristretto/v2/z"
)

func TestTheMemoryForBuildingTablesIsGivenBack(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	if h.Store.c.builders.pool == nil {
		t.Fatal("Badger's pool was not found")
	}
	before := h.db.Levels()[0].NumTables
	waitUntil(t, "a table of level zero", func() bool {
		h.acceptMany(10, lane)
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
