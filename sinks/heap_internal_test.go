package sinks

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

func TestBetweenTwoCollectionsThereIsRoom(t *testing.T) {
	room := leaveRoom(func(string) string { return "" })
	if len(room) != heapRoom {
		t.Fatalf("%d bytes", len(room))
	}
	runtime.GC()
	samples := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/gc/gogc:percent"}}
	metrics.Read(samples)
	runtime.KeepAlive(room)
	if samples[2].Value.Uint64() != 100 {
		t.Skip("GOGC is set for this run")
	}
	if goal, live := samples[0].Value.Uint64(), samples[1].Value.Uint64(); goal < live+heapRoom {
		t.Errorf("the next collection is at %d bytes with %d in use", goal, live)
	}
}

func TestWhoeverSetsTheCollectorDecides(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if room := leaveRoom(func(asked string) string {
			if asked == name {
				return "50"
			}
			return ""
		}); room != nil {
			t.Errorf("%s is set, and %d bytes are kept", name, len(room))
		}
	}
}
