package queue

import (
	"errors"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func TestWhatIsNotCommittedIsNotCounted(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.finish(h.ready(lane)[0], delivery.Success, 0)
	h.settle()
	h.accept(testEvent(2, lane))
	job, err := h.CreateReplay(t.Context(), ReplayJob{Lane: lane})
	if err != nil {
		t.Fatal(err)
	}
	before := h.Stats()
	last := h.ready(lane)[0]
	err = h.do(t.Context(), func(g *group) error {
		g.accept(testEvent(3, lane))
		g.complete(&Completion{Delivery: last, Attempt: attemptOf(last, delivery.Success, 0)})
		moved := job
		moved.Requeued, moved.Done = 1, true
		g.putReplay(&moved)
		g.putReplay(&ReplayJob{ID: "rpl_99", Lane: lane})
		g.note(errors.New("the disk is gone"))
		return nil
	})
	if !errors.Is(err, ErrStopped) {
		t.Fatalf("a group that was not committed was answered %v", err)
	}
	st := h.Stats()
	mustEqual(t, "state", st.State, StateStopped)
	st.State, st.DiskFree = before.State, before.DiskFree
	mustEqual(t, "figures", st, before)
	for _, l := range h.Lanes() {
		mustEqual(t, "the lane's figures", l, LaneStats{Webhook: "x.a", Ready: 1, Success: 1, LiveBytes: before.LiveBytes})
	}
	jobs := h.Replays()
	if len(jobs) != 1 || jobs[0].Requeued != 0 || jobs[0].Done {
		t.Errorf("replays: %+v", jobs)
	}
}

// A replay of all that was delivered must take all that is counted as delivered.
func TestWhatIsCountedCanBeRead(t *testing.T) {
	const events = 400
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	for i := range events {
		h.accept(testEvent(i+1, lane))
	}
	ds := h.ready(lane)
	go func() {
		for _, d := range ds {
			h.finish(d, delivery.Success, 0)
		}
	}()
	deadline := time.Now().Add(30 * time.Second)
	for {
		counted := h.Stats().Success
		found, err := h.CountReplay(t.Context(), ReplayJob{Lane: lane})
		if err != nil {
			t.Fatal(err)
		}
		if found.Matched < counted {
			t.Fatalf("%d are counted as delivered, %d are found", counted, found.Matched)
		}
		if counted == events {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d after 30 s", counted, events)
		}
	}
}
