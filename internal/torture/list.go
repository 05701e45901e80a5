package main

import (
	"fmt"
	"io"
	"strings"
)

// list prints the rows and what they consist of.
func list(w io.Writer, board []row, bugs []bug) {
	for _, r := range board {
		fmt.Fprintf(w, "%2d  %s\n    required: %s\n", r.number, r.fault, r.required)
		if r.absent != "" {
			fmt.Fprintf(w, "    %s: %s\n", absent, r.absent)
		}
		if r.needs != "" {
			fmt.Fprintf(w, "    needs:    %s\n", r.needs)
		}
		for _, p := range r.parts {
			fmt.Fprintf(w, "    test:     %s\n", p.describe())
		}
		for _, p := range r.controls {
			fmt.Fprintf(w, "    control:  %s\n", p.describe())
		}
		for _, b := range bugs {
			if b.row == r.number {
				fmt.Fprintf(w, "    planted:  %s: %s\n", b.tag, b.promise)
			}
		}
		fmt.Fprintln(w)
	}
}

// describe is the part in words.
func (p *part) describe() string {
	if p.soak > 0 {
		return "scripts/bench --soak"
	}
	var text strings.Builder
	text.WriteString(p.pkg + " " + strings.ReplaceAll(p.run, "|", " "))
	for _, c := range p.counts {
		fmt.Fprintf(&text, " (%s, %d at first)", c.env, c.short)
	}
	if p.rapid > 0 {
		fmt.Fprintf(&text, " (-rapid.checks, %d at first)", p.rapid)
	}
	if p.fuzz > 0 {
		fmt.Fprintf(&text, " (fuzzed, %v at first)", p.fuzz)
	}
	return text.String()
}
