package config

import (
	_ "embed"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// kind is how a value is written in the file.
type kind uint8

const (
	kindObject     kind = iota + 1 // a map with known keys
	kindMap                        // a map whose keys the operator chooses
	kindAny                        // a map with anything in it, secrets too
	kindJSON                       // a map with anything in it, kept as JSON
	kindList                       // a list
	kindWords                      // a word or a list of words
	kindSignatures                 // none, or a list
	kindString
	kindEnum
	kindBool
	kindInt
	kindDuration
	kindSize
	kindAutoSize // a size or auto
	kindShare    // a percentage or a size
	kindMode
	kindEvent    // an event type
	kindSHA256   // 64 hex digits
	kindRejected // true, false or a code
	kindSecret
	kindURL // a secret of which scheme and host may be shown
)

// scalar reports whether a value of this kind is one word or text in the file.
func (k kind) scalar() bool { return k >= kindString }

// secret reports whether a value of this kind must not be shown.
func (k kind) secret() bool { return k == kindSecret || k == kindURL || k == kindAny }

// key describes one key of the file, or the values of a map or list. It is
// derived from keys.go and immutable. It has a field for each thing that a tag
// can say, hence their number.
type key struct {
	name     string // "" for values of maps and lists
	field    string // name of the Go field
	kind     kind
	doc      string
	example  string
	dflt     string
	hasDflt  bool
	enum     []string
	low      string // range, as text; "" = none
	high     string
	most     int // entries; 0 = no limit
	ids      string
	restart  bool
	later    bool
	required bool
	optional bool     // an empty text counts as absent
	typ      string   // name of the Go struct, for definitions of the schema
	fields   []*key   // of kindObject
	elem     *key     // of kindMap, kindList, kindWords, kindSignatures
	names    []string // names of fields, for suggestions
}

func (k *key) child(name string) *key {
	for _, f := range k.fields {
		if f.name == name {
			return f
		}
	}
	return nil
}

// keysSource is where the documentation of the keys is taken from.
//
//go:embed keys.go
var keysSource string

// model is the description of the whole file.
var model = sync.OnceValue(func() *key {
	b := builder{docs: fieldDocs(keysSource)}
	return b.object(reflect.TypeFor[Config](), "")
})

// fieldDocs maps "Type.Field" to the field's comment.
func fieldDocs(source string) map[string]string {
	docs := map[string]string{}
	file, err := parser.ParseFile(token.NewFileSet(), "keys.go", source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		panic(err) // the file is part of this package: it has been compiled
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					docs[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return false
	})
	return docs
}

type builder struct{ docs map[string]string }

func (b builder) object(t reflect.Type, name string) *key {
	k := &key{name: name, kind: kindObject, typ: t.Name()}
	for f := range t.Fields() {
		tag := f.Tag.Get("koanf")
		if strings.HasPrefix(tag, "-") || !f.IsExported() {
			continue
		}
		child := b.value(f.Type, f.Tag)
		child.name, child.field = tag, f.Name
		child.doc = b.docs[t.Name()+"."+f.Name]
		k.fields = append(k.fields, child)
		k.names = append(k.names, tag)
	}
	return k
}

// value describes a field of type t.
func (b builder) value(t reflect.Type, tag reflect.StructTag) *key {
	k := &key{}
	switch {
	case t == reflect.TypeFor[JSON]():
		k.kind = kindJSON
	case t == reflect.TypeFor[Signatures]():
		k.kind, k.elem = kindSignatures, b.object(reflect.TypeFor[Signature](), "")
	case tag.Get("kind") == "words":
		k.kind, k.elem = kindWords, &key{kind: kindString}
	case tag.Get("ids") != "":
		k.kind, k.ids, k.elem = kindMap, tag.Get("ids"), b.mapValue(t.Elem())
	case t.Kind() == reflect.Slice:
		k.kind, k.elem = kindList, b.value(t.Elem(), tag)
		k.elem.dflt, k.elem.hasDflt = "", false
	case t.Kind() == reflect.Map:
		k.kind = kindAny
	case t.Kind() == reflect.Struct && scalarKind(t, tag) == 0:
		k = b.object(t, "")
	default:
		k.kind = scalarKind(t, tag)
	}
	k.tags(tag)
	return k
}

// mapValue describes the values of a map whose entries are structs: an object,
// or a scalar when the struct has a field "-value".
func (b builder) mapValue(t reflect.Type) *key {
	for f := range t.Fields() {
		if f.Tag.Get("koanf") == "-value" {
			k := b.value(f.Type, f.Tag)
			k.doc, k.typ = b.docs[t.Name()+"."+f.Name], t.Name()
			return k
		}
	}
	return b.object(t, "")
}

func (k *key) tags(tag reflect.StructTag) {
	k.dflt, k.hasDflt = tag.Lookup("default")
	k.optional = k.hasDflt && k.dflt == "" && k.kind == kindString
	if enum := tag.Get("enum"); enum != "" {
		k.enum = strings.Split(enum, ",")
	}
	k.low, k.high, _ = strings.Cut(tag.Get("range"), "..")
	k.most, _ = strconv.Atoi(tag.Get("max"))
	k.restart = tag.Get("restart") != ""
	k.later = tag.Get("later") != ""
	k.required = tag.Get("required") != ""
	k.example = tag.Get("example")
}

// scalarKind is 0 when t is not written as one scalar.
func scalarKind(t reflect.Type, tag reflect.StructTag) kind {
	named := map[string]kind{"size": kindSize, "autosize": kindAutoSize, "event": kindEvent, "sha256": kindSHA256, "url": kindURL, "rejected": kindRejected}
	switch {
	case named[tag.Get("kind")] != 0:
		return named[tag.Get("kind")]
	case tag.Get("enum") != "":
		return kindEnum
	case t == reflect.TypeFor[time.Duration]():
		return kindDuration
	case t == reflect.TypeFor[secret.String]():
		return kindSecret
	case t == reflect.TypeFor[Share]():
		return kindShare
	case t == reflect.TypeFor[fs.FileMode]():
		return kindMode
	case t.Kind() == reflect.String:
		return kindString
	case t.Kind() == reflect.Bool:
		return kindBool
	case t.Kind() == reflect.Int, t.Kind() == reflect.Uint32:
		return kindInt
	}
	return 0
}

// idForms says what the keys of a map look like, as a pattern and in words, and
// the code of the finding when they do not.
func idForms(ids string) (form *regexp.Regexp, words, code string) {
	switch ids {
	case "header":
		return headerForm, "a header name consists of letters, digits and !#$%&'*+-.^_`|~", codeBadHeader
	case "field":
		return fieldForm, "a field name has 1 to 256 characters and no control characters", codeBadID
	case "test":
		return fieldForm, "a test's name has 1 to 256 characters and no control characters", codeBadID
	case "webhook":
		return webhookForm, "a webhook is named by its helper and itself: expenses.backend", codeBadID
	case "notice":
		return noticeForm, "the events are " + strings.Join(noticeEvents(), ", "), codeUnknownEvent
	}
	return idForm, "an id has 1 to 64 letters, digits, _ and -", codeBadID
}

func noticeEvents() []string {
	return []string{NoticeFailing, NoticeRecovered, NoticeDelivery}
}
