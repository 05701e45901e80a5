// Package event reads the events that programs hand in and writes the payloads
// that receivers get.
//
// Guarantee: what [Parse] accepts is one strict JSON text (RFC 8259, UTF-8, no
// key twice, at most [MaxDepth] levels) whose fields have the documented types;
// everything else is refused with a stable code, and where the text itself is
// at fault with the offset of the byte. What [Encode] writes is compact and a
// fixed point of JavaScript's round trip,
//
//	JSON.stringify(JSON.parse(payload)) === payload
//
// unless that would change a number that the sender wrote. Such a number keeps
// its digits and [Input.Unstable] says so. A payload of [FormatPeanuts] given back
// to Parse encodes, for the same helper, to the same bytes.
//
// The package is pure: no clock, no files, no goroutines, no state. All
// functions may be called concurrently on different values, and [Encode] and
// [Input.Check] on the same ones. The stack does not grow with the text, and time
// and memory stay in proportion to it, however hostile it is; sorting keys adds
// a logarithm.
//
// Reading the source: parse.go knows the fields of an event, scan.go the JSON
// grammar and the order of keys, number.go and text.go the forms of numbers and
// strings, encode.go the two formats of payloads.
package event

import (
	"slices"
	"time"
)

// The types of events that every helper has. A helper may declare further
// ones, see [Helper].
const (
	Created = "entry.created"
	Updated = "entry.updated"
	Deleted = "entry.deleted"
)

// Limits of an event. Lengths are in bytes of UTF-8, after escapes were
// resolved.
const (
	// MaxDepth is how many objects and lists may stand inside each other, the
	// event itself included. RFC 8259, section 9, lets a parser set a limit;
	// 64 is far below what any receiver's parser refuses.
	MaxDepth = 64
	// MaxIDLen is the longest id that a sender may give its event.
	MaxIDLen = 255
	// MaxHelperIDLen is the longest helper id.
	MaxHelperIDLen = 64
	// MaxEntryIDLen is the longest entry id.
	MaxEntryIDLen = 1024
	// MaxUserIDLen is the longest user id.
	MaxUserIDLen = 1024
)

// Format selects which of an event's payloads to write. The numbers are stored
// by the queue and never change meaning.
type Format uint8

const (
	FormatPeanuts Format = 0 // {"event":…,"timestamp":…,"helper":…,"entry":…,"user":…}
	FormatEvent   Format = 1 // {"id":…,"type":…,"created_at":…,"data":…}
)

// FieldType is the declared type of an entry's field.
type FieldType string

const (
	Number  FieldType = "number"
	String  FieldType = "string"
	Boolean FieldType = "boolean"
	List    FieldType = "list"
	Object  FieldType = "object"
)

// Field is one declared field of a helper's entries.
type Field struct {
	Name string
	Type FieldType
}

// Helper is what parsing and encoding need to know of a mini-app. It is never
// modified here and may be shared.
type Helper struct {
	ID      string
	Name    string
	Command string   // "" = none; always part of the payload
	Fields  []Field  // in the file's order, each name once; nil = nothing declared
	Events  []string // declared further types; Created, Updated and Deleted are implied
}

// Types lists every type of event that the helper knows: the three of entries,
// then the declared ones. The slice is the caller's.
func (h *Helper) Types() []string {
	return append([]string{Created, Updated, Deleted}, h.Events...)
}

func (h *Helper) knows(typ string) bool {
	return typ == Created || typ == Updated || typ == Deleted || slices.Contains(h.Events, typ)
}

// Input is one event, read and brought into canonical form. It is made by
// [Parse] or [Sample] and not modified afterwards.
type Input struct {
	ID       string // the sender's own; "" = none
	Type     string // "entry.created"
	HelperID string
	EntryID  string
	UserID   string
	HasUser  bool

	Timestamp time.Time // UTC, whole milliseconds, years 0000 to 9999
	CreatedAt time.Time // of the entry; likewise

	// Data is the entry as one canonical JSON object, without the nulls that
	// [Encode] adds for declared fields.
	Data []byte
	// Unstable: Data holds a number that JavaScript would write differently.
	Unstable bool
}

// ValidID reports whether id can be an event's own id or an idempotency key: 1
// to [MaxIDLen] printable ASCII characters without spaces, so that it is safe
// in a header, a URL and a log.
func ValidID[T ~string | ~[]byte](id T) bool {
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return len(id) > 0 && len(id) <= MaxIDLen
}
