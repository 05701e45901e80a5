package relay

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// smallHeap is what a heap without a backlog may become before it is collected,
	// and heapRoom the least that may be allocated between two collections. A share
	// of the heap, as GOGC has it, would be too little room in a flood and too much
	// with a backlog: most of the heap is the database's memtables and builders
	// then, which need no scanning.
	smallHeap = 88 << 20
	heapRoom  = 12 << 20
	// Bounds of the share that the room is.
	leastGCPercent = 8
	mostGCPercent  = 100
	// mostSpare is how much memory that was freed a process larger than smallHeap
	// keeps from the system. The database frees 8 to 24 MiB at a time, for memtables
	// and tables that are built, which the runtime returns more slowly than more is
	// asked for: 80 MiB of a backlog's 180 were that. A smaller process is left alone,
	// since memory that is returned has to be asked for again.
	mostSpare = 16 << 20

	liveHeap     = "/gc/heap/live:bytes"
	freeHeap     = "/memory/classes/heap/free:bytes"
	releasedHeap = "/memory/classes/heap/released:bytes"
	allMemory    = "/memory/classes/total:bytes"
)

// heapWatch keeps the room for garbage as smallHeap and heapRoom say. GOGC of the
// environment overrides it. It is for one goroutine.
type heapWatch struct {
	fixed   bool
	percent int
	sample  []metrics.Sample
}

func newHeapWatch() *heapWatch {
	return &heapWatch{fixed: os.Getenv("GOGC") != "", sample: []metrics.Sample{{Name: liveHeap}, {Name: freeHeap}, {Name: releasedHeap}, {Name: allMemory}}}
}

// look sets the share by what was in use at the last collection, and returns
// memory to the system when it is worth it. A change stops the world for some
// microseconds, so that a small one is not made.
func (h *heapWatch) look() {
	if h.fixed {
		return
	}
	metrics.Read(h.sample)
	percent := gcPercent(h.sample[0].Value.Uint64())
	if percent >= h.percent*5/4 || percent <= h.percent*4/5 {
		h.percent = percent
		debug.SetGCPercent(percent)
	}
	if tooMuchSpare(h.sample[1].Value.Uint64(), h.sample[3].Value.Uint64()-h.sample[2].Value.Uint64()) {
		debug.FreeOSMemory()
	}
}

// tooMuchSpare reports that free bytes, of all that the process has, should be
// returned to the system.
func tooMuchSpare(free, all uint64) bool { return free > mostSpare && all > smallHeap }

func gcPercent(live uint64) int {
	live = max(live, 1)
	room := uint64(heapRoom)
	if live < smallHeap-heapRoom {
		room = smallHeap - live
	}
	return int(min(max(100*room/live, leastGCPercent), mostGCPercent))
}
