package pluginhost

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// socketDirPrefix begins the name of the directory that go-plugin makes for a process.
const socketDirPrefix = "plugin-dir"

// sockets is the directory of the plugins' sockets.
type sockets struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex
	made bool
}

// prepare makes the directory, and sweeps it the first time. A directory that somebody
// removed meanwhile is made again.
func (s *sockets) prepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("directory for the sockets of plugins: %w", err)
	}
	info, err := os.Lstat(s.dir)
	switch {
	case err != nil:
		return fmt.Errorf("directory for the sockets of plugins: %w", err)
	case !info.IsDir():
		return fmt.Errorf("directory for the sockets of plugins: %s is no directory", s.dir)
	case info.Mode().Perm() != 0o700: // the umask took something, or somebody gave more
		if err := os.Chmod(s.dir, 0o700); err != nil {
			return fmt.Errorf("directory for the sockets of plugins: %w", err)
		}
	}
	if !s.made {
		s.sweep()
		s.made = true
	}
	return nil
}

// sweep removes what a host left that was killed. Each process has a directory of its
// own; one with a socket that still answers is left alone.
func (s *sockets) sweep() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		s.log.Warn("the sockets that earlier plugins left cannot be listed", "dir", s.dir, "err", err)
		return
	}
	swept := 0
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if !e.IsDir() || !strings.HasPrefix(e.Name(), socketDirPrefix) {
			continue // not ours
		}
		if answers(path) {
			s.log.Warn("a sink plugin of an earlier relay still has a socket", "path", path)
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			s.log.Warn("what an earlier sink plugin left cannot be removed", "path", path, "err", err)
			continue
		}
		swept++
	}
	if swept > 0 {
		s.log.Info("sockets of earlier sink plugins were removed", "dir", s.dir, "count", swept)
	}
}

// answers reports whether a process listens on a socket in dir.
func answers(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.Type() != fs.ModeSocket {
			continue
		}
		conn, err := net.DialTimeout("unix", filepath.Join(dir, e.Name()), time.Second)
		if err == nil {
			conn.Close()
			return true
		}
	}
	return false
}

// remove removes the directory, unless somebody else put something there.
func (s *sockets) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.made {
		return
	}
	s.made = false
	if err := os.Remove(s.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the directory of the sockets of plugins cannot be removed", "dir", s.dir, "err", err)
	}
}
