package sinktest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

const unknownKey = "sinktest_no_such_key"

// validate returns the errors among the diagnostics. A call that is refused with
// INVALID_ARGUMENT counts as a diagnostic about all of the settings.
func (p *probe) validate(settings []byte) ([]*sinkpb.Diagnostic, error) {
	answer, err := p.api().Validate(p.ctx, &sinkpb.ValidateRequest{SettingsJson: settings})
	if err != nil && isRefusal(err, codes.InvalidArgument) {
		return []*sinkpb.Diagnostic{{Summary: p.told(err).Error()}}, nil
	}
	return p.errorsIn(answer.GetDiagnostics()), p.told(err)
}

// usable are good settings, or the check is skipped.
func (p *probe) usable() map[string]any {
	settings := p.settings()
	if p.o.Settings != nil {
		return settings
	}
	if found, err := p.validate(encode(settings)); err != nil || len(found) > 0 {
		p.skipf("there are no settings to begin with: it refuses an empty object")
	}
	return settings
}

func checkSettings(p *probe) {
	settings := p.usable()
	found, err := p.validate(encode(settings))
	switch {
	case err != nil:
		p.failf("Validate: %v", err)
	case len(found) > 0:
		p.failf("Validate refuses the good settings: %s", list(found))
	}
}

// refuses fails the check unless settings are refused at path; "" is anywhere. about says
// what is wrong with them.
func (p *probe) refuses(settings any, path, about string) {
	found, err := p.validate(encode(settings))
	switch {
	case err != nil:
		p.failf("%s: Validate fails with %v, where it should answer a diagnostic", about, err)
	case len(found) == 0:
		p.failf("%s: Validate finds nothing wrong", about)
	default:
		p.pointTo(found, settings, path, about)
	}
}

// pointTo fails the check unless diagnostics point to path, and all of them to something
// that exists.
func (p *probe) pointTo(found []*sinkpb.Diagnostic, settings any, path, about string) {
	pointed := false
	for _, d := range found {
		if d.GetSummary() == "" {
			p.failf("%s: a diagnostic has no summary", about)
		}
		if !p.exists(settings, d.GetPath()) {
			p.failf("%s: a diagnostic points to %q, which is neither in the settings nor in the schema", about, d.GetPath())
		}
		pointed = pointed || path == "" || near(d.GetPath(), path)
	}
	if !pointed {
		p.failf("%s: no diagnostic points to %s: %s", about, path, list(found))
	}
}

// near reports whether a diagnostic is at path, inside of it, or at what holds it.
func near(at, path string) bool {
	return at == path || strings.HasPrefix(at, path+"/") || at != "" && strings.HasPrefix(path, at+"/")
}

// exists reports whether a JSON Pointer leads somewhere in the settings, or to a property
// that the schema knows and the settings lack.
func (p *probe) exists(settings any, pointer string) bool {
	if pointer == "" {
		return true
	}
	parts, ok := strings.CutPrefix(pointer, "/")
	if !ok {
		return false
	}
	at := settings
	for part := range strings.SplitSeq(parts, "/") {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch node := at.(type) {
		case map[string]any:
			if at, ok = node[part]; !ok {
				return p.isProperty(pointer)
			}
		case []any:
			var n int
			if _, err := fmt.Sscanf(part, "%d", &n); err != nil || n < 0 || n >= len(node) {
				return false
			}
			at = node[n]
		default:
			return p.isProperty(pointer)
		}
	}
	return true
}

// isProperty reports whether the schema has a property there.
func (p *probe) isProperty(pointer string) bool {
	raw := p.schema()
	found := false
	walkProperties(raw, "", func(path, _ string, _ map[string]any) {
		found = found || matches(path, pointer)
	})
	return found
}

// matches compares a path of the schema, where * is any name, with a pointer.
func matches(path, pointer string) bool {
	a, b := strings.Split(path, "/"), strings.Split(pointer, "/")
	for n := range min(len(a), len(b)) {
		if a[n] != b[n] && a[n] != "*" {
			return false
		}
	}
	return len(a) == len(b)
}

func checkUnknownKey(p *probe) {
	settings := p.usable()
	settings[unknownKey] = "x"
	p.refuses(settings, "", "a key that the schema does not have")
}

func checkMissing(p *probe) {
	settings := p.usable()
	raw := p.schema()
	names := required(raw)
	if len(names) == 0 {
		p.skipf("nothing is required")
	}
	for _, name := range names {
		without := clone(settings).(map[string]any)
		delete(without, name)
		p.refuses(without, "/"+escape(name), fmt.Sprintf("without %q, which is required", name))
	}
}

func checkWrongType(p *probe) {
	settings := p.usable()
	raw := p.schema()
	properties, _ := raw["properties"].(map[string]any)
	tried := 0
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		property, _ := properties[name].(map[string]any)
		wrong := ofAnotherType(resolve(raw, property)["type"])
		if wrong == nil {
			continue
		}
		tried++
		changed := clone(settings).(map[string]any)
		changed[name] = wrong
		p.refuses(changed, "/"+escape(name), fmt.Sprintf("%q is %s", name, encode(wrong)))
	}
	if tried == 0 {
		p.skipf("no property of the schema has a type")
	}
}

// ofAnotherType is a value that a type of a schema does not take; nil = not known.
func ofAnotherType(kind any) any {
	switch kind {
	case "string", "boolean", "integer", "number":
		return []any{map[string]any{}}
	case "object":
		return []any{"x"}
	case "array":
		return map[string]any{"x": "y"}
	}
	return nil
}

func checkNotAnObject(p *probe) {
	for _, text := range []string{`[]`, `"text"`, `17`, `{"a":`, `{} {}`} {
		found, err := p.validate([]byte(text))
		switch {
		case err != nil:
			p.failf("settings %s: Validate fails with %v, where it should answer a diagnostic", text, err)
		case len(found) == 0:
			p.failf("settings %s: Validate finds nothing wrong", text)
		}
	}
}

func checkBad(p *probe) {
	if len(p.o.Bad) == 0 {
		p.skipf("Options.Bad names none")
	}
	for _, bad := range p.o.Bad {
		settings, err := asObject(bad.Settings, p.remote.url)
		if err != nil {
			p.fatalf("the bad settings %q: %v", bad.Name, err)
		}
		found, err := p.validate(encode(settings))
		if err == nil && len(found) == 0 {
			// Some things are only seen when the sink is opened.
			i := p.newInstance()
			if found, err = i.configure(encode(settings)); err == nil && len(found) == 0 {
				i.close()
			}
		}
		switch {
		case err != nil:
			p.failf("%s: the call fails with %v, where it should answer a diagnostic", bad.Name, err)
		case len(found) == 0:
			p.failf("%s: neither Validate nor Configure finds anything wrong", bad.Name)
		default:
			p.pointTo(found, settings, bad.Path, bad.Name)
		}
	}
}

func checkConfigureRefuses(p *probe) {
	settings := p.usable()
	settings[unknownKey] = "x"
	i := p.newInstance()
	found, err := i.configure(encode(settings))
	switch {
	case err != nil && !isRefusal(err, codes.InvalidArgument):
		p.fatalf("Configure with an unknown key fails with %v, where it should answer a diagnostic", err)
	case err == nil && len(found) == 0:
		p.fatalf("Configure takes settings with an unknown key")
	}
	i.mustBeGone("an instance whose settings were refused")
}

// mustBeGone fails the check when the instance still delivers.
func (i *instance) mustBeGone(what string) {
	answer, err := i.send(i.p.ctx, i.p.created())
	switch {
	case err == nil && len(answer.GetResults()) > 0 && success(answer.GetResults()[0]):
		i.p.failf("%s delivers", what)
	case err == nil:
		// Results that are no success cost an attempt of a delivery that never began.
		i.p.failf("%s answers results; the call has to fail with NOT_FOUND", what)
	case !isRefusal(err, codes.NotFound):
		i.p.failf("%s fails with %v; the call has to fail with NOT_FOUND", what, err)
	}
}

// secrets are the values of the settings that must not be seen, and what Options add.
func (p *probe) secrets() []string {
	list := slices.Clone(p.o.Secrets)
	raw := p.schema()
	settings := p.settings()
	walkProperties(raw, "", func(path, _ string, property map[string]any) {
		if property["writeOnly"] == true {
			for _, value := range at(settings, strings.Split(path, "/")[1:]) {
				list = append(list, texts(value)...)
			}
		}
	})
	return list
}

// at are the values at a path, in which * is every name and index.
func at(v any, path []string) (found []any) {
	if len(path) == 0 {
		return []any{v}
	}
	name := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if name == key || path[0] == "*" {
				found = append(found, at(value, path[1:])...)
			}
		}
	case []any:
		for _, value := range v {
			if path[0] == "*" {
				found = append(found, at(value, path[1:])...)
			}
		}
	}
	return found
}

// texts are all strings in a value.
func texts(v any) (found []string) {
	switch v := v.(type) {
	case string:
		found = append(found, v)
	case json.Number:
		found = append(found, v.String())
	case map[string]any:
		for _, value := range v {
			found = append(found, texts(value)...)
		}
	case []any:
		for _, value := range v {
			found = append(found, texts(value)...)
		}
	}
	return found
}
