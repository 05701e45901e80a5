package config

import (
	"maps"
	"reflect"
	"strings"
)

// RestartKeys lists the keys whose value in the candidate differs from what the
// process started with and takes effect at the next start only, such as
// listen.events, in the order of docs/config.md.
func RestartKeys(boot, candidate *Config) []string {
	var names []string
	for _, d := range differences(model(), reflect.ValueOf(boot).Elem(), reflect.ValueOf(candidate).Elem()) {
		if d.restart {
			names = append(names, d.name)
		}
	}
	return names
}

// KeepRestartKeys is what runs when c is taken over by a process that started with
// boot: a copy of c with the restart-only keys of boot. Neither is modified, and
// the result shares memory with both.
func (c *Config) KeepRestartKeys(boot *Config) *Config {
	out := *c
	out.texts = make(map[string]string, len(c.texts))
	maps.Copy(out.texts, c.texts)
	keepRestartKeys(model(), reflect.ValueOf(&out).Elem(), reflect.ValueOf(boot).Elem(), nil, func(path []string) {
		at := pointer(path)
		below := func(p string, _ string) bool { return p == at || strings.HasPrefix(p, at+"/") }
		maps.DeleteFunc(out.texts, below)
		for p, text := range boot.texts {
			if below(p, text) {
				out.texts[p] = text
			}
		}
	})
	return &out
}

func keepRestartKeys(k *key, to, from reflect.Value, path []string, kept func(path []string)) {
	for _, f := range k.fields {
		below := under(path, f.name)
		switch {
		case f.restart:
			to.FieldByName(f.field).Set(from.FieldByName(f.field))
			kept(below)
		case f.kind == kindObject:
			keepRestartKeys(f, to.FieldByName(f.field), from.FieldByName(f.field), below, kept)
		}
	}
}
