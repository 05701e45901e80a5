// Package secret holds values that must never be printed.
//
// Guarantee: whatever verb, encoder or logger a String meets, what comes out is
// [Mask] or, where the configuration file referred to the value instead of
// spelling it, that reference. Only [String.Reveal] gives the value.
package secret

import (
	"fmt"
	"log/slog"
	"strings"
)

// Mask stands wherever a secret was.
const Mask = "********"

// String is a sensitive value. The zero value is an unset secret. A String is
// immutable and safe for concurrent use.
type String struct {
	value string
	text  string // as the file has it, references unexpanded; "" when it was a literal
}

// New returns a secret whose value stood literally in its source.
func New(value string) String { return String{value: value} }

// FromReference returns a secret that the file obtains through references:
// text is what the file says ("Bearer ${file:/etc/token}"), value what that
// expanded to. Literal parts of text are not secret to the reader of the file,
// but still are to everybody else: see [String.Reference].
func FromReference(value, text string) String { return String{value: value, text: text} }

// Reveal returns the value itself, for signing or sending and nothing else.
func (s String) Reveal() string { return s.value }

// IsZero reports whether the secret is unset or empty.
func (s String) IsZero() bool { return s.value == "" }

// Len is the length of the value in bytes, for checks of strength.
func (s String) Len() int { return len(s.value) }

// IsLiteral reports whether the file spells the value out.
func (s String) IsLiteral() bool { return s.text == "" && s.value != "" }

// Reference is what may be shown: the file's text when it is made of a
// reference ("${env:NAME}"), with a default inside it masked, else Mask; ""
// for an unset secret.
func (s String) Reference() string {
	switch {
	case s.text != "":
		return maskDefaults(s.text)
	case s.value == "":
		return ""
	}
	return Mask
}

// maskDefaults rewrites ${env:NAME:-default} to ${env:NAME:-********}: a
// default is a literal secret in the file.
func maskDefaults(text string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "${")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		ref, after, closed := strings.Cut(rest, "}")
		if name, _, hasDefault := strings.Cut(ref, ":-"); hasDefault {
			ref = name + ":-" + Mask
		}
		b.WriteString("${" + ref)
		if closed {
			b.WriteByte('}')
		}
		text = after
		if !closed {
			return b.String()
		}
	}
}

// String implements [fmt.Stringer]; it never shows the value.
func (s String) String() string { return s.Reference() }

// GoString implements [fmt.GoStringer]; it never shows the value.
func (s String) GoString() string { return fmt.Sprintf("secret.String(%q)", s.Reference()) }

// Format implements [fmt.Formatter], so that no verb reaches the fields.
func (s String) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", s.Reference())
		return
	}
	_, _ = f.Write([]byte(s.Reference()))
}

// MarshalText implements [encoding.TextMarshaler], which encoding/json and
// YAML encoders use too; it never shows the value.
func (s String) MarshalText() ([]byte, error) { return []byte(s.Reference()), nil }

// LogValue implements [slog.LogValuer]; it never shows the value.
func (s String) LogValue() slog.Value { return slog.StringValue(s.Reference()) }
