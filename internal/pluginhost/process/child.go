package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is one process of the operating system and its group, from its start until it
// was reaped.
type child struct {
	pid            int
	lifeline       *os.File // our end of its stdin: it sees the end of it when we are gone
	stdout, stderr *os.File

	exited chan struct{} // closed when the process has ended; its pid is still its own
	gone   chan struct{} // closed when it was reaped and its group killed; then state is set
	state  *os.ProcessState

	mu     sync.Mutex
	reaped bool // no signal may be sent any more: the pid may be somebody else's
	killed bool // by us, with SIGKILL
}

// executable is the descriptor that a child finds its own executable at. Unlike one that
// is closed by the exec it also works for scripts: their interpreter opens that path.
const executable = 3

// busy is how long a file that is still being written to is waited for.
const busy = time.Second

// startChild executes file with these variables as its whole environment.
//
// The thread that starts a process must live as long as the process: the kernel sends the
// signal of Pdeathsig when it ends, not when we do. So one goroutine keeps the thread,
// and spends it waiting for the process.
func startChild(ctx context.Context, file *File, env []string) (*child, error) {
	c := &child{exited: make(chan struct{}), gone: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		proc, err := c.exec(ctx, file, env)
		started <- err
		if err == nil {
			c.wait(proc)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) exec(ctx context.Context, file *File, env []string) (proc *os.Process, err error) {
	var theirs []*os.File
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	in, lifeline := pipe()
	stdout, out := pipe()
	stderr, errOut := pipe()
	theirs = []*os.File{in, out, errOut}
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			for _, f := range []*os.File{lifeline, stdout, stderr} {
				f.Close()
			}
		}
	}()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	deadline := time.Now().Add(busy)
	for {
		proc, err = os.StartProcess("/proc/self/fd/"+strconv.Itoa(executable), []string{filepath.Base(file.Path())}, &os.ProcAttr{
			Dir:   "/",
			Env:   env,
			Files: append(theirs[:3:3], file.Descriptor()),
			Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
		})
		if !errors.Is(err, syscall.ETXTBSY) || time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(busy / 20):
		}
	}
	if err != nil {
		return nil, startError(err)
	}
	c.pid, c.lifeline, c.stdout, c.stderr = proc.Pid, lifeline, stdout, stderr
	preferToKill(c.pid)
	yieldToUs(c.pid)
	return proc, nil
}

// startError says what the kernel means.
func startError(err error) error {
	var why string
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		why = "the file is still being written to"
	case errors.Is(err, syscall.ENOEXEC):
		why = "the file is no program for this machine, or a script without a first line #!"
	case errors.Is(err, syscall.ENOENT):
		why = "the interpreter or loader that the file names does not exist"
	case errors.Is(err, syscall.EACCES):
		why = "permission denied: is its file system mounted noexec?"
	default:
		return fmt.Errorf("execute: %w", errors.Unwrap(err))
	}
	return fmt.Errorf("execute: %s (%w)", why, errors.Unwrap(err))
}

// preferToKill makes the kernel choose the plugin before us when memory runs out. Where
// that is not allowed, nothing is lost. A process that is not dumpable starts one whose
// files in /proc are root's for a moment longer than its start takes.
func preferToKill(pid int) {
	for range 20 {
		err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("500"), 0)
		if !errors.Is(err, os.ErrPermission) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// niceness is how far below ours the priority of plugins is, see sched(7): where both
// want a processor a plugin gets a tenth of what we get, and all of it when we want none.
const niceness = 10

// yieldToUs keeps a plugin that does nothing but compute from taking the processors from
// everything else. It is for the whole group, all threads that there are included; those
// to come inherit it. Where it is not allowed the plugin competes like any other process.
func yieldToUs(pid int) {
	ours, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return
	}
	_ = unix.Setpriority(unix.PRIO_PGRP, pid, min(20-ours+niceness, 19)) // the system call returns 20 less the value
}

// wait reaps the process. Its group is killed first, while its number is still taken.
func (c *child) wait(proc *os.Process) {
	for {
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	close(c.exited)
	c.mu.Lock()
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	c.state, _ = proc.Wait()
	c.reaped = true
	c.mu.Unlock()
	c.hangUp()
	close(c.gone)
}

// kill ends the process and its group at once.
func (c *child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return
	}
	select {
	case <-c.exited: // by itself; only its group may be left
	default:
		c.killed = true
	}
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)
}

// hangUp ends the standard input of the process, as our own end would.
func (c *child) hangUp() { c.lifeline.Close() }

// signal sends sig to the process alone.
func (c *child) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		_ = syscall.Kill(c.pid, sig)
	}
}

func (c *child) wasKilled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.killed
}
