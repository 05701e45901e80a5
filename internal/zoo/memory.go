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
	if os.Geteuid() != 0 {
		t.Skip("only root may make a memory group")
	}
	for _, kind := range []struct{ root, limit, swap string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max", "memory.swap.max"},
	} {
		dir := filepath.Join(kind.root, "peanuts-relay-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { removeGroup(t, dir) })
		if os.WriteFile(filepath.Join(dir, kind.limit), []byte(strconv.Itoa(limit)), 0) != nil {
			continue
		}
		_ = os.WriteFile(filepath.Join(dir, kind.swap), []byte(strconv.Itoa(limit)), 0) // there may be no swap
		return filepath.Join(dir, "cgroup.procs")
	}
	t.Skip("this machine lets nobody make a memory group")
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
			t.Errorf("memory group %s: %v", dir, err)
			return
		}
	}
}
