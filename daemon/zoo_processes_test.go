package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func unhex(s string) (out [32]byte) {
	b, err := hex.DecodeString(s)
	if err != nil || copy(out[:], b) != len(out) {
		return [32]byte{}
	}
	return out
}

// creature is a process, told by when it began from another one of its number.
type creature struct {
	pid, parent, group, session int
	began                       string
	name                        string
	marked                      bool // knows the cage's directory
}

// creatures are all processes that have to do with the cage: whose environment or
// arguments name its directory, and what descends from them or shares their group.
func (c *cage) creatures() map[int]creature {
	c.t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		c.t.Fatal(err)
	}
	all := map[int]creature{}
	for _, dir := range dirs {
		if one, ok := c.look(dir); ok && one.pid != os.Getpid() {
			all[one.pid] = one
		}
	}
	ours := map[int]creature{}
	for more := true; more; {
		more = false
		for pid, one := range all {
			_, there := ours[pid]
			_, parent := ours[one.parent]
			if there || !one.marked && !parent && !slices.ContainsFunc(values(ours), func(o creature) bool { return o.group == one.group && o.group == o.pid }) {
				continue
			}
			ours[pid], more = one, true
		}
	}
	return ours
}

func values(m map[int]creature) (out []creature) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// look reads one directory of /proc. A zombie is no process any more.
func (c *cage) look(dir string) (one creature, ok bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return one, false
	}
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return one, false
	}
	one.began = fields[19]
	for i, to := range []*int{&one.parent, &one.group, &one.session} {
		if *to, err = strconv.Atoi(fields[1+i]); err != nil {
			return one, false
		}
	}
	if one.pid, err = strconv.Atoi(filepath.Base(dir)); err != nil {
		return one, false
	}
	environ, _ := os.ReadFile(filepath.Join(dir, "environ")) // it may be gone, or another user's
	args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	name, _, _ := strings.Cut(string(args), "\x00")
	one.name = filepath.Base(name)
	one.marked = bytes.Contains(environ, []byte(c.dir+"/")) || bytes.Contains(args, []byte(c.dir+"/"))
	return one, true
}

// perish kills the daemon, with the guards of its plugins if they are to go too, and
// waits until none of what there was is left. It returns what there was.
func (c *cage) perish(p *process, guards bool) (before map[int]creature) {
	c.t.Helper()
	before = c.creatures()
	if _, ok := before[p.cmd.Process.Pid]; !ok {
		c.t.Fatalf("the daemon is not found among %v", before)
	}
	if guards {
		for pid, one := range before {
			if one.name == "peanuts-relay-guard" {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) { // some plugins end all the time
					c.t.Errorf("guard %d: %v", pid, err)
				}
			}
		}
	}
	p.kill()
	return before
}

// gone waits until none of the processes is there any more.
func (c *cage) gone(before map[int]creature) {
	c.t.Helper()
	var left []string
	c.await("the end of every process", func() bool {
		left = nil
		for pid, one := range before {
			if now, ok := c.look(filepath.Join("/proc", strconv.Itoa(pid))); ok && now.began == one.began {
				left = append(left, fmt.Sprintf("%+v", now))
			}
		}
		return len(left) == 0
	}, func() string { return fmt.Sprint(left) })
}

// nobody waits until there is no process at all, and no socket.
func (c *cage) nobody() {
	c.t.Helper()
	c.await("no process of the cage", func() bool { return len(c.creatures()) == 0 }, func() string { return fmt.Sprint(c.creatures()) })
	c.await("no socket", func() bool { return len(c.sockets()) == 0 })
}

// sockets are those below the directory of the plugins' sockets.
func (c *cage) sockets() (paths []string) {
	c.t.Helper()
	_ = filepath.WalkDir(filepath.Join(c.dir, "admin-sinks"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == fs.ModeSocket {
			paths = append(paths, path)
		}
		return nil // what is removed meanwhile is none
	})
	return paths
}

// noStaleSocket waits until there is a process behind each socket.
func (c *cage) noStaleSocket() {
	c.t.Helper()
	c.await("a process behind each socket", func() bool {
		for _, path := range c.sockets() {
			conn, err := net.Dial("unix", path)
			if err != nil {
				return false
			}
			conn.Close()
		}
		return true
	})
}
