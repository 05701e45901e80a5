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
	doc := shower(c.texts).show(model(), reflect.ValueOf(c).Elem(), nil)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return err
	}
	return enc.Close()
}

// shower is Config.texts.
type shower map[string]string

// show is v as a YAML node, nil when the key is not set.
func (s shower) show(k *key, v reflect.Value, path []string) *yaml.Node {
	switch k.kind {
	case kindObject:
		return s.object(k, v, path)
	case kindMap:
		return s.entries(k, v, path)
	case kindAny:
		if v.Len() == 0 {
			return nil
		}
		return showFree(v.Interface())
	case kindJSON:
		return s.json(v.String(), path)
	case kindSignatures:
		if signatures := v.Interface().(Signatures); signatures.None {
			return text("none")
		}
		return s.list(k, v.FieldByName("List"), path)
	case kindList, kindWords:
		return s.list(k, v, path)
	}
	if t := s[pointer(path)]; t != "" {
		return text(t)
	}
	return showScalar(k, v.Interface())
}

func (s shower) list(k *key, v reflect.Value, path []string) *yaml.Node {
	if v.IsNil() {
		return nil
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for i := range v.Len() {
		list.Content = append(list.Content, s.show(k.elem, v.Index(i), under(path, strconv.Itoa(i))))
	}
	return list
}

func (s shower) object(k *key, v reflect.Value, path []string) *yaml.Node {
	if v.IsZero() && k.mayBeLeftOut() {
		return nil // nothing but empty texts, and what is false without them
	}
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range k.fields {
		value := v.FieldByName(f.field)
		if f.kind == kindString && !f.hasDflt && value.String() == "" {
			continue // an empty text would mean something
		}
		if n := s.show(f, value, under(path, f.name)); n != nil {
			m.Content = append(m.Content, text(f.name), n)
		}
	}
	if len(m.Content) == 0 {
		return nil
	}
	return m
}

// mayBeLeftOut reports whether an object says nothing when nothing of it is set.
func (k *key) mayBeLeftOut() bool {
	optional := false
	for _, f := range k.fields {
		if !f.optional && (f.kind != kindBool || f.dflt != "false") {
			return false
		}
		optional = optional || f.optional
	}
	return optional
}

func (s shower) entries(k *key, v reflect.Value, path []string) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.Len() {
		entry := v.Index(i)
		value, id := entry, entry.Field(0).String()
		if k.elem.kind != kindObject {
			value = entry.Field(1) // the field "-value"
		}
		n := s.show(k.elem, value, under(path, id))
		switch {
		case n != nil:
		case k.elem.kind == kindObject:
			n = &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
		default:
			n = text("") // a header without a value
		}
		m.Content = append(m.Content, text(id), n)
	}
	if len(m.Content) == 0 {
		if k.name != "helpers" {
			return nil
		}
		m.Style = yaml.FlowStyle
	}
	return m
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
		switch {
		case k.kind != kindRejected:
		case v == "":
			return nil
		case v == "true" || v == "false":
			return plain(v)
		}
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
