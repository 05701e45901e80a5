package main

import (
	"testing"
	"time"
)

func TestTheReceiverFindsWhatTheLoadSent(t *testing.T) {
	at := time.UnixMicro(1763683200123456)
	ev := appendEvent(nil, "bench", 0xdeadbeef, 4711, at)
	run, seq, sent, ok := findEvent(ev)
	if !ok || run != 0xdeadbeef || seq != 4711 || sent != at.UnixMicro() {
		t.Errorf("findEvent = %x, %d, %d, %v", run, seq, sent, ok)
	}
	if _, _, _, ok := findEvent([]byte(`{"entry":{"id":"entry-1"}}`)); ok {
		t.Error("a foreign entry id counts as one of the benchmark's")
	}
}
