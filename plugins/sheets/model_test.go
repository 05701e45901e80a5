package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// model is what the sheet has to be: one row for each entry, of its newest event.
type model struct {
	onDelete string
	rows     map[string]*modelRow
}

type modelRow struct {
	event    string
	sequence uint64
	data     map[string]any // what is in cells; includes the mark of a deletion
	remark   string         // an operator's, in a column of its own
}

func (m *model) apply(d *sinks.Delivery) {
	cur := m.rows[d.Entry.ID]
	if cur != nil && (cur.event == d.EventID || d.Sequence < cur.sequence) {
		return
	}
	fields, err := d.Entry.Fields()
	if err != nil {
		panic(err)
	}
	data := map[string]any{}
	for _, f := range fields {
		switch c := cellOf(f.Value); {
		case c == nil:
		case c.StringValue != nil:
			data[f.Name] = *c.StringValue
		case c.NumberValue != nil:
			data[f.Name] = *c.NumberValue
		case c.BoolValue != nil:
			data[f.Name] = *c.BoolValue
		}
	}
	if d.Event == sinks.Deleted {
		switch m.onDelete {
		case keep:
			return
		case remove:
			delete(m.rows, d.Entry.ID)
			return
		}
		if cur != nil {
			data = maps.Clone(cur.data)
		}
		data[colDeleted] = d.Timestamp.Format("2006-01-02T15:04:05.000Z07:00")
	}
	next := &modelRow{event: d.EventID, sequence: d.Sequence, data: data}
	if cur != nil {
		next.remark = cur.remark
	}
	m.rows[d.Entry.ID] = next
}

// differences are what is wrong with a tab.
func (m *model) differences(v sheetstest.View) []string {
	var out []string
	seen := map[string]bool{}
	for i, cells := range v.Cells {
		entry, _ := cells[v.Column(colEntry)].(string)
		if i == 0 || entry == "" {
			continue
		}
		want := m.rows[entry]
		if want == nil || seen[entry] {
			out = append(out, fmt.Sprintf("row %d of %s should not be", i+1, entry))
			continue
		}
		seen[entry] = true
		data := maps.Clone(want.data)
		data[colEntry], data[colEvent], data[colSequence] = entry, want.event, float64(want.sequence)
		if want.remark != "" {
			data["Remark"] = want.remark
		}
		for c, cell := range cells {
			title, _ := v.Cells[0][c].(string)
			if cell != data[title] {
				out = append(out, fmt.Sprintf("%s: %s is %v, want %v", entry, title, cell, data[title]))
			}
		}
	}
	for entry := range m.rows {
		if !seen[entry] {
			out = append(out, "no row of "+entry)
		}
	}
	return out
}

// trial is one run of the property.
type trial struct {
	t     *rapid.T
	w     *world
	s     *sink
	open  func() *sink
	model *model
	tab   string
	queue []*sinks.Delivery // to be sent, or sent again
}

// The failures, and whether the batch has its effect all the same.
var effects = map[sheetstest.Failure]bool{
	sheetstest.Quota: false, sheetstest.Internal: false, sheetstest.Unavailable: false, sheetstest.TooLarge: true,
	sheetstest.HangBefore: false, sheetstest.HangAfter: true, sheetstest.ResetBefore: false, sheetstest.ResetAfter: true,
}

// step sends a batch, perhaps with a failure, and puts back what has to go again.
func (r *trial) step(size int, op sheetstest.Op, what sheetstest.Failure) {
	n := min(size, len(r.queue))
	if n == 0 {
		return
	}
	batch := r.queue[:n:n]
	r.queue = r.queue[n:]
	if what != "" {
		r.w.google.Fail(op, what)
	}
	results, err := r.s.DeliverBatch(r.w.t.Context(), batch)
	if err != nil {
		r.t.Fatal(err)
	}
	met := what != "" && r.w.google.Settle() == 0
	if !met || op == sheetstest.Write && effects[what] && !(what == sheetstest.TooLarge && n == 1) {
		for _, d := range batch {
			r.model.apply(d)
		}
	}
	var again []*sinks.Delivery
	for i, d := range batch {
		switch v := sinks.VerdictOf(results[i].Err); v.Outcome {
		case sinks.OutcomeRetry, sinks.OutcomeRateLimited, sinks.OutcomeMisconfigured:
			if !met {
				r.t.Fatalf("%s without a failure: %v", v.Outcome, v.Error())
			}
			again = append(again, d)
			time.Sleep(v.After)
		case sinks.OutcomeRejected:
			if what != sheetstest.TooLarge {
				r.t.Fatalf("rejected: %v", v.Error())
			}
		}
	}
	r.queue = append(again, r.queue...)
	time.Sleep(10 * time.Second) // so that the quota is not what stops the trial
}

// edit is what an operator does meanwhile.
func (r *trial) edit(what string) {
	g := r.w.google
	v, ok := g.Look(r.tab)
	if !ok || len(v.Cells) == 0 {
		return
	}
	row := func(label string) int { return rapid.IntRange(1, max(1, len(v.Cells)-1)).Draw(r.t, label) }
	entry := func(row int) *modelRow {
		if row >= len(v.Cells) {
			return nil
		}
		id, _ := v.Cells[row][v.Column(colEntry)].(string)
		return r.model.rows[id]
	}
	switch what {
	case "sort":
		g.Sort(r.tab, rapid.IntRange(0, 5).Draw(r.t, "column"), rapid.Bool().Draw(r.t, "descending"))
	case "insert row":
		g.InsertRow(r.tab, row("above"))
	case "delete row":
		at := row("row")
		if at >= len(v.Cells) {
			return
		}
		if id, _ := v.Cells[at][v.Column(colEntry)].(string); id != "" {
			delete(r.model.rows, id)
		}
		g.DeleteRow(r.tab, at)
	case "insert column":
		g.InsertColumn(r.tab, rapid.IntRange(0, 6).Draw(r.t, "left of"))
	case "move column":
		g.MoveColumn(r.tab, rapid.IntRange(0, 6).Draw(r.t, "from"), rapid.IntRange(0, 6).Draw(r.t, "to"))
	case "rename tab":
		next := "Tab " + rapid.StringMatching(`[a-z]{3}`).Draw(r.t, "name")
		g.Rename(r.tab, next)
		r.tab = next
	case "remark":
		at, row := v.Column("Remark"), row("row")
		e := entry(row)
		if e == nil {
			return
		}
		if at < 0 {
			at = len(v.Cells[0]) // a new column at the far right
			g.Type(r.tab, 0, at, "Remark")
		}
		e.remark = rapid.StringMatching(`[a-z]{1,5}`).Draw(r.t, "remark")
		g.Type(r.tab, row, at, e.remark)
	case "restart":
		_ = r.s.Close()
		r.w.restart()
		r.s = r.open()
	}
}

// undated is a test without a deadline, which one in a bubble cannot be asked for.
type undated struct{ rapid.TB }

// Whatever comes in whatever order, fails in whatever way and is edited meanwhile: the
// sheet has exactly the rows that the deliveries, one after the other, come to.
func TestTheSheetIsWhatTheModelSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(undated{t}, func(rt *rapid.T) {
			onDelete := rapid.SampledFrom([]string{remove, mark, keep}).Draw(rt, "on_delete")
			r := &trial{t: rt, w: newWorld(t), tab: "Expenses", model: &model{onDelete: onDelete, rows: map[string]*modelRow{}}}
			r.open = func() *sink { return r.w.open(func(s *Settings) { s.OnDelete = onDelete }) }
			r.s = r.open()
			n := rapid.IntRange(1, 40).Draw(rt, "events")
			kinds := rapid.SampledFrom([]string{sinks.Created, sinks.Updated, sinks.Updated, sinks.Deleted, "payment.failed"})
			values := rapid.SampledFrom([]string{`1`, `"=A1"`, `"007"`, `null`, `true`, `12345678901234567890`, `{"x":[1]}`, `"text"`})
			for i := range n {
				var data strings.Builder
				data.WriteString("{")
				for j, name := range []string{"alpha", "beta", "gamma"} {
					if rapid.Bool().Draw(rt, name) {
						data.WriteString(fmt.Sprintf("%q:%s,", name, values.Draw(rt, fmt.Sprint("value", j))))
					}
				}
				data.WriteString(fmt.Sprintf(`"n":%d}`, i))
				entry := rapid.SampledFrom([]string{"a", "b", "007", "=e", "12345678901234567890"}).Draw(rt, "entry")
				r.queue = append(r.queue, event(i+1, kinds.Draw(rt, "kind"), entry, data.String()))
			}
			for i := range r.queue { // they overtake each other a little, and some come twice
				j := min(len(r.queue)-1, i+rapid.IntRange(0, 3).Draw(rt, "overtakes"))
				r.queue[i], r.queue[j] = r.queue[j], r.queue[i]
				if rapid.IntRange(0, 9).Draw(rt, "twice") == 0 {
					r.queue = append(r.queue, r.queue[i])
				}
			}
			for turns := 0; len(r.queue) > 0; turns++ {
				what := sheetstest.Failure("")
				if turns < 60 && rapid.IntRange(0, 2).Draw(rt, "fails") == 0 {
					what = rapid.SampledFrom(slices.Sorted(maps.Keys(effects))).Draw(rt, "failure")
				}
				op := rapid.SampledFrom([]sheetstest.Op{sheetstest.Write, sheetstest.Write, sheetstest.Read}).Draw(rt, "op")
				if what == sheetstest.TooLarge {
					op = sheetstest.Write
				}
				r.step(rapid.IntRange(1, 8).Draw(rt, "batch"), op, what)
				r.edit(rapid.SampledFrom([]string{"", "", "sort", "insert row", "delete row", "insert column", "move column", "rename tab", "remark", "restart"}).Draw(rt, "edit"))
				if v, ok := r.w.google.Look(r.tab); ok && len(v.Cells) > 0 {
					if wrong := r.model.differences(v); len(wrong) > 0 {
						rt.Fatalf("%q\n%v", wrong, v.Cells)
					}
				} else if len(r.model.rows) > 0 {
					rt.Fatal("there is no tab")
				}
			}
			_ = r.s.Close()
		})
	})
}
