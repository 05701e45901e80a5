package config

import (
	"regexp"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

var (
	// What may stand beside a reference without being a secret itself.
	harmless = regexp.MustCompile(`^(?i:bearer|basic|token|bot|apikey|whsec_)? ?$`)
	// Scheme, host and port; no userinfo.
	origin = regexp.MustCompile(`^https?://[A-Za-z0-9.\-_\[\]:]{1,260}(/|$)`)
)

// redact is the text of a secret as it may be shown: references stay, their
// defaults and every literal part are masked, except an authentication scheme
// and, in a URL, scheme and host.
func redact(text string, url bool) string {
	if _, _, refers := cutReference(text); !refers && !url {
		return secret.Mask
	}
	var b strings.Builder
	first := true
	literal := func(s string, last bool) {
		if s == "" {
			return
		}
		if url && first {
			// Without the slash the host, or userinfo, may go on in a reference.
			if o := origin.FindString(s); o != "" && (last || strings.HasSuffix(o, "/")) {
				b.WriteString(o)
				s = s[len(o):]
			}
		}
		first = false
		switch {
		case s == "":
		case harmless.MatchString(s), url && s == "/":
			b.WriteString(s)
		default:
			b.WriteString(secret.Mask)
		}
	}
	for {
		before, rest, ok := cutReference(text)
		literal(before, !ok)
		if !ok {
			break
		}
		first = false
		ref, after, closed := strings.Cut(rest, "}")
		if !closed {
			b.WriteString(secret.Mask)
			break
		}
		if !knownReference.MatchString(ref) {
			ref = secret.Mask // misspelt: what it holds is unknown
		} else if name, _, hasDefault := strings.Cut(ref, ":-"); hasDefault {
			ref = name + ":-" + secret.Mask
		}
		b.WriteString("${" + ref + "}")
		text = after
	}
	return b.String()
}

var knownReference = regexp.MustCompile(`^(env:[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?|file:[^{}$]+|cred:[A-Za-z0-9._-]+)$`)

// cutReference splits text at the first "${" that is not "$${".
func cutReference(text string) (before, after string, found bool) {
	for i := 0; i+1 < len(text); i++ {
		if text[i] != '$' {
			continue
		}
		switch text[i+1] {
		case '$':
			i++
		case '{':
			return text[:i], text[i+2:], true
		}
	}
	return text, "", false
}
