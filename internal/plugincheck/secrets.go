package plugincheck

import (
	"encoding/json"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// schema is as much of a JSON Schema as tells which settings are secret.
type schema struct {
	WriteOnly  bool               `json:"writeOnly"`
	Type       any                `json:"type"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	Others     *schema            `json:"additionalProperties"`
}

// UnmarshalJSON reads true and false, too: they are schemas that say nothing.
func (s *schema) UnmarshalJSON(b []byte) error {
	type plain schema // without this method
	if err := json.Unmarshal(b, new(bool)); err == nil {
		return nil
	}
	return json.Unmarshal(b, (*plain)(s))
}

// parse is nil for a schema that cannot be read.
func parse(text []byte) *schema {
	s := new(schema)
	if json.Unmarshal(text, s) != nil {
		return nil
	}
	return s
}

// collect adds the secret texts of a value. What the schema does not describe, in a
// way that is understood here, counts as secret.
func collect(out []secret.String, value any, s *schema) []secret.String {
	switch v := value.(type) {
	case secret.String:
		if s == nil || s.WriteOnly || s.Type == nil || !v.IsLiteral() {
			out = append(out, v)
		}
	case map[string]any:
		for name, inner := range v {
			out = collect(out, inner, s.property(name))
		}
	case []any:
		for _, inner := range v {
			out = collect(out, inner, s.item())
		}
	}
	return out
}

func (s *schema) property(name string) *schema {
	switch {
	case s == nil || s.WriteOnly:
		return nil
	case s.Properties[name] != nil:
		return s.Properties[name]
	}
	return s.Others
}

func (s *schema) item() *schema {
	if s == nil || s.WriteOnly {
		return nil
	}
	return s.Items
}
