package sinks_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// page reads docs/writing-a-sink.md.
func page(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/writing-a-sink.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func blocks(t *testing.T, language string) (list []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(page(t), -1) {
		list = append(list, m[1])
	}
	return list
}

// TestTheGoOfTheDocumentationCompiles builds and runs what is a whole program, and finds
// the rest in the examples of this package.
func TestTheGoOfTheDocumentationCompiles(t *testing.T) {
	paths, err := filepath.Glob("example*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var examples strings.Builder
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		examples.Write(b)
	}
	programs := 0
	snippets := blocks(t, "go")
	for _, snippet := range snippets {
		if !strings.HasPrefix(snippet, "package main\n") {
			if !strings.Contains(examples.String(), snippet) {
				t.Errorf("not in the examples:\n%s", snippet)
			}
			continue
		}
		programs++
		if n := strings.Count(snippet, "\n"); n >= 40 {
			t.Errorf("a whole sink has %d lines", n)
		}
		if out := describeProgram(t, snippet); !bytes.Contains(out, []byte(`"name": "acme"`)) {
			t.Errorf("described as %s", out)
		}
	}
	if programs != 1 || len(snippets) < 5 {
		t.Errorf("%d programs in %d blocks", programs, len(snippets))
	}
}

// describeProgram compiles a plugin and asks it what it is.
func describeProgram(t *testing.T, source string) []byte {
	t.Helper()
	dir := t.TempDir()
	file, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "peanuts-sink-acme")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", binary, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(binary, "describe").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// TestTheDocumentationIsOfThisContract finds what a program in another language must
// know: names that a compiler would check in Go.
func TestTheDocumentationIsOfThisContract(t *testing.T) {
	text := page(t)
	for _, fact := range []string{"`" + sinks.MagicCookieKey + "`", "`" + sinks.MagicCookieValue + "`", "`" + sinkpb.Sink_ServiceDesc.ServiceName + "`"} {
		if !strings.Contains(text, fact) {
			t.Errorf("the page does not say %s", fact)
		}
	}
	for number, name := range sinkpb.Outcome_name {
		if short := strings.TrimPrefix(name, "OUTCOME_"); number != 0 && !strings.Contains(text, "`"+short+"`") {
			t.Errorf("the page does not explain %s", short)
		}
	}
	lines := blocks(t, "text")
	if len(lines) != 1 || !handshake.MatchString(lines[0]) {
		t.Errorf("handshake %q", lines)
	}
	logged := blocks(t, "json")
	if len(logged) != 1 || !json.Valid([]byte(logged[0])) || strings.Count(logged[0], "\n") != 1 {
		t.Errorf("log line %q", logged)
	}
	tag := regexp.MustCompile("(?m)^\\| `([a-zA-Z]+)")
	for _, word := range []string{"description", "required", "default", "enum", "pattern", "minimum", "minLength", "format", "example", "secret"} {
		if !strings.Contains(text, "\n| `"+word) {
			t.Errorf("the page does not list the tag %s", word)
		}
	}
	if n := len(tag.FindAllString(text, -1)); n < 20 {
		t.Errorf("only %d rows", n)
	}
}

// TestTheSettingsOfTheDocumentationAreThoseOfItsSink decodes what the page configures.
func TestTheSettingsOfTheDocumentationAreThoseOfItsSink(t *testing.T) {
	configured := 0
	for _, block := range blocks(t, "yaml") {
		var file struct {
			Helpers map[string]struct {
				Webhooks map[string]struct {
					Sink     string
					Settings map[string]any
				}
			}
		}
		if err := yaml.Unmarshal([]byte(block), &file); err != nil {
			t.Fatal(err)
		}
		for _, h := range file.Helpers {
			for name, w := range h.Webhooks {
				configured++
				b, err := json.Marshal(w.Settings)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := sinks.Decode[Config](b); err != nil || w.Sink != "acme" {
					t.Errorf("webhook %s: %v", name, err)
				}
			}
		}
	}
	if configured != 1 {
		t.Errorf("%d webhooks found", configured)
	}
}
