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
	smallHeap = 104 << 20
	heapRoom  = 20 << 20
	// Bounds of the share that the room is.
	leastGCPercent = 12
	mostGCPercent  = 100
	liveHeap       = "/gc/heap/live:bytes"
)

// heapWatch keeps the room for garbage as smallHeap and heapRoom say. GOGC of the
// environment overrides it. It is for one goroutine.
type heapWatch struct {
	fixed   bool
	percent int
	sample  []metrics.Sample
}

func newHeapWatch() *heapWatch {
	return &heapWatch{fixed: os.Getenv("GOGC") != "", sample: []metrics.Sample{{Name: liveHeap}}}
}

// look sets the share by what was in use at the last collection. A change stops
// the world for some microseconds, so that a small one is not made.
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
}

func gcPercent(live uint64) int {
	live = max(live, 1)
	room := uint64(heapRoom)
	if live < smallHeap-heapRoom {
		room = smallHeap - live
	}
	return int(min(max(100*room/live, leastGCPercent), mostGCPercent))
}
