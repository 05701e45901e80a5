package zoo

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// MemoryGroup makes a memory group of the kernel with a limit in bytes, whichever version
// it has, until the end of the test. A process whose number is written to procs is in it
// from then on. Without the right to do so the test is skipped.
func MemoryGroup(t testing.TB, limit int) (procs string) {
	t.Helper()
	return group(t, limit, "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max")
}

// TaskGroup is MemoryGroup with a limit of threads and processes.
func TaskGroup(t testing.TB, limit int) (procs string) {
	t.Helper()
	return group(t, limit, "/sys/fs/cgroup/pids", "pids.max", "", "pids.max", "")
}

// group makes one under the directory of the controller, which is of version 1, or that
// of version 2, each with the files for the limit and for another of the same that there
// may be.
func group(t testing.TB, limit int, one, oneLimit, oneMore, twoLimit, twoMore string) (procs string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make a group of the kernel")
	}
	for _, kind := range []struct{ root, limit, more string }{{one, oneLimit, oneMore}, {"/sys/fs/cgroup", twoLimit, twoMore}} {
		dir, err := os.MkdirTemp(kind.root, "peanuts-relay-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { removeGroup(t, dir) })
		if os.WriteFile(filepath.Join(dir, kind.limit), []byte(strconv.Itoa(limit)), 0) != nil {
			continue
		}
		if kind.more != "" {
			_ = os.WriteFile(filepath.Join(dir, kind.more), []byte(strconv.Itoa(limit)), 0) // there may be no swap
		}
		return filepath.Join(dir, "cgroup.procs")
	}
	t.Skip("this machine lets nobody make a group of the kernel")
	return ""
}

// removeGroup waits until the last process of a group has left it.
func removeGroup(t testing.TB, dir string) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(end) {
			t.Errorf("group %s: %v", dir, err)
			return
		}
	}
}
