package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenersAreFoundWithoutTheSecrets(t *testing.T) {
	for name, c := range map[string]struct {
		files         map[string]string
		events, admin string
	}{
		"said in the file": {map[string]string{"config.yaml": "listen: {events: /a/e.sock, admin: /a/a.sock}\n"}, "/a/e.sock", "/a/a.sock"},
		"by default":       {map[string]string{"config.yaml": "helpers: {}\n"}, "/run/user/1000/peanuts-relay/events.sock", "/run/user/1000/peanuts-relay/admin.sock"},
		"one by default":   {map[string]string{"config.yaml": "listen: {admin: /a/a.sock}\n"}, "/run/user/1000/peanuts-relay/events.sock", "/a/a.sock"},
		"in a drop-in": {map[string]string{"config.yaml": "listen: {events: /a/e.sock, admin: /a/a.sock}\n", "conf.d/10.yaml": "listen: {admin: /b/a.sock}\n"},
			"/a/e.sock", "/b/a.sock"},
		"secrets that cannot be read": {map[string]string{"config.yaml": "listen: {events: /a/e.sock, admin: /a/a.sock, web_token: \"${cred:none}\"}\nsecret: ${file:/nonexistent/secret}\n"},
			"/a/e.sock", "/a/a.sock"},
		"mistakes elsewhere": {map[string]string{"config.yaml": "listen: {events: /a/e.sock, admin: /a/a.sock}\nhelprs: 1\nretry: {timeout: 1y}\n"}, "/a/e.sock", "/a/a.sock"},
	} {
		path := filepath.Join(write(t, c.files), "config.yaml")
		events, admin, err := Listeners(options(path))
		if err != nil || events != c.events || admin != c.admin {
			t.Errorf("%s: %q, %q, %v, want %q, %q", name, events, admin, err, c.events, c.admin)
		}
	}
}

func TestListenersOpenNoFileOfASecret(t *testing.T) {
	// A FIFO would hold up whoever opens it; a file of a secret may be anything.
	dir := write(t, map[string]string{"secret": planted})
	secretFile := filepath.Join(dir, "secret")
	writeFile(t, filepath.Join(dir, "config.yaml"), "listen: {events: /a/e.sock, admin: /a/a.sock}\nsecret: ${file:"+secretFile+"}\n", 0o600)
	o := options(filepath.Join(dir, "config.yaml"))
	asked := 0
	o.LookupEnv = func(string) (string, bool) { asked++; return "", false }
	if err := os.Remove(secretFile); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Listeners(o); err != nil || asked != 0 {
		t.Errorf("%v, %d look-ups in the environment", err, asked)
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
		_, _, err := Listeners(options(path))
		if _, ok := errors.AsType[*InvalidError](err); !ok {
			t.Errorf("%s: %v, want an InvalidError", name, err)
		}
	}
	_, _, err := Listeners(options(filepath.Join(t.TempDir(), "none.yaml")))
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
}
