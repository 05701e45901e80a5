package process

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxLast is how many of the last lines of standard error are kept, of lastLine bytes
	// at most each.
	maxLast  = 20
	lastLine = 1 << 10
	// reportEvery is how often a plugin that writes too much is reported.
	reportEvery = 10 * time.Second
)

// output takes what one process writes, on whatever way, within one budget.
type output struct {
	log  *slog.Logger
	mask func(string) string

	read    atomic.Uint64 // bytes, in all
	dropped atomic.Uint64 // lines, in all

	mu           sync.Mutex
	lines, bytes budget
	unreported   uint64 // lines dropped since the last report
	reported     time.Time
	last         []string  // of standard error, masked
	crash        string    // the last stack, masked
	crashed      time.Time // when it began
}

func newOutput(log *slog.Logger, mask func(string) string, l Limits) *output {
	now := time.Now()
	return &output{log: log, mask: mask, lines: newBudget(l.LogLines, now), bytes: newBudget(l.LogBytes, now)}
}

// identify tags what is logged from now on with the process's number.
func (o *output) identify(pid int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log = o.log.With("pid", pid)
}

// take reports whether a line of n bytes may be logged. The caller holds mu.
func (o *output) take(n int, now time.Time) bool {
	o.lines.refill(now)
	o.bytes.refill(now)
	if o.lines.left < 1 || o.bytes.left < float64(n) {
		return false
	}
	o.lines.left--
	o.bytes.left -= float64(n)
	return true
}

// drop counts lines that are not logged, and says so now and then. The caller holds mu.
func (o *output) drop(n int, now time.Time) {
	o.dropped.Add(uint64(n))
	o.unreported += uint64(n)
	if now.Sub(o.reported) >= reportEvery {
		o.report(now)
	}
}

// report says how many lines were dropped since it last did. The caller holds mu.
func (o *output) report(now time.Time) {
	if o.unreported > 0 {
		o.log.Warn("the sink plugin writes too much; lines were dropped", "dropped", o.unreported)
		o.reported, o.unreported = now, 0
	}
}

// remember keeps one of the last lines. The caller holds mu.
func (o *output) remember(line string) {
	if len(line) > lastLine {
		line = strings.ToValidUTF8(line[:lastLine], "") + "…"
	}
	if len(o.last) == maxLast {
		o.last = append(o.last[:0], o.last[1:]...)
	}
	o.last = append(o.last, line)
}

// finish reports what is left to say. Nothing is written afterwards.
func (o *output) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.report(time.Now())
}

// stream is one of the ways on which a process writes.
type stream struct {
	out    *output
	lines  lines
	stack  stack
	errors bool // what is written here are log lines and last words, not chatter
	closed bool // under out.mu
}

func (o *output) stream(errors bool, maxLine int) *stream {
	s := &stream{out: o, errors: errors, stack: stack{starts: stackStarts()}}
	s.lines = lines{max: maxLine, line: s.line, skip: s.skip}
	return s
}

// Write takes what was read. It never fails.
func (s *stream) Write(p []byte) (int, error) {
	s.out.read.Add(uint64(len(p)))
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if !s.closed {
		s.lines.write(p)
		s.settle(time.Now(), false)
	}
	return len(p), nil
}

// idle is called when nothing came for a while.
func (s *stream) idle() {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.settle(time.Now(), true)
}

// collecting reports whether the stream waits for the rest of a stack.
func (s *stream) collecting() bool {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	return s.stack.collecting()
}

// close gives what has not ended yet. Whatever is written afterwards is ignored.
func (s *stream) close() {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if !s.closed {
		s.lines.flush()
		s.settle(time.Now(), true)
		s.closed = true
	}
}

// settle ends a stack that is complete or takes too long.
func (s *stream) settle(now time.Time, complete bool) {
	if !s.stack.collecting() || !complete && now.Sub(s.stack.begun) < stackAge {
		return
	}
	s.out.crashed = s.stack.begun
	s.out.crash = s.stack.end(s.out.mask)
	s.out.log.Error("the sink plugin wrote a stack", "stack", s.out.crash)
}

func (s *stream) line(text []byte, cut bool) bool {
	now, o := time.Now(), s.out
	text = bytes.TrimSuffix(text, []byte("\r"))
	if s.stack.full() {
		o.drop(1, now)
		return false
	}
	if s.errors && (s.stack.begins(text) || s.stack.collecting() && (len(text) == 0 || text[0] != '{')) {
		s.stack.add(text, now)
		return true
	}
	if !o.take(len(text), now) {
		o.drop(1, now)
		return false
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return true
	}
	r, ok := record{}, false
	if s.errors && !cut {
		r, ok = parseRecord(text, o.mask)
	}
	if !ok {
		r = plainRecord(s.cut(o.mask(string(text)), cut))
		if !s.errors {
			r.level = slog.LevelDebug
		}
	}
	if s.errors {
		o.remember(r.String())
	}
	r.log(o.log)
	return true
}

// cut shortens a masked line to what is shown.
func (s *stream) cut(line string, was bool) string {
	if len(line) > s.lines.max {
		line, was = strings.ToValidUTF8(line[:s.lines.max], ""), true
	}
	if was {
		line += " [cut]"
	}
	return line
}

func (s *stream) skip(text []byte) int {
	n := len(text)
	if s.errors && !s.stack.full() {
		n = s.stack.find(text)
	}
	s.out.drop(bytes.Count(text[:n], []byte("\n")), time.Now())
	return n
}
