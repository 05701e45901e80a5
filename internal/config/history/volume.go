package history

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// maxNames bounds a listing: a few times what the limits of the history allow.
const maxNames = 4 * maxRefs

// syncers is how many files are synced at once: file systems settle many syncs
// with one write of their journal.
const syncers = 16

// volume is one directory of plain files. A volume does nothing twice and
// repairs nothing; what an error left behind is for the caller to find.
type volume interface {
	// list names everything in the directory, in no order.
	list() ([]string, error)
	// read returns the whole of a regular file of at most limit bytes, never
	// through a symbolic link.
	read(name string, limit int64) ([]byte, error)
	// write makes files that must not exist, and syncs each. Their names are
	// durable only after sync.
	write(files []newFile) error
	rename(from, to string) error
	remove(name string) error
	// sync makes the names durable: all that was made, renamed and removed.
	sync() error
	close() error
}

type newFile struct {
	name string
	data []byte
}

// errUntrusted marks a file that is not one this package can have made.
var errUntrusted = errors.New("not made by this program")

// directory is the volume on the disk. Its methods may be called concurrently.
type directory struct {
	f        *os.File
	readOnly bool
}

// openDirectory opens the directory at path, below at when that is not nil. The
// last element must not be a symbolic link. Unless readOnly, it is made 0700.
func openDirectory(at *os.File, path string, readOnly bool) (*directory, error) {
	fd := unix.AT_FDCWD
	if at != nil {
		fd = int(at.Fd())
	}
	got, err := retry(func() (int, error) {
		return unix.Openat(fd, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if at != nil {
		path = filepath.Join(at.Name(), path)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open directory", Path: path, Err: err}
	}
	d := &directory{f: os.NewFile(uintptr(got), path), readOnly: readOnly}
	if err := d.private(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// private makes sure that nobody else writes here: what is read back becomes
// the configuration that runs.
func (d *directory) private() error {
	info, err := d.f.Stat()
	if err != nil {
		return fmt.Errorf("look at directory: %w", err)
	}
	if err := ownedByUs(info); err != nil {
		return fmt.Errorf("directory %s: %w", d.f.Name(), err)
	}
	switch perm := info.Mode().Perm(); {
	case d.readOnly && perm&0o022 != 0:
		return fmt.Errorf("directory %s: %w: others may write to it; chmod 700", d.f.Name(), errUntrusted)
	case !d.readOnly && perm != 0o700:
		if err := d.f.Chmod(0o700); err != nil {
			return fmt.Errorf("make directory private: %w", err)
		}
	}
	return nil
}

// ownedByUs refuses what another user than the daemon's or root put there.
func ownedByUs(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%w: its owner is unknown", errUntrusted)
	}
	if uid := int(st.Uid); uid != os.Geteuid() && uid != 0 {
		return fmt.Errorf("%w: it belongs to user %d, the daemon runs as user %d", errUntrusted, uid, os.Geteuid())
	}
	return nil
}

func (d *directory) list() ([]string, error) {
	// A directory that is read again must be opened again, or rewound.
	if _, err := d.f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("list directory: %w", err)
	}
	names, err := d.f.Readdirnames(maxNames + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list directory: %w", err)
	}
	if len(names) > maxNames {
		return nil, fmt.Errorf("directory %s has more than %d files", d.f.Name(), maxNames)
	}
	return names, nil
}

func (d *directory) open(name string, flags int) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(d.f.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s: %w: it is a symbolic link", name, errUntrusted)
	}
	if err != nil {
		return nil, d.fault("open", name, err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.f.Name(), name)), nil
}

func (d *directory) read(name string, limit int64) ([]byte, error) {
	f, err := d.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is not a regular file", name, errUntrusted)
	}
	if err := ownedByUs(info); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if info.Mode().Perm() != 0o600 && !d.readOnly {
		if err := f.Chmod(0o600); err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: %w: it is larger than %d bytes", name, errDamaged, limit)
	}
	return data, nil
}

func (d *directory) write(files []newFile) error {
	errs := make([]error, min(syncers, len(files)))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := w; i < len(files) && errs[w] == nil; i += len(errs) {
				errs[w] = d.writeOne(files[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (d *directory) writeOne(n newFile) error {
	f, err := d.open(n.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	err = f.Chmod(0o600) // whatever the umask
	if err == nil {
		failpoint.Torn("history.write", f, n.data, 0)
		_, err = f.Write(n.data)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (d *directory) rename(from, to string) error {
	fd := int(d.f.Fd())
	return d.fault("rename", to, unix.Renameat(fd, from, fd, to))
}

func (d *directory) remove(name string) error {
	return d.fault("remove", name, unix.Unlinkat(int(d.f.Fd()), name, 0))
}

func (d *directory) sync() error  { return d.f.Sync() }
func (d *directory) close() error { return d.f.Close() }

// make makes a directory below, private and durable. One that is there may have
// been made by a process that died before it synced.
func (d *directory) make(name string) error {
	err := unix.Mkdirat(int(d.f.Fd()), name, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return d.fault("make directory", name, err)
	}
	return d.sync()
}

// lock keeps other processes from changing the directory until it is closed.
func (d *directory) lock() error {
	_, err := retry(func() (int, error) { return 0, unix.Flock(int(d.f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("directory %s: %w", d.f.Name(), ErrLocked)
	}
	return d.fault("lock", "", err)
}

func (d *directory) fault(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.f.Name(), name), Err: err}
}

// retry calls f until no signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// makeDirs makes a directory that only its owner can enter, and those above it
// that are missing. Each is synced into the one above it, the last one also when
// it is there: see make.
func makeDirs(path string) error {
	err := os.Mkdir(path, 0o700)
	above := filepath.Dir(path)
	if errors.Is(err, fs.ErrNotExist) && above != path {
		if err := makeDirs(above); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(above)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
