package process

import (
	"bytes"
	"strings"
	"time"
)

const (
	// maxStack is the size of the largest crash report, in bytes.
	maxStack = 64 << 10
	// stackIdle is how long the next line of a stack is waited for.
	stackIdle = time.Second
	// stackAge is how long one stack may take: what comes after it is ordinary lines.
	stackAge = 5 * time.Second
)

// stackStarts are what the first line of a stack begins with, in Go, Python and Rust.
func stackStarts() []string {
	return []string{"panic: ", "fatal error: ", "SIGQUIT: ", "SIGABRT: ", "SIGSEGV: ", "unexpected fault address ", "runtime: ", "Traceback (most recent call last):", "thread '"}
}

// stack collects what a program writes when it dies. It is not safe for concurrent use.
type stack struct {
	starts []string
	text   []byte
	begun  time.Time // zero: there is none under way
}

func (s *stack) collecting() bool { return !s.begun.IsZero() }

// full reports whether no more is kept of the stack under way.
func (s *stack) full() bool { return len(s.text) >= maxStack+overlap }

// begins reports whether a line is the first of a stack.
func (s *stack) begins(line []byte) bool {
	for _, start := range s.starts {
		if len(line) >= len(start) && string(line[:len(start)]) == start {
			return true
		}
	}
	return false
}

// find is where in text the first line is that a stack begins with; len(text) if there is
// none. text begins at the beginning of a line.
func (s *stack) find(text []byte) int {
	first := len(text)
	for _, start := range s.starts {
		for from := 0; from < first; {
			i := bytes.Index(text[from:first], []byte(start))
			if i < 0 {
				break
			}
			if i += from; i == 0 || text[i-1] == '\n' {
				first = i
				break
			}
			from = i + 1
		}
	}
	return first
}

func (s *stack) add(line []byte, now time.Time) {
	if !s.collecting() {
		s.begun, s.text = now, s.text[:0]
	}
	s.text = append(s.text, line[:min(len(line), maxStack+overlap-len(s.text))]...)
	s.text = append(s.text, '\n')
}

// end returns what was collected, masked and cut, and starts anew.
func (s *stack) end(mask func(string) string) string {
	text := mask(strings.ToValidUTF8(string(s.text), "?"))
	if len(text) > maxStack {
		text = strings.ToValidUTF8(text[:maxStack], "") + "\n[cut]"
	}
	s.text, s.begun = nil, time.Time{}
	return strings.TrimRight(text, "\n")
}
