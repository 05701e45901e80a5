// Package signing computes and checks the signatures of requests.
//
// Guarantee: a signature is a function of the secret and of the exact payload
// bytes only (scheme standard adds the delivery id and the time), so every
// attempt of a delivery carries the same peanuts and hex signatures. What New
// accepts can be verified by a receiver that knows the same secret: a secret
// or a combination of headers that no receiver could work with is refused
// before anything is sent. Nothing here prints a secret.
package signing

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/planted"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// Scheme names one way to write a signature into headers.
type Scheme string

const (
	// Peanuts is "sha256=" and the HMAC-SHA256 of the body in lower-case hex, in
	// X-Peanuts-Signature. The key is the secret's literal UTF-8 bytes.
	Peanuts Scheme = "peanuts"
	// Hex is the bare hex of the same HMAC, in X-Webhook-Signature.
	Hex Scheme = "hex"
	// Standard is Standard Webhooks 1.0: webhook-id, webhook-timestamp and
	// webhook-signature, the latter "v1," and base64 over "id.timestamp.body".
	// https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
	Standard Scheme = "standard"
)

// Default names of the signature headers.
const (
	HeaderPeanuts           = "X-Peanuts-Signature"
	HeaderHex               = "X-Webhook-Signature"
	HeaderStandardID        = "webhook-id"
	HeaderStandardTimestamp = "webhook-timestamp"
	HeaderStandardSignature = "webhook-signature"

	// PreviousSuffix is what the header of the second secret's signature has
	// after the name of the first's, for the schemes that hold one signature.
	PreviousSuffix = "-Previous"
)

const (
	prefixPeanuts   = "sha256="
	prefixV1        = "v1,"
	suffixSignature = "-signature"

	// maxSecrets is one in use and one on its way in or out.
	maxSecrets = 2
)

// Spec is one signature of a request.
type Spec struct {
	Scheme Scheme
	// Header renames the signature header; "" is the scheme's default. For
	// Standard the name must end in "-signature", and the two other headers
	// follow it: "svix-signature" brings "svix-id" and "svix-timestamp".
	Header string
}

// Signer signs payloads. It is immutable and safe for concurrent use.
type Signer struct {
	specs    []resolved
	literal  []*mac // keys for Peanuts and Hex, in the order of the secrets
	standard []*mac // keys for Standard; nil when no spec uses it
	secrets  []secret.String
	headers  int // how many headers Sign appends
}

type resolved struct {
	scheme    Scheme
	signature string
	previous  string // Peanuts, Hex
	id        string // Standard
	timestamp string // Standard
}

// New returns a Signer that writes one signature for each of specs. With two
// secrets Standard carries both signatures in one header; the others sign with
// the first and put the signature of the second into the header with
// [PreviousSuffix].
//
// It fails on an unknown scheme, an unusable header name, two signatures on
// one header, no secret or more than two, an empty secret, and on a secret
// that Standard Webhooks libraries could not decode when a spec uses Standard.
func New(specs []Spec, secrets []secret.String) (*Signer, error) {
	switch {
	case len(specs) == 0:
		return nil, errors.New("no signature scheme")
	case len(secrets) == 0:
		return nil, errors.New("no secret to sign with")
	case len(secrets) > maxSecrets:
		return nil, fmt.Errorf("%d secrets: a rotation has two, the one in use first", len(secrets))
	}
	s := &Signer{secrets: append([]secret.String(nil), secrets...)}
	taken := make(map[string]Scheme)
	for _, spec := range specs {
		r, err := resolve(spec)
		if err != nil {
			return nil, err
		}
		for _, name := range r.names() {
			if other, ok := taken[strings.ToLower(name)]; ok {
				return nil, fmt.Errorf("signatures %q and %q are both on header %s: rename one with header", other, r.scheme, name)
			}
			taken[strings.ToLower(name)] = r.scheme
		}
		s.specs = append(s.specs, r)
	}
	if err := s.setKeys(secrets); err != nil {
		return nil, err
	}
	s.headers = s.countHeaders()
	return s, nil
}

func (s *Signer) setKeys(secrets []secret.String) error {
	for i, sec := range secrets {
		if sec.IsZero() {
			return fmt.Errorf("secret %d is empty", i+1)
		}
		s.literal = append(s.literal, newMAC([]byte(sec.Reveal())))
	}
	for _, r := range s.specs {
		if r.scheme != Standard || s.standard != nil {
			continue
		}
		for i, sec := range secrets {
			key, err := standardKey(sec)
			if err != nil {
				return fmt.Errorf("secret %d does not work with scheme %q: %w", i+1, Standard, err)
			}
			s.standard = append(s.standard, newMAC(key))
		}
	}
	return nil
}

func (s *Signer) countHeaders() int {
	n := 0
	for _, r := range s.specs {
		switch {
		case r.scheme == Standard:
			n += 3
		default:
			n += len(s.literal)
		}
	}
	return n
}

// Secrets are the secrets that the Signer was made with, so that they can be
// masked in what a receiver sends back.
func (s *Signer) Secrets() []secret.String { return append([]secret.String(nil), s.secrets...) }

// HeaderNames are all headers that Sign may set, those of a rotation included.
func (s *Signer) HeaderNames() []string {
	var names []string
	for _, r := range s.specs {
		names = append(names, r.names()...)
	}
	return names
}

// Sign appends the signature headers of one attempt in the order of the specs.
// at is the time of the attempt; only Standard uses it and deliveryID.
func (s *Signer) Sign(dst []delivery.Header, deliveryID string, at time.Time, payload []byte) []delivery.Header {
	if planted.SignatureOfOtherBytes {
		payload = append(payload[:len(payload):len(payload)], '\n')
	}
	if dst == nil {
		dst = make([]delivery.Header, 0, s.headers)
	}
	var digests [maxSecrets]string // hex of the literal keys, shared by Peanuts and Hex
	digest := func(i int) string {
		if digests[i] == "" {
			digests[i] = s.literal[i].peanuts(payload)
		}
		return digests[i]
	}
	for i := range s.specs {
		r := &s.specs[i]
		switch r.scheme {
		case Peanuts, Hex:
			cut := 0
			if r.scheme == Hex {
				cut = len(prefixPeanuts)
			}
			dst = append(dst, delivery.Header{Name: r.signature, Value: digest(0)[cut:]})
			if len(s.literal) > 1 {
				dst = append(dst, delivery.Header{Name: r.previous, Value: digest(1)[cut:]})
			}
		case Standard:
			timestamp := strconv.FormatInt(at.Unix(), 10)
			dst = append(dst,
				delivery.Header{Name: r.id, Value: deliveryID},
				delivery.Header{Name: r.timestamp, Value: timestamp},
				delivery.Header{Name: r.signature, Value: s.signStandard(deliveryID, timestamp, payload)})
		}
	}
	return dst
}

func (s *Signer) signStandard(id, timestamp string, payload []byte) string {
	first := s.standard[0].standard(id, timestamp, payload)
	if len(s.standard) == 1 {
		return first
	}
	return first + " " + s.standard[1].standard(id, timestamp, payload)
}

// HeaderNames are the headers of a signature, the one with the signature last;
// nil for a spec that New would refuse. In a rotation Peanuts and Hex set one
// more, with [PreviousSuffix].
func HeaderNames(spec Spec) []string {
	r, err := resolve(spec)
	switch {
	case err != nil:
		return nil
	case r.scheme == Standard:
		return r.names()
	}
	return []string{r.signature}
}

func (r resolved) names() []string {
	if r.scheme == Standard {
		return []string{r.id, r.timestamp, r.signature}
	}
	return []string{r.signature, r.previous}
}

func resolve(spec Spec) (resolved, error) {
	r := resolved{scheme: spec.Scheme, signature: spec.Header}
	if err := checkName(spec.Header); err != nil {
		return r, err
	}
	switch spec.Scheme {
	case Peanuts:
		r.setDefault(HeaderPeanuts)
	case Hex:
		r.setDefault(HeaderHex)
	case Standard:
		r.setDefault(HeaderStandardSignature)
		at := len(r.signature) - len(suffixSignature)
		if at < 1 || !strings.EqualFold(r.signature[at:], suffixSignature) {
			return r, fmt.Errorf("header %q of scheme %q must end in %q: the id and timestamp headers are named after it",
				r.signature, Standard, suffixSignature)
		}
		r.id, r.timestamp = r.signature[:at]+"-id", r.signature[:at]+"-timestamp"
		return r, nil
	default:
		return r, fmt.Errorf("unknown signature scheme %q: use %q, %q or %q", spec.Scheme, Peanuts, Hex, Standard)
	}
	r.previous = r.signature + PreviousSuffix
	return r, nil
}

func (r *resolved) setDefault(name string) {
	if r.signature == "" {
		r.signature = name
	}
}

// checkName refuses what RFC 9110 section 5.1 does not allow as a field name,
// and the names that carry something else in our requests.
func checkName(name string) error {
	for i := range len(name) {
		if !isToken(name[i]) {
			return fmt.Errorf("header %q is not a valid header name", name)
		}
	}
	switch lower := strings.ToLower(name); lower {
	case "host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding", "trailer", "te",
		"upgrade", "expect", "keep-alive", "proxy-connection", "proxy-authorization", "authorization", "cookie", "user-agent",
		"x-peanuts-event", "x-peanuts-event-id", "x-peanuts-delivery", "x-peanuts-attempt", "x-peanuts-test":
		return fmt.Errorf("header %s cannot carry a signature: it has a meaning of its own", name)
	}
	return nil
}

func isToken(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
