package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// live shows a run while it goes on: on a terminal that is large enough the whole table,
// painted over itself, and elsewhere a line for each row that has something new.
type live struct {
	w       io.Writer
	board   []row
	width   int // of the terminal; 0 = it is none, or too small
	painted bool
	before  map[int]line
	began   time.Time
}

func newLive(w io.Writer, board []row) *live {
	v := &live{w: w, board: board, before: map[int]line{}, began: time.Now()}
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && int(size.Row) > len(board)+3 && size.Col >= 80 {
			v.width = int(size.Col)
		}
	}
	return v
}

// show is called when something has begun or ended.
func (v *live) show(tasks []*task) {
	var lines []line
	for _, r := range v.board {
		lines = append(lines, lineOf(r, tasks))
	}
	if v.width == 0 {
		v.tell(lines)
		return
	}
	running := map[int]bool{}
	for _, t := range tasks {
		running[t.row] = running[t.row] || t.busy
	}
	var b strings.Builder
	if v.painted {
		fmt.Fprintf(&b, "\x1b[%dA", len(lines)+2)
	}
	v.painted = true
	v.paint(&b, fmt.Sprintf("    %-44s %11s %13s %6s  %-10s  %s", "fault or bad input", "cases", "acknowledged", "lost", "control", "result"))
	for _, l := range lines {
		mark := ' '
		if running[l.Row] {
			mark = '>'
		}
		v.paint(&b, fmt.Sprintf("%c%2d %-44.44s %11s %13s %6s  %-10s  %s", mark, l.Row, l.Fault, l.cases(), l.acked(), l.lost(), l.Control, l.result()))
	}
	v.paint(&b, fmt.Sprintf("%v", time.Since(v.began).Round(time.Second)))
	io.WriteString(v.w, b.String()) // a terminal that is gone is no reason to end
}

// paint adds one line that does not wrap.
func (v *live) paint(b *strings.Builder, text string) {
	if runes := []rune(text); len(runes) >= v.width {
		text = string(runes[:v.width-1])
	}
	b.WriteString(text + "\x1b[K\n")
}

// tell prints the rows that ran since the last time.
func (v *live) tell(lines []line) {
	for _, l := range lines {
		old, seen := v.before[l.Row]
		v.before[l.Row] = l
		if same := seen && old.Runs == l.Runs && old.Result == l.Result && old.Control == l.Control; same || l.Runs == 0 && l.Result == waiting {
			continue
		}
		fmt.Fprintf(v.w, "%6.0fs  row %2d  %-44s  %s cases, %s acknowledged, %s lost  control %s  %s\n",
			time.Since(v.began).Seconds(), l.Row, l.Fault, l.cases(), l.acked(), l.lost(), l.Control, l.result())
	}
}

// end clears the table, which the last one follows.
func (v *live) end() {
	if v.painted {
		fmt.Fprintf(v.w, "\x1b[%dA\x1b[J", len(v.board)+2)
	}
}
