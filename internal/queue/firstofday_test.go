package queue

import (
	"testing"
	"time"
)

// The numbers of a day's events begin with its first one. A day that began after it
// left it out of whatever is asked by time.
func TestTheFirstEventOfADayIsListedByTime(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.clock.advance(30 * time.Hour)
	first := h.accept(testEvent(2, lane))[0]
	h.accept(testEvent(3, lane))
	sums, _, err := h.List(ListQuery{Lanes: []Lane{lane}, Since: h.clock.now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if len(sums) != 2 || sums[1].Seq != first.Seq {
		t.Errorf("listed: %+v", sums)
	}
}
