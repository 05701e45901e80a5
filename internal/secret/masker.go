package secret

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
)

// maxPattern bounds what is searched for, and with it the buffers: three times the
// 64 KiB of a file that a reference may name, because a URL or hexadecimal form is up
// to three times as long.
const maxPattern = 3 * 64 << 10

// Patterns collects the texts that a [Masker] hides. The zero value is empty; it is not
// safe for concurrent use.
type Patterns struct{ set map[string]bool }

// Add adds a value in every form in which it comes back: as it is, or quoted by JSON,
// HTML, a URL or hexadecimal. A form of fewer bytes than least is left out: it would
// blot out words that have nothing to do with it.
func (p *Patterns) Add(value string, least int) {
	if p.set == nil {
		p.set = map[string]bool{}
	}
	for _, form := range forms(value) {
		if len(form) >= max(least, 1) && len(form) <= maxPattern {
			p.set[form] = true
		}
	}
}

// AddAll adds everything that other has.
func (p *Patterns) AddAll(other *Patterns) {
	for form := range other.set {
		if p.set == nil {
			p.set = map[string]bool{}
		}
		p.set[form] = true
	}
}

func forms(value string) []string {
	all := []string{value, html.EscapeString(value), url.QueryEscape(value), url.PathEscape(value), hex.EncodeToString([]byte(value))}
	if quoted, err := json.Marshal(value); err == nil {
		all = append(all, string(quoted[1:len(quoted)-1]))
	}
	return append(all, strings.ReplaceAll(value, "/", `\/`))
}

// Masker replaces secrets in text by [Mask]. It is immutable; a nil Masker hides nothing.
type Masker struct {
	patterns [][]byte // longest first, so that none leaves a part of another
	mask     []byte
}

// NewMasker hides what p has collected so far.
func NewMasker(p *Patterns) *Masker {
	m := &Masker{mask: []byte(Mask)}
	for form := range p.set {
		m.patterns = append(m.patterns, []byte(form))
	}
	slices.SortFunc(m.patterns, func(a, b []byte) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), bytes.Compare(a, b))
	})
	return m
}

// Longest is the length of the longest text that is hidden, in bytes; 0 = none is.
func (m *Masker) Longest() int {
	if m == nil || len(m.patterns) == 0 {
		return 0
	}
	return len(m.patterns[0])
}

// Bytes masks b; the result shares memory with b when there was nothing to mask.
func (m *Masker) Bytes(b []byte) []byte {
	if m == nil {
		return b
	}
	for _, p := range m.patterns {
		if bytes.Contains(b, p) {
			b = bytes.ReplaceAll(b, p, m.mask)
		}
	}
	return b
}

// Text masks s.
func (m *Masker) Text(s string) string {
	if m == nil {
		return s
	}
	for _, p := range m.patterns {
		if len(p) <= len(s) {
			s = strings.ReplaceAll(s, string(p), Mask)
		}
	}
	return s
}

// Line makes one readable line of a text that somebody else wrote: masked, what is not
// printable replaced, cut to most bytes.
//
// No more of s is looked at than can be in the line, and what a cut would leave of a
// secret goes with it.
func (m *Masker) Line(s string, most int) string {
	window := most + m.Longest()
	if len(s) <= window {
		return Clean(m.Text(s), most)
	}
	s = m.Text(s[:window])
	s = Clean(s[:max(0, len(s)-m.Longest())], most)
	return strings.TrimSuffix(s, "…") + "…"
}

// Clean makes line breaks and tabs spaces, replaces what is not printable by a question
// mark, and cuts the text to most bytes and an ellipsis.
func Clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
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
