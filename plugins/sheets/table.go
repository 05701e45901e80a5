package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/sheets/v4"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// What the relay notes in the spreadsheet as developer metadata, which Google keeps
// with the tab or column wherever it goes and however it is renamed
// (https://developers.google.com/workspace/sheets/api/guides/metadata).
const (
	metaTab    = "peanuts_relay_tab"    // at a tab: what the settings call it
	metaColumn = "peanuts_relay_column" // at a column that the relay made: its name
)

// maxWidth is how many columns Google allows a tab
// (https://support.google.com/drive/answer/37603).
const maxWidth = 18_278

// table is a tab as one batch finds it.
type table struct {
	tab     int64 // the number of the tab
	missing bool  // there is no such tab yet; tab is the number that it shall get
	noted   bool  // metaTab is there
	height  int   // rows of the grid, used or not
	width   int   // columns of the grid
	frozen  int   // rows
	columns []column
	rows    []*row // those that have an entry id, in the order of the sheet
}

// reader reads one tab, and remembers where its columns are.
type reader struct {
	client *client
	quota  quota
	name   string

	layout *layout // as of the last read; nil = to be looked up
}

// layout is what of a tab does not change from one batch to the next, unless somebody
// changes the columns: that is seen in the titles.
type layout struct {
	table  table // without rows
	titles []string
	keys   []int // columns of colEntry, colEvent, colSequence; -1 = none
}

// forget makes the next read look everything up.
func (r *reader) forget() { r.layout = nil }

// read is one call when the columns are where they were, else up to four.
func (r *reader) read(ctx context.Context) (*table, error) {
	for range 4 {
		if r.layout == nil {
			l, err := r.locate(ctx)
			if err != nil {
				return nil, err
			}
			if l.table.missing {
				return new(l.table), nil
			}
			r.layout = l
		}
		t, err := r.fetch(ctx, r.layout)
		if err != nil || t != nil {
			return t, err
		}
	}
	return nil, sinks.Retry(codeChanged, 0, errors.New("the columns of the tab keep changing"))
}

// quota is one of an account's, as the settings of one webhook have it.
type quota struct {
	*limiter
	perMinute int
}

// enter takes a place, and waits for one that is free in a moment.
func (q quota) enter(ctx context.Context, c *client) error {
	for {
		wait := q.take(q.perMinute)
		switch {
		case wait == 0:
			return nil
		case wait > shortWait:
			return c.usedUp(wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return c.usedUp(wait)
		}
	}
}

// usedUp is the outcome while there is no place.
func (c *client) usedUp(wait time.Duration) error {
	return sinks.RateLimited(wait, fmt.Errorf("google's quota of %s is used up for this minute", c.email))
}

// call keeps to the quota.
func call[T any](ctx context.Context, q quota, c *client, f func() (T, error)) (T, error) {
	if err := q.enter(ctx, c); err != nil {
		return *new(T), err
	}
	out, err := f()
	if err == nil {
		return out, nil
	}
	err = c.verdict(err)
	if v, ok := errors.AsType[*sinks.Verdict](err); ok && v.Outcome == sinks.OutcomeRateLimited {
		q.pause(v.After)
	}
	return out, err
}

// locate finds the tab: by what the relay noted at it, else by its name.
func (r *reader) locate(ctx context.Context) (*layout, error) {
	tabs, err := call(ctx, r.quota, r.client, func() ([]*sheets.Sheet, error) { return r.client.tabs(ctx) })
	if err != nil {
		return nil, err
	}
	found, noted := pick(tabs, r.name)
	if found == nil {
		return &layout{table: table{missing: true, tab: freeNumber(tabs, r.name)}}, nil
	}
	p := found.Properties
	if p.SheetType != "" && p.SheetType != "GRID" {
		return nil, sinks.Misconfigured(codeNotSheet, fmt.Errorf("the tab %q has no cells: name another", p.Title))
	}
	l := &layout{table: table{tab: p.SheetId, noted: noted}, keys: []int{-1, -1, -1}}
	if g := p.GridProperties; g != nil {
		l.table.height, l.table.width, l.table.frozen = int(g.RowCount), int(g.ColumnCount), int(g.FrozenRowCount)
	}
	for _, data := range found.Data {
		if data == nil || data.StartColumn < 0 || data.StartColumn > maxWidth {
			return nil, r.client.verdict(errNotGoogle)
		}
		for i, m := range data.ColumnMetadata {
			if m == nil {
				continue
			}
			at := i + int(data.StartColumn)
			for _, d := range m.DeveloperMetadata {
				if d != nil && d.MetadataKey == metaColumn {
					l.table.columns = append(l.table.columns, make([]column, max(0, at+1-len(l.table.columns)))...)
					l.table.columns[at].made = d.MetadataValue
				}
			}
		}
	}
	return l, nil
}

// pick is the tab of that name as the settings have it. A duplicate that an operator
// made has the note too: the one that is still called so comes first.
func pick(tabs []*sheets.Sheet, name string) (found *sheets.Sheet, noted bool) {
	called := func(s *sheets.Sheet) bool { return fold(s.Properties.Title) == fold(name) }
	var candidates []*sheets.Sheet
	for _, s := range tabs {
		if s.Properties != nil && slices.ContainsFunc(s.DeveloperMetadata, func(m *sheets.DeveloperMetadata) bool {
			return m != nil && m.MetadataKey == metaTab && m.MetadataValue == name
		}) {
			candidates = append(candidates, s)
		}
	}
	if i := slices.IndexFunc(candidates, called); i >= 0 {
		return candidates[i], true
	}
	if len(candidates) > 0 {
		return candidates[0], true
	}
	if i := slices.IndexFunc(tabs, func(s *sheets.Sheet) bool { return s.Properties != nil && called(s) }); i >= 0 {
		return tabs[i], false
	}
	return nil, false
}

// freeNumber is a number for a new tab.
func freeNumber(tabs []*sheets.Sheet, name string) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	n := int64(h.Sum32() >> 2)
	for slices.ContainsFunc(tabs, func(s *sheets.Sheet) bool { return s.Properties != nil && s.Properties.SheetId == n }) {
		n++
	}
	return n
}

// fetch reads the header and the keys. nil means: look again, the columns are not
// where l has them.
func (r *reader) fetch(ctx context.Context, l *layout) (*table, error) {
	var known []int
	for _, at := range l.keys {
		if at >= 0 {
			known = append(known, at)
		}
	}
	values, err := call(ctx, r.quota, r.client, func() ([]*sheets.ValueRange, error) { return r.client.values(ctx, l.table.tab, known) })
	if err != nil {
		return nil, err
	}
	titles := titlesOf(values[0])
	first := l.titles == nil
	if !first && !slices.Equal(titles, l.titles) {
		r.forget()
		return nil, nil
	}
	if first {
		if err := l.learn(titles); err != nil {
			return nil, err
		}
		if slices.Max(l.keys) >= 0 {
			return nil, nil // now the keys can be asked for
		}
	}
	t := new(l.table)
	if width, _ := extent(values[0].Range); width > 0 {
		t.width = width
	}
	columns := map[int][]any{}
	for i, at := range known {
		if _, height := extent(values[i+1].Range); height > 0 {
			t.height = height
		}
		if len(values[i+1].Values) > 0 {
			columns[at] = values[i+1].Values[0]
		}
	}
	t.rows = rowsOf(columns[l.keys[0]], columns[l.keys[1]], columns[l.keys[2]])
	return t, nil
}

// learn takes the titles into a layout that was just located.
func (l *layout) learn(titles []string) error {
	l.titles = titles
	noted := l.table.columns
	l.table.columns = make([]column, len(titles))
	orphans := 0
	for i := range max(len(titles), len(noted)) {
		if i >= len(titles) {
			if noted[i].made == "" {
				continue
			}
			// A column of the relay whose title is gone: it is still there.
			l.table.columns = append(l.table.columns, make([]column, i+1-len(l.table.columns))...)
		}
		if i < len(titles) {
			l.table.columns[i].title = titles[i]
		}
		if i < len(noted) {
			l.table.columns[i].made = noted[i].made
		}
		if c := l.table.columns[i]; isService(c.made) && !isService(c.title) {
			orphans++
		}
	}
	if orphans >= 3 {
		return sinks.Misconfigured(codeNoHeader, fmt.Errorf("the first row of the tab is no header any more: insert a row above all others with the names of the columns, among them %s, %s and %s where they were", colEntry, colEvent, colSequence))
	}
	h := newHeader(l.table.columns)
	for i, name := range []string{colEntry, colEvent, colSequence} {
		l.keys[i] = h.find(name, nil)
	}
	return nil
}

func titlesOf(v *sheets.ValueRange) []string {
	out := make([]string, len(v.Values))
	for i, cells := range v.Values {
		if len(cells) > 0 {
			out[i] = cellText(cells[0])
		}
	}
	for len(out) > 0 && strings.TrimSpace(out[len(out)-1]) == "" {
		out = out[:len(out)-1]
	}
	return out
}

// rowsOf are the rows below the header that have an entry id.
func rowsOf(entries, events, sequences []any) []*row {
	cell := func(column []any, i int) string {
		if i >= len(column) {
			return ""
		}
		return cellText(column[i])
	}
	var out []*row
	for i := 1; i < len(entries); i++ {
		entry := cell(entries, i)
		if entry == "" {
			continue
		}
		sequence, _ := strconv.ParseUint(cell(sequences, i), 10, 64) // what an operator wrote there counts as unknown
		out = append(out, &row{at: i, entry: entry, event: cell(events, i), sequence: sequence})
	}
	return out
}

var reExtent = regexp.MustCompile(`([A-Z]{1,3})([0-9]{1,8})$`)

// extent is where a range in A1 notation ends: how many columns and rows there are
// when it goes on to the end of the grid. 0 = it does not say.
func extent(a1 string) (width, height int) {
	m := reExtent.FindStringSubmatch(a1)
	if m == nil {
		return 0, 0
	}
	for _, letter := range m[1] {
		width = width*26 + int(letter-'A') + 1
	}
	height, _ = strconv.Atoi(m[2]) // at most eight digits
	return width, height
}
