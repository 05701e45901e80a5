package config

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// place remembers where a value of the merged configuration came from. The tree
// of places mirrors the tree that koanf merges, and merges by the same rule: maps
// key by key, everything else is replaced.
type place struct {
	src      *source
	key      *yaml.Node // nil for entries of lists and the document
	val      *yaml.Node // aliases resolved
	alias    *yaml.Node // what stands in the file instead of val; nil mostly
	order    []string   // keys of a map, as first met
	children map[string]*place
	items    []*place // entries of a list
}

func (p *place) isMap() bool { return p.children != nil }

func (p *place) add(name string, child *place) {
	if _, ok := p.children[name]; !ok {
		p.order = append(p.order, name)
	}
	p.children[name] = child
}

// merge is p overridden by later.
func (p *place) merge(later *place) *place {
	if p == nil || !p.isMap() || !later.isMap() {
		return later
	}
	for _, name := range later.order {
		p.add(name, p.children[name].merge(later.children[name]))
	}
	return p
}

// lookup finds the place of a path, or the nearest one above it that exists;
// exact says which.
func (p *place) lookup(path []string) (at *place, exact bool) {
	for _, name := range path {
		var next *place
		if p.isMap() {
			next = p.children[name]
		} else if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(p.items) {
			next = p.items[i]
		}
		if next == nil {
			return p, false
		}
		p = next
	}
	return p, true
}

// under is path extended, without sharing its memory.
func under(path []string, names ...string) []string {
	return append(path[:len(path):len(path)], names...)
}

// pointer writes a path as a JSON Pointer (RFC 6901).
func pointer(path []string) string {
	var b strings.Builder
	for _, name := range path {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1"))
	}
	return b.String()
}
