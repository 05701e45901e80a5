package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// defaultRuntimeDir is where the daemon of a file of this user listens.
func defaultRuntimeDir(t *testing.T) string {
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	if os.Getuid() == 0 {
		return "/run/peanuts-relay"
	}
	return "/run/user/1000/peanuts-relay"
}

func TestListenersAreFoundWithoutTheSecrets(t *testing.T) {
	run := defaultRuntimeDir(t)
	for name, c := range map[string]struct {
		files         map[string]string
		events, admin string
	}{
		"said in the file": {map[string]string{"config.yaml": "listen: {events: /a/e.sock, admin: /a/a.sock}\n"}, "/a/e.sock", "/a/a.sock"},
		"by default":       {map[string]string{"config.yaml": "helpers: {}\n"}, run + "/events.sock", run + "/admin.sock"},
		"one by default":   {map[string]string{"config.yaml": "listen: {admin: /a/a.sock}\n"}, run + "/events.sock", "/a/a.sock"},
		"in a drop-in": {map[string]string{"config.yaml": "listen: {events: /a/e.sock, admin: /a/a.sock}\n", "conf.d/10.yaml": "listen: {admin: /b/a.sock}\n"},
			"/a/e.sock", "/b/a.sock"},
		"secrets that cannot be read": {map[string]string{"config.yaml": "listen: {events: /a/e.sock, admin: /a/a.sock, web_token: \"${cred:none}\"}\nsecret: ${file:/nonexistent/secret}\n"},
			"/a/e.sock", "/a/a.sock"},
		"mistakes elsewhere": {map[string]string{"config.yaml": "listen: {events: /a/e.sock, admin: /a/a.sock}\nhelprs: 1\nretry: {timeout: 1y}\n"}, "/a/e.sock", "/a/a.sock"},
	} {
		path := filepath.Join(write(t, c.files), "config.yaml")
		events, admin, err := Listeners(path)
		if err != nil || events != c.events || admin != c.admin {
			t.Errorf("%s: %q, %q, %v, want %q, %q", name, events, admin, err, c.events, c.admin)
		}
	}
}

// The daemon's own drop-in is for nobody else, and programs that send may read the
// main file at most.
func TestDropInsThatMayNotBeReadArePassedOver(t *testing.T) {
	if testhost.AsUser(t) {
		return
	}
	dir := write(t, map[string]string{"config.yaml": "listen: {events: /a/e.sock, admin: /a/a.sock}\n",
		"conf.d/10.yaml": "listen: {admin: /b/a.sock}\n", "conf.d/90-api.yaml": "helpers: {}\n"})
	path := filepath.Join(dir, "config.yaml")
	for _, c := range []struct {
		hide  string
		admin string
	}{{"conf.d/90-api.yaml", "/b/a.sock"}, {"conf.d", "/a/a.sock"}} {
		hidden := filepath.Join(dir, c.hide)
		if err := os.Chmod(hidden, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(hidden, 0o700) })
		events, admin, err := Listeners(path)
		if err != nil || events != "/a/e.sock" || admin != c.admin {
			t.Errorf("without %s: %q, %q, %v", c.hide, events, admin, err)
		}
		if _, report := Load(Options{Path: path}); report.Err() == nil {
			t.Errorf("without %s: the daemon takes the files", c.hide)
		}
	}
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Listeners(path); err == nil {
		t.Error("the main file was passed over")
	}
}

func TestTheEventsSocketOfBrokenFiles(t *testing.T) {
	run := defaultRuntimeDir(t)
	for name, c := range map[string]struct{ text, want string }{
		"said":               {"listen:\n  events: /a/e.sock\nhelpers: [\n", "/a/e.sock"},
		"by default":         {"helpers: [\n", run + "/events.sock"},
		"said somewhere":     {"{listen: {events: /a/e.sock}, helpers: [\n", ""},
		"only the other one": {"listen:\n  admin: /a/a.sock\nhelpers: [\n", ""},
	} {
		if got := EventsSocket(filepath.Join(write(t, map[string]string{"config.yaml": c.text}), "config.yaml")); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := EventsSocket(filepath.Join(t.TempDir(), "config.yaml")); got != "" {
		t.Errorf("no file: %q", got)
	}
}

func TestListenersThatCannotBeToldAreAnError(t *testing.T) {
	for name, content := range map[string]string{
		"a wrong type":       "listen: {admin: [1]}\n",
		"a listen of text":   "listen: here\n",
		"broken YAML":        "listen: {events: /a\n",
		"an empty file":      "",
		"an unset reference": "listen: {events: \"${env:NOT_SET}\"}\n",
	} {
		path := filepath.Join(write(t, map[string]string{"config.yaml": content}), "config.yaml")
		_, _, err := Listeners(path)
		if _, ok := errors.AsType[*InvalidError](err); !ok {
			t.Errorf("%s: %v, want an InvalidError", name, err)
		}
	}
	_, _, err := Listeners(filepath.Join(t.TempDir(), "none.yaml"))
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
}

func TestTheDefaultsOfAFileOfTheSystemAreTheSystems(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give a file to somebody else")
	}
	defaultRuntimeDir(t)
	path := filepath.Join(write(t, map[string]string{"config.yaml": "helpers: {}\n"}), "config.yaml")
	if err := unix.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if events, _, err := Listeners(path); err != nil || events != "/run/peanuts-relay/events.sock" {
		t.Errorf("%q, %v", events, err)
	}
	if got := daemonUser(path); got != 0 {
		t.Errorf("user %d", got)
	}
}
