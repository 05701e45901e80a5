package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// facts are what of an event, besides the fields of its entry, a column can have.
func facts() map[string]func(*sinks.Delivery) value {
	return map[string]func(*sinks.Delivery) value{
		"entry.id":         func(d *sinks.Delivery) value { return text(d.Entry.ID) },
		"entry.created_at": func(d *sinks.Delivery) value { return timeCell(d.Entry.CreatedAt) },
		"event.id":         func(d *sinks.Delivery) value { return text(d.EventID) },
		"event.type":       func(d *sinks.Delivery) value { return text(d.Event) },
		"event.timestamp":  func(d *sinks.Delivery) value { return timeCell(d.Timestamp) },
		"helper.id":        func(d *sinks.Delivery) value { return text(d.Helper.ID) },
		"helper.name":      func(d *sinks.Delivery) value { return text(d.Helper.Name) },
		"helper.command":   func(d *sinks.Delivery) value { return text(d.Helper.Command) },
		"user.id": func(d *sinks.Delivery) value {
			if d.User == nil {
				return nil
			}
			return text(d.User.ID)
		},
	}
}

// misspelled reports whether a field looks like a fact and is none.
func misspelled(field string) bool {
	group, _, dotted := strings.Cut(field, ".")
	if !dotted || !slices.Contains([]string{"entry", "event", "helper", "user"}, group) {
		return false
	}
	_, ok := facts()[field]
	return !ok
}

// recorder makes rows of entries.
type recorder struct {
	columns map[string]string // Settings.Columns; empty = all fields
	order   []string          // their titles, sorted
	facts   map[string]func(*sinks.Delivery) value
}

func newRecorder(columns map[string]string) recorder {
	return recorder{columns, slices.Sorted(maps.Keys(columns)), facts()}
}

// cells are the cells of a delivery's fields, by column; those that it lacks and that
// are the relay's are empty. Columns that are missing are added to h, unless the
// result is an error.
func (r recorder) cells(h *header, d *sinks.Delivery) (map[int]value, error) {
	fields, err := d.Entry.Fields()
	if err != nil {
		return nil, sinks.Reject("bad_data", err)
	}
	before := len(h.columns)
	out := map[int]value{}
	if len(r.columns) > 0 {
		r.chosen(h, d, fields, out)
	} else {
		for _, f := range fields {
			out[h.need(h.fieldTitle(f.Name, out), out)] = cellOf(f.Value)
		}
		for i, c := range h.columns {
			if _, has := out[i]; !has && c.made != "" && !isService(c.made) && !isService(c.title) {
				out[i] = nil
			}
		}
	}
	if len(h.columns) > before && h.tooMany() {
		h.cutTo(before)
		return nil, sinks.Reject("too_many_columns", fmt.Errorf("the tab would get more than %d columns of the relay; choose some with the setting columns", maxColumns))
	}
	return out, nil
}

// chosen fills the columns that the settings name.
func (r recorder) chosen(h *header, d *sinks.Delivery, fields []sinks.Field, out map[int]value) {
	data := make(map[string]sinks.Field, len(fields))
	for _, f := range fields {
		data[f.Name] = f
	}
	for _, t := range r.order {
		at := h.need(title(t), out)
		if fact, ok := r.facts[r.columns[t]]; ok {
			out[at] = fact(d)
			continue
		}
		name, ok := strings.CutPrefix(r.columns[t], "data.")
		if _, literal := data[r.columns[t]]; literal || !ok {
			name = r.columns[t]
		}
		out[at] = cellOf(data[name].Value)
	}
}
