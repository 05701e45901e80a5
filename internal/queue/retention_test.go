package queue

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

const day = 24 * time.Hour

// nextDays moves time on day by day, running retention as the timer would.
func (h *harness) nextDays(n int) {
	h.t.Helper()
	for range n {
		h.clock.advance(day)
		h.retain()
	}
}

// retain runs a whole pass.
func (h *harness) retain() {
	h.t.Helper()
	h.do(h.t.Context(), func(g *group) error { h.Store.c.day.Reset(0); return nil })
	h.reopen() // plans again at open, so that nothing depends on the timer
	for i := 0; ; i++ {
		idle := false
		h.do(h.t.Context(), func(g *group) error { idle = h.Store.c.retiring == nil; return nil })
		if idle {
			return
		}
		if i > 10000 {
			h.t.Fatal("retention does not end")
		}
	}
}

// A scan that leaves a pending delivery out would strand it: its caller goes on
// behind it.
func TestAReadDuringADropLeavesNothingOut(t *testing.T) {
	h := newHarness(t, shortRetention)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane))
	record := appendEventKey(nil, payloadRef{eventAccepted, dayOf(h.Now())}, 1)
	h.clock.advance(3 * day)
	calls := 0
	var got []Delivery
	err := h.view(func(txn *badger.Txn) ([]damaged, error) {
		if calls++; calls == 1 {
			h.do(t.Context(), func(*group) error { h.Store.c.day.Reset(0); return nil })
			for dropped, deadline := false, time.Now().Add(30*time.Second); !dropped && time.Now().Before(deadline); {
				h.do(t.Context(), func(g *group) error { dropped = !g.has(record); return nil })
			}
		}
		p, err := h.readPending(txn, appendLaneSeq(nil, kindReady, lane, 0), nil, 10, 1<<20)
		got = p.ds
		return p.found, err
	})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "snapshots", calls, 2)
	mustSeqs(t, "read", got, 1, 2)
	mustEqual(t, "rows set aside", h.Stats().Quarantined, 0)
	h.sound()
}

func shortRetention(o *Options) {
	o.Retention = Retention{Delivered: 3 * day, Failed: 6 * day, Payloads: day}
}

func TestRetentionDropsDaysAndKeepsWhatIsNeeded(t *testing.T) {
	for _, former := range []bool{false, true} {
		t.Run(fmt.Sprintf("events of format 1 %v", former), func(t *testing.T) { retentionKeepsWhatIsNeeded(t, former) })
	}
}

func retentionKeepsWhatIsNeeded(t *testing.T, former bool) {
	h := newHarness(t, shortRetention)
	lane := h.lane("x.a")[0]
	for n := range 4 {
		h.accept(testEvent(n+1, lane))
	}
	ds := h.ready(lane)
	h.finish(ds[0], delivery.Success, 0)
	h.finish(ds[1], delivery.Failed, 0)
	h.finish(ds[2], delivery.Pending, 24*time.Hour)
	h.settle()
	if former {
		h.close()
		h.formerEvents()
		h.open()
		h.sound()
		if e, err := h.Event(1); err != nil || e.EntryID != "e1" {
			t.Errorf("an event of format 1: %+v, %v", e, err)
		}
	}
	h.nextDays(2) // payloads of delivered ones go
	if _, err := h.Event(1); !errors.Is(err, ErrNotFound) {
		t.Errorf("delivered event after its time: %v", err)
	}
	if _, err := h.Requeue(t.Context(), lane, 1); !errors.Is(err, ErrPayloadExpired) {
		t.Errorf("retry without payload: %v", err)
	}
	if sum, err := h.Summary(lane, 1); err != nil || sum.State != delivery.Success || sum.EntryID != "e1" {
		t.Errorf("row of the log: %+v, %v", sum, err)
	}
	for _, got := range [][]Delivery{h.ready(lane), h.waiting(lane)} {
		if len(got) != 1 || string(got[0].Payload) != string(ds[got[0].Seq-1].Payload) {
			t.Fatalf("pending: %+v", got)
		}
	}
	h.sound()
	h.nextDays(2) // rows of delivered ones go
	if _, err := h.Summary(lane, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("delivered row after its time: %v", err)
	}
	d, err := h.Requeue(t.Context(), lane, 2)
	if err != nil || string(d.Payload) != string(ds[1].Payload) {
		t.Errorf("retry of the failed one: %+v, %v", d, err)
	}
	h.nextDays(6)
	if got := h.returning(lane); len(got) != 1 || string(got[0].Payload) != string(ds[1].Payload) {
		t.Errorf("returning: %+v", got)
	}
	h.sound()
	for _, p := range [][]Delivery{h.ready(lane), h.waiting(lane), h.returning(lane)} {
		h.finish(p[0], delivery.Success, 0)
	}
	h.nextDays(5)
	f, err := h.Verify(t.Context())
	if err != nil || f.Finished != 0 || f.Events != 0 || f.Pending != 0 {
		t.Errorf("left over: %+v, %v", f, err)
	}
	st := h.Stats()
	if st.Success != 4 || st.Pending != 0 || st.Deliveries != 4 {
		t.Errorf("%+v", st)
	}
	if days := h.dayList(); len(days) > 7 {
		t.Errorf("%d days are remembered", len(days))
	}
	h.sound()
}

func TestAnOutcomeOfADeliveryThatWasCopiedForwardStillCounts(t *testing.T) {
	h := newHarness(t, shortRetention)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane), testEvent(3, lane))
	ds := h.ready(lane) // in flight, with references to the first day
	h.nextDays(3)
	h.finish(ds[0], delivery.Success, 0)
	h.finish(ds[1], delivery.Failed, 0)
	h.finish(ds[2], delivery.Pending, time.Minute)
	h.settle()
	h.sound()
	if d, err := h.Requeue(t.Context(), lane, 2); err != nil || string(d.Payload) != string(ds[1].Payload) {
		t.Errorf("%+v, %v", d, err)
	}
	if w := h.waiting(lane); len(w) != 1 || string(w[0].Payload) != string(ds[2].Payload) {
		t.Errorf("%+v", w)
	}
}

func TestManyPendingAreCopiedForwardInChunks(t *testing.T) {
	h := newHarness(t, shortRetention)
	l := h.lane("x.a", "x.b")
	var evs []*Event
	for n := range 700 {
		evs = append(evs, testEvent(n, l...))
	}
	h.accept(evs...)
	h.nextDays(2)
	h.accept(testEvent(1, l...))
	mustEqual(t, "ready", len(h.ready(l[0])), 701)
	mustEqual(t, "ready on b", len(h.ready(l[1])), 701)
	h.sound()
	if _, err := h.Event(5); err != nil {
		t.Errorf("event copied forward: %v", err)
	}
}

func TestTheSizeLimitDropsTheOldestDayFirst(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.Retention.MaxBytes = 6000 })
	lane := h.lane("x.a")[0]
	for range 5 {
		for n := range 10 {
			h.accept(testEvent(n, lane))
		}
		for _, d := range h.ready(lane)[1:] {
			h.finish(d, delivery.Success, 0)
		}
		h.settle()
		h.clock.advance(day)
	}
	h.retain()
	if _, err := h.Event(2); !errors.Is(err, ErrNotFound) {
		t.Errorf("oldest day is still there: %v", err)
	}
	if _, err := h.Event(50); err != nil {
		t.Errorf("newest day went: %v", err)
	}
	if got := h.ready(lane); len(got) == 0 || got[0].Seq != 1 {
		t.Errorf("pending: %v", seqs(got))
	}
	h.sound()
}

func TestAWallClockAYearOffLosesStallsAndWipesNothing(t *testing.T) {
	for name, jump := range map[string]time.Duration{"ahead": 365 * day, "behind": -365 * day} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			lane := h.lane("x.a")[0]
			keyed := func() *Event { e := testEvent(9, lane); e.IdempotencyKey = "k"; return e }
			h.accept(testEvent(1, lane), testEvent(2, lane), testEvent(3, lane), keyed())
			ds := h.ready(lane)
			h.finish(ds[0], delivery.Success, 0)
			h.finish(ds[1], delivery.Pending, time.Minute)
			h.settle()
			before := h.Now()
			h.clock.wall.Add(jump.Milliseconds()) // while running
			mustEqual(t, "relay time", h.Now(), before)
			h.accept(testEvent(5, lane))
			check := func(when string) {
				t.Helper()
				mustSeqs(t, when, h.ready(lane), 3, 4, 5)
				w := h.waiting(lane)
				mustSeqs(t, when, w, 2)
				if in := w[0].Due - h.Now(); in > 60000 || in < -dayMillis {
					t.Errorf("%s: due in %d ms", when, in)
				}
				if _, err := h.Event(1); err != nil {
					t.Errorf("%s: payload: %v", when, err)
				}
				if got := h.states(lane); len(got) != 5 {
					t.Errorf("%s: %v", when, got)
				}
				h.sound()
			}
			check("while running")
			h.reopen() // across a restart
			if now := h.Now(); now < before || now > before+dayMillis {
				t.Errorf("relay time went from %d to %d", before, now)
			}
			check("after a restart")
			early := keyed()
			h.accept(early)
			mustEqual(t, "key known after a restart", early.Duplicate, true)
			h.clock.wall.Add(-jump.Milliseconds())
			h.reopen()
			check("after the clock was set right")
			h.clock.advance(time.Minute)
			due, _, err := h.ReadWaiting(lane, 0, 0, h.Now(), 10, 1<<20)
			if err != nil || len(due) != 1 {
				t.Errorf("due: %v, %v", due, err)
			}
			again := keyed()
			h.accept(again)
			mustEqual(t, "key still known", again.Duplicate, true)
		})
	}
}

// A service that is started again and again while the clock is wrong ages what it has
// by one day, and by the next when that has passed.
func TestStartsUnderAWallClockFarAheadWipeNothing(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	keyed := func() *Event { e := testEvent(9, lane); e.IdempotencyKey = "k"; return e }
	h.accept(keyed())
	h.finish(h.ready(lane)[0], delivery.Success, 0)
	h.settle()
	for n := range 12 {
		h.close()
		h.clock.wall.Add((365 * day).Milliseconds())
		h.open()
		h.letRest()
		again := keyed()
		h.accept(again)
		mustEqual(t, "key known", again.Duplicate, true)
		if ev, err := h.Event(1); err != nil || ev.Payloads[FormatPeanuts] == nil {
			t.Fatalf("after %d starts: %v", n+1, err)
		}
		mustEqual(t, "listed", len(h.states(lane)), 1)
		h.clock.advance(time.Hour)
	}
	h.clock.advance(13 * time.Hour)
	before := h.Now()
	h.close()
	h.clock.wall.Add((365 * day).Milliseconds())
	h.open()
	mustEqual(t, "days since the start before", (h.Now()-before)/dayMillis, int64(1))
	later := keyed()
	h.accept(later)
	mustEqual(t, "key of more than a day ago is known", later.Duplicate, false)
	h.sound()
}

func TestSpaceIsGivenBackAfterChurn(t *testing.T) {
	var asked atomic.Int64
	h := newHarness(t, func(o *Options) {
		// Every look at the clock finds that the store has been quiet.
		o.elapsed = func() time.Duration { return time.Duration(asked.Add(1)) * 2 * quiet }
	}, lookNever)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.finish(h.ready(lane)[0], delivery.Success, 0)
	h.settle()
	given := func() (done bool) {
		h.do(t.Context(), func(*group) error {
			c := &h.Store.c.space
			done = !c.busy && c.churn < spaceChurn
			return nil
		})
		return done
	}
	h.resting() // DropPrefix and Flatten stop and start the compactors themselves
	h.do(t.Context(), func(*group) error {
		h.Store.c.space.churn, h.Store.c.space.armed = spaceChurn, true
		h.Store.c.space.timer.Reset(0)
		return nil
	})
	for i := 0; !given(); i++ {
		if i > 10000 {
			t.Fatal("space was not given back")
		}
	}
	mustEqual(t, "compactors", compactorsRunning(), 2)
	h.accept(testEvent(2, lane))
	mustEqual(t, "states", len(h.states(lane)), 2)
	h.sound()
}
