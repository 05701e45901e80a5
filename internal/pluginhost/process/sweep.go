package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
)

const (
	// socketDirVariable tells a plugin, and whatever it starts, where its sockets belong.
	// No two starts have the same directory, so it marks the processes of one.
	socketDirVariable = plugin.EnvUnixSocketDir
	// socketDirPrefix is what go-plugin calls such a directory.
	socketDirPrefix = "plugin-dir"
	// sweepRounds is how often processes are looked for that others start meanwhile.
	sweepRounds = 20
	// sweepPause is between two rounds in which something was found.
	sweepPause = 10 * time.Millisecond
)

// Sweep ends what a former process left in a socket directory, plugins and sockets, and
// reports how many processes that were. dir must be the caller's alone, and no plugin of
// its own may run yet. A dir that does not exist is clean.
func Sweep(dir string) (ended int, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("sweep sockets: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), socketDirPrefix) {
			at := filepath.Join(dir, e.Name())
			ended += endStrays(at)
			err = errors.Join(err, os.RemoveAll(at))
		}
	}
	return ended, err
}

// endStrays kills every process that was given dir for its sockets, whatever group or
// session it is in now. One that has cleared its environment is not found.
func endStrays(dir string) (ended int) {
	for range sweepRounds {
		pids := strays(dir)
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				ended++
			}
		}
		time.Sleep(sweepPause)
	}
	return ended
}

// strays finds them. A process that has ended and was not reaped has no environment.
func strays(dir string) (pids []int) {
	mark := []byte(socketDirVariable + "=" + dir)
	entries, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil
	}
	for _, path := range entries {
		env, err := os.ReadFile(path)
		if err != nil {
			continue // another user's, or gone
		}
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(v, mark) {
				if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && pid != os.Getpid() {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}
