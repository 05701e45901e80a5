package relay

import (
	"log"
	"log/slog"
	"runtime"
	"strings"
)

// takeStandardLog makes the standard logger of the process write to l, at Debug,
// until restore. Libraries complain there, and net/http quotes what it complains of.
// The last words of one that ends the process with log.Fatal are an error, and abort is
// called then; nil is nothing.
func takeStandardLog(l *slog.Logger, abort func()) (restore func()) {
	w, flags := log.Writer(), log.Flags()
	log.SetFlags(0)
	log.SetOutput(standardLog{l, abort})
	return func() {
		log.SetOutput(w)
		log.SetFlags(flags)
	}
}

type standardLog struct {
	log   *slog.Logger
	abort func()
}

// Write leaves out everything from the first quotation mark on: what stands
// there was written by a receiver, who knows the secrets that we sent it.
func (s standardLog) Write(p []byte) (int, error) {
	text, _, quotes := strings.Cut(strings.TrimSpace(string(p)), `"`)
	if quotes {
		text += "…"
	}
	if !fatal() {
		s.log.Debug("library reports", "text", text)
		return len(p), nil
	}
	text, _, _ = strings.Cut(text, "\n") // a stack follows
	s.log.Error("a library ends the process; nothing that was acknowledged is lost", "text", text)
	if s.abort != nil {
		s.abort()
	}
	return len(p), nil
}

// fatal reports whether the caller writes for log.Fatal, Fatalf or Fatalln.
func fatal() bool {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if name, ok := strings.CutPrefix(f.Function, "log."); ok && strings.Contains(name, "Fatal") {
			return true
		}
		if !more {
			return false
		}
	}
}
