package main

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
)

// report is the table of a run: rows in the order of the parts, each group of them under a
// heading.
type report struct {
	rows    []row
	backlog *backlogPoint // for the plot
	others  float64       // share of the processors that other programs had
}

// row is one line of the table. Its figures are judged in their order, as far as the
// target has bounds for them.
type row struct {
	what, figure string
	values       []float64
	target       target
}

// target is what the design asks of the figures of a row: the least, and what is aimed at.
// Either may be missing; a row with neither is for information.
type target struct {
	first, goal []float64
	atLeast     bool // more is better
	unit        string
}

// least is a target for a figure of which more is better; NaN is none.
func least(unit string, first, goal float64) target {
	t := most(unit, first, goal)
	t.atLeast = true
	return t
}

// most is a target for a figure of which less is better; NaN is none.
func most(unit string, first, goal float64) target {
	t := target{unit: unit}
	if !math.IsNaN(first) {
		t.first = []float64{first}
	}
	if !math.IsNaN(goal) {
		t.goal = []float64{goal}
	}
	return t
}

// mostOf is a target for two figures of which less is better, as a p50 and a p99.
func mostOf(first, goal [2]float64) target { return target{first: first[:], goal: goal[:]} }

// leastOf is a target for several figures of which more is better.
func leastOf(first, goal []float64) target {
	return target{first: first, goal: goal, atLeast: true}
}

func (t target) none() bool { return len(t.first)+len(t.goal) == 0 }

// within says whether the figures hold bounds; none are held by nothing.
func (t target) within(values, bounds []float64) bool {
	for i, b := range bounds {
		if i >= len(values) || math.IsNaN(values[i]) || t.atLeast && values[i] < b || !t.atLeast && values[i] > b {
			return false
		}
	}
	return len(bounds) > 0
}

// reached is what the table says: goal, first or no, or nothing without a target.
func (x row) reached() string {
	switch {
	case x.target.none():
		return ""
	case x.target.within(x.values, x.target.goal):
		return "goal"
	case x.target.within(x.values, x.target.first):
		return "first"
	}
	return "no"
}

// bounds is how a column shows them.
func (t target) bounds(v []float64) string {
	if len(v) == 0 {
		return ""
	}
	var s []string
	for _, b := range v {
		s = append(s, strconv.FormatFloat(b, 'f', -1, 64))
	}
	return strings.Join(s, " / ") + t.unit
}

// heading begins a group of rows.
func (r *report) heading(name string) { r.rows = append(r.rows, row{what: "**" + name + "**"}) }

// add adds a row whose figures are printed with format.
func (r *report) add(what, format string, t target, values ...float64) {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	r.rows = append(r.rows, row{what, fmt.Sprintf(format, args...), values, t})
}

// tell adds a row for information.
func (r *report) tell(what, format string, values ...float64) {
	r.add(what, format, target{}, values...)
}

// compare adds a row with the median and the lowest of a comparison, of which the median is judged.
func (r *report) compare(what string, t target, c quotient) {
	r.add(what, "%.3f; %.3f", t, c.median, c.lowest)
}

// write prints the machine and the table as Markdown, columns aligned.
func (r *report) write(w io.Writer) error {
	fmt.Fprintf(w, "%s, %s. Other programs and the kernel's threads had %.0f %% of the processors.\n\n", machine(), runtime.Version(), 100*r.others)
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(tw, "| what\t| this run\t| first\t| goal\t| reached\t|")
	fmt.Fprintln(tw, "|---\t|---\t|---\t|---\t|---\t|")
	for _, x := range r.rows {
		fmt.Fprintf(tw, "| %s\t| %s\t| %s\t| %s\t| %s\t|\n", x.what, x.figure, x.target.bounds(x.target.first), x.target.bounds(x.target.goal), x.reached())
	}
	return tw.Flush()
}
