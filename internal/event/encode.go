package event

import (
	"iter"
	"slices"

	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// Encode appends the payload of in for webhooks of h that take format f.
//
// On [Created], fields that h declares and the data lacks are added as null:
// integer-like names in ascending order among their like, the others after the
// rest of the data in the order of h.Fields.
//
// In [FormatEvent] the id of the envelope is eventID. When that is "", the queue
// has yet to give one out: [id.EventLen] bytes '0' stand in its place, and idAt
// is their offset in payload. Otherwise idAt is 0. The data begins with the
// entry's id, after any integer-like keys; an id of the data itself wins and
// keeps its place. FormatPeanuts has no place for an event's id.
//
// The payload grows with the data: a number of 4 bytes such as 1e20 may take
// 21.
func Encode(dst []byte, in *Input, h *Helper, f Format, eventID string) (payload []byte, idAt int) {
	const envelope = 256 // keys, times, a generated id, and room for a few escapes
	dst = slices.Grow(dst, envelope+len(in.Type)+len(h.ID)+len(h.Name)+len(h.Command)+
		len(in.EntryID)+len(in.UserID)+len(eventID)+len(in.Data))

	if f == FormatEvent {
		dst = append(dst, `{"id":"`...)
		if eventID == "" {
			idAt = len(dst)
			dst = appendZeros(dst, int64(id.EventLen))
		} else {
			dst = appendEscaped(dst, eventID)
		}
		dst = appendQuoted(append(dst, `","type":`...), in.Type)
		dst = appendTime(append(dst, `,"created_at":`...), in.Timestamp)
		dst = appendData(append(dst, `,"data":`...), in, h, true)
		return append(dst, '}'), idAt
	}

	dst = appendQuoted(append(dst, `{"event":`...), in.Type)
	dst = appendTime(append(dst, `,"timestamp":`...), in.Timestamp)
	dst = appendQuoted(append(dst, `,"helper":{"id":`...), h.ID)
	dst = appendQuoted(append(dst, `,"name":`...), h.Name)
	dst = appendQuoted(append(dst, `,"command":`...), h.Command)
	dst = appendQuoted(append(dst, `},"entry":{"id":`...), in.EntryID)
	dst = appendData(append(dst, `,"data":`...), in, h, false)
	dst = appendTime(append(dst, `,"created_at":`...), in.CreatedAt)
	if in.HasUser {
		dst = appendQuoted(append(dst, `},"user":{"id":`...), in.UserID)
	}
	return append(dst, '}', '}'), 0
}

// appendData appends the data with what the format and the helper's fields add
// to it.
func appendData(dst []byte, in *Input, h *Helper, withID bool) []byte {
	var few [16]string
	var missing []string
	hasID := false
	if in.Type == Created {
		missing = absent(few[:0], in.Data, h.Fields)
	}
	if withID {
		for key := range members(in.Data) {
			hasID = hasID || string(key) == "id"
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == "id" })
	}
	if len(missing) == 0 && (hasID || !withID) {
		return append(dst, in.Data...)
	}

	// Integer-like names come first; among the others the order stays.
	slices.SortStableFunc(missing, func(a, b string) int {
		return compareIndex(arrayIndex(a), arrayIndex(b))
	})
	addID := withID && !hasID
	open := len(dst) + 1
	comma := func() {
		if len(dst) > open {
			dst = append(dst, ',')
		}
	}
	// before adds what comes in front of a key with the given index.
	before := func(index int64) {
		for len(missing) > 0 && compareIndex(arrayIndex(missing[0]), index) < 0 {
			comma()
			dst = append(appendQuoted(dst, missing[0]), ":null"...)
			missing = missing[1:]
		}
		if addID && index < 0 {
			comma()
			dst = appendQuoted(append(dst, `"id":`...), in.EntryID)
			addID = false
		}
	}

	dst = append(dst, '{')
	for key, value := range members(in.Data) {
		before(arrayIndex(key))
		comma()
		dst = append(append(append(dst, '"'), key...), '"', ':')
		dst = append(dst, value...)
	}
	before(-1)
	for _, name := range missing {
		comma()
		dst = append(appendQuoted(dst, name), ":null"...)
	}
	return append(dst, '}')
}

// absent appends the names of the fields that data lacks.
func absent(dst []string, data []byte, fields []Field) []string {
	var few [32]bool
	seen := few[:]
	if len(fields) > len(seen) {
		seen = make([]bool, len(fields))
	}
	for key := range members(data) {
		for i := range fields {
			if !seen[i] && spells(key, fields[i].Name) {
				seen[i] = true
				break
			}
		}
	}
	for i := range fields {
		if !seen[i] {
			dst = append(dst, fields[i].Name)
		}
	}
	return dst
}

// spells reports whether a canonical key, without its quotes, stands for name.
func spells(key []byte, name string) bool {
	if len(key) == len(name) {
		// An escape is longer than what it stands for, so that equal bytes with
		// a backslash in them are different names.
		return string(key) == name && !slices.Contains(key, '\\')
	}
	if len(key) < len(name) || !slices.Contains(key, '\\') {
		return false
	}
	var room [64]byte
	return string(appendEscaped(room[:0], name)) == string(key)
}

// members yields the keys, without their quotes, and the values of a canonical
// JSON object.
func members(data []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for i := 1; i < len(data) && data[i] == '"'; i++ {
			colon := skipString(data, i)
			end := skipValue(data, colon+1)
			if end > len(data) || !yield(data[i+1:colon-1], data[colon+1:end]) {
				return
			}
			i = end
		}
	}
}

// skipString returns the offset after the string that begins at i.
func skipString(data []byte, i int) int {
	for i++; i < len(data) && data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// skipValue returns the offset after the value that begins at i.
func skipValue(data []byte, i int) int {
	for depth := 0; i < len(data); {
		switch data[i] {
		case '"':
			i = skipString(data, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}
