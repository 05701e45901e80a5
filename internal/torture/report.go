package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Words of the columns result and control.
const (
	held      = "held"
	failed    = "FAILED"
	skipped   = "skipped"
	absent    = "not there yet"
	caught    = "caught"
	notCaught = "NOT CAUGHT"
	none      = "none"
	waiting   = "…"
)

// line is a row of the scoreboard with what was measured.
type line struct {
	Row      int       `json:"row"`
	Fault    string    `json:"fault"`
	Required string    `json:"required"`
	Cases    int64     `json:"cases"`
	Acked    int64     `json:"acknowledged"`
	Lost     int64     `json:"lost"`
	Result   string    `json:"result"`
	Why      []string  `json:"why,omitempty"` // of what was skipped, or is not there
	Control  string    `json:"control"`
	Seconds  float64   `json:"seconds"`
	Runs     int       `json:"runs"`
	Failures []failure `json:"failures,omitempty"`
}

// scores is what a whole run showed.
type scores struct {
	Seed        uint64  `json:"seed"`
	Seconds     float64 `json:"seconds"`
	Logs        string  `json:"logs"`
	Interrupted bool    `json:"interrupted,omitempty"`
	Lines       []line  `json:"rows"`
}

func newScoreboard(board []row, tasks []*task, seed uint64, took time.Duration, logs string) *scores {
	s := &scores{Seed: seed, Seconds: took.Seconds(), Logs: logs}
	for _, r := range board {
		s.Lines = append(s.Lines, lineOf(r, tasks))
	}
	return s
}

// lineOf is what the tasks of a row have shown up to now.
func lineOf(r row, tasks []*task) line {
	l := line{Row: r.number, Fault: r.fault, Required: r.required, Result: waiting, Control: none}
	if len(r.controls) > 0 {
		l.Control = waiting
	}
	passed, began, ran, controls := 0, 0, 0, 0
	for _, t := range tasks {
		if t.row != r.number {
			continue
		}
		l.Seconds += t.spent.Seconds()
		if t.failure != nil {
			l.Failures = append(l.Failures, *t.failure)
		}
		if t.control {
			controls += l.takeControl(t)
			continue
		}
		began++
		if t.runs > 0 {
			ran++
		}
		l.Runs += t.runs
		l.Cases, l.Acked, l.Lost = l.Cases+t.sum.cases, l.Acked+t.sum.acked, l.Lost+t.sum.lost
		passed += t.sum.passed
		for _, why := range t.sum.skipped {
			if !slices.Contains(l.Why, why) {
				l.Why = append(l.Why, why)
			}
		}
		if t.failure != nil {
			l.Result = failed
		}
	}
	if controls > 0 && controls == len(r.controls) && l.Control == waiting {
		l.Control = caught
	}
	switch {
	case l.Result == failed:
	case r.absent != "":
		l.Result, l.Why = absent, []string{r.absent}
	case began < len(r.parts) && began == 0:
		l.Result, l.Why = skipped, []string{fmt.Sprintf("it takes --minutes %d or more", soakFrom)}
	case ran < began:
	case passed > 0:
		l.Result = held
	default:
		l.Result = skipped
	}
	return l
}

// takeControl looks at a control and reports 1 when it was caught.
func (l *line) takeControl(t *task) int {
	switch {
	case t.runs == 0:
		return 0
	case t.failure != nil:
		l.Control = notCaught
		return 0
	case t.sum.passed == 0:
		if l.Control == waiting {
			l.Control = skipped
		}
		return 0
	}
	return 1
}

// status is that of the program.
func (s *scores) status() int {
	if s.Interrupted {
		return 130
	}
	for _, l := range s.Lines {
		if l.Result == failed || l.Control == notCaught || l.Lost > 0 {
			return 1
		}
	}
	return 0
}

// result is the column of that name.
func (l *line) result() string {
	if len(l.Why) == 0 || l.Result == failed || l.Result == waiting {
		return l.Result
	}
	why := strings.Join(l.Why, "; ")
	if l.Result == held {
		return held + ", in part: " + why
	}
	return l.Result + ": " + why
}

func (l *line) lost() string {
	if l.Acked == 0 && l.Lost == 0 {
		return "–"
	}
	return thousands(l.Lost)
}

func (l *line) acked() string {
	if l.Acked == 0 {
		return "–"
	}
	return thousands(l.Acked)
}

func (l *line) cases() string {
	if l.Runs == 0 {
		return "–"
	}
	return thousands(l.Cases)
}

// thousands writes a number with commas.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// text prints the table for a terminal, the sums and what failed.
func (s *scores) text(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "row\tfault or bad input\tcases\tacknowledged\tlost\tcontrol\tseconds\tresult")
	for _, l := range s.Lines {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%.0f\t%s\n", l.Row, l.Fault, l.cases(), l.acked(), l.lost(), l.Control, l.Seconds, l.result())
	}
	t.Flush()
	fmt.Fprintf(w, "\n%s\n", s.summary())
	for _, l := range s.Lines {
		for _, f := range l.Failures {
			fmt.Fprintf(w, "\nrow %d: %s\n  again: %s\n  log:   %s\n", l.Row, f.Why, f.Command, f.Log)
		}
	}
}

// summary adds everything up in two lines.
func (s *scores) summary() string {
	count := map[string]int{}
	var cases, acked, lost int64
	uncounted := 0
	for _, l := range s.Lines {
		count[l.Result]++
		cases, acked, lost = cases+l.Cases, acked+l.Acked, lost+l.Lost
		if l.Control == notCaught {
			count[notCaught]++
		}
		if l.Result == held && l.Control != caught {
			uncounted++
		}
	}
	text := fmt.Sprintf("%d rows held", count[held]-uncounted)
	for _, c := range []struct {
		n    int
		what string
	}{
		{uncounted, "held without a control, which does not count"},
		{count[failed], "FAILED"}, {count[notCaught], "with a control that was NOT CAUGHT"}, {count[skipped], "skipped"}, {count[absent], "not there yet"}, {count[waiting], "not finished"},
	} {
		if c.n > 0 {
			text += fmt.Sprintf(", %d %s", c.n, c.what)
		}
	}
	text += fmt.Sprintf(".\n%s cases, %s events acknowledged, %s lost. Seed %d, %s. Logs: %s", thousands(cases), thousands(acked), thousands(lost),
		s.Seed, (time.Duration(s.Seconds) * time.Second).String(), s.Logs)
	if s.Interrupted {
		text = "Interrupted. " + text
	}
	return text
}

// markdown prints the table that docs/reliability.md begins with.
func (s *scores) markdown(w io.Writer) {
	fmt.Fprintln(w, "| # | fault or bad input | required | cases | acknowledged | lost | result | control |\n|--:|---|---|--:|--:|--:|---|---|")
	for _, l := range s.Lines {
		fmt.Fprintf(w, "| %d | %s | %s | %s | %s | %s | %s | %s |\n", l.Row, l.Fault, l.Required, l.cases(), l.acked(), l.lost(), l.result(), l.Control)
	}
	fmt.Fprintf(w, "\n%s\n", strings.SplitN(s.summary(), " Seed ", 2)[0])
}

func (s *scores) writeJSON(file string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}
