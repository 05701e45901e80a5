package sinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
)

// redacted is shown instead of a secret.
const redacted = "********"

// Secret is a setting that must never be shown: a token, a key. Whatever verb, encoder
// or logger it meets, what comes out is a mask; only [Secret.Reveal] gives the value.
// The zero value is an unset secret.
type Secret struct {
	// A pointer, because fmt prints the unexported fields of a struct around it without
	// asking: of a pointer it prints the address.
	value *string
}

// NewSecret makes a secret, for tests.
func NewSecret(value string) Secret { return Secret{&value} }

// Reveal is the value itself, to be sent and for nothing else.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether the secret is unset or empty.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String is the mask, or "" for an unset secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString is the mask too.
func (s Secret) GoString() string { return "sinks.Secret(" + s.String() + ")" }

// Format is the mask for every verb.
func (s Secret) Format(f fmt.State, verb rune) { formatRedacted(f, verb, s.String()) }

// MarshalText is the mask.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON is the mask.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// LogValue is the mask.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// UnmarshalJSON takes a string.
func (s *Secret) UnmarshalJSON(b []byte) error {
	var value string
	if err := json.Unmarshal(b, &value); err != nil {
		return errors.New("must be a string") // the error of json shows the value
	}
	*s = NewSecret(value)
	return nil
}

// URL is an absolute address with http or https. It is a [Secret] as a whole, because
// the path and the query of many a webhook are what gives access: what is shown is its
// scheme and host. The zero value is an unset URL.
type URL struct {
	value **url.URL // see Secret.value; of a pointer to a struct, fmt can print what is in it
}

// NewURL reads an address. Its error does not show it.
func NewURL(address string) (URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return URL{}, errors.New("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return URL{}, errors.New("must begin with https:// or http://")
	case u.Hostname() == "":
		return URL{}, errors.New("names no host")
	}
	return URL{&u}, nil
}

// Reveal is a copy of the URL itself; nil when it is unset.
func (u URL) Reveal() *url.URL {
	if u.value == nil {
		return nil
	}
	return new(**u.value)
}

// Host is host or host:port, which may be shown; "" when it is unset.
func (u URL) Host() string {
	if u.value == nil {
		return ""
	}
	return (*u.value).Host
}

// IsZero reports whether the URL is unset.
func (u URL) IsZero() bool { return u.value == nil }

// String is the scheme and the host.
func (u URL) String() string {
	if u.value == nil {
		return ""
	}
	return origin(*u.value)
}

// GoString shows no more than String.
func (u URL) GoString() string { return "sinks.URL(" + u.String() + ")" }

// Format shows no more than String, for every verb.
func (u URL) Format(f fmt.State, verb rune) { formatRedacted(f, verb, u.String()) }

// MarshalText shows no more than String.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalJSON shows no more than String.
func (u URL) MarshalJSON() ([]byte, error) { return json.Marshal(u.String()) }

// LogValue shows no more than String.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// UnmarshalJSON takes a string.
func (u *URL) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("must be a string")
	}
	parsed, err := NewURL(text)
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}

// origin is what of a URL may be shown.
func origin(u *url.URL) string { return u.Scheme + "://" + u.Host + "/…" }

func formatRedacted(f fmt.State, verb rune, shown string) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", shown)
		return
	}
	_, _ = f.Write([]byte(shown))
}
