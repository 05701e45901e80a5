package queue

import (
	"sync/atomic"
	"testing"
	"time"
)

func TestEachGroupIsTimedOnce(t *testing.T) {
	var groups, took atomic.Int64
	h := newHarness(t, func(o *Options) {
		o.OnCommit = func(d time.Duration) { groups.Add(1); took.Add(int64(d)) }
	})
	lane := h.lane("expenses.main")[0]
	for i := range 5 {
		h.accept(testEvent(i, lane))
	}
	if n := h.Stats().Groups; n < 5 || groups.Load() != n || took.Load() <= 0 {
		t.Errorf("%d groups were timed, in all %v; the store counts %d", groups.Load(), time.Duration(took.Load()), n)
	}
}
