package config

import "strings"

// definition is which keys one file has.
type definition struct {
	file string
	keys keyTree
}

// keyTree has the keys of a map, with those of the maps in it; nil for what is no
// map.
type keyTree map[string]keyTree

func keysOf(p *place) keyTree {
	if !p.isMap() {
		return nil
	}
	keys := make(keyTree, len(p.children))
	for name, child := range p.children {
		keys[name] = keysOf(child)
	}
	return keys
}

func (t keyTree) has(path []string) bool {
	for _, name := range path {
		below, ok := t[name]
		if !ok {
			return false
		}
		t = below
	}
	return true
}

// MainFile is the absolute path of the main file, or the one that it stands for.
func (c *Config) MainFile() string { return c.main }

// DefinedIn lists the absolute paths of the files that mention the key at path,
// such as ("helpers", "expenses", "webhooks", "backend"), or something below it,
// in the order they are merged: of two that give it a value the later one counts.
// Entries of lists have no path.
func (c *Config) DefinedIn(path ...string) []string {
	var files []string
	for _, d := range c.defined {
		if d.keys.has(path) {
			files = append(files, d.file)
		}
	}
	return files
}

// Refers reports whether the value at path, or one below it, is obtained through
// a reference, so that it must not be shown. It knows values other than those of
// type secret.String, which know it themselves.
func (c *Config) Refers(path ...string) bool {
	at := pointer(path)
	for p := range c.texts {
		if p == at || strings.HasPrefix(p, at+"/") {
			return true
		}
	}
	return false
}
