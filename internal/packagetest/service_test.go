package packagetest

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// The manager of services says what became of a reload, by the status of its command.
func TestSystemctlReloadFailsForABrokenFileAndTheServiceGoesOn(t *testing.T) {
	m := boot(t)
	startReceiver(m)
	pid := m.Property("MainPID")
	const more = "/etc/peanuts-relay/conf.d/20-more.yaml"
	for _, broken := range []string{"helpers: {expenses: {webhoks: {}}}\n", "helpers: [\n", "helpers: {expenses: {secret: '${file:/none}'}}\n"} {
		m.Put(more, broken, 0o644)
		if said, status := m.Try("systemctl", "reload", Service); status == 0 {
			t.Errorf("a reload of %q succeeded: %s", broken, said)
		}
		says(t, m.Run("systemctl", "status", "--no-pager", Service), "Active: active (running)", "rejected", "status=78")
		m.Put(more, "helpers: {expenses: {name: Expenses}}\n", 0o644)
		m.Run("systemctl", "reload", Service)
		if now := m.Property("MainPID"); now != pid {
			t.Errorf("the process %s became %s", pid, now)
		}
	}
	says(t, m.Run("peanuts-relay", "status"), "state       ok")
	if err := send(m, "evt_after"); err != nil {
		t.Error(err)
	}
	b := book{accepted: []string{"evt_after"}}
	lost := missing(t, m, b)
	if len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
	testhost.Cases(t, 6)
	testhost.Account(t, len(b.accepted), len(lost))
}

// rounds is how often the service is restarted, killed or stopped.
func rounds(t *testing.T) int {
	t.Helper()
	const variable = "PACKAGE_RESTARTS"
	text := os.Getenv(variable)
	if text == "" {
		return 2
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number above 0", variable, text)
	}
	return n
}

// restarts restarts the service, under load.
func restarts(t *testing.T, m *Machine) (b book, times int) {
	t.Helper()
	times = rounds(t)
	sending := load(m)
	defer sending.end()
	for range times {
		sending.goOn(t)
		m.Run("systemctl", "restart", Service)
	}
	sending.goOn(t)
	return sending.stop(), times
}

// What connects while nobody is there waits in the socket, which is the manager's.
func TestARestartUnderLoadRefusesAndLosesNothing(t *testing.T) {
	m := boot(t)
	startReceiver(m)
	b, times := restarts(t, m)
	lost := missing(t, m, b)
	if len(b.refused) > 0 || len(lost) > 0 || len(b.accepted) < times {
		t.Errorf("%d accepted, %d refused, %d lost: %.2000q %.2000q", len(b.accepted), len(b.refused), len(lost), b.refused, lost)
	}
	t.Logf("%d restarts, %d events accepted", times, len(b.accepted))
	testhost.Cases(t, times)
	testhost.Account(t, len(b.accepted), len(lost))
}

// The control: a daemon that has a socket of its own is not there for a moment.
func TestWithoutTheSocketUnitARestartRefuses(t *testing.T) {
	m := boot(t)
	startReceiver(m)
	m.Run("systemctl", "stop", Service, "peanuts-relay.socket")
	m.Run("systemctl", "mask", "peanuts-relay.socket")
	m.Run("systemctl", "start", Service)
	b, times := restarts(t, m)
	if len(b.refused) == 0 {
		t.Errorf("%d events during %d restarts, and none was refused: nothing of the test above can fail", len(b.accepted), times)
	}
	if lost := missing(t, m, b); len(lost) > 0 {
		t.Errorf("lost although accepted: %v", lost)
	}
	testhost.Cases(t, times)
}

// awaitSuccessor waits until another process than pid is the daemon, and ready.
func (m *Machine) awaitSuccessor(pid string) {
	m.t.Helper()
	if !until(func() bool {
		now := m.Property("MainPID")
		return now != "0" && now != pid && m.Property("ActiveState") == "active"
	}) {
		m.t.Fatalf("process %s has no successor:\n%s", pid, m.Run("systemctl", "status", "--no-pager", Service))
	}
}

// A process that is killed is started again at once, and goes on with what it had.
func TestAKilledDaemonIsStartedAgainUnderLoad(t *testing.T) {
	m := boot(t)
	startReceiver(m)
	times := rounds(t)
	sending := load(m)
	defer sending.end()
	for range times {
		sending.goOn(t)
		pid := m.Property("MainPID")
		m.Run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", Service)
		m.awaitSuccessor(pid)
	}
	sending.goOn(t)
	b := sending.stop()
	lost := missing(t, m, b)
	if len(lost) > 0 {
		t.Errorf("%d accepted, %d lost: %.2000q", len(b.accepted), len(lost), lost)
	}
	// An event under way when the process dies has no answer: its sender, one of four, knows
	// nothing of it.
	if len(b.refused) > 4*times {
		t.Errorf("%d kills refused %d events: %.2000q", times, len(b.refused), b.refused)
	}
	if n := m.Property("NRestarts"); n == "0" {
		t.Error("the service manager counts no restart")
	}
	testhost.Cases(t, times)
	testhost.Account(t, len(b.accepted), len(lost))
}

// A process that does not move is noticed by the watchdog.
func TestAStoppedDaemonIsRestartedByTheWatchdog(t *testing.T) {
	m := boot(t)
	m.Put("/etc/systemd/system/peanuts-relay.service.d/fast.conf", "[Service]\nWatchdogSec=3s\n", 0o644)
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "restart", Service)
	startReceiver(m)
	var b book
	times := rounds(t)
	for n := range times {
		id := fmt.Sprintf("evt_%d", n)
		if err := send(m, id); err != nil {
			t.Fatal(err)
		}
		b.accepted = append(b.accepted, id)
		pid := m.Property("MainPID")
		m.Run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", Service)
		m.awaitSuccessor(pid)
		if got := m.Property("NRestarts"); got != strconv.Itoa(n+1) {
			t.Errorf("%s restarts, want %d", got, n+1)
		}
	}
	says(t, m.Run("journalctl", "--no-pager", "--unit", Service), "Watchdog timeout")
	lost := missing(t, m, b)
	if len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
	testhost.Cases(t, times)
	testhost.Account(t, len(b.accepted), len(lost))
}
