package config

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// free turns a map with keys that only somebody else knows into plain values,
// how says what a frame may show of them: in the settings of a plugin each may
// be a secret.
func (p *nodeParser) free(n *yaml.Node, at *place, path []string, how shown) (any, *place, bool) {
	v, ok := p.freeValue(n, at, path, how, 0)
	return v, at, ok
}

func (p *nodeParser) freeValue(n *yaml.Node, at *place, path []string, how shown, depth int) (any, bool) {
	if depth > maxDepth {
		p.src.hide(n)
		p.report(Finding{Code: codeBadValue, Message: fmt.Sprintf("values are nested more than %d deep", maxDepth)}, at, path, true)
		return nil, false
	}
	good := true
	below := func(k, v *yaml.Node, name string) (any, *place) {
		child := &place{src: p.src, key: k, val: v}
		leave, ok := p.enter(child, path)
		if !ok {
			good = false
			return nil, child
		}
		defer leave()
		p.src.note(child.val, how)
		value, ok := p.freeValue(child.val, child, under(path, name), how, depth+1)
		good = good && ok
		return value, child
	}
	switch n.Kind {
	case yaml.MappingNode:
		at.children = map[string]*place{}
		out := map[string]any{}
		for _, e := range p.entries(n, at, path, showAll) {
			v, child := below(e.key, e.val, e.key.Value)
			out[e.key.Value] = v
			at.add(e.key.Value, child)
		}
		return out, good
	case yaml.SequenceNode:
		out := []any{}
		for i, c := range n.Content {
			v, child := below(nil, c, strconv.Itoa(i))
			out, at.items = append(out, v), append(at.items, child)
		}
		return out, good
	}
	return scalarValue(n), good
}
