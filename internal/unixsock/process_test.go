package unixsock

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// childListen reports on stdout, holds the socket until stdin ends and accepts
// what comes.
func childListen(o Options) int {
	l, err := Listen(os.Getenv("UNIXSOCK_TEST_PATH"), o)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("listening", l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "child "+os.Getenv("LISTEN_FDS")+"\n")
			c.Close()
		}
	}()
	io.Copy(io.Discard, os.Stdin)
	l.Close()
	return 0
}

type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   io.Reader
	line  string // first line of its stdout
}

// startChild starts a child and waits until it said how it went.
func startChild(t *testing.T, role, path string, files []*os.File, env ...string) *child {
	t.Helper()
	c := launchChild(t, role, path, files, env...)
	c.report(t)
	return c
}

func (c *child) report(t *testing.T) {
	t.Helper()
	line, err := bufio.NewReader(c.out).ReadString('\n')
	if err != nil {
		t.Fatalf("child said nothing: %v", err)
	}
	c.line = strings.TrimSpace(line)
}

func launchChild(t *testing.T, role, path string, files []*os.File, env ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "UNIXSOCK_TEST_ROLE="+role, "UNIXSOCK_TEST_PATH="+path)...)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	return &child{cmd: cmd, stdin: in, out: out}
}

func TestLiveSocketIsRefusedNamingItsProcess(t *testing.T) {
	path := sockPath(t)
	c := startChild(t, "listen", path, nil)
	if c.line != "listening "+path {
		t.Fatal(c.line)
	}
	_, err := Listen(path, Options{})
	in, ok := errors.AsType[*InUseError](err)
	if !ok || int(in.PID) != c.cmd.Process.Pid || !strings.Contains(err.Error(), "process "+strconv.Itoa(c.cmd.Process.Pid)) {
		t.Fatalf("error %v, want one that names process %d", err, c.cmd.Process.Pid)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the refused Listen harmed the live socket: %v", err)
	}
	conn.Close()
}

func TestSocketOfAKilledProcessIsStale(t *testing.T) {
	path := sockPath(t)
	c := startChild(t, "listen", path, nil)
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.cmd.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("the killed process took its socket along: %v", err)
	}
	mustListen(t, path, Options{})
}

// Many start on one stale path at once, in one process and in several: one
// wins, the others are told so, and the winner's socket works.
func TestOfManyThatStartAtOnceExactlyOneWins(t *testing.T) {
	path := sockPath(t)
	for range 20 {
		stale(t, path)
		const rivals = 8
		start := make(chan struct{})
		results := make(chan error, rivals)
		listeners := make(chan net.Listener, rivals)
		for range rivals {
			go func() {
				<-start
				l, err := Listen(path, Options{})
				if err == nil {
					listeners <- l
				}
				results <- err
			}()
		}
		close(start)
		won := 0
		for range rivals {
			err := <-results
			if err == nil {
				won++
			} else if _, ok := errors.AsType[*InUseError](err); !ok {
				t.Errorf("a loser got %v", err)
			}
		}
		if won != 1 {
			t.Fatalf("%d won", won)
		}
		l := <-listeners
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("the winner's socket does not work: %v", err)
		}
		c.Close()
		l.Close()
	}

	stale(t, path)
	var children []*child
	for range 3 {
		children = append(children, launchChild(t, "listen", path, nil))
	}
	won := 0
	for _, c := range children {
		c.report(t)
		if strings.HasPrefix(c.line, "listening") {
			won++
		} else if !strings.Contains(c.line, "listens there") {
			t.Errorf("a loser got %q", c.line)
		}
	}
	if won != 1 {
		t.Errorf("%d processes won", won)
	}
}

func TestActivation(t *testing.T) {
	path := sockPath(t)
	unit, err := net.Listen("unix", path) // the service manager's
	if err != nil {
		t.Fatal(err)
	}
	defer unit.Close()
	f, err := unit.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	t.Run("by name", func(t *testing.T) {
		c := startChild(t, "activated", path, []*os.File{f, f}, "LISTEN_FDS=2", "LISTEN_FDNAMES=other:events", "UNIXSOCK_TEST_NAME=events")
		if c.line != "listening "+path {
			t.Fatal(c.line)
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The child answers, and the variables are gone for its own children.
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "child \n" {
			t.Fatalf("got %q, %v", line, err)
		}
		c.stdin.Close()
		if err := c.cmd.Wait(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the child removed the service manager's socket: %v", err)
		}
	})
	t.Run("unknown name binds the path", func(t *testing.T) {
		own := sockPath(t)
		c := startChild(t, "activated", own, []*os.File{f}, "LISTEN_FDS=1", "LISTEN_FDNAMES=other", "UNIXSOCK_TEST_NAME=events")
		if c.line != "listening "+own {
			t.Fatal(c.line)
		}
	})
	t.Run("descriptors of another process", func(t *testing.T) {
		own := sockPath(t)
		c := startChild(t, "listen", own, []*os.File{f}, "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=events", "UNIXSOCK_TEST_NAME=events")
		if c.line != "listening "+own {
			t.Fatal(c.line)
		}
	})
	t.Run("one name twice", func(t *testing.T) {
		c := startChild(t, "activated", path, []*os.File{f, f}, "LISTEN_FDS=2", "LISTEN_FDNAMES=events:events", "UNIXSOCK_TEST_NAME=events")
		if !strings.Contains(c.line, `two sockets are named "events"`) {
			t.Fatal(c.line)
		}
	})
	t.Run("a file that is no socket", func(t *testing.T) {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		c := startChild(t, "activated", path, []*os.File{null}, "LISTEN_FDS=1", "LISTEN_FDNAMES=events", "UNIXSOCK_TEST_NAME=events")
		if !strings.Contains(c.line, `error socket activation: use the descriptor named "events"`) {
			t.Fatal(c.line)
		}
	})
	t.Run("a TCP socket", func(t *testing.T) {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		tf, err := tcp.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer tf.Close()
		c := startChild(t, "activated", path, []*os.File{tf}, "LISTEN_FDS=1", "LISTEN_FDNAMES=events", "UNIXSOCK_TEST_NAME=events")
		if !strings.Contains(c.line, "want a unix stream socket") {
			t.Fatal(c.line)
		}
	})
}
