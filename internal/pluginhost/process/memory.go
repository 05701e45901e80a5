package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kills is a count of what the kernel's out-of-memory killer has ended.
type kills struct {
	file string // where the count is
	n    uint64
}

// killsOf counts for the memory group of a process, or for the whole machine where there
// is none. ok is false where the kernel does not tell.
func killsOf(pid int) (k kills, ok bool) {
	for _, file := range append(memoryGroups(pid), "/proc/vmstat") {
		if n, err := readKills(file); err == nil {
			return kills{file, n}, true
		}
	}
	return kills{}, false
}

// more reports whether the killer has been at work since k was read.
func (k kills) more() bool {
	if k.file == "" {
		return false
	}
	n, err := readKills(k.file)
	return err == nil && n > k.n
}

// memoryGroups are the files that may hold the count for the group of a process.
func memoryGroups(pid int) (files []string) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(fields) != 3:
		case fields[0] == "0":
			files = append(files, filepath.Join("/sys/fs/cgroup", fields[2], "memory.events"))
		case strings.Contains(","+fields[1]+",", ",memory,"):
			files = append(files, filepath.Join("/sys/fs/cgroup/memory", fields[2], "memory.oom_control"))
		}
	}
	return files
}

func readKills(file string) (uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
		}
	}
	return 0, errors.New("no count")
}

// uptime is the clock of the kernel's log.
func uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

const (
	// logSkew is how much the clock of the kernel's log may differ from CLOCK_MONOTONIC.
	logSkew = time.Minute
	// maxLog is how many records of the kernel's log are read.
	maxLog = 100_000
)

// killedForMemory reports whether the kernel's log says that it killed this process for
// lack of memory, since a time of its clock. Few may read that log.
func killedForMemory(pid int, since time.Duration) bool {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	buf := make([]byte, 8<<10) // a read gives one record, and fails when it does not fit
	for range maxLog {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.EINTR):
			continue // overwritten meanwhile: the next read is further on
		case err != nil || n <= 0:
			return false
		}
		if at, ok := killRecord(buf[:n], pid); ok && at > since-logSkew {
			return true
		}
	}
	return false
}

// killRecord reads a record "6,1234,567890,-;Out of memory: Killed process 42 (name) …".
// at is its time.
func killRecord(record []byte, pid int) (at time.Duration, ok bool) {
	head, text, found := bytes.Cut(record, []byte(";"))
	if !found || !bytes.Contains(text, fmt.Appendf(nil, "Killed process %d (", pid)) {
		return 0, false
	}
	fields := bytes.SplitN(head, []byte(","), 4)
	if len(fields) < 3 {
		return 0, false
	}
	us, err := strconv.ParseInt(string(fields[2]), 10, 64)
	if err != nil {
		return 0, false
	}
	return time.Duration(us) * time.Microsecond, true
}
