package main

import (
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestATabIsMadeWithAFrozenHeaderAndHiddenColumns(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	want(t, s, sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{"amount":42.5,"category":"Food & Dining"}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a amount=42.5 category=Food & Dining"})
	v, _ := w.google.Look("expenses")
	equal(t, "header", w.header("Expenses"), "entry_id _event_id _sequence amount category")
	equal(t, "frozen rows", v.Frozen, 1)
	equal(t, "hidden columns", v.Hidden[:5], []bool{false, true, true, false, false})
	equal(t, "event and sequence", v.Cells[1][1:3], []any{"evt_1", 1.0})
	if n := len(w.google.Calls(sheetstest.Write)); n != 1 {
		t.Errorf("the tab, its header and its first row took %d writes, want 1", n)
	}
}

func TestABatchIsOneReadAndOneWrite(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	want(t, s, sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{"n":1}`))
	want(t, s, sinks.OutcomeDelivered, event(2, sinks.Created, "b", `{"n":1}`))
	reads, writes := len(w.google.Calls(sheetstest.Read)), len(w.google.Calls(sheetstest.Write))
	want(t, s, sinks.OutcomeDelivered,
		event(3, sinks.Created, "c", `{"n":1}`), event(4, sinks.Updated, "a", `{"n":2}`), event(5, sinks.Deleted, "b", `{}`))
	if r, u := len(w.google.Calls(sheetstest.Read))-reads, len(w.google.Calls(sheetstest.Write))-writes; r != 1 || u != 1 {
		t.Errorf("%d reads and %d writes, want one of each", r, u)
	}
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=2", "entry_id=c n=1"})
}

func TestTheSameEventAgainChangesNothing(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	batch := []*sinks.Delivery{event(1, sinks.Created, "a", `{"n":1}`), event(2, sinks.Created, "b", `{"n":2}`)}
	want(t, s, sinks.OutcomeDelivered, batch...)
	writes := len(w.google.Calls(sheetstest.Write))
	want(t, s, sinks.OutcomeSkipped, batch...)
	w.restart()
	want(t, w.open(), sinks.OutcomeSkipped, batch...)
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=1", "entry_id=b n=2"})
	if n := len(w.google.Calls(sheetstest.Write)); n != writes {
		t.Errorf("%d writes for nothing", n-writes)
	}
}

func TestAnOlderEventIsSkipped(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	want(t, s, sinks.OutcomeDelivered, event(7, sinks.Updated, "a", `{"n":"new"}`))
	want(t, s, sinks.OutcomeSkipped, event(3, sinks.Created, "a", `{"n":"old"}`))
	want(t, s, sinks.OutcomeSkipped, event(4, sinks.Deleted, "a", `{}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=new"})
}

func TestSeveralEventsOfAnEntryInOneBatchEndAsTheLast(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	want(t, s, sinks.OutcomeDelivered,
		event(1, sinks.Created, "a", `{"n":1}`), event(2, sinks.Updated, "a", `{"n":2}`),
		event(3, sinks.Created, "b", `{"n":1}`), event(4, sinks.Deleted, "b", `{}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=2"})
	v := send(t, s, event(6, sinks.Updated, "a", `{"n":6}`), event(5, sinks.Updated, "a", `{"n":5}`), event(6, sinks.Updated, "a", `{"n":6}`))
	equal(t, "outcomes", []string{v[0].Outcome.String(), v[1].Outcome.String(), v[2].Outcome.String()}, []string{"delivered", "skipped", "skipped"})
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=6"})
}

func TestWhatWasSkippedForAnEarlierDeliveryFailsWithIt(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	want(t, s, sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{"n":1}`))
	w.google.Fail(sheetstest.Write, sheetstest.Internal)
	v := send(t, s, event(1, sinks.Created, "a", `{"n":1}`), event(3, sinks.Created, "b", `{"n":3}`), event(2, sinks.Created, "b", `{"n":2}`))
	equal(t, "outcomes", []string{v[0].Outcome.String(), v[1].Outcome.String(), v[2].Outcome.String()}, []string{"skipped", "retry", "retry"})
}

func TestOnDelete(t *testing.T) {
	for how, wanted := range map[string][]string{
		remove: {"entry_id=b n=2"},
		keep:   {"entry_id=a n=1", "entry_id=b n=2"},
		mark:   {"entry_id=a _deleted=2025-01-15T14:32:00.000Z n=1", "entry_id=b n=2"},
	} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			s := w.open(func(s *Settings) { s.OnDelete = how })
			want(t, s, sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{"n":1}`), event(2, sinks.Created, "b", `{"n":2}`))
			send(t, s, event(3, sinks.Deleted, "a", `{"n":1}`))
			equal(t, "rows", w.rows("Expenses"), wanted)
			want(t, s, sinks.OutcomeSkipped, event(3, sinks.Deleted, "a", `{"n":1}`)) // once more
			equal(t, "rows", w.rows("Expenses"), wanted)
			want(t, s, sinks.OutcomeDelivered, event(4, sinks.Updated, "a", `{"n":4}`))
			if got := strings.Join(w.rows("Expenses"), "\n"); strings.Contains(got, "_deleted") || !strings.Contains(got, "entry_id=a n=4") {
				t.Errorf("an entry that came back:\n%s", got)
			}
		})
	}
}

func TestDeletedRowsThatNobodyHasAreNoError(t *testing.T) {
	w := newWorld(t)
	want(t, w.open(), sinks.OutcomeSkipped, event(1, sinks.Deleted, "a", `{}`))
	if n := len(w.google.Calls(sheetstest.Write)); n != 0 {
		t.Errorf("%d writes", n)
	}
}

func TestOnUpdateAppendKeepsEveryEvent(t *testing.T) {
	w := newWorld(t)
	s := w.open(func(s *Settings) { s.OnUpdate, s.OnDelete = appendRow, mark })
	batch := []*sinks.Delivery{
		event(1, sinks.Created, "a", `{"n":1}`), event(2, sinks.Updated, "a", `{"n":2}`), event(3, sinks.Deleted, "a", `{"n":2}`),
	}
	want(t, s, sinks.OutcomeDelivered, batch...)
	want(t, s, sinks.OutcomeSkipped, batch...)
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=1", "entry_id=a n=2", "entry_id=a _deleted=2025-01-15T14:32:00.000Z n=2"})
	gone := w.open(func(s *Settings) { s.OnUpdate = appendRow })
	want(t, gone, sinks.OutcomeDelivered, event(4, sinks.Deleted, "a", `{}`))
	equal(t, "rows", w.rows("Expenses"), []string{})
}

func TestTheLastRowOfAGridCanBeRemoved(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	want(t, s, sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{}`), event(2, sinks.Created, "b", `{}`))
	w.google.Shrink("Expenses")
	want(t, s, sinks.OutcomeDelivered, event(3, sinks.Deleted, "a", `{}`), event(4, sinks.Deleted, "b", `{}`))
	equal(t, "rows", w.rows("Expenses"), []string{})
	want(t, s, sinks.OutcomeDelivered, event(5, sinks.Created, "c", `{"n":1}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=c n=1"})
}

func TestAnEventWithoutAnEntryIsRejectedAlone(t *testing.T) {
	w := newWorld(t)
	v := send(t, w.open(), event(1, sinks.Created, "", `{}`), event(2, sinks.Created, "b", `{"n":1}`), event(3, sinks.Created, "c", `[1]`))
	equal(t, "outcomes", []string{v[0].Outcome.String(), v[1].Outcome.String(), v[2].Outcome.String()}, []string{"rejected", "delivered", "rejected"})
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=b n=1"})
}

func TestTheReceiptSaysWhereTheRowIs(t *testing.T) {
	w := newWorld(t)
	r, err := w.open().Deliver(t.Context(), event(1, sinks.Created, "a", `{}`))
	if err != nil {
		t.Fatal(err)
	}
	v, _ := w.google.Look("Expenses")
	if want := "https://docs.google.com/spreadsheets/d/" + sheetstest.ID + "/edit#gid="; !strings.HasPrefix(r.RemoteURL, want) || v.ID == 0 {
		t.Errorf("remote URL %q", r.RemoteURL)
	}
	equal(t, "message", r.Message, "row added")
}
