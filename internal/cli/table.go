package cli

import (
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// column is one column of a table.
type column struct {
	title string
	// least is how narrow the column may become when the terminal is narrow; 0
	// is never cut. A cut cell loses its middle: beginnings and ends tell ids,
	// URLs and messages apart.
	least int
	right bool // numbers
	paint func(style, string) string
	// short is what a cell says with less room, before any cell is cut; nil
	// leaves it as it is.
	short func(string) string
	// drop says in which order columns are left out when even their least widths
	// do not fit, 1 first; 0 is never left out.
	drop int
	// below is the width under which the column is not worth having: its cells
	// then stand on lines of their own under their rows. 0 is never.
	below int
}

// table is rows of text that are written in one piece, so that the columns
// fit what they hold.
type table struct {
	columns []column
	rows    [][]string
}

const columnGap = "  "

func (t *table) add(cells ...string) {
	for i, c := range cells {
		cells[i] = oneLine(c)
	}
	t.rows = append(t.rows, cells)
}

// write prints the table. On a terminal (width > 0) no line is longer than
// width, as far as the columns' least widths allow; else nothing is cut.
func (t *table) write(w io.Writer, width int, st style) error {
	notes := make([]string, len(t.rows))
	if width > 0 && sum(t.natural()) > width {
		t, notes = t.narrow(width)
	}
	widths := t.natural()
	if width > 0 {
		t.shrink(widths, width)
	}
	var b strings.Builder
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
	}
	t.line(&b, titles, widths, func(_ int, text string) string { return st.bold(text) })
	for n, row := range t.rows {
		t.line(&b, row, widths, func(i int, text string) string {
			if paint := t.columns[i].paint; paint != nil {
				return paint(st, text)
			}
			return text
		})
		if note := notes[n]; note != "" {
			b.WriteString(columnGap + st.faint(cutMiddle(note, max(width-len(columnGap), 1))) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// narrow is a table that says the same with less, and what belongs under each
// of its rows.
func (t *table) narrow(width int) (*table, []string) {
	n := &table{columns: slices.Clone(t.columns)}
	for _, row := range t.rows {
		row = slices.Clone(row)
		for i, c := range n.columns {
			if c.short != nil {
				row[i] = c.short(row[i])
			}
		}
		n.rows = append(n.rows, row)
	}
	notes := make([]string, len(n.rows))
	for i, c := range n.columns {
		natural := n.natural()
		if room := width - (sum(natural) - natural[i]); c.below > 0 && natural[i] > room && room < c.below {
			for r, row := range n.rows {
				notes[r] = strings.TrimSpace(notes[r] + columnGap + row[i])
			}
			n.leaveOut(i)
			break // one column at most goes there
		}
	}
	for sum(n.leastWidths()) > width {
		first := -1
		for i, c := range n.columns {
			if c.drop > 0 && (first < 0 || c.drop < n.columns[first].drop) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		n.leaveOut(first)
	}
	return n, notes
}

func (t *table) leaveOut(column int) {
	t.columns = slices.Delete(t.columns, column, column+1)
	for i, row := range t.rows {
		t.rows[i] = slices.Delete(row, column, column+1)
	}
}

// leastWidths is how narrow the columns can become.
func (t *table) leastWidths() []int {
	widths := t.natural()
	for i, c := range t.columns {
		if c.least > 0 {
			widths[i] = min(widths[i], max(c.least, textWidth(c.title)))
		}
	}
	return widths
}

// sum is the width of a line of columns, the gaps between them included.
func sum(widths []int) int {
	total := len(columnGap) * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	return total
}

func (t *table) natural() []int {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = textWidth(c.title)
		for _, row := range t.rows {
			widths[i] = max(widths[i], textWidth(row[i]))
		}
	}
	return widths
}

// shrink takes single columns from whichever cell may give most, so that all
// of them stay as readable as they can.
func (t *table) shrink(widths []int, width int) {
	for total := sum(widths); total > width; total-- {
		widest := -1
		for i, c := range t.columns {
			if c.least > 0 && widths[i] > max(c.least, textWidth(c.title)) && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

func (t *table) line(out *strings.Builder, cells []string, widths []int, paint func(int, string) string) {
	var b strings.Builder
	for i, cell := range cells {
		cell = cutMiddle(cell, widths[i])
		pad := strings.Repeat(" ", widths[i]-textWidth(cell))
		last := i == len(cells)-1
		switch {
		case t.columns[i].right:
			b.WriteString(pad + paint(i, cell))
		case last: // no blanks at the end of a line
			b.WriteString(paint(i, cell))
		default:
			b.WriteString(paint(i, cell) + pad)
		}
		if !last {
			b.WriteString(columnGap)
		}
	}
	// An empty last cell leaves the gap before it.
	out.WriteString(strings.TrimRight(b.String(), " ") + "\n")
}

// cutMiddle shortens text to width columns with an ellipsis in the middle.
func cutMiddle(text string, width int) string {
	if textWidth(text) <= width {
		return text
	}
	if width <= 1 {
		return "…"
	}
	runes := []rune(text)
	var head, tail int
	// The head gets the odd column.
	for used := 1; ; {
		next, take := runes[head], &head
		if head > tail {
			next, take = runes[len(runes)-1-tail], &tail
		}
		if used += runeWidth(next); used > width {
			return string(runes[:head]) + "…" + string(runes[len(runes)-tail:])
		}
		*take++
	}
}

// oneLine keeps what a receiver or sender wrote from moving the cursor or
// breaking a row.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		return printable(r)
	}, s)
}

// printable replaces what could act on a terminal: control characters, C1
// included, and the marks that reorder text.
func printable(r rune) rune {
	if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == utf8.RuneError {
		return '\ufffd'
	}
	return r
}

// safeText is what foreign text may be printed as: lines stay lines.
func safeText(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return printable(r)
	}, s)
}

func textWidth(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// runeWidth is how many columns a terminal gives a rune: none to combining
// marks, two to the wide East Asian blocks and pictographs (Unicode Standard
// Annex 11; the blocks, not every code point).
func runeWidth(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf && r != 0x303f, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6,
		r >= 0x1f300 && r <= 0x1f64f, r >= 0x1f900 && r <= 0x1f9ff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}
