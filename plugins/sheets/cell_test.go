package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestValuesArriveAsWhatTheyAre(t *testing.T) {
	long := strings.Repeat("x", maxCell)
	for _, row := range []struct {
		json string
		want any
	}{
		{`"=1+1"`, "=1+1"},
		{`"=IMPORTXML(\"http://evil.example/\",\"//a\")"`, `=IMPORTXML("http://evil.example/","//a")`},
		{`"+1"`, "+1"}, {`"-1"`, "-1"}, {`"@SUM(A1)"`, "@SUM(A1)"}, {`"'x"`, "'x"},
		{`"007"`, "007"}, {`"1e3"`, "1e3"}, {`"2025-01-15"`, "2025-01-15"}, {`"TRUE"`, "TRUE"},
		{`"12345678901234567890"`, "12345678901234567890"},
		{`12345678901234567890`, "12345678901234567890"},
		{`9007199254740992`, 9007199254740992.0}, {`9007199254740993`, "9007199254740993"}, {`-9007199254740993`, "-9007199254740993"},
		{`42.5`, 42.5}, {`0.1`, 0.1}, {`-0`, 0.0}, {`1e2`, 100.0}, {`0`, 0.0}, {`1e-7`, 1e-7},
		{`0.12345678901234567890`, "0.12345678901234567890"},
		{`1E400`, "1E400"}, {`1e-999999999999`, "1e-999999999999"}, {`1e21`, "1e21"},
		{`true`, true}, {`false`, false}, {`null`, nil}, {`""`, nil},
		{`{"a":[1,"<b>"]}`, `{"a":[1,"<b>"]}`}, {`[ 1, 2 ]`, `[1,2]`}, {`[]`, `[]`},
		{`"a\nb\u0000c"`, "a\nb\x00c"}, {`"\ud800"`, "\uFFFD"},
		{strconv.Quote(long), long}, {strconv.Quote(long + "y"), long[1:] + "…"},
	} {
		w := newWorld(t)
		want(t, w.open(), sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{"f":`+row.json+`}`))
		v, _ := w.google.Look("Expenses")
		if got := v.Cells[1][3]; got != row.want {
			t.Errorf("%.60s: got %.60q, want %.60q", row.json, got, row.want)
		}
	}
}

func TestHostileNamesOfFieldsAndEntries(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	data := `{"entry_id":"x","_Event_ID":"y"," _sequence ":99999999,"_deleted":1,"":"empty","  ":"blank","=A1":2,"data.entry_id":"z","Amount":1,"amount":2,"AMOUNT":3}`
	for n, entry := range []string{"=HYPERLINK(\"x\")", "007", "TRUE", "12345678901234567890", " a", "a", "A", "ä\n\"'", "1.50"} {
		want(t, s, sinks.OutcomeDelivered, event(2*n+1, sinks.Created, entry, data))
		want(t, s, sinks.OutcomeDelivered, event(2*n+2, sinks.Updated, entry, data))
		want(t, s, sinks.OutcomeSkipped, event(2*n+1, sinks.Created, entry, data))
	}
	v, _ := w.google.Look("Expenses")
	if len(v.Cells) != 10 {
		t.Errorf("%d rows, want one of each entry and the header", len(v.Cells))
	}
	equal(t, "columns", w.header("Expenses"), "entry_id _event_id _sequence data.entry_id data._Event_ID data._sequence data._deleted data. data.data. =A1 data.data.entry_id Amount amount AMOUNT")
	equal(t, "row", v.Cells[2], append([]any{"007", "evt_4", 4.0, "x", "y", 99999999.0, 1.0, "empty", "blank", 2.0, "z", 1.0, 2.0, 3.0}, make([]any, len(v.Cells[2])-14)...))
}

func TestASenderCannotWidenTheTabForEver(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	fields := func(from, to int) map[string]int {
		m := map[string]int{}
		for i := from; i < to; i++ {
			m[fmt.Sprintf("f%05d", i)] = i
		}
		return m
	}
	v := send(t, s, event(1, sinks.Created, "a", fields(0, 150)), event(2, sinks.Created, "b", fields(150, 250)), event(3, sinks.Created, "c", fields(0, 10)))
	equal(t, "outcomes", []string{v[0].Outcome.String(), v[1].Outcome.String() + " " + v[1].Code, v[2].Outcome.String()}, []string{"delivered", "rejected too_many_columns", "delivered"})
	if n := len(strings.Fields(w.header("Expenses"))); n != 153 {
		t.Errorf("%d columns, want 153", n)
	}
}

func TestColumnsTakeTheFieldsThatTheSettingsName(t *testing.T) {
	w := newWorld(t)
	s := w.open(func(s *Settings) {
		s.Columns = map[string]string{
			"Amount": "amount", "By": "user.id", "When": "event.timestamp", "What": "event.type", "Odd": "data.user.id", "No": "data.amount",
		}
	})
	want(t, s, sinks.OutcomeDelivered, event(1, sinks.Created, "a", `{"amount":5,"secret":"not asked for","user.id":"forged"}`))
	equal(t, "header", w.header("Expenses"), "entry_id _event_id _sequence Amount By No Odd What When")
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a Amount=5 By=user-456 No=5 Odd=forged What=entry.created When=2025-01-15T14:32:00.000Z"})
	want(t, s, sinks.OutcomeDelivered, event(2, sinks.Updated, "a", `{}`))
	equal(t, "rows", w.rows("Expenses"), []string{"entry_id=a By=user-456 What=entry.updated When=2025-01-15T14:32:00.000Z"})
}

// A number is a number only when the sheet would give back what was sent.
func TestNumbersKeepTheirValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.OneOf(
			rapid.Map(rapid.Float64(), func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }),
			rapid.Map(rapid.Int64(), func(i int64) string { return strconv.FormatInt(i, 10) }),
			rapid.StringMatching(`-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?`),
		).Draw(t, "number")
		if !json.Valid([]byte(raw)) {
			t.Skip("not a JSON number")
		}
		c := cellOf(json.RawMessage(raw))
		switch {
		case c.NumberValue == nil:
			if *c.StringValue != raw {
				t.Fatalf("%s became the text %s", raw, *c.StringValue)
			}
		case !sameDecimal(raw, strconv.FormatFloat(*c.NumberValue, 'f', -1, 64)):
			t.Fatalf("%s became %v", raw, *c.NumberValue)
		}
	})
}

func TestCutLeavesWhatFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]string{"x", "é", "€", "😀", "a😀"}).Draw(t, "unit")
		s := strings.Repeat(unit, rapid.IntRange(10_000, 60_000).Draw(t, "n"))
		units := func(s string) int { return len(utf16.Encode([]rune(s))) }
		got := cut(s)
		if units(s) <= maxCell && got != s {
			t.Fatal("cut what fits")
		}
		if n := units(got); n > maxCell || units(s) > maxCell && n < maxCell-1 {
			t.Fatalf("%d units of %d", n, units(s))
		}
		if kept := strings.TrimSuffix(got, "…"); !strings.HasPrefix(s, kept) {
			t.Fatal("not the beginning")
		}
	})
}

func FuzzCell(f *testing.F) {
	for _, s := range []string{`"=1+1"`, `007`, `1e400`, `{"a":1}`, `null`, `"\ud800"`, `-0`, `1.50`, `true`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			t.Skip()
		}
		c := cellOf(raw)
		if c == nil {
			return
		}
		if c.FormulaValue != nil {
			t.Fatal("a formula")
		}
		if c.StringValue != nil && len(utf16.Encode([]rune(*c.StringValue))) > maxCell {
			t.Fatal("too long")
		}
	})
}
