package config

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// refersPattern matches a text with a reference or a doubled dollar sign: what it
// stands for is known at run time only, so the schema lets it pass.
const refersPattern = `\$[{$]`

// object keeps the order of its keys, which encoding/json sorts in maps.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		for j, v := range []any{m.name, m.value} {
			if j > 0 {
				b.WriteByte(':')
			}
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(v); err != nil {
				return nil, err
			}
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Schema is the JSON Schema (draft-07) of the file, for editors. It knows the
// shape: keys, types, words and patterns. What depends on other values, on
// files or on the environment, and the ranges of durations and sizes, only
// [Load] checks.
func Schema() []byte {
	defs := map[string]bool{}
	g := schemaGenerator{defined: defs}
	root := object{
		{"$schema", "http://json-schema.org/draft-07/schema#"},
		{"title", "Configuration of Peanuts Relay"},
	}
	root = append(root, g.schema(model(), true)...)
	root = append(root, member{"definitions", g.defs})
	var raw, out bytes.Buffer
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(root); err != nil {
		panic(err) // strings, numbers and bools only
	}
	if err := json.Indent(&out, raw.Bytes(), "", "  "); err != nil {
		panic(err)
	}
	return out.Bytes()
}

type schemaGenerator struct {
	defs    object
	defined map[string]bool
}

// schema describes a value of k. Structs other than the root become definitions.
func (g *schemaGenerator) schema(k *key, root bool) object {
	if k.kind == kindObject && !root {
		name := strings.ToLower(k.typ[:1]) + k.typ[1:]
		if !g.defined[name] {
			g.defined[name] = true
			def := g.schema(k, true)
			g.defs = append(g.defs, member{name, def})
		}
		return object{{"$ref", "#/definitions/" + name}}
	}
	switch k.kind {
	case kindObject:
		return g.object(k)
	case kindMap:
		form, _, _ := idForms(k.ids)
		o := object{{"type", []string{"object", "null"}}, {"propertyNames", object{{"pattern", form.String()}}}}
		if k.most > 0 {
			o = append(o, member{"maxProperties", k.most})
		}
		return append(o, member{"additionalProperties", g.schema(k.elem, false)})
	case kindAny, kindJSON:
		return object{{"type", []string{"object", "null"}}}
	case kindList:
		return g.list(k)
	case kindWords:
		return object{{"anyOf", []object{{{"type", "string"}}, g.list(k)}}}
	case kindSignatures:
		return object{{"anyOf", []object{words("none"), g.list(k)}}}
	}
	return scalarSchema(k)
}

func (g *schemaGenerator) object(k *key) object {
	var properties object
	var required []string
	for _, f := range k.fields {
		o := g.schema(f, false)
		about := object{{"description", describe(f)}}
		if v, ok := schemaDefault(f); ok {
			about = append(about, member{"default", v})
		}
		if len(o) == 1 && o[0].name == "$ref" {
			// Draft-07 ignores what stands beside $ref.
			o = object{{"allOf", []object{o}}}
		}
		properties = append(properties, member{f.name, append(about, o...)})
		if f.required {
			required = append(required, f.name)
		}
	}
	o := object{{"type", []string{"object", "null"}}}
	if required != nil {
		// A list entry without anything is no entry.
		o = object{{"type", "object"}, {"required", required}}
	}
	return append(o, member{"additionalProperties", false}, member{"properties", properties})
}

func (g *schemaGenerator) list(k *key) object {
	o := object{{"type", "array"}}
	if k.most > 0 {
		o = append(o, member{"maxItems", k.most})
	}
	return append(o, member{"items", g.schema(k.elem, false)})
}

func describe(k *key) string {
	doc := strings.ReplaceAll(k.doc, "`", "")
	if k.later {
		doc += " (" + laterNote(k) + ")"
	}
	return doc
}

// schemaDefault is the default as JSON; none when it depends on the environment.
func schemaDefault(k *key) (any, bool) {
	if !k.hasDflt || strings.HasPrefix(k.dflt, "$") {
		return nil, false
	}
	switch k.kind {
	case kindBool:
		return k.dflt == "true", true
	case kindInt:
		n, err := strconv.Atoi(k.dflt)
		return n, err == nil
	case kindList:
		list := []string{}
		if inner := strings.Trim(k.dflt, "[]"); inner != "" {
			list = strings.Split(inner, ", ")
		}
		return list, true
	}
	return k.dflt, true
}

func words(w ...string) object {
	return object{{"anyOf", []object{{{"enum", w}}, {{"type", "string"}, {"pattern", refersPattern}}}}}
}

// pattern is a text of one of some forms, or with a reference.
func pattern(forms ...string) object {
	return object{{"type", "string"}, {"pattern", strings.Join(append(forms, refersPattern), "|")}}
}

func scalarSchema(k *key) object {
	bytes := object{{"type", "integer"}, {"minimum", 0}}
	switch k.kind {
	case kindEnum:
		return words(k.enum...)
	case kindBool:
		return object{{"type", "boolean"}}
	case kindRejected:
		return object{{"anyOf", []object{{{"type", "boolean"}}, words(k.enum...)}}}
	case kindInt:
		low, high := bounds(k)
		return object{{"type", "integer"}, {"minimum", low}, {"maximum", min(high, math.MaxUint32)}}
	case kindDuration:
		return pattern(durationPattern)
	case kindSize:
		return object{{"anyOf", []object{bytes, pattern(sizePattern)}}}
	case kindAutoSize:
		return object{{"anyOf", []object{bytes, pattern("^auto$", sizePattern)}}}
	case kindShare:
		return object{{"anyOf", []object{bytes, pattern(percentPattern, sizePattern)}}}
	case kindMode:
		return pattern(modePattern)
	case kindEvent:
		return pattern(eventPattern)
	case kindSHA256:
		return pattern(sha256Pattern)
	}
	return object{{"type", "string"}}
}
