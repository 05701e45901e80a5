package config

import (
	"fmt"
	"strings"
)

const referenceHead = `# The configuration file

This file is generated from the structs of the package internal/config. Change them, then run
` + "`go generate ./internal/config`" + `.

The file is found by ` + "`--config`, else `$PEANUTS_RELAY_CONFIG`, else `/etc/peanuts-relay/config.yaml`" + `.
Files named ` + "`conf.d/*.yaml`" + ` beside it are merged over it in the order of their names: maps key by
key, a later value wins; lists and scalars are replaced as a whole. A file has at most 10 MiB, all of them together
64 MiB. Names that begin with ` + "`.` or `#`" + `
are ignored. ` + "`peanuts-relay check`" + ` says everything that is wrong at once; ` + "`peanuts-relay config show`" + `
prints what results, without secrets. A complete example is [config.example.yaml](../config.example.yaml);
for editors there is a [JSON Schema](config.schema.json).

Every key has to be known and every value has to have the right type. A map without entries may be
left empty; any other key without a value is an error.

## Values

| written as | means |
|---|---|
| duration | numbers with the units ` + "`d`, `h`, `m`, `s` and `ms`: `30s`, `1m30s`, `7d`" + ` |
| size | a number with the unit ` + "`B`, `KiB`, `MiB`, `GiB` or `TiB`: `64MiB`" + `; or a plain number of bytes |
| id | 1 to 64 letters, digits, ` + "`_` and `-`" + ` |
| ` + "`${env:NAME}`" + ` | the environment variable; an error when it is not set |
| ` + "`${env:NAME:-default}`" + ` | the default when the variable is not set or empty |
| ` + "`${file:/path}`" + ` | the content of the file, at most 64 KiB, without one final line break |
| ` + "`${cred:NAME}`" + ` | the same for the file NAME in ` + "`$CREDENTIALS_DIRECTORY`" + `, which systemd fills at the start |
| ` + "`$$`" + ` | a dollar sign |

References may be used in every text value, several in one, and are not looked for in what they stand for.
The result is always text: they cannot replace a number, a list or true and false.

YAML anchors, aliases and ` + "`<<`" + ` may be used, each file on its own. Numbers are written in plain decimal
digits, true and false in full.

A change of the files, or of a file that they refer to, is taken over while the daemon runs, as a whole or, when
something is wrong with it, not at all. **Restart** in the tables below marks keys whose change waits for the next
start, while the rest is taken over; [Hot reload](#hot-reload), at the end, has the whole story. **Not yet** marks keys that are understood
and checked, but refused by this version unless they have their default value.

`

// Reference is docs/config.md.
func Reference() []byte {
	var b strings.Builder
	b.WriteString(referenceHead)
	top := &key{kind: kindObject}
	for _, f := range model().fields {
		if section(f) == nil {
			top.fields = append(top.fields, f)
		}
	}
	writeSection(&b, "Top level", "", top)
	for _, f := range model().fields {
		writeSections(&b, f, f.name)
	}
	// The last section ends with an empty line too many.
	return []byte(strings.TrimRight(b.String(), "\n") + "\n" + hotReload())
}

// section is the object whose keys get a table of their own, if any.
func section(k *key) *key {
	switch {
	case k.kind == kindObject:
		return k
	case (k.kind == kindMap || k.kind == kindSignatures) && k.elem.kind == kindObject:
		return k.elem
	}
	return nil
}

func writeSections(b *strings.Builder, k *key, path string) {
	keys := section(k)
	if keys == nil {
		return
	}
	doc := k.doc
	if k.later && k.elem != nil {
		doc += " **" + strings.ToUpper(laterNote(k)[:1]) + laterNote(k)[1:] + ".**"
	}
	switch k.kind {
	case kindMap:
		path += "." + placeholder(k)
	case kindSignatures:
		path += "[]"
	}
	if k.ids == "notice" {
		fmt.Fprintf(b, "## `%s`\n\n%s\n\n", path, doc)
		return // its keys are those of a webhook
	}
	writeSection(b, "`"+path+"`", doc, keys)
	for _, f := range keys.fields {
		writeSections(b, f, path+"."+f.name)
	}
}

// placeholder stands for the key of an entry of a map.
func placeholder(k *key) string {
	switch k.ids {
	case "test":
		return "<name>"
	case "notice":
		return "<event>"
	case "webhook":
		return "<helper.webhook>"
	}
	return "<id>"
}

func writeSection(b *strings.Builder, title, doc string, keys *key) {
	fmt.Fprintf(b, "## %s\n\n", title)
	if doc != "" {
		b.WriteString(doc + "\n\n")
	}
	b.WriteString("| key | type | default | meaning | example |\n|---|---|---|---|---|\n")
	for _, f := range keys.fields {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", f.name, typeText(f), defaultText(f), meaning(f), code(f.example))
	}
	b.WriteByte('\n')
}

// code is a cell of a table in the type of code; "" stays empty.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}

func meaning(k *key) string {
	text := k.doc
	if k.kind == kindMap && section(k) == nil && k.elem.doc != "" {
		text += " " + k.elem.doc
	}
	if k.restart {
		text += " **Restart.**"
	}
	if k.later {
		text += " **" + strings.ToUpper(laterNote(k)[:1]) + laterNote(k)[1:] + ".**"
	}
	return strings.ReplaceAll(text, "|", `\|`)
}

// laterNote says what of a key this version refuses.
func laterNote(k *key) string {
	switch {
	case k.kind == kindEnum || k.kind == kindBool || k.name == "sink":
		return "not yet: only " + k.dflt
	}
	return "not yet"
}

func typeText(k *key) string {
	limits := ""
	if k.low != "" {
		limits = ", " + k.low + " to " + k.high
	}
	switch k.kind {
	case kindObject:
		return "map, see below"
	case kindMap:
		switch {
		case k.ids == "test":
			return "map by name, see below"
		case k.ids == "webhook":
			return "map by webhook, see below"
		case section(k) != nil:
			return "map by id, see below"
		case k.ids == "header":
			return "map of header name to text"
		}
		return "map of name to " + typeText(k.elem)
	case kindAny, kindJSON:
		return "map"
	case kindList:
		return atMost(k, "list of "+plural(typeText(k.elem)))
	case kindWords:
		return "word or list of words"
	case kindSignatures:
		return atMost(k, "`none` or list, see below")
	case kindEnum:
		return "`" + strings.Join(k.enum, "`, `") + "`"
	case kindBool:
		return "`true`, `false`"
	case kindRejected:
		return "`true`, `false`, `" + strings.Join(k.enum, "`, `") + "`"
	case kindInt:
		return "number" + limits
	case kindDuration:
		return "duration" + limits
	case kindSize:
		return "size" + limits
	case kindAutoSize:
		return "`auto` or size" + limits
	case kindShare:
		return "percentage, 1% to 100%, or size" + limits
	case kindMode:
		return "octal number in quotes"
	case kindEvent:
		return "event type"
	case kindSHA256:
		return "64 hex digits"
	case kindSecret:
		return "text, secret"
	case kindURL:
		return "http or https URL, secret"
	}
	return "text"
}

func atMost(k *key, text string) string {
	if k.most == 0 {
		return text
	}
	return fmt.Sprintf("%s, at most %d", text, k.most)
}

// plural turns "duration, 1ms to 7d" into "durations, 1ms to 7d".
func plural(text string) string {
	word, rest, limited := strings.Cut(text, ",")
	if word != "text" {
		word += "s"
	}
	if limited {
		return word + "," + rest
	}
	return word
}

func defaultText(k *key) string {
	dir := func(systemd, root, xdg string) string {
		rest := strings.TrimPrefix(strings.TrimPrefix(k.dflt, "$runtime"), "$state")
		return fmt.Sprintf("`$%s%s` under systemd, `%s/peanuts-relay%s` for root, else `%s/peanuts-relay%s`", systemd, rest, root, rest, xdg, rest)
	}
	switch {
	case strings.HasPrefix(k.dflt, "$runtime"):
		return dir("RUNTIME_DIRECTORY", "/run", "$XDG_RUNTIME_DIR")
	case strings.HasPrefix(k.dflt, "$state"):
		return dir("STATE_DIRECTORY", "/var/lib", "$XDG_STATE_HOME")
	}
	return code(k.dflt)
}
