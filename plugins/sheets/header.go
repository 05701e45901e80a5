package main

import (
	"slices"
	"strings"
)

// The relay's own columns. All but colEntry and colDeleted are hidden when they are
// made.
const (
	colEntry    = "entry_id"
	colEvent    = "_event_id"
	colSequence = "_sequence"
	colDeleted  = "_deleted"
)

// maxColumns is how many columns the relay makes in a tab. A sender that invents field
// names would widen the sheet up to Google's limit of cells. With maxTitle it also keeps
// small what is noted at columns, for which Google has a limit too.
const (
	maxColumns = 200
	maxTitle   = 100 // runes
)

// column is one column of the header.
type column struct {
	title string
	made  string // the title that the relay gave when it made the column; "" = not made by it
	added bool   // this batch adds it
}

// header is the first row: where each column is. Columns are found by name, without
// case; one that was renamed is found by the name that the relay gave it.
type header struct {
	columns []column
	exact   map[string]int // by title; the leftmost of equals
	folded  map[string][]int
	made    map[string]int // by fold of column.made
}

func newHeader(columns []column) *header {
	h := &header{exact: map[string]int{}, folded: map[string][]int{}, made: map[string]int{}}
	for _, c := range columns {
		h.add(c)
	}
	return h
}

func (h *header) add(c column) int {
	i := len(h.columns)
	h.columns = append(h.columns, c)
	if t := strings.TrimSpace(c.title); t != "" {
		if _, ok := h.exact[t]; !ok {
			h.exact[t] = i
		}
		h.folded[fold(t)] = append(h.folded[fold(t)], i)
	}
	if c.made != "" {
		if _, ok := h.made[fold(c.made)]; !ok {
			h.made[fold(c.made)] = i
		}
	}
	return i
}

// cutTo forgets the columns from n on, which were added last.
func (h *header) cutTo(n int) {
	if n < len(h.columns) {
		*h = *newHeader(h.columns[:n:n])
	}
}

// find is where a column is, or -1. taken are columns that have a value already.
func (h *header) find(name string, taken map[int]value) int {
	free := func(i int) bool { _, ok := taken[i]; return !ok }
	if i, ok := h.exact[name]; ok && free(i) {
		return i
	}
	for _, i := range h.folded[fold(name)] {
		if free(i) {
			return i
		}
	}
	if i, ok := h.made[fold(name)]; ok && free(i) {
		return i
	}
	return -1
}

// need is where a column is; it is added at the end when there is none.
func (h *header) need(name string, taken map[int]value) int {
	if i := h.find(name, taken); i >= 0 {
		return i
	}
	return h.add(column{title: name, made: name, added: true})
}

// tooMany reports whether the relay would have made more columns than it may.
func (h *header) tooMany() bool {
	n := 0
	for _, c := range h.columns {
		if c.made != "" {
			n++
		}
	}
	return n > maxColumns
}

// firstAdded is where the added columns begin; they are the last ones.
func (h *header) firstAdded() int {
	i := slices.IndexFunc(h.columns, func(c column) bool { return c.added })
	if i < 0 {
		return len(h.columns)
	}
	return i
}

// fold is what column names are compared by.
func fold(title string) string { return strings.ToLower(strings.TrimSpace(title)) }

// isService reports whether a column is the relay's own.
func isService(title string) bool {
	switch fold(title) {
	case colEntry, colEvent, colSequence, colDeleted:
		return true
	}
	return false
}

// fieldTitle is the header of a field of an entry. A field cannot get at the relay's
// own columns, nor one field at another's that differs in case only.
func (h *header) fieldTitle(name string, taken map[int]value) string {
	t := title(name)
	for t == "" || isService(t) || h.holds(t, taken) {
		t = "data." + t
	}
	return t
}

// holds reports whether exactly this column has a value already.
func (h *header) holds(t string, taken map[int]value) bool {
	i, ok := h.exact[t]
	if !ok {
		return false
	}
	_, has := taken[i]
	return has
}
