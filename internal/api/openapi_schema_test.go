package api

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// schemas makes JSON Schemas of the documents of package rest, with their comments.
type schemas struct {
	t     *testing.T
	all   map[string]any
	notes map[string]string // comments of types, and of fields as Type.Field
}

func newSchemas(t *testing.T) *schemas {
	t.Helper()
	s := &schemas{t: t, all: map[string]any{}, notes: map[string]string{}}
	files, err := filepath.Glob(filepath.Join("..", "rest", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			decl, ok := n.(*ast.GenDecl)
			if !ok {
				return true
			}
			for _, spec := range decl.Specs {
				if named, ok := spec.(*ast.TypeSpec); ok {
					s.note(decl, named)
				}
			}
			return true
		})
	}
	return s
}

func (s *schemas) note(decl *ast.GenDecl, named *ast.TypeSpec) {
	s.notes[named.Name.Name] = sentence(decl.Doc.Text())
	fields, ok := named.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range fields.Fields.List {
		for _, name := range f.Names {
			s.notes[named.Name.Name+"."+name.Name] = sentence(f.Doc.Text() + " " + f.Comment.Text())
		}
	}
}

func sentence(text string) string { return strings.Join(strings.Fields(text), " ") }

func statusText(status int) string { return strconv.Itoa(status) }

func ref(name string) map[string]any {
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

// of is the schema of a type.
func (s *schemas) of(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[rest.Time]():
		return map[string]any{"type": []any{"string", "null"}, "format": "date-time"}
	case reflect.TypeFor[rest.StatusCode]():
		return map[string]any{"type": []any{"integer", "null"}}
	case reflect.TypeFor[rest.Millis]():
		return map[string]any{"type": "number"}
	}
	switch t.Kind() {
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Interface:
		return map[string]any{}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Pointer:
		inner := s.of(t.Elem())
		if kind, ok := inner["type"].(string); ok {
			inner["type"] = []any{kind, "null"}
			return inner
		}
		return map[string]any{"anyOf": []any{inner, map[string]any{"type": "null"}}}
	case reflect.Struct:
		s.define(t)
		return ref(t.Name())
	}
	s.t.Fatalf("no schema for %s", t)
	return nil
}

func (s *schemas) define(t reflect.Type) {
	if _, done := s.all[t.Name()]; done {
		return
	}
	s.all[t.Name()] = nil // of a type within itself
	properties, required := map[string]any{}, []string{}
	s.fields(t, properties, &required)
	slices.Sort(required)
	schema := map[string]any{"type": "object", "properties": properties}
	if len(required) > 0 {
		schema["required"] = required
	}
	if note := s.notes[t.Name()]; note != "" {
		schema["description"] = note
	}
	s.all[t.Name()] = schema
}

func (s *schemas) fields(t reflect.Type, properties map[string]any, required *[]string) {
	for f := range t.Fields() {
		if f.Anonymous {
			s.fields(f.Type, properties, required)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			s.t.Fatalf("%s.%s has no name", t, f.Name)
		}
		typ := f.Type
		optional := strings.Contains(options, "omit")
		if optional && typ.Kind() == reflect.Pointer {
			typ = typ.Elem() // nil is left out
		}
		schema := s.of(typ)
		if values, ok := enums()[t.Name()+"."+name]; ok {
			schema["enum"] = values
		}
		if note := s.notes[fmt.Sprintf("%s.%s", t.Name(), f.Name)]; note != "" {
			schema["description"] = note
		}
		properties[name] = schema
		if !optional {
			*required = append(*required, name)
		}
	}
}
