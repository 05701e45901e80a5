// Package pluginfile holds the rules for the executable of a plugin.
//
// Guarantee: a file that [Open] returns could be changed by nobody but root and the user
// of this process, nor could the path have been made to lead elsewhere; what is executed
// through its descriptor is what was checked, whatever the path names meanwhile. [Check]
// has the same rules and opens nothing for longer than it takes.
package pluginfile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxFile is the size of the largest executable, in bytes. All of it is read for the
// checksum at every start.
const maxFile = 1 << 30

// File is a plugin's executable that passed every check, held open: what is executed is
// what was checked, whatever the path names meanwhile. A File is safe for concurrent use.
type File struct {
	path     string
	identity Identity
	f        *os.File
}

// Identity tells one version of an executable from another. Two are the same file when
// they are equal.
type Identity struct {
	Device, Inode uint64
	Size          int64     // bytes
	Modified      time.Time // as the file system has it, UTC
	SHA256        string    // of the content, lower-case hex
}

// Open opens a plugin's executable and refuses one that somebody else could have changed.
//
// path is absolute. sha256 is what the content must be, in hex; "" = anything. The rules:
//
//   - the file is a regular one, can be executed, is at most 1 GiB, and has no set-user-ID
//     or set-group-ID bit and no capabilities, which would lift the limits that it is
//     started with;
//   - the file and its directory belong to root or to the user of this process, and
//     neither its group nor others may write to them;
//   - every directory above belongs to one of the two as well, and others may write to it
//     only when it has the sticky bit (such as /tmp), which keeps them from replacing
//     what is not theirs;
//   - all this holds for the path as it is written and for where its symbolic links lead,
//     and a link belongs to one of the two.
//
// The checksum covers this one file: not an interpreter that its first line names, nor
// what the interpreter loads.
func Open(path, sha256 string) (*File, error) {
	f, err := open(path, rules{os.Geteuid()})
	if err != nil {
		return nil, err
	}
	id, err := measure(f)
	if err == nil {
		err = compare(id, sha256)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return &File{path: path, identity: id, f: f}, nil
}

// Check tells whether [Open] in a process of the user uid would refuse the file, and why.
// It reads the content only for a checksum. The error is a
// [*ChecksumError] when nothing but the checksum is wrong.
func Check(path, sha256 string, uid int) error {
	f, err := open(path, rules{uid})
	if err != nil {
		return err
	}
	defer f.Close()
	if sha256 == "" {
		return nil
	}
	id, err := measure(f)
	if err == nil {
		err = compare(id, sha256)
	}
	return err
}

// ChecksumError is the error of a file whose checksum is not the one that is wanted.
type ChecksumError struct{ Is, Wanted string } // hex

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("the checksum of the plugin is another one: it is %s, wanted is %s", e.Is, e.Wanted)
}

func compare(id Identity, sha256 string) error {
	if sha256 != "" && !strings.EqualFold(sha256, id.SHA256) {
		return &ChecksumError{id.SHA256, sha256}
	}
	return nil
}

// rules are whom a file may belong to, beside root.
type rules struct{ uid int }

// open opens the file after every check but that of its content.
func open(path string, r rules) (*os.File, error) {
	resolved, err := r.path(path)
	if err != nil {
		return nil, err
	}
	// Whoever could swap the file between the walk and here is trusted. O_NONBLOCK: the
	// open of a named pipe must not wait.
	f, err := os.OpenFile(resolved, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open plugin: %w", err)
	}
	if err := r.examine(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

// Path is the path that was opened, as it was given.
func (f *File) Path() string { return f.path }

// Descriptor is what is executed. It is closed by Close.
func (f *File) Descriptor() *os.File { return f.f }

// Identity is what was opened.
func (f *File) Identity() Identity { return f.identity }

// Changed reports whether the path now leads to something else, or to nothing. It
// compares without reading the content.
func (f *File) Changed() bool {
	info, err := os.Stat(f.path)
	if err != nil {
		return true
	}
	now, err := identify(info)
	now.SHA256 = f.identity.SHA256
	return err != nil || now != f.identity
}

// Close lets go of the file. Processes that were started from it go on.
func (f *File) Close() error { return f.f.Close() }

// examine checks the open file by itself.
func (r rules) examine(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("examine: %w", err)
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return errors.New("the plugin is not a regular file")
	case mode.Perm()&0o111 == 0:
		return errors.New("the plugin is not executable; chmod +x")
	case mode&(fs.ModeSetuid|fs.ModeSetgid) != 0:
		return errors.New("the plugin has a set-user-ID or set-group-ID bit; chmod ug-s")
	case info.Size() > maxFile:
		return fmt.Errorf("the plugin has %d bytes; at most 1 GiB is executed", info.Size())
	}
	if err := r.trusted(info); err != nil {
		return fmt.Errorf("others can change the plugin: %w", err)
	}
	if n, err := unix.Fgetxattr(int(f.Fd()), "security.capability", nil); err == nil && n > 0 {
		return errors.New("the plugin has file capabilities; setcap -r")
	}
	return nil
}

// measure reads all of the file.
func measure(f *os.File) (Identity, error) {
	before, err := identity(f)
	if err != nil {
		return Identity{}, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxFile+1)); err != nil {
		return Identity{}, fmt.Errorf("read: %w", err)
	}
	if after, err := identity(f); err != nil || after != before {
		return Identity{}, errors.Join(errors.New("the plugin was written to while it was read"), err)
	}
	before.SHA256 = hex.EncodeToString(h.Sum(nil))
	return before, nil
}

func identity(f *os.File) (Identity, error) {
	info, err := f.Stat()
	if err != nil {
		return Identity{}, fmt.Errorf("examine: %w", err)
	}
	return identify(info)
}

func identify(info fs.FileInfo) (Identity, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Identity{}, errors.New("the file system does not tell files apart")
	}
	return Identity{Device: uint64(st.Dev), Inode: st.Ino, Size: info.Size(), Modified: info.ModTime().UTC()}, nil
}

// maxLinks is how many symbolic links a path may lead through, as in the kernel.
const maxLinks = 40

// path follows path as the kernel does and returns where it leads. It fails when
// anybody but root and this user could make it lead elsewhere.
func (r rules) path(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("plugin %q: the path is not absolute", path)
	}
	at, rest, links := "/", strings.Split(filepath.Clean(path), "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		if err := r.trustedDir(at); err != nil {
			return "", fmt.Errorf("plugin %s: %w", path, err)
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil {
			return "", fmt.Errorf("open plugin: %w", err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("plugin %s: too many symbolic links", path)
		}
		if !r.ours(info) {
			return "", fmt.Errorf("plugin %s: others can change the symbolic link %s: its owner must be root or the daemon's user", path, next)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", fmt.Errorf("open plugin: %w", err)
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	dir := filepath.Dir(at)
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("open plugin: %w", err)
	}
	if err := r.trusted(info); err != nil {
		return "", fmt.Errorf("plugin %s: others can change the directory of the plugin, %s: %w", path, dir, err)
	}
	return at, nil
}

// trustedDir is the rule for a directory on the way.
func (r rules) trustedDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSticky != 0 && r.ours(info) {
		return nil
	}
	if err := r.trusted(info); err != nil {
		return fmt.Errorf("others can change the directory %s: %w", dir, err)
	}
	return nil
}

// trusted fails unless only root and the user can write.
func (r rules) trusted(info fs.FileInfo) error {
	if !r.ours(info) {
		return errors.New("its owner must be root or the daemon's user")
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("its mode is %04o, which lets its group or others write; at most 0755", info.Mode().Perm())
	}
	return nil
}

func (r rules) ours(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == r.uid)
}
