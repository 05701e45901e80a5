package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// limitOfCores is the line of /proc/PID/limits about core files.
func limitOfCores(t *testing.T, pid int) string {
	t.Helper()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	t.Fatalf("no limit of core files among\n%s", limits)
	return ""
}

// withCores makes a command run in dir, where it may leave a core file of any size.
func withCores(cmd *exec.Cmd, dir string) {
	cmd.Args = append([]string{"sh", "-c", `ulimit -c unlimited && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	cmd.Dir = dir
}

// coresIn are the core files in dir.
func coresIn(t *testing.T, dir string) (paths []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*core*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// controlCore has a shell abort with the secret in its memory, as a daemon is aborted,
// and returns its core file; "" where this machine puts them somewhere else.
func controlCore(t *testing.T, secret string) string {
	t.Helper()
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	if p := strings.TrimSpace(string(pattern)); strings.ContainsAny(p[:1], "|/") || !strings.Contains(p, "core") {
		t.Logf("the control of core files is left out: core_pattern is %s", p)
		return ""
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "kill -s ABRT $$")
	cmd.Env = []string{"SECRET=" + secret}
	withCores(cmd, dir)
	err = cmd.Run()
	failed, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatal(err)
	}
	status, _ := failed.Sys().(syscall.WaitStatus)
	if !status.CoreDump() {
		t.Logf("the control of core files is left out: this machine makes none (%v)", failed)
		return ""
	}
	cores := coresIn(t, dir)
	if len(cores) != 1 {
		t.Fatalf("the control left %v", cores)
	}
	return cores[0]
}

// Only somebody without root's rights can see what is closed.
func TestNobodyReadsTheMemoryOfTheDaemon(t *testing.T) {
	t.Parallel()
	if testhost.AsUser(t) {
		return
	}
	c := newCage(t, 0, "")
	p := c.up()
	c.await("the plugin to be ready", func() bool { return c.plugin("ordered").State == rest.PluginReady })
	for _, name := range []string{"mem", "environ", "maps"} {
		path := fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name)
		if _, err := os.ReadFile(path); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s can be opened: %v", path, err)
		}
	}
	other := exec.CommandContext(t.Context(), "sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	// A process that has just been executed shows none for a moment.
	until(t, "the environment of another process of ours, the control", func() bool {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", other.Process.Pid))
		return err == nil && len(environ) > 0
	})

	if got := limitOfCores(t, p.cmd.Process.Pid); got != "0 0 bytes" {
		t.Errorf("the daemon's limit of core files is %s", got)
	}
	plugins := 0
	for pid, one := range c.creatures() {
		if !strings.HasPrefix(one.name, "peanuts-sink-"+zoo.Name("")) {
			continue
		}
		plugins++
		if got := limitOfCores(t, pid); got != "0 0 bytes" {
			t.Errorf("the limit of core files of %s is %s", one.name, got)
		}
		adj, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/oom_score_adj")
		if err != nil || string(bytes.TrimSpace(adj)) != "500" {
			t.Errorf("the oom_score_adj of %s is %q, %v", one.name, adj, err)
		}
	}
	if plugins == 0 {
		t.Error("no plugin was found")
	}
	p.stop()
}
