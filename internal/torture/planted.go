package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

//go:embed planted.txt
var plantedList string

// bug is a mistake that a build tag plants in the product.
type bug struct {
	tag     string
	row     int
	promise string // that it breaks
	part    part
	text    *regexp.Regexp // must be in what the test says; nil = anything
}

// plantedBugs reads planted.txt.
func plantedBugs() ([]bug, error) { return parseBugs(plantedList) }

func parseBugs(text string) (out []bug, err error) {
	for n, l := range strings.Split(text, "\n") {
		if l = strings.TrimSpace(l); l == "" || l[0] == '#' {
			continue
		}
		f := strings.Split(l, " |")
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		if len(f) != 6 && len(f) != 7 {
			return nil, fmt.Errorf("planted.txt:%d: %d fields", n+1, len(f))
		}
		b := bug{tag: f[0], promise: f[2], part: part{pkg: f[3], run: f[4], env: f[5]}}
		if b.row, err = strconv.Atoi(f[1]); err != nil {
			return nil, fmt.Errorf("planted.txt:%d: row %q", n+1, f[1])
		}
		if len(f) == 7 {
			if b.text, err = regexp.Compile(f[6]); err != nil {
				return nil, fmt.Errorf("planted.txt:%d: %w", n+1, err)
			}
		}
		out = append(out, b)
	}
	return out, nil
}

// tries is how often a test may miss a bug that shows by chance.
const tries = 3

// plant builds one bug after the other, and prints whether the suite catches it.
func (l *lab) plant(ctx context.Context, bugs []bug, stdout io.Writer) (status int) {
	if err := l.findGo(ctx); err != nil {
		fmt.Fprintln(l.say, "torture:", err)
		return 1
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "row\tplanted bug\tbreaks\tcontrol\truns\tseconds\twhat the test said")
	missed := 0
	for _, b := range bugs {
		fmt.Fprintf(l.say, "torture: planting %s\n", b.tag)
		began := time.Now()
		said, runs, ok := l.plantOne(ctx, b)
		if ctx.Err() != nil {
			w.Flush()
			fmt.Fprintln(l.say, "torture: interrupted")
			return 130
		}
		word := caught
		if !ok {
			word, missed = notCaught, missed+1
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%.0f\t%.120s\n", b.row, b.tag, b.promise, word, runs, time.Since(began).Seconds(), said)
	}
	w.Flush()
	fmt.Fprintf(stdout, "\n%d planted bugs, %d caught, %d NOT CAUGHT. Seed %d. Logs: %s\n", len(bugs), len(bugs)-missed, missed, l.seed, l.logs)
	if missed > 0 || len(bugs) == 0 {
		return 1
	}
	return 0
}

// plantOne says what the test said about a bug, after how many runs, and whether it was
// caught: the test ran, and failed for the bug's reason.
func (l *lab) plantOne(ctx context.Context, b bug) (said string, runs int, ok bool) {
	with := binary{pkg: b.part.pkg, tags: b.tag}
	if out, err := l.build(ctx, with); err != nil {
		return fmt.Sprintf("it does not build: %v: %s", err, firstLine(out)), 0, false
	}
	for n := range tries {
		t, log := l.runBinary(ctx, with, job{part: b.part, m: 1, seed: seedOf(l.seed, b.part, n)})
		if ctx.Err() != nil {
			return "", n, false
		}
		switch text, err := os.ReadFile(log); {
		case err != nil:
			return err.Error(), n + 1, false
		case len(t.failed) > 0 && t.ran && (b.text == nil || b.text.Match(text)):
			return t.why, n + 1, true
		case len(t.failed) > 0:
			said = "it failed for another reason: " + t.why
		case t.passed > 0:
			said = "the test holds"
		default:
			said = "the test was skipped: " + strings.Join(t.skipped, "; ")
		}
	}
	return said, tries, false
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
