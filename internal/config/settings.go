package config

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// settings turns the settings of a plugin into plain values. Which of them are
// secrets only the plugin knows, so all are treated so.
func (p *nodeParser) settings(n *yaml.Node, at *place, path []string) (any, *place, bool) {
	v, ok := p.free(n, at, path, 0)
	return v, at, ok
}

func (p *nodeParser) free(n *yaml.Node, at *place, path []string, depth int) (any, bool) {
	if depth > maxDepth {
		p.src.hide(n)
		p.report(Finding{Code: codeBadValue, Message: fmt.Sprintf("settings are nested more than %d deep", maxDepth)}, at, path, true)
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
		p.src.note(child.val, showRef)
		value, ok := p.free(child.val, child, under(path, name), depth+1)
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
