package event

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// str reads the string whose opening quote is at pos. raw is what is between
// the quotes; unless escaped, it is already canonical: JSON.stringify leaves
// every character but quote, backslash, U+0000 to U+001F and lone surrogates as
// it is (ECMA-262, 25.5.2.3, QuoteJSONString), and JSON allows those in escapes
// only.
func (s *scanner) str() (raw []byte, escaped bool, err *Error) {
	in, start := s.in, s.pos+1
	i := start
	for i < len(in) {
		switch c := in[i]; {
		case c == '"':
			s.pos = i + 1
			return in[start:i], escaped, nil
		case c == '\\':
			n, err := escapeLen(in, i)
			if err != nil {
				return nil, false, err
			}
			escaped = true
			i += n
		case c < ' ':
			return nil, false, malformed(CodeInvalidJSON, i,
				"invalid JSON: control character U+%04X in a string, want an escape", c)
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(in[i:])
			if r == utf8.RuneError && n == 1 {
				return nil, false, malformed(CodeInvalidUTF8, i, "invalid UTF-8 in a string: byte 0x%02x", c)
			}
			i += n
		}
	}
	return nil, false, malformed(CodeInvalidJSON, len(in), "invalid JSON: the text ends inside a string")
}

// escapeLen checks the escape sequence whose backslash is at in[at].
func escapeLen(in []byte, at int) (int, *Error) {
	const short, long = len(`\n`), len(`\u0000`)
	if at+1 < len(in) {
		switch in[at+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			return short, nil
		case 'u':
			for i := at + short; i < at+long; i++ {
				if i >= len(in) {
					break
				}
				if hexDigit(in[i]) < 0 {
					return 0, malformed(CodeInvalidJSON, at, `invalid JSON: \u wants four hexadecimal digits`)
				}
			}
			if at+long <= len(in) {
				return long, nil
			}
		default:
			return 0, malformed(CodeInvalidJSON, at, "invalid JSON: a backslash that begins no escape")
		}
	}
	return 0, malformed(CodeInvalidJSON, len(in), "invalid JSON: the text ends inside a string")
}

// unescape reads the checked escape at the beginning of raw. Two escapes that
// make up a surrogate pair are read as the one character that they stand for; r
// is a surrogate only when it is a lone one.
func unescape(raw []byte) (r rune, n int) {
	switch c := raw[1]; c {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
	default:
		return rune(c), 2
	}
	r = codeUnit(raw)
	if utf16.IsSurrogate(r) && len(raw) >= 12 && raw[6] == '\\' && raw[7] == 'u' {
		if pair := utf16.DecodeRune(r, codeUnit(raw[6:])); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return r, 6
}

// codeUnit reads \uXXXX.
func codeUnit(raw []byte) rune {
	var r rune
	for _, c := range raw[2:6] {
		r = r<<4 | hexDigit(c)
	}
	return r
}

func hexDigit(c byte) rune {
	switch {
	case isDigit(c):
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// appendString appends, in canonical form and with quotes, what str read.
func appendString(dst, raw []byte, escaped bool) []byte {
	dst = append(dst, '"')
	if escaped {
		dst = appendCanonical(dst, raw)
	} else {
		dst = append(dst, raw...)
	}
	return append(dst, '"')
}

// appendCanonical appends the canonical form of a string that has escapes.
func appendCanonical(dst, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:i]...)
		r, n := unescape(raw[i:])
		dst = appendRune(dst, r)
		raw = raw[i+n:]
	}
}

// appendText appends what a string says, as UTF-8. ok is false when it has a
// lone surrogate, which UTF-8 cannot say.
func appendText(dst, raw []byte) (text []byte, ok bool) {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return append(dst, raw...), true
		}
		dst = append(dst, raw[:i]...)
		r, n := unescape(raw[i:])
		if utf16.IsSurrogate(r) {
			return dst, false
		}
		dst = utf8.AppendRune(dst, r)
		raw = raw[i+n:]
	}
}

// appendRune appends one character the way QuoteJSONString does (ECMA-262,
// 25.5.2.3 and 25.5.2.4).
func appendRune(dst []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\b':
		return append(dst, `\b`...)
	case '\t':
		return append(dst, `\t`...)
	case '\n':
		return append(dst, `\n`...)
	case '\f':
		return append(dst, `\f`...)
	case '\r':
		return append(dst, `\r`...)
	}
	if r < ' ' || utf16.IsSurrogate(r) {
		return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
	}
	return utf8.AppendRune(dst, r)
}

// appendQuoted appends text as a canonical JSON string. Bytes that are not
// UTF-8 become U+FFFD, so that the result is JSON whatever the text is.
func appendQuoted(dst []byte, text string) []byte {
	return append(appendEscaped(append(dst, '"'), text), '"')
}

func appendEscaped(dst []byte, text string) []byte {
	from, i := 0, 0
	for i < len(text) {
		c := text[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if n > 1 {
			i += n
			continue
		}
		dst = append(dst, text[from:i]...)
		dst = appendRune(dst, r)
		i += n
		from = i
	}
	return append(dst, text[from:]...)
}
