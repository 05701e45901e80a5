package unixsock

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// lockDir takes the directory's exclusive lock and returns what gives it back.
func lockDir(dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	for deadline := time.Now().Add(lockWait); ; {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { unix.Close(fd) }, nil // closing unlocks
		}
		busy := errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR)
		if busy && time.Now().Before(deadline) {
			time.Sleep(lockPoll)
			continue
		}
		unix.Close(fd)
		if busy {
			return nil, fmt.Errorf("lock directory %s: another process has held it for %s", dir, lockWait)
		}
		return nil, fmt.Errorf("lock directory %s: %w", dir, err)
	}
}

// groupID is the number of a group given by name or number, -1 for "".
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(group)
	if _, unknown := errors.AsType[user.UnknownGroupError](err); unknown {
		if n, numErr := strconv.ParseUint(group, 10, 31); numErr == nil {
			return int(n), nil
		}
		return 0, fmt.Errorf("group %q does not exist; create it (groupadd --system), or name another", group)
	}
	if err != nil {
		return 0, fmt.Errorf("look up group %q: %w", group, err)
	}
	n, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("group %q has the strange id %q", group, g.Gid)
	}
	return n, nil
}
