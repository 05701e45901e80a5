package queue

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// residentTables is how many bytes of tables in dir are resident.
func residentTables(t *testing.T, dir string) (sum int) {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("needs /proc/self/smaps:", err)
	}
	ours := false
	for line := range strings.Lines(string(smaps)) {
		var kB int
		switch {
		case strings.Contains(line, dir):
			ours = strings.HasSuffix(line, ".sst\n")
		case strings.Contains(line, "-") && strings.Contains(line, " r"):
			ours = false
		case ours:
			if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kB); n == 1 {
				sum += kB << 10
			}
		}
	}
	return sum
}

func TestTablesThatNobodyReadsLeaveTheMemoryOfTheProcess(t *testing.T) {
	h := newHarness(t)
	var fs unix.Statfs_t
	if err := unix.Statfs(h.opts.Dir, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skip("a tmpfs keeps its pages in memory; set TMPDIR to a disk", err)
	}
	lane := h.lane("x.a")[0]
	h.acceptMany(150, lane)
	dir, r := h.db.Opts().Dir, &h.Store.c.residency
	if r.levels == nil {
		t.Fatal("Badger's levels were not found")
	}
	all := func() {
		if ds := h.ready(lane); len(ds) != 30000 {
			t.Errorf("%d are ready", len(ds))
		}
	}
	all() // reads each table
	if residentTables(t, dir) == 0 {
		t.Fatal("no table is resident")
	}
	if err := r.pass(residencyPass{age: 0}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if residentTables(t, dir) == 0 {
		t.Error("a pass over young tables took old ones")
	}
	waitUntil(t, "no young table is resident", func() bool {
		if err := r.pass(residencyPass{age: time.Hour}, time.Now()); err != nil {
			t.Fatal(err)
		}
		return residentTables(t, dir) < 1<<20
	})
	all()
	h.resting() // begins a pass over all
	h.do(t.Context(), func(*group) error {
		if r.since > 64<<10 {
			t.Errorf("%d bytes were committed since the last pass", r.since)
		}
		return nil
	})
	waitUntil(t, "no table is resident", func() bool {
		err := r.pass(residencyPass{all: true}, time.Now()) // again: the kernel passes over a page that is in use
		if errors.Is(err, unix.EINVAL) {
			t.Skip("the kernel does not know MADV_PAGEOUT")
		}
		if err != nil {
			t.Fatal(err)
		}
		return residentTables(t, dir) < 1<<20
	})
	all()
	h.sound()
}
