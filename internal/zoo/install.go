package zoo

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Install puts the running test binary into dir under the name of a behaviour, where a
// host may execute it, and returns its path. dir gets mode 0755.
func Install(t testing.TB, dir, behaviour string) (path string) {
	t.Helper()
	path = filepath.Join(dir, filePrefix+Name(behaviour))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if linkSelf(path) {
		return path
	}
	if err := copySelf(path, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// InstallAs puts a behaviour at a path of the form peanuts-sink-<name>; it describes
// itself by that name and as this version. What is there is replaced in one step, as a
// package manager does it, and goes on running. The directory gets mode 0755.
func InstallAs(t testing.TB, path, behaviour, version string) {
	t.Helper()
	fresh := path + ".new"
	err := errors.Join(
		os.Chmod(filepath.Dir(path), 0o755),
		copySelf(fresh, end(behaviour, version)),
		os.Rename(fresh, path),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// linkSelf makes a second name for the test binary, which takes no room. It fails on
// another file system, and when others could write to the file.
func linkSelf(to string) bool {
	self, err := os.Executable()
	if err != nil {
		return false
	}
	info, err := os.Stat(self)
	if err != nil || info.Mode().Perm()&0o022 != 0 || info.Mode().Perm()&0o100 == 0 {
		return false
	}
	return os.Link(self, to) == nil
}

func copySelf(to string, end []byte) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.MultiReader(in, bytes.NewReader(end)))
	const mode fs.FileMode = 0o755 // whatever the umask
	return errors.Join(err, out.Chmod(mode), out.Close())
}

const (
	// endMark and endSize are how the end of an executable tells a behaviour and a
	// version: the mark, both with a zero byte after each, and zero bytes up to the size.
	// What comes after the program in a file is not looked at by the kernel.
	endMark = "peanuts-relay zoo\x00"
	endSize = 128
)

func end(behaviour, version string) []byte {
	b := make([]byte, endSize)
	copy(b, endMark+behaviour+"\x00"+version+"\x00")
	return b
}

// readEnd reads the end of the running executable.
func readEnd() (behaviour, version string, ok bool) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", "", false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", "", false
	}
	b := make([]byte, endSize)
	if _, err := f.ReadAt(b, info.Size()-endSize); err != nil {
		return "", "", false
	}
	rest, ok := bytes.CutPrefix(b, []byte(endMark))
	if !ok {
		return "", "", false
	}
	fields := bytes.SplitN(rest, []byte{0}, 3)
	return string(fields[0]), string(fields[1]), true
}
