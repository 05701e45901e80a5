package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestExamplesOfTheDocsAreValid loads every block of YAML on a page that is a whole file:
// one that begins with a key of the top level. What a page names with ${file:} is
// there, and could be a URL as well as a secret.
func TestExamplesOfTheDocsAreValid(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```ya?ml\n(.*?)^```")
	first := regexp.MustCompile(`(?m)^([a-z]+):`)
	named := regexp.MustCompile(`\$\{(?:file|cred|env):[^}]*\}`)
	file := filepath.Join(t.TempDir(), "named")
	if err := os.WriteFile(file, []byte("https://receiver.example.com/0123456789abcdef0123\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var pages []string
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/*/*.md", "docs/examples/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	loaded := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range block.FindAllStringSubmatch(string(text), -1) {
			if key := first.FindStringSubmatch(m[1]); key == nil || model().child(key[1]) == nil {
				continue
			}
			loaded++
			path := filepath.Join(t.TempDir(), "config.yaml")
			_, report := Load(Options{Path: path, WithoutPlugins: true,
				Files: []File{{Path: path, Data: []byte(named.ReplaceAllString(m[1], "${file:"+file+"}"))}}})
			if err := report.Err(); err != nil {
				t.Errorf("%s: %v\n%s", filepath.Base(page), err, strings.TrimSpace(m[1]))
			}
		}
	}
	if loaded < 10 {
		t.Errorf("only %d examples found", loaded)
	}
}
