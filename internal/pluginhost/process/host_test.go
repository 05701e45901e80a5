package process_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// hostName is what this binary is called when it is a host that will be killed. Its
// arguments are a socket directory and plugins.
const hostName = "process-test-host"

// playHost starts plugins, says their numbers, and waits to be killed.
func playHost() {
	if os.Args[0] != hostName {
		return
	}
	var pids []string
	for _, path := range os.Args[2:] {
		p, err := process.Start(context.Background(), process.Options{Sink: "zoo", Path: path, SocketDir: os.Args[1], Limits: process.Limits{Start: patience}})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		pids = append(pids, strconv.Itoa(p.PID()))
	}
	fmt.Println("started", strings.Join(pids, " "))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// host runs such a host until its plugins have started.
func host(t *testing.T, sockets string, behaviours ...string) (cmd *exec.Cmd, pids []int) {
	t.Helper()
	dir := t.TempDir()
	cmd = exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = []string{hostName, sockets}
	for _, b := range behaviours {
		cmd.Args = append(cmd.Args, zoo.Install(t, dir, b))
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != len(behaviours)+1 || words[0] != "started" {
		t.Fatalf("the host said %q, %v", line, err)
	}
	for _, w := range words[1:] {
		pid, err := strconv.Atoi(w)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return cmd, pids
}

// burdens are the plugins that are hardest to get rid of.
func burdens() []string {
	return []string{"healthy", "bare", "ignore-term", "grandchild", "fork-5", "escape", "hang-drain"}
}

func TestNothingOutlivesAHostThatIsKilled(t *testing.T) {
	k := keep(t)
	cmd, pids := host(t, k.sockets, burdens()...)
	// 7 plugins, 1 grandchild, 5 and 1 more.
	eventually(t, "all of them", func() bool { return len(marked(k.sockets)) == len(pids)+7 })
	// One of them is stopped: it can do nothing about its end.
	if err := syscall.Kill(pids[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, "the end of all processes", func() bool { return len(marked(k.sockets)) == 0 })
	eventually(t, "the end of all sockets", func() bool {
		left, err := filepath.Glob(k.sockets + "/*")
		return err == nil && len(left) == 0
	})
	t.Logf("clean %s after the host's SIGKILL", time.Since(killed).Round(time.Millisecond))
}

// TestWithoutItsGuardAGrandchildStays is what the test above would miss without guards,
// and what Sweep is for.
func TestWithoutItsGuardAGrandchildStays(t *testing.T) {
	k := keep(t)
	cmd, pids := host(t, k.sockets, "grandchild", "escape")
	eventually(t, "all of them", func() bool { return len(marked(k.sockets)) == len(pids)+2 })
	guards := 0
	for _, path := range glob(t, "/proc/[0-9]*/cmdline") {
		line, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(line), "peanuts-relay-guard\x00") || !strings.Contains(string(line), k.sockets) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		guards++
	}
	if guards != 2 {
		t.Fatalf("there were %d guards", guards)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, "the end of the plugins", func() bool { return !alive(pids[0]) && !alive(pids[1]) })
	if left := marked(k.sockets); len(left) != 2 {
		t.Errorf("there are %v left", left)
	}
	if n, err := process.Sweep(k.sockets); n != 2 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if left, err := filepath.Glob(k.sockets + "/*"); err != nil || len(left) > 0 {
		t.Errorf("sockets were left: %v, %v", left, err)
	}
	if n, err := process.Sweep(k.sockets); n != 0 || err != nil {
		t.Errorf("swept again: %d, %v", n, err)
	}
	if n, err := process.Sweep(filepath.Join(k.sockets, "none")); n != 0 || err != nil {
		t.Errorf("swept nothing: %d, %v", n, err)
	}
}
