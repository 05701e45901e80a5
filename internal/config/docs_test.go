package config

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func TestTheGeneratedDocumentsAreThoseOfTheStructs(t *testing.T) {
	for name, want := range map[string][]byte{"config.md": Reference(), "config.schema.json": Schema()} {
		got, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("docs/%s is stale: run go generate ./internal/config", name)
		}
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	for path, k := range allKeys() {
		if k.doc == "" {
			t.Errorf("%s has no comment in keys.go", path)
		}
		if !strings.HasSuffix(k.doc, ".") {
			t.Errorf("%s: the comment is no sentence: %q", path, k.doc)
		}
	}
}

func TestEveryDefaultAndExampleIsPossible(t *testing.T) {
	l := &loader{opts: options(""), report: &Report{}, failed: map[string]bool{}}
	for path, k := range allKeys() {
		if k.hasDflt && l.defaultValue(k) == nil {
			t.Errorf("%s: the default %q cannot be read", path, k.dflt)
		}
		if k.example == "" {
			if k.kind.scalar() {
				t.Errorf("%s has no example", path)
			}
			continue
		}
		_, r := loadText(t, document(path, k.example))
		for _, f := range r.Findings {
			if f.structural || f.Code == codeOutOfRange || f.Code == codeSyntax {
				t.Errorf("%s: the example %s is refused: %s", path, k.example, f.Message)
			}
		}
	}
}

// allKeys lists all keys by path: a.<id>.b[].c
func allKeys() map[string]*key {
	out := map[string]*key{}
	var walk func(k *key, path string)
	walk = func(k *key, path string) {
		for _, f := range k.fields {
			at := strings.TrimPrefix(path+"."+f.name, ".")
			out[at] = f
			switch {
			case f.kind == kindObject:
				walk(f, at)
			case f.kind == kindSignatures:
				walk(f.elem, at+"[]")
			case f.kind == kindMap && f.ids != "notice":
				walk(f.elem, at+".<id>")
			}
		}
	}
	walk(model(), "")
	return out
}

func TestTheExampleLoadsWithTheVariablesItNames(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "config.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c, r := loadText(t, string(content))
	if len(r.Findings) != 0 {
		t.Fatalf("the example has findings:\n%s", text1(t, r))
	}
	if got := len(c.Webhooks()); got != 2 {
		t.Errorf("%d webhooks", got)
	}
	documented := regexp.MustCompile(`(?m)^#   ([A-Z_]+) {2,}`).FindAllStringSubmatch(string(content), -1)
	used := regexp.MustCompile(`\$\{env:([A-Z_]+)\}`).FindAllStringSubmatch(uncommented(string(content), false), -1)
	for _, u := range used {
		if !slices.ContainsFunc(documented, func(d []string) bool { return d[1] == u[1] }) {
			t.Errorf("the variable %s is used but not explained at the top", u[1])
		}
	}
	if len(used) == 0 || len(used) != len(documented) {
		t.Errorf("%d variables are used, %d explained", len(used), len(documented))
	}
}

// uncommented makes keys that are commented out active, or leaves them out.
// The marker is "#" directly before a letter; prose has a space there.
func uncommented(content string, activate bool) string {
	commented := regexp.MustCompile(`^( *)#([a-z].*)$`)
	empty := regexp.MustCompile(`^( *[a-z_]+:) \{\}`)
	lines := strings.Split(content, "\n")
	var out []string
	for i, line := range lines {
		if m := commented.FindStringSubmatch(line); m != nil {
			if activate {
				out = append(out, m[1]+m[2])
			}
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		if m := empty.FindStringSubmatch(line); m != nil && activate && i+1 < len(lines) && commented.MatchString(lines[i+1]) {
			line = m[1]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func TestEveryKeyIsInTheExample(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "config.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	full := uncommented(string(content), true)
	src := &source{name: "config.example.yaml", data: []byte(full)}
	p := &nodeParser{src: src, failed: map[string]bool{}, report: func(f Finding, _ *place, path []string, _ bool) {
		t.Errorf("with all keys active: %s: %s", pointer(path), f.Message)
	}}
	p.values()
	seen := map[string]bool{}
	var walk func(k *key, at *place, path string)
	walk = func(k *key, at *place, path string) {
		for name, child := range at.children {
			below := strings.TrimPrefix(path+"."+name, ".")
			next := k.elem
			if k.kind == kindMap {
				below = path + ".<id>"
			} else if next = k.child(name); next != nil {
				seen[below] = true
			}
			if next != nil && next.kind != kindAny && next.kind != kindJSON {
				walk(next, child, below)
			}
		}
		for _, item := range at.items {
			if k.elem.kind == kindObject {
				walk(k.elem, item, path+"[]")
			}
		}
	}
	walk(model(), p.place, "")
	for path := range allKeys() {
		if !seen[path] {
			t.Errorf("%s is neither active nor commented out in config.example.yaml", path)
		}
	}
}
