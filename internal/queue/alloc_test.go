//go:build !race

package queue

import (
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// allocGroup is how many events go in together, as they do from 64 senders.
const allocGroup = 64

// What an event costs from Accept until the outcome of its delivery is durable, the
// committer's share and what goes to the database meanwhile included. What is made once for a group, most of it
// the database's, is divided by the group.
func TestAcceptAndOutcomeAllocateLittleForAnEvent(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("expenses.main")[0]
	const runs = 50
	groups := make([][]*Event, 0, runs+1) // AllocsPerRun calls once more
	for g := range runs + 1 {
		group := make([]*Event, allocGroup)
		for n := range group {
			group[n] = testEvent(g*allocGroup+n, lane)
		}
		groups = append(groups, group)
	}
	finished := 0
	got := testing.AllocsPerRun(runs, func() {
		h.accept(groups[0]...)
		groups = groups[1:]
		h.mu.Lock()
		for _, d := range h.fresh {
			h.finish(d, delivery.Success, 0)
		}
		finished += len(h.fresh)
		h.fresh, h.steps = h.fresh[:0], h.steps[:0]
		h.mu.Unlock()
		h.settle()
	}) / allocGroup
	if finished != (runs+1)*allocGroup {
		t.Fatalf("%d deliveries were finished of %d", finished, (runs+1)*allocGroup)
	}
	const most = 50.5 // three of them are this test's attempts
	if got > most {
		t.Errorf("%v allocations an event, want at most %v", got, most)
	}
}

// What a delivery costs that a lane reads back: its texts, its payload, and the
// database's own reading of its two rows.
func TestARefillAllocatesLittleForADelivery(t *testing.T) {
	q := filled(t)
	const ring = 512
	var after uint64
	got := testing.AllocsPerRun(30, func() { after = q.refill(t, after) }) / ring
	const most = 18.5
	if got > most {
		t.Errorf("%v allocations a delivery, want at most %v", got, most)
	}
}

func TestRowsAreEncodedWithoutAllocations(t *testing.T) {
	r := newRows()
	r.encode()
	if got := testing.AllocsPerRun(1000, func() { r.encode() }); got > 0 {
		t.Errorf("%v allocations for the rows of an event, want none", got)
	}
}
