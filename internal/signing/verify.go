package signing

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// Tolerance is how far the timestamp of scheme Standard may lie from the
// receiver's clock, in either direction: the five minutes of the reference
// libraries of Standard Webhooks.
const Tolerance = 5 * time.Minute

// Reason classifies why a signature was not accepted.
type Reason string

const (
	ReasonMissing   Reason = "missing"   // a header is not there
	ReasonMalformed Reason = "malformed" // a header does not hold what the scheme says
	ReasonTimestamp Reason = "timestamp" // outside the tolerance
	ReasonMismatch  Reason = "mismatch"  // well formed, of other bytes or of another secret
	ReasonSecret    Reason = "secret"    // the secret cannot be used with the scheme
)

// VerifyError says why a request was not accepted.
type VerifyError struct {
	Reason Reason
	Header string // the header in question, "" when it is about the secret
	Detail string // for people
	Hint   string // what is probably wrong, "" when nothing is known
}

// Error implements error.
func (e *VerifyError) Error() string {
	text := e.Detail
	if e.Header != "" {
		text = e.Header + ": " + text
	}
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// VerifyInput is a request as its receiver sees it.
type VerifyInput struct {
	Spec    Spec
	Headers http.Header // names in any case
	Body    []byte      // the raw bytes
	Secrets []secret.String
	// Now is the receiver's clock; zero is the wall clock. Only Standard uses it.
	Now time.Time
	// Tolerance replaces the constant of that name; 0 is the constant, negative
	// accepts any time, which gives up the protection against replays.
	Tolerance time.Duration
}

// Verify reports whether the request carries a signature of its exact body by
// one of the secrets: nil, or a *VerifyError that says what is wrong. It looks
// at the scheme's own header only, as a receiver that knows nothing of
// rotation does; when the header of the previous secret would have matched,
// the hint says so. Comparisons take constant time.
func Verify(in VerifyInput) error {
	r, err := resolve(in.Spec)
	if err != nil {
		return &VerifyError{Reason: ReasonMalformed, Detail: err.Error()}
	}
	if len(in.Secrets) == 0 {
		return &VerifyError{Reason: ReasonSecret, Detail: "no secret to verify with"}
	}
	for _, s := range in.Secrets {
		if s.IsZero() {
			return &VerifyError{Reason: ReasonSecret, Detail: "the secret is empty"}
		}
	}
	if r.scheme == Standard {
		return in.verifyStandard(r)
	}
	return in.verifyHex(r)
}

func (in *VerifyInput) verifyHex(r resolved) error {
	value, ok := in.header(r.signature)
	if !ok {
		return &VerifyError{Reason: ReasonMissing, Header: r.signature, Detail: "the request has no such header", Hint: in.otherScheme(r)}
	}
	got, err := parseHex(r, value)
	if err != nil {
		return err
	}
	for _, s := range in.Secrets {
		if hmac.Equal(got, sum([]byte(s.Reveal()), nil, in.Body)) {
			return nil
		}
	}
	return &VerifyError{Reason: ReasonMismatch, Header: r.signature,
		Detail: "the signature is not that of this body with this secret", Hint: in.hintHex(r, got)}
}

// parseHex reads the value of a Peanuts or Hex header.
func parseHex(r resolved, value string) ([]byte, error) {
	bad := func(detail, hint string) error {
		return &VerifyError{Reason: ReasonMalformed, Header: r.signature, Detail: detail, Hint: hint}
	}
	digits, prefixed := strings.CutPrefix(value, prefixPeanuts)
	switch {
	case r.scheme == Peanuts && !prefixed && len(value) == hexLen:
		return nil, bad(`the value does not start with "sha256="`, "it looks like scheme hex")
	case r.scheme == Peanuts && !prefixed:
		return nil, bad(`the value does not start with "sha256="`, "")
	case r.scheme == Hex && prefixed:
		return nil, bad(`the value starts with "sha256="`, "it looks like scheme peanuts")
	case len(digits) != hexLen:
		return nil, bad(fmt.Sprintf("the value has %d characters instead of %d hex digits", len(digits), hexLen), hintLength(digits))
	}
	got, err := hex.DecodeString(digits)
	if err != nil {
		return nil, bad("the value is not hexadecimal", "")
	}
	return got, nil
}

func hintLength(digits string) string {
	if len(digits) == base64Len {
		return "44 characters look like base64"
	}
	return ""
}

func (in *VerifyInput) verifyStandard(r resolved) error {
	var values [3]string
	for i, name := range []string{r.id, r.timestamp, r.signature} {
		value, ok := in.header(name)
		if !ok {
			return &VerifyError{Reason: ReasonMissing, Header: name, Detail: "the request has no such header", Hint: in.otherScheme(r)}
		}
		values[i] = value
	}
	id, timestamp, list := values[0], values[1], values[2]
	if err := in.checkTime(r, timestamp); err != nil {
		return err
	}
	got, err := parseStandard(r, list)
	if err != nil {
		return err
	}
	prefix := []byte(id + "." + timestamp + ".")
	var bad error
	for _, s := range in.Secrets {
		key, err := standardKey(s)
		if err != nil {
			bad = err
			continue
		}
		if anyEqual(got, sum(key, prefix, in.Body)) {
			return nil
		}
	}
	if bad != nil && len(in.Secrets) == 1 {
		return &VerifyError{Reason: ReasonSecret, Detail: "the secret does not work with scheme standard: " + bad.Error()}
	}
	return &VerifyError{Reason: ReasonMismatch, Header: r.signature,
		Detail: "no v1 signature is that of this id, timestamp and body with this secret", Hint: in.hintStandard(got, prefix)}
}

func (in *VerifyInput) checkTime(r resolved, timestamp string) error {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || seconds < 0 || seconds > maxUnix {
		hint := ""
		if len(timestamp) == len("1700000000000") {
			hint = "it looks like milliseconds; the unit is seconds"
		}
		return &VerifyError{Reason: ReasonMalformed, Header: r.timestamp, Detail: "the value is not a Unix time in seconds", Hint: hint}
	}
	now, tolerance := in.Now, in.Tolerance
	if now.IsZero() {
		now = time.Now()
	}
	if tolerance < 0 {
		return nil
	}
	if tolerance == 0 {
		tolerance = Tolerance
	}
	age := now.Sub(time.Unix(seconds, 0)).Truncate(time.Second)
	switch {
	case age > tolerance:
		return &VerifyError{Reason: ReasonTimestamp, Header: r.timestamp, Detail: fmt.Sprintf("signed %v ago, more than %v", age, tolerance),
			Hint: "the request was replayed or stored, or a clock is wrong"}
	case -age > tolerance:
		return &VerifyError{Reason: ReasonTimestamp, Header: r.timestamp, Detail: fmt.Sprintf("signed %v in the future, more than %v", -age, tolerance),
			Hint: "a clock is wrong"}
	}
	return nil
}

// maxUnix is the first second of the year 10000, so that no arithmetic on a
// hostile timestamp overflows.
const maxUnix = 253402300800

// parseStandard reads the v1 signatures of a space-separated list; others are
// skipped, as the specification asks.
func parseStandard(r resolved, list string) ([][]byte, error) {
	var found [][]byte
	var bad error
	for item := range strings.FieldsSeq(list) {
		text, ok := strings.CutPrefix(item, prefixV1)
		if !ok {
			continue
		}
		value, err := base64.StdEncoding.DecodeString(text)
		switch {
		case err != nil:
			bad = errors.New("a v1 signature is not base64")
		case len(value) != sumLen:
			bad = fmt.Errorf("a v1 signature has %d bytes instead of %d", len(value), sumLen)
		default:
			found = append(found, value)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	if bad == nil {
		bad = errors.New(`there is no signature that starts with "v1,"`)
	}
	return nil, &VerifyError{Reason: ReasonMalformed, Header: r.signature, Detail: bad.Error()}
}

func anyEqual(got [][]byte, want []byte) bool {
	equal := false
	for _, g := range got {
		// No early return: the time must not tell which one matched.
		equal = hmac.Equal(g, want) || equal
	}
	return equal
}

// header finds a header in any case; ok is false when it is missing or empty.
func (in *VerifyInput) header(name string) (value string, ok bool) {
	for key, values := range in.Headers {
		if strings.EqualFold(key, name) && len(values) > 0 {
			value = strings.TrimSpace(values[0])
			return value, value != ""
		}
	}
	return "", false
}
