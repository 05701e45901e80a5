package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

const soakHelp = `soak:
  Sends 2,000 events/s to a receiver that fails 5 % of the requests and goes away for up
  to a second, three times a minute on average. Deliveries get three attempts, so that a
  few fail. History may take 1 MiB, and in the middle of the run a day of the queue ends:
  what the first half wrote is dropped while events come in.
  Each minute (a tenth of a run below ten minutes) is a line: events/s, ack p50 and p99, end to end p50
  and p99, most anonymous memory and descriptors, bytes on the disk, deliveries pending, and
  which share of the processors other programs had: a line with a quarter says little of latency.
  At the end, when nothing is pending, every acknowledged event has to have arrived or to be
  among those that failed, and the daemon's own counts have to add up to the same.
  The run also fails when 2,000 events/s were not held by the median line, and, the first
  fifth of the lines left out, when the median of the last third is above that of the first by more than
    anonymous memory   a quarter and 16 MiB
    descriptors        a quarter and 32
    ack p50            half and 2 ms
    ack p99            double and 10 ms
    end to end p50     half and 2 ms
    end to end p99     double and 0.5 s: one request in twenty waits for its retry
    pending            double and 500
  and when the disk at the end is above that at the end of the first half by more than a
  quarter and 32 MiB, or was never below half of it and 32 MiB in the second.
`

const soakRate = 2000

// soakLine is one line of a soak.
type soakLine struct {
	rate      float64
	ack, e2e  summary
	anonymous int64 // peak
	files     int64 // peak
	disk      int64
	pending   int64
}

// soakWatch is one figure that must not grow.
type soakWatch struct {
	name   string
	of     func(soakLine) int64
	factor float64
	slack  int64
}

func soakWatches() []soakWatch {
	return []soakWatch{
		{"anonymous memory", func(s soakLine) int64 { return s.anonymous }, 1.25, 16 << 20},
		{"descriptors", func(s soakLine) int64 { return s.files }, 1.25, 32},
		{"ack p50", func(s soakLine) int64 { return s.ack.P50 }, 1.5, 2000},
		{"ack p99", func(s soakLine) int64 { return s.ack.P99 }, 2, 10_000},
		{"end to end p50", func(s soakLine) int64 { return s.e2e.P50 }, 1.5, 2000},
		{"end to end p99", func(s soakLine) int64 { return s.e2e.P99 }, 2, 500_000},
		{"pending", func(s soakLine) int64 { return s.pending }, 2, 500},
	}
}

// judge says what a soak did not hold.
func judge(lines []soakLine) error {
	if len(lines) == 0 {
		return errors.New("no line")
	}
	errs := []error{grown(lines), diskKept(lines)}
	var held []float64
	for _, s := range lines {
		held = append(held, s.rate)
	}
	if got := median(held); got < 0.99*soakRate {
		errs = append(errs, fmt.Errorf("%.0f events/s instead of %d", got, soakRate))
	}
	return errors.Join(errs...)
}

// grown says what is higher in the last third of the lines than in the first, without those
// in which caches and tables fill.
func grown(lines []soakLine) error {
	lines = lines[len(lines)/5:]
	third := len(lines) / 3
	if third == 0 {
		return nil
	}
	var errs []error
	for _, w := range soakWatches() {
		middle := func(part []soakLine) float64 {
			var v []float64
			for _, s := range part {
				v = append(v, float64(w.of(s)))
			}
			return median(v)
		}
		first, last := middle(lines[:third]), middle(lines[len(lines)-third:])
		if last > first*w.factor+float64(w.slack) {
			errs = append(errs, fmt.Errorf("%s grew from %.0f to %.0f", w.name, first, last))
		}
	}
	return errors.Join(errs...)
}

// diskKept compares the two halves: in the line after the first one its history goes.
func diskKept(lines []soakLine) error {
	if len(lines) < 2 {
		return nil
	}
	const slack = 32 << 20
	first, second := lines[len(lines)/2-1].disk, lines[len(lines)/2:]
	lowest := slices.MinFunc(second, func(a, b soakLine) int { return cmp.Compare(a.disk, b.disk) }).disk
	var errs []error
	if lowest > first/2+slack {
		errs = append(errs, fmt.Errorf("the disk was not given back: %d bytes after the first half, never below %d after it", first, lowest))
	}
	if last := second[len(second)-1].disk; last > first+first/4+slack {
		errs = append(errs, fmt.Errorf("the disk grew from %d at the end of the first half to %d at the end", first, last))
	}
	return errors.Join(errs...)
}

const (
	soakStream  = "/fail/5/soak"
	soakWebhook = "soak.main"
)

func runSoak(l *lab, long time.Duration) error {
	helper := fmt.Sprintf("  soak:\n    secret: %s\n    webhooks: {main: {url: \"http://%s%s\", concurrency: 64, retry: {schedule: [1s, 3s]}}}\n", l.secret, l.downAddr, soakStream)
	return l.with("history: {max_bytes: 1MiB}\n", helper, func() error {
		each := min(time.Minute, long/10)
		count := max(1, int(long/max(each, 1)))
		if err := l.freshAt(each*time.Duration(count)/2 + each/2); err != nil {
			return err
		}
		defer l.stopDaemon(syscall.SIGTERM)
		ended, err := l.followFailed(soakWebhook)
		if err != nil {
			return err
		}
		quit, gone := make(chan struct{}), make(chan error, 1)
		go func() { gone <- l.restartReceiver(quit) }()
		lines, acked, err := l.soakLines(count, each)
		close(quit)
		if err := errors.Join(err, <-gone); err != nil {
			return errors.Join(err, ended.stop())
		}
		return errors.Join(l.account(acked, ended), judge(lines))
	})
}

// untilMidnight is the first time not before now that is so long before the end of a day, in UTC.
func untilMidnight(now time.Time, before time.Duration) time.Time {
	const day = 24 * time.Hour
	return now.Add(before + day - 1).Truncate(day).Add(-before)
}

// freshAt starts the daemon on an empty queue whose time is so long before the end of a day.
// The queue keeps whole days of history, and its time never goes back: a queue that was made
// while the clock was ahead goes on from there.
func (l *lab) freshAt(before time.Duration) error {
	at := untilMidnight(time.Now(), before)
	if err := os.RemoveAll(l.data()); err != nil {
		return err
	}
	if err := l.writeConfig(); err != nil {
		return err
	}
	s, err := queue.Open(context.Background(), queue.Options{Dir: l.data(), MinFree: 256 << 20, Now: func() time.Time { return at }})
	if err != nil {
		return err
	}
	if err := s.Close(context.Background()); err != nil {
		return err
	}
	_, err = l.startDaemon()
	return err
}

// restartReceiver takes the receiver away now and then.
func (l *lab) restartReceiver(quit <-chan struct{}) error {
	for {
		select {
		case <-quit:
			return nil
		case <-time.After(time.Duration(5+rand.IntN(30)) * time.Second):
		}
		if err := l.control(fmt.Sprintf("/_down?%dms", 100+rand.IntN(900)), nil, new(any)); err != nil {
			return err
		}
	}
}

// soakLines sends, prints the lines, and returns the files that name what was acknowledged.
func (l *lab) soakLines(count int, each time.Duration) (lines []soakLine, acked []string, err error) {
	w := tabwriter.NewWriter(os.Stdout, 9, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "minutes\tevents/s\tack p50\tp99 ms\te2e p50\tp99 ms\tanon MiB\tfiles\tdisk MiB\tpending\tothers %\t")
	for n := range count {
		file := filepath.Join(l.dir, "acked-"+strconv.Itoa(n))
		peak, before := l.watchPeak(), l.processors()
		load, err := l.load("-n", strconv.Itoa(max(1, int(soakRate*each.Seconds()))), "-rate", strconv.Itoa(soakRate), "-c", "16", "-helper", "soak", "-max", (2 * each).String(), "-acked", file)
		top, others := peak(), before.othersUntil(l.processors())
		if err != nil {
			return lines, acked, err
		}
		if load.Errors > 0 {
			return lines, acked, fmt.Errorf("%d events were not accepted: %s", load.Errors, load.FirstErr)
		}
		acked = append(acked, file)
		s, err := l.soakLine(load)
		if err != nil {
			return lines, acked, err
		}
		s.anonymous, s.files = top.anonymous, top.files
		lines = append(lines, s)
		fmt.Fprintf(w, "%.1f\t%.0f\t%.1f\t%.1f\t%.1f\t%.0f\t%d\t%d\t%d\t%d\t%.0f\t\n", float64(n+1)*each.Minutes(), s.rate, float64(s.ack.P50)/1e3, float64(s.ack.P99)/1e3,
			float64(s.e2e.P50)/1e3, float64(s.e2e.P99)/1e3, s.anonymous>>20, s.files, s.disk>>20, s.pending, 100*others)
		if err := w.Flush(); err != nil {
			return lines, acked, err
		}
	}
	return lines, acked, nil
}

func (l *lab) soakLine(load loadResult) (s soakLine, err error) {
	s.rate, s.ack = load.PerSecond, load.Ack
	if err := l.control("/_window?"+soakStream, nil, &s.e2e); err != nil {
		return s, err
	}
	if s.disk, err = diskUsage(l.data()); err != nil {
		return s, err
	}
	q, err := l.queueCounts()
	s.pending = q.Pending
	return s, err
}
