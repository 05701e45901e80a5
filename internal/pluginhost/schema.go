package pluginhost

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Bounds of a plugin's schema. What it costs to compile grows with the square of its
// parts; what it costs to check settings grows with its parts after every reference was
// followed.
const (
	maxSchema      = 64 << 10
	maxSchemaParts = 5_000
	maxSchemaDepth = 40
	maxSchemaCost  = 10_000
	maxNumber      = 24 // bytes of a number
	maxSettings    = 1 << 20

	schemaURL = "https://settings.invalid/schema.json"
)

// settingsSchema is the JSON Schema of a plugin's settings, compiled. It is immutable.
type settingsSchema struct {
	doc      any
	compiled *jsonschema.Schema // nil: there are no settings
}

// nowhere loads nothing: a schema is whole by itself.
type nowhere struct{}

func (nowhere) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %s; only references within the schema are followed", url)
}

// compileSchema reads a schema that somebody else wrote. No text is one of no settings.
func compileSchema(text []byte) (s *settingsSchema, err error) {
	if len(text) == 0 {
		return &settingsSchema{}, nil
	}
	if len(text) > maxSchema {
		return nil, fmt.Errorf("it has %d bytes; at most %d are read", len(text), maxSchema)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, ok := doc.(map[string]any); !ok {
		return nil, errors.New("it is no JSON object")
	}
	parts := 0
	if err := measure(doc, 0, &parts); err != nil {
		return nil, err
	}
	defer func() {
		if v := recover(); v != nil { // of a library, over what a stranger wrote
			s, err = nil, errors.New("it cannot be compiled")
		}
	}()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(nowhere{})
	c.UseRegexpEngine(patterns())
	if err := c.AddResource(schemaURL, doc); err != nil {
		return nil, schemaError(err)
	}
	compiled, err := c.Compile(schemaURL)
	if err != nil {
		return nil, schemaError(err)
	}
	if _, err := cost(compiled, map[*jsonschema.Schema]int{}); err != nil {
		return nil, err
	}
	return &settingsSchema{doc, compiled}, nil
}

// schemaError leaves out our own name of the schema.
func schemaError(err error) error {
	if invalid, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if e, ok := errors.AsType[*jsonschema.ValidationError](invalid.Err); ok {
			if found := findings(e, nil); len(found) > 0 {
				return fmt.Errorf("it is no JSON Schema: at %s: %s", found[0].Path, found[0].Summary)
			}
		}
	}
	return errors.New(strings.ReplaceAll(err.Error(), schemaURL, ""))
}

// measure refuses a document that would cost too much.
func measure(v any, depth int, parts *int) error {
	*parts++
	if *parts > maxSchemaParts || depth > maxSchemaDepth {
		return fmt.Errorf("it is too large: at most %d values in %d levels are read", maxSchemaParts, maxSchemaDepth)
	}
	switch v := v.(type) {
	case json.Number:
		// The library works with exact fractions, and 1e999999999 has as many digits.
		if i := strings.IndexAny(v.String(), "eE"); len(v) > maxNumber || i >= 0 && len(v)-i > len("e+300") {
			return errors.New("it has a number with too many digits")
		}
	case []any:
		for _, inner := range v {
			if err := measure(inner, depth+1, parts); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, inner := range v {
			switch key {
			case "$dynamicRef", "$recursiveRef":
				return fmt.Errorf("it has %s, which is not supported", key)
			}
			if err := measure(inner, depth+1, parts); err != nil {
				return err
			}
		}
	}
	return nil
}

// cost counts the parts of a schema with every reference followed, as often as it is
// used. A schema that refers to itself has no end of them.
func cost(s *jsonschema.Schema, known map[*jsonschema.Schema]int) (int, error) {
	switch n, ok := known[s]; {
	case ok && n == 0:
		return 0, errors.New("it refers to itself, which is not supported")
	case ok:
		return n, nil
	}
	known[s] = 0
	total := 1
	for field, v := range reflect.ValueOf(s).Elem().Fields() {
		if !field.IsExported() {
			continue
		}
		for inner := range schemasIn(v) {
			n, err := cost(inner, known)
			if err != nil {
				return 0, err
			}
			if total += n; total > maxSchemaCost {
				return 0, errors.New("it is too large once its references are followed")
			}
		}
	}
	known[s] = total
	return total, nil
}

// schemasIn yields the schemas that a field of a schema holds.
func schemasIn(v reflect.Value) func(yield func(*jsonschema.Schema) bool) {
	return func(yield func(*jsonschema.Schema) bool) { eachSchema(v, yield) }
}

func eachSchema(v reflect.Value, yield func(*jsonschema.Schema) bool) bool {
	switch v.Kind() {
	case reflect.Interface:
		return v.IsNil() || eachSchema(v.Elem(), yield)
	case reflect.Pointer:
		if s, ok := v.Interface().(*jsonschema.Schema); ok && s != nil {
			return yield(s)
		}
	case reflect.Slice:
		for i := range v.Len() {
			if !eachSchema(v.Index(i), yield) {
				return false
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if !eachSchema(it.Value(), yield) {
				return false
			}
		}
	}
	return true
}

// check lists what of settings the schema does not allow. No value of a setting is in it.
func (s *settingsSchema) check(settings []byte) (found []Diagnostic) {
	if len(settings) > maxSettings {
		return []Diagnostic{{Summary: fmt.Sprintf("the settings have %d bytes; at most %d are taken", len(settings), maxSettings)}}
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(settings))
	if err != nil {
		return []Diagnostic{{Summary: "the settings are not JSON"}}
	}
	if s.compiled == nil {
		if members, ok := value.(map[string]any); !ok || len(members) > 0 {
			return []Diagnostic{{Summary: "this sink takes no settings", Detail: "remove them"}}
		}
		return nil
	}
	parts := 0
	if err := measure(value, 0, &parts); err != nil {
		return []Diagnostic{{Summary: "the settings cannot be checked: " + err.Error()}}
	}
	defer func() {
		if v := recover(); v != nil { // of a library, over what a stranger wrote
			found = []Diagnostic{{Summary: "the settings cannot be checked against the schema of the plugin"}}
		}
	}()
	err = s.compiled.Validate(value)
	if err == nil {
		return nil
	}
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []Diagnostic{{Summary: "the settings do not follow the schema of the plugin"}}
	}
	return findings(invalid, s)
}
