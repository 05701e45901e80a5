package cli

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

// hotLog is the daemon's log, whose level and format can be changed while it is
// written to. Every record is written whole, in one format, by one write, and
// none is lost by a change. Loggers that were derived before follow it.
type hotLog struct {
	app     *app
	out     *lineWriter
	current atomic.Pointer[logFormat]
	set     sync.Mutex // held by Set
}

// logFormat is one setting of the log; immutable.
type logFormat struct {
	config.Log

	level   slog.Level
	handler slog.Handler
}

// newLog writes the daemon's log to standard error as configured.
func (a *app) newLog(c config.Log) *hotLog {
	h := &hotLog{app: a, out: &lineWriter{w: a.rawErr()}}
	h.Set(c)
	return h
}

// Set changes level and format: of every record that is logged after it
// returns, by whatever logger. It may be called concurrently.
func (h *hotLog) Set(c config.Log) {
	h.set.Lock()
	defer h.set.Unlock()
	if now := h.current.Load(); now != nil && now.Log == c {
		return
	}
	level, handler := h.app.logHandler(h.out, c)
	h.current.Store(&logFormat{c, level, handler})
}

// Logger returns the logger that all others are derived from.
func (h *hotLog) Logger() *slog.Logger { return slog.New(&hotHandler{log: h}) }

// hotHandler is a logger's place in the hot log: what With and WithGroup added.
type hotHandler struct {
	log     *hotLog
	parent  *hotHandler                     // nil = the root
	derive  func(slog.Handler) slog.Handler // from the parent's handler
	derived atomic.Pointer[derivedHandler]  // of the format that was used last
}

type derivedHandler struct {
	of      *logFormat
	handler slog.Handler
}

// in returns the handler of this place in a format.
func (h *hotHandler) in(f *logFormat) slog.Handler {
	if h.parent == nil {
		return f.handler
	}
	if d := h.derived.Load(); d != nil && d.of == f {
		return d.handler
	}
	d := &derivedHandler{f, h.derive(h.parent.in(f))}
	h.derived.Store(d)
	return d.handler
}

// Enabled implements [slog.Handler].
func (h *hotHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.log.current.Load().level
}

// Handle implements [slog.Handler].
func (h *hotHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.in(h.log.current.Load()).Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h *hotHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &hotHandler{log: h.log, parent: h, derive: func(of slog.Handler) slog.Handler { return of.WithAttrs(attrs) }}
}

// WithGroup implements [slog.Handler].
func (h *hotHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &hotHandler{log: h.log, parent: h, derive: func(of slog.Handler) slog.Handler { return of.WithGroup(name) }}
}

// lineWriter keeps the lines of two formats apart, which lock each for itself.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(line)
}
