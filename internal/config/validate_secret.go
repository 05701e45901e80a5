package config

import (
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// shortestSecret is what Standard Webhooks 1.0 asks for at least.
const shortestSecret = 24

// secretsOf is `secret` and `secrets` of the file, a helper or a webhook.
type secretsOf struct {
	one  secret.String
	many []secret.String
}

// list is nil when there are none.
func (s secretsOf) list() []secret.String {
	if !s.one.IsZero() {
		return []secret.String{s.one}
	}
	return s.many
}

// validateSecrets checks the pair of keys under path.
func (l *loader) validateSecrets(path []string, s secretsOf) {
	one, many := under(path, "secret"), under(path, "secrets")
	if l.present(one) && l.present(many) {
		l.problemAtKey(many, Finding{Code: codeMisplacedKey, Message: "there are both secret and secrets", Suggestion: "keep one of them"})
	}
	if l.present(one) {
		l.validateSecret(one, s.one)
	}
	if l.present(many) && len(s.many) == 0 && !l.failedBelow(many) {
		l.problem(many, Finding{Code: codeEmptySecret, Message: "the list of secrets is empty", Suggestion: "remove the key"})
	}
	items := l.items(many, len(s.many))
	for i, v := range s.many {
		l.validateSecret(items[i], v)
	}
}

func (l *loader) validateSecret(path []string, s secret.String) {
	if l.failed[pointer(path)] {
		return
	}
	if s.IsZero() {
		l.problem(path, Finding{Code: codeEmptySecret, Message: "the secret is empty", Suggestion: "remove the key, or give it a value; an empty secret would sign with nothing"})
		return
	}
	if s.Len() < shortestSecret {
		l.problem(path, Finding{Severity: SeverityWarning, Code: codeShortSecret, Message: "the secret is shorter than 24 bytes", Suggestion: "make one with: openssl rand -hex 32"})
	}
	if strings.TrimSpace(s.Reveal()) != s.Reveal() {
		l.problem(path, Finding{Severity: SeverityWarning, Code: codePaddedSecret, Message: "the secret begins or ends with white space, which counts", Suggestion: "only one final line break of a file is removed"})
	}
	l.literalSecret(path, s)
}

// literalSecret warns of a secret that every user of the machine can read.
func (l *loader) literalSecret(path []string, s secret.String) {
	at, exact := l.root.lookup(path)
	if exact && s.IsLiteral() && at.src.open && !l.open[at.src] {
		l.open[at.src] = true // once is enough for a file
		l.problem(path, Finding{Severity: SeverityWarning, Code: codeLiteralSecret, Message: "a secret is spelled out in a file that everybody can read", Suggestion: "chmod o-r the file, or write ${file:/path}"})
	}
}
