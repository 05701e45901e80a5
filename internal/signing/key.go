package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"strings"
	"sync"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

const (
	// secretPrefix marks a Standard Webhooks secret. Libraries cut it off and
	// base64-decode the rest.
	secretPrefix = "whsec_"

	sumLen    = sha256.Size
	hexLen    = 2 * sumLen
	base64Len = (sumLen + 2) / 3 * 4
)

// standardKey is the HMAC key that Standard Webhooks libraries derive from a
// secret: they decode standard base64 whether or not the secret has the prefix
// (reference implementations in JavaScript, Go and Python; the specification's
// "whsec_" section). Signing a secret that is not base64 with its literal
// bytes would give signatures that no library accepts, so it is refused, and so
// is base64 without its padding, which the libraries refuse as well.
func standardKey(s secret.String) ([]byte, error) {
	text := strings.TrimPrefix(s.Reveal(), secretPrefix)
	key, err := base64.StdEncoding.DecodeString(text)
	switch {
	case strings.ContainsAny(text, "\r\n"):
		// The decoder would skip these, the libraries do not.
		return nil, errors.New("it contains a line break")
	case err != nil && strings.ContainsAny(text, "-_") && urlSafe(text):
		return nil, errors.New("it is not standard base64 but looks like the URL-safe alphabet: replace - by + and _ by /")
	case err != nil && unpadded(text):
		return nil, errors.New("its base64 lacks the padding, without which Standard Webhooks libraries refuse it: add = at the end until its length " +
			"without whsec_ is a multiple of 4")
	case err != nil:
		return nil, errors.New(`it is not base64, which Standard Webhooks libraries decode, with or without "whsec_" before it; ` +
			`make one with: echo "whsec_$(openssl rand -base64 32)"`)
	case len(key) == 0:
		return nil, errors.New("nothing follows whsec_")
	}
	return key, nil
}

func unpadded(text string) bool {
	_, err := base64.RawStdEncoding.DecodeString(text)
	return err == nil
}

func urlSafe(text string) bool {
	_, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	return err == nil
}

// mac computes HMAC-SHA256 with one key. The states in the pool have absorbed
// the key already: Reset restores them instead of hashing the key again.
type mac struct {
	pool sync.Pool
}

type macState struct {
	hash   hash.Hash
	sum    [sumLen]byte
	text   [len(prefixPeanuts) + hexLen]byte // long enough for base64 as well
	prefix []byte
}

func newMAC(key []byte) *mac {
	m := &mac{}
	m.pool.New = func() any {
		h := hmac.New(sha256.New, key)
		h.Reset() // from here on the keyed state is kept
		return &macState{hash: h}
	}
	return m
}

// peanuts is "sha256=" and the hex HMAC of payload.
func (m *mac) peanuts(payload []byte) string {
	st := m.pool.Get().(*macState)
	defer m.pool.Put(st)
	st.compute(nil, payload)
	n := copy(st.text[:], prefixPeanuts)
	n += hex.Encode(st.text[n:], st.sum[:])
	return string(st.text[:n])
}

// standard is "v1," and the base64 HMAC of "id.timestamp.payload".
func (m *mac) standard(id, timestamp string, payload []byte) string {
	st := m.pool.Get().(*macState)
	defer m.pool.Put(st)
	st.prefix = append(append(append(append(st.prefix[:0], id...), '.'), timestamp...), '.')
	st.compute(st.prefix, payload)
	n := copy(st.text[:], prefixV1)
	base64.StdEncoding.Encode(st.text[n:], st.sum[:])
	return string(st.text[:n+base64Len])
}

func (st *macState) compute(prefix, payload []byte) {
	st.hash.Reset()
	if len(prefix) > 0 {
		st.hash.Write(prefix)
	}
	st.hash.Write(payload)
	st.hash.Sum(st.sum[:0])
}

// sum is the bare HMAC, for verification.
func sum(key, prefix, payload []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(prefix)
	h.Write(payload)
	return h.Sum(nil)
}
