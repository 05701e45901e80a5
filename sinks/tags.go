package sinks

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// ofElements are the tags that hold for the elements of a list or a map.
var ofElements = [...]string{"enum", "pattern", "format", "minimum", "maximum"}

// elementTag is what of the tag of a list holds for its elements.
func elementTag(tag reflect.StructTag) reflect.StructTag {
	var b strings.Builder
	for _, key := range ofElements {
		if v, ok := tag.Lookup(key); ok {
			fmt.Fprintf(&b, "%s:%q ", key, v)
		}
	}
	return reflect.StructTag(b.String())
}

// ownTag is what of the tag of a list holds for the list itself.
func ownTag(tag reflect.StructTag) reflect.StructTag {
	var b strings.Builder
	for _, key := range []string{"minLength", "maxLength"} {
		if v, ok := tag.Lookup(key); ok {
			fmt.Fprintf(&b, "%s:%q ", key, v)
		}
	}
	return reflect.StructTag(b.String())
}

func boolTag(tag reflect.StructTag, key string) (bool, error) {
	text, ok := tag.Lookup(key)
	if !ok {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("tag %s:%q is neither true nor false", key, text)
	}
	return b, nil
}

// readRules reads the tags that restrict a value.
func (s *shape) readRules(tag reflect.StructTag) error {
	if text, ok := tag.Lookup("format"); ok {
		if s.kind != kindString {
			return errors.New("the tag format is for strings")
		}
		s.format = text
	}
	if text, ok := tag.Lookup("pattern"); ok {
		if s.kind != kindString {
			return errors.New("the tag pattern is for strings")
		}
		re, err := regexp.Compile(text)
		if err != nil {
			return fmt.Errorf("tag pattern: %w", err)
		}
		s.pattern = re
	}
	for key, to := range map[string]**bound{"minimum": &s.min, "maximum": &s.max} {
		text, ok := tag.Lookup(key)
		if !ok {
			continue
		}
		if s.kind != kindInteger && s.kind != kindNumber {
			return fmt.Errorf("the tag %s is for numbers", key)
		}
		v, err := parseValue([]byte(text))
		if err != nil || v.kind != kindNumber {
			return fmt.Errorf("tag %s:%q is not a number", key, text)
		}
		exact, ok := exactly(text)
		if !ok {
			return fmt.Errorf("tag %s:%q is out of range", key, text)
		}
		*to = &bound{text, exact}
	}
	if err := s.readLengths(tag); err != nil {
		return err
	}
	return s.readEnum(tag)
}

func (s *shape) readLengths(tag reflect.StructTag) error {
	for key, to := range map[string]*int{"minLength": &s.shortest, "maxLength": &s.longest} {
		text, ok := tag.Lookup(key)
		if !ok {
			continue
		}
		if s.kind != kindString && s.elem == nil {
			return fmt.Errorf("the tag %s is for strings, lists and maps", key)
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return fmt.Errorf("tag %s:%q is not a length", key, text)
		}
		*to, s.hasLength = n, true
	}
	return nil
}

func (s *shape) readEnum(tag reflect.StructTag) error {
	text, ok := tag.Lookup("enum")
	if !ok {
		return nil
	}
	if s.kind != kindString && s.kind != kindInteger {
		return errors.New("the tag enum is for strings and whole numbers")
	}
	if s.secret {
		return errors.New("a secret with an enum")
	}
	var all []value
	for item := range strings.SplitSeq(text, ",") {
		v, err := s.literal(item)
		if err != nil {
			return fmt.Errorf("tag enum: %w", err)
		}
		if s.kind == kindInteger {
			v, _ = whole(v) // literal has made sure that it is
		}
		all = append(all, v)
	}
	s.enum = all
	return nil
}
