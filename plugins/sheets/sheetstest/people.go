package sheetstest

import (
	"fmt"
	"slices"
)

// View is a tab as a person sees it who unhides everything.
type View struct {
	ID        int64
	Title     string
	Cells     [][]any // nil, string, float64, bool or Formula; rows up to the last used one, as wide as the grid
	Hidden    []bool  // by column
	Frozen    int
	Height    int
	Metadata  []string   // of the tab, key=value
	ColumnTag [][]string // of the columns
}

// Look is a tab by its title; false when there is none.
func (s *Server) Look(title string) (View, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.book.byTitle(title)
	if t == nil {
		return View{}, false
	}
	v := View{ID: t.id, Title: t.title, Frozen: t.frozen, Height: len(t.rows), Metadata: tags(t.notes)}
	for i := range t.lastUsed() {
		row := make([]any, len(t.columns))
		copy(row, t.rows[i])
		v.Cells = append(v.Cells, row)
	}
	for _, c := range t.columns {
		v.Hidden = append(v.Hidden, c.hidden)
		v.ColumnTag = append(v.ColumnTag, tags(c.notes))
	}
	return v, true
}

func tags(notes []note) []string {
	var out []string
	for _, n := range notes {
		out = append(out, n.key+"="+n.value)
	}
	return out
}

// Column is where a title is, or -1.
func (v View) Column(title string) int {
	if len(v.Cells) == 0 {
		return -1
	}
	return slices.Index(v.Cells[0], any(title))
}

// edit is one change by a person.
func (s *Server) edit(title string, change func(*tab)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.book.byTitle(title)
	if t == nil {
		panic(fmt.Sprintf("sheetstest: no tab %q", title))
	}
	change(t)
}

// Type types into a cell. The grid grows when it has to.
func (s *Server) Type(title string, row, column int, v any) {
	s.edit(title, func(t *tab) {
		t.rows = append(t.rows, make([][]any, max(0, row+1-len(t.rows)))...)
		t.columns = append(t.columns, make([]columnProps, max(0, column+1-len(t.columns)))...)
		t.set(row, column, v)
	})
}

// Sort sorts the rows below the frozen ones. Only cells move, and empty rows go last.
func (s *Server) Sort(title string, column int, descending bool) {
	s.edit(title, func(t *tab) {
		rows := t.rows[max(t.frozen, 1):t.lastUsed()]
		slices.SortStableFunc(rows, func(a, b []any) int {
			x, y := sortKey(a, column), sortKey(b, column)
			switch {
			case x == y:
				return 0
			case x == "": // empty last, whatever the order
				return 1
			case y == "":
				return -1
			case (x < y) == descending:
				return 1
			}
			return -1
		})
	})
}

func sortKey(row []any, column int) string {
	if column >= len(row) || row[column] == nil {
		return ""
	}
	return fmt.Sprint(row[column])
}

// InsertRow inserts an empty row above one.
func (s *Server) InsertRow(title string, at int) {
	s.edit(title, func(t *tab) { t.rows = slices.Insert(t.rows, at, nil) })
}

// DeleteRow deletes a row.
func (s *Server) DeleteRow(title string, at int) {
	s.edit(title, func(t *tab) { t.rows = slices.Delete(t.rows, at, at+1) })
}

// CopyRow inserts a copy of a row above another.
func (s *Server) CopyRow(title string, from, to int) {
	s.edit(title, func(t *tab) { t.rows = slices.Insert(t.rows, to, slices.Clone(t.rows[from])) })
}

// InsertColumn inserts an empty column left of one.
func (s *Server) InsertColumn(title string, at int) {
	s.edit(title, func(t *tab) { t.insertColumns(at, 1) })
}

// DeleteColumn deletes a column.
func (s *Server) DeleteColumn(title string, at int) {
	s.edit(title, func(t *tab) { t.deleteColumns(at, at+1) })
}

// MoveColumn drags a column to another place, with what belongs to it.
func (s *Server) MoveColumn(title string, from, to int) {
	s.edit(title, func(t *tab) {
		props := t.columns[from]
		t.columns = slices.Insert(slices.Delete(t.columns, from, from+1), to, props)
		for i, r := range t.rows {
			full := make([]any, len(t.columns))
			copy(full, r)
			v := full[from]
			t.rows[i] = slices.Insert(slices.Delete(full, from, from+1), to, v)
		}
	})
}

// Rename renames a tab.
func (s *Server) Rename(title, to string) { s.edit(title, func(t *tab) { t.title = to }) }

// Protect protects a tab from everybody but its owner, or no longer.
func (s *Server) Protect(title string, on bool) {
	s.edit(title, func(t *tab) { t.protected = on })
}

// Shrink removes the rows of the grid below the last used one.
func (s *Server) Shrink(title string) {
	s.edit(title, func(t *tab) { t.rows = t.rows[:max(t.lastUsed(), 1)] })
}

// Duplicate copies a tab with everything in it, metadata too.
func (s *Server) Duplicate(title, as string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.book.clone()
	t := c.byTitle(title)
	t.title, t.id = as, 77_000_000+int64(len(s.book.tabs))
	s.book.tabs = append(s.book.tabs, t)
}

// DeleteTab deletes a tab.
func (s *Server) DeleteTab(title string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.book.tabs = slices.DeleteFunc(s.book.tabs, func(t *tab) bool { return t.title == title })
}
