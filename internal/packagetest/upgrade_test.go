package packagetest

import (
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/docstest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// version is that of the process that runs.
func version(t *testing.T, m *Machine) string {
	t.Helper()
	for line := range strings.Lines(m.Run("peanuts-relay", "status")) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "version" {
			return fields[1]
		}
	}
	t.Fatal("status does not say which version runs")
	return ""
}

// An upgrade is a restart: who sends meanwhile waits, and nothing is refused or lost.
func TestAnUpgradeUnderLoadRefusesAndLosesNothing(t *testing.T) {
	m := boot(t)
	startReceiver(m)
	deb, _ := files(t, nextVersion)
	next := upload(t, m, deb)
	sending := load(m)
	defer sending.end()
	sending.goOn(t)
	said := apt(m, "install", next)
	if got := version(t, m); got != nextVersion {
		t.Errorf("%s runs after the upgrade, want %s\n%s", got, nextVersion, said)
	}
	sending.goOn(t)
	b := sending.stop()
	lost := missing(t, m, b)
	if len(b.refused) > 0 || len(lost) > 0 || len(b.accepted) == 0 {
		t.Errorf("%d accepted, %d refused, %d lost: %.2000q %.2000q", len(b.accepted), len(b.refused), len(lost), b.refused, lost)
	}
	t.Logf("%d events accepted during the upgrade", len(b.accepted))
	testhost.Cases(t, 1)
	testhost.Account(t, len(b.accepted), len(lost))
}

// A version that cannot run the configuration does not stop the one that can.
func TestAnUpgradeIntoAnInvalidConfigurationLeavesTheOldProcess(t *testing.T) {
	m := boot(t)
	startReceiver(m)
	pid := m.Property("MainPID")
	const broken = "/etc/peanuts-relay/conf.d/20-broken.yaml"
	m.Put(broken, "helpers: {expenses: {webhoks: {}}}\n", 0o644)

	said := install(t, m, nextVersion)
	page := docstest.Page(t, "upgrading.md")
	message, correct := blocks(page, "text"), blocks(page, "sh")
	if len(message) != 1 || len(correct) < 2 {
		t.Fatalf("the page has %d messages and %d commands", len(message), len(correct))
	}
	for line := range strings.Lines(message[0]) {
		says(t, said, line)
	}
	says(t, said, strings.TrimSpace(correct[1]))
	says(t, m.Run("dpkg-query", "--show", "--showformat=${Status} ${Version}", "peanuts-relay"), "install ok installed 1.1.0")
	if now := m.Property("MainPID"); now != pid {
		t.Errorf("the process %s became %s", pid, now)
	}
	if got := version(t, m); got != formerVersion {
		t.Errorf("%s runs, want %s", got, formerVersion)
	}
	var b book
	for _, id := range []string{"evt_meanwhile", "evt_afterwards"} {
		if err := send(m, id); err != nil {
			t.Error(err)
		}
		b.accepted = append(b.accepted, id)
		if id == "evt_meanwhile" { // then what the message says
			m.Run("rm", broken)
			m.Run("sh", "-ec", correct[1])
		}
	}
	if got := version(t, m); got != nextVersion {
		t.Errorf("%s runs after the correction, want %s", got, nextVersion)
	}
	lost := missing(t, m, b)
	if len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
	testhost.Cases(t, 1)
	testhost.Account(t, len(b.accepted), len(lost))
}

// The check before an upgrade sees what the service sees: its variables, its credentials,
// the files of its groups, and nothing of whoever runs apt.
func TestTheCheckOfAnUpgradeSeesWhatTheServiceSees(t *testing.T) {
	m := boot(t)
	m.Put("/root/of-the-service", secret, 0o600)
	m.Put("/etc/team.secret", secret, 0o640)
	m.Run("groupadd", "team")
	m.Run("chgrp", "team", "/etc/team.secret")
	m.Put("/etc/systemd/system/peanuts-relay.service.d/more.conf", "[Service]\nEnvironment=NAME=Expenses\nLoadCredential=mine:/root/of-the-service\nSupplementaryGroups=team\n", 0o644)
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "restart", Service)
	m.Put("/etc/peanuts-relay/conf.d/20-more.yaml",
		"helpers: {expenses: {name: '${env:NAME}', webhooks: {second: {url: 'http://127.0.0.1:9000/', secrets: ['${cred:mine}', '${file:/etc/team.secret}x']}}}}\n", 0o644)
	m.Run("systemctl", "reload", Service)
	if said, status := m.Try("sudo", "-u", "peanuts-relay", "peanuts-relay", "check"); status != 78 {
		t.Fatalf("without what the service has, check ends with %d: this test cannot fail\n%s", status, said)
	}
	if said := install(t, m, nextVersion); strings.Contains(said, "NOT restarted") {
		t.Errorf("the check sees less than the service:\n%s", said)
	}
	if got := version(t, m); got != nextVersion {
		t.Errorf("%s runs, want %s", got, nextVersion)
	}
	// A file that the new process could not read, although root can.
	pid := m.Property("MainPID")
	next, _ := files(t, nextVersion)
	m.Run("chgrp", "root", "/etc/team.secret")
	if said := apt(m, "install", "--reinstall", upload(t, m, next)); !strings.Contains(said, "NOT restarted") || m.Property("MainPID") != pid {
		t.Errorf("the check sees more than the service:\n%s", said)
	}
	testhost.Cases(t, 2)
}

// A version that does not know the format of the queue leaves it alone, and is not started
// for ever; the newer one goes on with everything.
func TestADowngradeThatCannotReadTheQueueIsRefused(t *testing.T) {
	m := boot(t)
	if err := send(m, "evt_before"); err != nil {
		t.Fatal(err)
	}
	install(t, m, nextVersion)
	m.Run("systemctl", "stop", Service, "peanuts-relay.socket")
	const format = "/var/lib/peanuts-relay/FORMAT"
	as := m.Run("cat", format)
	m.Run("sed", "-i", `s/"format":[0-9]*/"format":1000/`, format) // as a version to come would
	said := apt(m, "install", "--allow-downgrades", "/root/peanuts-relay_1.0.0_"+strings.TrimSpace(m.Run("dpkg", "--print-architecture"))+".deb")
	says(t, said, "the service is not running; systemctl status peanuts-relay says why")
	says(t, m.Run("journalctl", "--no-pager", "--unit", Service), "format 1000 is newer than the format", "status=65")
	if n := m.Property("NRestarts"); n != "0" {
		t.Errorf("it was started again %s times", n)
	}
	m.Put(format, as, 0o600) // the newer version reads what it wrote
	install(t, m, nextVersion)
	startReceiver(m)
	b := book{accepted: []string{"evt_before"}}
	lost := missing(t, m, b)
	if len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
	testhost.Cases(t, 1)
	testhost.Account(t, len(b.accepted), len(lost))
}

// An administrator's file is asked about, and his decisions about the units are kept.
func TestAnUpgradeKeepsWhatTheAdministratorDecided(t *testing.T) {
	m := boot(t)
	m.Put("/etc/peanuts-relay/config.yaml", "log: {level: debug}\nhelpers: {}\n", 0o600)
	m.Run("chgrp", "peanuts-relay", "/etc/peanuts-relay/config.yaml")
	m.Run("chmod", "0440", "/etc/peanuts-relay/config.yaml")
	m.Run("systemctl", "disable", "--now", "peanuts-relay.socket", Service)
	install(t, m, nextVersion)
	says(t, m.Run("cat", "/etc/peanuts-relay/config.yaml"), "level: debug")
	says(t, m.Run("stat", "--format=%a %G", "/etc/peanuts-relay/config.yaml"), "440 peanuts-relay")
	if said, status := m.Try("systemctl", "is-active", Service); status == 0 {
		t.Errorf("an upgrade started a service that was disabled: %s", said)
	}
	if said, status := m.Try("systemctl", "is-enabled", Service); status == 0 {
		t.Errorf("an upgrade enabled a service that was disabled: %s", said)
	}
	testhost.Cases(t, 1)
}
