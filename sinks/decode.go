package sinks

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/peanutsapp/peanuts-relay/internal/suggest"
)

// Decode reads settings, one JSON object, into their type. It is strict: what
// [Schema] says must hold, a key that is no setting is an error, and so is one that
// comes twice. Keys are matched with their case. null is a value of any only. Defaults
// are filled in, also those within a struct that is not given.
//
// Its error joins a [*SettingError] for each thing that is wrong, in the order of the
// settings; none of them shows a value that may be secret. Empty settings are {}.
func Decode[C any](settings []byte) (C, error) {
	var c C
	s, err := shapeOf(reflect.TypeFor[C]())
	if err != nil {
		return c, err
	}
	if err := s.decodeSettings(settings, reflect.ValueOf(&c).Elem()); err != nil {
		return *new(C), err
	}
	return c, nil
}

func (s *shape) decodeSettings(settings []byte, into reflect.Value) error {
	v := value{kind: kindObject}
	if len(settings) > 0 {
		var err error
		if v, err = parseValue(settings); err != nil {
			return &SettingError{Err: err}
		}
	}
	var bad violations
	s.decode(v, into, "", &bad)
	return errors.Join(bad...)
}

// violations are [*SettingError]s.
type violations []error

func (v *violations) add(path, format string, args ...any) {
	*v = append(*v, &SettingError{Path: path, Err: fmt.Errorf(format, args...)})
}

// decode reads v into dst, and notes at path what is wrong with it.
func (s *shape) decode(v value, dst reflect.Value, path string, bad *violations) {
	if s.kind != kindAny && v.kind != s.kind && !(s.kind == kindInteger && v.kind == kindNumber) {
		bad.add(path, "must be %s, not %s", value{kind: s.kind}.name(), v.name())
		return
	}
	if s.kind == kindInteger {
		var err error
		if v, err = whole(v); err != nil {
			bad.add(path, "%w", err)
			return
		}
	}
	before := len(*bad)
	s.check(v, path, bad)
	if len(*bad) > before {
		return
	}
	switch {
	case s.leaf:
		s.decodeLeaf(v, dst, path, bad)
	case s.kind == kindAny:
		decodeAny(v, dst, path, bad)
	case s.kind == kindArray:
		list := reflect.MakeSlice(s.typ, len(v.items), len(v.items))
		for i, item := range v.items {
			s.elem.decode(item, list.Index(i), path+"/"+strconv.Itoa(i), bad)
		}
		dst.Set(list)
	case s.elem != nil:
		s.decodeMap(v, dst, path, bad)
	case s.kind == kindObject:
		s.decodeStruct(v, dst, path, bad)
	default:
		s.decodeScalar(v, dst, path, bad)
	}
}

func (s *shape) decodeStruct(v value, dst reflect.Value, path string, bad *violations) {
	given := make(map[string]bool, len(v.members))
	for _, m := range v.members {
		at := path + "/" + escapePointer(m.name)
		f := s.field(m.name)
		switch {
		case given[m.name]:
			bad.add(at, "is given twice")
		case f == nil:
			bad.add(at, "no such setting%s", s.didYouMean(m.name))
		default:
			f.shape.decode(m.value, f.target(dst), at, bad)
		}
		given[m.name] = true
	}
	for _, f := range s.fields {
		if given[f.name] {
			continue
		}
		if f.required {
			bad.add(path+"/"+escapePointer(f.name), "is required")
			continue
		}
		f.fill(dst)
	}
}

// target is where the value of the field goes.
func (f *field) target(in reflect.Value) reflect.Value {
	dst := in.FieldByIndex(f.index)
	if f.pointer {
		dst.Set(reflect.New(dst.Type().Elem()))
		dst = dst.Elem()
	}
	return dst
}

// fill sets what a setting that is not given has by default.
func (f *field) fill(in reflect.Value) {
	var none violations // defaults were checked with the type
	switch {
	case f.preset != nil:
		f.shape.decode(*f.preset, f.target(in), "", &none)
	case len(f.shape.fields) > 0 && !f.pointer:
		for _, inner := range f.shape.fields {
			inner.fill(in.FieldByIndex(f.index))
		}
	}
}

func (s *shape) field(name string) *field {
	for i := range s.fields {
		if s.fields[i].name == name {
			return &s.fields[i]
		}
	}
	return nil
}

func (s *shape) didYouMean(name string) string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.name
	}
	if near := suggest.Word(name, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

func (s *shape) decodeMap(v value, dst reflect.Value, path string, bad *violations) {
	m := reflect.MakeMapWithSize(s.typ, len(v.members))
	for _, member := range v.members {
		at := path + "/" + escapePointer(member.name)
		key := reflect.ValueOf(member.name).Convert(s.typ.Key())
		if m.MapIndex(key).IsValid() {
			bad.add(at, "is given twice")
			continue
		}
		item := reflect.New(s.elem.typ).Elem()
		s.elem.decode(member.value, item, at, bad)
		m.SetMapIndex(key, item)
	}
	dst.Set(m)
}

// decodeLeaf lets the type read itself. Its error is not shown of a secret.
func (s *shape) decodeLeaf(v value, dst reflect.Value, path string, bad *violations) {
	err := json.Unmarshal(v.append(nil), dst.Addr().Interface())
	switch _, ours := dst.Addr().Interface().(*URL); {
	case err == nil:
	case s.secret && !ours:
		bad.add(path, "cannot be used")
	default:
		bad.add(path, "%w", err)
	}
}

// decodeAny keeps what is given. Numbers in an any are [json.Number]s.
func decodeAny(v value, dst reflect.Value, path string, bad *violations) {
	raw := v.append(nil)
	if dst.Type() == reflect.TypeFor[json.RawMessage]() {
		dst.SetBytes(raw)
		return
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	if err := dec.Decode(dst.Addr().Interface()); err != nil {
		bad.add(path, "cannot be used")
	}
}

func (s *shape) decodeScalar(v value, dst reflect.Value, path string, bad *violations) {
	switch {
	case s.kind == kindBoolean:
		dst.SetBool(v.truth)
	case s.typ == reflect.TypeFor[time.Duration]():
		d, err := time.ParseDuration(v.text)
		if err != nil {
			bad.add(path, "is not a duration such as 30s or 1h30m")
			return
		}
		dst.SetInt(int64(d))
	case s.typ == reflect.TypeFor[[]byte]():
		b, err := base64.StdEncoding.DecodeString(v.text)
		if err != nil {
			bad.add(path, "is not base64")
			return
		}
		dst.SetBytes(b)
	case s.kind == kindString || s.typ == reflect.TypeFor[json.Number]():
		dst.SetString(v.text)
	case dst.CanFloat():
		n, err := strconv.ParseFloat(v.text, s.typ.Bits())
		if err != nil {
			bad.add(path, "is out of range")
			return
		}
		dst.SetFloat(n)
	default:
		s.decodeInteger(v, dst, path, bad)
	}
}

func (s *shape) decodeInteger(v value, dst reflect.Value, path string, bad *violations) {
	if dst.CanUint() {
		if n, err := strconv.ParseUint(v.text, 10, s.typ.Bits()); err == nil {
			dst.SetUint(n)
			return
		}
	} else if n, err := strconv.ParseInt(v.text, 10, s.typ.Bits()); err == nil {
		dst.SetInt(n)
		return
	}
	bad.add(path, "is out of range")
}

// whole makes 3 of 3.0 and of 3e0, which are the same to JSON.
func whole(v value) (value, error) {
	n, ok := exactly(v.text)
	switch {
	case !ok:
		return v, errors.New("is out of range")
	case !n.IsInt():
		return v, errors.New("must be a whole number")
	}
	v.text = n.Num().String()
	return v, nil
}

// check holds a value to the rules of its tags.
func (s *shape) check(v value, path string, bad *violations) {
	length := -1
	switch v.kind {
	case kindString:
		length = utf8.RuneCountInString(v.text)
		if s.pattern != nil && !s.pattern.MatchString(v.text) {
			bad.add(path, "does not match %s", s.pattern)
		}
	case kindNumber:
		s.checkRange(v, path, bad)
	case kindArray:
		length = len(v.items)
	case kindObject:
		length = len(v.members)
	}
	switch {
	case length < 0 || !s.hasLength:
	case length == 0 && s.shortest > 0:
		bad.add(path, "must not be empty")
	case length < s.shortest:
		bad.add(path, "is too short: at least %d %s", s.shortest, unitOf(v.kind))
	case s.longest >= 0 && length > s.longest:
		bad.add(path, "is too long: at most %d %s", s.longest, unitOf(v.kind))
	}
	if len(s.enum) > 0 && !s.enumerated(v) {
		bad.add(path, "must be one of %s%s", s.choices(), s.meantChoice(v))
	}
}

func unitOf(k kind) string {
	if k == kindString {
		return "characters"
	}
	return "elements"
}

func (s *shape) checkRange(v value, path string, bad *violations) {
	if s.min == nil && s.max == nil {
		return
	}
	n, ok := exactly(v.text)
	switch {
	case !ok:
		bad.add(path, "is out of range")
	case s.min != nil && n.Cmp(s.min.exact) < 0:
		bad.add(path, "must be at least %s", s.min.text)
	case s.max != nil && n.Cmp(s.max.exact) > 0:
		bad.add(path, "must be at most %s", s.max.text)
	}
}

func (s *shape) enumerated(v value) bool {
	for _, e := range s.enum {
		if e.text == v.text {
			return true
		}
	}
	return false
}

func (s *shape) choices() string {
	texts := make([]string, len(s.enum))
	for i, e := range s.enum {
		texts[i] = string(e.append(nil))
	}
	return strings.Join(texts, ", ")
}

func (s *shape) meantChoice(v value) string {
	words := make([]string, len(s.enum))
	for i, e := range s.enum {
		words[i] = e.text
	}
	if near := suggest.Word(v.text, words); near != "" && v.kind == kindString {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// escapePointer is a key as a JSON Pointer has it (RFC 6901).
func escapePointer(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
