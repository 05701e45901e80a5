//go:build linux

// Package disktest makes small file systems of their own for tests, which may
// be filled, cut off or given back, or fail when they are told to.
//
// Guarantee: whatever it mounts is unmounted at the end of the test, and a
// test that may not mount is skipped by name with the reason.
package disktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// Disk is a file system in an image.
type Disk struct {
	t     *testing.T
	Dir   string // where it is mounted
	image string
}

// New makes an image of size bytes, which takes only the space that is used, in
// the directory at, "" for one of the test's own. kind is the type of the file system,
// ext4 or xfs; options are further ones of its mkfs.
func New(t *testing.T, kind, at string, size int64, options ...string) *Disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	mkfs := testhost.Program(t, "mkfs."+kind)
	if at == "" {
		at = t.TempDir()
	}
	d := &Disk{t: t, image: filepath.Join(at, "image"), Dir: filepath.Join(t.TempDir(), "disk")}
	f, err := os.Create(d.image)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close(), os.Mkdir(d.Dir, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-q"}, options...)
	if out, err := exec.Command(mkfs, append(args, d.image)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mkfs, err, out)
	}
	if out, err := mount(d.image, d.Dir, "-o", "loop"); err != nil {
		t.Skipf("no %s can be mounted here: %v: %s", kind, err, out)
	}
	t.Cleanup(d.Unmount)
	return d
}

// Memory mounts a tmpfs of size bytes.
func Memory(t *testing.T, size int64) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	dir = t.TempDir()
	if out, err := mount("tmpfs", dir, "-t", "tmpfs", "-o", "size="+strconv.FormatInt(size, 10)); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func mount(what, dir string, options ...string) (string, error) {
	out, err := exec.Command("mount", append(options, what, dir)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Mount mounts the image again after Unmount, which lets the file system repair
// itself.
func (d *Disk) Mount() {
	d.t.Helper()
	if out, err := mount(d.image, d.Dir, "-o", "loop"); err != nil {
		d.t.Fatalf("mount again: %v: %s", err, out)
	}
}

// Unmount takes the file system away. Nothing may be open on it. It does nothing when
// it is not mounted.
func (d *Disk) Unmount() {
	d.t.Helper()
	if err := unix.Unmount(d.Dir, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		d.t.Errorf("unmount %s: %v", d.Dir, err)
	}
}

// Cut ends the file system as a power cut does: nothing that was not synced is
// written any more, not even the journal. Every later call fails with an I/O
// error. The effect on the image is final; Unmount and Mount follow.
// FS_IOC_SHUTDOWN with FS_SHUTDOWN_FLAGS_NOLOGFLUSH,
// https://man7.org/linux/man-pages/man2/ioctl_xfs_goingdown.2.html.
func (d *Disk) Cut() {
	d.t.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(d.Dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush); err != nil {
		d.t.Skipf("this kernel does not shut a file system down: %v", err)
	}
}

// CutUnder is Cut while p works: p is stopped first and stays stopped, so that
// nobody hears what it would say of the time after. Stopping takes effect a moment
// after the signal; a thread that waits for the disk then may go on waiting, and
// stops before it can say anything.
func (d *Disk) CutUnder(p *os.Process) {
	d.t.Helper()
	if err := p.Signal(unix.SIGSTOP); err != nil {
		d.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !stopped(p.Pid); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("process %d does not stop", p.Pid)
		}
	}
	d.Cut()
}

// stopped reports whether no thread of a process runs (proc_pid_stat(5)).
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		if after == "" || !strings.Contains("TtDZX", after[:1]) {
			return false
		}
	}
	return true
}

// Fill leaves at most free bytes of the file system that dir is on. Release
// gives the rest back.
func Fill(t *testing.T, dir string, free int64) (release func()) {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprintf("balloon-%d", free))
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	// A little goes to the file system's own blocks, or to whoever writes meanwhile.
	for n := int64(st.Bavail)*st.Bsize - free; n > 0; n -= 64 << 10 {
		err := unix.Fallocate(int(f.Fd()), 0, 0, n)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}

// FillInodes leaves at most free inodes.
func FillInodes(t *testing.T, dir string, free int64) (release func()) {
	t.Helper()
	at, err := os.MkdirTemp(dir, "inodes")
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	for i := range int64(st.Ffree) - free {
		f, err := os.Create(filepath.Join(at, strconv.FormatInt(i, 10)))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return func() {
		if err := os.RemoveAll(at); err != nil {
			t.Error(err)
		}
	}
}

// Freeze has the file system hold up whoever writes, in a wait that no signal ends, until
// thaw is called, at the latest at the end of the test (FIFREEZE in
// https://man7.org/linux/man-pages/man2/ioctl_fs.2.html and fsfreeze(8)).
func (d *Disk) Freeze() (thaw func()) {
	d.t.Helper()
	const freeze, unfreeze = 0xc0045877, 0xc0045878
	f, err := os.Open(d.Dir)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), freeze, 0); err != nil {
		f.Close()
		d.t.Skipf("this file system cannot be frozen: %v", err)
	}
	thaw = sync.OnceFunc(func() {
		if err := errors.Join(unix.IoctlSetInt(int(f.Fd()), unfreeze, 0), f.Close()); err != nil {
			d.t.Errorf("thaw %s: %v", d.Dir, err)
		}
	})
	d.t.Cleanup(thaw)
	return thaw
}
