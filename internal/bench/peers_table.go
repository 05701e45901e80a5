package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
)

// sideResult is what one side reached.
type sideResult struct {
	Name, Version string
	Skipped       string `json:",omitempty"` // why nothing was measured
	Floods        []floodLeg
	Syncs         *float64 // fsync, fdatasync, msync and sync_file_range per 1,000 acks; nil is not counted
	E2E, BareRTT  summary
	Kept          float64 // of the healthy rate, beside the tarpit
	Undelivered   int64   // acknowledged, nothing was killed, and not there in time
	Kills         []killTrial
}

// floodLeg is one flood and the mean of the floors before and after it.
type floodLeg struct {
	Bare, Floor, Acks, Delivered float64 // a second
	Ack                          summary
	PSS, Anonymous               int64 // bytes, the peak of the sum over all processes
	Written                      int64 // bytes an event
}

// killTrial is one kill -9 of every process under flood.
type killTrial struct {
	Acked, Lost int
	Dups        int64
	First, All  float64 // seconds from the start to the first delivery, and to the last of what was acknowledged
}

// median of a figure over the floods.
func (r *sideResult) median(of func(floodLeg) float64) float64 {
	var v []float64
	for _, f := range r.Floods {
		v = append(v, of(f))
	}
	return medianOf(v)
}

// medianOf is the middle value, or the mean of the two in the middle.
func medianOf(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// comparedRow is one line of the table.
type comparedRow struct {
	what string
	cell func(*sideResult) string
}

func pair(a, b float64, digits int) string { return fmt.Sprintf("%.*f / %.*f", digits, a, digits, b) }

func comparedRows() []comparedRow {
	of := func(format string, scale float64, figure func(floodLeg) float64) func(*sideResult) string {
		return func(r *sideResult) string { return fmt.Sprintf(format, r.median(figure)/scale) }
	}
	return append([]comparedRow{
		{"delivered/s", of("%.0f", 1, func(f floodLeg) float64 { return f.Delivered })},
		{"  ÷ the bare client around it", of("%.3f", 1, func(f floodLeg) float64 { return f.Delivered / f.Bare })},
		{"durable acks/s, 16 connections", of("%.0f", 1, func(f floodLeg) float64 { return f.Acks })},
		{"  ÷ the log floor around it", of("%.3f", 1, func(f floodLeg) float64 { return f.Acks / f.Floor })},
		{"  ack p50 / p99, ms", func(r *sideResult) string {
			return pair(r.median(func(f floodLeg) float64 { return float64(f.Ack.P50) })/1e3, r.median(func(f floodLeg) float64 { return float64(f.Ack.P99) })/1e3, 2)
		}},
		{"end to end at 500/s, p50 / p99, ms", func(r *sideResult) string { return pair(float64(r.E2E.P50)/1e3, float64(r.E2E.P99)/1e3, 2) }},
		{"  the bare client before it, ms", func(r *sideResult) string { return pair(float64(r.BareRTT.P50)/1e3, float64(r.BareRTT.P99)/1e3, 2) }},
		{"memory in the flood, peak, MiB: PSS / anonymous", func(r *sideResult) string {
			return pair(r.median(func(f floodLeg) float64 { return float64(f.PSS) })/(1<<20), r.median(func(f floodLeg) float64 { return float64(f.Anonymous) })/(1<<20), 0)
		}},
		{"bytes written per event", of("%.0f", 1, func(f floodLeg) float64 { return float64(f.Written) })},
		{"syncs per 1,000 acks", func(r *sideResult) string {
			if r.Syncs == nil {
				return "-"
			}
			return fmt.Sprintf("%.0f", *r.Syncs)
		}},
		{"healthy rate kept beside a 5 s tarpit", func(r *sideResult) string { return fmt.Sprintf("%.0f %%", 100*r.Kept) }},
		{"acked and not delivered, nothing killed", func(r *sideResult) string { return fmt.Sprint(r.Undelivered) }},
	}, killRows()...)
}

func killRows() []comparedRow {
	worst := func(of func(killTrial) float64) func(*sideResult) float64 {
		return func(r *sideResult) (v float64) {
			for _, k := range r.Kills {
				v = max(v, of(k))
			}
			return v
		}
	}
	first, all := worst(func(k killTrial) float64 { return k.First }), worst(func(k killTrial) float64 { return k.All })
	dups := worst(func(k killTrial) float64 { return float64(k.Dups) })
	return []comparedRow{
		{"kill -9 of everything under flood: lost of acked", func(r *sideResult) string {
			var lost, acked int
			for _, k := range r.Kills {
				lost, acked = lost+k.Lost, acked+k.Acked
			}
			return fmt.Sprintf("%d of %d", lost, acked)
		}},
		{"  most duplicates", func(r *sideResult) string { return fmt.Sprintf("%.0f", dups(r)) }},
		{"  back in: first delivery / all of them, slowest, s", func(r *sideResult) string { return pair(first(r), all(r), 2) }},
	}
}

// write prints the machine, the table with a column for each side that was measured, and
// what the sides are.
func (c *comparison) write(w io.Writer) error {
	var measured []*sideResult
	for _, r := range c.Sides {
		if r.Skipped == "" {
			measured = append(measured, r)
		}
	}
	fmt.Fprintf(w, "%s, %s; %s\n\n", machine(), runtime.Version(), c.Sizes)
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	head, rule := "| what\t|", "|---\t|"
	for _, r := range measured {
		head, rule = head+" "+r.Name+"\t|", rule+"--:\t|"
	}
	fmt.Fprintln(tw, head+"\n"+rule)
	for _, row := range comparedRows() {
		fmt.Fprintf(tw, "| %s\t|", row.what)
		for _, r := range measured {
			fmt.Fprintf(tw, " %s\t|", row.cell(r))
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, r := range c.Sides {
		if r.Skipped != "" {
			fmt.Fprintf(w, "- %s: skipped: %s\n", r.Name, r.Skipped)
			continue
		}
		fmt.Fprintf(w, "- %s: %s\n", r.Name, r.Version)
	}
	var bare, floor []float64
	for _, r := range measured {
		for _, f := range r.Floods {
			bare, floor = append(bare, f.Bare), append(floor, f.Floor)
		}
	}
	_, err := fmt.Fprintf(w, "- bare client, median of all legs: %.0f/s; log floor: %.0f/s\n", medianOf(bare), medianOf(floor))
	return err
}
