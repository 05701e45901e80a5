package sheetstest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf16"
)

type dimensionRange struct {
	SheetID    int64  `json:"sheetId"`
	Dimension  string `json:"dimension"`
	StartIndex *int   `json:"startIndex"`
	EndIndex   *int   `json:"endIndex"`
}

type gridProperties struct {
	RowCount       int `json:"rowCount"`
	ColumnCount    int `json:"columnCount"`
	FrozenRowCount int `json:"frozenRowCount"`
}

type sheetProperties struct {
	SheetID        *int64          `json:"sheetId"`
	Title          string          `json:"title"`
	GridProperties *gridProperties `json:"gridProperties"`
}

type extendedValue struct {
	StringValue  *string  `json:"stringValue"`
	NumberValue  *float64 `json:"numberValue"`
	BoolValue    *bool    `json:"boolValue"`
	FormulaValue *string  `json:"formulaValue"`
}

type rowData struct {
	Values []struct {
		UserEnteredValue *extendedValue `json:"userEnteredValue"`
	} `json:"values"`
}

// request is one request of a batchUpdate: exactly one of its fields.
type request struct {
	AddSheet *struct {
		Properties sheetProperties `json:"properties"`
	} `json:"addSheet"`
	UpdateSheetProperties *struct {
		Properties sheetProperties `json:"properties"`
		Fields     string          `json:"fields"`
	} `json:"updateSheetProperties"`
	AppendDimension *struct {
		SheetID   int64  `json:"sheetId"`
		Dimension string `json:"dimension"`
		Length    int    `json:"length"`
	} `json:"appendDimension"`
	InsertDimension *struct {
		Range             dimensionRange `json:"range"`
		InheritFromBefore bool           `json:"inheritFromBefore"`
	} `json:"insertDimension"`
	DeleteDimension *struct {
		Range dimensionRange `json:"range"`
	} `json:"deleteDimension"`
	UpdateDimensionProperties *struct {
		Range      dimensionRange `json:"range"`
		Properties struct {
			HiddenByUser bool `json:"hiddenByUser"`
		} `json:"properties"`
		Fields string `json:"fields"`
	} `json:"updateDimensionProperties"`
	UpdateCells *struct {
		Start struct {
			SheetID     int64 `json:"sheetId"`
			RowIndex    int   `json:"rowIndex"`
			ColumnIndex int   `json:"columnIndex"`
		} `json:"start"`
		Rows   []rowData `json:"rows"`
		Fields string    `json:"fields"`
	} `json:"updateCells"`
	AppendCells *struct {
		SheetID int64     `json:"sheetId"`
		Rows    []rowData `json:"rows"`
		Fields  string    `json:"fields"`
	} `json:"appendCells"`
	CreateDeveloperMetadata *struct {
		DeveloperMetadata struct {
			MetadataKey   string `json:"metadataKey"`
			MetadataValue string `json:"metadataValue"`
			Visibility    string `json:"visibility"`
			Location      struct {
				SheetID        *int64          `json:"sheetId"`
				DimensionRange *dimensionRange `json:"dimensionRange"`
			} `json:"location"`
		} `json:"developerMetadata"`
	} `json:"createDeveloperMetadata"`
	FindReplace *struct {
		Find            string     `json:"find"`
		Replacement     string     `json:"replacement"`
		MatchCase       bool       `json:"matchCase"`
		MatchEntireCell bool       `json:"matchEntireCell"`
		Range           *gridRange `json:"range"`
	} `json:"findReplace"`
}

// batchUpdate applies all requests in order, or none.
func (s *Server) batchUpdate(r *http.Request) (any, *failure) {
	var req struct {
		Requests []request `json:"requests"`
	}
	if f := decode(r, &req); f != nil {
		return nil, f
	}
	if len(req.Requests) == 0 {
		return nil, invalid("Must specify at least one request.")
	}
	next := s.book.clone()
	for i, one := range req.Requests {
		name, f := s.apply(next, one)
		if f == nil && next.cells() > s.cells {
			f = invalid("This action would increase the number of cells in the workbook above the limit of %d cells.", s.cells)
		}
		if f != nil {
			f.message = fmt.Sprintf("Invalid requests[%d].%s: %s", i, name, f.message)
			return nil, f
		}
	}
	s.book = next
	return map[string]any{"spreadsheetId": s.id}, nil
}

func (s *Server) apply(b *workbook, r request) (string, *failure) {
	switch {
	case r.AddSheet != nil:
		return "addSheet", addSheet(b, r.AddSheet.Properties)
	case r.UpdateSheetProperties != nil:
		return "updateSheetProperties", updateSheet(b, r.UpdateSheetProperties.Properties, r.UpdateSheetProperties.Fields)
	case r.AppendDimension != nil:
		return "appendDimension", grow(b, r.AppendDimension.SheetID, r.AppendDimension.Dimension, r.AppendDimension.Length)
	case r.InsertDimension != nil:
		return "insertDimension", insert(b, r.InsertDimension.Range)
	case r.DeleteDimension != nil:
		return "deleteDimension", remove(b, r.DeleteDimension.Range)
	case r.UpdateDimensionProperties != nil:
		return "updateDimensionProperties", hide(b, r.UpdateDimensionProperties.Range, r.UpdateDimensionProperties.Properties.HiddenByUser, r.UpdateDimensionProperties.Fields)
	case r.UpdateCells != nil:
		u := r.UpdateCells
		return "updateCells", s.updateCells(b, u.Start.SheetID, u.Start.RowIndex, u.Start.ColumnIndex, u.Rows, u.Fields)
	case r.AppendCells != nil:
		return "appendCells", s.appendCells(b, r.AppendCells.SheetID, r.AppendCells.Rows, r.AppendCells.Fields)
	case r.CreateDeveloperMetadata != nil:
		m := r.CreateDeveloperMetadata.DeveloperMetadata
		return "createDeveloperMetadata", annotate(b, note{m.MetadataKey, m.MetadataValue}, m.Visibility, m.Location.SheetID, m.Location.DimensionRange)
	case r.FindReplace != nil:
		return "findReplace", findReplace(b, r.FindReplace.Find, r.FindReplace.Replacement, r.FindReplace.Range)
	}
	return "", invalid("No request set.")
}

// open is a tab that may be changed.
func open(b *workbook, id int64) (*tab, *failure) {
	t := b.byID(id)
	if t == nil {
		return nil, invalid("No grid with id: %d", id)
	}
	if t.protected {
		return nil, invalid("You are trying to edit a protected cell or object. Please contact the spreadsheet owner to remove protection if you need to edit.")
	}
	return t, nil
}

func addSheet(b *workbook, p sheetProperties) *failure {
	if p.SheetID == nil || p.GridProperties == nil || p.Title == "" {
		return invalid("this server wants the id, the title and the size of a sheet")
	}
	if b.byTitle(p.Title) != nil {
		return invalid("A sheet with the name %q already exists. Please enter another name.", p.Title)
	}
	if b.byID(*p.SheetID) != nil {
		return invalid("Sheet with ID %d already exists.", *p.SheetID)
	}
	t := newTab(*p.SheetID, p.Title, p.GridProperties.RowCount, p.GridProperties.ColumnCount)
	if t.frozen = p.GridProperties.FrozenRowCount; t.frozen >= len(t.rows) {
		return invalid("You can't freeze all visible rows on the sheet.")
	}
	b.tabs = append(b.tabs, t)
	return nil
}

func updateSheet(b *workbook, p sheetProperties, fields string) *failure {
	if p.SheetID == nil || p.GridProperties == nil || fields != "gridProperties.frozenRowCount" {
		return invalid("At least one field must be listed in 'fields'. (Use '*' to indicate all fields.)")
	}
	t, f := open(b, *p.SheetID)
	if f != nil {
		return f
	}
	if p.GridProperties.FrozenRowCount >= len(t.rows) {
		return invalid("You can't freeze all visible rows on the sheet.")
	}
	t.frozen = p.GridProperties.FrozenRowCount
	return nil
}

func grow(b *workbook, id int64, dimension string, n int) *failure {
	t, f := open(b, id)
	switch {
	case f != nil:
		return f
	case n < 1:
		return invalid("Length must be positive.")
	case dimension == "ROWS":
		t.rows = append(t.rows, make([][]any, n)...)
	case dimension == "COLUMNS":
		t.columns = append(t.columns, make([]columnProps, n)...)
	default:
		return invalid("No dimension specified.")
	}
	return nil
}

// bounds are those of a range that has to have both.
func (d dimensionRange) bounds(t *tab) (from, to int, f *failure) {
	if d.StartIndex == nil || d.EndIndex == nil {
		return 0, 0, invalid("range must be bounded.")
	}
	size, what := len(t.rows), "row"
	if d.Dimension == "COLUMNS" {
		size, what = len(t.columns), "column"
	} else if d.Dimension != "ROWS" {
		return 0, 0, invalid("No dimension specified.")
	}
	from, to = *d.StartIndex, *d.EndIndex
	if from < 0 || to <= from {
		return 0, 0, invalid("range.endIndex[%d] must be greater than range.startIndex[%d]", to, from)
	}
	if from >= size {
		return 0, 0, invalid("range.startIndex[%d] is after last %s in grid[%d]", from, what, size-1)
	}
	return from, to, nil
}

func insert(b *workbook, d dimensionRange) *failure {
	t, f := open(b, d.SheetID)
	if f != nil {
		return f
	}
	from, to, f := d.bounds(t)
	if f != nil {
		return f
	}
	if d.Dimension == "COLUMNS" {
		t.insertColumns(from, to-from)
		return nil
	}
	t.rows = slices.Insert(t.rows, from, make([][]any, to-from)...)
	return nil
}

func remove(b *workbook, d dimensionRange) *failure {
	t, f := open(b, d.SheetID)
	if f != nil {
		return f
	}
	from, to, f := d.bounds(t)
	if f != nil {
		return f
	}
	if d.Dimension == "COLUMNS" {
		to = min(to, len(t.columns))
		if to-from == len(t.columns) {
			return invalid("You can't delete all the columns on the sheet.")
		}
		t.deleteColumns(from, to)
		return nil
	}
	to = min(to, len(t.rows))
	frozen := max(0, min(to, t.frozen)-from)
	if len(t.rows)-t.frozen-(to-from-frozen) < 1 {
		return invalid("Sorry, it is not possible to delete all non-frozen rows.")
	}
	t.frozen -= frozen
	t.rows = slices.Delete(t.rows, from, to)
	return nil
}

func hide(b *workbook, d dimensionRange, hidden bool, fields string) *failure {
	t, f := open(b, d.SheetID)
	if f != nil {
		return f
	}
	from, to, f := d.bounds(t)
	if f != nil {
		return f
	}
	if fields != "hiddenByUser" || d.Dimension != "COLUMNS" || to > len(t.columns) {
		return invalid("At least one field must be listed in 'fields'. (Use '*' to indicate all fields.)")
	}
	for i := from; i < to; i++ {
		t.columns[i].hidden = hidden
	}
	return nil
}

// valueOf is what a cell gets.
func (s *Server) valueOf(v *extendedValue) (any, *failure) {
	if v == nil {
		return nil, nil
	}
	set := 0
	var out any
	if v.StringValue != nil {
		if n := len(utf16.Encode([]rune(*v.StringValue))); n > 50_000 {
			return nil, invalid("Your input contains more than the maximum of 50000 characters in a single cell.")
		}
		if s.poison != "" && strings.Contains(*v.StringValue, s.poison) {
			return nil, invalid("The value is not allowed here.")
		}
		if out = *v.StringValue; out == "" {
			out = nil
		}
		set++
	}
	if v.NumberValue != nil {
		out, set = *v.NumberValue, set+1
	}
	if v.BoolValue != nil {
		out, set = *v.BoolValue, set+1
	}
	if v.FormulaValue != nil {
		if !strings.HasPrefix(*v.FormulaValue, "=") {
			return nil, invalid("Formula must start with '='.")
		}
		out, set = Formula(*v.FormulaValue), set+1
	}
	if set > 1 {
		return nil, invalid("oneof field 'value' is already set.")
	}
	return out, nil
}

func (s *Server) updateCells(b *workbook, id int64, row, column int, rows []rowData, fields string) *failure {
	t, f := open(b, id)
	if f != nil {
		return f
	}
	if fields != "userEnteredValue" {
		return invalid("At least one field must be listed in 'fields'. (Use '*' to indicate all fields.)")
	}
	if row >= len(t.rows) {
		return invalid("GridCoordinate.rowIndex[%d] is after last row in grid[%d]", row, len(t.rows)-1)
	}
	if column >= len(t.columns) {
		return invalid("GridCoordinate.columnIndex[%d] is after last column in grid[%d]", column, len(t.columns)-1)
	}
	for i, data := range rows {
		for j, cell := range data.Values {
			if row+i >= len(t.rows) {
				return invalid("Attempting to write row: %d, beyond the last requested row of: %d", row+i, len(t.rows)-1)
			}
			if column+j >= len(t.columns) {
				return invalid("Attempting to write column: %d, beyond the last requested column of: %d", column+j, len(t.columns)-1)
			}
			v, f := s.valueOf(cell.UserEnteredValue)
			if f != nil {
				return f
			}
			t.set(row+i, column+j, v)
		}
	}
	return nil
}

func (s *Server) appendCells(b *workbook, id int64, rows []rowData, fields string) *failure {
	t, f := open(b, id)
	if f != nil {
		return f
	}
	at := t.lastUsed()
	if need := at + len(rows) - len(t.rows); need > 0 {
		t.rows = append(t.rows, make([][]any, need)...)
	}
	return s.updateCells(b, id, at, 0, rows, fields)
}

func annotate(b *workbook, n note, visibility string, id *int64, d *dimensionRange) *failure {
	if n.key == "" || visibility == "" || (id == nil) == (d == nil) {
		return invalid("Developer metadata must have a key, a visibility and one location.")
	}
	if id != nil {
		t, f := open(b, *id)
		if f != nil {
			return f
		}
		t.notes = append(t.notes, n)
		return nil
	}
	t, f := open(b, d.SheetID)
	if f != nil {
		return f
	}
	from, to, f := d.bounds(t)
	if f != nil {
		return f
	}
	if d.Dimension != "COLUMNS" || to != from+1 {
		return invalid("Developer metadata must be associated with a single row or column.")
	}
	t.columns[from].notes = append(slices.Clone(t.columns[from].notes), n)
	return nil
}

func findReplace(b *workbook, find, replacement string, g *gridRange) *failure {
	if g == nil || find == "" {
		return invalid("this server wants a range and a text to find")
	}
	t, f := open(b, g.SheetID)
	if f != nil {
		return f
	}
	r0, r1, c0, c1, f := g.within(t)
	if f != nil {
		return f
	}
	for r := r0; r < r1; r++ {
		for c := c0; c < c1; c++ {
			if t.cell(r, c) == find {
				t.set(r, c, replacement)
			}
		}
	}
	return nil
}
