package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mainWithSecrets has a secret in each place where a file may spell one out.
const mainWithSecrets = `
secret: hunter2-hunter2-hunter2-hunter2
helpers:
  h:
    secrets: [hunter2, "hunter2-2"] # hunter2
    fields: {amount: number}
    webhooks:
      w:
        url: https://example.com/hunter2
        secret: |
          hunter2
          hunter2
        headers: {Authorization: Bearer hunter2, X-A: 'hunter2'}
      v: {url: "https://example.com/?hunter2", secrets: ["hunter2
          hunter2"], headers: {X-B: "hunter2"}, signatures: [{scheme: hex}]}
`

// FuzzLoad loads the input twice: as the main file, where secrets come in
// through references, and as a drop-in over a file that spells secrets out,
// so that it cannot change what those are, but can make every line of it a
// finding.
func FuzzLoad(f *testing.F) {
	for _, kind := range []string{"good", "bad"} {
		for _, file := range corpus(f, kind) {
			content, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			// Words of the input itself may be printed.
			f.Add(bytes.ReplaceAll(content, []byte(planted), []byte("${env:WORD}")))
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 1<<16 {
			t.Skip("larger inputs only cost time")
		}
		if bytes.Contains(bytes.ToLower(input), []byte(planted)) || bytes.Contains(input, []byte("file:")) {
			t.Skip("what is spelled out at a public place may be printed; files are not the subject")
		}
		main, over := filepath.Join(dir, "main", "config.yaml"), filepath.Join(dir, "over", "config.yaml")
		writeFile(t, main, string(input), 0o644)
		writeFile(t, over, mainWithSecrets, 0o644)
		writeFile(t, filepath.Join(dir, "over", "conf.d", "a.yaml"), string(input), 0o644)
		for _, path := range []string{main, over} {
			c, r := Load(options(path))
			out := outputs(t, r)
			if (c == nil) != (r.Err() != nil) {
				t.Fatalf("config %v, error %v", c != nil, r.Err())
			}
			if c != nil {
				var b strings.Builder
				if err := c.Show(&b); err != nil {
					t.Fatal(err)
				}
				c.Webhooks()
				out += b.String()
			}
			if strings.Contains(out, planted) {
				t.Fatalf("a secret is printed:\n%s", out)
			}
			for _, f := range r.Findings {
				if f.Message == "" || f.Code == codeInternal || f.Line < 0 || f.Column < 0 {
					t.Fatalf("finding %+v", f)
				}
			}
		}
	})
}
