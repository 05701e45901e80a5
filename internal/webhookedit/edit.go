package webhookedit

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// edit is what shall become of one webhook in the file.
type edit struct {
	path   []string // "helpers", its helper, "webhooks", its id
	leaves []leaf
	whole  bool // the webhook is removed
}

func (e *edit) id() string { return e.path[1] + "." + e.path[3] }

// leaf is one key of the webhook and its new value.
type leaf struct {
	path []string   // below the webhook
	node *yaml.Node // nil removes the key
}

// name is what a [config.Change] calls it.
func (l leaf) name() string { return strings.Join(l.path, ".") }

// field is what a request calls it.
func (l leaf) field() string {
	return strings.Join(append([]string{fieldOf(l.path[0])}, l.path[1:]...), ".")
}

func fieldOf(key string) string {
	switch key {
	case "enabled":
		return "active"
	case "secrets":
		return "secret"
	}
	return key
}

// in reports whether the leaf is one of the fields of a change, which calls two
// keys that exclude each other by either name.
func (l leaf) in(fields []string) bool {
	name := l.name()
	return slices.Contains(fields, name) || name == "secret" && slices.Contains(fields, "secrets") ||
		slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(f, name+".") })
}

// leaves turns a request into keys of the file. w is the webhook as it is; nil
// for a new one.
func leaves(in *rest.WebhookChange, w *config.Webhook) []leaf {
	var out []leaf
	text := func(key string, value *string) {
		if value != nil {
			out = append(out, leaf{[]string{key}, textNode(*value)})
		}
	}
	text("sink", in.Sink)
	text("url", in.URL)
	text("secret", in.Secret)
	text("format", in.Format)
	if in.Events != nil {
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, word := range *in.Events {
			list.Content = append(list.Content, textNode(word))
		}
		out = append(out, leaf{[]string{"events"}, list})
	}
	for _, name := range slices.Sorted(maps.Keys(in.Headers)) {
		l := leaf{path: []string{"headers", spelling(w, name)}}
		if value := in.Headers[name]; value != nil {
			l.node = textNode(*value)
		}
		out = append(out, l)
	}
	out = appendSettings(out, []string{"settings"}, in.Settings)
	if in.Concurrency != nil {
		out = append(out, leaf{[]string{"concurrency"}, plainNode("!!int", strconv.Itoa(*in.Concurrency))})
	}
	if in.Active != nil {
		out = append(out, leaf{[]string{"enabled"}, plainNode("!!bool", strconv.FormatBool(*in.Active))})
	}
	return out
}

// spelling is the name of a header as the webhook has it: in other letters the
// same header would be there twice.
func spelling(w *config.Webhook, name string) string {
	if w != nil {
		for _, h := range w.Headers {
			if strings.EqualFold(h.Name, name) {
				return h.Name
			}
		}
	}
	return name
}

// appendSettings makes a leaf of each value that is no map: maps are merged.
func appendSettings(out []leaf, path []string, settings map[string]any) []leaf {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		below := append(path[:len(path):len(path)], name)
		switch v := settings[name].(type) {
		case nil:
			out = append(out, leaf{path: below})
		case map[string]any:
			if len(v) == 0 {
				out = append(out, leaf{below, &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}})
			}
			out = appendSettings(out, below, v)
		default:
			out = append(out, leaf{below, valueNode(v)})
		}
	}
	return out
}

// valueNode is a value of settings as encoding/json decodes it.
func valueNode(v any) *yaml.Node {
	switch v := v.(type) {
	case string:
		return textNode(v)
	case bool:
		return plainNode("!!bool", strconv.FormatBool(v))
	case int64:
		return plainNode("!!int", strconv.FormatInt(v, 10))
	case float64:
		return plainNode("!!float", strconv.FormatFloat(v, 'f', -1, 64))
	case []any:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range v {
			list.Content = append(list.Content, valueNode(item))
		}
		return list
	case map[string]any:
		m := &yaml.Node{Kind: yaml.MappingNode}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			m.Content = append(m.Content, keyNode(name), valueNode(v[name]))
		}
		return m
	case nil:
		return plainNode("!!null", "null")
	}
	return textNode(fmt.Sprint(v))
}

// textNode is a text of a request. Each of its dollar signs is doubled, so that
// nothing in it is a reference.
func textNode(s string) *yaml.Node { return quotedNode(strings.ReplaceAll(s, "$", "$$")) }

func quotedNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if !plainWord(s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func keyNode(name string) *yaml.Node { return quotedNode(name) }

func plainNode(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// plainWord reports whether s is a text for every reader of YAML without quotes:
// a URL, or a word that begins with a letter and is none of those that some take
// for something else.
func plainWord(s string) bool {
	if strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") {
		return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`#,[]{}"'\`, r) })
	}
	for i, r := range s {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789._-", r)) {
			return false
		}
	}
	switch strings.ToLower(s) {
	case "", "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		return false
	}
	return true
}

// render is the file after the edit; nil when nothing is left of it.
func (e *edit) render(s *state) ([]byte, error) {
	t, err := parse(s.former.data)
	if err != nil {
		return nil, err
	}
	if e.whole {
		err = t.remove(s, e.path)
	} else if len(s.others(s.cfg, e.path)) == 0 {
		_, err = t.descend(e.path, true) // a webhook is there even without keys
	}
	for _, l := range e.leaves {
		if err != nil {
			return nil, err
		}
		if path := slices.Concat(e.path, l.path); l.node == nil {
			err = t.remove(s, path)
		} else {
			err = t.set(path, l.node)
		}
	}
	if err != nil {
		return nil, err
	}
	return t.encode()
}

// tree is the file as YAML nodes, which keep comments and the order of keys.
type tree struct {
	doc  *yaml.Node
	root *yaml.Node
}

// header is the comment at the top of a new file.
const header = `# Written by peanuts-relay: webhooks that were made or changed through its API,
# or with "peanuts-relay enable" and "peanuts-relay disable". It is merged like
# every file of this directory and may be edited by hand.`

func parse(data []byte) (*tree, error) {
	t := &tree{doc: &yaml.Node{Kind: yaml.DocumentNode}}
	if data != nil {
		if err := yaml.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), t.doc); err != nil {
			return nil, conflict("", "%s is not valid YAML; correct it by hand", FileName) // the error quotes the file
		}
	}
	if len(t.doc.Content) == 0 {
		t.doc.Content = []*yaml.Node{{Kind: yaml.MappingNode}}
		t.doc.HeadComment = header
	}
	t.root = t.doc.Content[0]
	return t, nil
}

// encode is nil for a file without keys, unless it has comments of somebody else.
func (t *tree) encode() ([]byte, error) {
	if len(t.root.Content) == 0 {
		comments := strings.Replace(t.doc.HeadComment+t.root.HeadComment, header, "", 1) + t.doc.FootComment + t.root.FootComment + t.root.LineComment
		if strings.TrimSpace(comments) == "" {
			return nil, nil
		}
		t.root.Style = yaml.FlowStyle
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(t.doc); err != nil {
		return nil, fmt.Errorf("write %s: %w", FileName, err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write %s: %w", FileName, err)
	}
	return b.Bytes(), nil
}

// shared refuses to edit what stands in more than one place.
func shared() error {
	return conflict("", "%s has the webhook in an anchor, an alias or a merge; edit it by hand", FileName)
}

// entry is the index of the value of a key, -1 when there is none.
func entry(m *yaml.Node, name string) (int, error) {
	if m.Kind != yaml.MappingNode || m.Anchor != "" {
		return -1, shared()
	}
	at := -1
	for i := 0; i+1 < len(m.Content); i += 2 {
		switch k := m.Content[i]; {
		case k.ShortTag() == "!!merge" || k.Kind != yaml.ScalarNode:
			return -1, shared()
		case k.Value == name:
			at = i + 1
		}
	}
	return at, nil
}

// descend is the map at path; nil when there is none and none is to be made.
func (t *tree) descend(path []string, create bool) (*yaml.Node, error) {
	m := t.root
	for _, name := range path {
		at, err := entry(m, name)
		if err != nil {
			return nil, err
		}
		switch {
		case at < 0 && !create:
			return nil, nil
		case at < 0:
			if len(m.Content) == 0 {
				m.Style &^= yaml.FlowStyle
			}
			m.Content = append(m.Content, keyNode(name), &yaml.Node{Kind: yaml.MappingNode})
			at = len(m.Content) - 1
		}
		m = m.Content[at]
		if m.Kind == yaml.ScalarNode && m.ShortTag() == "!!null" {
			m.Kind, m.Tag, m.Value, m.Style = yaml.MappingNode, "", "", 0
		}
	}
	if m.Kind != yaml.MappingNode || m.Anchor != "" {
		return nil, shared()
	}
	return m, nil
}

func (t *tree) set(path []string, value *yaml.Node) error {
	m, err := t.descend(path[:len(path)-1], true)
	if err != nil {
		return err
	}
	name := path[len(path)-1]
	at, err := entry(m, name)
	switch {
	case err != nil:
		return err
	case at >= 0:
		old := m.Content[at]
		value.HeadComment, value.LineComment, value.FootComment = old.HeadComment, old.LineComment, old.FootComment
		m.Content[at] = value
		return nil
	case len(m.Content) == 0:
		m.Style &^= yaml.FlowStyle
	}
	m.Content = append(m.Content, keyNode(name), value)
	return nil
}

// remove removes a key, and the maps around it that are then empty.
func (t *tree) remove(s *state, path []string) error {
	for end := len(path); end > 0; end-- {
		m, err := t.descend(path[:end-1], false)
		if err != nil || m == nil {
			return err
		}
		at, err := entry(m, path[end-1])
		switch {
		case err != nil:
			return err
		case at < 0:
		case end == len(path) || len(m.Content[at].Content) == 0 && !t.meaningful(s, path[:end]):
			m.Content = slices.Delete(m.Content, at-1, at+1)
		default:
			return nil
		}
	}
	return nil
}

// meaningful reports whether a map says something although it is empty: that
// there is this helper or webhook, which no other file says.
func (t *tree) meaningful(s *state, path []string) bool {
	return (len(path) == 2 || len(path) == 4) && len(s.others(s.cfg, path)) == 0
}
