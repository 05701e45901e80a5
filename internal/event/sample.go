package event

import (
	"slices"
	"strings"
	"time"
	"unicode"
)

// Sample makes an event for trying out a webhook: of the given type, about
// entryID, at the given time, by a user, with a value for every field that the
// helper declares. The values are plausible for the fields' names and types and
// depend on nothing else. A helper without fields gets a title. The result
// passes [Input.Check] when the helper knows typ.
func Sample(h *Helper, typ, entryID string, now time.Time) *Input {
	now = now.UTC().Truncate(time.Millisecond)
	fields := h.Fields
	if len(fields) == 0 {
		fields = []Field{{Name: "title", Type: String}}
	}
	text := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(appendQuoted(text, f.Name), ':')
		text = appendSampleValue(text, f, now)
	}
	s := scanner{in: append(text, '}')}
	in := &Input{Type: typ, HelperID: h.ID, EntryID: entryID, UserID: "test_user", HasUser: true,
		Timestamp: now, CreatedAt: now, Data: []byte("{}")}
	// Only a helper that declares one name twice has no sample.
	if data, err := s.value(nil); err == nil {
		in.Data = data
	}
	return in
}

func appendSampleValue(dst []byte, f Field, now time.Time) []byte {
	name := snake(f.Name)
	switch f.Type {
	case Number:
		return append(dst, sampleOf(sampleNumbers, name, "1")...)
	case Boolean:
		return append(dst, "true"...)
	case List:
		return append(dst, `["sample"]`...)
	case Object:
		return append(dst, `{"sample":true}`...)
	}
	switch {
	case named(name, "date", "day", "birthday"):
		return appendQuoted(dst, now.Format(time.DateOnly))
	case named(name, "time", "timestamp", "at"):
		return appendTime(dst, now)
	}
	return appendQuoted(dst, sampleOf(sampleStrings, name, "Sample "+f.Name))
}

// sampleRule gives the value for fields whose name has one of the words, which
// are separated by spaces.
type sampleRule struct{ words, value string }

// The receiver of a sample sees a decimal fraction and characters that naive
// encoders escape, if the helper has such fields at all.
var (
	sampleNumbers = []sampleRule{
		{"amount price total cost sum fee balance salary", "42.5"},
		{"quantity count qty number items", "3"},
		{"percent percentage rate ratio score rating", "4.5"},
		{"age", "30"}, {"year", "2025"}, {"month", "1"},
		{"duration minutes seconds hours", "25"}, {"weight distance", "12.25"},
		{"lat latitude", "52.52"}, {"lon lng longitude", "13.405"},
	}
	sampleStrings = []sampleRule{
		{"email mail", "sample@example.com"},
		{"url link website homepage", "https://example.com/sample?a=1&b=2"},
		{"phone tel mobile", "+1 555 0100"},
		{"category", "Food & Dining"},
		{"currency", "EUR"}, {"country", "DE"}, {"city", "Zürich"},
		{"status state", "open"}, {"priority", "normal"}, {"color colour", "#4a7c59"},
		{"id uuid key reference", "sample-1"},
	}
)

func sampleOf(rules []sampleRule, name, otherwise string) string {
	for _, r := range rules {
		if named(name, strings.Fields(r.words)...) {
			return r.value
		}
	}
	return otherwise
}

// named reports whether one of the words is a part of a name such as
// total_amount.
func named(name string, words ...string) bool {
	separates := func(r rune) bool { return r == '_' || r == '-' || r == ' ' || r == '.' }
	for part := range strings.FieldsFuncSeq(name, separates) {
		if slices.Contains(words, part) {
			return true
		}
	}
	return false
}

// snake writes a name such as totalAmount as total_amount.
func snake(name string) string {
	var b strings.Builder
	lower := false // the character before
	for _, r := range name {
		if lower && unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		lower = unicode.IsLower(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
