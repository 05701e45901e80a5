package cli

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

// logHandler makes a handler of the configured format that writes to w, with one
// write for each record.
func (a *app) logHandler(w io.Writer, c config.Log) (slog.Level, slog.Handler) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	format := c.Format
	if format == "" || format == "auto" {
		format = "text"
		if a.isJournal() {
			format = "journal"
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "json":
		return level, slog.NewJSONHandler(w, options)
	case "journal":
		return level, newJournalHandler(w, level)
	}
	return level, slog.NewTextHandler(w, options)
}

// journalHandler writes lines with the priority before them and without the
// time, which the journal has itself (sd-daemon(3), "<N>" prefixes).
type journalHandler struct {
	inner slog.Handler
	out   *priorityWriter // shared by all handlers made from one
}

// priorityWriter puts a prefix before each write; the text handler makes one
// write of each record.
type priorityWriter struct {
	mu     sync.Mutex // held around the whole of Handle
	w      io.Writer
	prefix string
}

func (p *priorityWriter) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}

func newJournalHandler(w io.Writer, level slog.Level) slog.Handler {
	out := &priorityWriter{w: w}
	return &journalHandler{out: out, inner: slog.NewTextHandler(out, &slog.HandlerOptions{Level: level,
		ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
			if len(groups) == 0 && (attr.Key == slog.TimeKey || attr.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return attr
		}})}
}

// Enabled implements [slog.Handler].
func (h *journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.prefix = priority(r.Level)
	return h.inner.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{inner: h.inner.WithAttrs(attrs), out: h.out}
}

// WithGroup implements [slog.Handler].
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{inner: h.inner.WithGroup(name), out: h.out}
}

// priority is the syslog priority of a level (syslog(3)).
func priority(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}
