package sinks

import (
	"errors"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// masker hides the secrets of one sink's settings. A nil masker hides URLs of requests
// only.
type masker struct{ replacer *strings.Replacer }

// shortestSecret is masked wherever it is found; anything shorter is in every text.
const shortestSecret = 6

// newMasker collects every [Secret] and [URL] of settings, and every string that a tag
// calls secret.
func newMasker(s *shape, settings reflect.Value) *masker {
	var found []string
	s.secrets(settings, func(text string) {
		if len(text) < shortestSecret {
			return
		}
		for _, form := range []string{text, url.QueryEscape(text), url.PathEscape(text)} {
			found = append(found, form, strings.Trim(string(appendString(nil, form)), `"`))
		}
	})
	if len(found) == 0 {
		return nil
	}
	// The longest first, for one secret may contain another.
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, text := range slices.Compact(found) {
		pairs = append(pairs, text, redacted)
	}
	return &masker{strings.NewReplacer(pairs...)}
}

// secrets calls yield for each secret in v.
func (s *shape) secrets(v reflect.Value, yield func(string)) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	switch secret := v.Interface().(type) {
	case Secret:
		yield(secret.Reveal())
		return
	case URL:
		yieldURL(secret, yield)
		return
	}
	switch {
	case s.secret && v.Kind() == reflect.String:
		yield(v.String())
	case s.elem != nil && v.Kind() == reflect.Slice:
		for i := range v.Len() {
			s.elem.secrets(v.Index(i), yield)
		}
	case s.elem != nil && v.Kind() == reflect.Map:
		for it := v.MapRange(); it.Next(); {
			s.elem.secrets(it.Value(), yield)
		}
	}
	for _, f := range s.fields {
		f.shape.secrets(v.FieldByIndex(f.index), yield)
	}
}

// yieldURL gives the URL, and what of it stands alone in a message: the request line
// has the path with the query.
func yieldURL(u URL, yield func(string)) {
	full := u.Reveal()
	if full == nil {
		return
	}
	bare := *full
	bare.User, bare.Fragment = nil, ""
	if len(bare.RequestURI()) > 1 || full.User != nil {
		yield(full.String())
		yield(full.Redacted()) // as net/url prints it
		yield(bare.String())
		yield(bare.RequestURI())
	}
	if password, ok := full.User.Password(); ok {
		yield(password)
	}
}

func (m *masker) text(s string) string {
	if m == nil {
		return s
	}
	return m.replacer.Replace(s)
}

// error is the text of an error, without the paths of the URLs that net/http names in
// its own.
func (m *masker) error(err error) string {
	text := err.Error()
	eachURLError(err, func(e *url.Error) {
		shown := "…"
		if u, err := url.Parse(e.URL); err == nil && u.Host != "" {
			shown = origin(u)
		}
		text = strings.ReplaceAll(text, e.URL, shown)
	})
	return m.text(text)
}

func eachURLError(err error, f func(*url.Error)) {
	if e, ok := err.(*url.Error); ok && e.URL != "" {
		f(e)
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			eachURLError(inner, f)
		}
	default:
		if inner := errors.Unwrap(err); inner != nil {
			eachURLError(inner, f)
		}
	}
}
