package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/peanutsapp/peanuts-relay/internal/event"
)

const (
	// maxAliased bounds the nodes that aliases stand for, in all: ten lines of
	// aliases to aliases otherwise expand to billions.
	maxAliased = 100_000
	// maxDepth bounds nesting where the operator chooses the keys (settings).
	maxDepth = 64
)

// nodeParser reads the YAML node tree of one file. Decoding into maps directly,
// as koanf's own parser does, loses the positions and accepts duplicate keys
// in some forms.
//
// What it returns has the shape of the model: a value that is of the wrong
// shape is reported and left out.
type nodeParser struct {
	src     *source
	report  func(f Finding, at *place, path []string, onKey bool)
	failed  map[string]bool     // as in loader
	place   *place              // result, beside the map
	aliased int                 // values that aliases stood for so far
	inAlias int                 // aliases being followed at the moment
	open    map[*yaml.Node]bool // anchored values being read
}

// values are what the file says; problems are reported.
func (p *nodeParser) values() map[string]any {
	p.open = map[*yaml.Node]bool{}
	p.place = &place{src: p.src, children: map[string]*place{}}
	doc, ok := p.document()
	if !ok {
		return map[string]any{}
	}
	p.place.val = doc
	value, at, ok := p.value(model(), doc, nil, nil)
	if !ok {
		return map[string]any{}
	}
	p.place = at
	return value.(map[string]any)
}

func (p *nodeParser) file(code, message, suggestion string) {
	p.report(Finding{Code: code, Message: message, Suggestion: suggestion}, &place{src: p.src}, nil, false)
}

// value turns a node into plain values of the shape that k asks for. ok is
// false when it has another shape, which has been reported.
func (p *nodeParser) value(k *key, n, keyNode *yaml.Node, path []string) (value any, at *place, ok bool) {
	at = &place{src: p.src, key: keyNode, val: n}
	leave, ok := p.enter(at, path)
	if !ok {
		return nil, at, false
	}
	defer leave()
	n = at.val
	p.noteValue(k, n)
	if !coreTag(n) {
		p.report(Finding{Code: codeTag, Message: "YAML tags other than the standard ones are not supported", Suggestion: "quote a value that begins with !"}, at, path, false)
		return nil, at, false
	}
	switch {
	case isNull(n) && (k.kind == kindMap || k.kind == kindObject || k.kind == kindAny || k.kind == kindJSON):
		at.children = map[string]*place{}
		return map[string]any{}, at, true
	case k.kind == kindObject && n.Kind == yaml.MappingNode, k.kind == kindMap && n.Kind == yaml.MappingNode:
		return p.mapping(k, n, at, path)
	case k.kind == kindAny && n.Kind == yaml.MappingNode:
		return p.free(n, at, path, showRef)
	case k.kind == kindJSON && n.Kind == yaml.MappingNode:
		return p.free(n, at, path, showAll)
	case (k.kind == kindList || k.kind == kindWords || k.kind == kindSignatures) && n.Kind == yaml.SequenceNode:
		return p.list(k, n, at, path)
	case k.kind >= kindWords && n.Kind == yaml.ScalarNode:
		return scalarValue(n), at, true
	}
	p.report(wrongType(k, n), at, path, false)
	return nil, at, false
}

// enter follows an alias, so that the place has the value that it stands for,
// and keeps count of what aliases expand to. leave ends the visit.
func (p *nodeParser) enter(at *place, path []string) (leave func(), ok bool) {
	inside := 0
	if at.val.Kind == yaml.AliasNode {
		p.src.note(at.val, showAll)
		at.alias, at.val = at.val, at.val.Alias
		inside = 1
	}
	if p.open[at.val] {
		p.report(Finding{Code: codeAlias, Message: "an alias stands for a value that contains it"}, at, path, true)
		return nil, false
	}
	p.inAlias += inside
	if p.inAlias > 0 {
		p.aliased++
	}
	leave = func() {
		p.inAlias -= inside
		delete(p.open, at.val)
	}
	if p.aliased > maxAliased {
		if p.aliased == maxAliased+1 {
			p.report(Finding{Code: codeAlias, Message: fmt.Sprintf("the aliases of this file stand for more than %d values", maxAliased)}, at, path, true)
		}
		leave()
		return nil, false
	}
	if at.val.Anchor != "" {
		p.open[at.val] = true
	}
	return leave, true
}

func (p *nodeParser) noteValue(k *key, n *yaml.Node) {
	how := showAll
	switch {
	case k.kind == kindURL:
		how = showURL
	case k.kind == kindSecret:
		how = showRef
	case n.Kind == yaml.ScalarNode && (k.kind < kindList || k.kind == kindList && k.elem.kind.secret()):
		how = showNever // it should have been a map, or a list of secrets
	}
	p.src.note(n, how)
}

func (p *nodeParser) mapping(k *key, n *yaml.Node, at *place, path []string) (any, *place, bool) {
	at.children = map[string]*place{}
	out := map[string]any{}
	for _, e := range p.entries(n, at, path, showAll) {
		name := e.key.Value
		below := under(path, name)
		child := k.elem
		if k.kind == kindObject {
			if child = k.child(name); child == nil {
				p.unknown(k, e, path)
				continue
			}
		} else if !p.goodID(k, e, below) {
			continue
		}
		v, place, ok := p.value(child, e.val, e.key, below)
		if !ok {
			continue
		}
		out[name] = v
		at.add(name, place)
	}
	return out, at, true
}

func (p *nodeParser) goodID(k *key, e entry, path []string) bool {
	form, words, code := idForms(k.ids)
	if form.MatchString(e.key.Value) {
		return true
	}
	p.src.hide(e.val)
	what := quote(e.key.Value)
	suggestion := words
	if k.ids == "notice" {
		suggestion = didYouMean(e.key.Value, noticeEvents(), words)
	}
	p.report(Finding{Code: code, Message: what + " cannot be used here", Suggestion: suggestion, structural: true}, &place{src: p.src, key: e.key, val: e.val}, path, true)
	return false
}

func (p *nodeParser) unknown(k *key, e entry, path []string) {
	p.src.hide(e.val)
	name := e.key.Value
	suggestion := didYouMean(name, k.names, "")
	if near := event.Suggest(name, k.names); near != "" {
		p.failed[pointer(under(path, near))] = true // so that it is not missed as well
	}
	if suggestion == "" && len(k.names) <= 16 {
		suggestion = "the keys here are " + strings.Join(k.names, ", ")
	}
	p.report(Finding{Code: codeUnknownKey, Message: "unknown key " + quote(name), Suggestion: suggestion, structural: true},
		&place{src: p.src, key: e.key, val: e.val}, under(path, name), true)
}

// hide marks a value of unknown meaning, and what is in it, as not to be shown.
// Aliases are not followed: their targets are marked where they stand.
func (s *source) hide(n *yaml.Node) {
	s.note(n, showNever)
	if n.Kind == yaml.AliasNode {
		return
	}
	for _, c := range n.Content {
		s.hide(c)
	}
}

type entry struct{ key, val *yaml.Node }

// entries lists the entries of a map in order, merge keys (<<) resolved, and
// reports keys that are no text or there twice.
func (p *nodeParser) entries(n *yaml.Node, at *place, path []string, how shown) []entry {
	var own, merged []entry
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		p.src.note(k, how)
		where := &place{src: p.src, key: k, val: v}
		switch {
		case k.Kind != yaml.ScalarNode:
			p.src.hide(k)
			p.src.hide(v)
			p.report(Finding{Code: codeWrongType, Message: "a key must be text", structural: true}, where, path, true)
		case k.ShortTag() == "!!merge":
			merged = append(merged, p.mergeKey(v, where, path, how)...)
		case seen[k.Value] != nil:
			p.src.hide(v)
			p.report(Finding{Code: codeDuplicateKey, Message: "duplicate key " + quote(k.Value), Suggestion: fmt.Sprintf("it is already on line %d", seen[k.Value].Line)}, where, under(path, k.Value), true)
		default:
			seen[k.Value] = k
			own = append(own, entry{k, v})
		}
	}
	for _, e := range merged {
		if seen[e.key.Value] == nil {
			seen[e.key.Value] = e.key
			own = append(own, e)
		}
	}
	return own
}

// mergeKey lists the entries that a merge key brings in, earlier ones winning.
func (p *nodeParser) mergeKey(v *yaml.Node, where *place, path []string, how shown) []entry {
	if v.Kind == yaml.SequenceNode {
		var out []entry
		for _, c := range v.Content {
			out = append(out, p.mergeKey(c, where, path, how)...)
		}
		return out
	}
	at := &place{src: p.src, key: where.key, val: v}
	leave, ok := p.enter(at, path)
	if !ok {
		return nil
	}
	defer leave()
	if at.val.Kind != yaml.MappingNode {
		p.src.hide(v)
		p.report(Finding{Code: codeWrongType, Message: "<< needs a map or a list of maps"}, where, path, true)
		return nil
	}
	return p.entries(at.val, at, path, how)
}

func (p *nodeParser) list(k *key, n *yaml.Node, at *place, path []string) (any, *place, bool) {
	out := make([]any, 0, len(n.Content))
	good := true
	for i, c := range n.Content {
		v, place, ok := p.value(k.elem, c, nil, under(path, strconv.Itoa(i)))
		out, at.items = append(out, v), append(at.items, place)
		good = good && ok
	}
	return out, at, good
}
