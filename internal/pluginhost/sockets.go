package pluginhost

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
)

// sockets is the directory of the plugins' sockets.
type sockets struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex
	made bool
}

// prepare makes the directory, and sweeps it the first time, if it is ours. A directory
// that somebody removed meanwhile is made again.
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
	case ownerOf(info) != os.Geteuid(): // who could put a name there for us to kill by, or take one away
		return fmt.Errorf("directory for the sockets of plugins: %s belongs to user %d; remove it", s.dir, ownerOf(info))
	case info.Mode().Perm() != 0o700: // the umask took something, or somebody gave more
		if err := os.Chmod(s.dir, 0o700); err != nil { // #nosec G302 -- a directory
			return fmt.Errorf("directory for the sockets of plugins: %w", err)
		}
	}
	if !s.made {
		s.sweep()
		s.made = true
	}
	return nil
}

// ownerOf is the user that a file belongs to, -1 when that cannot be told.
func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// sweep ends what a host left that was killed: sockets, and processes that outlived it.
func (s *sockets) sweep() {
	ended, err := process.Sweep(s.dir)
	if err != nil {
		s.log.Warn("what earlier sink plugins left cannot be removed", "dir", s.dir, "err", err)
	}
	if ended > 0 {
		s.log.Warn("processes of earlier sink plugins were still there and were killed", "count", ended)
	}
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
