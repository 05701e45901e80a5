package queue

import (
	"reflect"
	"unsafe"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/ristretto/v2/z"
)

const (
	// builderMemory is what a table of a level needs while it is built: Badger takes
	// twice its size.
	builderMemory = 2 * tableSize
	// buildersKept is how many are left to Badger, so that each table need not begin
	// with fresh memory.
	buildersKept = 2
	// trimEvery is how much is committed between two looks: an eighth of a memtable,
	// so that several follow a table of level zero.
	trimEvery = memTableSize / 8
)

// builders keeps Badger's memory for building tables small. Badger pools eight
// pieces of it and never makes one smaller. Whichever a table of level zero was
// built in has grown to 24 MB, and after some time all have: 190 MB that are
// never in use at the same time. Badger has no option for that, so its pool is
// reached by reflection. With a Badger that has another one nothing is given
// back, and TestTheMemoryForBuildingTablesIsGivenBack fails.
type builders struct {
	pool    *z.AllocatorPool
	written int
}

// poolOf finds the pool, nil when there is none. It is set in badger.Open and
// never changed, and is safe for concurrent use itself.
func poolOf(db *badger.DB) *z.AllocatorPool {
	f := reflect.ValueOf(db).Elem().FieldByName("allocPool")
	if !f.IsValid() || f.Type() != reflect.TypeFor[*z.AllocatorPool]() {
		return nil
	}
	return *(**z.AllocatorPool)(unsafe.Pointer(f.UnsafeAddr()))
}

// committed counts what a group wrote.
func (b *builders) committed(bytes int) {
	if b.written += bytes; b.written < trimEvery {
		return
	}
	b.written = 0
	b.trim()
}

// trim gives back what the pool has beyond buildersKept of builderMemory. What
// is in use is not in the pool.
func (b *builders) trim() {
	var keep [buildersKept]*z.Allocator
	for n := 0; ; n++ {
		const none = 1 << 10 // what the pool makes when it has none
		a := b.pool.Get(none, "")
		if a.Allocated() <= none {
			a.Release()
			break
		}
		if n >= buildersKept {
			a.Release()
			continue
		}
		a.TrimTo(builderMemory + 1)
		keep[n] = a // #nosec G602 -- n is below the length
	}
	for _, a := range keep {
		b.pool.Return(a)
	}
}
