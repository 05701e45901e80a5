// Package testhost is what tests need of the machine that they run on: programs,
// users other than their own, and networks of their own.
//
// Guarantee: where CI=true nothing that a test needs is quietly skipped for the want
// of a program, and what only a user without root's rights can show is shown in a
// test run of root, too.
package testhost

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Program finds a program. Without it the test ends as Missing says.
func Program(t testing.TB, name string) (path string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s is not installed", name)
	}
	return path
}

// Missing skips a test whose needs the machine does not meet, by name and with the
// reason. Where CI=true the test fails instead.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

const (
	// nobodys is a user id that nobody has, and owns nothing.
	nobodys = 4242
	// patience is how long a process of another user may take.
	patience = 2 * time.Minute
)

// AsUser runs the calling test once more in a process of a user without rights and
// reports true; when this process has no rights of root, it reports false and the
// test goes on here. The test fails when it does in the other process, or is not
// run there.
func AsUser(t *testing.T) (done bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	cmd := Command(t, nobodys, "-test.v", "-test.run=^"+regexp.QuoteMeta(t.Name())+"$")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as user %d: %v\n%s", nobodys, err, out)
	}
	return true
}

// Command is this test binary as another user, with a temporary directory of that
// user's own and no groups but the one of the same number. It takes root.
func Command(t *testing.T, uid uint32, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp(reachable(t), "user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	// The directory that go test builds in is its user's alone.
	self := filepath.Join(dir, "test")
	if err := errors.Join(copyProgram(self), os.Chown(dir, int(uid), int(uid))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// reachable is the directory for temporary files, or /tmp when others than root
// cannot get there.
func reachable(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{os.TempDir(), "/tmp"} {
		open := true
		for at := filepath.Clean(dir); open && at != "/"; at = filepath.Dir(at) {
			info, err := os.Stat(at)
			open = err == nil && info.Mode()&0o001 != 0
		}
		if open {
			return dir
		}
	}
	t.Fatalf("no directory for temporary files is open to all users: %s, /tmp", os.TempDir())
	return ""
}

// Copy puts the running test binary under another name, as a program that others cannot
// change, for tests in which it plays that program. It is gone after the test.
func Copy(t testing.TB, name string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), copyProgram(path)); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

// copyProgram writes what is about to be executed. A process that a test beside it starts
// meanwhile would have the file open for writing until its own exec (golang.org/issue/22315).
func copyProgram(to string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
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
