package process

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit is how a process ended.
type Exit struct {
	Status int            // what it exited with; -1 when a signal ended it
	Signal syscall.Signal // that ended it; 0 = none
	Asked  bool           // Stop, Abort or a failing start asked it to end
	Killed bool           // by this package, with SIGKILL
	Memory Memory         // whether the kernel ended it for lack of memory
	// Stack is what it wrote when it died, such as Go's panic and goroutines: masked, at
	// most 64 KiB; "" = nothing.
	Stack string
	// Last are its last lines on standard error, masked, at most 20 of 1 KiB.
	Last []string
	// Dropped is how many lines of its output were not logged, because there were too many.
	Dropped uint64
}

// Memory is what is known of a process's end by the kernel's out-of-memory killer.
type Memory int

const (
	MemoryUnknown  Memory = iota // nothing points to it
	MemoryProbable               // the killer has been at work in its memory group since it started
	MemoryCertain                // the kernel's log names the process
)

// String says what happened, for an operator: "exited with status 2".
func (e Exit) String() string {
	switch {
	case e.Signal == 0:
		return fmt.Sprintf("exited with status %d", e.Status)
	case e.Killed:
		return "killed by the relay (signal 9, SIGKILL)"
	}
	name := unix.SignalName(e.Signal)
	if name == "" {
		name = "unnamed"
	}
	text := fmt.Sprintf("killed by signal %d (%s)", int(e.Signal), name)
	switch e.Memory {
	case MemoryCertain:
		text += " by the kernel for lack of memory"
	case MemoryProbable:
		text += ", probably by the kernel for lack of memory"
	}
	return text
}

// lastWords is what is most worth knowing of what it wrote; "" = it wrote nothing.
func (e Exit) lastWords() string {
	if first, _, _ := strings.Cut(e.Stack, "\n"); first != "" {
		return clean(first)
	}
	if len(e.Last) > 0 {
		return e.Last[len(e.Last)-1]
	}
	return ""
}
