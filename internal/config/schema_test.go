package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if s.DraftVersion != 7 {
		t.Fatalf("draft %d", s.DraftVersion)
	}
	return s
}

// asJSON is what an editor's YAML reader would hand to the schema.
func asJSON(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = asJSON(e)
		}
		return out
	case map[any]any:
		out := map[string]any{}
		for k, e := range v {
			out[fmt.Sprint(k)] = asJSON(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = asJSON(v[i])
		}
		return out
	case time.Time:
		return v.Format(time.DateOnly)
	}
	return v
}

// notStructural are the codes of what a schema never sees: the reader of the
// YAML refuses it, or reads it in its own way.
func notStructural() []string {
	return []string{codeSyntax, codeDuplicateKey, codeAlias, codeTag, codeAmbiguous, codeSecondDocument, codeEmptyFile, codeNotUTF8}
}

// agree compares the verdicts. compared is false when there is nothing to
// compare.
func agree(t *testing.T, s *jsonschema.Schema, path string, content []byte) (compared bool) {
	t.Helper()
	writeFile(t, path, string(content), 0o600)
	_, r := Load(options(path))
	decoder := ""
	for _, f := range r.Findings {
		if slices.Contains(notStructural(), f.Code) {
			return false
		}
		if f.structural && decoder == "" {
			decoder = f.Path + ": " + f.Message
		}
	}
	var v any
	if err := yaml.Unmarshal(content, &v); err != nil {
		if decoder == "" {
			t.Errorf("the YAML library refuses what Load reads: %v\n%s", err, content)
		}
		return true
	}
	err := s.Validate(asJSON(v))
	switch {
	case err == nil && decoder != "":
		t.Errorf("the schema accepts what the decoder refuses: %s\n%s", decoder, content)
	case err != nil && decoder == "":
		t.Errorf("the decoder accepts what the schema refuses: %v\n%s", err, content)
	}
	return true
}

func TestSchemaAndDecoderAgreeOnTheCorpus(t *testing.T) {
	s := compiled(t)
	compared := 0
	path := filepath.Join(t.TempDir(), "config.yaml")
	files := append(corpus(t, "good"), corpus(t, "bad")...)
	for _, file := range append(files, root+"/config.example.yaml") {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(file, func(t *testing.T) {
			if agree(t, s, path, content) {
				compared++
			}
		})
	}
	if compared < 20 {
		t.Errorf("only %d files could be compared", compared)
	}
}

// Every key with every kind of value: the two cannot drift apart unnoticed.
func TestSchemaAndDecoderAgreeOnEveryKeyWithEveryKindOfValue(t *testing.T) {
	s := compiled(t)
	types := []string{
		"", "~", `""`, "word", "none", "true", "yes", `"true"`, "0", "-1", "8", "1.5", "2024-01-31", "${env:WORD}", `"a $$ b"`,
		"[]", "[1]", "[404]", "[1s]", "[word]", "[true]", "[[]]", "[null]", "[{}]", "[{scheme: hex}]", "[{scheme: md5}]", "[{scheme: hex, header: 1}]", "[${env:WORD}]",
		"{}", "{a: 1}", "{a: number}", "{a: b}", "{a: {}}", "{a: null}", "{a b: {}}", "{url: x}", "{schedule: [1s]}", "{relay.webhook.failing: {}}", "{x: {url: 1}}", `{"": number}`,
	}
	forms := []string{
		"all", "auto", "1", "429", "1025", "4294967296", "30s", "1m30s", "1.5d", "30", `"30"`, "30 s", "-5s", "10GiB", "10GB", "1.5GiB", "50%", "101%", "1000%",
		`"0660"`, `"660"`, `"888"`, "0o660", "info", "json", "event", "entry", "peanuts", "number", "Info", "user.created", "User.Created", strings.Repeat("ab", 32),
	}
	compared := 0
	file := filepath.Join(t.TempDir(), "config.yaml")
	for path, k := range allKeys() {
		values := types
		if k.kind.scalar() && k.kind != kindString && !k.kind.secret() {
			values = slices.Concat(forms, types) // its texts have a form
		}
		for _, value := range values {
			if agree(t, s, file, []byte(document(path, value))) {
				compared++
			}
		}
	}
	if compared < 2000 {
		t.Errorf("only %d documents could be compared", compared)
	}
}

// document is a file with one key.
func document(path, value string) string {
	var b strings.Builder
	names := strings.Split(strings.ReplaceAll(path, "<id>", "h"), ".")
	for i, name := range names {
		if i > 0 && names[i-1] == "deliveries" {
			name = "h.w" // the id of a webhook
		}
		if list, ok := strings.CutSuffix(name, "[]"); ok {
			if names[i+1] != "scheme" {
				value = "[{scheme: hex, " + names[i+1] + ": " + value + "}]"
			} else {
				value = "[{scheme: " + value + "}]"
			}
			b.WriteString(strings.Repeat("  ", i) + list + ": " + value + "\n")
			return b.String()
		}
		b.WriteString(strings.Repeat("  ", i) + name + ":")
		if i == len(names)-1 {
			b.WriteString(" " + value)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
