package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// The test binary is also the child process of the tests that need a second
// process; the role comes by environment.
func TestMain(m *testing.M) {
	switch os.Getenv("UNIXSOCK_TEST_ROLE") {
	case "listen":
		os.Exit(childListen(Options{Activated: os.Getenv("UNIXSOCK_TEST_NAME")}))
	case "activated":
		// sd_listen_fds wants the pid of the process that uses the descriptors,
		// which a parent does not know before it forks.
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		os.Exit(childListen(Options{Activated: os.Getenv("UNIXSOCK_TEST_NAME")}))
	}
	goleak.VerifyTestMain(m)
}

func sockPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "s.sock")
}

func mustListen(t *testing.T, path string, o Options) net.Listener {
	t.Helper()
	l, err := Listen(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// stale leaves a socket file that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestModeIsExactlyWhatWasAsked(t *testing.T) {
	// The umask is the process's: no test of this package runs in parallel.
	for _, umask := range []int{0, 0o022, 0o077} {
		for _, mode := range []fs.FileMode{0, 0o600, 0o660, 0o666, 0o620} {
			t.Run(fmt.Sprintf("%#o umask %#o", uint32(mode), umask), func(t *testing.T) {
				path := sockPath(t)
				defer syscall.Umask(syscall.Umask(umask))
				mustListen(t, path, Options{Mode: mode})
				info, err := os.Lstat(path)
				if err != nil {
					t.Fatal(err)
				}
				want := mode
				if want == 0 {
					want = 0o600
				}
				if info.Mode() != want|fs.ModeSocket {
					t.Errorf("mode is %v, want %v", info.Mode(), want|fs.ModeSocket)
				}
			})
		}
	}
}

// A watcher that looks at the path all the time never sees a mode with more
// than was asked, under a umask that would allow everything.
func TestSocketIsNeverMoreOpenThanAsked(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := sockPath(t)
	stop, seen := make(chan struct{}), make(chan fs.FileMode, 1)
	var sights atomic.Int64
	go func() {
		var union fs.FileMode
		for {
			select {
			case <-stop:
				seen <- union
				return
			default:
				if info, err := os.Lstat(path); err == nil {
					union |= info.Mode().Perm()
					sights.Add(1)
				}
			}
		}
	}()
	// On one processor the watcher may sleep through any number of sockets.
	deadline := time.Now().Add(30 * time.Second)
	for i := 0; i < 300 || (sights.Load() < 50 && time.Now().Before(deadline)); i++ {
		o := Options{Mode: 0o620}
		if i%2 == 1 {
			o.Group = strconv.Itoa(os.Getegid())
		}
		l, err := Listen(path, o)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	close(stop)
	if union := <-seen; union&^0o620 != 0 || union == 0 {
		t.Errorf("modes seen add up to %#o, want some of 0620 and no more", uint32(union))
	}
}

// The birth mode itself: what the kernel makes of fchmod before bind.
func TestModeAtBirthNeedsNoUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := sockPath(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("this kernel ignores the mode of the socket's inode: %v", info.Mode())
	}
}

func TestGroupByNameAndNumber(t *testing.T) {
	gid := strconv.Itoa(os.Getegid())
	groups := []string{gid}
	if g, err := user.LookupGroupId(gid); err == nil {
		groups = append(groups, g.Name)
	}
	if os.Geteuid() == 0 {
		groups = append(groups, "12345") // need not exist
	}
	for _, g := range groups {
		path := sockPath(t)
		mustListen(t, path, Options{Mode: 0o660, Group: g})
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		want := uint32(os.Getegid())
		if g == "12345" {
			want = 12345
		}
		if st.Gid != want || st.Mode&0o777 != 0o660 {
			t.Errorf("group %q: gid %d mode %#o, want %d 0660", g, st.Gid, st.Mode&0o777, want)
		}
	}
}

func TestGroupOfOthersIsRefusedAndLeavesNothing(t *testing.T) {
	if testhost.AsUser(t) {
		return // root may give a file to any group
	}
	path := sockPath(t)
	if _, err := Listen(path, Options{Group: "0"}); err == nil || !strings.Contains(err.Error(), "must be root or a member") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a half-made socket stayed: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	file := write("file")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "s"), link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", MaxPathLen+1-len(dir)-1))
	rows := []struct {
		name, path, want string
		o                Options
	}{
		{"empty path", "", "the path is empty", Options{}},
		{"abstract", "@relay", "abstract sockets", Options{}},
		{"NUL", dir + "/a\x00b", "NUL bytes", Options{}},
		{"108 bytes", long, "has 108 bytes, a unix socket's may have 107", Options{}},
		{"missing directories", dir + "/no/such/s", "directory " + dir + "/no does not exist", Options{}},
		{"directory is a file", file + "/s", "not a directory", Options{}},
		{"file", file, "a regular file is there, not a socket", Options{}},
		{"directory", dir, "a directory is there", Options{}},
		{"link", link, "a symbolic link is there", Options{}},
		{"fifo", fifo, "a named pipe is there", Options{}},
		{"mode", dir + "/s", "more than permission bits", Options{Mode: fs.ModeSetuid | 0o600}},
		{"group", dir + "/s", `group "no-such-group" does not exist`, Options{Group: "no-such-group"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			l, err := Listen(r.path, r.o)
			if err == nil {
				l.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), r.want) || !strings.HasPrefix(err.Error(), "listen on ") {
				t.Errorf("error %q, want %q in it", err, r.want)
			}
		})
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file at the path was touched: %q, %v", b, err)
	}
	if _, err := os.Lstat(link); err != nil {
		t.Errorf("the link at the path was touched: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "s")); err == nil {
		t.Error("a refused Listen left a socket")
	}
}

func TestLongestPathWorks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("x", MaxPathLen-len(dir)-1))
	mustListen(t, path, Options{})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := sockPath(t)
	stale(t, path)
	mustListen(t, path, Options{})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestBusyOrForeignSocketsAreNotTakenForStale(t *testing.T) {
	t.Run("full backlog", func(t *testing.T) {
		path := sockPath(t)
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
			t.Fatal(err)
		}
		for range 3 { // nobody accepts
			c, err := net.DialTimeout("unix", path, time.Second)
			if err != nil {
				break
			}
			defer c.Close()
		}
		assertInUse(t, path)
	})
	t.Run("datagram", func(t *testing.T) {
		path := sockPath(t)
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		assertInUse(t, path)
	})
}

func assertInUse(t *testing.T, path string) {
	t.Helper()
	l, err := Listen(path, Options{})
	if err == nil {
		l.Close()
	}
	if _, ok := errors.AsType[*InUseError](err); !ok {
		t.Errorf("error %v, want in use", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket is gone: %v", err)
	}
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	path := sockPath(t)
	l := mustListen(t, path, Options{})
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the socket stayed after Close: %v", err)
	}

	l = mustListen(t, path, Options{})
	if err := os.Remove(path); err != nil { // an operator's rm
		t.Fatal(err)
	}
	second := mustListen(t, path, Options{})
	l.Close()
	l.Close() // again is harmless
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("closing the first listener removed the second one's socket: %v", err)
	}
	c.Close()
	second.Close()
}

func TestCloseAfterTheDirectoryWentAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := mustListen(t, filepath.Join(dir, "s"), Options{})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

func TestPeerCred(t *testing.T) {
	path := sockPath(t)
	l := mustListen(t, path, Options{})
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{server, wrapped{wrapped{server}}, client} {
		pid, uid, gid, err := PeerCred(c)
		if err != nil || int(pid) != os.Getpid() || int(uid) != os.Geteuid() || int(gid) != os.Getegid() {
			t.Errorf("%T: pid %d uid %d gid %d, %v", c, pid, uid, gid, err)
		}
	}
	server.Close()
	if _, _, _, err := PeerCred(server); err == nil {
		t.Error("a closed connection has credentials")
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, _, _, err := PeerCred(a); err == nil {
		t.Error("a pipe has credentials")
	}
}

// After a boot /run and $XDG_RUNTIME_DIR are empty.
func TestTheDirectoryOfTheSocketIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "peanuts-relay")
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	for range 2 { // it stays
		l, err := Listen(filepath.Join(dir, "s"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|0o755 {
			t.Fatalf("%v, %v", info, err)
		}
	}
}
