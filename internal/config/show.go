package config

import (
	"io"
	"io/fs"
	"reflect"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// Show writes the effective configuration as YAML: what the files say and the
// defaults of what they do not. References are shown as the file has them,
// never what they stand for; literal secrets and the paths of literal webhook
// URLs are masked.
func (c *Config) Show(w io.Writer) error {
	doc := show(model(), reflect.ValueOf(c).Elem())
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return err
	}
	return enc.Close()
}

// show is v as a YAML node, nil when the key is not set.
func show(k *key, v reflect.Value) *yaml.Node {
	switch k.kind {
	case kindObject:
		return showObject(k, v)
	case kindMap:
		return showMap(k, v)
	case kindAny:
		if v.Len() == 0 {
			return nil
		}
		return showFree(v.Interface())
	case kindSignatures:
		return showSignatures(k, v.Interface().(Signatures))
	case kindList, kindWords:
		if v.IsNil() {
			return nil
		}
		elem := k.elem
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			list.Content = append(list.Content, show(elem, v.Index(i)))
		}
		return list
	}
	return showScalar(k, v.Interface())
}

func showObject(k *key, v reflect.Value) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range k.fields {
		if n := show(f, v.FieldByName(f.field)); n != nil {
			m.Content = append(m.Content, text(f.name), n)
		}
	}
	if len(m.Content) == 0 {
		return nil
	}
	return m
}

func showMap(k *key, v reflect.Value) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.Len() {
		entry := v.Index(i)
		value := entry
		if k.elem.kind != kindObject {
			value = entry.Field(1) // the field "-value"
		}
		n := show(k.elem, value)
		if n == nil {
			n = &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
		}
		m.Content = append(m.Content, text(entry.Field(0).String()), n)
	}
	if len(m.Content) == 0 {
		if k.name != "helpers" {
			return nil
		}
		m.Style = yaml.FlowStyle
	}
	return m
}

func showSignatures(k *key, s Signatures) *yaml.Node {
	if s.None {
		return text("none")
	}
	list := s.List
	if len(list) == 0 {
		return nil
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for i := range list {
		n.Content = append(n.Content, showObject(k.elem, reflect.ValueOf(&list[i]).Elem()))
	}
	return n
}

// text is a scalar that reads back as a text, quoted where YAML needs it.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func plain(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func showScalar(k *key, v any) *yaml.Node {
	switch v := v.(type) {
	case secret.String:
		return showSecret(k, v)
	case time.Duration:
		if v == 0 {
			return nil // inherited
		}
		return plain(formatDuration(v))
	case Share:
		return plain(v.String())
	case fs.FileMode:
		return &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: "0" + strconv.FormatUint(uint64(v), 8)}
	case int64:
		if v == 0 && k.kind == kindAutoSize {
			return plain("auto")
		}
		return plain(formatSize(v))
	case int:
		return plain(strconv.Itoa(v))
	case uint32:
		return plain(strconv.FormatUint(uint64(v), 10))
	case bool:
		return plain(strconv.FormatBool(v))
	case string:
		return text(v)
	}
	return nil
}

func showSecret(k *key, s secret.String) *yaml.Node {
	switch {
	case s.IsZero():
		return nil
	case k.kind == kindURL && s.IsLiteral():
		return text(redact(s.Reveal(), true))
	}
	return text(s.Reference())
}

// showFree shows settings: which of them are secrets only the plugin knows.
func showFree(v any) *yaml.Node {
	switch v := v.(type) {
	case map[string]any:
		m := &yaml.Node{Kind: yaml.MappingNode}
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			m.Content = append(m.Content, text(name), showFree(v[name]))
		}
		return m
	case []any:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for _, e := range v {
			list.Content = append(list.Content, showFree(e))
		}
		return list
	case secret.String:
		return text(v.Reference())
	case bool:
		return plain(strconv.FormatBool(v))
	case nil:
		return plain("null")
	}
	return text(secret.Mask)
}
