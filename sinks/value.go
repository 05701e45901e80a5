package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// value is JSON as it was given: keys in order, also those that come twice, and
// numbers as they were written.
type value struct {
	kind    kind   // kindAny is null; a number is kindNumber
	text    string // of a string or a number
	truth   bool   // of a boolean
	items   []value
	members []member
}

type member struct {
	name string
	value
}

// deepestJSON is how far settings may be nested, whatever their type says.
const deepestJSON = 100

// parseValue reads one JSON document. Its errors show nothing of it.
func parseValue(b []byte) (value, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := readValue(dec, deepestJSON)
	if err != nil {
		return value{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return value{}, errors.New("more follows after the end of the JSON")
	}
	return v, nil
}

func readValue(dec *json.Decoder, depth int) (value, error) {
	if depth == 0 {
		return value{}, fmt.Errorf("nested more than %d levels", deepestJSON)
	}
	token, err := dec.Token()
	if err != nil {
		return value{}, notJSON(dec, err)
	}
	switch t := token.(type) {
	case string:
		return value{kind: kindString, text: t}, nil
	case json.Number:
		return value{kind: kindNumber, text: t.String()}, nil
	case bool:
		return value{kind: kindBoolean, truth: t}, nil
	case json.Delim:
		if t == '[' {
			return readArray(dec, depth)
		}
		return readObject(dec, depth)
	}
	return value{}, nil
}

func readArray(dec *json.Decoder, depth int) (value, error) {
	v := value{kind: kindArray}
	for dec.More() {
		item, err := readValue(dec, depth-1)
		if err != nil {
			return value{}, err
		}
		v.items = append(v.items, item)
	}
	_, err := dec.Token()
	if err != nil {
		return value{}, notJSON(dec, err)
	}
	return v, nil
}

func readObject(dec *json.Decoder, depth int) (value, error) {
	v := value{kind: kindObject}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return value{}, notJSON(dec, err)
		}
		item, err := readValue(dec, depth-1)
		if err != nil {
			return value{}, err
		}
		name, _ := key.(string) // the decoder takes nothing else for a key
		v.members = append(v.members, member{name, item})
	}
	if _, err := dec.Token(); err != nil {
		return value{}, notJSON(dec, err)
	}
	return v, nil
}

// notJSON says where, and not what: the text may be a secret.
func notJSON(dec *json.Decoder, err error) error {
	at := dec.InputOffset()
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = e.Offset
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not JSON: it ends too early")
	}
	return fmt.Errorf("not JSON: a mistake at byte %d", at)
}

// name is what people call such a value.
func (v value) name() string {
	switch v.kind {
	case kindAny:
		return "null"
	case kindArray:
		return "a list"
	case kindObject:
		return "an object"
	case kindBoolean:
		return "true or false"
	case kindInteger:
		return "a whole number"
	}
	return "a " + string(v.kind)
}

// append writes the value as JSON.
func (v value) append(b []byte) []byte {
	switch v.kind {
	case kindString:
		return appendString(b, v.text)
	case kindNumber:
		return append(b, v.text...)
	case kindBoolean:
		return strconv.AppendBool(b, v.truth)
	case kindArray:
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.append(b)
		}
		return append(b, ']')
	case kindObject:
		b = append(b, '{')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, m.name), ':')
			b = m.value.append(b)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

// appendString writes a JSON string.
func appendString(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return append(b, quoted...)
}
