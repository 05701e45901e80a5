package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// three is a tab with the entries a, b and c.
func three(t *testing.T) (*world, *sink) {
	t.Helper()
	w := newWorld(t)
	s := w.open()
	want(t, s, sinks.OutcomeDelivered,
		event(1, sinks.Created, "a", `{"n":1}`), event(2, sinks.Created, "b", `{"n":2}`), event(3, sinks.Created, "c", `{"n":3}`))
	return w, s
}

func TestRowsAreFoundWhereverAnOperatorPutThem(t *testing.T) {
	for name, edit := range map[string]func(*sheetstest.Server){
		"sorted":              func(g *sheetstest.Server) { g.Sort("Expenses", 0, true) },
		"a row inserted":      func(g *sheetstest.Server) { g.InsertRow("Expenses", 1) },
		"notes between":       func(g *sheetstest.Server) { g.InsertRow("Expenses", 2); g.Type("Expenses", 2, 3, "a note") },
		"a column inserted":   func(g *sheetstest.Server) { g.InsertColumn("Expenses", 0) },
		"columns moved":       func(g *sheetstest.Server) { g.MoveColumn("Expenses", 3, 0); g.MoveColumn("Expenses", 1, 3) },
		"the tab renamed":     func(g *sheetstest.Server) { g.Rename("Expenses", "2025") },
		"a title in capitals": func(g *sheetstest.Server) { g.Type("Expenses", 0, 3, " N "); g.Type("Expenses", 0, 0, "Entry_ID") },
		"columns renamed": func(g *sheetstest.Server) {
			g.Type("Expenses", 0, 0, "Number")
			g.Type("Expenses", 0, 3, "Amount in €")
		},
		"a duplicate tab": func(g *sheetstest.Server) { g.Duplicate("Expenses", "Copy of Expenses") },
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				w, s := three(t)
				edit(w.google)
				if restarted {
					w.restart()
					s = w.open()
				}
				want(t, s, sinks.OutcomeDelivered, event(4, sinks.Updated, "b", `{"n":20}`), event(5, sinks.Deleted, "a", `{}`), event(6, sinks.Created, "d", `{"n":6}`))
				want(t, s, sinks.OutcomeSkipped, event(3, sinks.Created, "c", `{"n":3}`))
				tab := "Expenses"
				if _, ok := w.google.Look(tab); !ok {
					tab = "2025"
				}
				v, _ := w.google.Look(tab)
				var got []string
				for _, row := range v.Cells[1:] {
					var cells []string
					for i, c := range row {
						if c != nil && !v.Hidden[i] {
							cells = append(cells, cellText(c))
						}
					}
					slices.Sort(cells)
					got = append(got, strings.Join(cells, " "))
				}
				got = slices.DeleteFunc(got, func(r string) bool { return r == "" || r == "a note" })
				slices.Sort(got)
				equal(t, "rows", got, []string{"20 b", "3 c", "6 d"})
			})
		}
	}
}

func TestCellsOfAnOperatorStay(t *testing.T) {
	w, s := three(t)
	w.google.InsertColumn("Expenses", 3) // between the relay's
	w.google.Type("Expenses", 0, 3, "Paid by")
	w.google.Type("Expenses", 2, 3, "Ada")
	w.google.Type("Expenses", 2, 6, sheetstest.Formula("=E3*2")) // no header, and a gap before it
	want(t, s, sinks.OutcomeDelivered, event(4, sinks.Updated, "b", `{"n":20,"category":"food"}`))
	v, _ := w.google.Look("Expenses")
	equal(t, "header", w.header("Expenses"), "entry_id _event_id _sequence Paid by n category")
	equal(t, "row", v.Cells[2][:8], []any{"b", "evt_4", 4.0, "Ada", 20.0, "food", nil, sheetstest.Formula("=E3*2")})
}

func TestFieldsThatAnEntryNoLongerHasAreEmptied(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	want(t, s, sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{"amount":5,"discount":1}`))
	w.google.Type("Expenses", 0, 5, "Remark")
	w.google.Type("Expenses", 1, 5, "mine")
	want(t, s, sinks.OutcomeDelivered, event(2, sinks.Updated, "a", `{"amount":6}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a amount=6 Remark=mine"})
}

func TestATabOfAnOperatorGetsTheMissingColumnsAtItsEnd(t *testing.T) {
	w := newWorld(t)
	for i, title := range []string{"Date", "AMOUNT", "Remark"} {
		w.google.Type("Sheet1", 0, i, title)
	}
	w.google.Type("Sheet1", 1, 2, "an old row")
	s := w.open(func(s *Settings) { s.Tab = "sheet1" })
	want(t, s, sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{"amount":5,"date":"2025-01-15","paid":true}`))
	equal(t, "header", w.header("Sheet1"), "Date AMOUNT Remark entry_id _event_id _sequence paid")
	equal(t, "rows", w.rows("Sheet1"), []string{"Remark=an old row", "Date=2025-01-15 AMOUNT=5 entry_id=a paid=true"})
}

func TestAnEmptyTabOfAnOperatorGetsAFrozenHeader(t *testing.T) {
	w := newWorld(t)
	w.google.Shrink("Sheet1") // to a single row
	s := w.open(func(s *Settings) { s.Tab = "Sheet1" })
	want(t, s, sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{"n":5}`))
	v, _ := w.google.Look("Sheet1")
	equal(t, "rows", w.rows("Sheet1"), []string{"entry_id=a n=5"})
	equal(t, "frozen rows", v.Frozen, 1)
}

func TestACopyOfARowStaysAsItIsUntilTheEntryIsDeleted(t *testing.T) {
	w, s := three(t)
	w.google.CopyRow("Expenses", 1, 4)
	want(t, s, sinks.OutcomeDelivered, event(4, sinks.Updated, "a", `{"n":10}`))
	w.google.Sort("Expenses", 2, false) // the copy is on top now
	want(t, s, sinks.OutcomeDelivered, event(5, sinks.Updated, "a", `{"n":11}`))
	rows := w.rows("Expenses")
	slices.Sort(rows)
	equal(t, "rows", rows, []string{"entry_id=a n=1", "entry_id=a n=11", "entry_id=b n=2", "entry_id=c n=3"})
	want(t, s, sinks.OutcomeDelivered, event(6, sinks.Deleted, "a", `{}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=b n=2", "entry_id=c n=3"})
}

func TestARowThatAnOperatorDeletedComesBackWithTheNextEvent(t *testing.T) {
	w, s := three(t)
	w.google.DeleteRow("Expenses", 2)
	want(t, s, sinks.OutcomeDelivered, event(4, sinks.Updated, "b", `{"n":20}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=1", "entry_id=c n=3", "entry_id=b n=20"})
}

func TestATabThatAnOperatorDeletedIsMadeAgain(t *testing.T) {
	w, s := three(t)
	w.google.DeleteTab("Expenses")
	want(t, s, sinks.OutcomeDelivered, event(4, sinks.Updated, "b", `{"n":20}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=b n=20"})
}

func TestAHeaderThatAnOperatorDeletedStopsTheWebhook(t *testing.T) {
	w, s := three(t)
	w.google.DeleteRow("Expenses", 0)
	before := w.rows("Expenses")
	v := send(t, s, event(4, sinks.Updated, "b", `{"n":20}`))
	equal(t, "outcome", v[0].Outcome.String()+" "+v[0].Code, "misconfigured no_header")
	equal(t, "rows", w.rows("Expenses"), before)
	w.google.InsertRow("Expenses", 0)
	for i, title := range []string{"entry_id", "_event_id", "_sequence", "n"} {
		w.google.Type("Expenses", 0, i, title)
	}
	want(t, s, sinks.OutcomeDelivered, event(4, sinks.Updated, "b", `{"n":20}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=1", "entry_id=b n=20", "entry_id=c n=3"})
}

func TestAHiddenColumnThatAnOperatorDeletedIsMadeAgain(t *testing.T) {
	w, s := three(t)
	w.google.DeleteColumn("Expenses", 2)
	want(t, s, sinks.OutcomeDelivered, event(4, sinks.Updated, "b", `{"n":20}`))
	equal(t, "header", w.header("Expenses"), "entry_id _event_id n _sequence")
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a n=1", "entry_id=b n=20", "entry_id=c n=3"})
}
