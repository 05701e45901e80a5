package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Field is one key of an entry's data.
type Field struct {
	Name  string
	Value json.RawMessage // as it was sent: numbers are exact
}

// Text is the value for people: a string without its quotes, a number as it was sent,
// true or false, "" for null, and JSON for a list or an object.
func (f Field) Text() string {
	switch v := bytes.TrimSpace(f.Value); {
	case len(v) == 0 || string(v) == "null":
		return ""
	case v[0] == '"':
		var s string
		if json.Unmarshal(v, &s) == nil {
			return s
		}
		return string(v)
	case v[0] == '{' || v[0] == '[':
		var b bytes.Buffer
		if json.Compact(&b, v) == nil {
			return b.String()
		}
		return string(v)
	default:
		return string(v)
	}
}

// Fields are the keys of Data with their values, in order. Data that is empty has
// none; an error means that Data is not a JSON object.
func (e Entry) Fields() ([]Field, error) {
	if len(e.Data) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(e.Data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("the entry's data is not a JSON object")
	}
	var fields []Field
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("entry data: %w", err)
		}
		key, ok := name.(string)
		if !ok {
			return nil, errors.New("entry data: a key is not a string")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("entry data: %w", err)
		}
		fields = append(fields, Field{key, value})
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("entry data: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the entry's data goes on after its end")
	}
	return fields, nil
}

// Truncate cuts s to at most so many runes, the last of which is then an ellipsis. It
// never cuts within a rune.
func Truncate(s string, runes int) string {
	if len(s) <= runes {
		return s // there are at least as many bytes as runes
	}
	if runes <= 0 {
		return ""
	}
	cut, n := 0, 0
	for i := range s {
		if n == runes-1 {
			cut = i
		}
		if n == runes {
			return s[:cut] + "…"
		}
		n++
	}
	return s
}

// cutBytes cuts s to at most so many bytes, at a rune, with an ellipsis.
func cutBytes(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const ellipsis = "…"
	cut := most - len(ellipsis)
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return strings.TrimRight(s[:cut], " ") + ellipsis
}
