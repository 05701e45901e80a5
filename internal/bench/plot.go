package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"text/template"
)

// recorded is what a run writes for the plot.
type recorded struct {
	Machine string        `json:"machine"`
	Go      string        `json:"go"`
	Rows    []recordedRow `json:"rows"`
	Backlog *backlogPoint `json:"backlog,omitempty"`
}

type recordedRow struct {
	What    string    `json:"what"`
	Figure  string    `json:"figure"`
	Values  []float64 `json:"values,omitempty"`
	Reached string    `json:"reached,omitempty"`
}

func (r *report) record(path string) error {
	out := recorded{Machine: machine(), Go: runtime.Version(), Backlog: r.backlog}
	for _, x := range r.rows {
		out.Rows = append(out.Rows, recordedRow{x.what, x.figure, x.values, x.reached()})
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// runPlot draws the backlogs of recorded runs.
func runPlot(args []string) error {
	fs := flag.NewFlagSet("plot", flag.ExitOnError)
	to := fs.String("o", "docs/benchmarks.svg", "file to write")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: bench plot [-o FILE] RESULT.json...\n\nRESULT.json are written by scripts/bench --json, of runs with the part backlog.")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	var points []backlogPoint
	for _, path := range fs.Args() {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var r recorded
		if err := json.Unmarshal(b, &r); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if r.Backlog != nil {
			points = append(points, *r.Backlog)
		}
	}
	if len(points) == 0 {
		return errors.New("no result has a backlog")
	}
	f, err := os.Create(*to)
	if err != nil {
		return err
	}
	return errors.Join(plot(f, points), f.Close())
}

// The plot's geometry, in the SVG's units.
const (
	plotLeft, plotRight = 70, 370 // of the axis
	plotTop, plotBottom = 50, 250
	panelWidth          = 400
)

type tick struct {
	At    float64
	Label string
}

type mark struct {
	X, Y  float64
	Low   float64 // the end of a line down to the lowest leg; Y when there is none
	Many  bool    // many webhooks share the backlog
	Title string
}

type panel struct {
	Offset     int
	Title      string
	X, Y       []tick
	One, Many  string // polylines
	Marks      []mark
	Goal       float64
	GoalLabel  string
	Left       int
	Right, Top int
	Bottom     int
}

// plot draws the rate and the anonymous memory against the backlog.
func plot(w io.Writer, points []backlogPoint) error {
	points = slices.Clone(points)
	slices.SortStableFunc(points, func(a, b backlogPoint) int { return cmp.Compare(a.Pending, b.Pending) })
	panels := []panel{
		newPanel(0, "Rate beside a backlog ÷ rate with none", points, func(p backlogPoint) (at, low float64) { return p.Rate, cmp.Or(p.Lowest, p.Rate) }, 0.9, "%.2f"),
		newPanel(panelWidth, "Anonymous memory, MiB", points, func(p backlogPoint) (at, low float64) { return mib(p.Anonymous), mib(p.Anonymous) }, 160, "%.0f"),
	}
	t, err := template.New("plot").Parse(plotSVG)
	if err != nil {
		return err
	}
	return t.Execute(w, panels)
}

// ceiling is a round number at or above v, and four ticks fit it.
func ceiling(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.2, 1.6, 2, 4, 6, 8} {
		if unit*m >= v {
			return unit * m
		}
	}
	return unit * 10
}

func newPanel(offset int, title string, points []backlogPoint, of func(backlogPoint) (at, low float64), goal float64, format string) panel {
	p := panel{Offset: offset, Title: title, Left: plotLeft, Right: plotRight, Top: plotTop, Bottom: plotBottom}
	top := goal
	low, high := math.Inf(1), math.Inf(-1)
	for _, b := range points {
		v, _ := of(b)
		top = max(top, v)
		at := math.Log10(float64(max(1, b.Pending)))
		low, high = min(low, math.Floor(at)), max(high, math.Ceil(at))
	}
	if low == high {
		low, high = low-1, high+1
	}
	top = ceiling(top)
	x := func(pending int64) float64 {
		return plotLeft + (plotRight-plotLeft)*(math.Log10(float64(max(1, pending)))-low)/(high-low)
	}
	y := func(v float64) float64 { return plotBottom - (plotBottom-plotTop)*v/top }
	for e := low; e <= high; e++ {
		p.X = append(p.X, tick{x(int64(math.Round(math.Pow(10, e)))), thousands(e)})
	}
	for n := range 5 {
		v := top * float64(n) / 4
		p.Y = append(p.Y, tick{y(v), fmt.Sprintf(format, v)})
	}
	for _, b := range points {
		v, least := of(b)
		m := mark{x(b.Pending), y(v), y(least), b.Webhooks > 1, fmt.Sprintf("%d pending, %d webhooks: "+format, b.Pending, max(1, b.Webhooks), v)}
		p.Marks = append(p.Marks, m)
		line := &p.One
		if m.Many {
			line = &p.Many
		}
		*line += fmt.Sprintf("%.1f,%.1f ", m.X, m.Y)
	}
	p.Goal, p.GoalLabel = y(goal), fmt.Sprintf("dashed: the goal with 10 M, "+format, goal)
	return p
}

// thousands names a power of ten.
func thousands(exponent float64) string {
	v := math.Pow(10, exponent)
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.0f M", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.0f k", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

const plotSVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 320" font-family="sans-serif" font-size="12" role="img" aria-label="Rate and memory against backlog">
<style>
svg { --ink: #24292f; --grid: #d0d7de; --one: #0550ae; --many: #953800 }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --grid: #3d444d; --one: #6cb6ff; --many: #f0883e } }
text { fill: var(--ink) }
.grid { stroke: var(--grid) }
.goal { stroke: var(--ink); stroke-dasharray: 4 4 }
.one { stroke: var(--one); fill: none; stroke-width: 2 }
.many { stroke: var(--many); fill: none; stroke-width: 2 }
.dot-one { fill: var(--one) }
.dot-many { fill: var(--many) }
</style>
{{range .}}{{$p := .}}<g transform="translate({{.Offset}} 0)">
<text x="{{.Left}}" y="20" font-size="14">{{.Title}}</text>
<text x="{{.Left}}" y="38" font-size="11">{{.GoalLabel}}</text>
{{range .Y}}<line class="grid" x1="{{$p.Left}}" x2="{{$p.Right}}" y1="{{printf "%.1f" .At}}" y2="{{printf "%.1f" .At}}"/>
<text x="62" y="{{printf "%.1f" .At}}" dy="4" text-anchor="end">{{.Label}}</text>
{{end}}{{range .X}}<text x="{{printf "%.1f" .At}}" y="270" text-anchor="middle">{{.Label}}</text>
{{end}}<line class="goal" x1="{{.Left}}" x2="{{.Right}}" y1="{{printf "%.1f" .Goal}}" y2="{{printf "%.1f" .Goal}}"/>
{{with .One}}<polyline class="one" points="{{.}}"/>
{{end}}{{with .Many}}<polyline class="many" points="{{.}}"/>
{{end}}{{range .Marks}}{{if ne .Y .Low}}<line class="{{if .Many}}many{{else}}one{{end}}" x1="{{printf "%.1f" .X}}" x2="{{printf "%.1f" .X}}" y1="{{printf "%.1f" .Y}}" y2="{{printf "%.1f" .Low}}"/>
{{end}}<circle class="{{if .Many}}dot-many{{else}}dot-one{{end}}" cx="{{printf "%.1f" .X}}" cy="{{printf "%.1f" .Y}}" r="4"><title>{{.Title}}</title></circle>
{{end}}</g>
{{end}}<text x="70" y="295">deliveries pending, logarithmic</text>
<text x="70" y="312">a bar reaches down to the lowest leg</text>
<circle class="dot-one" cx="470" cy="291" r="4"/><text x="480" y="295">one webhook</text>
<circle class="dot-many" cx="590" cy="291" r="4"/><text x="600" y="295">many webhooks</text>
</svg>
`
