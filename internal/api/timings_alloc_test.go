//go:build !race

package api

import (
	"testing"
	"time"
)

// Each event and each attempt is told: that must cost the way of an event nothing that
// the collector has to clean up. The race detector allocates more.
func TestWhatTheTimingsAreToldAllocatesNothing(t *testing.T) {
	timings := NewTimings()
	for _, a := range attempts() {
		timings.Attempted("http", a, time.Second) // the sink is known now
		got := testing.AllocsPerRun(1000, func() {
			timings.Accepted(time.Millisecond)
			timings.Committed(time.Millisecond)
			timings.Attempted("http", a, time.Second)
		})
		if got != 0 {
			t.Errorf("%s: %v allocations, want none", a.Outcome, got)
		}
	}
}
