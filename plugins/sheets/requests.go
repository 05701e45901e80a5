package main

import (
	"maps"
	"slices"

	"google.golang.org/api/sheets/v4"
)

// The size of a new tab. Google's own new tabs are as large.
const (
	newRows    = 1000
	newColumns = 26
)

// requests are what a plan is for Google, in an order in which no request moves what a
// later one names by its place: columns are added behind those that there are, rows
// are written before any is removed, and the lowest row is removed first.
func (p *plan) requests(name string) []*sheets.Request {
	update, add, remove := p.work()
	if len(update)+len(add)+len(remove) == 0 {
		return nil
	}
	out := p.grid(name)
	out = append(out, p.titles()...)
	for _, r := range update {
		out = append(out, p.updateRow(r)...)
	}
	if len(add) > 0 {
		out = append(out, p.appendRows(add))
	}
	return append(out, p.removeRows(remove)...)
}

// grid makes the tab, and room for the columns that it lacks.
func (p *plan) grid(name string) []*sheets.Request {
	t, width := p.table, len(p.header.columns)
	var out []*sheets.Request
	if t.missing {
		out = append(out, &sheets.Request{AddSheet: &sheets.AddSheetRequest{Properties: &sheets.SheetProperties{
			SheetId: t.tab, Title: name, ForceSendFields: []string{"SheetId"},
			GridProperties: &sheets.GridProperties{RowCount: newRows, ColumnCount: int64(max(newColumns, width)), FrozenRowCount: 1},
		}}})
	}
	if !t.noted {
		out = append(out, note(metaTab, name, &sheets.DeveloperMetadataLocation{SheetId: t.tab, ForceSendFields: []string{"SheetId"}}))
	}
	if t.missing {
		return out
	}
	first := p.header.firstAdded()
	if first == 0 && width > 0 { // a tab without a header
		if t.height < 2 {
			out = append(out, p.grow("ROWS", 2-t.height))
		}
		if t.frozen == 0 {
			out = append(out, &sheets.Request{UpdateSheetProperties: &sheets.UpdateSheetPropertiesRequest{
				Properties: &sheets.SheetProperties{SheetId: t.tab, ForceSendFields: []string{"SheetId"}, GridProperties: &sheets.GridProperties{FrozenRowCount: 1}},
				Fields:     "gridProperties.frozenRowCount",
			}})
		}
	}
	switch {
	case first == width: // nothing is added
	case first == 0 || first >= t.width:
		if width > t.width {
			out = append(out, p.grow("COLUMNS", width-t.width))
		}
	default:
		// There may be cells without a header to the right of the last one. They move;
		// writing into their columns would mix them up with ours.
		out = append(out, &sheets.Request{InsertDimension: &sheets.InsertDimensionRequest{Range: p.span("COLUMNS", first, width)}})
	}
	return out
}

// titles writes the titles of the added columns, hides those that are not for people,
// and notes that the relay made them.
func (p *plan) titles() []*sheets.Request {
	first := p.header.firstAdded()
	added := p.header.columns[first:]
	if len(added) == 0 {
		return nil
	}
	var cells []*sheets.CellData
	for _, c := range added {
		cells = append(cells, &sheets.CellData{UserEnteredValue: text(c.title)})
	}
	out := []*sheets.Request{p.setCells(0, first, cells)}
	for i, c := range added {
		at := first + i
		if c.title == colEvent || c.title == colSequence {
			out = append(out, &sheets.Request{UpdateDimensionProperties: &sheets.UpdateDimensionPropertiesRequest{
				Range: p.span("COLUMNS", at, at+1), Properties: &sheets.DimensionProperties{HiddenByUser: true}, Fields: "hiddenByUser",
			}})
		}
		out = append(out, note(metaColumn, c.made, &sheets.DeveloperMetadataLocation{DimensionRange: p.span("COLUMNS", at, at+1)}))
	}
	return out
}

// updateRow writes the cells that the batch has for a row, and leaves those between
// them alone.
func (p *plan) updateRow(r *row) []*sheets.Request {
	var out []*sheets.Request
	at := slices.Sorted(maps.Keys(r.cells))
	for len(at) > 0 {
		n := 1
		for n < len(at) && at[n] == at[n-1]+1 {
			n++
		}
		var cells []*sheets.CellData
		for _, i := range at[:n] {
			cells = append(cells, &sheets.CellData{UserEnteredValue: r.cells[i]})
		}
		out = append(out, p.setCells(r.at, at[0], cells))
		at = at[n:]
	}
	return out
}

// appendRows adds rows below the last one that has anything in it.
func (p *plan) appendRows(rows []*row) *sheets.Request {
	req := &sheets.AppendCellsRequest{SheetId: p.table.tab, Fields: "userEnteredValue", ForceSendFields: []string{"SheetId"}}
	for _, r := range rows {
		data := &sheets.RowData{}
		for i := range slices.Max(slices.Collect(maps.Keys(r.cells))) + 1 {
			data.Values = append(data.Values, &sheets.CellData{UserEnteredValue: r.cells[i]})
		}
		req.Rows = append(req.Rows, data)
	}
	return &sheets.Request{AppendCells: req}
}

// removeRows takes rows from the lowest to the highest, neighbours together.
func (p *plan) removeRows(rows []*row) []*sheets.Request {
	var out []*sheets.Request
	if len(rows) > 0 && p.table.height-p.table.frozen-len(rows) < 1 {
		// Google refuses to remove the last row that is not frozen.
		out = append(out, p.grow("ROWS", 1))
	}
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].at == rows[n-1].at-1 {
			n++
		}
		out = append(out, &sheets.Request{DeleteDimension: &sheets.DeleteDimensionRequest{Range: p.span("ROWS", rows[n-1].at, rows[0].at+1)}})
		rows = rows[n:]
	}
	return out
}

func (p *plan) setCells(at, column int, cells []*sheets.CellData) *sheets.Request {
	return &sheets.Request{UpdateCells: &sheets.UpdateCellsRequest{
		Start:  &sheets.GridCoordinate{SheetId: p.table.tab, RowIndex: int64(at), ColumnIndex: int64(column), ForceSendFields: []string{"SheetId"}},
		Rows:   []*sheets.RowData{{Values: cells}},
		Fields: "userEnteredValue",
	}}
}

func (p *plan) grow(dimension string, n int) *sheets.Request {
	return &sheets.Request{AppendDimension: &sheets.AppendDimensionRequest{
		SheetId: p.table.tab, Dimension: dimension, Length: int64(n), ForceSendFields: []string{"SheetId"},
	}}
}

// span is half-open, as Google counts. A start of 0 has to be sent: without it the
// span would have no beginning.
func (p *plan) span(dimension string, from, to int) *sheets.DimensionRange {
	return &sheets.DimensionRange{SheetId: p.table.tab, Dimension: dimension, StartIndex: int64(from), EndIndex: int64(to), ForceSendFields: []string{"SheetId", "StartIndex"}}
}

func note(key, value string, at *sheets.DeveloperMetadataLocation) *sheets.Request {
	return &sheets.Request{CreateDeveloperMetadata: &sheets.CreateDeveloperMetadataRequest{DeveloperMetadata: &sheets.DeveloperMetadata{
		MetadataKey: key, MetadataValue: value, Location: at, Visibility: "DOCUMENT",
	}}}
}
