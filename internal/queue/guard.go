package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What Badger may need of the disk before it can make room: see "Caveats" in
// docs/queue.md, a disk that fills up under its memory maps kills the process.
const (
	// leastFree is the first mark when nothing lower is asked for: ten
	// memtables and two value-log files.
	leastFree = 10*memTableSize + 2*valueLogFileSize
	// hardLeastFree is the lowest mark that MinFree can set: a memtable and a
	// value-log file that are made (each is twice its size at first) while a
	// memtable is written out.
	hardLeastFree = 3*memTableSize + 2*valueLogFileSize

	autoFreeMin = 512 << 20
	autoFreeMax = 4 << 30

	leastInodes      = 1024
	leastDescriptors = 128

	spaceEvery = time.Second
	// spaceBytes is how much may be written before the next look: a flood of large
	// events fills what hardLeastFree leaves in less than a second.
	spaceBytes = 8 << 20

	descriptorEvery = 5 * time.Second
)

// diskState is what statfs says.
type diskState struct {
	free, total          int64
	freeInodes, inodes   int64 // inodes 0 = the file system has no limit
	descriptors, maxOpen int64 // maxOpen 0 = not known
}

func statDisk(dir string) (diskState, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return diskState{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return diskState{free: int64(st.Bavail) * st.Bsize, total: int64(st.Blocks) * st.Bsize,
		freeInodes: int64(st.Ffree), inodes: int64(st.Files)}, nil
}

// statDescriptors counts open files. It costs one read of a directory, so it
// is asked for less often.
func statDescriptors() (used, limit int64) {
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) != nil {
		return 0, 0
	}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, 0
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, 0
	}
	return int64(len(names)), int64(min(lim.Cur, 1<<40))
}

// needFree is the first mark: below it nothing is accepted.
func needFree(minFree, total int64) int64 {
	if minFree > 0 {
		return max(minFree, hardLeastFree)
	}
	return max(min(max(total/20, autoFreeMin), autoFreeMax), leastFree)
}

// checkSpace reports whether a store in dir (which need not exist yet) can be
// opened safely: a *[SpaceError] when disk or inodes are short, another error
// when the file system does not answer. It opens and changes nothing.
func checkSpace(dir string, minFree int64, stat func(string) (diskState, error)) error {
	at := dir
	for {
		_, err := os.Stat(at)
		if err == nil || filepath.Dir(at) == at {
			break
		}
		at = filepath.Dir(at)
	}
	d, err := stat(at)
	if err != nil {
		return fmt.Errorf("look at free space: %w", err)
	}
	if short := d.short(dir, needFree(minFree, d.total), 1); short != nil {
		return short
	}
	return nil
}

// short is nil while there is enough of everything: need bytes and the least
// numbers of inodes and descriptors, all divided by share.
func (d *diskState) short(dir string, need, share int64) *SpaceError {
	if d.free < need/share {
		return &SpaceError{What: "disk space", Path: dir, Free: d.free, Need: need / share}
	}
	if d.inodes > 0 && d.freeInodes < leastInodes/share {
		return &SpaceError{What: "inodes", Path: dir, Free: d.freeInodes, Need: leastInodes / share}
	}
	if need := min(leastDescriptors, d.maxOpen/8) / share; d.maxOpen > 0 && d.maxOpen-d.descriptors < need {
		return &SpaceError{What: "file descriptors", Path: dir, Free: d.maxOpen - d.descriptors, Need: need}
	}
	return nil
}

// guard keeps Badger from ever meeting a limit. It looks only when it is asked
// and its last look is old: an idle store costs nothing.
type guard struct {
	dir  string
	stat func(string) (diskState, error)
	now  func() time.Duration

	mu      sync.Mutex // guards the rest
	minFree int64
	looked  time.Duration
	opened  time.Duration // last count of descriptors
	once    bool
	spent   int64 // bytes written since the last look
	state   diskState
	err     error // *SpaceError, or why the file system does not answer
}

// spend notes that n bytes were written.
func (g *guard) spend(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spent += n
}

// set changes the mark; the next question looks at the disk again.
func (g *guard) set(minFree int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.minFree, g.once = minFree, false
}

// check returns nil or why nothing may be accepted now.
func (g *guard) check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if g.once && now-g.looked < spaceEvery && g.spent < spaceBytes {
		return g.err
	}
	g.spent = 0
	d, err := g.stat(g.dir)
	if err != nil {
		g.err, g.looked, g.once = fmt.Errorf("look at free space: %w", err), now, true
		return g.err
	}
	if d.maxOpen == 0 {
		d.descriptors, d.maxOpen = g.state.descriptors, g.state.maxOpen
		if !g.once || now-g.opened >= descriptorEvery {
			d.descriptors, d.maxOpen = statDescriptors()
			g.opened = now
		}
	}
	g.state, g.looked, g.once, g.err = d, now, true, nil
	if short := d.short(g.dir, needFree(g.minFree, d.total), 1); short != nil {
		g.err = short
	}
	return g.err
}

// marks is what check found, with both marks. Below the second, which is half
// of the first, outcomes of deliveries may not find room either, so dispatch
// should pause.
type marks struct {
	err    error // as check
	free   int64
	accept int64
	pause  bool
}

func (g *guard) marks() marks {
	err := g.check()
	g.mu.Lock()
	defer g.mu.Unlock()
	need := needFree(g.minFree, g.state.total)
	return marks{err: err, free: g.state.free, accept: need, pause: g.state.short(g.dir, need, 2) != nil}
}
