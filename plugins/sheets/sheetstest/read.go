package sheetstest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
)

// decode is strict, as Google is.
func decode(r *http.Request, into any) *failure {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return invalid("Request body could not be read")
	}
	if len(body) > 10<<20 {
		return invalid("Request payload size exceeds the limit: 10485760 bytes.")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return invalid("Invalid JSON payload received. %v", err)
	}
	return nil
}

type gridRange struct {
	SheetID          int64 `json:"sheetId"`
	StartRowIndex    int   `json:"startRowIndex,omitempty"`
	EndRowIndex      int   `json:"endRowIndex,omitempty"`
	StartColumnIndex int   `json:"startColumnIndex,omitempty"`
	EndColumnIndex   int   `json:"endColumnIndex,omitempty"`
}

// within is the range in a grid: what has no end goes on to the grid's.
func (g gridRange) within(t *tab) (r0, r1, c0, c1 int, f *failure) {
	r0, r1, c0, c1 = g.StartRowIndex, g.EndRowIndex, g.StartColumnIndex, g.EndColumnIndex
	if r1 == 0 {
		r1 = max(len(t.rows), r0+1)
	}
	if c1 == 0 {
		c1 = max(len(t.columns), c0+1)
	}
	if r1 > len(t.rows) || c1 > len(t.columns) {
		return 0, 0, 0, 0, invalid("Range (%s) exceeds grid limits. Max rows: %d, max columns: %d", t.a1(r0, r1, c0, c1), len(t.rows), len(t.columns))
	}
	return r0, r1, c0, c1, nil
}

// values is spreadsheets.values.batchGetByDataFilter.
func (s *Server) values(r *http.Request) (any, *failure) {
	var req struct {
		DataFilters []struct {
			GridRange *gridRange `json:"gridRange"`
		} `json:"dataFilters"`
		MajorDimension    string `json:"majorDimension"`
		ValueRenderOption string `json:"valueRenderOption"`
	}
	if f := decode(r, &req); f != nil {
		return nil, f
	}
	out := []any{}
	for _, filter := range req.DataFilters {
		if filter.GridRange == nil {
			return nil, invalid("Must specify a data filter.")
		}
		t := s.book.byID(filter.GridRange.SheetID)
		if t == nil {
			return nil, invalid("No grid with id: %d", filter.GridRange.SheetID)
		}
		r0, r1, c0, c1, f := filter.GridRange.within(t)
		if f != nil {
			return nil, f
		}
		vr := map[string]any{"range": t.a1(r0, r1, c0, c1), "majorDimension": req.MajorDimension}
		if v := block(t, r0, r1, c0, c1, req.MajorDimension == "COLUMNS", req.ValueRenderOption); len(v) > 0 {
			vr["values"] = v
		}
		out = append(out, map[string]any{"valueRange": vr, "dataFilters": []any{map[string]any{"gridRange": filter.GridRange}}})
	}
	slices.Reverse(out) // no order is promised
	return map[string]any{"spreadsheetId": s.id, "valueRanges": out}, nil
}

// block is a range as lists, without what is empty at their ends.
func block(t *tab, r0, r1, c0, c1 int, byColumn bool, render string) [][]any {
	outer, inner := r1-r0, c1-c0
	if byColumn {
		outer, inner = inner, outer
	}
	out := [][]any{}
	for i := range outer {
		line := []any{}
		for j := range inner {
			row, column := r0+i, c0+j
			if byColumn {
				row, column = r0+j, c0+i
			}
			line = append(line, rendered(t.cell(row, column), render))
		}
		for len(line) > 0 && line[len(line)-1] == nil {
			line = line[:len(line)-1]
		}
		for k, v := range line {
			if v == nil {
				line[k] = ""
			}
		}
		out = append(out, line)
	}
	for len(out) > 0 && len(out[len(out)-1]) == 0 {
		out = out[:len(out)-1]
	}
	return out
}

func rendered(v any, option string) any {
	if f, ok := v.(Formula); ok {
		if option == "FORMULA" {
			return string(f)
		}
		return "computed"
	}
	return v
}

// get is spreadsheets.get with a field mask.
func (s *Server) get(r *http.Request) (any, *failure) {
	fields := r.URL.Query().Get("fields")
	tree, rest := parseMask(fields)
	if fields == "" || rest != "" {
		return nil, invalid("Invalid field selection %s", fields)
	}
	sheets := []any{}
	for _, t := range s.book.tabs {
		grid := map[string]any{"rowCount": len(t.rows), "columnCount": len(t.columns)}
		if t.frozen > 0 {
			grid["frozenRowCount"] = t.frozen
		}
		sheet := map[string]any{
			"properties": map[string]any{"sheetId": t.id, "title": t.title, "sheetType": "GRID", "gridProperties": grid},
			"data":       []any{map[string]any{"columnMetadata": columnMetadata(t)}},
		}
		if len(t.notes) > 0 {
			sheet["developerMetadata"] = metadata(t.notes)
		}
		sheets = append(sheets, sheet)
	}
	return masked(map[string]any{"spreadsheetId": s.id, "sheets": sheets}, tree), nil
}

func columnMetadata(t *tab) []any {
	out := []any{}
	for _, c := range t.columns {
		m := map[string]any{"pixelSize": 100}
		if c.hidden {
			m["hiddenByUser"] = true
		}
		if len(c.notes) > 0 {
			m["developerMetadata"] = metadata(c.notes)
		}
		out = append(out, m)
	}
	return out
}

func metadata(notes []note) []any {
	out := []any{}
	for i, n := range notes {
		out = append(out, map[string]any{"metadataId": i + 1, "metadataKey": n.key, "metadataValue": n.value, "visibility": "DOCUMENT"})
	}
	return out
}

// mask is a tree of a field mask; an empty one takes everything.
type mask map[string]mask

// parseMask reads a(b,c.d),e up to its end or a closing bracket.
func parseMask(text string) (mask, string) {
	out := mask{}
	for text != "" {
		end := strings.IndexAny(text, "(),./")
		if end < 0 {
			end = len(text)
		}
		name := text[:end]
		text = text[end:]
		out[name] = mask{}
		if text == "" {
			break
		}
		switch text[0] {
		case '(':
			var sub mask
			sub, text = parseMask(text[1:])
			out[name] = sub
			text = strings.TrimPrefix(text, ")")
			text = strings.TrimPrefix(text, ",")
			if strings.HasPrefix(text, ")") {
				return out, text
			}
		case '.', '/':
			var sub mask
			sub, text = parseMask(text[1:])
			out[name] = sub
			return out, text
		case ',':
			text = text[1:]
		case ')':
			return out, text
		}
	}
	return out, text
}

// masked is a value with what the mask names.
func masked(v any, m mask) any {
	if len(m) == 0 {
		return v
	}
	switch v := v.(type) {
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, masked(e, m))
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for name, sub := range m {
			if e, ok := v[name]; ok {
				out[name] = masked(e, sub)
			}
		}
		return out
	}
	return v
}
