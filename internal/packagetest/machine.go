package packagetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// Patience is how long anything may take that a test waits for.
const Patience = 90 * time.Second

// Machine is one that runs. Its methods end the test when it is not there any more.
type Machine struct {
	t      testing.TB
	leader int           // its first process, as seen from outside
	ended  chan struct{} // closed when that is gone
	said   *bytes.Buffer // by whoever started it; read after ended
}

// start makes the control groups and mounts of a machine and becomes its supervisor. The
// mounts and processes are in namespaces of their own, so that nothing is left of them when
// the supervisor, whose process is the first of its namespace, is killed. Without a control
// group of its own a machine would share those of its services with every other one.
const start = `set -e
name=$1 lower=$2 dir=$3
for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
  [ -d $hierarchy ] || continue
  mkdir $hierarchy/$name
  echo $$ >$hierarchy/$name/cgroup.procs
done
if [ -d /sys/fs/cgroup/systemd ]; then
  export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=0
fi
mount -t overlay overlay -o lowerdir="$lower",upperdir="$dir/upper",workdir="$dir/work" "$dir/root"
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --boot --console=pipe \
  --machine="$name" --hostname=relay --directory="$dir/root"
`

// Boot starts a machine, which ends with the test.
func Boot(t testing.TB) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a machine in a container needs root")
	}
	for _, program := range []string{"systemd-nspawn", "nsenter", "unshare", "mount"} {
		testhost.Program(t, program)
	}
	cache := cacheDir(t)
	var lower, dir string
	locked(t, cache, func() { lower, dir = rootfs(t, cache), machineDir(t, cache) })
	name := "peanuts-" + strings.TrimPrefix(filepath.Base(dir), "machine-") + "-" + strconv.Itoa(os.Getpid())
	m := &Machine{t: t, ended: make(chan struct{}), said: new(bytes.Buffer)}
	cmd := exec.Command("unshare", "--mount", "--pid", "--mount-proc", "--kill-child=KILL", "sh", "-c", start, "sh", name, lower, dir)
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = m.said, m.said
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // what it said is the reason
		close(m.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it takes the supervisor along, and that the machine
		<-m.ended
		if !removeGroups(name) {
			t.Errorf("the control groups of %s are still in use", name)
		}
	})
	m.awaitStart(cmd.Process.Pid)
	return m
}

// environment is that of every command in a machine.
func environment() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive"}
}

// until asks until ok says yes, and reports whether it did within Patience.
func until(ok func() bool) bool {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(Patience); !ok(); <-again.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// awaitStart waits until systemd has started what it starts.
func (m *Machine) awaitStart(parent int) {
	m.t.Helper()
	if !until(func() bool {
		select {
		case <-m.ended:
			testhost.Missing(m.t, "no container boots here: %s", bytes.TrimSpace(m.said.Bytes()))
		default:
		}
		for _, supervisor := range children(parent) {
			// Its children are the machine's first process and, for a moment, what makes that.
			for _, m.leader = range children(supervisor) {
				if state, _ := m.Try("systemctl", "is-system-running"); state == "running\n" || state == "degraded\n" {
					return true
				}
			}
		}
		return false
	}) {
		testhost.Missing(m.t, "no container boots here: systemd has not started after %s", Patience)
	}
}

// children are the processes that a process has started; none when it is gone.
func children(pid int) (list []int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	for field := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			list = append(list, child)
		}
	}
	return list
}

// removeGroups removes the control groups of a machine, the innermost first, as soon as its
// last process is gone. It reports whether it could.
func removeGroups(name string) bool {
	return until(func() bool {
		var dirs []string
		for _, hierarchy := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"} {
			_ = filepath.WalkDir(filepath.Join(hierarchy, name), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil // one that is gone is what is wanted
			})
		}
		for _, dir := range slices.Backward(dirs) {
			_ = os.Remove(dir)
		}
		return len(dirs) == 0
	})
}

// Try runs a command as root of the machine and returns what it said, on both streams,
// and its exit status.
func (m *Machine) Try(command ...string) (said string, status int) {
	m.t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.leader),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wdns=/root", "--"}, command...)...)
	cmd.Env = environment()
	cmd.WaitDelay = Patience
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	limit := time.AfterFunc(Patience, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !limit.Stop() {
		m.t.Fatalf("%s: not done after %s\n%s", strings.Join(command, " "), Patience, out.String())
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), exit.ExitCode()
	}
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out.String())
	}
	return out.String(), 0
}

// Run runs a command, which has to succeed, and returns what it said.
func (m *Machine) Run(command ...string) string {
	m.t.Helper()
	said, status := m.Try(command...)
	if status != 0 {
		m.t.Fatalf("%s: exit status %d\n%s", strings.Join(command, " "), status, said)
	}
	return said
}

// Path is where a file of the machine is for this process: its sockets, too.
func (m *Machine) Path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(m.leader), "root", name)
}

// Put writes a file of root into the machine, and the directories that it is in.
func (m *Machine) Put(name, text string, mode os.FileMode) {
	m.t.Helper()
	path := m.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		m.t.Fatal(err)
	}
}

// Eventually waits until a command's output has this text and returns it.
func (m *Machine) Eventually(text string, command ...string) string {
	m.t.Helper()
	said := ""
	if !until(func() bool {
		said, _ = m.Try(command...)
		return strings.Contains(said, text)
	}) {
		journal, _ := m.Try("journalctl", "--no-pager", "--lines=40")
		m.t.Fatalf("%s: %q is not there after %s:\n%s\n%s", strings.Join(command, " "), text, Patience, said, journal)
	}
	return said
}

// Property is one of the service, such as MainPID.
func (m *Machine) Property(name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.Run("systemctl", "show", "--value", "--property="+name, Service))
}

// Service is the unit of the daemon.
const Service = "peanuts-relay.service"
