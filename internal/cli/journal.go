package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// What goes to the journal's stream has a priority in front of each line
// (sd-daemon(3)), the log as well as what is said outside of it. The journal's own
// protocol would carry attributes as fields of their own; it needs a second
// connection, whose lines do not keep their order with those of a plugin or of the
// runtime's last words, and `journalctl` shows them only when it is asked to. So
// the attributes stay in the message, where everybody sees them.

// isJournal reports whether standard error is the journal's stream itself: what
// JOURNAL_STREAM says of its device and inode must hold, for a child of a
// service may have it redirected (systemd.exec(5), "$JOURNAL_STREAM").
func (a *app) isJournal() bool {
	stream := a.env("JOURNAL_STREAM")
	file, ok := a.rawErr().(*os.File)
	if stream == "" || !ok {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(int(file.Fd()), &st) != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// markErr makes all that is said on standard error from now on known to the journal by
// its priority, if it goes there. The log does that by itself.
func (a *app) markErr() {
	if a.isJournal() {
		a.Err = &markedLines{w: a.Err}
	}
}

// rawErr is standard error without what markErr did.
func (a *app) rawErr() io.Writer {
	if m, ok := a.Err.(*markedLines); ok {
		return m.w
	}
	return a.Err
}

// markedLines writes text for people with a priority in front of each line: that of
// the error or warning that the line begins or belongs to, else notice.
type markedLines struct {
	mu       sync.Mutex
	w        io.Writer
	begun    []byte // of a line that has not ended
	priority string
}

// Write implements [io.Writer]. What does not end a line is kept for the next call.
func (m *markedLines) Write(text []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begun = append(m.begun, text...)
	end := bytes.LastIndexByte(m.begun, '\n') + 1
	var out []byte
	for line := range bytes.Lines(m.begun[:end]) {
		if len(line) > 1 { // the journal passes over empty ones
			out = append(append(out, m.mark(line)...), line...)
		}
	}
	m.begun = append(m.begun[:0], m.begun[end:]...)
	if _, err := m.w.Write(out); err != nil {
		return 0, err
	}
	return len(text), nil
}

// mark is the priority of a line.
func (m *markedLines) mark(line []byte) string {
	switch {
	case bytes.HasPrefix(line, []byte("error:")):
		m.priority = "<3>"
	case bytes.HasPrefix(line, []byte("warning:")):
		m.priority = "<4>"
	case m.priority == "" || !belongs(line):
		m.priority = "<5>"
	}
	return m.priority
}

// belongs reports whether a line goes on with what was said before: hints are indented,
// and the frame around a line of the configuration begins with its number.
func belongs(line []byte) bool { return line[0] == ' ' || '0' <= line[0] && line[0] <= '9' }
