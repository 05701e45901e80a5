package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/bench/overhead"
)

// report collects what the parts of a run measured; a zero is a part that was
// not run.
type report struct { // one field a figure: a table is clearer than a tree here
	bare, floor     float64
	acks, delivered float64
	ack             summary
	e2e, bareRTT    summary
	cpuPerEvent     time.Duration
	bytesPerEvent   int64

	idleCPU                                     float64
	idleAnon, floodAnon                         int64
	backlog, backlogAnon, backlogRSS            int64
	lanes                                       int // webhooks that share the backlog
	backlogRatio, backlogLong                   float64
	backlogFirst                                time.Duration
	killTrials                                  int
	killAcked, killLost, killDups               int64
	killBack                                    time.Duration
	ndjsonAccepted, ndjsonDelivered, ndjsonBare float64

	overhead, overheadFlow, overheadFour, overheadSingle overhead.Report

	more []row // of the parts that make their own
}

// row is one line of the table: what was measured, the figure, the least that
// it has to reach, the goal, and whether it does.
type row struct {
	what, figure, first, goal string
	holds                     bool
}

func (r *report) rows() (out []row) {
	add := func(measured bool, w row) {
		if measured {
			out = append(out, w)
		}
	}
	pending := fmt.Sprintf("%d pending", r.backlog)
	if r.lanes > 1 {
		pending += fmt.Sprintf(" of %d webhooks", r.lanes)
	}
	ms := func(us int64) string { return fmt.Sprintf("%.2f", float64(us)/1000) }
	mib := func(b int64) string { return fmt.Sprintf("%d MiB", b>>20) }
	flood, rate, nd := r.bare > 0, r.e2e.N > 0, r.ndjsonAccepted > 0
	add(flood, row{"bare net/http client, 64 in flight", fmt.Sprintf("%.0f/s", r.bare), "-", "-", true})
	add(flood, row{"log floor, 16 writers", fmt.Sprintf("%.0f/s", r.floor), "-", "-", true})
	add(flood, row{"durable acks/s at 16 connections, deliveries running", fmt.Sprintf("%.0f/s", r.acks), "-", "-", true})
	add(flood, row{"  divided by the log floor", fmt.Sprintf("%.3f", r.acks/r.floor), "0.3", "0.5", r.acks/r.floor >= 0.3})
	add(flood, row{"ack p50 / p99 at 16 connections, ms", ms(r.ack.P50) + " / " + ms(r.ack.P99), "2 / 12", "1 / 5", r.ack.P50 <= 2000 && r.ack.P99 <= 12000})
	add(flood, row{"delivered/s, everything fsynced", fmt.Sprintf("%.0f/s", r.delivered), "-", "-", true})
	add(flood, row{"  divided by the bare client", fmt.Sprintf("%.3f", r.delivered/r.bare), "0.25", "0.4", r.delivered/r.bare >= 0.25})
	add(rate, row{"end to end at 500/s, p50 / p99, ms", ms(r.e2e.P50) + " / " + ms(r.e2e.P99), "1.5 / 20", "0.6 / 4", r.e2e.P50 <= 1500 && r.e2e.P99 <= 20000})
	add(rate, row{"  bare client at 500/s, p50 / p99, ms", ms(r.bareRTT.P50) + " / " + ms(r.bareRTT.P99), "-", "-", true})
	add(flood, row{"processor time per event, daemon only", fmt.Sprintf("%d µs", r.cpuPerEvent.Microseconds()), "200 µs", "80 µs", r.cpuPerEvent <= 200*time.Microsecond})
	add(flood, row{"bytes written per event, history included", fmt.Sprint(r.bytesPerEvent), "6144", "2048", r.bytesPerEvent <= 6144})
	add(r.idleAnon > 0, row{"anonymous memory, idle", mib(r.idleAnon), "48 MiB", "24 MiB", r.idleAnon <= 48<<20})
	add(flood, row{"anonymous memory, flood, peak", mib(r.floodAnon), "128 MiB", "96 MiB", r.floodAnon <= 128<<20})
	add(r.backlog > 0, row{"anonymous memory, " + pending + ", peak", mib(r.backlogAnon), "200 MiB", "128 MiB", r.backlogAnon <= 200<<20})
	add(r.backlog > 0, row{"total resident, " + pending, mib(r.backlogRSS), "-", "256 MiB", true})
	add(r.backlog > 0, row{"rate with " + pending + " divided by with none", fmt.Sprintf("%.2f", r.backlogRatio), "0.7", "0.95", r.backlogRatio >= 0.7})
	add(r.backlog > 0, row{"  over eight times as many events, the merging of tables included", fmt.Sprintf("%.2f", r.backlogLong), "-", "-", true})
	add(r.backlog > 0, row{"first delivery after start with " + pending, fmt.Sprintf("%.2f s", r.backlogFirst.Seconds()), "-", "2 s", true})
	add(r.killTrials > 0, row{fmt.Sprintf("kill -9 under flood, %d times: lost of acked", r.killTrials), fmt.Sprintf("%d of %d", r.killLost, r.killAcked), "0", "0", r.killLost == 0})
	add(r.killTrials > 0, row{"  most duplicates in one trial (64 in flight)", fmt.Sprint(r.killDups), "in flight", "in flight", true})
	add(r.killTrials > 0, row{"  back in, slowest", fmt.Sprintf("%.2f s", r.killBack.Seconds()), "2 s", "1 s", r.killBack <= 2*time.Second})
	add(r.idleAnon > 0, row{"idle processor", fmt.Sprintf("%.2f %%", 100*r.idleCPU), "0.5 %", "0.1 %", r.idleCPU < 0.005})
	add(nd, row{"NDJSON, 4 clients, accepted/s, no delivery", fmt.Sprintf("%.0f/s", r.ndjsonAccepted), "40000", "100000", r.ndjsonAccepted >= 40000})
	add(nd, row{"NDJSON, delivered/s divided by the bare client", fmt.Sprintf("%.3f", r.ndjsonDelivered/cmp.Or(r.ndjsonBare, 1)), "0.5", "0.75", r.ndjsonDelivered/cmp.Or(r.ndjsonBare, 1) >= 0.5})
	out = append(out, r.more...)
	out = append(out, r.overheadRows()...)
	return out
}

func (r *report) overheadRows() (out []row) {
	for _, c := range []struct {
		what        string
		r           *overhead.Report
		first, goal string
	}{
		{"batches of 50, a backlog", &r.overhead, "0.7", "0.8"},
		{"batches of 50, events flow in", &r.overheadFlow, "0.7", "0.8"},
		{"batches of 50, a backlog, 4 webhooks at once", &r.overheadFour, "0.7", "0.8"},
		{"each delivery alone, a backlog", &r.overheadSingle, "-", "-"},
	} {
		if c.r.Deliveries == 0 {
			continue
		}
		a, b, bare := &c.r.Plugin, &c.r.InProcess, &c.r.Bare
		cost := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Microsecond)) }
		out = append(out,
			row{"no-op plugin, " + c.what, fmt.Sprintf("%.0f/s", a.Median), "-", "-", true},
			row{"  the same sink in process, given the same", fmt.Sprintf("%.0f/s", b.Median), "-", "-", true},
			row{"  divided by that; lowest round", fmt.Sprintf("%.2f; %.2f", c.r.Ratio, c.r.Lowest), c.first, c.goal, c.first == "-" || c.r.Ratio >= 0.7},
			row{"  in process, payload neither taken apart nor signed", fmt.Sprintf("%.0f/s", bare.Median), "-", "-", true},
			row{"  divided by that; lowest round", fmt.Sprintf("%.2f; %.2f", c.r.BareRatio, c.r.BareLowest), "-", "-", true},
			row{"  µs of processor a delivery: daemon + plugin / in process / not taken apart",
				cost(a.CPU) + " + " + cost(a.Plugin) + " / " + cost(b.CPU) + " / " + cost(bare.CPU), "-", "-", true})
	}
	return out
}

// write prints the machine and the table as Markdown, columns aligned.
func (r *report) write(w io.Writer) error {
	fmt.Fprintf(w, "%s, %s\n\n", machine(), runtime.Version())
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(tw, "| what\t| this run\t| first\t| goal\t| first reached\t|")
	fmt.Fprintln(tw, "|---\t|---\t|---\t|---\t|---\t|")
	for _, x := range r.rows() {
		held := "yes"
		switch {
		case x.first == "-":
			held = ""
		case !x.holds:
			held = "no"
		}
		fmt.Fprintf(tw, "| %s\t| %s\t| %s\t| %s\t| %s\t|\n", x.what, x.figure, x.first, x.goal, held)
	}
	return tw.Flush()
}

func machine() string {
	return fmt.Sprintf("%s, %d cores, %s, kernel %s", cpuModel(), runtime.NumCPU(), memory(), kernel())
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown processor"
}

func memory() string {
	kib, err := procField("/proc/meminfo", "MemTotal:", 1024)
	if err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%d GiB", (kib+1<<29)>>30)
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}
