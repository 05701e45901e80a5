package event

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Codes of [Error]. They are part of the events socket's answers and never
// change.
const (
	// Status 400: the text is at fault; Offset says where.

	CodeInvalidJSON  = "invalid_json"  // not one JSON text; also trailing bytes
	CodeInvalidUTF8  = "invalid_utf8"  // bytes that are not UTF-8 (RFC 3629)
	CodeDuplicateKey = "duplicate_key" // an object has a key twice, however it is spelled
	CodeTooDeep      = "too_deep"      // more than MaxDepth levels
	CodeUnknownField = "unknown_field" // a field outside entry.data that no event has

	// Status 422: the text is JSON, an event it is not; Field says where.

	CodeMissingField = "missing_field" // required, and absent or empty
	CodeWrongType    = "wrong_type"    // not of the JSON type that the field has
	CodeTooLong      = "too_long"      // beyond the field's limit
	CodeBadID        = "bad_id"        // characters that an id cannot have
	CodeBadTime      = "bad_time"      // not RFC 3339, or outside the years 0000 to 9999
	CodeUnknownEvent = "unknown_event" // a type that the helper does not know
	CodeFieldType    = "field_type"    // a value that contradicts the helper's fields

	CodeUnknownHelper = "unknown_helper" // a helper that is not configured
)

const (
	statusBadRequest    = 400 // RFC 9110, section 15.5.1
	statusUnprocessable = 422 // RFC 9110, section 15.5.21
)

// Error says why an event is refused. Message is complete: it names the
// place and the suggestion too, and quotes no more than a clipped name or type
// of what came.
type Error struct {
	Status     int    // 400 or 422, as an HTTP status
	Code       string // one of the Code constants
	Message    string
	Field      string // path such as "entry.id"; "" when no field is to blame
	Offset     int64  // 0-based, in bytes, into the text; -1 = none
	Suggestion string // what was probably meant; "" = nothing is near
}

func (e *Error) Error() string { return e.Message }

// malformed is an error about the text itself.
func malformed(code string, at int, format string, args ...any) *Error {
	return &Error{Status: statusBadRequest, Code: code, Offset: int64(at),
		Message: fmt.Sprintf(format, args...) + " (byte " + strconv.Itoa(at) + ")"}
}

// unacceptable is an error about what a field says. The message begins with the
// field.
func unacceptable(code, field, format string, args ...any) *Error {
	return &Error{Status: statusUnprocessable, Code: code, Field: field, Offset: -1,
		Message: field + " " + fmt.Sprintf(format, args...)}
}

func wrongType(field, got, want string) *Error {
	return unacceptable(CodeWrongType, field, "is %s, want %s", article(got), want)
}

// of sets the field to blame.
func (e *Error) of(field string) *Error {
	e.Field = field
	return e
}

// suggest adds what was probably meant.
func (e *Error) suggest(word string) *Error {
	if word != "" {
		e.Suggestion = word
		e.Message += fmt.Sprintf("; did you mean %q?", word)
	}
	return e
}

// clip shortens a sender's word for an error message: a hostile one may be as
// long as the body.
func clip[T ~string | ~[]byte](s T) string {
	const most = 64
	if len(s) <= most {
		return string(s)
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return string(s[:end]) + "…"
}

func article(kind string) string {
	switch kind {
	case "null":
		return kind
	case "object":
		return "an " + kind
	}
	return "a " + kind
}
