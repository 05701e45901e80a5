package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// MaxPathLen is the longest path of a Unix socket on Linux in bytes: sun_path
// has 108, and one ends the name (unix(7)).
const MaxPathLen = 107

const (
	defaultMode = 0o600

	// dirMode lets every user reach the sockets, whose own modes say who may use
	// them. The process's umask applies.
	dirMode = 0o755

	// lockWait bounds how long a rival that starts or stops at the same time is
	// waited for. Its critical section is a few system calls.
	lockWait = 5 * time.Second
	lockPoll = 5 * time.Millisecond

	// probeWait bounds the connect that tells a live socket from a stale one.
	probeWait = 2 * time.Second
)

// Options say how [Listen] makes a socket.
type Options struct {
	// Mode is the permission of the socket file: who may write may connect.
	// 0 is 0600.
	Mode fs.FileMode
	// Group owns the socket file: a name, or a number. "" is the group that the
	// directory or the process gives.
	Group string
	// Activated is the name (FileDescriptorName= of a .socket unit) under which
	// the service manager may have handed over a socket that already listens.
	// When it did, that one is used and path, Mode and Group are the unit's
	// business. "" never looks.
	Activated string
}

// InUseError says that another process listens on the path.
type InUseError struct {
	Path string
	PID  int32 // 0 = the kernel does not say
}

func (e *InUseError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("listen on %s: another process listens there", e.Path)
	}
	return fmt.Sprintf("listen on %s: process %d listens there; stop it, or choose another path", e.Path, e.PID)
}

// NotSocketError says that something stands at the path that is no socket and
// therefore is not removed.
type NotSocketError struct {
	Path string
	What string // "a regular file", "a directory", …
}

func (e *NotSocketError) Error() string {
	return fmt.Sprintf("listen on %s: %s is there, not a socket; remove it yourself, or choose another path", e.Path, e.What)
}

// Listen opens the socket at path, or takes the one that the service manager
// handed over as o.Activated. The listener's Close may be called several times
// and concurrently with Accept.
//
// A directory that is missing is made, mode 0755 less the umask, if the one
// above it exists; nobody removes it.
//
// Errors name the path and what to do: *[InUseError], *[NotSocketError], or
// one that says that the path is too long, the directory missing, the group
// unknown, or which system call failed.
func Listen(path string, o Options) (net.Listener, error) {
	if o.Activated != "" {
		if l, err := activated(o.Activated); l != nil || err != nil {
			return l, err
		}
	}
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := makeDir(path); err != nil {
		return nil, err
	}
	mode := o.Mode
	if mode == 0 {
		mode = defaultMode
	}
	if mode&^fs.ModePerm != 0 {
		return nil, fmt.Errorf("listen on %s: mode %#o is more than permission bits", path, uint32(mode))
	}
	gid, err := groupID(o.Group)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer unlock()
	if err := clearStale(path); err != nil {
		return nil, err
	}
	return bind(path, mode, gid)
}

func checkPath(path string) error {
	switch {
	case path == "":
		return errors.New("listen on a unix socket: the path is empty")
	case path[0] == '@' || strings.IndexByte(path, 0) >= 0:
		// Package net would make an abstract socket of it, which has no mode
		// and admits every user of the machine.
		return fmt.Errorf("listen on %q: abstract sockets and NUL bytes are not supported; use the path of a file", path)
	case len(path) > MaxPathLen:
		return fmt.Errorf("listen on %s: the path has %d bytes, a unix socket's may have %d; choose a shorter one", path, len(path), MaxPathLen)
	}
	return nil
}

// makeDir makes the directory of the socket if only that one is missing: /run
// and $XDG_RUNTIME_DIR are empty after a boot, so somebody has to. It makes no
// more than that, because a path that is wrong further up is a slip of the pen.
func makeDir(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(dir, dirMode); err == nil || errors.Is(err, fs.ErrExist) {
			info, err = os.Stat(dir)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("listen on %s: directory %s does not exist; create it, or choose another path", path, filepath.Dir(dir))
	case err != nil:
		return fmt.Errorf("listen on %s: %w", path, err)
	case !info.IsDir():
		return fmt.Errorf("listen on %s: %s is not a directory", path, dir)
	}
	return nil
}

// clearStale leaves nothing at path, or says why something stays. The caller
// holds the directory's lock, so that what was found stale is not meanwhile
// replaced by a rival's live socket.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return &NotSocketError{Path: path, What: kind(info.Mode())}
	}
	conn, err := net.DialTimeout("unix", path, probeWait)
	switch {
	case err == nil:
		pid, _, _, _ := PeerCred(conn) // 0 when unknown, which the error tolerates
		conn.Close()
		return &InUseError{Path: path, PID: pid}
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("listen on %s: remove the stale socket: %w", path, err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EPROTOTYPE), os.IsTimeout(err):
		// A full backlog, or a socket of another type: somebody is there.
		return &InUseError{Path: path}
	}
	return fmt.Errorf("listen on %s: cannot tell whether the socket there is in use: %w", path, err)
}

func kind(m fs.FileMode) string {
	switch m.Type() {
	case 0:
		return "a regular file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeNamedPipe:
		return "a named pipe"
	}
	return "a device"
}

// bind makes the socket. Until the group is right, its mode has only the
// owner's bits.
func bind(path string, mode fs.FileMode, gid int) (net.Listener, error) {
	born := mode
	if gid >= 0 {
		born &= 0o700
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmodErr error
		if err := c.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), uint32(born)) }); err != nil {
			return err
		}
		return chmodErr
	}}
	nl, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	failpoint.Here("socket.made")
	l := &listener{UnixListener: nl.(*net.UnixListener), path: path}
	l.SetUnlinkOnClose(false) // package net would remove whatever is there by then
	if err := l.settle(mode, gid); err != nil {
		l.removeLocked() // not Close, which would wait for the lock that we hold
		l.UnixListener.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// listener is a socket that this process made.
type listener struct {
	*net.UnixListener
	path     string
	dev, ino uint64

	once     sync.Once
	closeErr error
}

// settle remembers which inode is ours and gives it its group and mode.
func (l *listener) settle(mode fs.FileMode, gid int) error {
	fd, err := unix.Open(l.path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the new socket: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at the new socket: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != os.Geteuid() {
		return errors.New("somebody exchanged the new socket; the directory must not be writable by others")
	}
	l.dev, l.ino = st.Dev, st.Ino
	if gid >= 0 {
		if err := unix.Fchownat(fd, "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("give the socket to group %d: %w; the process must be root or a member", gid, err)
		}
	}
	// fchmod refuses a descriptor opened with O_PATH (open(2)); its link in
	// /proc leads to the same inode.
	if err := os.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode); err != nil {
		return fmt.Errorf("set the socket's mode: %w", err)
	}
	return nil
}

// Close stops listening and removes the socket file if it still is ours.
func (l *listener) Close() error {
	l.once.Do(func() {
		// The file goes first: once nobody listens, a rival may take the path,
		// and what would be removed then is the rival's.
		l.remove()
		failpoint.Here("socket.removed")
		l.closeErr = l.UnixListener.Close()
	})
	return l.closeErr
}

// remove is best effort: a socket file that stays is stale, and the next start
// clears it.
func (l *listener) remove() {
	unlock, err := lockDir(filepath.Dir(l.path))
	if err != nil {
		return
	}
	defer unlock()
	l.removeLocked()
}

func (l *listener) removeLocked() {
	var st unix.Stat_t
	if unix.Lstat(l.path, &st) == nil && st.Dev == l.dev && st.Ino == l.ino {
		os.Remove(l.path)
	}
}
