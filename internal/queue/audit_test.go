package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// audited is an audit that must not find anything.
func (h *harness) audited() Audit {
	h.t.Helper()
	a, err := h.Audit(h.t.Context(), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range a.Problems {
		h.t.Errorf("%s: %s", p.ID, p.What)
	}
	mustEqual(h.t, "problems", a.Wrong, 0)
	return a
}

// auditWorld is a store with deliveries of every fate on two lanes, over three days.
func auditWorld(t *testing.T, change ...func(*Options)) (h *harness, lanes []Lane) {
	h = newHarness(t, change...)
	lanes = h.lane("x.a", "x.b")
	for n := range 60 {
		if n%20 == 0 && n > 0 {
			h.clock.advance(25 * time.Hour)
		}
		ev := testEvent(n, lanes...)
		if n%5 == 0 {
			ev.ID = fmt.Sprintf("own-%d", n)
		}
		if n%7 == 0 {
			ev.Deliveries = nil
		}
		h.accept(ev)
	}
	for _, lane := range lanes {
		for i, d := range h.ready(lane) {
			switch i % 5 {
			case 1:
				h.finish(d, delivery.Success, 0)
			case 2:
				h.finish(d, delivery.Failed, 0)
			case 3:
				h.finish(d, delivery.Pending, time.Hour)
			case 4:
				h.finish(d, delivery.Failed, 0)
				h.settle()
				if _, err := h.Requeue(t.Context(), lane, d.Seq); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	h.settle()
	return h, lanes
}

func TestAnAuditOfASoundStoreAddsUp(t *testing.T) {
	h, lanes := auditWorld(t)
	a := h.audited()
	st := h.Stats()
	if a.Events != 60 || a.EventsKept != 60 || a.EventsForgotten != 0 || a.Deliveries != st.Deliveries || len(a.Lanes) != len(lanes) {
		t.Errorf("%+v", a)
	}
	for _, l := range a.Lanes {
		if l.Success+l.Failed != l.Delivered+l.Refused || l.Forgotten != 0 || l.Pending == 0 || l.Delivered == 0 || l.Refused == 0 {
			t.Errorf("%+v", l)
		}
	}
	mustEqual(t, "of an empty store", newHarness(t).audited().Deliveries, 0)
}

// What an operator removes and what retention lets go is accounted for, and not taken
// for lost.
func TestAnAuditKnowsWhatWasLetGo(t *testing.T) {
	h, lanes := auditWorld(t)
	sums, _, err := h.List(ListQuery{States: []delivery.State{delivery.Failed}})
	if err != nil || len(sums) < 2 {
		t.Fatalf("%d failed: %v", len(sums), err)
	}
	for _, sum := range sums[:2] {
		if err := h.Drop(t.Context(), sum.Lane, sum.Seq); err != nil {
			t.Fatal(err)
		}
	}
	h.reopen()
	h.lane("x.a", "x.b")
	a := h.audited()
	mustEqual(t, "removed", a.Lanes[0].Removed+a.Lanes[1].Removed, 2)
	mustEqual(t, "forgotten", a.Lanes[0].Forgotten+a.Lanes[1].Forgotten, 0)

	h.clock.advance(40 * 24 * time.Hour)
	h.retire()
	a = h.audited()
	if a.EventsForgotten == 0 || a.Lanes[0].Forgotten == 0 || a.Lanes[0].Pending == 0 || a.Lanes[0].Refused == 0 {
		t.Errorf("%+v", a)
	}
	h.clock.advance(100 * 24 * time.Hour)
	h.retire()
	h.accept(testEvent(61, lanes...))
	h.audited()
}

// retire lets retention do what is due.
func (h *harness) retire() {
	h.t.Helper()
	deadline := time.After(30 * time.Second)
	for over := false; !over; {
		err := h.do(h.t.Context(), func(*group) error { h.c.day.Reset(0); return nil })
		if err != nil {
			h.t.Fatal(err)
		}
		err = h.do(h.t.Context(), func(g *group) error {
			today := dayOf(g.now)
			over = h.c.retiring == nil
			for _, d := range h.days {
				for i, b := range buckets() {
					over = over && (d.gone&(1<<i) != 0 || int(today)-int(d.day) <= h.limits.Retention.keep(b))
				}
			}
			return nil
		})
		if err != nil {
			h.t.Fatal(err)
		}
		select {
		case <-deadline:
			h.t.Fatal("retention does not come to an end")
		default:
		}
	}
}

// The control of all audits: each kind of row is taken away, doubled or damaged behind
// the store's back, and each time the audit names it.
func TestAnAuditNoticesWhatIsWrong(t *testing.T) {
	first := func(h *harness, prefix ...byte) (key, val []byte) {
		h.t.Helper()
		err := h.db.View(func(txn *badger.Txn) error {
			return scanPrefix(txn, prefix, func(k, v []byte) error {
				if key == nil {
					key, val = k, v
				}
				return nil
			})
		})
		if err != nil || key == nil {
			h.t.Fatalf("no row %q: %v", prefix, err)
		}
		return key, val
	}
	// spoil changes the store's rows and answers with the id that must be named.
	type spoil func(h *harness, lanes []Lane, txn *badger.Txn) (id string)
	of := func(h *harness, key []byte, lane Lane) string {
		return id.Delivery(h.StoreID(), uint32(lane), tail8(key))
	}
	remove := func(prefix ...byte) spoil {
		return func(h *harness, lanes []Lane, txn *badger.Txn) string {
			key, _ := first(h, prefix...)
			if err := txn.Delete(key); err != nil {
				h.t.Fatal(err)
			}
			if prefix[0] == kindEvent {
				return id.Event(h.StoreID(), tail8(key))
			}
			return of(h, key, lanes[0])
		}
	}
	damage := func(prefix ...byte) spoil {
		return func(h *harness, lanes []Lane, txn *badger.Txn) string {
			key, val := first(h, prefix...)
			val[len(val)/2] ^= 1
			if err := txn.Set(key, val); err != nil {
				h.t.Fatal(err)
			}
			if prefix[0] == kindEvent {
				return id.Event(h.StoreID(), tail8(key))
			}
			return of(h, key, lanes[0])
		}
	}
	cases := map[string]spoil{
		"a ready row vanished":          remove(kindReady),
		"a waiting row vanished":        remove(kindWaiting),
		"the index of one vanished":     remove(kindDue),
		"a returning row vanished":      remove(kindReturning),
		"a success vanished":            remove(kindFinished, classDelivered),
		"a failure vanished":            remove(kindFinished, classFailed),
		"an event vanished":             remove(kindEvent, eventAccepted),
		"a ready row is damaged":        damage(kindReady),
		"a waiting row is damaged":      damage(kindWaiting),
		"a success is damaged":          damage(kindFinished, classDelivered),
		"the event's record is damaged": damage(kindEvent, eventAccepted),
		"a delivery is in two states": func(h *harness, lanes []Lane, txn *badger.Txn) string {
			key, _ := first(h, kindReady)
			at := appendLaneSeq(nil, kindReturning, lanes[0], tail8(key))
			row := pendingRow{ref: payloadRef{class: eventAccepted, day: h.days[0].day}}
			if err := txn.Set(at, row.append(nil, at)); err != nil {
				h.t.Fatal(err)
			}
			return of(h, key, lanes[0])
		},
		"a row of no lane": func(h *harness, _ []Lane, txn *badger.Txn) string {
			at := appendLaneSeq(nil, kindReady, 77, 1)
			if err := txn.Set(at, (&pendingRow{}).append(nil, at)); err != nil {
				h.t.Fatal(err)
			}
			return of(h, at, 77)
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h, lanes := auditWorld(t)
			var want string
			h.catchUp()
			if err := h.db.Update(func(txn *badger.Txn) error { want = c(h, lanes, txn); return nil }); err != nil {
				t.Fatal(err)
			}
			a, err := h.Audit(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if a.Wrong == 0 || !slices.ContainsFunc(a.Problems, func(p AuditProblem) bool { return p.ID == want }) {
				t.Errorf("%s is not named: %+v", want, a.Problems)
			}
		})
	}
	t.Attr("cases", fmt.Sprint(len(cases)))
}

// A snapshot is of one moment while the store goes on, and no day is dropped under it.
func TestAnAuditIsOfOneMomentWhileTheStoreWorks(t *testing.T) {
	h, lanes := auditWorld(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 300 {
			evs := []*Event{testEvent(n, lanes...)}
			if err := h.Accept(context.Background(), evs); err != nil {
				t.Error(err)
				return
			}
			d := Delivery{Lane: lanes[n%2], Seq: evs[0].Seq, Track: Ready, EventID: evs[0].ID, ref: payloadRef{class: eventAccepted, day: dayOf(h.Now())}}
			h.finish(d, delivery.Success, 0)
			if n%10 == 0 {
				h.clock.advance(10 * time.Hour) // days end all the time
			}
		}
	}()
	for over := false; !over; {
		h.audited()
		select {
		case <-done:
			over = true
		default:
		}
	}
	h.settle()
	h.audited()
	h.sound()
}

func TestAnAuditGivesWayToWhoeverNeedsTheStore(t *testing.T) {
	t.Run("its caller", func(t *testing.T) {
		h, _ := auditWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.Audit(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		h.audited()
	})
	t.Run("a store that closes", func(t *testing.T) {
		h, _ := auditWorld(t)
		p, err := h.openSnapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error, 1)
		go func(s *Store) { closed <- s.Close(context.Background()) }(h.Store)
		for err = nil; err == nil; {
			err = p.step(t.Context())
		}
		if !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
		p.close()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if _, err := h.Audit(t.Context(), nil); !errors.Is(err, ErrStopped) {
			t.Error(err)
		}
	})
}

// Whatever an audit reads again and again must not grow with the store.
func TestTheWindowsOfAnAuditCoverEveryEvent(t *testing.T) {
	h, lanes := auditWorld(t)
	h.acceptMany(30, lanes[0]) // 6,000: more than a window of many lanes
	names := make([]string, 0, 5000)
	for n := range 5000 {
		names = append(names, fmt.Sprintf("many.w%d", n))
	}
	h.lane(append(names, "x.a", "x.b")...)
	windows := 0
	a, err := h.Audit(t.Context(), func(p AuditProgress) {
		windows++
		if p.Events > p.Of {
			t.Errorf("%+v", p)
		}
	})
	if err != nil || a.Wrong != 0 || a.EventsKept != 6060 || windows < 2 {
		t.Errorf("%d events in %d windows: %v %s", a.EventsKept, windows, err, strings.Join(problemTexts(a), "\n"))
	}
}

func problemTexts(a Audit) (out []string) {
	for _, p := range a.Problems {
		out = append(out, p.ID+" "+p.What)
	}
	return out
}
