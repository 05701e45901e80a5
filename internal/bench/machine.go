package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processors is how long all processors together were there and busy, and what this program
// and its children that have ended took of it.
type processors struct{ all, busy, own time.Duration }

// readProcessors reads proc(5)'s stat, whose first line counts in ticks of 10 ms: user, nice,
// system, idle, iowait, irq, softirq, steal.
func readProcessors() (p processors) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return p
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line) {
		v, err := strconv.ParseInt(f, 10, 64)
		if i == 0 || i > 8 || err != nil {
			continue
		}
		p.all += time.Duration(v) * 10 * time.Millisecond
		if i != 4 && i != 5 {
			p.busy += time.Duration(v) * 10 * time.Millisecond
		}
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			p.own += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return p
}

// processors is the same with the daemon and the receiver, which have not ended, as own.
func (l *lab) processors() processors {
	p := readProcessors()
	for _, c := range []*exec.Cmd{l.daemon, l.recv} {
		if spent, err := processorTime(c.Process.Pid); err == nil {
			p.own += spent
		}
	}
	return p
}

// othersUntil is which share of the processors something else had between p and q: a table
// measured while they were busy with that says little.
func (p processors) othersUntil(q processors) float64 {
	if q.all <= p.all {
		return 0
	}
	return max(0, float64(q.busy-p.busy-(q.own-p.own))/float64(q.all-p.all))
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
