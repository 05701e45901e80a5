package httpsink

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

const (
	// Shorter values are not masked: they would blot out words that have
	// nothing to do with them, and nobody can call them secret.
	minSecret = 4
	// minPlain is the same for values that the file spells out where few
	// secrets are: ordinary headers and parts of the path.
	minPlain = 8

	// maxPattern bounds what is searched for, and with it the buffers: three
	// times the 64 KiB of a file that a reference may name, because a URL or
	// hexadecimal form is up to three times as long.
	maxPattern = 3 * 64 << 10
	maxLine    = 300
)

// masker replaces the secrets of one webhook. It is immutable.
type masker struct {
	patterns [][]byte // longest first, so that none leaves a part of another
	longest  int
	mask     []byte
}

// newMasker collects what a receiver may echo: the signing secrets, the values
// of the headers, and path, query and userinfo of the URL.
func newMasker(o *Options, u *url.URL) *masker {
	set := make(map[string]bool)
	add := func(value string, least int) {
		for _, form := range forms(value) {
			if len(form) >= least && len(form) <= maxPattern {
				set[form] = true
			}
		}
	}
	if o.Signer != nil {
		for _, s := range o.Signer.Secrets() {
			add(s.Reveal(), minSecret)
			add(strings.TrimPrefix(s.Reveal(), "whsec_"), minPlain)
		}
	}
	for _, h := range o.Headers {
		addHeader(h, add)
	}
	addURL(u, add)
	m := &masker{mask: []byte(secret.Mask)}
	for p := range set {
		m.patterns = append(m.patterns, []byte(p))
		m.longest = max(m.longest, len(p))
	}
	slices.SortFunc(m.patterns, func(a, b []byte) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), bytes.Compare(a, b))
	})
	return m
}

func addHeader(h Header, add func(string, int)) {
	least := minSecret
	if name := strings.ToLower(h.Name); h.Value.IsLiteral() && !strings.Contains(name, "auth") && !strings.Contains(name, "key") &&
		!strings.Contains(name, "token") && !strings.Contains(name, "secret") && !strings.Contains(name, "cookie") {
		least = minPlain
	}
	value := h.Value.Reveal()
	add(value, least)
	// "Bearer abc": a receiver that complains shows the second word.
	if _, credentials, ok := strings.Cut(value, " "); ok {
		add(strings.TrimSpace(credentials), max(least, minSecret))
	}
}

func addURL(u *url.URL, add func(string, int)) {
	add(u.RequestURI(), minSecret)
	add(u.EscapedPath(), minSecret)
	add(u.Path, minSecret)
	for segment := range strings.SplitSeq(u.EscapedPath(), "/") {
		add(segment, minPlain)
	}
	add(u.RawQuery, minSecret)
	for name, values := range u.Query() {
		add(name, minPlain)
		for _, v := range values {
			add(v, minSecret)
		}
	}
	if u.User == nil {
		return
	}
	add(strings.TrimPrefix(basicAuth(u.User), "Basic "), minSecret)
	if password, ok := u.User.Password(); ok {
		add(password, minSecret)
	}
	add(u.User.Username(), minPlain)
}

// forms are the ways in which a value comes back: as it is, or quoted by JSON,
// HTML, a URL or hexadecimal.
func forms(value string) []string {
	all := []string{value, html.EscapeString(value), url.QueryEscape(value), url.PathEscape(value), hex.EncodeToString([]byte(value))}
	if quoted, err := json.Marshal(value); err == nil {
		all = append(all, string(quoted[1:len(quoted)-1]))
	}
	all = append(all, strings.ReplaceAll(value, "/", `\/`))
	return all
}

// bytes masks b; the result shares memory with b when there was nothing to
// mask.
func (m *masker) bytes(b []byte) []byte {
	for _, p := range m.patterns {
		if bytes.Contains(b, p) {
			b = bytes.ReplaceAll(b, p, m.mask)
		}
	}
	return b
}

func (m *masker) text(s string) string {
	for _, p := range m.patterns {
		if len(p) <= len(s) {
			s = strings.ReplaceAll(s, string(p), secret.Mask)
		}
	}
	return s
}

// line makes one readable line of a text that may quote the receiver.
func (m *masker) line(s string) string { return clean(m.text(s), maxLine) }

// clean replaces what is not printable and cuts the text at most bytes.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
