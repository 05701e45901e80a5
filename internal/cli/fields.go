package cli

import (
	"fmt"
	"io"
	"strings"
)

// fields is a list of names and values, one a line, the values aligned.
type fields struct {
	w    io.Writer
	st   style
	rows [][2]string
}

func (a *app) fields() *fields { return &fields{w: a.Out, st: a.outStyle()} }

// add appends a line; without a name it continues the one before it.
func (f *fields) add(name, value string) { f.rows = append(f.rows, [2]string{name, value}) }

// addIf leaves out what does not exist.
func (f *fields) addIf(name, value string) {
	if value != "" {
		f.add(name, oneLine(value))
	}
}

func (f *fields) write() error {
	width := 0
	for _, r := range f.rows {
		width = max(width, len(r[0]))
	}
	var b strings.Builder
	for _, r := range f.rows {
		pad := strings.Repeat(" ", width-len(r[0]))
		fmt.Fprintf(&b, "%s%s  %s\n", f.st.faint(r[0]), pad, r[1])
	}
	_, err := io.WriteString(f.w, b.String())
	return err
}
