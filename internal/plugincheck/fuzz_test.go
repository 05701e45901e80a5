package plugincheck

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// FuzzSecretsOfASchema: a setting is secret unless the schema, which somebody else
// wrote, says of it in plain words what it is and that it is none.
func FuzzSecretsOfASchema(f *testing.F) {
	for _, text := range []string{"", "{}", "true", "[]", `{"properties":{"a":{"type":"string"}}}`, `{"properties":{"a":{"type":"string","writeOnly":true}}}`,
		`{"writeOnly":true,"properties":{"a":{"type":"string"}}}`, `{"additionalProperties":{"type":"string"}}`, `{"properties":{"a":true}}`, `{"properties":{"a":{"items":{"type":"string"}}}}`,
		`{"properties":5}`, `{"properties":{"a":null},"additionalProperties":false}`, `{"properties":{"a":{"$ref":"#"}}}`} {
		f.Add([]byte(text))
	}
	literal, reference := secret.New("literal"), secret.FromReference("behind", "${env:A}")
	f.Fuzz(func(t *testing.T, text []byte) {
		settings := map[string]any{"a": literal, "b": reference, "l": []any{literal}, "m": map[string]any{"a": reference}}
		s := parse(text)
		found := collect(nil, settings, s)
		if n := len(slices.DeleteFunc(slices.Clone(found), secret.String.IsLiteral)); n != 2 {
			t.Errorf("%q: %d of 2 references are secret", text, n)
		}
		var doc struct {
			WriteOnly bool `json:"writeOnly"`
		}
		if err := json.Unmarshal(text, &doc); (err != nil || doc.WriteOnly) && len(found) != 4 && string(text) != "true" && string(text) != "false" {
			t.Errorf("%q: %d of 4 are secret", text, len(found))
		}
		if (s == nil) && json.Valid(text) && text[0] == '{' && len(found) != 4 {
			t.Errorf("%q cannot be read, and %d of 4 are secret", text, len(found))
		}
	})
}
