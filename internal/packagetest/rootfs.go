package packagetest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// bootstrap are the arguments that make the file system, without the directory at the
// end. What is beyond systemd is what the package depends on, and what its pages use.
func bootstrap() []string {
	return []string{
		"--quiet", "--variant=minbase", "--include=systemd,systemd-sysv,ca-certificates,curl,openssl,sudo",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "bookworm",
	}
}

// cacheDir is where the file system is kept, and where those over it are.
func cacheDir(t testing.TB) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "peanuts-relay-tests")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// locked holds a lock of the cache while f runs, against other test processes.
func locked(t testing.TB, cache string, f func()) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(cache, "machines.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() // and with it the lock is free
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	f()
}

// rootfs is the file system that all machines start from. It is made by whoever comes
// first, in a minute and 200 MB, and never changed; another content, as bootstrap says it,
// is another directory. The caller holds the lock.
func rootfs(t testing.TB, cache string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(strings.Join(bootstrap(), "\x00")))
	final := filepath.Join(cache, "rootfs-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(final); !errors.Is(err, fs.ErrNotExist) {
		return final
	}
	work := final + ".making"
	if err := os.RemoveAll(work); err != nil { // of one that was killed
		t.Fatal(err)
	}
	cmd := exec.Command(testhost.Program(t, "mmdebstrap"), append(bootstrap(), work)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(work)
		testhost.Missing(t, "no file system for a machine: mmdebstrap: %v\n%s", err, out)
	}
	if err := os.Rename(work, final); err != nil {
		t.Fatal(err)
	}
	return final
}

// machineDir is a directory for one machine, on the same file system as rootfs, whatever
// that of temporary files is. It is removed when the test ends; if that is killed, by the
// next one that comes here. The caller holds the lock.
func machineDir(t testing.TB, cache string) string {
	t.Helper()
	former, err := filepath.Glob(filepath.Join(cache, "machine-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range former {
		if d, err := os.Open(dir); err == nil {
			if unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil { // nobody has it any more
				os.RemoveAll(dir)
			}
			d.Close()
		}
	}
	dir, err := os.MkdirTemp(cache, "machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	mine, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mine.Close() })
	if err := unix.Flock(int(mine.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
