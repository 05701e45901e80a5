package secret_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

func hide(values ...string) *secret.Masker {
	var p secret.Patterns
	for _, v := range values {
		p.Add(v, 4)
	}
	return secret.NewMasker(&p)
}

func TestEveryFormOfASecretIsMasked(t *testing.T) {
	m := hide(`a/b<"c">&ü`)
	for _, text := range []string{`a/b<"c">&ü`, `a/b&lt;&#34;c&#34;&gt;&amp;ü`, `a%2Fb%3C%22c%22%3E%26%C3%BC`, `a\/b<"c">&ü`,
		`a/b\u003c\"c\"\u003e\u0026ü`, "612f623c2263223e26c3bc"} {
		if got := m.Text("x " + text + " y"); got != "x ******** y" {
			t.Errorf("%s became %s", text, got)
		}
		if got := string(m.Bytes([]byte("x " + text + " y"))); got != "x ******** y" {
			t.Errorf("%s became %s", text, got)
		}
	}
}

func TestALineIsCutWithoutLeavingAPartOfASecret(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const token = "Kq7Zt0mXw2VbN4yR"
		m, most := hide(token), rapid.IntRange(0, 200).Draw(t, "most")
		text := strings.Repeat(rapid.SampledFrom([]string{"a", "ü", token, "\n"}).Draw(t, "filler"), rapid.IntRange(0, 150).Draw(t, "before")) +
			token + strings.Repeat("z", rapid.IntRange(0, 300).Draw(t, "after"))
		line := m.Line(text, most)
		for i := range len(token) - 3 {
			if strings.Contains(line, token[i:i+4]) {
				t.Fatalf("the line has %s", token[i:i+4])
			}
		}
		if len(line) > most+len("…") || !utf8.ValidString(line) || strings.Contains(line, "\n") {
			t.Fatalf("the line is %q", line)
		}
	})
}

func TestAMaskerWithoutSecretsChangesNothing(t *testing.T) {
	var none *secret.Masker
	for _, m := range []*secret.Masker{none, hide(), hide("abc")} {
		if got := m.Text("abc"); got != "abc" || string(m.Bytes([]byte("abc"))) != "abc" || m.Longest() > 0 && m.Longest() < 4 {
			t.Errorf("got %s", got)
		}
	}
}
