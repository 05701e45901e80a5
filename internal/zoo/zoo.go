// Package zoo is sink plugins for tests: one that works, and every way in which one can
// fail or do harm.
//
// Guarantee: a test binary whose TestMain calls [Main] first plays the plugin that its
// name says and nothing else; under any other name Main does nothing.
package zoo

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// prefix is what the name of every animal's executable begins with.
const prefix = "peanuts-sink-zoo-"

// Main plays a plugin and exits when the program's name asks for one. Call it first in
// TestMain.
func Main() {
	behaviour, ok := strings.CutPrefix(filepath.Base(os.Args[0]), prefix)
	if !ok {
		return
	}
	play(behaviour)
	os.Exit(0)
}

// Name is what the plugin of a behaviour calls itself, and the file's name without
// "peanuts-sink-".
func Name(behaviour string) string { return "zoo-" + behaviour }

// Install puts the running test binary into dir under the name of a behaviour, where a
// host may execute it, and returns its path. dir gets mode 0755.
func Install(t testing.TB, dir, behaviour string) (path string) {
	t.Helper()
	path = filepath.Join(dir, prefix+behaviour)
	if err := errors.Join(os.Chmod(dir, 0o755), copySelf(path)); err != nil {
		t.Fatal(err)
	}
	return path
}

// copySelf copies rather than links: the mode of what the test was built as is not ours
// to change, and two names of one file would be one identity.
func copySelf(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	in, err := os.Open(self)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	const mode fs.FileMode = 0o755 // whatever the umask
	return errors.Join(err, out.Chmod(mode), out.Close())
}
