package main

import (
	"bytes"
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
)

const soakHelp = `soak:
  Sends 2,000 events/s to a receiver that fails 5 % of the requests and goes away for up
  to a second, three times a minute on average. Deliveries get three attempts, so that a
  few fail. Each minute (a tenth of a run below ten minutes) is a line: events/s, ack p99, end to end p99,
  anonymous memory, descriptors, bytes on the disk, deliveries pending.
  At the end every acknowledged event has to have arrived or to be in the log as failed.
  The run also fails when the median of the last third of the lines is above that of the
  second third by more than
    anonymous memory   a quarter and 16 MiB
    descriptors        a quarter and 32
    ack p99            double and 10 ms
    end to end p99     double and 1 s
    pending            double and 2,000
    disk               its growth of a line: a quarter and 64 MiB
  The first third is for caches and tables to fill. The disk grows by the history of what was
  delivered, which is kept for days; a growth that stays the same is what is asked for.
`

const soakRate = 2000

// soakLine is one line of a soak.
type soakLine struct {
	rate       float64
	ackP99     int64 // µs
	e2eP99     int64 // µs
	anonymous  int64
	files      int64
	disk, grew int64
	pending    int64
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
		{"ack p99", func(s soakLine) int64 { return s.ackP99 }, 2, 10_000},
		{"end to end p99", func(s soakLine) int64 { return s.e2eP99 }, 2, 1_000_000},
		{"pending", func(s soakLine) int64 { return s.pending }, 2, 2000},
		{"growth of the disk", func(s soakLine) int64 { return s.grew }, 1.25, 64 << 20},
	}
}

// grown says what is higher in the last third of the lines than in the second.
func grown(lines []soakLine) error {
	third := len(lines) / 3
	if third == 0 {
		return nil
	}
	var errs []error
	for _, w := range soakWatches() {
		median := func(part []soakLine) int64 {
			var v []int64
			for _, s := range part {
				v = append(v, w.of(s))
			}
			slices.Sort(v)
			return v[len(v)/2]
		}
		middle, last := median(lines[third:2*third]), median(lines[len(lines)-third:])
		if float64(last) > float64(middle)*w.factor+float64(w.slack) {
			errs = append(errs, fmt.Errorf("%s grew from %d to %d", w.name, middle, last))
		}
	}
	return errors.Join(errs...)
}

const soakStream = "/fail/5/soak"

func runSoak(l *lab, long time.Duration) error {
	return l.with("", fmt.Sprintf("  soak:\n    secret: %s\n    webhooks: {main: {url: \"http://%s%s\", concurrency: 64, retry: {schedule: [1s, 3s]}}}\n", l.secret, l.downAddr, soakStream), func() error {
		if err := l.fresh(); err != nil {
			return err
		}
		defer l.stopDaemon(syscall.SIGTERM)
		quit, gone := make(chan struct{}), make(chan error, 1)
		go func() { gone <- l.restartReceiver(quit) }()
		lines, acked, err := l.soakLines(long)
		close(quit)
		if err := errors.Join(err, <-gone); err != nil {
			return err
		}
		return errors.Join(l.account(acked), grown(lines))
	})
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
func (l *lab) soakLines(long time.Duration) (lines []soakLine, acked []string, err error) {
	each := min(time.Minute, long/10)
	w := tabwriter.NewWriter(os.Stdout, 10, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "minutes\tevents/s\tack p99 ms\te2e p99 ms\tanon MiB\tfiles\tdisk MiB\tpending\t")
	for n := range max(1, int(long/max(each, 1))) {
		file := filepath.Join(l.dir, "acked-"+strconv.Itoa(n))
		load, err := l.load("-n", strconv.Itoa(max(1, int(soakRate*each.Seconds()))), "-rate", strconv.Itoa(soakRate), "-c", "16", "-helper", "soak", "-max", (2 * each).String(), "-acked", file)
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
		if len(lines) > 0 {
			s.grew = s.disk - lines[len(lines)-1].disk
		}
		lines = append(lines, s)
		fmt.Fprintf(w, "%.1f\t%.0f\t%.1f\t%.0f\t%d\t%d\t%d\t%d\t\n", float64(n+1)*each.Minutes(), s.rate, float64(s.ackP99)/1e3, float64(s.e2eP99)/1e3, s.anonymous>>20, s.files, s.disk>>20, s.pending)
		if err := w.Flush(); err != nil {
			return lines, acked, err
		}
	}
	return lines, acked, nil
}

func (l *lab) soakLine(load loadResult) (s soakLine, err error) {
	s.rate, s.ackP99 = load.PerSecond, load.Ack.P99
	var e2e summary
	if err := l.control("/_window?"+soakStream, nil, &e2e); err != nil {
		return s, err
	}
	s.e2eP99 = e2e.P99
	u, err := l.usage()
	if err != nil {
		return s, err
	}
	s.anonymous = u.anonymous
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.daemon.Process.Pid))
	if err != nil {
		return s, err
	}
	s.files = int64(len(fds))
	if s.disk, err = diskUsage(l.data()); err != nil {
		return s, err
	}
	q, err := l.queueCounts()
	s.pending = q.Pending
	return s, err
}

// account waits until nothing is pending and finds every acknowledged event, at the
// receiver or in the log of what failed.
func (l *lab) account(files []string) error {
	q, err := l.drained()
	if err != nil {
		return err
	}
	failed, err := l.failedEntries()
	if err != nil {
		return err
	}
	var acked, arrived, logged int
	for _, file := range files {
		ids, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var miss struct {
			Acked, Missing int
			Sequences      []int
		}
		if err := l.control("/_missing?"+soakStream, bytes.NewReader(ids), &miss); err != nil {
			return err
		}
		run, _, _ := bytes.Cut(ids, []byte("\n"))
		acked, arrived = acked+miss.Acked, arrived+miss.Acked-miss.Missing
		for _, seq := range miss.Sequences {
			if failed[fmt.Sprintf("%s-%08d", run, seq)] {
				logged++
			}
		}
	}
	fmt.Printf("%d acknowledged = %d arrived + %d failed by the log + %d lost; the daemon counts %d delivered and %d failed\n",
		acked, arrived, logged, acked-arrived-logged, q.Success, q.Failed)
	if lost := acked - arrived - logged; lost > 0 {
		return fmt.Errorf("%w: %d of %d", errLost, lost, acked)
	}
	s, err := l.stats("/_count", soakStream)
	if err == nil && s.BadSig > 0 {
		err = fmt.Errorf("%w: %d", errBadSig, s.BadSig)
	}
	return err
}

// drained waits until nothing is pending.
func (l *lab) drained() (q queueCounts, err error) {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if q, err = l.queueCounts(); err != nil || q.Pending == 0 {
			return q, err
		}
	}
	return q, fmt.Errorf("%d deliveries are pending two minutes after the last event", q.Pending)
}

// failedEntries lists the log of what failed, as run and sequence.
func (l *lab) failedEntries() (map[string]bool, error) {
	entries, cursor := map[string]bool{}, ""
	for {
		var page struct {
			Deliveries []struct {
				EntryID string `json:"entry_id"`
			} `json:"deliveries"`
			Next string `json:"next_cursor"`
		}
		if err := l.adminJSON("/v1/deliveries?status=failed&limit=1000&cursor="+cursor, &page); err != nil {
			return nil, err
		}
		for _, d := range page.Deliveries {
			if run, seq, _, ok := findEvent([]byte(d.EntryID)); ok {
				entries[fmt.Sprintf("%08x-%08d", run, seq)] = true
			}
		}
		if page.Next == "" {
			return entries, nil
		}
		cursor = page.Next
	}
}
