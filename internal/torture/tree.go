package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// killTree kills a child of this program, which nobody has waited for yet, and all
// that it started. Each is stopped before its children are looked for, so that none is
// born unseen.
func killTree(root int) {
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		_ = unix.Kill(tree[i], unix.SIGSTOP) // it may have ended meanwhile
		tree = append(tree, children(tree[i])...)
	}
	for _, pid := range tree {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// children are the processes whose parent is pid.
func children(pid int) (out []int) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may hold anything: proc_pid_stat(5).
		f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(f) < 2 || string(f[1]) != strconv.Itoa(pid) {
			continue
		}
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(stat))); err == nil {
			out = append(out, n)
		}
	}
	return out
}
