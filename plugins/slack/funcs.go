package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// run is one execution of a template: when it began, and what is left of its bounds.
type run struct {
	clock func() time.Time
	now   time.Time
	until time.Time
	steps int
}

// markup is text that was made by a function here and is not escaped again.
type markup string

// funcs are what a template can call. Those that text/template has itself and that are
// not bounded are replaced; comparisons are, so that a field that is missing, or of
// another type, is not an error.
func (r *run) funcs() template.FuncMap {
	return template.FuncMap{
		"_step":   r.step,
		"_escape": r.escape,

		"eq": func(a any, b ...any) bool { return equal(a, b) },
		"ne": func(a any, b ...any) bool { return !equal(a, b) },
		"lt": func(a, b any) bool { c, ok := compare(a, b); return ok && c < 0 },
		"le": func(a, b any) bool { c, ok := compare(a, b); return ok && c <= 0 },
		"gt": func(a, b any) bool { c, ok := compare(a, b); return ok && c > 0 },
		"ge": func(a, b any) bool { c, ok := compare(a, b); return ok && c >= 0 },

		"print":    func(args ...any) (string, error) { return r.printf(strings.Repeat("%v", len(args)), args...) },
		"println":  func(args ...any) (string, error) { return r.printf(strings.Repeat("%v ", len(args)), args...) },
		"printf":   r.printf,
		"html":     func(v any) (string, error) { return r.text1(v, template.HTMLEscapeString) },
		"js":       func(v any) (string, error) { return r.text1(v, template.JSEscapeString) },
		"urlquery": func(v any) (string, error) { return r.text1(v, url.QueryEscape) },
		"call":     func() (string, error) { return "", fmt.Errorf("call cannot be used here") },

		"upper":     func(v any) (string, error) { return r.text1(v, strings.ToUpper) },
		"lower":     func(v any) (string, error) { return r.text1(v, strings.ToLower) },
		"trim":      func(v any) (string, error) { return r.text1(v, strings.TrimSpace) },
		"truncate":  r.truncate,
		"replace":   r.replace,
		"contains":  func(part, v any) (bool, error) { return r.text2(part, v, strings.Contains) },
		"hasPrefix": func(part, v any) (bool, error) { return r.text2(part, v, strings.HasPrefix) },
		"join":      r.join,
		"default":   fallbackTo,
		"get":       get,
		"json":      r.json,
		"int":       integer,
		"time":      func(v any) time.Time { t, _, _ := moment(v); return t },
		"date":      r.date,
		"now":       func() time.Time { return r.now.UTC() },
		"within":    r.within,
		"local":     r.local,
		"link":      r.link,
		"mention":   mention,
	}
}

// step counts a round.
func (r *run) step() (string, error) {
	if r.steps--; r.steps < 0 {
		return "", errTooMany
	}
	return "", r.late()
}

func (r *run) late() error {
	if r.clock().After(r.until) {
		return errTooSlow
	}
	return nil
}

// escape is what prints. null, and what is missing, is nothing.
func (r *run) escape(v any) (string, error) {
	if m, ok := v.(markup); ok {
		return string(m), nil
	}
	s, err := r.text(v)
	return escape(s), err
}

// text is a value as text, bounded: a list or an object as JSON.
func (r *run) text(v any) (string, error) {
	if err := r.late(); err != nil {
		return "", err
	}
	var s string
	switch v := v.(type) {
	case nil:
	case string:
		s = v
	case markup:
		s = string(v)
	case time.Time:
		s = v.UTC().Format(time.RFC3339)
	case fmt.Stringer:
		s = v.String()
	case bool, int, int64, float64, rune:
		s = fmt.Sprint(v)
	default:
		return r.json(v)
	}
	return bounded(s)
}

func bounded(s string) (string, error) {
	if len(s) > maxOutput {
		return "", errTooLong
	}
	return s, nil
}

func (r *run) text1(v any, f func(string) string) (string, error) {
	s, err := r.text(v)
	if err != nil {
		return "", err
	}
	return bounded(f(s))
}

func (r *run) text2(a, b any, f func(s, part string) bool) (bool, error) {
	part, err := r.text(a)
	if err != nil {
		return false, err
	}
	s, err := r.text(b)
	return err == nil && f(s, part), err
}

// wide finds what could make a format's result large: a width or precision of more than
// three digits, or one that is an argument.
var wide = regexp.MustCompile(`%[^a-zA-Z%]*(\d{4}|\*)`)

// printf is fmt.Sprintf for numbers and text.
func (r *run) printf(format string, args ...any) (string, error) {
	if wide.MatchString(format) || strings.Count(format, "%") > 32 || len(format) > maxOutput {
		return "", errBadPrint
	}
	for i, a := range args {
		switch a := a.(type) {
		case number, bool, int, int64, float64, rune:
		default:
			s, err := r.text(a)
			if err != nil {
				return "", err
			}
			args[i] = s
		}
	}
	return bounded(fmt.Sprintf(format, args...))
}

func (r *run) truncate(n int, v any) (string, error) {
	return r.text1(v, func(s string) string { return sinks.Truncate(s, max(n, 1)) })
}

func (r *run) replace(from, to string, v any) (string, error) {
	s, err := r.text(v)
	if err != nil {
		return "", err
	}
	if len(s)+strings.Count(s, from)*max(len(to)-len(from), 0) > maxOutput {
		return "", errTooLong
	}
	return strings.ReplaceAll(s, from, to), nil
}

// join puts a list's items in one text.
func (r *run) join(separator string, v any) (string, error) {
	list, ok := v.([]any)
	if !ok {
		return r.text(v)
	}
	var b strings.Builder
	for i, item := range list {
		s, err := r.text(item)
		if err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteString(separator)
		}
		b.WriteString(s)
		if b.Len() > maxOutput {
			return "", errTooLong
		}
	}
	return b.String(), nil
}

// fallbackTo is v, or else when v is missing, null or empty.
func fallbackTo(otherwise, v any) any {
	if v == nil || v == "" || v == markup("") {
		return otherwise
	}
	return v
}

// get follows a path such as "place.city" or "tags.0" into a value; nil where it ends.
func get(path string, v any) any {
	for part := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

func (r *run) json(v any) (string, error) {
	if err := r.late(); err != nil {
		return "", err
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("cannot be written as JSON: %w", err)
	}
	return bounded(strings.TrimSuffix(b.String(), "\n"))
}

// integer is a number without its fraction, for printf "%d".
func integer(v any) (int64, error) {
	f, ok := float(v)
	if !ok || f >= 1<<63 || f < -1<<63 {
		return 0, fmt.Errorf("int: not a number, or too large")
	}
	return int64(f), nil
}

// date writes a moment by Go's layout, in UTC; nothing when v is none.
func (r *run) date(layout string, v any) (string, error) {
	t, _, ok := moment(v)
	if !ok {
		return "", nil
	}
	return bounded(t.UTC().Format(layout))
}

// local writes a moment in the zone of who reads it.
func (r *run) local(v any) (any, error) {
	t, day, ok := moment(v)
	switch {
	case !ok:
		return r.text(v)
	case day:
		return t.Format(time.DateOnly), nil
	}
	return markup(localTime(t)), nil
}

// within says whether v lies between now and now + span, such as "24h" or "7d". A date
// without a time is the whole day, in UTC.
func (r *run) within(span string, v any) (bool, error) {
	d, err := time.ParseDuration(span)
	if days, ok := strings.CutSuffix(span, "d"); err != nil && ok {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		d = time.Duration(n * 24 * float64(time.Hour))
	}
	if err != nil || d < 0 {
		return false, fmt.Errorf("within: %q is not a duration such as 24h or 7d", sinks.Truncate(span, 20))
	}
	t, day, ok := moment(v)
	if !ok {
		return false, nil
	}
	end := t
	if day {
		end = t.Add(24*time.Hour - time.Nanosecond)
	}
	return !t.After(r.now.Add(d)) && !end.Before(r.now), nil
}

// link is a link to a URL, with another text when one is given.
func (r *run) link(to any, label ...any) (any, error) {
	s, err := r.text(to)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "mailto") || strings.ContainsAny(s, "|<>") {
		return s, nil // data that is no link stays text
	}
	shown := s
	if len(label) > 0 {
		if shown, err = r.text(label[0]); err != nil {
			return "", err
		}
	}
	return markup("<" + escape(u.String()) + "|" + strings.ReplaceAll(escape(line(shown)), "|", "/") + ">"), nil
}

var (
	memberID = regexp.MustCompile(`^[UW][A-Z0-9]{2,20}$`)
	groupID  = regexp.MustCompile(`^S[A-Z0-9]{2,20}$`)
)

// mention notifies a member or a group by id; what is no such id stays text.
func mention(v any) any {
	id, _ := v.(string)
	switch {
	case memberID.MatchString(id):
		return markup("<@" + id + ">")
	case groupID.MatchString(id):
		return markup("<!subteam^" + id + ">")
	}
	return v
}

// moment reads a time, or a text that is one; day says that it has no time of day.
func moment(v any) (t time.Time, day, ok bool) {
	switch v := v.(type) {
	case time.Time:
		return v, false, true
	case string:
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04"} {
			if t, err := time.Parse(layout, v); err == nil {
				return t, false, true
			}
		}
		if t, err := time.Parse(time.DateOnly, v); err == nil {
			return t, true, true
		}
	}
	return time.Time{}, false, false
}

// float reads a number, also one that is written in a text.
func float(v any) (float64, bool) {
	switch v := v.(type) {
	case number:
		return float64(v), true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil || f != 0 // beyond the range it is infinite, which still compares
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		return f, err == nil
	}
	switch x := reflect.ValueOf(v); {
	case x.CanInt():
		return float64(x.Int()), true
	case x.CanFloat():
		return x.Float(), true
	}
	return 0, false
}

// compare orders numbers by value, moments by time and other texts by their characters.
func compare(a, b any) (int, bool) {
	as, aText := a.(string)
	bs, bText := b.(string)
	if at, _, ok := moment(a); ok {
		if bt, _, ok := moment(b); ok {
			return at.Compare(bt), true
		}
	}
	af, aOK := float(a)
	bf, bOK := float(b)
	switch {
	case aOK && bOK:
		if af < bf {
			return -1, true
		} else if af > bf {
			return 1, true
		}
		return 0, af == bf
	case aText && bText:
		return strings.Compare(as, bs), true
	}
	return 0, false
}

// equal says whether a is one of bs. Texts are compared as texts, unless the other is a
// number.
func equal(a any, bs []any) bool {
	for _, b := range bs {
		as, aText := a.(string)
		bs, bText := b.(string)
		switch ab, aBool := a.(bool); {
		case aText && bText:
			if as == bs {
				return true
			}
		case aBool:
			if bb, ok := b.(bool); ok && ab == bb {
				return true
			}
		case a == nil || b == nil:
			if a == nil && b == nil {
				return true
			}
		default:
			if c, ok := compare(a, b); ok && c == 0 {
				return true
			}
		}
	}
	return false
}
