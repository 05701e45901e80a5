package relay

import (
	"log"
	"log/slog"
	"strings"
)

// takeStandardLog makes the standard logger of the process write to l, at Debug,
// until restore. Libraries complain there, and net/http quotes what it complains of.
func takeStandardLog(l *slog.Logger) (restore func()) {
	w, flags := log.Writer(), log.Flags()
	log.SetFlags(0)
	log.SetOutput(standardLog{l})
	return func() {
		log.SetOutput(w)
		log.SetFlags(flags)
	}
}

type standardLog struct{ log *slog.Logger }

// Write leaves out everything from the first quotation mark on: what stands
// there was written by a receiver, who knows the secrets that we sent it.
func (s standardLog) Write(p []byte) (int, error) {
	text, _, quotes := strings.Cut(strings.TrimSpace(string(p)), `"`)
	if quotes {
		text += "…"
	}
	s.log.Debug("library reports", "text", text)
	return len(p), nil
}
