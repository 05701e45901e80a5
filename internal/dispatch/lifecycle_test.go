package dispatch

import (
	"context"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// The time that a removed webhook has is over at once: what waits ends as
// failed, what is being attempted ends by itself, and its outcome counts.
func TestAttemptsInFlightOutliveTheirWebhook(t *testing.T) {
	s := &site{t: t, dir: t.TempDir() + "/queue", recv: newReceiver(t.Errorf), changed: make(chan struct{}, 1), keep: time.Nanosecond}
	s.open(2)
	defer s.close()
	gate := make(chan struct{})
	held := func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
		s.signal()
		<-gate
		ok(ctx, o, a)
	}
	removed := s.lanes[1]
	targets := []*Target{target(s.lanes[0], 2, s.recv.sink("stays", ok)), target(removed, 2, s.recv.sink("goes", held))}
	s.d.Apply(targets)
	s.d.Start()
	s.accept(50)
	s.await("two attempts under way", func() bool { return s.d.LaneStats(removed).InFlight == 2 })
	s.configure(1)
	s.d.Apply(targets[:1])
	s.await("the others ended", func() bool { return s.lane(removed).Failed == 48 })
	if st := s.lane(removed); st.Pending() != 2 || st.Success != 0 {
		t.Errorf("%+v", st)
	}
	close(gate)
	s.wait(0)
	if st := s.lane(removed); st.Success != 2 || st.Failed != 48 {
		t.Errorf("the outcomes of what was under way do not count: %+v", st)
	}
	if st := s.lane(s.lanes[0]); st.Success != 50 {
		t.Errorf("the webhook that stays: %+v", st)
	}
}

// The webhook comes back before its time is over; nothing is lost or sent twice.
func TestAWebhookThatComesBackIsDeliveredTo(t *testing.T) {
	s := newSite(t, 2)
	defer s.close()
	targets := []*Target{target(s.lanes[0], 4, s.recv.sink("stays", ok)), target(s.lanes[1], 4, s.recv.sink("goes", ok))}
	s.d.Apply(targets)
	s.d.Start()
	for range 5 {
		s.accept(40)
		s.configure(1)
		s.d.Apply(targets[:1])
		s.configure(2)
		targets[1] = target(s.lanes[1], 4, s.recv.sink("again", ok))
		s.d.Apply(targets)
	}
	s.wait(0)
	for _, num := range s.lanes {
		if st := s.lane(num); st.Success != 200 || st.Failed != 0 {
			t.Errorf("lane %d: %+v", num, st)
		}
	}
	if n := s.recv.count(); n != 400 {
		t.Errorf("%d attempts, want 400", n)
	}
}

func TestDropLaneOnTheRealStoreSparesWhatIsInFlight(t *testing.T) {
	s := newSite(t, 2)
	defer s.close()
	gate := make(chan struct{})
	s.d.Apply([]*Target{target(s.lanes[0], 4, s.recv.sink("a", ok)), target(s.lanes[1], 3,
		s.recv.sink("b", func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
			s.signal()
			<-gate
			ok(ctx, o, a)
		}))})
	s.d.Start()
	s.accept(1000)
	s.await("three attempts under way", func() bool { return s.d.LaneStats(s.lanes[1]).InFlight == 3 })
	n, err := s.d.DropLane(t.Context(), s.lanes[1])
	if n != 997 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	close(gate)
	s.accept(10)
	s.wait(0)
	if st := s.lane(s.lanes[1]); st.Success != 13 || st.Failed != 997 {
		t.Errorf("%+v", st)
	}
	if st := s.lane(s.lanes[0]); st.Success != 1010 {
		t.Errorf("the other lane: %+v", st)
	}
}

// lane is what the store holds for a lane.
func (s *site) lane(num queue.Lane) queue.LaneStats {
	for l, st := range s.store.Lanes() {
		if l == num {
			return st
		}
	}
	s.t.Fatalf("no lane %d", num)
	return queue.LaneStats{}
}
