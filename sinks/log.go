package sinks

import (
	"context"
	"log/slog"
	"os"
)

// newLog writes the lines that the relay reads: one JSON object each, with time, level
// and msg.
func newLog(to *os.File) slog.Handler {
	return slog.NewJSONHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug})
}

// maskHandler hides secrets of settings and the paths of URLs in errors.
type maskHandler struct {
	slog.Handler
	mask *masker
}

func (h maskHandler) Handle(ctx context.Context, r slog.Record) error {
	masked := slog.NewRecord(r.Time, r.Level, h.mask.text(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		masked.AddAttrs(h.attr(a))
		return true
	})
	return h.Handler.Handle(ctx, masked)
}

func (h maskHandler) attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		v = slog.StringValue(h.mask.text(v.String()))
	case slog.KindGroup:
		group := v.Group()
		masked := make([]slog.Attr, len(group))
		for i, inner := range group {
			masked[i] = h.attr(inner)
		}
		v = slog.GroupValue(masked...)
	case slog.KindAny:
		if err, ok := v.Any().(error); ok && err != nil {
			v = slog.StringValue(h.mask.error(err))
		}
	}
	return slog.Attr{Key: a.Key, Value: v}
}

func (h maskHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	masked := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		masked[i] = h.attr(a)
	}
	return maskHandler{h.Handler.WithAttrs(masked), h.mask}
}

func (h maskHandler) WithGroup(name string) slog.Handler {
	return maskHandler{h.Handler.WithGroup(name), h.mask}
}
