package watchdog

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// storage says what the process does with disks.
type storage interface{ look() Activity }

// Activity is what a process did up to a moment.
type Activity struct {
	blocks  int64           // read and written, of 512 bytes
	cpu     time.Duration   // used, all threads
	waiting map[int]counted // threads that are inside the kernel and cannot be interrupted
}

// counted tells one wait of a thread from the next: how often it has given up a processor.
type counted string

// Look is what this process did up to now.
func Look() Activity { return process{}.look() }

// stuckSince reports whether some thread has been in one and the same wait ever since.
func (a Activity) stuckSince(before Activity) bool {
	for id, n := range a.waiting {
		if was, ok := before.waiting[id]; ok && was == n {
			return true
		}
	}
	return false
}

func (a Activity) moved(before Activity) bool { return a.blocks != before.blocks }

// idleShare is the least share of a processor that counts as work: timers and the
// collector of a process that does nothing use less.
const idleShare = 50

// Progress reports whether the process has worked since before, which is so long ago: it
// has computed, or read or written, or waits for a disk that does not answer. It is for a
// start, whose end nobody knows.
func (a Activity) Progress(before Activity, ago time.Duration) bool {
	return a.moved(before) || a.stuckSince(before) || a.cpu-before.cpu > ago/idleShare
}

// process is the storage of this process.
type process struct{}

func (process) look() Activity {
	a := Activity{waiting: map[int]counted{}}
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) == nil {
		a.blocks = use.Inblock + use.Oublock
		a.cpu = time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return a
	}
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		state, switches := parseStatus(text)
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if state == 'D' && err == nil {
			a.waiting[id] = switches
		}
	}
	return a
}

// parseStatus reads /proc/PID/task/TID/status (proc_pid_status(5)).
func parseStatus(text []byte) (state byte, switches counted) {
	for line := range bytes.Lines(text) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case !ok || len(value) == 0:
		case string(name) == "State":
			state = value[0]
		case bytes.HasSuffix(name, []byte("ctxt_switches")):
			switches += counted(value) + "/"
		}
	}
	return state, switches
}
