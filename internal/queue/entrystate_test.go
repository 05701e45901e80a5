package queue

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// wantsSink is a configuration with one webhook of a sink that is no receiver of
// HTTP.
func wantsSink(webhook, sink string) []LaneWant {
	return []LaneWant{{Webhook: webhook, Identity: LaneIdentity{Sink: sink}}}
}

func (h *harness) configure(want ...LaneWant) map[string]LaneInfo {
	h.t.Helper()
	m, err := h.SetLanes(h.t.Context(), want)
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

// deliver accepts one event of an entry and delivers it, with a state.
func (h *harness) deliver(lane Lane, sink, entry, typ string, state []byte) Delivery {
	h.t.Helper()
	ev := testEvent(1, lane)
	ev.EntryID, ev.Type = entry, typ
	seq := h.accept(ev)[0].Seq
	ds := h.ready(lane)
	i := slices.IndexFunc(ds, func(d Delivery) bool { return d.Seq == seq })
	h.finishWith(ds[i], sink, state)
	return ds[i]
}

func (h *harness) finishWith(d Delivery, sink string, state []byte) {
	h.t.Helper()
	a := attemptOf(d, delivery.Success, 0)
	a.EntryState = state
	h.Complete(Completion{Delivery: d, Attempt: a, Sink: sink})
	h.settle()
}

func (h *harness) state(lane Lane, sink, entry string) string {
	h.t.Helper()
	state, err := h.EntryState(lane, sink, entry)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(state)
}

// swept waits until nothing is left to discard.
func (h *harness) swept() {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		busy := false
		if err := h.do(h.t.Context(), func(*group) error { busy = h.c.sweep.wanted; return errUnchanged }); err != errUnchanged {
			h.t.Fatal(err)
		}
		if !busy {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatal("states are still being discarded")
		}
	}
}

// rows is how many rows of a kind there are.
func (h *harness) rows(kind byte) int {
	txn := h.db.NewTransaction(false)
	defer txn.Discard()
	return len(keysFrom(txn, []byte{kind}, []byte{kind}, 1<<20))
}

func TestAnEntrysStateIsKeptUntilItIsReplacedOrTheEntryIsDeleted(t *testing.T) {
	h := newHarness(t)
	lane := h.configure(wantsSink("x.a", "slack")...)["x.a"].Lane
	const sink = "slack"
	for _, step := range []struct {
		typ   string
		state []byte
		want  string
	}{
		{"entry.updated", nil, ""},
		{"entry.created", []byte("1"), "1"},
		{"entry.updated", nil, "1"},
		{"entry.updated", []byte("2"), "2"},
		{"entry.updated", bytes.Repeat([]byte("x"), MaxEntryState+1), "2"},
		{"entry.deleted", []byte("tombstone"), "tombstone"},
		{"entry.deleted", nil, ""},
		{"entry.deleted", nil, ""},
		{"entry.created", []byte("3"), "3"},
		{"entry.updated", []byte{}, ""},
		{"entry.updated", bytes.Repeat([]byte("y"), MaxEntryState), string(bytes.Repeat([]byte("y"), MaxEntryState))},
	} {
		h.deliver(lane, sink, "e1", step.typ, step.state)
		if got := h.state(lane, sink, "e1"); got != step.want {
			t.Errorf("after %s with %.20q: %.20q, want %.20q", step.typ, step.state, got, step.want)
		}
		h.reopen()
		h.configure(wantsSink("x.a", "slack")...)
		if got := h.state(lane, sink, "e1"); got != step.want {
			t.Errorf("after %s with %.20q and a restart: %.20q, want %.20q", step.typ, step.state, got, step.want)
		}
	}
	h.sound()
}

func TestOnlyASuccessOfASinkThatKeepsStatesWritesOne(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane), testEvent(3, lane))
	for i, state := range []delivery.State{delivery.Failed, delivery.Pending, delivery.Success} {
		d := h.ready(lane)[0]
		a := attemptOf(d, state, time.Hour)
		a.EntryState = []byte("state")
		sink := "http"
		if i == 2 {
			sink = ""
		}
		h.Complete(Completion{Delivery: d, Attempt: a, Sink: sink})
		h.settle()
	}
	mustEqual(t, "rows", h.rows(kindState), 0)
}

func TestWebhooksAndSinksDoNotShareStates(t *testing.T) {
	h := newHarness(t)
	m := h.configure(append(wantsSink("x.a", "slack"), wantsSink("x.b", "slack")...)...)
	a, b := m["x.a"].Lane, m["x.b"].Lane
	h.deliver(a, "slack", "e1", "entry.created", []byte("of a"))
	h.deliver(b, "slack", "e1", "entry.created", []byte("of b"))
	mustEqual(t, "a", h.state(a, "slack", "e1"), "of a")
	mustEqual(t, "b", h.state(b, "slack", "e1"), "of b")
	mustEqual(t, "another sink", h.state(a, "sheets", "e1"), "")
	mustEqual(t, "another entry", h.state(a, "slack", "e2"), "")
}

func TestAChangeOfTheSinkDiscardsWhatTheFormerOneKept(t *testing.T) {
	h := newHarness(t)
	const entries = 3*maxSweepStep + 7
	m := h.configure(append(wantsSink("x.a", "slack"), wantsSink("x.b", "slack")...)...)
	a, b := m["x.a"].Lane, m["x.b"].Lane
	evs := make([]*Event, entries)
	for i := range evs {
		evs[i] = testEvent(i, a, b)
	}
	h.accept(evs...)
	for _, lane := range []Lane{a, b} {
		for _, d := range h.ready(lane) {
			at := attemptOf(d, delivery.Success, 0)
			at.EntryState = fmt.Appendf(nil, "%d %s", lane, d.EntryID)
			h.Complete(Completion{Delivery: d, Attempt: at, Sink: "slack"})
		}
	}
	h.settle()
	mustEqual(t, "rows", h.rows(kindState), 2*entries)
	groups := h.Stats().Groups
	h.configure(append(wantsSink("x.a", "sheets"), wantsSink("x.b", "slack")...)...)
	h.swept()
	mustEqual(t, "rows", h.rows(kindState), entries)
	if n := h.Stats().Groups - groups; n < entries/maxSweepStep {
		t.Errorf("discarded in %d transactions", n)
	}
	mustEqual(t, "a", h.state(a, "slack", "e1"), "")
	mustEqual(t, "b", h.state(b, "slack", "e1"), fmt.Sprintf("%d e1", b))
	h.sound()

	// What was under way for the former sink keeps nothing any more.
	h.deliver(a, "slack", "e1", "entry.updated", []byte("late"))
	mustEqual(t, "late", h.state(a, "slack", "e1"), "")
	h.deliver(a, "sheets", "e1", "entry.updated", []byte("row 1"))
	mustEqual(t, "new", h.state(a, "sheets", "e1"), "row 1")
	h.configure(append(wantsSink("x.a", "slack"), wantsSink("x.b", "slack")...)...)
	h.swept()
	mustEqual(t, "after going back", h.state(a, "slack", "e1")+h.state(a, "sheets", "e1"), "")
	for n := range 5 {
		h.deliver(a, "slack", fmt.Sprintf("e%d", n), "entry.updated", []byte("again"))
	}
	h.configure(append(wantsSink("x.a", "sheets"), wantsSink("x.b", "slack")...)...)
	h.swept()
	mustEqual(t, "rows after another change", h.rows(kindState), entries)
	h.sound()
}

func TestDiscardingGoesOnAfterARestart(t *testing.T) {
	h := newHarness(t)
	lane := h.configure(wantsSink("x.a", "slack")...)["x.a"].Lane
	for n := range 5 {
		h.deliver(lane, "slack", fmt.Sprintf("e%d", n), "entry.created", []byte("s"))
	}
	h.reopen() // as if it had ended before the first step
	h.deliver(lane, "slack", "e0", "entry.updated", []byte("before the configuration is known"))
	mustEqual(t, "state", h.state(lane, "slack", "e0"), "before the configuration is known")
	mustEqual(t, "rows", h.rows(kindState), 5)
	h.configure(wantsSink("x.a", "sheets")...)
	h.swept()
	mustEqual(t, "rows", h.rows(kindState), 0)
	h.sound()
}

func TestTheStatesOfARemovedWebhookWaitForItUntilItsTimeIsOver(t *testing.T) {
	h := newHarness(t)
	lane := h.configure(wantsSink("x.a", "slack")...)["x.a"].Lane
	h.deliver(lane, "slack", "e1", "entry.created", []byte("s"))
	h.configure()
	h.swept()
	h.clock.advance(RemovedKeep / 2)
	h.reopen()
	h.configure()
	h.swept()
	h.configure(wantsSink("x.a", "slack")...)
	h.swept()
	mustEqual(t, "after it came back", h.state(lane, "slack", "e1"), "s")

	h.configure()
	h.clock.advance(RemovedKeep + time.Hour)
	h.expiry.poke()
	for deadline := time.Now().Add(30 * time.Second); h.rows(kindState) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the states outlive the webhook")
		}
	}
	h.swept()
	h.configure(wantsSink("x.a", "slack")...)
	mustEqual(t, "after its time", h.state(lane, "slack", "e1"), "")
	h.sound()
}

func TestTheStatesOfAWebhookThatReturnedWaitUntilItIsReleased(t *testing.T) {
	h := newHarness(t)
	lane := h.configure(wantsSink("x.a", "slack")...)["x.a"].Lane
	h.deliver(lane, "slack", "e1", "entry.created", []byte("s"))
	h.accept(testEvent(2, lane)) // stays pending
	h.configure()
	if m := h.configure(wantsSink("x.a", "sheets")...); !m["x.a"].Returned {
		t.Fatal("not returned")
	}
	h.swept()
	h.configure(wantsSink("x.a", "slack")...) // a mistake, put right
	h.swept()
	mustEqual(t, "after the former sink came back", h.state(lane, "slack", "e1"), "s")

	h.configure()
	h.configure(wantsSink("x.a", "sheets")...)
	if err := h.Release(t.Context(), lane); err != nil {
		t.Fatal(err)
	}
	h.swept()
	mustEqual(t, "rows after it was released", h.rows(kindState), 0)
	h.sound()
}

func TestRetentionLeavesStatesAlone(t *testing.T) {
	h := newHarness(t)
	lane := h.configure(wantsSink("x.a", "slack")...)["x.a"].Lane
	h.deliver(lane, "slack", "e1", "entry.created", []byte("s"))
	for range 5 {
		h.clock.advance(100 * 24 * time.Hour)
		h.reopen()
		h.configure(wantsSink("x.a", "slack")...)
		h.settle()
	}
	mustEqual(t, "state", h.state(lane, "slack", "e1"), "s")
}

func TestADamagedStateIsSetAsideAndIsNothing(t *testing.T) {
	h := newHarness(t)
	lane := h.configure(wantsSink("x.a", "slack")...)["x.a"].Lane
	h.deliver(lane, "slack", "e1", "entry.created", []byte("s"))
	key := stateKey(lane, sinkNumber("slack"), "e1")
	if err := h.do(t.Context(), func(g *group) error { g.put(key, []byte("rubbish")); return nil }); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "state", h.state(lane, "slack", "e1"), "")
	mustEqual(t, "set aside", h.Stats().Quarantined, 1)
	mustEqual(t, "rows", h.rows(kindState), 0)
	h.deliver(lane, "slack", "e1", "entry.updated", []byte("again"))
	mustEqual(t, "state", h.state(lane, "slack", "e1"), "again")
}

func TestCrashesAreCountedOverARestartAndForgottenByAnOperatorsRetry(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	crash := func() Delivery {
		d := h.ready(lane)[0]
		h.Complete(Completion{Delivery: d, Attempt: &delivery.Attempt{Number: d.Attempts + 1, Outcome: delivery.Crashed, State: delivery.Pending,
			Rule: delivery.RuleCrashed, Code: delivery.CodePluginCrash, Error: "signal: killed"}})
		h.settle()
		return h.ready(lane)[0]
	}
	for n := range 2 {
		d := crash()
		if d.Crashes != n+1 || d.Attempts != 0 || d.Tries != 0 {
			t.Fatalf("after crash %d: %+v", n+1, d)
		}
		h.reopen()
	}
	sum, err := h.Summary(lane, 1)
	if err != nil || sum.Code != delivery.CodePluginCrash || sum.Error != "signal: killed" || sum.Attempts != 0 {
		t.Errorf("it is listed as %+v, %v", sum, err)
	}
	if as, err := h.Attempts(lane, 1); err != nil || len(as) != 2 || as[0].Outcome != delivery.Crashed || as[1].Outcome != delivery.Crashed {
		t.Errorf("attempts: %+v, %v", as, err)
	}
	if d, err := h.Requeue(t.Context(), lane, 1); err != nil || d.Crashes != 0 || d.Track != Ready {
		t.Errorf("after a retry: %+v, %v", d, err)
	}
	d := crash()
	mustEqual(t, "crashes", d.Crashes, 1)
	h.finish(d, delivery.Pending, time.Hour) // crashes are remembered while it waits
	h.settle()
	d = h.waiting(lane)[0]
	mustEqual(t, "crashes of one that waits", d.Crashes, 1)
	if d, err := h.Requeue(t.Context(), lane, 1); err != nil || d.Crashes != 0 || d.Track != Returning {
		t.Errorf("after a retry: %+v, %v", d, err)
	}
	d = h.returning(lane)[0]
	mustEqual(t, "crashes of one that was retried", d.Crashes, 0)
	a := attemptOf(d, delivery.Failed, 0)
	a.Outcome, a.Rule = delivery.Crashed, delivery.RulePoison // as package retry has it
	h.Complete(Completion{Delivery: d, Attempt: a})
	h.settle()
	mustEqual(t, "state", h.states(lane)[1], delivery.Failed)
	if d, err := h.Requeue(t.Context(), lane, 1); err != nil || d.Crashes != 0 {
		t.Errorf("after a retry: %+v, %v", d, err)
	}
	h.sound()
}

func TestOutcomesThatComeTogetherAreAllRecordedHoweverMany(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	const events = maxCompletions + 2000
	for n := 0; n < events; {
		var evs []*Event
		for range 1000 {
			evs = append(evs, testEvent(n, lane))
			n++
		}
		h.accept(evs...)
	}
	var cs []Completion
	for _, d := range h.ready(lane) {
		cs = append(cs, Completion{Delivery: d, Attempt: attemptOf(d, delivery.Success, 0)})
	}
	last := &cs[len(cs)-1]
	last.Attempt = attemptOf(last.Delivery, delivery.Pending, time.Hour)
	due := h.Now() + time.Hour.Milliseconds()
	h.CompleteAll(cs)
	h.settle()
	mustEqual(t, "success", h.Stats().Success, int64(len(cs)-1))
	mustEqual(t, "due", h.waiting(lane)[0].Due, due)
	h.CompleteAll(nil)
	h.sound()
}

func TestWhatASinkSaysOfAnAttemptIsKept(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane))
	long := "https://sheet.example/" + string(bytes.Repeat([]byte("x"), maxText))
	for i, d := range h.ready(lane) {
		a := attemptOf(d, []delivery.State{delivery.Success, delivery.Pending}[i], time.Hour)
		a.Message, a.RemoteURL = string(bytes.Repeat([]byte("m"), maxText+1)), []string{"https://sheet.example/7", long}[i]
		h.Complete(Completion{Delivery: d, Attempt: a})
	}
	h.settle()
	h.reopen()
	for seq, url := range map[uint64]string{1: "https://sheet.example/7", 2: ""} {
		as, err := h.Attempts(lane, seq)
		if err != nil || len(as) != 1 || len(as[0].Message) != maxText || as[0].RemoteURL != url {
			t.Errorf("attempts of %d: %+v, %v", seq, as, err)
		}
	}
}

func TestEveryAttemptIsInTheLogAlsoThoseThatDidNotCount(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	d := h.entry(lane, "a", 1)[0]
	made := 0
	try := func(outcome delivery.Outcome) {
		made++
		a := attemptOf(d, delivery.Pending, 0)
		a.Outcome, a.Message = outcome, fmt.Sprint(made)
		h.Complete(Completion{Delivery: d, Attempt: a})
		h.settle()
	}
	said := func() (numbers []int, messages []string) {
		as, err := h.Attempts(lane, d.Seq)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range as {
			numbers, messages = append(numbers, a.Number), append(messages, a.Message)
		}
		return numbers, messages
	}
	try(delivery.RateLimited)
	try(delivery.Crashed)
	h.reopen()
	try(delivery.Misconfigured)
	try(delivery.Retry)
	d = h.waiting(lane)[0]
	try(delivery.RateLimited)
	h.clock.advance(25 * time.Hour) // the next day's rows
	try(delivery.RateLimited)
	try(delivery.Rejected)
	numbers, messages := said()
	mustEqual(t, "numbers", fmt.Sprint(numbers), "[1 1 1 1 2 2 2]")
	mustEqual(t, "messages", fmt.Sprint(messages), "[1 2 3 4 5 6 7]")
	h.sound()
}

func TestAttemptsThatDoNotCountFillADiskNeitherOnOneDayNorEver(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	d := h.entry(lane, "a", 1)[0]
	const made = 2*maxUncounted + 5
	for n := range made {
		a := attemptOf(d, delivery.Pending, 0)
		a.Outcome, a.Message = delivery.RateLimited, fmt.Sprint(n+1)
		h.Complete(Completion{Delivery: d, Attempt: a})
	}
	h.settle()
	as, err := h.Attempts(lane, d.Seq)
	if err != nil || len(as) != maxUncounted {
		t.Fatal(len(as), err)
	}
	mustEqual(t, "the first that is kept", as[0].Message, "1")
	mustEqual(t, "the last that is kept", as[len(as)-1].Message, fmt.Sprint(made))
	h.sound()
}

// Each turn to another would begin anew, and pass what was removed before.
func TestDiscardingIsThroughWithOneSinkOfOneLaneBeforeTheNext(t *testing.T) {
	h := newHarness(t)
	lanes := h.lane("x.a", "x.b", "x.c", "x.d")
	err := h.do(t.Context(), func(g *group) error {
		for _, lane := range lanes {
			l := h.lanes[lane]
			l.told, l.sink, l.states = true, 1, []uint32{3, 2}
		}
		for range 100 {
			if lane, sink, ok := h.staleStates(g.now); lane != lanes[0] || sink != 2 || !ok {
				t.Errorf("lane %d, sink %d, %v", lane, sink, ok)
				break
			}
		}
		for _, lane := range lanes {
			h.lanes[lane].states = nil
		}
		return errUnchanged
	})
	if err != errUnchanged {
		t.Fatal(err)
	}
}
