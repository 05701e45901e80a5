package pluginfile_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/pluginfile"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// tree makes dir/a/b/plugin, all of which may be trusted.
func tree(t *testing.T) (dir, plugin string) {
	t.Helper()
	dir = t.TempDir()
	plugin = filepath.Join(dir, "a", "b", "plugin")
	err := errors.Join(
		os.Chmod(dir, 0o755), os.MkdirAll(filepath.Dir(plugin), 0o755),
		os.Chmod(filepath.Join(dir, "a"), 0o755), os.Chmod(filepath.Join(dir, "a", "b"), 0o755),
		os.WriteFile(plugin, []byte("#!/bin/sh\n"), 0o755), os.Chmod(plugin, 0o755),
	)
	if err != nil {
		t.Fatal(err)
	}
	return dir, plugin
}

const others = 4243 // a user id that is neither ours nor root's

func TestOpenRefusesWhatOthersCouldChange(t *testing.T) {
	sum := sha256.Sum256([]byte("#!/bin/sh\n"))
	good := hex.EncodeToString(sum[:])
	for _, row := range []struct {
		name    string
		prepare func(dir, plugin string) (path string, err error)
		sum     string
		want    string // "" = it is opened
		root    bool   // needs root's rights
	}{
		{"a good one", just(), "", "", false},
		{"its checksum", just(), good, "", false},
		{"its checksum in capitals", just(), strings.ToUpper(good), "", false},
		{"another checksum", just(), strings.Repeat("0", 64), "the checksum of the plugin is another one: it is " + good, false},
		{"its group may write", modes("", 0o775), "", "others can change the plugin: its mode is 0775", false},
		{"others may write", modes("", 0o757), "", "others can change the plugin: its mode is 0757", false},
		{"not executable", modes("", 0o644), "", "not executable", false},
		{"set-user-ID", modes("", 0o755|os.ModeSetuid), "", "set-user-ID", false},
		{"set-group-ID", modes("", 0o755|os.ModeSetgid), "", "set-user-ID or set-group-ID", false},
		{"the directory's group may write", modes("..", 0o775), "", "others can change the directory", false},
		{"the directory is like /tmp", modes("..", 0o777|os.ModeSticky), "", "others can change the directory of the plugin", false},
		{"others may write above", modes("../..", 0o757), "", "others can change the directory", false},
		{"above is like /tmp", modes("../..", 0o777|os.ModeSticky), "", "", false},
		{"another's file", owned(""), "", "others can change the plugin: its owner", true},
		{"another's directory", owned(".."), "", "others can change the directory", true},
		{"another's directory above", owned("../.."), "", "others can change the directory", true},
		{"another's directory above, like /tmp", func(_, plugin string) (string, error) {
			at := filepath.Dir(filepath.Dir(plugin))
			return plugin, errors.Join(os.Chmod(at, 0o777|os.ModeSticky), os.Chown(at, others, -1))
		}, "", "others can change the directory", true},
		{"relative", func(string, string) (string, error) { return "plugin", nil }, "", "not absolute", false},
		{"missing", func(dir, _ string) (string, error) { return filepath.Join(dir, "none"), nil }, "", "no such file", false},
		{"a directory", func(dir, _ string) (string, error) { return filepath.Join(dir, "a"), nil }, "", "not a regular file", false},
		{"a pipe", func(dir, _ string) (string, error) {
			path := filepath.Join(dir, "pipe")
			return path, unix.Mkfifo(path, 0o755)
		}, "", "not a regular file", false},
		{"a link", link("a/b/plugin"), "", "", false},
		{"a link up and down", link("a/../a/b/../b/plugin"), "", "", false},
		{"a dangling link", link("nowhere"), "", "no such file", false},
		{"a link to itself", link("link"), "", "too many symbolic links", false},
		{"a link into a directory of others", func(dir, plugin string) (string, error) {
			path := filepath.Join(dir, "link")
			return path, errors.Join(os.Symlink(plugin, path), os.Chmod(filepath.Dir(plugin), 0o777))
		}, "", "others can change the directory", false},
		{"a link through a directory of others", func(dir, plugin string) (string, error) {
			// The link's own path is fine, and where it ends; not what lies between.
			open, path := filepath.Join(dir, "open"), filepath.Join(dir, "link")
			return path, errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777),
				os.Symlink(plugin, filepath.Join(open, "on")), os.Symlink("open/on", path))
		}, "", "others can change the directory", false},
		{"another's link in a directory like /tmp", func(dir, plugin string) (string, error) {
			path := filepath.Join(dir, "link")
			return path, errors.Join(os.Symlink(plugin, path), os.Lchown(path, others, -1), os.Chmod(dir, 0o777|os.ModeSticky))
		}, "", "others can change the symbolic link", true},
		{"capabilities", func(_, plugin string) (string, error) {
			// Version 2, nothing but CAP_NET_BIND_SERVICE permitted.
			return plugin, unix.Setxattr(plugin, "security.capability", []byte{0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0)
		}, "", "file capabilities", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.root && os.Geteuid() != 0 {
				t.Skip("only root can make it so")
			}
			dir, plugin := tree(t)
			path, err := row.prepare(dir, plugin)
			if err != nil {
				if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
					t.Skipf("this machine does not allow it: %v", err)
				}
				t.Fatal(err)
			}
			f, err := pluginfile.Open(path, row.sum)
			if err == nil {
				defer f.Close()
			}
			if again := pluginfile.Check(path, row.sum, os.Geteuid()); (again == nil) != (err == nil) ||
				isChecksum(again) != isChecksum(err) {
				t.Errorf("Check says %v, Open %v", again, err)
			}
			switch {
			case row.want == "" && err != nil:
				t.Errorf("it was refused: %v", err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("the error is %v, want %s", err, row.want)
			case err == nil && (f.Identity().SHA256 != good || f.Path() != path):
				t.Errorf("what was opened is %s, %+v", f.Path(), f.Identity())
			}
		})
	}
}

func isChecksum(err error) bool {
	_, ok := errors.AsType[*pluginfile.ChecksumError](err)
	return ok
}

// just leaves everything as it is.
func just() func(dir, plugin string) (string, error) {
	return func(_, plugin string) (string, error) { return plugin, nil }
}

// modes changes the mode of the plugin, or of what is above it.
func modes(at string, mode os.FileMode) func(dir, plugin string) (string, error) {
	return func(_, plugin string) (string, error) { return plugin, os.Chmod(filepath.Join(plugin, at), mode) }
}

// owned gives the plugin, or what is above it, to somebody else.
func owned(at string) func(dir, plugin string) (string, error) {
	return func(_, plugin string) (string, error) { return plugin, os.Chown(filepath.Join(plugin, at), others, -1) }
}

// link makes a symbolic link in dir.
func link(to string) func(dir, plugin string) (string, error) {
	return func(dir, _ string) (string, error) {
		path := filepath.Join(dir, "link")
		return path, os.Symlink(to, path)
	}
}

func TestOpenRefusesTheSameWithoutRightsOfRoot(t *testing.T) {
	if testhost.AsUser(t) {
		return
	}
	t.Run("rules", TestOpenRefusesWhatOthersCouldChange)
	t.Run("root's own file", func(t *testing.T) {
		f, err := pluginfile.Open("/bin/sh", "")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
}

func TestCheckHasTheRulesOfTheUserWhoIsAskedFor(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	dir, plugin := tree(t)
	for _, at := range []string{plugin, filepath.Dir(plugin), dir} {
		if err := os.Chown(at, others, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := pluginfile.Check(plugin, "", others); err != nil {
		t.Errorf("the user's own plugin was refused: %v", err)
	}
	if err := pluginfile.Check(plugin, "", os.Geteuid()); err == nil {
		t.Error("it was accepted for another user")
	}
}
