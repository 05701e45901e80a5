package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func homeIdentity() LaneIdentity { return wants("x")[0].Identity }

func awayIdentity() LaneIdentity { return LaneIdentity{Sink: "http", Host: "elsewhere.example:443"} }

// set makes the configuration have these webhooks, by name.
func (h *harness) set(want map[string]LaneIdentity) map[string]LaneInfo {
	h.t.Helper()
	var ws []LaneWant
	for name, identity := range want {
		ws = append(ws, LaneWant{name, identity})
	}
	out, err := h.SetLanes(h.t.Context(), ws)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *harness) stats(lane Lane) LaneStats {
	h.t.Helper()
	for l, st := range h.Lanes() {
		if l == lane {
			return st
		}
	}
	h.t.Fatalf("no lane %d", lane)
	return LaneStats{}
}

// until waits for something that the store does by itself.
func (h *harness) until(what string, done func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			h.t.Fatalf("waited in vain until %s", what)
		}
		h.settle()
	}
}

// later moves the clocks and has the expiry look at them.
func (h *harness) later(d time.Duration) {
	h.clock.advance(d)
	h.Store.expiry.poke()
}

// expired returns when nothing is pending on a lane any more.
func (h *harness) expired(lane Lane) {
	h.t.Helper()
	h.until(fmt.Sprintf("lane %d has nothing pending", lane), func() bool { p := h.stats(lane); return p.Pending() == 0 })
}

// Each row is a way to leave and come back, with what is pending meanwhile.
func TestAWebhookThatComesBackGoesOnUnlessItsDeliveriesWouldGoElsewhere(t *testing.T) {
	home, away := map[string]LaneIdentity{"x.a": homeIdentity()}, map[string]LaneIdentity{"x.a": awayIdentity()}
	none := map[string]LaneIdentity{}
	for _, c := range []struct {
		name     string
		steps    []map[string]LaneIdentity
		finished bool // nothing is pending
		returned bool
	}{
		{"same identity", []map[string]LaneIdentity{home, none, home}, false, false},
		{"another identity", []map[string]LaneIdentity{home, none, away}, false, true},
		{"another identity, nothing pending", []map[string]LaneIdentity{home, none, away}, true, false},
		{"another identity, and back to the first", []map[string]LaneIdentity{home, none, away, home}, false, false},
		{"another identity, twice", []map[string]LaneIdentity{home, none, away, none, away}, false, true},
		{"another identity without leaving", []map[string]LaneIdentity{home, away}, false, false},
		{"another identity without leaving, then gone and back", []map[string]LaneIdentity{home, away, none, away}, false, false},
		{"removed twice", []map[string]LaneIdentity{home, none, none, home}, false, false},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", c.name, restart), func(t *testing.T) {
				h := newHarness(t)
				lane := h.set(c.steps[0])["x.a"].Lane
				h.accept(testEvent(1, lane))
				if c.finished {
					h.finish(h.ready(lane)[0], delivery.Success, 0)
					h.settle()
				}
				var got LaneInfo
				for _, step := range c.steps[1:] {
					if restart {
						h.reopen()
					}
					got = h.set(step)["x.a"]
				}
				if got != (LaneInfo{lane, c.returned}) {
					t.Errorf("came back as %+v", got)
				}
				st := h.stats(lane)
				if st.Returned != c.returned || !st.RemovedAt.IsZero() || !st.Expires.IsZero() {
					t.Errorf("stats %+v", st)
				}
				h.sound()
			})
		}
	}
}

func TestReleaseLetsAReturnedWebhookGoWhereItPoints(t *testing.T) {
	h := newHarness(t)
	home, away := map[string]LaneIdentity{"x.a": homeIdentity()}, map[string]LaneIdentity{"x.a": awayIdentity()}
	lane := h.set(home)["x.a"].Lane
	h.accept(testEvent(1, lane))
	h.set(nil)
	h.set(away)
	if err := h.Release(t.Context(), lane); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "returned after the release", h.stats(lane).Returned, false)
	h.reopen()
	mustEqual(t, "returned after a restart", h.set(away)["x.a"].Returned, false)
	h.set(nil)
	mustEqual(t, "back where it was released to", h.set(away)["x.a"].Returned, false)
	h.set(nil)
	mustEqual(t, "back where it was at first", h.set(home)["x.a"].Returned, true)
	if err := h.Release(t.Context(), 99); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown lane: %v", err)
	}
	h.sound()
}

func TestTheSameWebhooksAgainWriteNothing(t *testing.T) {
	h := newHarness(t)
	want := map[string]LaneIdentity{"x.a": homeIdentity(), "x.b": awayIdentity()}
	first := h.set(want)
	h.accept(testEvent(1, first["x.a"].Lane))
	h.set(map[string]LaneIdentity{"x.b": awayIdentity()})
	groups := h.Stats().Groups
	h.set(map[string]LaneIdentity{"x.b": awayIdentity()})
	if err := h.Release(t.Context(), first["x.a"].Lane); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "transactions", h.Stats().Groups, groups)
	if again := h.set(want); !maps.Equal(first, again) {
		t.Errorf("lanes were %v and became %v", first, again)
	}
	for _, bad := range [][]LaneWant{{{"", homeIdentity()}}, {{"x.c", LaneIdentity{}}}, append(wants("x.c"), wants("x.c")...)} {
		if _, err := h.SetLanes(t.Context(), bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	mustEqual(t, "lanes after what was refused", len(h.names), 2)
}

func TestDeliveriesOfAWebhookThatDoesNotComeBackEndAsFailed(t *testing.T) {
	busy := atomic.Uint64{}
	h := newHarness(t, func(o *Options) {
		o.Busy = func(_ Lane, seq uint64) bool { return seq == busy.Load() }
	})
	l := h.lane("x.a", "x.b")
	for n := range 6 {
		h.accept(testEvent(n+1, l...))
	}
	ds := h.ready(l[0])
	h.finish(ds[0], delivery.Success, 0)
	h.finish(ds[1], delivery.Pending, time.Minute)
	h.finish(ds[2], delivery.Failed, 0)
	h.settle()
	if _, err := h.Requeue(t.Context(), l[0], 3); err != nil {
		t.Fatal(err)
	}
	removed := h.clock.now()
	h.lane("x.b")
	busy.Store(4)
	if st := h.stats(l[0]); !st.RemovedAt.Equal(removed) || !st.Expires.Equal(removed.Add(RemovedKeep)) || st.Pending() != 5 {
		t.Errorf("removed: %+v", st)
	}
	h.later(RemovedKeep - time.Minute)
	h.settle()
	mustEqual(t, "pending before the time is over", h.stats(l[0]).LiveBytes > 0, true)
	h.later(2 * time.Minute)
	h.until("all but the one under way ended", func() bool { p := h.stats(l[0]); return p.Pending() == 1 })
	// The attempt that was under way ends, and what it says counts.
	h.finish(ds[3], delivery.Success, 0)
	h.settle()
	busy.Store(0) // not before the commit, as the dispatcher has it
	for seq, want := range map[uint64]delivery.State{1: delivery.Success, 2: delivery.Failed, 3: delivery.Failed, 4: delivery.Success, 5: delivery.Failed} {
		sum, err := h.Summary(l[0], seq)
		if err != nil || sum.State != want || (want == delivery.Failed) != (sum.Code == delivery.CodeRemoved) {
			t.Errorf("delivery %d: %+v, %v", seq, sum, err)
		}
	}
	if as, err := h.Attempts(l[0], 2); err != nil || len(as) != 1 || as[0].Status != 503 {
		t.Errorf("its attempts are kept: %+v, %v", as, err)
	}
	mustEqual(t, "pending on the other lane", len(h.ready(l[1])), 6)
	if st := h.stats(l[0]); !st.Expires.IsZero() || st.RemovedAt.IsZero() || st.LiveBytes != 0 {
		t.Errorf("after it: %+v", st)
	}
	h.sound()
	h.nextDays(8) // payloads of what was delivered are gone, those of failures are not
	if d, err := h.Requeue(t.Context(), l[0], 5); err != nil || string(d.Payload) != string(ds[4].Payload) {
		t.Errorf("retry after the return: %+v, %v", d, err)
	}
	h.sound()
}

// The attempt does not count, so that no commit touches the lane when it is over.
func TestWhatWasUnderWayAndStaysPendingEndsLater(t *testing.T) {
	var busy atomic.Bool
	busy.Store(true)
	h := newHarness(t, func(o *Options) { o.Busy = func(Lane, uint64) bool { return busy.Load() } })
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.lane()
	h.later(RemovedKeep)
	h.settle()
	mustSeqs(t, "pending", h.ready(lane), 1)
	busy.Store(false)
	h.expired(lane)
	h.sound()
}

func TestNothingExpiresBeforeTheConfigurationIsKnown(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.lane()
	h.later(RemovedKeep - time.Hour)
	h.close()
	h.clock.advance(2 * time.Hour)
	h.open()
	h.Store.expiry.poke()
	h.settle()
	h.accept(testEvent(2, lane)) // its catalog is older
	mustSeqs(t, "pending although the time is over", h.ready(lane), 1, 2)
	mustEqual(t, "lane", h.lane("x.a")[0], lane)
	h.later(RemovedKeep)
	h.settle()
	mustSeqs(t, "pending on a webhook that came back during the stop", h.ready(lane), 1, 2)
	h.sound()
}

func TestAnEventAcceptedWithAnOldCatalogIsHeldAndExpiresToo(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.lane()
	h.accept(testEvent(1, lane))
	if st := h.stats(lane); st.Expires.IsZero() || st.Ready != 1 {
		t.Errorf("accepted after the removal: %+v", st)
	}
	h.later(RemovedKeep)
	h.expired(lane)
	h.accept(testEvent(2, lane)) // the time is over already, and nothing is awaited any more
	h.expired(lane)
	mustEqual(t, "failed", h.stats(lane).Failed, int64(2))
	h.sound()
}

func TestAReplayOfAWebhookThatDoesNotComeBackEnds(t *testing.T) {
	h := newHarness(t)
	l := h.lane("x.a", "x.b")
	for n := range 10 {
		h.accept(testEvent(n+1, l...))
	}
	for _, lane := range l {
		for _, d := range h.ready(lane) {
			h.finish(d, delivery.Failed, 0)
		}
	}
	h.settle()
	var jobs []ReplayJob
	for _, lane := range l {
		j, err := h.CreateReplay(t.Context(), ReplayJob{Lane: lane})
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, j)
	}
	if ds, _, err := h.StepReplay(t.Context(), jobs[0].ID, 4); err != nil || len(ds) != 4 {
		t.Fatal(len(ds), err)
	}
	h.lane("x.b")
	for _, d := range h.returning(l[0]) {
		h.finish(d, delivery.Success, 0)
	}
	h.settle()
	// Nothing is pending, but the replay would go elsewhere.
	mustEqual(t, "returned", h.set(map[string]LaneIdentity{"x.a": awayIdentity(), "x.b": homeIdentity()})["x.a"].Returned, true)
	h.lane("x.b")
	if _, _, err := h.StepReplay(t.Context(), jobs[0].ID, 1); err != nil {
		t.Fatal(err)
	}
	h.later(RemovedKeep)
	h.expired(l[0])
	h.until("the replay is over", func() bool { return len(h.Replays()) == 1 })
	mustEqual(t, "replay left", h.Replays()[0].ID, jobs[1].ID)
	mustEqual(t, "returned", h.set(map[string]LaneIdentity{"x.a": awayIdentity(), "x.b": homeIdentity()})["x.a"].Returned, false)
	h.sound()
}

func TestAWallClockThatJumpsAtEveryStartExpiresNothing(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.lane()
	before := h.Now()
	for range 10 {
		h.close()
		h.clock.wall.Add((400 * day).Milliseconds())
		h.open()
		h.lane()
		h.settle()
	}
	mustEqual(t, "relay time advanced by days", (h.Now()-before)/dayMillis, int64(1))
	mustSeqs(t, "pending", h.ready(lane), 1)
	if left := h.stats(lane).Expires.Sub(h.clock.now()).Round(time.Second); left != RemovedKeep {
		t.Errorf("%v are left, want all of it", left)
	}
	h.later(RemovedKeep)
	h.expired(lane)
	h.sound()
}

func TestAnExpiryCutShortGoesOnAfterARestart(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	var evs []*Event
	for n := range 700 {
		evs = append(evs, testEvent(n+1, lane))
	}
	h.accept(evs...)
	for i, d := range h.ready(lane) {
		if i%2 == 0 {
			h.finish(d, delivery.Pending, time.Hour)
		}
	}
	h.lane()
	q := &PendingDrop{Lane: lane, Code: delivery.CodeRemoved}
	for range 2 { // as the expiry does, and no further
		if n, more, err := h.DropPending(t.Context(), q, 50); n != 50 || !more || err != nil {
			t.Fatal(n, more, err)
		}
	}
	h.reopen()
	mustEqual(t, "left by the first process", h.stats(lane).Failed, int64(100))
	h.lane()
	h.later(RemovedKeep)
	h.expired(lane)
	mustEqual(t, "failed", h.stats(lane).Failed, int64(700))
	h.sound()
}

// A webhook leaves and comes back all the time while the expiry, whose time is
// nearly nothing, does what it can: a delivery may only end in a commit at
// which its webhook is gone.
func TestADeliveryNeverExpiresWhileItsWebhookIsThere(t *testing.T) {
	var h *harness
	var wrong, ended atomic.Int64
	h = newHarness(t, func(o *Options) {
		o.RemovedKeep = time.Millisecond
		o.OnChange = func(cs []Change) {
			h.Store.mu.Lock()
			defer h.Store.mu.Unlock()
			for _, c := range cs {
				if c.Code == delivery.CodeRemoved {
					ended.Add(1)
					if !h.Store.lanes[c.Lane].life.removed {
						wrong.Add(1)
					}
				}
			}
		}
	})
	lane := h.lane("x.a")[0]
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			evs := make([]*Event, 50)
			for i := range evs {
				evs[i] = testEvent(i, lane)
			}
			if err := h.Accept(ctx, evs); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for n := 0; n < 100 || ended.Load() == 0; n++ {
		if n == 10000 {
			t.Fatal("nothing ever expired")
		}
		h.lane()
		h.clock.advance(2 * time.Millisecond)
		h.Store.expiry.poke()
		if n%3 == 0 {
			h.settle()
		}
		h.lane("x.a")
	}
	cancel()
	wg.Wait()
	mustEqual(t, "deliveries that ended although their webhook was there", wrong.Load(), 0)
	h.sound()
}

// A store of an earlier version has no rows about lives.
func TestLanesOfAnEarlierVersionTakeTheIdentityThatTheyMeet(t *testing.T) {
	h := newHarness(t)
	l := h.lane("x.a", "x.b")
	h.accept(testEvent(1, l...))
	h.settle()
	err := h.Store.db.Update(func(txn *badger.Txn) error {
		for _, lane := range l {
			if err := txn.Delete(laneLifeKey(lane)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.reopen()
	mustEqual(t, "first sight", h.set(map[string]LaneIdentity{"x.a": awayIdentity()})["x.a"].Returned, false)
	mustEqual(t, "removed", h.stats(l[1]).RemovedAt.IsZero(), false)
	got := h.set(map[string]LaneIdentity{"x.a": awayIdentity(), "x.b": awayIdentity()})
	mustEqual(t, "back from an unknown place", got["x.b"].Returned, true)
	h.sound()
}

func TestADamagedLifeIsRefusedAtTheStart(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.settle()
	err := h.Store.db.Update(func(txn *badger.Txn) error { return txn.Set(laneLifeKey(lane), []byte("nonsense")) })
	if err != nil {
		t.Fatal(err)
	}
	h.close()
	_, err = Open(t.Context(), h.opts)
	if fe, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(fe.Remedy, "backup") {
		t.Errorf("got %v", err)
	}
}
