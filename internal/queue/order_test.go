package queue

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// entry accepts n events of one entry and returns them as they are ready.
func (h *harness) entry(lane Lane, entry string, n int) []Delivery {
	h.t.Helper()
	var out []Delivery
	for range n {
		ev := testEvent(1, lane)
		ev.EntryID = entry
		h.accept(ev)
		ds := h.ready(lane)
		out = append(out, ds[len(ds)-1])
	}
	return out
}

// queued is a lane with n deliveries of one entry: the first waits for a retry,
// the others behind it.
func (h *harness) queued(n int) (lane Lane, ds []Delivery) {
	h.t.Helper()
	lane = h.lane("x.a")[0]
	ds = h.entry(lane, "a", n)
	h.fails(ds[0])
	h.park(0, ds[1:]...)
	return lane, ds
}

// wantNoLines fails when something still waits for something else.
func (h *harness) wantNoLines(lane Lane) {
	h.t.Helper()
	if followers, lines := h.Following(lane); followers != 0 || lines != 0 {
		h.t.Errorf("%d followers and %d lines are left", followers, lines)
	}
}

// fails records an attempt after which the delivery waits for an hour.
func (h *harness) fails(d Delivery) {
	h.t.Helper()
	h.Complete(Completion{Delivery: d, Attempt: attemptOf(d, delivery.Pending, time.Hour), Ordered: true})
	h.settle()
}

func (h *harness) succeeds(d Delivery) {
	h.t.Helper()
	h.finish(d, delivery.Success, 0)
	h.settle()
}

func (h *harness) park(behind uint64, ds ...Delivery) []Turn {
	h.t.Helper()
	var ps []Parking
	for _, d := range ds {
		ps = append(ps, Parking{Delivery: d, Behind: behind})
	}
	turns, n, err := h.Park(h.t.Context(), ps)
	if err != nil || n != len(ds) {
		h.t.Fatalf("parked %d of %d: %v", n, len(ds), err)
	}
	return turns
}

func (h *harness) isBlocked(d Delivery) bool {
	h.t.Helper()
	blocked, err := h.Blocked(d.Lane, d.EntryID, d.Seq)
	if err != nil {
		h.t.Fatal(err)
	}
	return blocked
}

// due is what waits and is due at this moment.
func (h *harness) due(lane Lane) []Delivery {
	h.t.Helper()
	ds, _, err := h.ReadWaiting(lane, 0, 0, h.Now(), 1<<20, 1<<30)
	if err != nil {
		h.t.Fatal(err)
	}
	return ds
}

func (h *harness) waitsForOf(d Delivery) uint64 {
	h.t.Helper()
	sum, err := h.Summary(d.Lane, d.Seq)
	if err != nil {
		h.t.Fatal(err)
	}
	return sum.WaitsFor
}

// turnsOf collects what OnTurn says.
func turnsOf(turns *[]Turn) func(*Options) {
	return func(o *Options) { o.OnTurn = func(ts []Turn) { *turns = append(*turns, ts...) } }
}

func TestAHeadThatWaitsHoldsBackItsEntryAndNoOther(t *testing.T) {
	var turns []Turn
	h := newHarness(t, turnsOf(&turns))
	lane := h.lane("x.a")[0]
	a, b := h.entry(lane, "a", 4), h.entry(lane, "b", 2)
	if h.isBlocked(a[1]) {
		t.Error("blocked although nothing waits")
	}
	h.fails(a[0])
	mustEqual(t, "the head is blocked", h.isBlocked(a[0]), false)
	mustEqual(t, "another entry is blocked", h.isBlocked(b[0]), false)
	for _, d := range a[1:] {
		mustEqual(t, "a later one is blocked", h.isBlocked(d), true)
		mustEqual(t, "a later one that is still ready waits for", h.waitsForOf(d), a[0].Seq)
	}
	if got := h.park(0, a[1:]...); len(got) != 0 {
		t.Errorf("called too early: %v", got)
	}
	h.sound()
	mustSeqs(t, "ready", h.ready(lane), b[0].Seq, b[1].Seq)
	mustEqual(t, "a follower waits for", h.waitsForOf(a[3]), a[0].Seq)
	h.reopen()
	mustEqual(t, "listed", len(h.states(lane)), 6)
	mustEqual(t, "followers", h.stats(lane).Following, 3)
	h.clock.advance(time.Hour)
	h.fails(h.due(lane)[0])
	mustSeqs(t, "due after the head failed again", h.due(lane))
	h.clock.advance(time.Hour)
	for i := range a {
		ds := h.due(lane)
		mustSeqs(t, "due", ds, a[i].Seq)
		mustEqual(t, "the head waits for", h.waitsForOf(a[i]), 0)
		if i == 1 { // a failure for good lets the next one go as well
			h.finish(ds[0], delivery.Failed, 0)
			h.settle()
		} else {
			h.succeeds(ds[0])
		}
		h.sound()
		h.reopen()
	}
	mustSeqs(t, "due", h.due(lane))
	h.wantNoLines(lane)
	want := []uint64{a[1].Seq, a[2].Seq, a[3].Seq}
	if got := slices.Collect(func(yield func(uint64) bool) {
		for _, turn := range turns {
			if !yield(turn.Seq) {
				return
			}
		}
	}); !slices.Equal(got, want) {
		t.Errorf("called %v, want %v", got, want)
	}
}

func TestParkingIsDecidedByWhatIsCommitted(t *testing.T) {
	for _, row := range []struct {
		name   string
		first  func(h *harness, d Delivery) // what becomes of the first before the second is parked
		before func(h *harness, d Delivery)
		called bool
	}{
		{"it is still in flight", func(*harness, Delivery) {}, func(h *harness, d Delivery) { h.succeeds(d) }, false},
		{"it is still in flight, and fails", func(*harness, Delivery) {}, func(h *harness, d Delivery) {
			h.fails(d)
			h.clock.advance(time.Hour)
			h.succeeds(h.due(d.Lane)[0])
		}, false},
		{"it has failed", func(h *harness, d Delivery) { h.fails(d) }, func(h *harness, d Delivery) {
			if err := h.Drop(h.t.Context(), d.Lane, d.Seq); err != nil {
				h.t.Fatal(err)
			}
		}, false},
		{"it has succeeded", func(h *harness, d Delivery) { h.succeeds(d) }, func(*harness, Delivery) {}, true},
		{"it was dropped", func(h *harness, d Delivery) {
			if err := h.Drop(h.t.Context(), d.Lane, d.Seq); err != nil {
				h.t.Fatal(err)
			}
		}, func(*harness, Delivery) {}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHarness(t)
			lane := h.lane("x.a")[0]
			ds := h.entry(lane, "a", 3)
			row.first(h, ds[0])
			turns := h.park(ds[0].Seq, ds[1], ds[2])
			mustEqual(t, "the second is called at once", len(turns) == 1 && turns[0].Seq == ds[1].Seq, row.called)
			h.sound()
			row.before(h, ds[0])
			h.sound()
			for _, d := range ds[1:] {
				due := h.due(lane)
				mustSeqs(t, "due", due, d.Seq)
				if len(due) == 1 {
					h.succeeds(due[0])
				}
				h.sound()
			}
			if _, lines := h.Following(lane); lines != 0 {
				t.Errorf("%d lines are left", lines)
			}
		})
	}
}

func TestAnOutcomeAndAParkingInAnyOrderLeaveTheEntryInOrder(t *testing.T) {
	// The outcome of the first is handed in and not committed yet when the second
	// is parked: both fall into the same moment.
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	ds := h.entry(lane, "a", 2)
	h.finish(ds[0], delivery.Success, 0)
	mustEqual(t, "called", len(h.park(ds[0].Seq, ds[1])), 1)
	mustSeqs(t, "due", h.due(lane), ds[1].Seq)
	h.sound()
}

func TestOneThatIsParkedTwiceOrHasEndedStaysWhereItIs(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	ds := h.entry(lane, "a", 3)
	h.fails(ds[0])
	h.park(0, ds[1], ds[1])
	h.park(0, ds[1])
	h.succeeds(ds[2]) // as if it were outside the order
	h.park(0, ds[2])
	mustEqual(t, "followers", h.stats(lane).Following, 1)
	h.sound()
}

func TestWhatWasFinishedIsRetriedAndReplayedOutsideTheOrder(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	ds := h.entry(lane, "a", 3)
	h.succeeds(ds[0])
	h.fails(ds[1])
	h.park(0, ds[2])
	d, err := h.Requeue(t.Context(), lane, ds[0].Seq)
	if err != nil || d.Track != Returning {
		t.Fatalf("%+v, %v", d, err)
	}
	h.fails(d) // waits itself, and nobody waits for it
	h.clock.advance(2 * time.Hour)
	mustSeqs(t, "due", h.due(lane), ds[0].Seq, ds[1].Seq)
	h.finish(h.due(lane)[0], delivery.Failed, 0)
	h.settle()
	mustSeqs(t, "due", h.due(lane), ds[1].Seq)
	mustEqual(t, "the follower waits for", h.waitsForOf(ds[2]), ds[1].Seq)
	h.sound()
}

func TestAWaitingHeadThatAnOperatorRetriesStaysTheHead(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	ds := h.entry(lane, "a", 3)
	h.fails(ds[0])
	h.park(0, ds[1])
	d, err := h.Requeue(t.Context(), lane, ds[0].Seq)
	if err != nil || d.Track != Returning {
		t.Fatalf("%+v, %v", d, err)
	}
	mustEqual(t, "blocked", h.isBlocked(ds[2]), true)
	follower, err := h.Requeue(t.Context(), lane, ds[1].Seq)
	if err != nil || follower.Track != Following {
		t.Fatalf("a follower: %+v, %v", follower, err)
	}
	h.sound()
	h.fails(d)
	mustSeqs(t, "due", h.due(lane))
	h.clock.advance(time.Hour)
	h.succeeds(h.due(lane)[0])
	mustSeqs(t, "due", h.due(lane), ds[1].Seq)
	h.sound()
}

func TestDroppingLetsTheNextOneGo(t *testing.T) {
	h := newHarness(t)
	lane, ds := h.queued(4)
	drop := func(d Delivery) {
		if err := h.Drop(t.Context(), lane, d.Seq); err != nil {
			t.Fatal(err)
		}
		h.sound()
	}
	drop(ds[1])
	mustSeqs(t, "due", h.due(lane))
	drop(ds[0])
	mustSeqs(t, "due", h.due(lane), ds[2].Seq)
	drop(ds[3])
	drop(ds[2])
	h.wantNoLines(lane)
}

func TestAllOfALaneIsDroppedFollowersIncluded(t *testing.T) {
	for _, limit := range []int{1, 2, 64} {
		h := newHarness(t)
		lane := h.lane("x.a")[0]
		var busy uint64
		for _, e := range []string{"a", "b", "c"} {
			ds := h.entry(lane, e, 5)
			h.fails(ds[0])
			h.park(0, ds[1:4]...)
			busy = ds[0].Seq
		}
		q := &PendingDrop{Lane: lane, Code: delivery.CodeDropped, Skip: func(seq uint64) bool { return seq == busy }}
		total := 0
		for more := true; more; {
			var n int
			var err error
			if n, more, err = h.DropPending(t.Context(), q, limit); err != nil {
				t.Fatal(err)
			}
			if ready := h.ready(lane); total == 0 && len(ready) > 0 { // one is parked while the lane is being dropped
				h.park(0, ready[len(ready)-1])
			}
			total += n
			h.sound()
		}
		mustEqual(t, "dropped", total, 14)
		mustEqual(t, "skipped", q.Skipped, 1)
		mustEqual(t, "pending", h.stats(lane).Pending(), 1)
		h.close()
	}
}

func TestFollowersOfARemovedWebhookExpireWithIt(t *testing.T) {
	h := newHarness(t)
	lane, _ := h.queued(4)
	h.set(map[string]LaneIdentity{})
	h.later(RemovedKeep)
	h.expired(lane)
	h.sound()
	h.wantNoLines(lane)
}

func TestFollowersAreReleasedInStepsAndAfterACrashInBetween(t *testing.T) {
	var turns []Turn
	h := newHarness(t, turnsOf(&turns))
	lane := h.lane("x.a")[0]
	for e := range 100 {
		ds := h.entry(lane, fmt.Sprint(e), 2)
		h.fails(ds[0])
		h.park(0, ds[1])
	}
	big := h.entry(lane, "big", 150)
	h.fails(big[0])
	h.park(0, big[1:]...)
	q, steps := &Release{Lane: lane}, 0
	for more := true; more; steps++ {
		var err error
		if more, err = h.ReleaseFollowers(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		h.sound()
		if steps%2 == 1 {
			h.reopen()
			q = &Release{Lane: lane}
		}
	}
	if steps < 249/64 {
		t.Errorf("%d steps", steps)
	}
	h.wantNoLines(lane)
	mustEqual(t, "called", len(turns), 249)
	mustEqual(t, "due", len(h.due(lane)), 249)
	more, err := h.ReleaseFollowers(t.Context(), &Release{Lane: lane})
	if more || err != nil {
		t.Errorf("a lane without followers: %v %v", more, err)
	}
}

func TestAHeadWithoutFollowersIsForgottenWhenTheLaneIsNotOrderedAnyMore(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.fails(h.entry(lane, "a", 1)[0])
	h.fails(h.entry(lane, "b", 1)[0])
	if more, err := h.ReleaseFollowers(t.Context(), &Release{Lane: lane}); more || err != nil {
		t.Fatal(more, err)
	}
	mustEqual(t, "lines that make others look up", h.Lines(), false)
	h.wantNoLines(lane)
	h.sound()
	h.reopen()
	h.wantNoLines(lane)
	h.sound()
}

func TestFollowersArePartOfRetentionsCopyForward(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.Retention = Retention{Payloads: day, Delivered: day, Failed: day} })
	lane, ds := h.queued(3)
	for range 5 {
		h.later(day)
		h.reopen()
		h.settle()
	}
	h.sound()
	for _, want := range ds {
		due := h.due(lane)
		mustSeqs(t, "due", due, want.Seq)
		mustEqual(t, "payload", string(due[0].Payload), string(want.Payload))
		h.succeeds(due[0])
	}
	h.sound()
}

// damage overwrites a row behind the store's back.
func (h *harness) damage(key []byte) {
	h.t.Helper()
	err := h.db.Update(func(txn *badger.Txn) error { return txn.Set(key, []byte("nonsense")) })
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestDamageHoldsBackNobodyForEver(t *testing.T) {
	rows := map[string]func(h *harness, ds []Delivery) []byte{
		"the line": func(h *harness, ds []Delivery) []byte { return lineKey(ds[0].Lane, entryHash("a")) },
		"the head": func(h *harness, ds []Delivery) []byte {
			return appendWaitingKey(nil, ds[0].Lane, h.waiting(ds[0].Lane)[0].Due, ds[0].Seq)
		},
		"the head's event": func(h *harness, ds []Delivery) []byte { return appendEventKey(nil, ds[0].ref, ds[0].Seq) },
		"a follower": func(h *harness, ds []Delivery) []byte {
			return appendLaneSeq(nil, kindFollowing, ds[0].Lane, ds[1].Seq)
		},
		"a follower's event": func(h *harness, ds []Delivery) []byte {
			return appendEventKey(nil, ds[1].ref, ds[1].Seq)
		},
	}
	for name, key := range rows {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			lane, ds := h.queued(4)
			h.damage(key(h, ds))
			h.clock.advance(time.Hour)
			ended := 0
			for range ds {
				for _, d := range h.due(lane) {
					h.succeeds(d)
					ended++
				}
			}
			if want := 3; ended < want {
				t.Errorf("%d were delivered, want at least %d", ended, want)
			}
			mustEqual(t, "pending", h.stats(lane).Pending(), 0)
			if h.Stats().Quarantined == 0 {
				t.Error("the damaged row was not set aside")
			}
			f, err := h.Verify(context.Background())
			if err != nil || len(f.Problems) > 1 || (len(f.Problems) == 1 && name[len(name)-5:] != "event") {
				t.Errorf("%v %v", f.Problems, err) // a damaged event record stays where it is
			}
		})
	}
}

func TestTheCountersOfALaneFromBeforeOrderAreRead(t *testing.T) {
	key := laneKey(3)
	plain := laneCounts{ready: 5, readyMark: 7}
	if got, err := decodeLaneCounts(key, plain.append(nil, key)); err != nil || got != plain {
		t.Errorf("%+v, %v", got, err)
	}
	if n := len(plain.append(nil, key)); n != 1+9+4 {
		t.Errorf("the row of a lane without order has %d bytes, which former versions do not read", n)
	}
}
