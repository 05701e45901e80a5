//go:build !race

package dispatch

import "testing"

// What every delivery costs beside its sink: the Outbound, its delivery id and the
// Attempt. The race detector allocates more.
func TestADispatchAllocatesWhatTheSinkGetsOnly(t *testing.T) {
	round := pump(t, &noopPunctual{})
	const most = 3.2 // queues grow now and then
	if got := testing.AllocsPerRun(200, round) / benchGroup; got > most {
		t.Errorf("%v allocations a delivery, want at most %v", got, most)
	}
}
