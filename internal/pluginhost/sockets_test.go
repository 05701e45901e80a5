package pluginhost

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestADirectoryOfSomebodyElseIsNotSwept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory to another user")
	}
	dir := filepath.Join(t.TempDir(), "sockets")
	left := filepath.Join(dir, "plugin-dir1")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &sockets{dir: dir, log: slog.New(slog.DiscardHandler)}
	if err := os.Chown(dir, 4242, 4242); err != nil {
		t.Fatal(err)
	}
	if err := s.prepare(); err == nil || !strings.Contains(err.Error(), "belongs to user 4242") {
		t.Errorf("it is taken: %v", err)
	}
	if _, err := os.Stat(left); err != nil {
		t.Errorf("it was swept: %v", err)
	}
	if err := os.Chown(dir, os.Geteuid(), -1); err != nil {
		t.Fatal(err)
	}
	if err := s.prepare(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("our own was not swept: %v", err)
	}
}
