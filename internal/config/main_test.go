package config

import (
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// planted is every secret value of the tests; no output may contain it.
const planted = "hunter2"

var update = flag.Bool("update", false, "rewrite the golden files")

// environment is what the tests' files may refer to.
func environment(extra map[string]string) func(string) (string, bool) {
	env := map[string]string{
		"SECRET":            "env-" + planted + "-0123456789abcdef",
		"EMPTY":             "",
		"WORD":              planted,
		"XDG_RUNTIME_DIR":   "/run/user/1000",
		"XDG_STATE_HOME":    "/home/op/.local/state",
		"EXPENSES_SECRET":   "expenses-" + planted + "-0123456789",
		"PARTNER_TOKEN":     "partner-" + planted,
		"RUNTIME_DIRECTORY": "",
	}
	maps.Copy(env, extra)
	return func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
}

func options(path string) Options {
	return Options{Path: path, LookupEnv: environment(nil), Getuid: func() int { return 1000 }}
}

// write puts files into a directory of its own and returns it.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		writeFile(t, filepath.Join(dir, name), content, 0o600)
	}
	return dir
}

func writeFile(t testing.TB, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// loadText loads one file with this content.
func loadText(t testing.TB, content string) (*Config, *Report) {
	t.Helper()
	return Load(options(filepath.Join(write(t, map[string]string{"config.yaml": content}), "config.yaml")))
}

// mustLoad is loadText for a file without errors.
func mustLoad(t testing.TB, content string) *Config {
	t.Helper()
	c, r := loadText(t, content)
	if c == nil {
		t.Fatalf("the file was refused:\n%s", outputs(t, r))
	}
	return c
}

// outputs is everything a report can print.
func outputs(t testing.TB, r *Report) string {
	t.Helper()
	var b strings.Builder
	for _, err := range []error{r.WriteText(&b, false), r.WriteText(&b, true), r.WriteJSON(&b)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Err(); err != nil {
		b.WriteString(err.Error())
	}
	return b.String()
}

func text1(t testing.TB, r *Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// codes lists the codes of a report's findings.
func codes(r *Report) []string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, f.Code)
	}
	return out
}

// base is a complete file with one webhook; more is put under it.
func base(more ...string) string {
	return "helpers:\n  h:\n    secret: ${env:SECRET}\n    webhooks:\n      w:\n        url: https://example.com/x\n" + strings.Join(more, "\n") + "\n"
}
