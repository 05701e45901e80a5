package queue

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pageOutEvery is how much is committed between two passes: what fills level
	// zero and is merged then.
	pageOutEvery = 64 << 20
	// pageOutAge is how long a table was left alone. What is younger will be read
	// again soon, to be merged.
	pageOutAge = 20 * time.Second
)

// residency keeps tables that nobody reads out of the memory of the process.
// Badger maps its tables and writes them through the map, so that each page of
// a backlog counts as resident until the kernel needs it: a gigabyte for a
// million deliveries, which looks like a leak to whoever watches the service,
// and is charged to its limit. The pages are clean; who reads them again gets
// them from the disk.
type residency struct {
	written int
	wanted  chan time.Duration // how old a table must be; closed when the committer ends
	ended   chan struct{}
}

func (r *residency) init() {
	r.wanted = make(chan time.Duration, 1)
	r.ended = make(chan struct{})
}

// committed counts what a group wrote.
func (r *residency) committed(bytes int) {
	if r.written += bytes; r.written >= pageOutEvery {
		r.want(pageOutAge)
	}
}

// rest is called when nothing is merged any more.
func (r *residency) rest() {
	if r.written > 0 {
		r.want(0)
	}
}

func (r *residency) want(age time.Duration) {
	r.written = 0
	select {
	case r.wanted <- age:
	default: // a pass waits to be made
	}
}

func (s *Store) residencyLoop() {
	defer close(s.c.residency.ended)
	dir, err := filepath.EvalSymlinks(s.db.Opts().Dir) // as /proc/self/maps has it
	if err != nil {
		dir = s.db.Opts().Dir
	}
	for age := range s.c.residency.wanted {
		if err := pageOut(dir, time.Now().Add(-age)); err != nil {
			s.log.Info("tables of the database stay in memory until the kernel needs it", "err", err)
			for range s.c.residency.wanted {
			}
			return
		}
	}
}

// pageOut asks the kernel to drop the pages of tables in dir that were written
// before then. MADV_PAGEOUT (Linux 5.4, madvise(2)) is advice that changes no
// memory: a table may be unmapped, and something else mapped there, between
// reading the list of mappings and the call.
func pageOut(dir string, before time.Time) error {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc_pid_maps(5): address perms offset dev inode pathname
		at, path, ok := strings.Cut(lines.Text(), dir+"/")
		if !ok || !strings.HasSuffix(path, ".sst") {
			continue
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(at, "%x-%x ", &from, &to); err != nil {
			return fmt.Errorf("read /proc/self/maps: %w", err)
		}
		info, err := os.Stat(dir + "/" + path)
		if err != nil || info.ModTime().After(before) {
			continue // err: it was merged meanwhile
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_PAGEOUT); errno == unix.EINVAL {
			return fmt.Errorf("madvise(MADV_PAGEOUT): %w", errno)
		}
	}
	return lines.Err()
}
