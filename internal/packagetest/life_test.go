package packagetest

import (
	"os"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// As installed it runs, and says that it has nothing to do yet.
func TestAFreshInstallRunsAndIsComplete(t *testing.T) {
	m := Boot(t)
	install(t, m, formerVersion)
	m.Run("systemctl", "is-active", Service, "peanuts-relay.socket")
	m.Run("systemctl", "is-enabled", Service, "peanuts-relay.socket")
	says(t, m.Run("systemctl", "status", "--no-pager", Service), "Active: active (running)")
	says(t, m.Run("peanuts-relay", "status"), "state       ok", "version     "+formerVersion, "there are no helpers")
	says(t, m.Run("peanuts-relay", "check"), "valid: /etc/peanuts-relay/config.yaml")
	says(t, m.Run("id", "peanuts-relay"), "(peanuts-relay)")

	// Who may read, write and send.
	for path, want := range map[string]string{
		"/etc/peanuts-relay":             "755 root root",
		"/etc/peanuts-relay/config.yaml": "640 root peanuts-relay",
		"/etc/peanuts-relay/conf.d":      "1775 root peanuts-relay",
		"/var/lib/peanuts-relay":         "700 peanuts-relay peanuts-relay",
		"/run/peanuts-relay/events.sock": "660 peanuts-relay peanuts-events",
		"/run/peanuts-relay/admin.sock":  "600 peanuts-relay peanuts-relay",
		"/usr/bin/peanuts-relay":         "755 root root",
	} {
		if got := strings.TrimSpace(m.Run("stat", "--format=%a %U %G", path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	says(t, m.Run("peanuts-relay", "sinks", "list"), "zapier", "sheets", "slack")
	says(t, m.Run("bash", "-c", ". /usr/share/bash-completion/completions/peanuts-relay && complete -p peanuts-relay"), "__start_peanuts-relay")
	says(t, m.Run("cat", "/usr/share/zsh/vendor-completions/_peanuts-relay"), "#compdef peanuts-relay")
	says(t, m.Run("cat", "/usr/share/fish/vendor_completions.d/peanuts-relay.fish"), "complete -c peanuts-relay")
	says(t, m.Run("zcat", "/usr/share/man/man1/peanuts-relay.1.gz", "/usr/share/man/man1/peanuts-relay-send.1.gz"), ".TH", formerVersion)
	says(t, m.Run("cat", "/usr/share/peanuts-relay/config.schema.json"), `"$schema"`)
	says(t, m.Run("zcat", "/usr/share/doc/peanuts-relay/third-party-licenses.txt.gz"), "github.com/dgraph-io/badger/v4", "google.golang.org/grpc")
	// A member of the one group may send, which reads no file of the relay; nobody else may.
	m.Run("useradd", "--groups", "peanuts-events", "app")
	m.Run("useradd", "stranger")
	curl := "curl --silent --show-error --unix-socket /run/peanuts-relay/events.sock http://localhost/v1/events -d '{}' -H 'Content-Type: application/json'"
	says(t, m.Run("runuser", "-u", "app", "--", "sh", "-c", curl), `"error"`)
	if said, status := m.Try("runuser", "-u", "stranger", "--", "sh", "-c", curl); status == 0 {
		t.Errorf("a stranger could send: %s", said)
	}
	if said, status := m.Try("runuser", "-u", "app", "--", "cat", "/etc/peanuts-relay/config.yaml"); status == 0 {
		t.Errorf("a sender could read the configuration: %s", said)
	}
	m.Run("systemd-analyze", "verify", "/usr/lib/systemd/system/"+Service, "/usr/lib/systemd/system/peanuts-relay.socket")
	if said, status := m.Try("dpkg", "--verify", "peanuts-relay"); status != 0 || said != "" {
		t.Errorf("dpkg --verify: %d\n%s", status, said)
	}
	testhost.Cases(t, 1)
}

// The plugins of the package start and deliver in the confines of the unit.
func TestAPluginDeliversInTheConfinesOfTheUnit(t *testing.T) {
	m := boot(t)
	startReceiver(m)
	m.Run("systemd-run", "--quiet", "--unit=zapier", "peanuts-relay", "receive", "127.0.0.1:9001")
	m.Eventually("listening on", "journalctl", "--no-pager", "--unit=zapier")
	m.Put("/etc/peanuts-relay/conf.d/20-zap.yaml", `helpers:
  expenses:
    webhooks:
      zap:
        sink: zapier
        settings: {url: "https://hooks.zapier.com/hooks/catch/123456/abcdef/", base_url: "http://127.0.0.1:9001"}
`, 0o644)
	m.Run("systemctl", "reload", Service)
	says(t, m.Run("systemctl", "status", "--no-pager", Service), "peanuts-sink-zapier")
	if err := send(m, "evt_one"); err != nil {
		t.Fatal(err)
	}
	m.Eventually("success", "peanuts-relay", "deliveries", "expenses.zap")
	m.Run("systemctl", "stop", Service, "peanuts-relay.socket")
	if left, _ := m.Try("pgrep", "-l", "peanuts"); strings.Contains(left, "sink") {
		t.Errorf("left after the stop: %s", left)
	}
	testhost.Cases(t, 1)
}

// A removal keeps what was accepted, and the next installation delivers it. A purge
// deletes it, and nothing that an administrator wrote.
func TestARemovalKeepsTheQueueAndAPurgeDeletesIt(t *testing.T) {
	m := boot(t)
	var b book
	for _, id := range []string{"evt_one", "evt_two"} { // there is no receiver yet
		if err := send(m, id); err != nil {
			t.Fatal(err)
		}
		b.accepted = append(b.accepted, id)
	}
	says(t, apt(m, "remove", "peanuts-relay"), "deliveries: 2 pending", "/var/lib/peanuts-relay is kept")
	if said, status := m.Try("systemctl", "is-active", Service, "peanuts-relay.socket"); status == 0 || strings.Contains(said, "\nactive") {
		t.Errorf("after the removal: %s", said)
	}
	if err := send(m, "evt_late"); err == nil {
		t.Error("an event was accepted after the removal")
	}
	for _, path := range []string{"/etc/peanuts-relay/config.yaml", "/var/lib/peanuts-relay/journal", "/etc/peanuts-relay/conf.d/10-expenses.yaml"} {
		if _, err := os.Stat(m.Path(path)); err != nil {
			t.Errorf("the removal did not keep %s: %v", path, err)
		}
	}

	install(t, m, formerVersion)
	startReceiver(m)
	lost := missing(t, m, b)
	if len(lost) > 0 {
		t.Errorf("lost by a removal: %v", lost)
	}

	m.Run("peanuts-relay", "disable", "expenses.backend") // writes conf.d/90-api.yaml
	said := apt(m, "purge", "peanuts-relay")
	says(t, said, "purge: deleting /var/lib/peanuts-relay", "these files are yours and stay:\n/etc/peanuts-relay/")
	for _, path := range []string{"/var/lib/peanuts-relay", "/run/peanuts-relay", "/etc/peanuts-relay/config.yaml", "/etc/peanuts-relay/conf.d/90-api.yaml", "/usr/lib/peanuts-relay", "/usr/bin/peanuts-relay"} {
		if _, err := os.Stat(m.Path(path)); err == nil {
			t.Errorf("the purge left %s", path)
		}
	}
	if left := m.Run("sh", "-c", "find /etc /usr /var/lib/systemd -name '*peanuts*' -not -path '/etc/peanuts-relay*'"); left != "" {
		t.Errorf("the purge left:\n%s", left)
	}
	for _, path := range []string{"/etc/peanuts-relay/expenses.secret", "/etc/peanuts-relay/conf.d/10-expenses.yaml"} {
		if _, err := os.Stat(m.Path(path)); err != nil {
			t.Errorf("the purge took what was not its own: %v", err)
		}
	}
	testhost.Cases(t, 3)
	testhost.Account(t, len(b.accepted), len(lost))
}
