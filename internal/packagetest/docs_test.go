package packagetest

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/docstest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// commands are what a section of a page tells its reader to type, block by block.
func commands(t *testing.T, page, section string) []string {
	t.Helper()
	_, text, found := strings.Cut(docstest.Page(t, page), "\n## "+section+"\n")
	if !found {
		t.Fatalf("%s has no section %q", page, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return blocks(text, "sh")
}

// blocks are the code blocks of a page in this language.
func blocks(page, language string) (list []string) {
	for _, block := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(page, -1) {
		list = append(list, block[1])
	}
	return list
}

// Whoever does what docs/install.md says, to the letter, has an event delivered and
// verified after five commands.
func TestANewcomersFiveCommandsLeadToAVerifiedEvent(t *testing.T) {
	m := Boot(t)
	deb, _ := files(t, formerVersion)
	upload(t, m, deb)
	list := commands(t, "install.md", "The first webhook in five minutes")
	if len(list) != 5 {
		t.Fatalf("the page has %d commands, want 5: %q", len(list), list)
	}
	install, key, webhook, receive, sendOne := list[0], list[1], list[2], list[3], list[4]
	for _, command := range []string{install, key, webhook} {
		m.Run("bash", "-ec", command)
	}
	m.Eventually("hello.first", "peanuts-relay", "webhooks") // "a moment later"
	// The other terminal.
	m.Run("systemd-run", "--quiet", "--unit=terminal", "--working-directory=/root", "--property=StandardOutput=append:/root/terminal", "bash", "-ec", receive)
	m.Eventually("listening on", "cat", "/root/terminal")
	m.Run("bash", "-ec", sendOne)
	said := m.Eventually("verified (peanuts)", "cat", "/root/terminal")
	says(t, said, "200", "entry.created", "lunch-1", "attempt 1")
	says(t, m.Run("sudo", "peanuts-relay", "deliveries"), "hello.first", "success")
	testhost.Cases(t, 1)
	testhost.Account(t, 1, 0)
}

// The other way: from the archive, again for an upgrade, and away.
func TestTheArchiveInstallsUpgradesAndRemoves(t *testing.T) {
	m := Boot(t)
	_, archive := files(t, formerVersion)
	upload(t, m, archive)
	list := commands(t, "install.md", "From the .tar.gz")
	if len(list) != 1 {
		t.Fatalf("the page has %d blocks, want 1: %q", len(list), list)
	}
	says(t, m.Run("bash", "-ec", list[0]), "installed: peanuts-relay "+formerVersion)
	m.Run("systemctl", "is-active", Service, "peanuts-relay.socket")
	m.Run("systemctl", "is-enabled", Service, "peanuts-relay.socket")
	says(t, m.Run("stat", "--format=%a %U %G", "/etc/peanuts-relay/config.yaml"), "640 root peanuts-relay")
	configure(t, m)
	startReceiver(m)

	sending := load(m)
	defer sending.end()
	sending.goOn(t)
	pid := m.Property("MainPID")
	m.Run("bash", "-ec", list[0])
	if m.Property("MainPID") == pid {
		t.Error("the service was not restarted")
	}
	sending.goOn(t)
	b := sending.stop()
	lost := missing(t, m, b)
	if len(b.refused) > 0 || len(lost) > 0 || len(b.accepted) == 0 {
		t.Errorf("%d accepted, %d refused, %d lost: %.2000q %.2000q", len(b.accepted), len(b.refused), len(lost), b.refused, lost)
	}
	const broken = "/etc/peanuts-relay/conf.d/20-broken.yaml"
	m.Put(broken, "helpers: {expenses: {webhoks: {}}}\n", 0o644)
	pid = m.Property("MainPID")
	if said, status := m.Try("bash", "-ec", list[0]); status != 78 || !strings.Contains(said, "NOT restarted") || m.Property("MainPID") != pid {
		t.Errorf("into an invalid configuration: exit status %d\n%s", status, said)
	}

	m.Run("bash", "-ec", "cd peanuts-relay_*_linux_*/ && sudo ./install.sh --remove")
	for path, stays := range map[string]bool{"/usr/bin/peanuts-relay": false, "/usr/lib/systemd/system/" + Service: false, broken: true, "/var/lib/peanuts-relay/journal": true} {
		if _, err := os.Stat(m.Path(path)); (err == nil) != stays {
			t.Errorf("after the removal %s: %v", path, err)
		}
	}
	testhost.Cases(t, 4)
	testhost.Account(t, len(b.accepted), len(lost))
}
