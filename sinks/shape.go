package sinks

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is the type of JSON that a setting is given as.
type kind string

const (
	kindAny     kind = ""
	kindObject  kind = "object"
	kindArray   kind = "array"
	kindString  kind = "string"
	kindInteger kind = "integer"
	kindNumber  kind = "number"
	kindBoolean kind = "boolean"
)

// shape is what [Schema] and [Decode] know of a type.
type shape struct {
	typ    reflect.Type
	kind   kind
	leaf   bool // decoded as a whole, by the type's own method
	secret bool
	format string
	rules

	fields []field // of an object that is a struct, in order
	elem   *shape  // of an array, and of an object that is a map
}

// rules are the checks of one value that tags ask for.
type rules struct {
	enum      []value
	pattern   *regexp.Regexp
	min, max  *bound // nil: none
	shortest  int    // runes of a string, elements of a list or a map
	longest   int    // -1 = no limit
	hasLength bool   // shortest or longest was asked for
}

// bound is a number that a value must not pass.
type bound struct {
	text  string
	exact *big.Rat
}

// field is one setting.
type field struct {
	name        string
	index       []int // of the struct's field, through embedded structs
	pointer     bool  // the struct's field points to the value
	shape       *shape
	description string
	required    bool
	preset      *value // the default
	examples    []value
}

// deepest is how far settings can be nested. A type that contains itself is refused
// there.
const deepest = 16

// shapeOf looks at a type of settings.
func shapeOf(t reflect.Type) (*shape, error) {
	if t.Kind() != reflect.Struct || isLeaf(t) {
		return nil, fmt.Errorf("settings of type %s: a struct is wanted", t)
	}
	return newShape(t, "", deepest)
}

func isLeaf(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func newShape(t reflect.Type, tag reflect.StructTag, depth int) (*shape, error) {
	if depth == 0 {
		return nil, fmt.Errorf("type %s: nested more than %d levels", t, deepest)
	}
	s := &shape{typ: t, rules: rules{longest: -1}}
	var err error
	if known := s.wellKnown(); !known {
		switch t.Kind() {
		case reflect.Struct:
			s.kind = kindObject
			err = s.addFields(t, nil, depth)
		case reflect.Map:
			s.kind = kindObject
			if t.Key().Kind() != reflect.String {
				return nil, fmt.Errorf("type %s: the keys must be strings", t)
			}
			s.elem, err = newShape(t.Elem(), elementTag(tag), depth-1)
		case reflect.Slice:
			s.kind = kindArray
			s.elem, err = newShape(t.Elem(), elementTag(tag), depth-1)
		default:
			err = s.scalar()
		}
	}
	if err != nil {
		return nil, err
	}
	if s.elem != nil {
		tag = ownTag(tag)
	}
	return s, s.readRules(tag)
}

// wellKnown recognises types that are one value in JSON whatever they are in Go.
func (s *shape) wellKnown() bool {
	switch s.typ {
	case reflect.TypeFor[Secret]():
		s.kind, s.secret = kindString, true
	case reflect.TypeFor[URL]():
		s.kind, s.secret, s.format = kindString, true, "uri"
	case reflect.TypeFor[time.Time]():
		s.kind, s.format = kindString, "date-time"
	case reflect.TypeFor[time.Duration](), reflect.TypeFor[[]byte]():
		s.kind = kindString
		return true
	case reflect.TypeFor[json.RawMessage](), reflect.TypeFor[any]():
		s.kind = kindAny
		return true
	case reflect.TypeFor[json.Number]():
		s.kind = kindNumber
		return true
	default:
		p := reflect.PointerTo(s.typ)
		switch {
		case p.Implements(reflect.TypeFor[json.Unmarshaler]()):
			s.kind = kindAny
		case p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
			s.kind = kindString
		default:
			return false
		}
	}
	s.leaf = true
	return true
}

func (s *shape) scalar() error {
	switch s.typ.Kind() {
	case reflect.String:
		s.kind = kindString
	case reflect.Bool:
		s.kind = kindBoolean
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.kind = kindInteger
		if bits := s.typ.Bits(); bits < 64 {
			s.min, s.max = wholeBound(-1<<(bits-1)), wholeBound(1<<(bits-1)-1)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s.kind, s.min = kindInteger, wholeBound(0)
		if bits := s.typ.Bits(); bits < 64 {
			s.max = wholeBound(1<<bits - 1)
		}
	case reflect.Float32, reflect.Float64:
		s.kind = kindNumber
	default:
		return fmt.Errorf("type %s cannot be a setting", s.typ)
	}
	return nil
}

func wholeBound(n int64) *bound { return &bound{strconv.FormatInt(n, 10), big.NewRat(n, 1)} }

// addFields reads the fields of a struct, those of embedded structs among them.
func (s *shape) addFields(t reflect.Type, index []int, depth int) error {
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(slices.Clone(index), i)
		name, options, _ := strings.Cut(sf.Tag.Get("json"), ",")
		switch {
		case sf.Tag.Get("json") == "-":
			continue
		case sf.Anonymous && name == "" && sf.Type.Kind() == reflect.Struct && !isLeaf(sf.Type):
			if err := s.addFields(sf.Type, at, depth-1); err != nil {
				return err
			}
			continue
		case !sf.IsExported():
			continue
		case slices.Contains(strings.Split(options, ","), "string"):
			return fmt.Errorf("field %s: the option string of the json tag is not supported", sf.Name)
		}
		if name == "" {
			name = sf.Name
		}
		if slices.ContainsFunc(s.fields, func(f field) bool { return f.name == name }) {
			return fmt.Errorf("setting %q exists twice", name)
		}
		f, err := newField(name, sf, at, depth)
		if err != nil {
			return fmt.Errorf("setting %q: %w", name, err)
		}
		s.fields = append(s.fields, f)
	}
	return nil
}

func newField(name string, sf reflect.StructField, index []int, depth int) (field, error) {
	f := field{name: name, index: index, description: sf.Tag.Get("description")}
	t := sf.Type
	if t.Kind() == reflect.Pointer {
		f.pointer, t = true, t.Elem()
	}
	var err error
	if f.shape, err = newShape(t, sf.Tag, depth-1); err != nil {
		return f, err
	}
	if f.required, err = boolTag(sf.Tag, "required"); err != nil {
		return f, err
	}
	secret, err := boolTag(sf.Tag, "secret")
	if err != nil {
		return f, err
	}
	if secret && f.shape.kind != kindString {
		return f, errors.New("the tag secret is for strings; give each of them the type Secret")
	}
	f.shape.secret = f.shape.secret || secret
	if f.required && f.shape.secret && !f.shape.hasLength {
		// An empty secret is one that was forgotten.
		f.shape.shortest, f.shape.hasLength = 1, true
	}
	return f, f.readValues(sf.Tag)
}

// readValues reads the tags that hold settings, and holds them to the rules.
func (f *field) readValues(tag reflect.StructTag) error {
	if text, ok := tag.Lookup("default"); ok {
		if f.required {
			return errors.New("required, and yet it has a default")
		}
		v, err := f.shape.literal(text)
		if err != nil {
			return fmt.Errorf("tag default: %w", err)
		}
		f.preset = &v
	}
	var examples []string
	if text, ok := tag.Lookup("example"); ok {
		examples = append(examples, text)
	}
	if text, ok := tag.Lookup("examples"); ok {
		examples = append(examples, strings.Split(text, ",")...)
	}
	for _, text := range examples {
		v, err := f.shape.literal(text)
		if err != nil {
			return fmt.Errorf("tag example: %w", err)
		}
		f.examples = append(f.examples, v)
	}
	if f.preset != nil && f.shape.secret {
		return errors.New("a secret with a default")
	}
	return nil
}

// literal reads a value out of a tag: strings as they are, lists of strings with
// commas, anything else as JSON. The value must be a good one.
func (s *shape) literal(text string) (value, error) {
	v, err := s.parseLiteral(text)
	if err != nil {
		return value{}, err
	}
	var bad violations
	s.decode(v, reflect.New(s.typ).Elem(), "", &bad)
	return v, errors.Join(bad...)
}

func (s *shape) parseLiteral(text string) (value, error) {
	switch {
	case s.kind == kindString:
		return value{kind: kindString, text: text}, nil
	case s.kind == kindArray && s.elem.kind == kindString && !strings.HasPrefix(text, "["):
		list := value{kind: kindArray}
		for item := range strings.SplitSeq(text, ",") {
			list.items = append(list.items, value{kind: kindString, text: item})
		}
		return list, nil
	}
	return parseValue([]byte(text))
}
