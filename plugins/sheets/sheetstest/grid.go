package sheetstest

import (
	"fmt"
	"slices"
	"strings"
)

// Formula is a cell that computes.
type Formula string

// workbook is the content of a spreadsheet.
type workbook struct {
	tabs []*tab
}

// tab is one grid. Rows are never changed in place, so that a clone is cheap: see set.
type tab struct {
	id        int64
	title     string
	rows      [][]any // nil, string, float64, bool or Formula; a row may be shorter than the grid
	columns   []columnProps
	frozen    int
	notes     []note
	protected bool
}

type columnProps struct {
	hidden bool
	notes  []note
}

// note is developer metadata.
type note struct{ key, value string }

func newTab(id int64, title string, rows, columns int) *tab {
	return &tab{id: id, title: title, rows: make([][]any, rows), columns: make([]columnProps, columns)}
}

func (b *workbook) clone() *workbook {
	out := &workbook{}
	for _, t := range b.tabs {
		c := *t
		c.rows, c.columns, c.notes = slices.Clone(t.rows), slices.Clone(t.columns), slices.Clone(t.notes)
		out.tabs = append(out.tabs, &c)
	}
	return out
}

func (b *workbook) cells() int {
	n := 0
	for _, t := range b.tabs {
		n += len(t.rows) * len(t.columns)
	}
	return n
}

func (b *workbook) byID(id int64) *tab {
	for _, t := range b.tabs {
		if t.id == id {
			return t
		}
	}
	return nil
}

func (b *workbook) byTitle(title string) *tab {
	for _, t := range b.tabs {
		if strings.EqualFold(t.title, title) {
			return t
		}
	}
	return nil
}

func (t *tab) cell(row, column int) any {
	if row >= len(t.rows) || column >= len(t.rows[row]) {
		return nil
	}
	return t.rows[row][column]
}

func (t *tab) set(row, column int, v any) {
	fresh := make([]any, max(len(t.rows[row]), column+1))
	copy(fresh, t.rows[row])
	fresh[column] = v
	t.rows[row] = fresh
}

// lastUsed is the number of rows up to the last one with anything in it.
func (t *tab) lastUsed() int {
	for i := len(t.rows) - 1; i >= 0; i-- {
		if slices.ContainsFunc(t.rows[i], func(v any) bool { return v != nil }) {
			return i + 1
		}
	}
	return 0
}

func (t *tab) insertColumns(at, n int) {
	t.columns = slices.Insert(t.columns, at, make([]columnProps, n)...)
	for i, r := range t.rows {
		if len(r) > at {
			t.rows[i] = slices.Insert(slices.Clone(r), at, make([]any, n)...)
		}
	}
}

func (t *tab) deleteColumns(from, to int) {
	t.columns = slices.Delete(t.columns, from, to)
	for i, r := range t.rows {
		if len(r) > from {
			t.rows[i] = slices.Delete(slices.Clone(r), from, min(to, len(r)))
		}
	}
}

// letters is a column in A1 notation.
func letters(column int) string {
	out := ""
	for n := column + 1; n > 0; n = (n - 1) / 26 {
		out = string(rune('A'+(n-1)%26)) + out
	}
	return out
}

// a1 is a half-open range in A1 notation.
func (t *tab) a1(r0, r1, c0, c1 int) string {
	return fmt.Sprintf("'%s'!%s%d:%s%d", strings.ReplaceAll(t.title, "'", "''"), letters(c0), r0+1, letters(c1-1), r1)
}
