package config

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// corpus lists testdata/<kind>/*.yaml.
func corpus(t testing.TB, kind string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", kind, "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("testdata/%s: %d files, %v", kind, len(files), err)
	}
	return files
}

// loadCorpus loads a copy of a file, because the mode of a file in a checkout
// depends on the umask. Its first line may ask for a readable one.
func loadCorpus(t *testing.T, file string) (c *Config, r *Report, dir string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	mode := os.FileMode(0o600)
	if bytes.HasPrefix(content, []byte("# mode 0644\n")) {
		mode = 0o644
	}
	writeFile(t, path, string(content), mode)
	c, r = Load(options(path))
	return c, r, dir
}

func compareGolden(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("%v; run go test ./internal/config -update", err)
	}
	if got != string(want) {
		t.Errorf("the output differs from %s (go test ./internal/config -update rewrites it):\n%s", golden, got)
	}
}

func TestBadFilesAreRefusedAndExplained(t *testing.T) {
	for _, file := range corpus(t, "bad") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			c, r, dir := loadCorpus(t, file)
			if c != nil || r.Err() == nil {
				t.Fatal("the file was accepted")
			}
			all := outputs(t, r)
			if strings.Contains(all, planted) {
				t.Errorf("a secret is printed:\n%s", all)
			}
			if plain := text1(t, r); strings.ContainsFunc(plain, func(c rune) bool { return c < ' ' && c != '\n' || c == 0x7f }) {
				t.Errorf("a control character is printed: %q", plain)
			}
			compareGolden(t, strings.TrimSuffix(file, ".yaml")+".golden", strings.ReplaceAll(text1(t, r), dir, "/etc/peanuts-relay"))
		})
	}
}

func TestGoodFilesAreAcceptedAndShownWithoutSecrets(t *testing.T) {
	for _, file := range corpus(t, "good") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			c, r, dir := loadCorpus(t, file)
			if c == nil {
				t.Fatalf("the file was refused:\n%s", text1(t, r))
			}
			var shown bytes.Buffer
			if err := c.Show(&shown); err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(text1(t, r), dir, "/etc/peanuts-relay") + "---\n" + shown.String()
			if strings.Contains(got+outputs(t, r), planted) {
				t.Errorf("a secret is printed:\n%s", got)
			}
			compareGolden(t, strings.TrimSuffix(file, ".yaml")+".golden", got)
		})
	}
}

// Each finding that can be brought about by the content of files has a place in
// the corpus or in a test that names its code.
func TestEveryCodeIsBroughtAboutSomewhere(t *testing.T) {
	seen := map[string]bool{}
	for _, kind := range []string{"bad", "good"} {
		for _, file := range corpus(t, kind) {
			_, r, _ := loadCorpus(t, file)
			for _, code := range codes(r) {
				seen[code] = true
			}
		}
	}
	source, err := os.ReadFile("report.go")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := []string{codeUnreadable, codeNotAFile, codeTooLarge, codeIgnoredFile, codeInternal, codeOpenKey}
	for line := range strings.SplitSeq(string(source), "\n") {
		fields := strings.Fields(line)
		if len(fields) != 3 || !strings.HasPrefix(fields[0], "code") {
			continue
		}
		if code := strings.Trim(fields[2], `"`); !seen[code] && !slices.Contains(elsewhere, code) {
			t.Errorf("no file of the corpus brings about %q", code)
		}
	}
}
