package queue

import (
	"context"
	"fmt"
	"maps"
	"testing"
)

func TestMoreWebhooksThanATransactionTakesGetTheirLanes(t *testing.T) {
	h := newHarness(t)
	var want []LaneWant
	for n := range 6000 {
		want = append(want, LaneWant{fmt.Sprintf("x.%d", n), homeIdentity()})
	}
	before := h.Stats().Groups
	lanes, err := h.SetLanes(t.Context(), want)
	if err != nil || len(lanes) != len(want) {
		t.Fatal(len(lanes), err)
	}
	if n := h.Stats().Groups - before; n < 2 {
		t.Errorf("%d transactions; the case is not the one meant", n)
	}
	h.reopen()
	again, err := h.SetLanes(t.Context(), want)
	if err != nil || !maps.Equal(lanes, again) {
		t.Errorf("lanes changed over a restart: %v", err)
	}
	h.sound()
}

// afterTransaction is a context that ends with the first transaction since it was
// made.
type afterTransaction struct {
	context.Context
	store *Store
	since int64
	ended chan struct{}
}

func (c *afterTransaction) Done() <-chan struct{} {
	if c.store.Stats().Groups > c.since {
		return c.ended
	}
	return nil
}

func (c *afterTransaction) Err() error { return context.Canceled }

func TestACallerWhoGoesLeavesNoHalfOfTheWebhooksRemoved(t *testing.T) {
	h := newHarness(t)
	var want []LaneWant
	for n := range 20000 {
		want = append(want, LaneWant{fmt.Sprintf("x.%d", n), homeIdentity()})
	}
	ctx := &afterTransaction{t.Context(), h.Store, h.Stats().Groups, make(chan struct{})}
	close(ctx.ended)
	if lanes, err := h.SetLanes(ctx, want); err != nil || len(lanes) != len(want) {
		t.Fatal(len(lanes), err)
	}
	if n := h.Stats().Groups - ctx.since; n < 3 {
		t.Errorf("%d transactions; the case is not the one meant", n)
	}
}

func TestTheOutlookOfAWebhookIsWhatWouldBecomeOfIt(t *testing.T) {
	h := newHarness(t)
	home, away := map[string]LaneIdentity{"x.a": homeIdentity()}, LaneWant{"x.a", awayIdentity()}
	look := func(what string, want LaneWant, pending int64, returned bool) {
		t.Helper()
		if p, r := h.Outlook(want); p != pending || r != returned {
			t.Errorf("%s: %d pending, returned %v", what, p, r)
		}
	}
	look("unknown", away, 0, false)
	lane := h.set(home)["x.a"].Lane
	h.accept(testEvent(1, lane))
	look("another host while it is there", away, 1, false)
	h.set(nil)
	look("back on another host", away, 1, true)
	look("back as it was", LaneWant{"x.a", homeIdentity()}, 1, false)
}
