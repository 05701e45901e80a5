package pluginhost

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/suggest"
)

// NoSuchSetting is the summary of a finding whose path ends in a name that the schema does
// not have.
const NoSuchSetting = "there is no such setting"

// findings makes one finding of each violation that an error tells of, by path.
func findings(e *jsonschema.ValidationError, s *settingsSchema) []Diagnostic {
	var out []Diagnostic
	collect(e, s, &out)
	slices.SortStableFunc(out, func(a, b Diagnostic) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Summary, b.Summary))
	})
	out = slices.Compact(out)
	return out[:min(len(out), maxDiagnostics)]
}

func collect(e *jsonschema.ValidationError, s *settingsSchema, out *[]Diagnostic) {
	path := pointer(e.InstanceLocation)
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			*out = append(*out, Diagnostic{Path: path + pointer([]string{name}), Summary: "it is required", Detail: s.detail(e.SchemaURL, name)})
		}
	case *kind.AdditionalProperties:
		known := s.properties(e.SchemaURL)
		for _, name := range k.Properties {
			d := Diagnostic{Path: path + pointer([]string{name}), Summary: NoSuchSetting}
			if meant := suggest.Word(name, known); meant != "" {
				d.Detail = fmt.Sprintf("did you mean %q?", meant)
			} else if len(known) > 0 {
				d.Detail = secret.Clean("known are "+strings.Join(known, ", "), maxDetail)
			}
			*out = append(*out, d)
		}
	default:
		if text := violation(e.ErrorKind); text != "" {
			*out = append(*out, Diagnostic{Path: path, Summary: secret.Clean(text, maxSummary)})
			return
		}
		for _, cause := range e.Causes {
			collect(cause, s, out)
		}
	}
}

// violation words one violation without the value that is at fault: it may be a secret.
// "" = the causes say it better.
func violation(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Schema, *kind.Group, *kind.AllOf, *kind.Reference:
		return ""
	case *kind.Type:
		return fmt.Sprintf("it is %s; it must be %s", article(k.Got), articles(k.Want))
	case *kind.Enum:
		return "it must be one of " + values(k.Want)
	case *kind.Const:
		return "it must be " + values([]any{k.Want})
	case *kind.Pattern:
		return "it does not match the pattern " + k.Want
	case *kind.Format:
		return "it is not of the format " + k.Want
	case *kind.MinLength:
		return fmt.Sprintf("it is too short: at least %d characters", k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("it is too long: at most %d characters", k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("it has too few items: at least %d", k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("it has too many items: at most %d", k.Want)
	case *kind.MinProperties:
		return fmt.Sprintf("it has too few members: at least %d", k.Want)
	case *kind.MaxProperties:
		return fmt.Sprintf("it has too many members: at most %d", k.Want)
	case *kind.Minimum:
		return "it is too small: at least " + k.Want.RatString()
	case *kind.Maximum:
		return "it is too large: at most " + k.Want.RatString()
	case *kind.ExclusiveMinimum:
		return "it must be more than " + k.Want.RatString()
	case *kind.ExclusiveMaximum:
		return "it must be less than " + k.Want.RatString()
	case *kind.MultipleOf:
		return "it must be a multiple of " + k.Want.RatString()
	case *kind.UniqueItems:
		return fmt.Sprintf("its items %d and %d are the same", k.Duplicates[0]+1, k.Duplicates[1]+1)
	case *kind.PropertyNames:
		return fmt.Sprintf("the name %q is not allowed", k.Property)
	case *kind.Dependency:
		return fmt.Sprintf("with %q it also needs %s", k.Prop, strings.Join(k.Missing, ", "))
	case *kind.DependentRequired:
		return fmt.Sprintf("with %q it also needs %s", k.Prop, strings.Join(k.Missing, ", "))
	case *kind.FalseSchema:
		return "it is not allowed here"
	case *kind.AnyOf:
		return "it fits none of the alternatives"
	case *kind.OneOf:
		if len(k.Subschemas) > 0 {
			return "it fits more than one of the alternatives"
		}
		return "it fits none of the alternatives"
	}
	return "it does not fulfil the keyword " + strings.Join(k.KeywordPath(), "/")
}

func article(kind string) string {
	switch {
	case kind == "null":
		return "null"
	case strings.ContainsRune("aeio", rune(kind[0])):
		return "an " + kind
	}
	return "a " + kind
}

func articles(kinds []string) string {
	var out []string
	for _, k := range kinds {
		out = append(out, article(k))
	}
	return strings.Join(out, " or ")
}

func values(list []any) string {
	var out []string
	for _, v := range list[:min(len(list), 20)] {
		text, err := json.Marshal(v)
		if err != nil {
			continue // it came from JSON
		}
		out = append(out, string(text))
	}
	return strings.Join(out, ", ")
}

// pointer is the JSON Pointer (RFC 6901) of a location.
func pointer(tokens []string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var b strings.Builder
	for _, t := range tokens {
		b.WriteString("/" + escape.Replace(t))
	}
	return b.String()
}

// properties lists the names that a part of the schema knows, sorted.
func (s *settingsSchema) properties(at string) []string {
	properties, _ := s.at(at)["properties"].(map[string]any)
	return slices.Sorted(maps.Keys(properties))
}

// detail is what the schema says of a property.
func (s *settingsSchema) detail(at, name string) string {
	properties, _ := s.at(at)["properties"].(map[string]any)
	property, _ := properties[name].(map[string]any)
	text, _ := property["description"].(string)
	return secret.Clean(text, maxDetail)
}

// at is the part of the schema that a URL with a JSON Pointer names; nil = there is none.
func (s *settingsSchema) at(location string) map[string]any {
	if s == nil {
		return nil
	}
	_, fragment, _ := strings.Cut(location, "#")
	path, err := url.PathUnescape(fragment)
	if err != nil {
		return nil
	}
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	here := s.doc
	for i, token := range strings.Split(path, "/") {
		if i == 0 {
			continue // before the first slash
		}
		token = unescape.Replace(token)
		switch v := here.(type) {
		case map[string]any:
			here = v[token]
		case []any:
			n, err := strconv.Atoi(token)
			if err != nil || n < 0 || n >= len(v) {
				return nil
			}
			here = v[n]
		}
	}
	m, _ := here.(map[string]any)
	return m
}
