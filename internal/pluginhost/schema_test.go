package pluginhost

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

type schemaSettings struct {
	URL    sinks.URL         `json:"url" required:"true" description:"where to POST"`
	Token  sinks.Secret      `json:"token,omitzero" minLength:"8"`
	Mode   string            `json:"mode,omitempty" enum:"append,upsert"`
	Rows   int               `json:"rows,omitempty" minimum:"1" maximum:"100"`
	Tags   []string          `json:"tags,omitempty"`
	Fields map[string]string `json:"fields,omitempty"`
	Nested struct {
		Colour string `json:"colour,omitempty" pattern:"^#[0-9a-f]{6}$"`
	} `json:"nested,omitzero"`
}

func schemaOf(t testing.TB) *settingsSchema {
	t.Helper()
	text, err := sinks.Schema[schemaSettings]()
	if err != nil {
		t.Fatal(err)
	}
	s, err := compileSchema(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestViolationsArePlacedAndSayWhatToDo(t *testing.T) {
	s := schemaOf(t)
	for settings, want := range map[string]string{
		`{"url":"https://x.example"}`: "",
		`{}`:                          `/url: it is required (where to POST)`,
		`[]`:                          ": it is an array; it must be an object",
		`{"url":"https://x.example","tokn":"SECRET-1234"}`:                   `/tokn: there is no such setting (did you mean "token"?)`,
		`{"url":"https://x.example","zzzzzz":1}`:                             "/zzzzzz: there is no such setting (known are fields, mode, nested, rows, tags, token, url)",
		`{"url":"https://x.example","token":"SECRET"}`:                       "/token: it is too short: at least 8 characters",
		`{"url":"https://x.example","token":123456789}`:                      "/token: it is a number; it must be a string",
		`{"url":"https://x.example","mode":"SECRET","rows":1000}`:            `/mode: it must be one of "append", "upsert" | /rows: it is too large: at most 100`,
		`{"url":"https://x.example","nested":{"colour":"SECRET"}}`:           "/nested/colour: it does not match the pattern ^#[0-9a-f]{6}$",
		`{"url":"https://x.example","nested":{"color":"#000000"}}`:           `/nested/color: there is no such setting (did you mean "colour"?)`,
		`{"url":"https://x.example","tags":["a",7],"fields":{"a/b~c":null}}`: "/fields/a~1b~0c: it is null; it must be a string | /tags/1: it is a number; it must be a string",
		`{"url":"https://x.example","rows":` + strings.Repeat("9", 30) + `}`: ": the settings cannot be checked: it has a number with too many digits",
		`{"url":"https://x.example","rows":1e999999999}`:                     ": the settings cannot be checked: it has a number with too many digits",
		`{"url":`: ": the settings are not JSON",
		`{"url":"https://x.example","tags":["` + strings.Repeat("a", maxSettings) + `"],"rows":"x"}`: fmt.Sprintf(": the settings have %d bytes; at most 1048576 are taken", maxSettings+50),
	} {
		var got []string
		for _, d := range s.check([]byte(settings)) {
			line := d.Path + ": " + d.Summary
			if d.Detail != "" {
				line += " (" + d.Detail + ")"
			}
			if strings.Contains(line, "SECRET") || d.Warning {
				t.Errorf("%s: %s", settings, line)
			}
			got = append(got, line)
		}
		if text := strings.Join(got, " | "); text != want {
			t.Errorf("%.80s\ngot  %s\nwant %s", settings, text, want)
		}
	}
}

func TestAPluginWithoutASchemaTakesNoSettings(t *testing.T) {
	s, err := compileSchema(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.check([]byte(`{}`)); got != nil {
		t.Errorf("{}: %v", got)
	}
	if got := s.check([]byte(`{"a":1}`)); len(got) != 1 {
		t.Errorf("a setting: %v", got)
	}
}

func TestSchemasThatWouldCostTooMuchAreRefused(t *testing.T) {
	// Each level refers twice to the next: 2^30 parts for whoever follows.
	var bomb strings.Builder
	bomb.WriteString(`{"$ref":"#/$defs/a0","$defs":{`)
	for n := range 30 {
		fmt.Fprintf(&bomb, `"a%d":{"allOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]},`, n, n+1, n+1)
	}
	bomb.WriteString(`"a30":{}}}`)
	var repeated strings.Builder
	for n := range 100 {
		fmt.Fprintf(&repeated, `"%da{800}":{},`, n)
	}
	for text, want := range map[string]string{
		`{`:                "it is not JSON",
		`true`:             "it is no JSON object",
		`{"type":"strin"}`: "it is no JSON Schema: at /type: it fits none of the alternatives",
		`{"minLength":-1}`: "it is no JSON Schema: at /minLength: it is too small: at least 0",
		`{"pattern":"("}`:  "it is no JSON Schema: at /pattern: it is not of the format regex",
		`{"$ref":"https://example.com/other.json"}`:                    "it refers to https://example.com/other.json; only references within",
		`{"$ref":"file:///etc/passwd"}`:                                "it refers to file:///etc/passwd; only references within",
		`{"$schema":"https://example.com/meta","type":"object"}`:       "only references within the schema are followed",
		`{"$id":"https://example.com/me","$ref":"other"}`:              "it refers to https://example.com/other; only",
		`{"$ref":"#/$defs/none"}`:                                      "#/$defs/none",
		`{"properties":{"a":{"$ref":"#"}}}`:                            "it refers to itself",
		`{"$dynamicRef":"#a"}`:                                         "$dynamicRef, which is not supported",
		`{"minimum":1e999999999}`:                                      "a number with too many digits",
		`{"const":` + strings.Repeat("9", 100) + `}`:                   "a number with too many digits",
		`{"description":"` + strings.Repeat("a", maxSchema) + `"}`:     "at most 65536 are read",
		`{"enum":[` + strings.Repeat("1,", maxSchemaParts) + `1]}`:     "it is too large: at most 5000 values in 40 levels",
		strings.Repeat(`{"not":`, 60) + "{}" + strings.Repeat("}", 60): "it is too large: at most 5000 values in 40 levels",
		`{"pattern":"((a{10}){10}){100}"}`:                             "it is no JSON Schema: at /pattern: it is not of the format regex",
		`{"patternProperties":{` + repeated.String() + `"x":true}}`:    "it is no JSON Schema: at /patternProperties: the name",
		bomb.String(): "too large once its references are followed",
	} {
		s, err := compileSchema([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || s != nil {
			t.Errorf("%.70s\ngot  %v\nwant %s", text, err, want)
		}
	}
}

func TestReferencesWithinASchemaAreFollowed(t *testing.T) {
	s, err := compileSchema([]byte(`{"$schema":"https://json-schema.org/draft/2020-12/schema","$defs":{"column":{"type":"object","properties":{"name":{"type":"string"}},"additionalProperties":false}},
		"type":"object","properties":{"a":{"$ref":"#/$defs/column"},"b":{"type":"array","items":{"$ref":"#/$defs/column"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := s.check([]byte(`{"a":{"nam":"x"},"b":[{"name":"x"},{"name":7}]}`))
	want := []Diagnostic{{Path: "/a/nam", Summary: "there is no such setting", Detail: `did you mean "name"?`}, {Path: "/b/1/name", Summary: "it is a number; it must be a string"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

// TestEveryPlaceOfASubschemaIsCounted keeps the walk complete when the library grows: it
// puts a schema into each field that can hold one.
func TestEveryPlaceOfASubschemaIsCounted(t *testing.T) {
	leaf := &jsonschema.Schema{}
	counted := 0
	for _, f := range reflect.VisibleFields(reflect.TypeFor[jsonschema.Schema]()) {
		if !f.IsExported() || !strings.Contains(f.Type.String(), "jsonschema.Schema") || strings.Contains(f.Type.String(), "SchemaExt") {
			continue
		}
		outer := &jsonschema.Schema{}
		field := reflect.ValueOf(outer).Elem().FieldByIndex(f.Index)
		switch field.Kind() {
		case reflect.Pointer:
			field.Set(reflect.ValueOf(leaf))
		case reflect.Slice:
			field.Set(reflect.ValueOf([]*jsonschema.Schema{leaf}))
		case reflect.Map:
			m := reflect.MakeMap(field.Type())
			key := reflect.New(field.Type().Key()).Elem()
			m.SetMapIndex(key, reflect.ValueOf(leaf))
			field.Set(m)
		default:
			t.Errorf("field %s has a type that the test does not know: %s", f.Name, f.Type)
			continue
		}
		counted++
		if n, err := cost(outer, map[*jsonschema.Schema]int{}); n != 2 || err != nil {
			t.Errorf("with a schema in %s the cost is %d, %v", f.Name, n, err)
		}
	}
	if counted < 15 {
		t.Errorf("only %d fields were tried", counted)
	}
	for name, set := range map[string]func(*jsonschema.Schema){
		"AdditionalProperties": func(s *jsonschema.Schema) { s.AdditionalProperties = leaf },
		"Items":                func(s *jsonschema.Schema) { s.Items = []*jsonschema.Schema{leaf} },
		"AdditionalItems":      func(s *jsonschema.Schema) { s.AdditionalItems = leaf },
		"Dependencies":         func(s *jsonschema.Schema) { s.Dependencies = map[string]any{"a": leaf, "b": []string{"c"}} },
	} {
		outer := &jsonschema.Schema{}
		set(outer)
		if n, err := cost(outer, map[*jsonschema.Schema]int{}); n != 2 || err != nil {
			t.Errorf("with a schema in %s the cost is %d, %v", name, n, err)
		}
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(`{"type":"object","properties":{"a":{"type":"string","pattern":"^x"}},"required":["a"],"additionalProperties":false}`), []byte(`{"a":"SECRET-1234","b":[1]}`))
	f.Add([]byte(`{"anyOf":[{"const":1},{"enum":["a",null]}],"if":{"minProperties":2},"then":false}`), []byte(`{"b":"SECRET-1234"}`))
	f.Add([]byte(`{"propertyNames":{"maxLength":1},"patternProperties":{"^a":{"multipleOf":0.1}},"unevaluatedProperties":false}`), []byte(`{"a":0.15,"bcd":"SECRET-1234"}`))
	f.Fuzz(func(t *testing.T, schema, settings []byte) {
		s, err := compileSchema(schema)
		if err != nil {
			return
		}
		found := s.check(settings)
		if len(found) > maxDiagnostics {
			t.Fatalf("%d findings", len(found))
		}
		for _, d := range found {
			if !isPointer(d.Path) && len(d.Path) < maxPointer {
				t.Fatalf("path %q", d.Path)
			}
			if strings.ContainsAny(d.Summary, "\n\x00") {
				t.Fatalf("summary %q", d.Summary)
			}
		}
	})
}
