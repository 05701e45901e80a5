package queue

import (
	"bytes"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
)

func TestAcceptedEventIsReadBackByteForByte(t *testing.T) {
	h := newHarness(t)
	l := h.lane("expenses.a", "expenses.b")
	ev := testEvent(1, l[0])
	ev.Payloads[FormatEvent] = append([]byte(`{"id":"`), bytes.Repeat([]byte("0"), id.EventLen)...)
	ev.Payloads[FormatEvent] = append(ev.Payloads[FormatEvent], `"}`...)
	ev.IDAt = 7
	ev.Deliveries = append(ev.Deliveries, NewDelivery{l[1], FormatEvent})
	ev.Skipped = []Skip{{Lane: l[1], Reason: delivery.SkipDisabled}}
	h.accept(ev, testEvent(2, l[0]))
	mustEqual(t, "id", ev.ID, eventIDOf(h.Store, 1))
	want := `{"id":"` + ev.ID + `"}`
	mustEqual(t, "payload with id", string(ev.Payloads[FormatEvent]), want)
	mustSeqs(t, "offered", h.fresh, 1, 1, 2)
	h.reopen()
	mustSeqs(t, "lane a", h.ready(l[0]), 1, 2)
	d := h.ready(l[1])[0]
	mustEqual(t, "stored payload with id", string(d.Payload), want)
	offered := h.fresh[1]
	if !reflect.DeepEqual(d, offered) {
		t.Errorf("read back\n%+v\noffered\n%+v", d, offered)
	}
	r, err := h.Event(1)
	if err != nil || !reflect.DeepEqual(r.Skipped, ev.Skipped) || !reflect.DeepEqual(r.Deliveries, ev.Deliveries) ||
		!r.Timestamp.Equal(ev.Timestamp) || r.Helper != "expenses" {
		t.Errorf("event: %+v, %v", r, err)
	}
	h.sound()
}

func TestTheLifeOfADelivery(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("expenses.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane), testEvent(3, lane))
	ds := h.ready(lane)
	h.finish(ds[0], delivery.Success, 0)
	h.finish(ds[1], delivery.Failed, 0)
	h.finish(ds[2], delivery.Pending, time.Minute)
	h.settle()
	mustSeqs(t, "ready", h.ready(lane))
	due, next, err := h.ReadWaiting(lane, 0, 0, h.Now(), 10, 1<<20)
	if err != nil || len(due) != 0 || next != h.Now()+60000 {
		t.Fatalf("before its time: %v, next %d, %v", due, next, err)
	}
	sum, err := h.Summary(lane, 3)
	if err != nil || sum.State != delivery.Pending || sum.StatusCode != 503 || !sum.Next.Equal(h.clock.now().Add(time.Minute)) {
		t.Fatalf("waiting: %+v, %v", sum, err)
	}
	h.clock.advance(time.Minute)
	w := h.waiting(lane)
	mustSeqs(t, "waiting", w, 3)
	h.finish(w[0], delivery.Success, 0)
	h.settle()
	as, err := h.Attempts(lane, 3)
	if err != nil || len(as) != 2 || as[0].Status != 503 || as[1].Status != 200 || as[1].Request == nil || as[1].Request.Headers[0].Value != "${KEY}" {
		t.Fatalf("attempts: %+v, %v", as, err)
	}
	want := map[uint64]delivery.State{1: delivery.Success, 2: delivery.Failed, 3: delivery.Success}
	if got := h.states(lane); !reflect.DeepEqual(got, want) {
		t.Errorf("states %v", got)
	}
	if st := h.Stats(); st.Success != 2 || st.Failed != 1 || st.Pending != 0 || st.LiveBytes != 0 {
		t.Errorf("stats %+v", st)
	}
	h.reopen()
	if got := h.states(lane); !reflect.DeepEqual(got, want) {
		t.Errorf("after reopening: %v", got)
	}
	h.sound()
}

func TestAttemptsThatDoNotCountLeaveTheRowWhereItIs(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("expenses.a")[0]
	h.accept(testEvent(1, lane))
	d := h.ready(lane)[0]
	for _, o := range []delivery.Outcome{delivery.Interrupted, delivery.RateLimited, delivery.Misconfigured} {
		a := attemptOf(d, delivery.Pending, 0)
		a.Outcome = o
		h.Complete(Completion{Delivery: d, Attempt: a})
	}
	h.settle()
	mustSeqs(t, "ready", h.ready(lane), 1)
	mustEqual(t, "attempts", h.ready(lane)[0].Attempts, 0)
	as, err := h.Attempts(lane, 1)
	if err != nil || len(as) != 2 || as[0].Outcome != delivery.RateLimited || as[1].Outcome != delivery.Misconfigured {
		t.Errorf("log: %+v, %v", as, err)
	}
	h.sound()
}

func TestRequeueAndDrop(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("expenses.a")[0]
	for n := range 5 {
		h.accept(testEvent(n+1, lane))
	}
	ds := h.ready(lane)
	h.finish(ds[0], delivery.Success, 0)
	h.finish(ds[1], delivery.Failed, 0)
	h.finish(ds[2], delivery.Pending, time.Hour)
	for seq := uint64(1); seq <= 4; seq++ {
		d, err := h.Requeue(t.Context(), lane, seq)
		if err != nil || d.Seq != seq || d.Tries != 0 || string(d.Payload) != string(ds[seq-1].Payload) {
			t.Fatalf("requeue %d: %+v, %v", seq, d, err)
		}
		if want := map[bool]Track{true: Returning, false: Ready}[seq < 4]; d.Track != want {
			t.Errorf("requeue %d: track %d", seq, d.Track)
		}
	}
	mustSeqs(t, "returning", h.returning(lane), 1, 2, 3)
	mustEqual(t, "attempts go on counting", h.returning(lane)[0].Attempts, 1)
	h.finish(h.returning(lane)[0], delivery.Success, 0)
	h.settle()
	if as, err := h.Attempts(lane, 1); err != nil || len(as) != 2 || as[1].Number != 2 {
		t.Errorf("attempts of 1: %+v, %v", as, err)
	}
	if _, err := h.Requeue(t.Context(), lane, 99); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if err := h.Drop(t.Context(), lane, 1); !errors.Is(err, ErrDelivered) {
		t.Errorf("drop of a success: %v", err)
	}
	for _, seq := range []uint64{2, 4} {
		if err := h.Drop(t.Context(), lane, seq); err != nil {
			t.Fatal(err)
		}
		if sum, err := h.Summary(lane, seq); err != nil || sum.Code != delivery.CodeDropped || sum.State != delivery.Failed {
			t.Errorf("dropped %d: %+v, %v", seq, sum, err)
		}
	}
	if err := h.Drop(t.Context(), lane, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Summary(lane, 2); !errors.Is(err, ErrNotFound) {
		t.Errorf("dropped twice: %v", err)
	}
	h.sound()
}

func TestIdempotencyAcrossGroupsAndRestarts(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("expenses.a")[0]
	keyed := func() *Event { e := testEvent(1, lane); e.IdempotencyKey = "k"; return e }
	a, b := keyed(), keyed()
	h.accept(a, b) // one group
	if a.Duplicate || !b.Duplicate || b.Seq != a.Seq || b.ID != a.ID || len(b.Deliveries) != 1 {
		t.Fatalf("in one group: %+v, %+v", a, b)
	}
	h.reopen()
	c := keyed()
	h.accept(c)
	if !c.Duplicate || c.ID != a.ID {
		t.Errorf("after reopening: %+v", c)
	}
	other := testEvent(2, lane)
	other.IdempotencyKey = "k"
	if err := h.Accept(t.Context(), []*Event{other}); err != nil || !errors.Is(other.Err, ErrKeyReused) {
		t.Errorf("another body: %v, %v", err, other.Err)
	}
	foreign := keyed()
	foreign.Helper = "other"
	h.accept(foreign)
	mustEqual(t, "another helper's key", foreign.Duplicate, false)
	h.clock.advance(23 * time.Hour)
	d := keyed()
	h.accept(d)
	mustEqual(t, "after 23 h", d.Duplicate, true)
	h.clock.advance(2 * time.Hour)
	e := keyed()
	h.accept(e)
	mustEqual(t, "after 25 h", e.Duplicate, false)
	own := testEvent(3, lane)
	own.ID = "evt_mine"
	again := testEvent(3, lane)
	again.ID = "evt_mine"
	h.accept(own, again)
	mustEqual(t, "own id repeats", again.Duplicate, true)
	if rs, err := h.FindEvent("evt_mine"); err != nil || len(rs) != 1 || rs[0].Seq != own.Seq {
		t.Errorf("by own id: %+v, %v", rs, err)
	}
	if rs, err := h.FindEvent(a.ID); err != nil || len(rs) != 1 || rs[0].Seq != a.Seq {
		t.Errorf("by generated id: %+v, %v", rs, err)
	}
	h.sound()
}

func TestTwoAtOnceWithTheSameKeyAreOne(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("expenses.a")[0]
	const n = 32
	var wg sync.WaitGroup
	evs := make([]*Event, n)
	for i := range n {
		evs[i] = testEvent(1, lane)
		evs[i].IdempotencyKey = "same"
		wg.Go(func() {
			if err := h.Accept(t.Context(), []*Event{evs[i]}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	first := 0
	for _, ev := range evs {
		if !ev.Duplicate {
			first++
		}
	}
	mustEqual(t, "accepted", first, 1)
	mustSeqs(t, "ready", h.ready(lane), 1)
}

func TestQuotasRefuseOnlyWhatExceedsThem(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.MaxBytesPerHelper = 2000; o.MaxBytes = 4000 })
	l := h.lane("expenses.a", "notes.a")
	refusedAt := func(lane Lane) *QuotaError {
		for n := range 1000 {
			ev := testEvent(n, lane)
			if err := h.Accept(t.Context(), []*Event{ev}); err != nil {
				t.Fatal(err)
			}
			if ev.Err != nil {
				q, ok := errors.AsType[*QuotaError](ev.Err)
				if !ok {
					t.Fatal(ev.Err)
				}
				return q
			}
		}
		t.Fatal("never refused")
		return nil
	}
	q := refusedAt(l[0])
	if q.Helper != "expenses" || q.Live > q.Max || q.Max != 2000 {
		t.Errorf("first helper: %+v", q)
	}
	if q := refusedAt(l[1]); q.Helper != "notes" {
		t.Errorf("second helper: %+v", q)
	}
	for _, d := range h.ready(l[0]) {
		h.finish(d, delivery.Success, 0)
	}
	h.settle()
	h.accept(testEvent(1, l[0]))
	h.sound()
}

func TestLanesKeepTheirNumbers(t *testing.T) {
	h := newHarness(t)
	a := h.lane("x.a", "x.b")
	h.reopen()
	b := h.lane("x.c", "x.a")
	if a[0] != 1 || a[1] != 2 || b[0] != 3 || b[1] != 1 {
		t.Errorf("lanes %v, then %v", a, b)
	}
	mustEqual(t, "name", h.LaneName(2), "x.b")
	mustEqual(t, "unknown", h.LaneName(9), "")
}

func TestReadsArePagedByCountAndBytes(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	for n := range 10 {
		h.accept(testEvent(n, lane))
	}
	ds, more, err := h.ReadReady(lane, 0, 4, 1<<20)
	if err != nil || !more {
		t.Fatal(more, err)
	}
	mustSeqs(t, "first page", ds, 1, 2, 3, 4)
	ds, more, _ = h.ReadReady(lane, 4, 4, 1)
	mustSeqs(t, "one at least", ds, 5)
	mustEqual(t, "more", more, true)
	ds, more, _ = h.ReadReady(lane, 8, 4, 1<<20)
	mustSeqs(t, "last page", ds, 9, 10)
	mustEqual(t, "more at the end", more, false)
}

// Longer than most for its table of filters.
func TestListingPagesAndFilters(t *testing.T) {
	h := newHarness(t)
	l := h.lane("x.a", "x.b")
	start := h.clock.now()
	for n := range 30 {
		ev := testEvent(n+1, l...)
		if n%3 == 0 {
			ev.Type = "entry.deleted"
		}
		h.accept(ev)
		h.clock.advance(6 * time.Hour)
		if n%2 == 0 {
			for _, lane := range l {
				h.finish(h.ready(lane)[0], []delivery.State{delivery.Success, delivery.Failed}[n/2%2], 0)
			}
		}
	}
	h.settle()
	count := func(q ListQuery) int {
		q.Limit = 4
		n := 0
		prev := position{1<<64 - 1, 1<<32 - 1}
		for {
			sums, next, err := h.List(q)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range sums {
				at := position{s.Seq, s.Lane}
				if at.compare(prev) >= 0 {
					t.Fatalf("%v after %v", at, prev)
				}
				prev = at
			}
			n += len(sums)
			if q.Cursor = next; next == "" {
				return n
			}
		}
	}
	for _, c := range []struct {
		name string
		q    ListQuery
		want int
	}{
		{"all", ListQuery{}, 60},
		{"one lane", ListQuery{Lanes: l[:1]}, 30},
		{"success", ListQuery{States: []delivery.State{delivery.Success}}, 16},
		{"failed", ListQuery{States: []delivery.State{delivery.Failed}}, 14},
		{"pending", ListQuery{States: []delivery.State{delivery.Pending}}, 30},
		{"type", ListQuery{EventType: "entry.deleted"}, 20},
		{"since", ListQuery{Since: start.Add(29 * 6 * time.Hour)}, 2},
		{"until", ListQuery{Until: start.Add(6 * time.Hour)}, 2},
		{"between", ListQuery{Since: start.Add(48 * time.Hour), Until: start.Add(72 * time.Hour)}, 8},
		{"never", ListQuery{Since: start.Add(1000 * time.Hour)}, 0},
	} {
		mustEqual(t, c.name, count(c.q), c.want)
	}
	if _, _, err := h.List(ListQuery{Cursor: "nonsense"}); err == nil {
		t.Error("a bad cursor was taken")
	}
}

func TestReplayGoesOnAfterARestart(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	for n := range 20 {
		h.accept(testEvent(n+1, lane))
	}
	for i, d := range h.ready(lane) {
		h.finish(d, []delivery.State{delivery.Success, delivery.Failed}[i%2], 0)
	}
	h.settle()
	q := ReplayJob{Lane: lane, States: []delivery.State{delivery.Success}, Rate: 2.5}
	if counted, err := h.CountReplay(t.Context(), q); err != nil || counted.Matched != 10 {
		t.Fatal(counted.Matched, err)
	}
	j, err := h.CreateReplay(t.Context(), q)
	if err != nil || j.Matched != 10 || j.ID == "" {
		t.Fatal(j, err)
	}
	ds, done, err := h.StepReplay(t.Context(), j.ID, 4)
	if err != nil || done {
		t.Fatal(done, err)
	}
	mustSeqs(t, "first step", ds, 1, 3, 5, 7)
	if !ds[0].Replay {
		t.Error("not marked as a replay")
	}
	h.accept(testEvent(21, lane))
	h.reopen()
	if js := h.Replays(); len(js) != 1 || js[0].Cursor != 7 || js[0].Requeued != 4 || js[0].Rate != 2.5 || js[0].upto != 20 {
		t.Fatalf("jobs after reopening: %+v", js)
	}
	var rest []Delivery
	for range 10 {
		ds, done, err = h.StepReplay(t.Context(), j.ID, 4)
		if err != nil {
			t.Fatal(err)
		}
		if rest = append(rest, ds...); done {
			break
		}
	}
	mustSeqs(t, "the rest", rest, 9, 11, 13, 15, 17, 19)
	mustSeqs(t, "returning", h.returning(lane), 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)
	if err := h.CancelReplay(t.Context(), j.ID); err != nil || len(h.Replays()) != 0 {
		t.Error(err, h.Replays())
	}
	if _, _, err := h.StepReplay(t.Context(), j.ID, 4); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	h.sound()
}

func TestMarksRiseAndReadsStillFindEverything(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	var evs []*Event
	for n := range raiseEvery + 50 {
		evs = append(evs, testEvent(n+1, lane))
	}
	h.accept(evs...)
	ds := h.ready(lane)
	mustEqual(t, "ready", len(ds), len(evs))
	kept := ds[10]
	for i, d := range ds {
		if i != 10 {
			h.finish(d, delivery.Success, 0)
		}
	}
	h.settle()
	c, _ := h.marks(lane)
	if c.readyMark != kept.Seq {
		t.Errorf("mark is %d, the oldest unfinished is %d", c.readyMark, kept.Seq)
	}
	mustSeqs(t, "ready", h.ready(lane), kept.Seq)
	h.sound()
	h.reopen()
	mustSeqs(t, "ready after reopening", h.ready(lane), kept.Seq)
}
