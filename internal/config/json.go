package config

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// jsonNumber is a number of RFC 8259, section 6.
var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// convertJSON writes what the file has at a place as JSON. It follows the places
// and not koanf's maps, which have lost the order of the keys and the digits of
// the numbers.
func (l *loader) convertJSON(at *place, path []string) any {
	var b strings.Builder
	if !l.appendJSON(&b, at, path) {
		return nil
	}
	return b.String()
}

// appendJSON reports whether all of it could be written.
func (l *loader) appendJSON(b *strings.Builder, at *place, path []string) bool {
	good := true
	switch {
	case at.isMap():
		b.WriteByte('{')
		for i, name := range at.order {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(quoteJSON(name) + ":")
			good = l.appendJSON(b, at.children[name], under(path, name)) && good
		}
		b.WriteByte('}')
	case at.val.Kind == yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range at.items {
			if i > 0 {
				b.WriteByte(',')
			}
			good = l.appendJSON(b, item, under(path, strconv.Itoa(i))) && good
		}
		b.WriteByte(']')
	default:
		text, ok := l.scalarJSON(at, path)
		b.WriteString(text)
		return ok
	}
	return good
}

func (l *loader) scalarJSON(at *place, path []string) (text string, ok bool) {
	switch n := at.val; n.ShortTag() {
	case "!!null":
		return "null", true
	case "!!bool":
		if text := strings.ToLower(n.Value); text == "true" || text == "false" {
			return text, true
		}
	case "!!int", "!!float":
		if jsonNumber.MatchString(n.Value) {
			return n.Value, true
		}
		l.add(Finding{Code: codeAmbiguous, Message: "a number must be written as in JSON", Suggestion: "without leading zeros, underscores and prefixes, or in quotes to make it text"}, at, path, false)
		return "", false
	case "!!str", "!!timestamp":
		value, ok := l.expand(at, path)
		if _, _, refers := cutReference(n.Value); refers {
			l.texts[pointer(path)] = n.Value
		}
		return quoteJSON(value), ok
	}
	l.add(Finding{Code: codeTag, Message: "JSON has no such value", Suggestion: "put it in quotes to make it text"}, at, path, false)
	return "", false
}

// quoteJSON writes a text as JSON. All texts of a file are UTF-8, so that none
// is changed.
func quoteJSON(s string) string {
	b, _ := json.Marshal(s) // cannot fail for a string
	return string(b)
}

// json shows a value that was kept as JSON; nil when it is absent.
func (s shower) json(value string, path []string) *yaml.Node {
	if value == "" {
		return nil
	}
	dec := json.NewDecoder(strings.NewReader(value))
	dec.UseNumber()
	return s.token(dec, path)
}

// token shows the next value of dec, which reads what convertJSON wrote.
func (s shower) token(dec *json.Decoder, path []string) *yaml.Node {
	t, err := dec.Token()
	if err != nil {
		return nil
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			m := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
			for dec.More() {
				key, _ := dec.Token() // a string, or the value would not have been written
				name, _ := key.(string)
				m.Content = append(m.Content, text(name), s.token(dec, under(path, name)))
			}
			_, _ = dec.Token() // the bracket that closes
			return m
		}
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for dec.More() {
			list.Content = append(list.Content, s.token(dec, under(path, strconv.Itoa(len(list.Content)))))
		}
		_, _ = dec.Token()
		return list
	case string:
		if reference := s[pointer(path)]; reference != "" {
			t = reference
		}
		return text(t)
	case json.Number:
		return plain(t.String())
	case bool:
		return plain(strconv.FormatBool(t))
	}
	return plain("null")
}
