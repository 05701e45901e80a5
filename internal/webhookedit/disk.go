package webhookedit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	// tempName begins with a dot, so that the loader and the watcher ignore it.
	// There is one, so that crashes leave at most one behind.
	tempName = ".90-api.yaml.tmp"
	newMode  = fs.FileMode(0o600) // it has secrets
	dirMode  = fs.FileMode(0o700) // at least
)

// disk is the directory of the drop-ins. It may be a symbolic link, which is the
// operator's way to put it elsewhere. The file itself may not: whoever could
// make it one could have any file replaced.
type disk struct {
	dir  string
	sync func(*os.Root) error // syncNames; tests have it fail
}

// former is the file before an edit.
type former struct {
	exists   bool
	data     []byte
	mode     fs.FileMode
	uid, gid int
}

func (d disk) read() (former, error) {
	path := filepath.Join(d.dir, FileName)
	root, err := os.OpenRoot(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return former{}, nil
	}
	if err != nil {
		return former{}, refuseIO(err, path)
	}
	defer root.Close()
	info, err := root.Lstat(FileName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return former{}, nil
	case err != nil:
		return former{}, refuseIO(err, path)
	case !info.Mode().IsRegular():
		return former{}, conflict("", "%s is not a regular file, and only such a one is replaced", path)
	}
	f, err := root.OpenFile(FileName, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return former{}, refuseIO(err, path)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxFileBytes+1))
	if err != nil {
		return former{}, refuseIO(err, path)
	}
	was := former{exists: true, data: data, mode: info.Mode().Perm(), uid: -1, gid: -1}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		was.uid, was.gid = int(st.Uid), int(st.Gid)
	}
	return was, nil
}

// write replaces the file, or removes it when data is nil. When it returns, that
// is durable; a crash before leaves the old file or the new one. The owner stays
// that of was.
func (d disk) write(data []byte, was former, mode fs.FileMode) error {
	root, err := d.open(data != nil)
	if err != nil || root == nil {
		return err
	}
	defer root.Close()
	if err := root.Remove(tempName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what an interrupted edit left: %w", err)
	}
	if data == nil {
		if err := root.Remove(FileName); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return d.sync(root)
	}
	if err := writeTemp(root, data, was, mode); err != nil {
		_ = root.Remove(tempName) // the error is told; the next edit removes it too
		return err
	}
	// Here both files are whole: a crash before the rename is durable brings the
	// old one back, and nobody has been told otherwise yet.
	if err := root.Rename(tempName, FileName); err != nil {
		_ = root.Remove(tempName)
		return err
	}
	return d.sync(root)
}

// open opens the directory; nil when it is not there and not to be made.
func (d disk) open(create bool) (*os.Root, error) {
	root, err := os.OpenRoot(d.dir)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return root, err
	case !create:
		return nil, nil
	}
	parent, err := os.OpenRoot(filepath.Dir(d.dir))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	// Who may read the main file's directory may list this one, whatever the
	// umask: a program that sends reads where to from all files it may read.
	info, err := parent.Stat(".")
	if err != nil {
		return nil, err
	}
	name := filepath.Base(d.dir)
	if err := parent.Mkdir(name, dirMode); err != nil {
		return nil, err
	}
	if err := parent.Chmod(name, dirMode|info.Mode().Perm()&0o755); err != nil {
		return nil, err
	}
	if err := d.sync(parent); err != nil {
		return nil, err
	}
	return os.OpenRoot(d.dir)
}

func writeTemp(root *os.Root, data []byte, was former, mode fs.FileMode) (err error) {
	f, err := root.OpenFile(tempName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, newMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if was.exists && was.uid >= 0 {
		// Only root can give a file away. Another user could replace the file, so
		// it may be this user's from now on.
		if err := f.Chown(was.uid, was.gid); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// syncNames makes the names in a directory durable.
func syncNames(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// refuseIO says what an operator can do about an error of the disk.
func refuseIO(err error, path string) error {
	if _, ok := errors.AsType[*Refusal](err); ok {
		return err
	}
	why := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		why = e.Err
	}
	switch {
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return &Refusal{Status: http.StatusForbidden, Code: rest.CodeReadOnly,
			Message: fmt.Sprintf("%s cannot be written (%v); let the daemon's user write to %s, or edit the files by hand", path, why, filepath.Dir(path))}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &Refusal{Status: http.StatusInsufficientStorage, Code: rest.CodeNoSpace,
			Message: fmt.Sprintf("%s cannot be written: %v; nothing changed", path, why)}
	}
	return fmt.Errorf("write %s: %w", path, err)
}
