package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The environment of another process is used instead of one's own, not beside it.
func TestCheckTakesTheEnvironmentOfAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	file, environ := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "environ")
	for name, text := range map[string]string{
		file:    "helpers: {expenses: {secret: '${env:SECRET}', webhooks: {a: {url: 'https://example.com/'}}}}\n",
		environ: "PATH=/bin\x00SECRET=0123456789abcdef0123456789\x00SECRET=\x00not a variable\x00",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := runMain(t, Streams{}, "check", file, "--environ", environ)
	if code != 0 || !strings.HasPrefix(stdout, "valid: ") {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
	own := Streams{Env: environment("SECRET=0123456789abcdef0123456789")}
	if code, stdout, _ := runMain(t, own, "check", file); code != 0 {
		t.Errorf("with its own environment: exit status %d\n%s", code, stdout)
	}
	own.In = strings.NewReader("PATH=/bin\x00")
	if code, stdout, _ := runMain(t, own, "check", file, "--environ", "-"); code != ExitConfig || !strings.Contains(stdout, "SECRET") {
		t.Errorf("without the variable: exit status %d, want %d\n%s", code, ExitConfig, stdout)
	}
	in := Streams{In: strings.NewReader("PEANUTS_RELAY_CONFIG=" + file + "\x00SECRET=0123456789abcdef0123456789\x00")}
	if code, stdout, stderr := runMain(t, in, "check", "--environ=-"); code != 0 || !strings.Contains(stdout, file) {
		t.Errorf("a file that the environment names: exit status %d\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := runMain(t, Streams{}, "check", file, "--environ", dir+"/none"); code != ExitFailure || !strings.Contains(stderr, "read the environment") {
		t.Errorf("a file that is missing: exit status %d\n%s", code, stderr)
	}
}
