package sinktest

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/proto"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

const (
	maxBatchBytes = 3 << 20 // what the relay puts into one call
	maxSummary    = 200
)

func checkDescribe(p *probe) {
	d := p.describe()
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`).MatchString(d.GetName()) {
		p.failf("the name %q is not [a-z0-9][a-z0-9-]{0,62}", d.GetName())
	}
	for what, text := range map[string]string{"version": d.GetVersion(), "summary": d.GetSummary()} {
		switch {
		case text == "":
			p.failf("there is no %s", what)
		case len(text) > maxSummary || strings.ContainsFunc(text, unicode.IsControl) || strings.TrimSpace(text) != text:
			p.failf("the %s is not one short line: %q", what, short(text, 80))
		}
	}
	if p.binary != nil && d.GetName() != "" && !strings.HasPrefix(p.binary.base(), "peanuts-sink-"+d.GetName()) {
		p.failf("the program is called %s and the sink %s: the relay looks for peanuts-sink-%s", p.binary.base(), d.GetName(), d.GetName())
	}
	if u, err := url.Parse(d.GetHomepage()); err != nil || d.GetHomepage() != "" && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		p.failf("the homepage %q is no URL", d.GetHomepage())
	}
}

func checkDescribeIsPure(p *probe) {
	first := p.describe()
	again := func(when string) {
		d, err := p.api().Describe(p.ctx, &sinkpb.DescribeRequest{})
		if err != nil {
			p.fatalf("Describe %s: %v", when, p.told(err))
		}
		if !proto.Equal(first, d) {
			p.failf("Describe answers otherwise %s", when)
		}
	}
	again("when it is asked again")
	if _, err := p.validate(encode(p.settings())); err != nil {
		p.fatalf("Validate: %v", err)
	}
	again("after Validate")
	i := p.newInstance()
	if refused, err := i.configure(encode(p.settings())); err == nil && len(refused) == 0 {
		again("after Configure")
		i.close()
	}
	again("at the end")
}

// schema is the settings' schema; nil is none. A broken one is the matter of the check
// of that name.
func (p *probe) schema() map[string]any {
	text := p.describe().GetSettingsSchema()
	if len(text) == 0 {
		return nil
	}
	raw, _, err := compile(text)
	if err != nil {
		p.skipf("the schema of the settings is broken: see the check schema")
	}
	return raw
}

func compile(text []byte) (map[string]any, *jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, nil, fmt.Errorf("is not JSON: %w", err)
	}
	raw, isObject := doc.(map[string]any)
	if !isObject {
		return nil, nil, fmt.Errorf("is no JSON object")
	}
	const at = "settings.json"
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(at, doc); err != nil {
		return nil, nil, fmt.Errorf("is no JSON Schema: %w", err)
	}
	compiled, err := c.Compile(at)
	if err != nil {
		return nil, nil, fmt.Errorf("is no JSON Schema: %w", err)
	}
	return raw, compiled, nil
}

// noLoader keeps a schema from reading files and the network.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %s, which is outside of it", url)
}

func checkSchema(p *probe) {
	text := p.describe().GetSettingsSchema()
	if len(text) == 0 {
		p.skipf("the sink takes no settings")
	}
	raw, compiled, err := compile(text)
	if err != nil {
		p.fatalf("settings_schema %v", err)
	}
	if raw["type"] != "object" {
		p.failf("its type is %v; settings are an object", raw["type"])
	}
	properties, _ := raw["properties"].(map[string]any)
	for _, name := range required(raw) {
		if properties[name] == nil {
			p.failf("%q is required and not among the properties", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		property, _ := properties[name].(map[string]any)
		if text, _ := property["description"].(string); text == "" && property["$ref"] == nil {
			p.failf("the property %q has no description", name)
		}
	}
	if p.o.Settings == nil {
		return
	}
	if err := compiled.Validate(asInstance(p.settings())); err != nil {
		p.failf("the good settings do not pass it: %s", oneLine(err.Error()))
	}
}

// asInstance is settings as package jsonschema wants them.
func asInstance(settings map[string]any) any {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(encode(settings)))
	if err != nil {
		panic(err) // they were just encoded
	}
	return doc
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func required(schema map[string]any) (names []string) {
	list, _ := schema["required"].([]any)
	for _, name := range list {
		if text, ok := name.(string); ok {
			names = append(names, text)
		}
	}
	return names
}

// soundsSecret finds the names of properties that hold secrets almost surely.
func soundsSecret(name string) bool {
	return regexp.MustCompile(`(?i)(^|[_-])(password|passphrase|secret|token|api_?key|private_?key|credentials?)$`).MatchString(name)
}

func checkSchemaSecrets(p *probe) {
	raw := p.schema()
	secrets := 0
	walkProperties(raw, "", func(path, name string, property map[string]any) {
		if property["writeOnly"] == true {
			secrets++
			if property["default"] != nil {
				p.failf("%s is writeOnly and has a default, which everybody can read", path)
			}
			return
		}
		if kind := property["type"]; soundsSecret(name) && (kind == "string" || kind == nil) {
			p.failf("%s sounds like a secret and is not writeOnly", path)
		}
	})
	if len(p.failures) == 0 && secrets == 0 {
		p.skipf("the settings have no secret")
	}
}

// walkProperties visits each property of a schema, nested ones included, in order. It
// follows references inside the schema as deep as settings are.
func walkProperties(schema map[string]any, path string, visit func(path, name string, property map[string]any)) {
	var walk func(node map[string]any, path string, depth int)
	walk = func(node map[string]any, path string, depth int) {
		if depth > 16 {
			return // a schema may refer to itself
		}
		node = resolve(schema, node)
		properties, _ := node["properties"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(properties)) {
			property, _ := properties[name].(map[string]any)
			property = resolve(schema, property)
			at := path + "/" + escape(name)
			visit(at, name, property)
			walk(property, at, depth+1)
		}
		for _, key := range []string{"items", "additionalProperties"} {
			if inner, ok := node[key].(map[string]any); ok {
				inner = resolve(schema, inner)
				visit(path+"/*", "*", inner)
				walk(inner, path+"/*", depth+1)
			}
		}
	}
	walk(schema, path, 0)
}

// resolve follows a reference to a definition in the same schema.
func resolve(schema, node map[string]any) map[string]any {
	ref, _ := node["$ref"].(string)
	pointer, local := strings.CutPrefix(ref, "#/")
	if !local {
		return node
	}
	var at any = schema
	for part := range strings.SplitSeq(pointer, "/") {
		object, _ := at.(map[string]any)
		at = object[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
	}
	found, _ := at.(map[string]any)
	merged := maps.Clone(found)
	if merged == nil {
		return node
	}
	for key, value := range node {
		if key != "$ref" {
			merged[key] = value
		}
	}
	return merged
}

// escape is a name as a part of a JSON Pointer.
func escape(name string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(name) }

func checkCapabilities(p *probe) {
	c := p.capabilities()
	for _, event := range c.GetEvents() {
		if !regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_]+)+$`).MatchString(event) {
			p.failf("events: %q is no type of event, such as entry.created", event)
		}
	}
	if c.GetMaxBatchBytes() > maxBatchBytes {
		p.failf("max_batch_bytes is %d; the relay puts at most %d into a call", c.GetMaxBatchBytes(), maxBatchBytes)
	}
	if rate := c.GetMaxPerSecond(); rate < 0 || math.IsNaN(rate) || math.IsInf(rate, 0) {
		p.failf("max_per_second is %v", rate)
	}
	if c.GetBurst() > 0 && c.GetMaxPerSecond() == 0 {
		p.failf("burst is %d without max_per_second", c.GetBurst())
	}
	if c.GetUsesState() && !c.GetOrderedPerEntry() {
		p.failf("uses_state without ordered_per_entry: the state of an entry can only go from one delivery to the next")
	}
}
