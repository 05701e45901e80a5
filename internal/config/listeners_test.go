package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
