package config

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// convert turns the merged plain values into values of the Go types, with
// references expanded and defaults filled in. What is wrong is reported and
// left out, so that one pass finds everything.
func (l *loader) convert(k *key, raw any, at *place, path []string) any {
	switch k.kind {
	case kindObject:
		return l.convertObject(k, raw, at, path)
	case kindMap:
		return l.convertMap(k, raw, at, path)
	case kindAny:
		return l.convertFree(raw, at, path)
	case kindJSON:
		return l.convertJSON(at, path)
	case kindWords, kindSignatures:
		if at.val.Kind == yaml.ScalarNode {
			return l.convertWord(k, at, path)
		}
	}
	if k.kind.scalar() {
		return l.convertScalar(k, at, path)
	}
	list := l.convertList(k, raw, at, path)
	if k.kind == kindSignatures {
		return map[string]any{"-list": list}
	}
	return list
}

func (l *loader) convertObject(k *key, raw any, at *place, path []string) any {
	values, _ := raw.(map[string]any)
	out := map[string]any{}
	for _, f := range k.fields {
		below := under(path, f.name)
		var v any
		child := at.children[f.name]
		switch {
		case child != nil:
			v = l.convert(f, values[f.name], child, below)
		case l.failed[pointer(below)] && f.kind != kindObject:
			continue
		default:
			v = l.absent(f, at, below)
		}
		if v != nil {
			out[f.name] = v
		}
	}
	return out
}

// absent is the value of a key that is not in the file.
func (l *loader) absent(f *key, at *place, path []string) any {
	switch {
	case f.required && !l.failed[pointer(path)]:
		l.add(Finding{Code: codeMissingKey, Message: "the key " + quote(f.name) + " is missing", structural: true}, at, path, true)
	case f.kind == kindObject:
		return l.convertObject(f, nil, &place{src: at.src, key: at.key, val: at.val}, path)
	case f.hasDflt:
		return l.defaultValue(f)
	}
	return nil
}

// defaultValue reads the default of the struct tag as the file's text would be
// read.
func (l *loader) defaultValue(f *key) any {
	switch f.kind {
	case kindWords:
		return []any{f.dflt}
	case kindList:
		list := []any{}
		if inner := strings.Trim(f.dflt, "[]"); inner != "" {
			for word := range strings.SplitSeq(inner, ", ") {
				v, _ := parseText(f.elem, word)
				list = append(list, v)
			}
		}
		return list
	case kindBool:
		return f.dflt == "true"
	case kindInt:
		n, _ := strconv.Atoi(f.dflt)
		return n
	}
	text := f.dflt
	if rest, ok := strings.CutPrefix(text, "$runtime"); ok {
		text = joinDefault(l.runtimeDir(), rest)
	} else if rest, ok := strings.CutPrefix(text, "$state"); ok {
		text = joinDefault(l.stateDir(), rest)
	}
	v, _ := parseText(f, text)
	return v
}

func joinDefault(dir, rest string) string {
	if dir == "" {
		return ""
	}
	return dir + rest
}

// convertMap makes a list, in the order of the file, of a map whose keys the
// operator chooses.
func (l *loader) convertMap(k *key, raw any, at *place, path []string) any {
	values, _ := raw.(map[string]any)
	l.checkCount(k, len(at.order), at, path)
	out := make([]any, 0, len(at.order))
	for _, id := range at.order {
		child := at.children[id]
		v := l.convert(k.elem, values[id], child, under(path, id))
		switch v := v.(type) {
		case nil:
		case map[string]any:
			v["-id"] = id
			out = append(out, v)
		default:
			out = append(out, map[string]any{"-id": id, "-value": v})
		}
	}
	return out
}

func (l *loader) convertList(k *key, raw any, at *place, path []string) any {
	values, _ := raw.([]any)
	l.checkCount(k, len(at.items), at, path)
	elem := k.elem
	if k.kind == kindWords {
		elem = &key{kind: kindString}
	}
	out := make([]any, 0, len(at.items))
	for i, child := range at.items {
		if v := l.convert(elem, values[i], child, under(path, strconv.Itoa(i))); v != nil {
			out = append(out, v)
		}
	}
	return out
}

func (l *loader) checkCount(k *key, n int, at *place, path []string) {
	if k.most > 0 && n > k.most {
		l.add(Finding{Code: codeTooMany, Message: fmt.Sprintf("%d entries are more than the %d that are possible", n, k.most), structural: true}, at, path, true)
	}
}

// convertWord reads the one word that some lists may be replaced by.
func (l *loader) convertWord(k *key, at *place, path []string) any {
	first := path
	if k.kind == kindWords {
		first = under(path, "0") // it will be the only entry of a list
	}
	v, ok := l.convertScalar(&key{kind: kindString}, at, first).(string)
	switch {
	case !ok:
		return nil
	case k.kind == kindWords:
		return []any{v}
	case v == "none":
		return map[string]any{"-none": true}
	}
	l.add(Finding{Code: codeBadValue, Message: "expected " + k.wants(), Suggestion: "write none, or a list such as [{scheme: peanuts}]", structural: at.literal()}, at, path, false)
	return nil
}

// literal reports whether the value is what the file spells out, so that the
// schema sees the same text.
func (p *place) literal() bool {
	_, _, refers := cutReference(p.val.Value)
	return !refers && !strings.Contains(p.val.Value, "$$")
}

// quotable reports whether a message may quote the value: the file spells it
// out, and nowhere as a secret.
func (p *place) quotable() bool { return p.literal() && p.src.nodes[p.val] == showAll }

// convertFree converts the settings of a plugin: every text is a secret.String,
// because only the plugin knows which of them are secrets.
func (l *loader) convertFree(raw any, at *place, path []string) any {
	switch v := raw.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, name := range at.order {
			out[name] = l.convertFree(v[name], at.children[name], under(path, name))
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = l.convertFree(v[i], at.items[i], under(path, strconv.Itoa(i)))
		}
		return out
	case string:
		value, ok := l.expand(at, path)
		if !ok {
			return nil
		}
		return l.secret(value, at, false)
	}
	return raw
}

// expand replaces the references of a text, reporting those that fail.
func (l *loader) expand(at *place, path []string) (string, bool) {
	value, _, err := l.refs.expand(at.val.Value)
	if err == nil {
		return value, true
	}
	for _, err := range unjoin(err) {
		if e, ok := errors.AsType[*referenceError](err); ok {
			l.add(Finding{Code: e.code, Message: e.message, Suggestion: e.suggestion}, at, path, false)
		}
	}
	return "", false
}

func unjoin(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func (l *loader) secret(value string, at *place, url bool) secret.String {
	if _, _, refers := cutReference(at.val.Value); refers {
		// Redacted here, so that nothing that shows the reference later can
		// show a literal part beside it.
		return secret.FromReference(value, redact(at.val.Value, url))
	}
	return secret.New(value)
}

func (l *loader) convertScalar(k *key, at *place, path []string) any {
	n := at.val
	tag := n.ShortTag()
	switch {
	case tag == "!!null" && k.kind == kindSecret:
		l.add(Finding{Code: codeEmptySecret, Message: "the secret is empty", Suggestion: "give it a value, or remove the key", structural: true}, at, path, true)
		return nil
	case (k.kind == kindBool || k.kind == kindRejected) && tag == "!!bool":
		return l.convertBool(k, at, path)
	case tag == "!!int" || tag == "!!float":
		return l.convertNumber(k, at, path)
	case k.kind == kindBool, k.kind == kindInt, tag != "!!str" && tag != "!!timestamp":
		l.add(scalarMismatch(k, n), at, path, false)
		return nil
	}
	text, ok := l.expand(at, path)
	if !ok {
		return nil
	}
	if k.kind.secret() {
		return l.secret(text, at, k.kind == kindURL)
	}
	if _, _, refers := cutReference(n.Value); refers {
		l.texts[pointer(path)] = n.Value
	}
	v, ok := parseText(k, text)
	if !ok {
		l.add(badText(k, text, at), at, path, false)
		return nil
	}
	if k.kind == kindAutoSize && text == "auto" {
		return v // 0, which as a size is out of range
	}
	return l.inRange(k, v, at, path)
}

// convertBool refuses the texts that only an explicit tag makes a bool.
func (l *loader) convertBool(k *key, at *place, path []string) any {
	switch at.val.Value {
	case "true", "True", "TRUE":
		return asBool(k, true)
	case "false", "False", "FALSE":
		return asBool(k, false)
	}
	f := scalarMismatch(k, at.val)
	f.structural = false
	l.add(f, at, path, false)
	return nil
}

// asBool is a bool as the Go type of k has it.
func asBool(k *key, v bool) any {
	if k.kind == kindRejected {
		return strconv.FormatBool(v)
	}
	return v
}

// scalarMismatch is [wrongType] with advice on the traps of YAML.
func scalarMismatch(k *key, n *yaml.Node) Finding {
	f := wrongType(k, n)
	_, _, refers := cutReference(n.Value)
	word := strings.ToLower(n.Value)
	switch {
	case f.Suggestion != "":
	case refers:
		f.Suggestion = "a reference always stands for text and cannot be used here"
	case k.kind == kindBool && n.Style == 0 && (word == "yes" || word == "on" || word == "y"):
		f.Suggestion = "write true"
	case k.kind == kindBool && n.Style == 0 && (word == "no" || word == "off" || word == "n"):
		f.Suggestion = "write false"
	case k.kind == kindBool || k.kind == kindInt:
		f.Suggestion = "without quotes"
	case k.kind == kindString || k.kind.secret() || k.kind == kindEvent || k.kind == kindSHA256:
		f.Suggestion = "put it in quotes"
	}
	return f
}

// convertNumber reads a YAML number. Only plain decimal digits are accepted: in
// other notations readers of YAML differ (0660, 1_000, 1e3).
func (l *loader) convertNumber(k *key, at *place, path []string) any {
	n := at.val
	sized := k.kind == kindSize || k.kind == kindAutoSize || k.kind == kindShare
	if k.kind != kindInt && !sized {
		f := scalarMismatch(k, n)
		switch k.kind {
		case kindDuration:
			f.Suggestion = "add a unit: s, m, h or d"
		case kindMode:
			f.Suggestion = `put it in quotes: "0660"`
		}
		l.add(f, at, path, false)
		return nil
	}
	digits, negative := strings.CutPrefix(n.Value, "-")
	switch {
	case n.ShortTag() == "!!float" && !integral(n.Value):
		l.add(wrongType(k, n), at, path, false)
		return nil
	case !decimalForm.MatchString(digits):
		l.add(Finding{Code: codeAmbiguous, Message: "a number must be written in plain decimal digits", Suggestion: "without leading zeros, underscores, exponents and prefixes"}, at, path, false)
		return nil
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		i = math.MaxInt64
	}
	if sized && negative && i != 0 {
		f := outOfRange(k)
		f.structural = true
		l.add(f, at, path, false)
		return nil
	}
	switch k.kind {
	case kindShare:
		return l.inRange(k, Share{Bytes: i}, at, path)
	case kindInt:
		return l.inRange(k, int(i), at, path)
	}
	return l.inRange(k, i, at, path)
}

// integral reports whether a YAML float denotes a whole number.
func integral(text string) bool {
	f, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64)
	return err == nil && f == math.Trunc(f) && !math.IsInf(f, 0)
}

// parseText reads the text of a scalar that is neither number nor bool. ok is
// false when it does not have the form of k; ranges are not looked at.
func parseText(k *key, text string) (v any, ok bool) {
	switch k.kind {
	case kindDuration:
		return result(parseDuration(text))
	case kindSize:
		return result(parseSize(text))
	case kindAutoSize:
		if text == "auto" {
			return int64(0), true
		}
		return result(parseSize(text))
	case kindShare:
		if n, ok := parsePercent(text); ok {
			if n == 0 {
				n = -1 // 0 would mean that it is no percentage
			}
			return Share{Percent: n}, true
		}
		n, ok := parseSize(text)
		return Share{Bytes: n}, ok
	case kindMode:
		return result(parseMode(text))
	case kindEnum, kindRejected:
		if slices.Contains(k.enum, text) {
			return text, true
		}
		return nil, false
	case kindEvent:
		return text, eventForm.MatchString(text)
	case kindSHA256:
		return strings.ToLower(text), sha256Form.MatchString(text)
	}
	return text, true
}

func result[T any](v T, ok bool) (any, bool) { return v, ok }

var sexagesimal = regexp.MustCompile(`^[0-9]+:[0-9:.]+$`)

// badText is the finding for a text of the wrong form. The text is quoted only
// when the file itself spells it.
func badText(k *key, text string, at *place) Finding {
	f := Finding{Code: codeBadValue, Message: "expected " + k.wants(), structural: at.literal()}
	if !at.quotable() {
		return f
	}
	if short := len(text) <= 32 && !strings.ContainsAny(text, "\r\n"); short {
		f.Message = quote(text) + " is not possible: " + f.Message
	}
	switch {
	case k.kind == kindEnum || k.kind == kindRejected:
		f.Suggestion = didYouMean(text, k.enum, "")
	case k.kind == kindDuration && decimalForm.MatchString(text):
		f.Suggestion = "add a unit: s, m, h or d"
	case k.kind == kindDuration && sexagesimal.MatchString(text):
		f.Suggestion = "write minutes and seconds as 1m30s"
	case k.kind == kindDuration:
		f.Suggestion = "the units are d, h, m, s and ms"
	case k.kind == kindSize || k.kind == kindAutoSize || k.kind == kindShare:
		f.Suggestion = "the units are B, KiB, MiB, GiB and TiB, without a space"
	}
	return f
}
