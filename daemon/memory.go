package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// keepMemory sees to it that the memory of this process, which holds every secret, is
// neither written to a core file nor read by another process of the same user.
//
// The limit is inherited by everything that is started, for good: a hard limit cannot be
// raised again. It does not stop a kernel whose core_pattern is a pipe, which asks the
// program behind it to heed it (core(5)). That the process is not dumpable does, and it
// closes /proc/PID/mem and ptrace to all but root, above all to the sink plugins
// (PR_SET_DUMPABLE in prctl(2)). An execve ends it, so plugins have the limit alone.
func keepMemory() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid others to read the memory: %w", err)
	}
	return nil
}
