package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// row is a row of an entry: one that the sheet has, as the batch leaves it, or a new
// one.
type row struct {
	at       int // in the sheet, from 0; -1 = new
	entry    string
	event    string // the last event that is in it; "" = unknown
	sequence uint64 // the place of that event; 0 = unknown

	cells   map[int]value // what the batch writes, by column; an empty cell is nil
	changed bool          // the batch changes the row
	gone    bool          // the batch removes the row
}

// plan is what one batch does to a tab, worked out before anything is sent.
type plan struct {
	settings Settings
	record   recorder
	table    *table
	header   *header

	rows    map[string][]*row // by entry, in the order of the sheet
	events  map[string]*row   // by the event that they are from; for OnUpdate append only
	touched []*row            // in the order of the batch; a row may be in it twice
}

// step is what a delivery came to.
type step struct {
	message string
	skip    bool  // nothing to do
	wrote   bool  // true, or true of an earlier delivery that made this one superfluous: it holds only once the batch is written
	err     error // it can never be written
}

// decide works one delivery into the plan.
func (p *plan) decide(d *sinks.Delivery) step {
	if d.Entry.ID == "" || len(d.Entry.ID) > maxCell {
		return step{err: sinks.Reject("bad_entry_id", errors.New("the event has no entry id that a cell can hold"))}
	}
	latest := p.latest(d.Entry.ID)
	if p.settings.OnUpdate == appendRow {
		if r := p.events[d.EventID]; r != nil && d.EventID != "" {
			return step{"the sheet has this event", true, r.changed, nil}
		}
	} else if latest != nil {
		if latest.event == d.EventID && d.EventID != "" {
			return step{"the sheet has this event", true, latest.changed, nil}
		}
		if d.Sequence != 0 && d.Sequence < latest.sequence {
			return step{"the sheet has a newer event of this entry", true, latest.changed, nil}
		}
	}
	if d.Event == sinks.Deleted {
		return p.delete(d, latest)
	}
	if latest == nil || p.settings.OnUpdate == appendRow {
		return p.write(d, nil, "row added")
	}
	return p.write(d, latest, "row updated")
}

// latest is the row of an entry. When an operator copied it there are several: it is
// the one with the newest event, of equals the topmost. The others stay as they are.
func (p *plan) latest(entry string) *row {
	var found *row
	for _, r := range p.rows[entry] {
		if !r.gone && (found == nil || r.sequence > found.sequence) {
			found = r
		}
	}
	return found
}

// delete does what OnDelete says.
func (p *plan) delete(d *sinks.Delivery, latest *row) step {
	switch p.settings.OnDelete {
	case keep:
		return step{message: "deleted entries keep their rows", skip: true}
	case mark:
		if latest == nil || p.settings.OnUpdate == appendRow {
			return p.write(d, nil, "row added and marked as deleted")
		}
		p.stamp(latest, d)
		return step{message: "row marked as deleted", wrote: true}
	}
	removed, wrote := 0, false
	for _, r := range p.rows[d.Entry.ID] {
		wrote = wrote || r.changed
		if !r.gone {
			r.gone, r.changed = true, true
			delete(p.events, r.event)
			p.touched = append(p.touched, r)
			removed++
		}
	}
	switch removed {
	case 0:
		return step{"the sheet has no row of this entry", true, wrote, nil}
	case 1:
		return step{message: "row removed", wrote: true}
	}
	return step{message: fmt.Sprintf("%d rows removed", removed), wrote: true}
}

// write puts a delivery's fields into a row, or into a new one.
func (p *plan) write(d *sinks.Delivery, r *row, message string) step {
	cells, err := p.record.cells(p.header, d)
	if err != nil {
		return step{err: err}
	}
	if r == nil {
		r = &row{at: -1, entry: d.Entry.ID, cells: map[int]value{p.header.need(colEntry, nil): text(d.Entry.ID)}}
		p.rows[r.entry] = append(p.rows[r.entry], r)
	}
	if r.cells == nil {
		r.cells = map[int]value{}
	}
	maps.Copy(r.cells, cells)
	p.stamp(r, d)
	return step{message: message, wrote: true}
}

// stamp notes in a row which event it is from.
func (p *plan) stamp(r *row, d *sinks.Delivery) {
	if r.cells == nil {
		r.cells = map[int]value{}
	}
	r.cells[p.header.need(colEvent, nil)] = text(d.EventID)
	r.cells[p.header.need(colSequence, nil)] = sequenceCell(d.Sequence)
	if at := p.header.find(colDeleted, nil); at >= 0 || p.settings.OnDelete == mark {
		at = p.header.need(colDeleted, nil)
		r.cells[at] = nil
		if d.Event == sinks.Deleted {
			r.cells[at] = timeCell(d.Timestamp)
		}
	}
	r.event, r.sequence, r.changed = d.EventID, d.Sequence, true
	p.touched = append(p.touched, r)
	if p.settings.OnUpdate == appendRow {
		p.events[d.EventID] = r
	}
}

// newPlan begins with the tab as it is. The relay's own columns come first, so that
// they are together when the tab is new.
func newPlan(s Settings, record recorder, t *table) *plan {
	p := &plan{settings: s, record: record, table: t, header: newHeader(t.columns), rows: map[string][]*row{}, events: map[string]*row{}}
	for _, name := range serviceColumns(s) {
		p.header.need(name, nil)
	}
	for _, r := range t.rows {
		p.rows[r.entry] = append(p.rows[r.entry], r)
		if s.OnUpdate == appendRow && r.event != "" {
			p.events[r.event] = r
		}
	}
	return p
}

func serviceColumns(s Settings) []string {
	names := []string{colEntry, colEvent, colSequence}
	if s.OnDelete == mark {
		names = append(names, colDeleted)
	}
	return names
}

// work is the rows to change, to add and to remove.
func (p *plan) work() (update, add, remove []*row) {
	seen := make(map[*row]bool, len(p.touched))
	for _, r := range p.touched {
		if seen[r] {
			continue
		}
		seen[r] = true
		switch {
		case r.gone && r.at >= 0:
			remove = append(remove, r)
		case r.gone: // came and went
		case r.at >= 0:
			update = append(update, r)
		default:
			add = append(add, r)
		}
	}
	slices.SortFunc(remove, func(a, b *row) int { return b.at - a.at })
	return update, add, remove
}
