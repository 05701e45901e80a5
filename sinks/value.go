package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
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
	// Checked as a whole first: the decoder of tokens does not know where a mistake is.
	if err := json.Unmarshal(b, new(json.RawMessage)); err != nil {
		return value{}, notJSON(err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	return readValue(dec, deepestJSON)
}

func readValue(dec *json.Decoder, depth int) (value, error) {
	if depth == 0 {
		return value{}, fmt.Errorf("nested more than %d levels", deepestJSON)
	}
	token, err := dec.Token()
	if err != nil {
		return value{}, err
	}
	switch t := token.(type) {
	case string:
		return value{kind: kindString, text: t}, nil
	case json.Number:
		return value{kind: kindNumber, text: t.String()}, nil
	case bool:
		return value{kind: kindBoolean, truth: t}, nil
	case json.Delim:
		return readInside(dec, t, depth)
	}
	return value{}, nil
}

// readInside reads what is in a list or an object, to its end.
func readInside(dec *json.Decoder, open json.Delim, depth int) (value, error) {
	v := value{kind: kindArray}
	if open == '{' {
		v.kind = kindObject
	}
	for dec.More() {
		var name string
		if v.kind == kindObject {
			key, err := dec.Token()
			if err != nil {
				return value{}, err
			}
			name, _ = key.(string) // a key is nothing else
		}
		item, err := readValue(dec, depth-1)
		if err != nil {
			return value{}, err
		}
		if v.kind == kindObject {
			v.members = append(v.members, member{name, item})
		} else {
			v.items = append(v.items, item)
		}
	}
	_, err := dec.Token()
	return v, err
}

// notJSON says where, and not what: the text may be a secret.
func notJSON(err error) error {
	e, ok := errors.AsType[*json.SyntaxError](err)
	switch {
	case !ok:
		return errors.New("not JSON")
	case e.Error() == "unexpected end of JSON input":
		return errors.New("not JSON: it ends too early")
	}
	return fmt.Errorf("not JSON: a mistake at byte %d", e.Offset)
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

// exactly is a number as it was written; false when its exponent is beyond that of any
// number in Go, and it would cost too much to work with.
func exactly(text string) (*big.Rat, bool) {
	const largest = 400
	if at := strings.IndexAny(text, "eE"); at >= 0 {
		if exponent, err := strconv.Atoi(text[at+1:]); err != nil || exponent < -largest || exponent > largest {
			return nil, false
		}
	}
	return new(big.Rat).SetString(text)
}
