package queue

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// odd is an Options.Where with one word: it chooses the payloads whose n is odd, and
// cannot decide that of 7.
func odd(expression string) (func(context.Context, []byte) (bool, error), error) {
	if expression != "odd" {
		return nil, errors.New("at offset 0: no such word")
	}
	return func(_ context.Context, payload []byte) (bool, error) {
		number, _, _ := bytes.Cut(bytes.TrimPrefix(payload, []byte(`{"n":`)), []byte(","))
		if string(number) == "7" {
			return false, errors.New("seven is special")
		}
		return strings.ContainsAny(string(number[len(number)-1:]), "13579"), nil
	}, nil
}

// choosing is a store with finished deliveries of n events: the even ones failed.
func choosing(t *testing.T, n int) (*harness, Lane) {
	h := newHarness(t, func(o *Options) { o.Where = odd })
	lane := h.lane("x.a")[0]
	for i := range n {
		h.accept(testEvent(i+1, lane))
	}
	for i, d := range h.ready(lane) {
		h.finish(d, []delivery.State{delivery.Success, delivery.Failed}[i%2], 0)
	}
	h.settle()
	return h, lane
}

// steps steps a job to its end.
func (h *harness) stepAll(id string, limit int) (ds []Delivery) {
	h.t.Helper()
	for range 1000 {
		some, done, err := h.StepReplay(h.t.Context(), id, limit)
		if err != nil {
			h.t.Fatal(err)
		}
		if ds = append(ds, some...); done {
			return ds
		}
	}
	h.t.Fatal("the replay does not end")
	return nil
}

func TestAReplayChoosesByPayloadAndGoesOnAfterARestart(t *testing.T) {
	h, lane := choosing(t, 20)
	q := ReplayJob{Lane: lane, Where: "odd"}
	if j, err := h.CountReplay(t.Context(), q); err != nil || j.Matched != 9 || j.Undecided != 1 || !strings.HasSuffix(j.Trouble, ": seven is special") {
		t.Fatalf("%+v, %v", j, err)
	}
	j, err := h.CreateReplay(t.Context(), q)
	if err != nil || j.Matched != 9 {
		t.Fatalf("%+v, %v", j, err)
	}
	ds, done, err := h.StepReplay(t.Context(), j.ID, 4)
	if err != nil || done {
		t.Fatal(done, err)
	}
	mustSeqs(t, "first step", ds, 1, 3, 5, 9)
	h.accept(testEvent(21, lane)) // is not part of it
	h.reopen()
	if js := h.Replays(); len(js) != 1 || js[0].Where != "odd" || js[0].Cursor != 9 || js[0].Undecided != 1 || js[0].Trouble == "" {
		t.Fatalf("after reopening: %+v", js)
	}
	mustSeqs(t, "the rest", h.stepAll(j.ID, 4), 11, 13, 15, 17, 19)
	mustSeqs(t, "returning", h.returning(lane), 1, 3, 5, 9, 11, 13, 15, 17, 19)
	if js := h.Replays(); js[0].Requeued != 9 || !js[0].Done {
		t.Errorf("%+v", js)
	}
	h.sound()
}

func TestAReplayOfOneEvent(t *testing.T) {
	h, lane := choosing(t, 20)
	q := ReplayJob{Lane: lane, EventID: id.Event(h.StoreID(), 6)}
	j, err := h.CreateReplay(t.Context(), q)
	if err != nil || j.Matched != 1 {
		t.Fatalf("%+v, %v", j, err)
	}
	mustSeqs(t, "brought back", h.stepAll(j.ID, 4), 6)
	q.States = []delivery.State{delivery.Success}
	if j, err := h.CountReplay(t.Context(), q); err != nil || j.Matched != 0 {
		t.Errorf("%+v, %v", j, err)
	}
	q.EventID = "evt_unknown"
	if _, err := h.CountReplay(t.Context(), q); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown event: %v", err)
	}
	if _, err := h.CreateReplay(t.Context(), ReplayJob{Lane: lane, Where: "even"}); err == nil || len(h.Replays()) != 1 {
		t.Errorf("an expression that cannot be read: %v, %d jobs", err, len(h.Replays()))
	}
}

// What is decided on a snapshot may be brought back by somebody else before the
// replay gets there. It is not touched then: it may be in flight.
func TestAReplayLeavesWhatAnOperatorBroughtBackMeanwhile(t *testing.T) {
	h, lane := choosing(t, 6)
	var requeue func()
	h.opts.Where = func(e string) (func(context.Context, []byte) (bool, error), error) {
		match, err := odd(e)
		return func(ctx context.Context, p []byte) (bool, error) {
			if requeue != nil {
				requeue()
				requeue = nil
			}
			return match(ctx, p)
		}, err
	}
	h.reopen()
	j, err := h.CreateReplay(t.Context(), ReplayJob{Lane: lane, Where: "odd"})
	if err != nil {
		t.Fatal(err)
	}
	requeue = func() {
		if _, err := h.Requeue(t.Context(), lane, 3); err != nil {
			t.Error(err)
		}
	}
	mustSeqs(t, "brought back", h.stepAll(j.ID, 10), 1, 5)
	mustSeqs(t, "returning", h.returning(lane), 1, 3, 5)
	h.sound()
}

func TestAReplayByPayloadPassesPayloadsThatAreGone(t *testing.T) {
	h, lane := choosing(t, 6)
	j, err := h.CreateReplay(t.Context(), ReplayJob{Lane: lane, Where: "odd"})
	if err != nil {
		t.Fatal(err)
	}
	h.nextDays(10)
	h.retain()
	ds := h.stepAll(j.ID, 10)
	if now := h.Replays(); len(ds) != 0 || len(now) == 1 && now[0].Requeued != 0 {
		t.Errorf("%d brought back, %+v", len(ds), now)
	}
}
