package signing

import (
	"bytes"
	"crypto/hmac"
	"encoding/json"
	"strings"
)

// otherScheme says which signature a request has when the one looked for is
// missing.
func (in *VerifyInput) otherScheme(r resolved) string {
	for _, other := range []struct {
		header string
		scheme Scheme
	}{{HeaderPeanuts, Peanuts}, {HeaderHex, Hex}, {HeaderStandardSignature, Standard}} {
		if _, ok := in.header(other.header); ok && !strings.EqualFold(other.header, r.signature) {
			return "there is a " + other.header + ", the header of scheme " + string(other.scheme)
		}
	}
	return ""
}

func (in *VerifyInput) hintHex(r resolved, got []byte) string {
	matches := func(key, body []byte) bool { return hmac.Equal(got, sum(key, nil, body)) }
	for _, s := range in.Secrets {
		literal := []byte(s.Reveal())
		if hint := bodyHint(in.Body, func(body []byte) bool { return matches(literal, body) }); hint != "" {
			return hint
		}
		if hint := keyHint(literal, func(key []byte) bool { return matches(key, in.Body) }); hint != "" {
			return hint
		}
		if decoded, err := standardKey(s); err == nil && matches(decoded, in.Body) {
			return "it matches with the base64-decoded secret: this scheme takes the secret's literal bytes as the key"
		}
		if r.matchesPrevious(in, literal) {
			return "the signature in " + r.previous + " matches: the sender lists this secret second"
		}
	}
	return ""
}

func (r resolved) matchesPrevious(in *VerifyInput, key []byte) bool {
	value, ok := in.header(r.previous)
	if !ok {
		return false
	}
	got, err := parseHex(r, value)
	return err == nil && hmac.Equal(got, sum(key, nil, in.Body))
}

func (in *VerifyInput) hintStandard(got [][]byte, prefix []byte) string {
	for _, s := range in.Secrets {
		literal := []byte(s.Reveal())
		if anyEqual(got, sum(literal, prefix, in.Body)) {
			return "it matches with the secret's literal bytes: this scheme base64-decodes the secret"
		}
		key, err := standardKey(s)
		if err != nil {
			continue
		}
		if hint := bodyHint(in.Body, func(body []byte) bool { return anyEqual(got, sum(key, prefix, body)) }); hint != "" {
			return hint
		}
		if anyEqual(got, sum(key, nil, in.Body)) {
			return `it matches without "id.timestamp." before the body`
		}
	}
	return ""
}

// keyHint tries the ways in which a secret gets damaged on its way into a
// receiver.
func keyHint(literal []byte, matches func(key []byte) bool) string {
	if trimmed := bytes.TrimSpace(literal); len(trimmed) != len(literal) && matches(trimmed) {
		return "it matches with the white space around the secret removed"
	}
	if matches(append(bytes.Clone(literal), '\n')) {
		return "it matches with a newline after the secret: the sender's secret ends in one"
	}
	return ""
}

// bodyHint tries the ways in which a body changes between the wire and the
// check.
func bodyHint(body []byte, matches func(body []byte) bool) string {
	if trimmed := bytes.TrimRight(body, "\r\n"); len(trimmed) != len(body) && matches(trimmed) {
		return "it matches with the newline at the end of the body removed: something added it (an editor, echo)"
	}
	for _, end := range []string{"\n", "\r\n"} {
		if matches(append(bytes.Clone(body), end...)) {
			return "it matches with a newline at the end of the body: something removed it"
		}
	}
	if rest, ok := bytes.CutPrefix(body, []byte("\xef\xbb\xbf")); ok && matches(rest) {
		return "it matches with the byte order mark removed from the body"
	}
	var compact bytes.Buffer
	if json.Compact(&compact, body) != nil {
		return ""
	}
	plain := unescape(compact.Bytes())
	if (!bytes.Equal(compact.Bytes(), body) && matches(compact.Bytes())) || (!bytes.Equal(plain, body) && matches(plain)) {
		return "it matches with the JSON written compactly: the body was parsed and written again; verify the raw bytes"
	}
	return ""
}

// unescape undoes the escapes that several JSON writers add and our payloads
// never have.
func unescape(compact []byte) []byte {
	return []byte(strings.NewReplacer(
		`\\`, `\\`, // keeps an escaped backslash from joining what follows
		`\u003c`, "<", `\u003C`, "<", `\u003e`, ">", `\u003E`, ">", `\u0026`, "&",
		`\u2028`, "\u2028", `\u2029`, "\u2029", `\/`, "/",
	).Replace(string(compact)))
}
