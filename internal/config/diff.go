package config

import (
	"bytes"
	"maps"
	"reflect"
	"slices"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// Values of Change.Object.
const (
	ObjectSetting = "setting" // a key outside of the maps of objects
	ObjectSink    = "sink"
	ObjectHelper  = "helper"
	ObjectWebhook = "webhook"
	ObjectTest    = "test"
)

// Values of Change.Op.
const (
	OpAdded   = "added"
	OpRemoved = "removed"
	OpChanged = "changed"
)

// Change is one object that differs between two configurations. It names keys,
// never values.
type Change struct {
	Object string
	// ID is helper.webhook for a webhook, and the name of the key, such as
	// retry.schedule, for a setting.
	ID string
	Op string
	// Fields are the keys of a changed object that differ, such as url,
	// headers.X-Env or retry.schedule; nil for a setting.
	Fields []string
	// Restart says that the change takes effect at the next start only.
	Restart bool
}

// Diff says what a candidate would change of what runs: settings, sinks, helpers,
// webhooks, tests, each in the order of the candidate's files, what is removed
// last. Neither may be nil.
//
// Values are compared as they take effect. References count by what they stand
// for, and the PEM files of tls by path and content. A webhook is compared with all
// that it inherits, so that a new secret of its helper is a change of both. The
// order of lists and of a helper's fields counts, because payloads have it; that of
// other maps, and which file says something, does not.
func Diff(running, candidate *Config) []Change {
	var settings []Change
	groups := map[string][]Change{}
	a, b := reflect.ValueOf(running).Elem(), reflect.ValueOf(candidate).Elem()
	for _, f := range model().fields {
		if f.kind != kindMap {
			continue
		}
		object, prefix := objectOf(f), ""
		if object == ObjectSetting {
			prefix = f.name + "."
		}
		groups[object] = append(groups[object], diffObjects(object, prefix, f, a.FieldByName(f.field), b.FieldByName(f.field))...)
	}
	for _, d := range differences(model(), a, b) {
		settings = append(settings, Change{Object: ObjectSetting, ID: d.name, Op: OpChanged, Restart: d.restart})
	}
	webhooks := diffObjects(ObjectWebhook, "", model().child("helpers").elem.child("webhooks"),
		reflect.ValueOf(running.effectives()), reflect.ValueOf(candidate.effectives()))
	return slices.Concat(settings, groups[ObjectSetting], groups[ObjectSink], groups[ObjectHelper], webhooks, groups[ObjectTest])
}

// objectOf says what the entries of a map at the top level are called.
func objectOf(k *key) string {
	switch k.name {
	case "sinks":
		return ObjectSink
	case "helpers":
		return ObjectHelper
	case "tests":
		return ObjectTest
	}
	return ObjectSetting
}

// effectives are the webhooks with all that they inherit, in the order of the file.
func (c *Config) effectives() []WebhookKeys {
	var out []WebhookKeys
	for i := range c.Helpers {
		h := &c.Helpers[i]
		for j := range h.Webhooks {
			out = append(out, c.effective(h, &h.Webhooks[j]))
		}
	}
	return out
}

// diffObjects compares the entries of a map of objects by id.
func diffObjects(object, prefix string, k *key, a, b reflect.Value) []Change {
	var out []Change
	was, is := entriesByID(a), entriesByID(b)
	for i := range b.Len() {
		id := entryID(b.Index(i))
		old, ok := was[id]
		if !ok {
			out = append(out, Change{Object: object, ID: prefix + id, Op: OpAdded})
			continue
		}
		var fields []string
		for _, d := range differences(k.elem, old, b.Index(i)) {
			fields = append(fields, d.name)
		}
		if len(fields) > 0 {
			out = append(out, Change{Object: object, ID: prefix + id, Op: OpChanged, Fields: fields})
		}
	}
	for i := range a.Len() {
		if id := entryID(a.Index(i)); !is[id].IsValid() {
			out = append(out, Change{Object: object, ID: prefix + id, Op: OpRemoved})
		}
	}
	return out
}

// entryID is the key in the file of an entry of a map: the field "-id" comes first.
func entryID(entry reflect.Value) string { return entry.Field(0).String() }

func entriesByID(list reflect.Value) map[string]reflect.Value {
	out := make(map[string]reflect.Value, list.Len())
	for i := range list.Len() {
		out[entryID(list.Index(i))] = list.Index(i)
	}
	return out
}

// difference is one key whose values differ.
type difference struct {
	name    string // below the object, joined with dots
	restart bool
}

// differences lists the keys of an object whose values differ. Maps of objects
// that have changes of their own are left out: those of the top level, and the
// webhooks of a helper.
func differences(k *key, a, b reflect.Value) []difference {
	var d differ
	apart := func(f *key) bool {
		return f.kind == kindMap && k == model() || f.name == "webhooks" && k == model().child("helpers").elem
	}
	d.object(k, a, b, "", apart)
	return d.found
}

// differ walks two values of the same key.
type differ struct{ found []difference }

func (d *differ) add(k *key, name string) {
	d.found = append(d.found, difference{name, k.restart})
}

func (d *differ) object(k *key, a, b reflect.Value, prefix string, apart func(*key) bool) {
	for _, f := range k.fields {
		av, bv := a.FieldByName(f.field), b.FieldByName(f.field)
		name := prefix + f.name
		switch {
		case apart != nil && apart(f):
		case f.name == "secret" && k.child("secrets") != nil:
			d.secrets(f, a, b, prefix)
		case f.name == "secrets" && k.child("secret") != nil: // compared with secret
		default:
			d.value(f, av, bv, name)
			// The content of the file that the key names.
			if pem := a.FieldByName(f.field + "PEM"); pem.IsValid() && same(av, bv) && !same(pem, b.FieldByName(f.field+"PEM")) {
				d.add(f, name)
			}
		}
	}
}

func (d *differ) value(k *key, a, b reflect.Value, name string) {
	switch k.kind {
	case kindObject:
		d.object(k, a, b, name+".", nil)
	case kindMap:
		d.entries(k, a, b, name)
	case kindAny:
		d.free(k, a.Interface().(map[string]any), b.Interface().(map[string]any), name)
	default:
		if !same(a, b) {
			d.add(k, name)
		}
	}
}

// secrets compares `secret` and `secrets` as the one list that they are. It is
// named after the key that has it now. A webhook that was or is unsigned has a
// change of its signatures, and none of its secrets.
func (d *differ) secrets(k *key, a, b reflect.Value, prefix string) {
	pair := func(v reflect.Value) secretsOf {
		return secretsOf{v.FieldByName("Secret").Interface().(secret.String), v.FieldByName("Secrets").Interface().([]secret.String)}
	}
	unsigned := func(v reflect.Value) bool {
		s := v.FieldByName("Signatures")
		return s.IsValid() && s.Interface().(Signatures).None
	}
	was, is := pair(a), pair(b)
	same := slices.EqualFunc(was.list(), is.list(), func(a, b secret.String) bool { return a.Reveal() == b.Reveal() })
	switch {
	case same || unsigned(a) != unsigned(b):
	case len(is.many) > 0, is.one.IsZero() && len(was.many) > 0:
		d.add(k, prefix+"secrets")
	default:
		d.add(k, prefix+"secret")
	}
}

func (d *differ) entries(k *key, a, b reflect.Value, name string) {
	was, is := entriesByID(a), entriesByID(b)
	for i := range b.Len() {
		id := entryID(b.Index(i))
		old, ok := was[id]
		switch {
		case !ok:
			d.add(k, name+"."+id)
		case k.elem.kind == kindObject:
			d.object(k.elem, old, b.Index(i), name+"."+id+".", nil)
		default:
			d.value(k.elem, old.Field(1), b.Index(i).Field(1), name+"."+id)
		}
	}
	for i := range a.Len() {
		if id := entryID(a.Index(i)); !is[id].IsValid() {
			d.add(k, name+"."+id)
		}
	}
	if k.ids == "field" && !slices.Equal(common(a, is), common(b, was)) {
		d.add(k, name)
	}
}

// common lists the ids of list that other has too, in order.
func common(list reflect.Value, other map[string]reflect.Value) []string {
	var ids []string
	for i := range list.Len() {
		if id := entryID(list.Index(i)); other[id].IsValid() {
			ids = append(ids, id)
		}
	}
	return ids
}

// free compares the settings of a plugin, maps key by key.
func (d *differ) free(k *key, a, b map[string]any, name string) {
	keys := maps.Clone(a)
	if keys == nil {
		keys = map[string]any{}
	}
	maps.Copy(keys, b)
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		was, hadIt := a[id]
		is, hasIt := b[id]
		wasMap, ok1 := was.(map[string]any)
		isMap, ok2 := is.(map[string]any)
		switch below := name + "." + id; {
		case ok1 && ok2:
			d.free(k, wasMap, isMap, below)
		case hadIt != hasIt, !same(reflect.ValueOf(was), reflect.ValueOf(is)):
			d.add(k, below)
		}
	}
}

// same compares two values of the same field, or two of settings. An empty list
// is not an absent one.
func same(a, b reflect.Value) bool {
	if !a.IsValid() || !b.IsValid() || a.Type() != b.Type() {
		return a.IsValid() == b.IsValid() && !a.IsValid()
	}
	if s, ok := reflect.TypeAssert[secret.String](a); ok {
		return s.Reveal() == b.Interface().(secret.String).Reveal()
	}
	switch a.Kind() {
	case reflect.Interface:
		return same(a.Elem(), b.Elem())
	case reflect.Slice:
		if data, ok := reflect.TypeAssert[[]byte](a); ok { // a file: an element at a time takes too long
			return bytes.Equal(data, b.Bytes())
		}
		if a.IsNil() != b.IsNil() || a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for _, id := range a.MapKeys() {
			if !same(a.MapIndex(id), b.MapIndex(id)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Float64:
		return a.Float() == b.Float() || a.Float() != a.Float() && b.Float() != b.Float() // not a number
	}
	return a.Equal(b)
}
