package event

import (
	"bytes"
	"strings"
	"time"
)

// place is a field of an event's text.
type place uint8

const (
	atEvent place = iota
	atTimestamp
	atHelper
	atEntry
	atUser
	atID
	atHelperID
	atHelperName
	atHelperCommand
	atEntryID
	atEntryData
	atEntryCreatedAt
	atUserID
	numPlaces

	noPlace = numPlaces
)

var paths = [numPlaces]string{
	atEvent: "event", atTimestamp: "timestamp", atHelper: "helper", atEntry: "entry", atUser: "user", atID: "id",
	atHelperID: "helper.id", atHelperName: "helper.name", atHelperCommand: "helper.command",
	atEntryID: "entry.id", atEntryData: "entry.data", atEntryCreatedAt: "entry.created_at",
	atUserID: "user.id",
}

// envelope reads everything around an entry's data.
type envelope struct {
	scanner
	*result
	seen  [numPlaces]bool
	texts [numPlaces][]byte // UTF-8; most are parts of the sender's text

	// refusal is what is wrong with an event whose text is still well-formed.
	// It is returned only when all of the text is: a broken text is a 400
	// whatever its first half says.
	refusal *Error
}

// result is an Input with room for its Data in the same allocation, which
// resultRoom makes one of 512 bytes.
type result struct {
	Input
	room [resultRoom]byte
}

const resultRoom = 320

// Parse reads one event: the fields of the events socket, or a whole payload of
// [FormatPeanuts]. Event, helper (an id, or an object with id) and entry.id are
// required. The entry's data defaults to {}, timestamp and entry.created_at to
// now. Times are converted to UTC and cut to milliseconds.
//
// Whether the helper exists, knows the type and takes the data is not asked
// here; see [Input.Check]. The error is an [*Error]. The Input keeps no
// reference to body.
func Parse(body []byte, now time.Time) (*Input, error) {
	e := envelope{scanner: scanner{in: body}, result: new(result)}
	e.Timestamp = now.UTC().Truncate(time.Millisecond)
	e.CreatedAt = e.Timestamp
	if err := e.document(); err != nil {
		return nil, err
	}
	e.finish()
	return &e.result.Input, nil
}

// document reads the whole text.
func (e *envelope) document() *Error {
	const byteOrderMark = "\xef\xbb\xbf"
	body := e.in
	if bytes.HasPrefix(body, []byte(byteOrderMark)) {
		return malformed(CodeInvalidJSON, 0, "invalid JSON: a byte order mark, which RFC 8259 section 8.1 rules out")
	}
	e.space()
	if e.pos < len(body) && body[e.pos] == '{' {
		if err := e.object(noPlace); err != nil {
			return err
		}
	} else {
		c := e.first()
		if err := e.skip(); err != nil {
			return err
		}
		e.refuse(wrongType("the event", kind(c), "an object").of(""))
	}
	e.space()
	if e.pos < len(body) {
		return e.unexpected("the end of the text")
	}
	e.checkRequired()
	return e.refusal
}

// object reads the event itself (parent is noPlace) or one of its objects.
func (e *envelope) object(parent place) *Error {
	more, err := e.open('}')
	if err != nil {
		return err
	}
	for more {
		at := e.pos
		raw, escaped, err := e.name()
		if err != nil {
			return err
		}
		if escaped {
			raw = appendCanonical(nil, raw)
		}
		p := find(parent, raw)
		switch {
		case p == noPlace:
			e.refuse(unknownField(parent, raw, at))
			err = e.skip()
		case e.seen[p]:
			return duplicateKey(raw, at)
		default:
			e.seen[p] = true
			err = e.take(p)
		}
		if err != nil {
			return err
		}
		if more, err = e.next('}'); err != nil {
			return err
		}
	}
	return nil
}

// find is the field that key names in parent, noPlace if there is none.
func find(parent place, key []byte) place {
	switch parent {
	case atHelper:
		switch string(key) {
		case "id":
			return atHelperID
		case "name":
			return atHelperName
		case "command":
			return atHelperCommand
		}
	case atEntry:
		switch string(key) {
		case "id":
			return atEntryID
		case "data":
			return atEntryData
		case "created_at":
			return atEntryCreatedAt
		}
	case atUser:
		if string(key) == "id" {
			return atUserID
		}
	case noPlace:
		for p := range atHelperID {
			if string(key) == paths[p] {
				return p
			}
		}
	}
	return noPlace
}

// take reads the value of a known field, which begins at pos.
func (e *envelope) take(p place) *Error {
	switch c := e.first(); p {
	case atHelper:
		if c == '"' {
			return e.string(p, MaxHelperIDLen)
		}
		return e.objectOr(p, "a string or an object")
	case atUser:
		if c == 'n' {
			return e.literal("null")
		}
		return e.objectOr(p, "an object or null")
	case atEntry:
		return e.objectOr(p, "an object")
	case atEntryData:
		if c != '{' {
			return e.refuseType(paths[p], "an object")
		}
		return e.readData()
	case atTimestamp:
		return e.time(p, &e.Timestamp)
	case atEntryCreatedAt:
		return e.time(p, &e.CreatedAt)
	case atHelperID:
		return e.string(p, MaxHelperIDLen)
	case atEntryID:
		return e.string(p, MaxEntryIDLen)
	case atUserID:
		return e.string(p, MaxUserIDLen)
	default: // atEvent, atID, and a helper's name and command, which the configuration knows better
		return e.string(p, len(e.in))
	}
}

// objectOr reads one of the event's objects, each of which must have an id.
func (e *envelope) objectOr(p place, want string) *Error {
	if e.first() != '{' {
		return e.refuseType(paths[p], want)
	}
	err := e.object(p)
	if id := find(p, []byte("id")); !e.seen[id] {
		e.refuse(unacceptable(CodeMissingField, paths[id], "is required"))
	}
	return err
}

// readData reads the entry's data.
func (e *envelope) readData() *Error {
	var scratch [1024]byte
	out := scratch[:0]
	if rest := len(e.in) - e.pos; rest > len(scratch) {
		out = make([]byte, 0, rest)
	}
	out, err := e.value(out)
	e.Data = append(e.room[:0:len(e.room)], out...)
	return err
}

// string reads a string of at most most bytes into texts[p].
func (e *envelope) string(p place, most int) *Error {
	if e.first() != '"' {
		return e.refuseType(paths[p], "a string")
	}
	text, escaped, err := e.str()
	if err != nil || p == atHelperName || p == atHelperCommand {
		return err
	}
	ok := true
	if escaped {
		text, ok = appendText(nil, text)
	}
	e.texts[p] = text
	switch {
	case !ok:
		e.refuse(unacceptable(CodeBadID, paths[p], "has a lone surrogate, which is no character"))
	case p == atID && !ValidID(text):
		e.refuse(unacceptable(CodeBadID, paths[p],
			"must be 1 to %d printable ASCII characters without spaces", MaxIDLen))
	case len(text) == 0:
		e.refuse(unacceptable(CodeMissingField, paths[p], "is empty"))
	case len(text) > most:
		e.refuse(unacceptable(CodeTooLong, paths[p], "has %d bytes, the limit is %d", len(text), most))
	}
	return nil
}

// time reads a time into t.
func (e *envelope) time(p place, t *time.Time) *Error {
	if e.first() != '"' {
		return e.refuseType(paths[p], "a string")
	}
	raw, escaped, err := e.str()
	if err != nil {
		return err
	}
	if escaped {
		raw = appendCanonical(nil, raw)
	}
	var ok bool
	if *t, ok = parseTime(raw); !ok {
		e.refuse(unacceptable(CodeBadTime, paths[p],
			`is "%s", want a time of RFC 3339 in the years 0000 to 9999, such as "2025-01-15T14:32:00Z"`,
			clip(raw)))
	}
	return nil
}

// skip reads a value of which nothing is kept.
func (e *envelope) skip() *Error {
	_, err := e.value(nil)
	return err
}

// refuseType skips the value at pos and refuses it for its type.
func (e *envelope) refuseType(field, want string) *Error {
	c := e.first()
	if err := e.skip(); err != nil {
		return err
	}
	e.refuse(wrongType(field, kind(c), want))
	return nil
}

// refuse keeps the first error, and any error about the text before one about
// what it says.
func (e *envelope) refuse(err *Error) {
	if e.refusal == nil || err.Status < e.refusal.Status {
		e.refusal = err
	}
}

// checkRequired asks for what object could not miss.
func (e *envelope) checkRequired() {
	switch {
	case !e.seen[atEvent]:
		e.refuse(unacceptable(CodeMissingField, paths[atEvent], "is required, such as %q", Created))
	case !e.seen[atHelper]:
		e.refuse(unacceptable(CodeMissingField, paths[atHelper], "is required: the id of a helper"))
	case !e.seen[atEntry]:
		e.refuse(unacceptable(CodeMissingField, paths[atEntryID], "is required"))
	}
}

// finish fills in what was collected. One allocation serves all strings.
func (e *envelope) finish() {
	var b strings.Builder
	size := 0
	for _, t := range e.texts {
		size += len(t)
	}
	b.Grow(size)
	text := func(p place) string {
		from := b.Len()
		b.Write(e.texts[p])
		return b.String()[from:]
	}
	e.Type, e.ID, e.EntryID, e.UserID = text(atEvent), text(atID), text(atEntryID), text(atUserID)
	e.HelperID = text(atHelper) + text(atHelperID)
	e.HasUser = e.seen[atUserID]
	if !e.seen[atEntryData] {
		e.Data = append(e.room[:0], "{}"...)
	}
	e.Unstable = e.unstable
}

// unknownField refuses key in parent, and looks for what was meant first beside
// it, then at the same name elsewhere.
func unknownField(parent place, key []byte, at int) *Error {
	var beside, elsewhere []string
	prefix := ""
	if parent != noPlace {
		prefix = paths[parent] + "."
	}
	word := string(key)
	for _, path := range paths {
		name, ok := strings.CutPrefix(path, prefix)
		if ok && !strings.Contains(name, ".") {
			beside = append(beside, name)
		} else if _, leaf, _ := strings.Cut(path, "."); leaf == word {
			elsewhere = append(elsewhere, path)
		}
	}
	meant := Suggest(word, beside)
	switch {
	case meant != "":
		meant = prefix + meant
	case len(elsewhere) == 1:
		meant = elsewhere[0]
	}
	field := prefix + clip(key)
	return malformed(CodeUnknownField, at, `unknown field "%s"`, field).of(field).suggest(meant)
}
