package sinks

import (
	"reflect"
	"strconv"
)

// Schema is the JSON Schema (draft 2020-12) of a type of settings: what Describe
// answers, what the relay checks a configuration with, and what an editor completes
// from. The same type always gives the same bytes. An error says which field or tag
// cannot be used.
//
// C is a struct. A field is a setting under the name that its json tag gives it, or its
// own. Fields without a name for JSON ("-") and unexported ones are none; those of an
// embedded struct are its own. Other tags:
//
//	description:"…"          what it is for, in one sentence
//	required:"true"          must be given; a [Secret] must also not be empty
//	default:"…"              taken when it is not given
//	enum:"a,b"               one of these
//	pattern:"^[a-z]+$"       a regular expression (RE2) that the string must match
//	minimum:"1" maximum:"9"  bounds of a number
//	minLength, maxLength     bounds of the runes of a string, the elements of a list or a map
//	format:"email"           what the string is, for people and editors; not checked
//	example:"…"              one example; examples:"a,b" are several
//	secret:"true"            a string that must not be shown; better is the type [Secret]
//
// On a list or a map, enum, pattern, format, minimum and maximum hold for its elements.
// A default or an example of a list of strings is separated by commas; of other lists
// and of structs it is JSON.
//
// A setting is a string, a bool, a number, a struct, a list or a map of these, a pointer
// to one of them (nil when it is not given), [time.Duration] (as in "1m30s"), []byte (in
// base64), [encoding/json.RawMessage] or any (whatever is given), or a type that reads
// itself from JSON or text.
func Schema[C any]() ([]byte, error) {
	s, err := shapeOf(reflect.TypeFor[C]())
	if err != nil {
		return nil, err
	}
	b := []byte(`{"$schema":"https://json-schema.org/draft/2020-12/schema",`)
	return append(s.appendMembers(b), '}'), nil
}

// appendMembers writes the members of a schema object.
func (s *shape) appendMembers(b []byte) []byte {
	w := writer{b, true}
	if s.kind != kindAny {
		w.text("type", string(s.kind))
	}
	if s.format != "" {
		w.text("format", s.format)
	}
	if s.typ == reflect.TypeFor[[]byte]() {
		w.text("contentEncoding", "base64")
	}
	if s.secret {
		w.raw("writeOnly", "true")
	}
	s.appendRules(&w)
	switch {
	case s.kind == kindArray:
		w.key("items")
		w.b = append(s.elem.appendMembers(append(w.b, '{')), '}')
	case s.elem != nil:
		w.key("additionalProperties")
		w.b = append(s.elem.appendMembers(append(w.b, '{')), '}')
	case s.kind == kindObject:
		s.appendFields(&w)
	}
	return w.b
}

func (s *shape) appendRules(w *writer) {
	if len(s.enum) > 0 {
		w.key("enum")
		w.b = value{kind: kindArray, items: s.enum}.append(w.b)
	}
	if s.pattern != nil {
		w.text("pattern", s.pattern.String())
	}
	if s.min != nil {
		w.raw("minimum", s.min.text)
	}
	if s.max != nil {
		w.raw("maximum", s.max.text)
	}
	unit := "Length"
	switch {
	case s.kind == kindArray:
		unit = "Items"
	case s.kind == kindObject:
		unit = "Properties"
	}
	if s.shortest > 0 {
		w.raw("min"+unit, strconv.Itoa(s.shortest))
	}
	if s.longest >= 0 {
		w.raw("max"+unit, strconv.Itoa(s.longest))
	}
}

func (s *shape) appendFields(w *writer) {
	required := value{kind: kindArray}
	w.key("properties")
	properties := writer{append(w.b, '{'), true}
	for _, f := range s.fields {
		properties.key(f.name)
		properties.b = f.append(properties.b)
		if f.required {
			required.items = append(required.items, value{kind: kindString, text: f.name})
		}
	}
	w.b = append(properties.b, '}')
	if len(required.items) > 0 {
		w.key("required")
		w.b = required.append(w.b)
	}
	w.raw("additionalProperties", "false")
}

func (f field) append(b []byte) []byte {
	w := writer{append(b, '{'), true}
	if f.description != "" {
		w.text("description", f.description)
	}
	if f.preset != nil {
		w.key("default")
		w.b = f.preset.append(w.b)
	}
	if len(f.examples) > 0 {
		w.key("examples")
		w.b = value{kind: kindArray, items: f.examples}.append(w.b)
	}
	if !w.first {
		w.b = append(w.b, ',')
	}
	before := len(w.b)
	w.b = f.shape.appendMembers(w.b)
	if len(w.b) == before && !w.first {
		w.b = w.b[:before-1] // nothing followed the comma
	}
	return append(w.b, '}')
}

// writer writes the members of an object, separated.
type writer struct {
	b     []byte
	first bool
}

func (w *writer) key(name string) {
	if !w.first {
		w.b = append(w.b, ',')
	}
	w.first = false
	w.b = append(appendString(w.b, name), ':')
}

func (w *writer) raw(name, json string) {
	w.key(name)
	w.b = append(w.b, json...)
}

func (w *writer) text(name, text string) {
	w.key(name)
	w.b = appendString(w.b, text)
}
