//go:build linux

package testhost

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownNetwork names, in the environment of a process with a network of its own, the
// test that it runs.
const ownNetwork = "PEANUTS_TEST_OWN_NETWORK"

// OwnNetwork runs the calling test once more in a process whose network is its own
// and has a loopback interface only: nothing from there reaches this machine or any
// other. It reports true when it did, and takes over what that test reported with
// Attr; in the other process it reports false, and the test goes on there. Without
// root's rights the test is skipped.
func OwnNetwork(t *testing.T) (done bool) {
	t.Helper()
	if os.Getenv(ownNetwork) == t.Name() {
		Run(t, "ip", "link", "set", "lo", "up")
		return false
	}
	if os.Geteuid() != 0 {
		t.Skip("a network of its own needs root")
	}
	Program(t, "ip")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	args := []string{"-test.v", "-test.run=^" + regexp.QuoteMeta(t.Name()) + "$"}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(end.Add(-time.Second)).String())
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), ownNetwork+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		Missing(t, "no network of its own: %v", err)
	}
	err = cmd.Wait()
	var said strings.Builder
	attr := regexp.MustCompile(`^=== ATTR  ` + regexp.QuoteMeta(t.Name()) + `(?:/\S*)? (\S+) (.*)$`)
	for line := range strings.Lines(out.String()) {
		if found := attr.FindStringSubmatch(strings.TrimSuffix(line, "\n")); found != nil {
			t.Attr(found[1], found[2])
		}
		if !strings.HasPrefix(line, "=== ") {
			said.WriteString(line)
		}
	}
	switch skipped := regexp.MustCompile(`(?m)^\s*\S+: (.*)\n--- SKIP: ` + t.Name()).FindStringSubmatch(out.String()); {
	case err == nil && skipped != nil:
		t.Skip(skipped[1])
	case err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()):
		t.Errorf("in a network of its own: %v\n%s", err, said.String())
	default:
		t.Log(said.String())
	}
	return true
}

// Run runs a program, which has to succeed, and returns what it said.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(Program(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
