//go:build linux

package disktest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Faulty is a directory that is seen through a file system of its own, which fails
// with EIO when it is told to, as a disk does: what was written since a file was last
// synced is gone when a sync of it fails, and what is not written is not there. The
// kernel keeps what a process has mapped until Unmount.
//
// It is served by the process of the test, which must not use Dir itself.
type Faulty struct {
	t      *testing.T
	Dir    string // where it is mounted
	Behind string // where the files are
	server *fuse.Server

	mu     sync.Mutex // guards the rest
	fault  Fault
	failed int
	files  map[uint64]*behind // what was written since the last sync, by inode
}

// Fault is what fails. The zero Fault is nothing.
type Fault struct {
	Op    Op
	Times int               // 0 = until Heal
	Of    func(string) bool // the path of a file below Dir; nil = all
}

// Op is an operation on a file.
type Op int

// Operations that can fail: writing, also of what a process has mapped, and
// syncing.
const (
	Writing Op = iota + 1
	Syncing
)

// behind is a file with what is to be undone.
type behind struct {
	f       *os.File
	changes []change // the newest last
}

// change is what a write replaced.
type change struct {
	at   int64
	data []byte
	size int64 // of the file
}

// NewFaulty makes and mounts one.
func NewFaulty(t *testing.T) *Faulty {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	d := &Faulty{t: t, Dir: t.TempDir(), Behind: t.TempDir()}
	d.Mount()
	t.Cleanup(d.Unmount)
	return d
}

// Mount mounts it, also again after Unmount.
func (d *Faulty) Mount() {
	d.t.Helper()
	root := &fs.LoopbackRoot{Path: d.Behind}
	root.RootNode = &faultyNode{&fs.LoopbackNode{RootData: root}, d}
	d.mu.Lock()
	d.files = map[uint64]*behind{}
	d.mu.Unlock()
	server, err := fs.Mount(d.Dir, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "faulty", MaxWrite: 1 << 20}})
	if err != nil {
		d.t.Skipf("no file system can be mounted here by FUSE: %v", err)
	}
	d.server = server
}

// Unmount takes it away, and with it what the kernel keeps of its files. Nothing may be
// open on it. It does nothing when it is not mounted.
func (d *Faulty) Unmount() {
	d.t.Helper()
	if d.server == nil {
		return
	}
	var err error
	for range 100 { // the kernel lets go of a process's files a moment after its end
		if err = unix.Unmount(d.Dir, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		d.t.Errorf("unmount %s: %v", d.Dir, err)
		return
	}
	d.server.Wait()
	d.server = nil
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.files {
		_ = b.f.Close() // it was opened for reading what a write replaces
	}
}

// Fail makes operations fail from now on.
func (d *Faulty) Fail(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.failed = f, 0
}

// Heal lets everything work.
func (d *Faulty) Heal() { d.Fail(Fault{}) }

// Failed is how many operations failed since Fail.
func (d *Faulty) Failed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// fails counts an operation that is to fail. d.mu is held.
func (d *Faulty) fails(op Op, path string) bool {
	f := &d.fault
	if f.Op != op || f.Of != nil && !f.Of(path) || f.Times > 0 && d.failed >= f.Times {
		return false
	}
	d.failed++
	return true
}

// faultyNode is a file or a directory.
type faultyNode struct {
	*fs.LoopbackNode
	d *Faulty
}

// WrapChild implements [fs.NodeWrapChilder].
func (n *faultyNode) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	if plain, ok := child.(*fs.LoopbackNode); ok {
		return &faultyNode{plain, n.d}
	}
	return child
}

// Open implements [fs.NodeOpener].
func (n *faultyNode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return n.open(filepath.Join(n.d.Behind, n.Path(nil)), n.Path(nil), flags)
}

// Create implements [fs.NodeCreater].
func (n *faultyNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	inode, made, _, errno := n.LoopbackNode.Create(ctx, name, flags&^unix.O_DIRECT, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	if r, ok := made.(fs.FileReleaser); ok {
		r.Release(ctx)
	}
	path := filepath.Join(n.Path(nil), name)
	h, more, errno := n.open(filepath.Join(n.d.Behind, path), path, flags&^(unix.O_EXCL|unix.O_CREAT))
	return inode, h, more, errno
}

// open opens the file behind for everything: the kernel has looked at the rights. The
// buffers here are not aligned, as O_DIRECT would want them.
func (n *faultyNode) open(file, path string, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, err := os.OpenFile(file, os.O_RDWR|int(flags)&unix.O_TRUNC, 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	return &faultyFile{f: f, path: path, d: n.d}, 0, 0
}

// faultyFile is a file that is open.
type faultyFile struct {
	f    *os.File
	path string
	d    *Faulty
}

// Read implements [fs.FileReader].
func (h *faultyFile) Read(_ context.Context, p []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.f.ReadAt(p, at)
	if err != nil && err != io.EOF {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(p[:n]), 0
}

// Write implements [fs.FileWriter].
func (h *faultyFile) Write(_ context.Context, p []byte, at int64) (uint32, syscall.Errno) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.fails(Writing, h.path) {
		return 0, syscall.EIO
	}
	if err := h.remember(at, len(p)); err != nil {
		return 0, fs.ToErrno(err)
	}
	n, err := h.f.WriteAt(p, at)
	return uint32(n), fs.ToErrno(err)
}

// remember notes what a write replaces. d.mu is held.
func (h *faultyFile) remember(at int64, length int) error {
	info, err := h.f.Stat()
	if err != nil {
		return err
	}
	b, err := h.behind(info)
	if err != nil {
		return err
	}
	former := make([]byte, length)
	n, err := b.f.ReadAt(former, at)
	if err != nil && err != io.EOF {
		return err
	}
	b.changes = append(b.changes, change{at, former[:n], info.Size()})
	return nil
}

// behind is the file for undoing, which outlives this handle. d.mu is held.
func (h *faultyFile) behind(info os.FileInfo) (*behind, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, unix.ENOTSUP
	}
	if b := h.d.files[st.Ino]; b != nil {
		return b, nil
	}
	fd, err := unix.FcntlInt(h.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &behind{f: os.NewFile(uintptr(fd), h.path)}
	h.d.files[st.Ino] = b
	return b, nil
}

// Fsync implements [fs.FileFsyncer].
func (h *faultyFile) Fsync(context.Context, uint32) syscall.Errno {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	info, err := h.f.Stat()
	if err != nil {
		return fs.ToErrno(err)
	}
	b, err := h.behind(info)
	if err != nil {
		return fs.ToErrno(err)
	}
	if !h.d.fails(Syncing, h.path) {
		b.changes = nil // a process that is killed takes nothing of it along
		return 0
	}
	for len(b.changes) > 0 {
		c := b.changes[len(b.changes)-1]
		b.changes = b.changes[:len(b.changes)-1]
		_, err := b.f.WriteAt(c.data, c.at)
		if err == nil {
			err = b.f.Truncate(c.size)
		}
		if err != nil {
			return fs.ToErrno(err)
		}
	}
	return syscall.EIO
}

// Allocate implements [fs.FileAllocater].
func (h *faultyFile) Allocate(_ context.Context, at, size uint64, mode uint32) syscall.Errno {
	return fs.ToErrno(unix.Fallocate(int(h.f.Fd()), mode, int64(at), int64(size)))
}

// Flush implements [fs.FileFlusher].
func (h *faultyFile) Flush(context.Context) syscall.Errno { return 0 }

// Release implements [fs.FileReleaser].
func (h *faultyFile) Release(context.Context) syscall.Errno { return fs.ToErrno(h.f.Close()) }
