package queue

import (
	"encoding/binary"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// Bounds on what is kept of an attempt, whatever a sink hands in. The body's
// is the one that the delivery log promises for a failure.
const (
	maxBody       = 16 << 10
	maxText       = 2 << 10
	maxHeaders    = 100
	maxHeaderText = 4 << 10
)

// finishedRow is the value of an h row. It repeats what listings show of the
// event, because the event's own record may be let go earlier.
type finishedRow struct {
	format   Format
	unstable bool
	ref      payloadRef
	ownID    string // "" = generated
	typ      string
	entry    string
	attempts int
	accepted int64 // wall clock, ms
	finished int64 // wall clock, ms
	code     delivery.Code
	errText  string
	last     *delivery.Attempt // nil when it ended without one (dropped, damaged)
	request  uint64            // template of last
}

func (h *finishedRow) append(b, key []byte) []byte {
	start := len(b)
	b = append(b, valueVersion, byte(h.format), flags(h.unstable, h.last != nil))
	b = appendRef(b, h.ref)
	b = appendText(b, h.ownID)
	b = appendText(b, h.typ)
	b = appendText(b, h.entry)
	b = appendNumber(b, h.attempts)
	b = binary.AppendVarint(b, h.accepted)
	b = binary.AppendVarint(b, h.finished)
	if h.last != nil {
		b = appendAttempt(b, h.last, h.request)
	} else {
		b = appendText(b, h.code)
		b = appendText(b, clip(h.errText, maxText))
	}
	return seal(b, start, key)
}

func decodeFinished(key, val []byte) (h finishedRow, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return h, err
	}
	h.format = d.format()
	f := d.byte()
	h.unstable = f&1 != 0
	h.ref = d.ref()
	h.ownID = d.str()
	h.typ = d.str()
	h.entry = d.str()
	h.attempts = d.number()
	h.accepted = d.varint()
	h.finished = d.varint()
	if f&2 != 0 {
		a, request := d.attempt()
		h.last, h.request = &a, request
		h.code, h.errText = a.Code, a.Error
	} else {
		h.code = delivery.Code(d.str())
		h.errText = d.str()
	}
	return h, d.end()
}

// appendAttempt appends an attempt without version and checksum: it is part of
// an h row or of an a row. Times are kept to the microsecond. A flag says that
// the fields of format 2 follow the others.
func appendAttempt(b []byte, a *delivery.Attempt, request uint64) []byte {
	remoteURL := a.RemoteURL
	if len(remoteURL) > maxText {
		remoteURL = "" // a part of one leads nowhere
	}
	told := a.Message != "" || remoteURL != ""
	b = append(b, flags(a.Reused, a.BodyTruncated || len(a.Body) > maxBody, request != 0, told), byte(a.Outcome), byte(a.State))
	b = appendNumber(b, a.Number)
	b = binary.AppendVarint(b, a.Started.UnixMicro())
	for _, d := range [...]time.Duration{a.Duration, a.Phases.DNS, a.Phases.Connect, a.Phases.TLS, a.Phases.FirstByte,
		a.RetryAfter, a.NextIn} {
		b = binary.AppendVarint(b, d.Microseconds())
	}
	b = appendText(b, clip(a.Remote, maxText))
	if request != 0 {
		b = binary.BigEndian.AppendUint64(b, request)
	}
	b = appendHeaders(b, a.Signatures)
	b = appendNumber(b, a.Status)
	b = appendHeaders(b, a.Headers)
	b = appendText(b, a.Body[:min(len(a.Body), maxBody)])
	b = appendText(b, clip(string(a.Code), maxText))
	b = appendText(b, clip(a.Error, maxText))
	b = appendText(b, clip(string(a.Rule), maxText))
	if told {
		b = appendText(appendText(b, clip(a.Message, maxText)), remoteURL)
	}
	return b
}

// attempt reads what appendAttempt wrote. Nothing of it shares memory with the
// input.
func (d *decoder) attempt() (a delivery.Attempt, request uint64) {
	f := d.byte()
	a.Reused, a.BodyTruncated = f&1 != 0, f&2 != 0
	a.Outcome, a.State = delivery.Outcome(d.byte()), delivery.State(d.byte())
	a.Number = d.number()
	a.Started = time.UnixMicro(d.varint()).UTC()
	for _, p := range [...]*time.Duration{&a.Duration, &a.Phases.DNS, &a.Phases.Connect, &a.Phases.TLS, &a.Phases.FirstByte,
		&a.RetryAfter, &a.NextIn} {
		*p = time.Duration(d.varint()) * time.Microsecond
	}
	a.Remote = d.str()
	if f&4 != 0 {
		request = d.u64()
	}
	a.Signatures = d.headers()
	a.Status = d.number()
	a.Headers = d.headers()
	if body := d.bytes(); len(body) > 0 {
		a.Body = append([]byte(nil), body...)
	}
	a.Code = delivery.Code(d.str())
	a.Error = d.str()
	a.Rule = delivery.Rule(d.str())
	if f&8 != 0 {
		a.Message, a.RemoteURL = d.str(), d.str()
	}
	return a, request
}

func appendHeaders(b []byte, hs []delivery.Header) []byte {
	hs = hs[:min(len(hs), maxHeaders)]
	b = appendNumber(b, len(hs))
	for _, h := range hs {
		b = appendText(b, clip(h.Name, maxHeaderText))
		b = appendText(b, clip(h.Value, maxHeaderText))
	}
	return b
}

func (d *decoder) headers() []delivery.Header {
	n := d.count()
	if n == 0 {
		return nil
	}
	hs := make([]delivery.Header, 0, min(n, maxHeaders))
	for range n {
		hs = append(hs, delivery.Header{Name: d.str(), Value: d.str()})
	}
	return hs
}

// appendAttemptRow makes the value of an a row.
func appendAttemptRow(b, key []byte, a *delivery.Attempt, request uint64) []byte {
	start := len(b)
	b = appendAttempt(append(b, valueVersion), a, request)
	return seal(b, start, key)
}

func decodeAttemptRow(key, val []byte) (a delivery.Attempt, request uint64, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return a, 0, err
	}
	a, request = d.attempt()
	return a, request, d.end()
}

// appendRequest makes the fields of a t row.
func appendRequest(b []byte, r *delivery.Request) []byte {
	b = appendText(b, clip(r.Method, maxText))
	b = appendText(b, clip(r.URL, maxHeaderText))
	return appendHeaders(b, r.Headers)
}

func decodeRequest(key, val []byte) (*delivery.Request, error) {
	d, err := unseal(key, val)
	if err != nil {
		return nil, err
	}
	r := &delivery.Request{Method: d.str(), URL: d.str(), Headers: d.headers()}
	return r, d.end()
}

// requestHash names a template by its content; never 0, which means none.
func requestHash(fields []byte) uint64 {
	h := hashParts(string(fields))
	return max(binary.BigEndian.Uint64(h[:]), 1)
}
