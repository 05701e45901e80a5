// Package docstest reads the pages under docs for the tests that hold them to the code.
//
// Guarantee: what is not found, or found and not as the code has it, fails the test with
// the place; nothing is written unless DOCSTEST_UPDATE=1, which puts what the code says
// into the page.
package docstest

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Page is the text of a page below docs, such as "sinks/slack.md".
func Page(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// path is where a page is: docs stands beside go.mod, in a directory above.
func path(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "docs", filepath.FromSlash(name))
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod in any directory above")
		}
		dir = filepath.Dir(dir)
	}
}

var (
	yamlBlock = regexp.MustCompile("(?ms)^```ya?ml\n(.*?)^```")
	reference = regexp.MustCompile(`\$\{(?:file|env|cred):([^}]*)\}`)
)

// Settings are those of the webhooks with this sink in the YAML of a page, as JSON, by
// the names of helpers and webhooks. What
// stands for a secret, such as ${file:/etc/peanuts-relay/slack.token}, is replaced by
// what secrets has under its name ("/etc/peanuts-relay/slack.token").
func Settings(t testing.TB, page, sink string, secrets map[string]string) [][]byte {
	t.Helper()
	var out [][]byte
	for _, m := range yamlBlock.FindAllStringSubmatch(Page(t, page), -1) {
		text := reference.ReplaceAllStringFunc(m[1], func(ref string) string {
			name := reference.FindStringSubmatch(ref)[1]
			value, ok := secrets[name]
			if !ok {
				t.Errorf("%s: the test has no value for %s", page, ref)
			}
			return value
		})
		var file struct {
			Helpers map[string]struct {
				Webhooks map[string]struct {
					Sink     string         `yaml:"sink"`
					Settings map[string]any `yaml:"settings"`
				} `yaml:"webhooks"`
			} `yaml:"helpers"`
		}
		if err := yaml.Unmarshal([]byte(text), &file); err != nil {
			t.Errorf("%s: %v in\n%s", page, err, text)
		}
		for _, helper := range slices.Sorted(maps.Keys(file.Helpers)) {
			webhooks := file.Helpers[helper].Webhooks
			for _, name := range slices.Sorted(maps.Keys(webhooks)) {
				w := webhooks[name]
				if w.Sink != sink {
					continue
				}
				b, err := json.Marshal(w.Settings)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, b)
			}
		}
	}
	if len(out) == 0 {
		t.Errorf("%s has no example with sink: %s", page, sink)
	}
	return out
}

// Block holds the fenced block after <!-- name --> to what the code makes.
func Block(t testing.TB, page, name, want string) {
	t.Helper()
	block := regexp.MustCompile("(?s)(<!-- " + regexp.QuoteMeta(name) + " -->\n+```[a-z]*\n)(.*?)(\n```)")
	text := Page(t, page)
	m := block.FindStringSubmatchIndex(text)
	if m == nil {
		t.Fatalf("%s has no block after <!-- %s -->", page, name)
	}
	want = strings.TrimRight(want, "\n")
	got := text[m[4]:m[5]]
	if got == want {
		return
	}
	if os.Getenv("DOCSTEST_UPDATE") == "1" {
		if err := os.WriteFile(path(t, page), []byte(text[:m[4]]+want+text[m[5]:]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s, %s: DOCSTEST_UPDATE=1 go test writes it.\nthe page has\n%s\nthe code makes\n%s", page, name, got, want)
}

// Schema holds a page's table of settings, and the schema itself, to each other: every
// setting is described in both, and exactly those in secrets are kept from view.
func Schema(t testing.TB, page string, schema []byte, secrets ...string) {
	t.Helper()
	var read struct {
		Properties map[string]struct {
			Description string `json:"description"`
			WriteOnly   bool   `json:"writeOnly"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(schema, &read); err != nil || len(read.Properties) == 0 {
		t.Fatalf("not a schema of settings: %v", err)
	}
	text := Page(t, page)
	for name, p := range read.Properties {
		if p.Description == "" || !strings.Contains(text, "\n| `"+name+"` |") {
			t.Errorf("%s: described as %q, or no row of %s", name, p.Description, page)
		}
		if p.WriteOnly != slices.Contains(secrets, name) {
			t.Errorf("%s: writeOnly is %v", name, p.WriteOnly)
		}
	}
}
