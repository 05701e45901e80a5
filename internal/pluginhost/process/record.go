package process

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"unicode"
)

const (
	// maxAttrs is how many attributes of a plugin's record are taken over.
	maxAttrs = 32
	// maxKey is the length of the longest name of an attribute, in bytes.
	maxKey = 64
)

// record is one line of a plugin as the log gets it.
type record struct {
	level   slog.Level
	message string
	attrs   []slog.Attr
}

// parseRecord reads a JSON object per line as slog's JSONHandler and hclog write it. ok is
// false for anything else. Any object will do, whatever its members hold.
func parseRecord(line []byte, mask func(string) string) (r record, ok bool) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] != '{' {
		return record{}, false
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if _, err := dec.Token(); err != nil {
		return record{}, false
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return record{}, false
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return record{}, false
		}
		r.member(key.(string), value, mask) // within an object the decoder gives names as strings
	}
	if _, err := dec.Token(); err != nil || dec.InputOffset() != int64(len(line)) {
		return record{}, false
	}
	if r.message == "" {
		r.message = "(no message)"
	}
	return r, true
}

func (r *record) member(key string, value any, mask func(string) string) {
	switch key {
	case "time", "@timestamp":
		return // the record has the time at which it was read
	case "msg", "@message":
		r.message = clean(text(hide(value, mask)))
		return
	case "level", "@level":
		r.level = level(text(value))
		return
	}
	if len(r.attrs) == maxAttrs {
		return
	}
	if key == "sink" || key == "pid" { // ours
		key = "plugin." + key
	}
	if key = clean(mask(key)); len(key) > maxKey {
		key = strings.ToValidUTF8(key[:maxKey], "")
	}
	r.attrs = append(r.attrs, slog.Any(key, plain(value, mask)))
}

// plain is a value without secrets: a number, a truth value, or text.
func plain(value any, mask func(string) string) any {
	switch v := hide(value, mask).(type) {
	case nil, bool, json.Number:
		return v
	default:
		return clean(text(v))
	}
}

// hide masks what is in a value, before it is written as JSON again and escapes hide it
// from mask.
func hide(value any, mask func(string) string) any {
	switch v := value.(type) {
	case string:
		return mask(v)
	case json.Number:
		if t := mask(v.String()); t != v.String() {
			return t
		}
	case []any:
		for i := range v {
			v[i] = hide(v[i], mask)
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, member := range v {
			out[mask(key)] = hide(member, mask)
		}
		return out
	}
	return value
}

// text is what a person reads of a value.
func text(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return "?"
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// level reads slog's and hclog's names of levels. What it does not know is Info.
func level(name string) slog.Level {
	if strings.EqualFold(name, "trace") {
		return slog.LevelDebug - 4
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo
	}
	return min(max(l, slog.LevelDebug-4), slog.LevelError+4)
}

// plainRecord is a line that is no JSON. What it begins with may name its level.
func plainRecord(line string) record {
	r := record{level: slog.LevelInfo, message: clean(line)}
	for _, known := range []struct {
		prefix string
		level  slog.Level
	}{
		{"[TRACE]", slog.LevelDebug - 4}, {"[DEBUG]", slog.LevelDebug}, {"[INFO]", slog.LevelInfo},
		{"[WARN]", slog.LevelWarn}, {"[ERROR]", slog.LevelError},
	} {
		if rest, ok := strings.CutPrefix(r.message, known.prefix); ok {
			r.level, r.message = known.level, strings.TrimSpace(rest)
		}
	}
	return r
}

// String is the record in one line, for people.
func (r record) String() string {
	var b strings.Builder
	b.WriteString(r.message)
	for _, a := range r.attrs {
		b.WriteString(" " + a.String())
	}
	return b.String()
}

func (r record) log(l *slog.Logger) {
	l.LogAttrs(context.Background(), r.level, r.message, r.attrs...)
}

// clean makes one harmless line of text: no control characters, valid UTF-8.
func clean(text string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == unicode.ReplacementChar || unicode.Is(unicode.Cf, c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, " ")))
}
