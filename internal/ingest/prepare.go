package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// item is one event on its way to the store, or the reason why it is refused.
// Items are used again and again; only what the store keeps is allocated for
// each event.
type item struct {
	ev      queue.Event
	helper  *Helper
	line    int64 // of a stream; 0 otherwise
	failure *failure

	// Backing for ev's slices. ev's own may belong to the store after a repeat.
	deliveries []queue.NewDelivery
	skipped    []queue.Skip
}

func (it *item) reset(line int64) {
	it.ev = queue.Event{}
	it.helper, it.failure, it.line = nil, nil, line
	it.deliveries, it.skipped = it.deliveries[:0], it.skipped[:0]
}

// unset stands for a time that the sender left out. Nothing that it can send
// reads as this: package event refuses years beyond 9999.
func unset() time.Time { return time.Date(20000, time.January, 1, 0, 0, 0, 0, time.UTC) }

// prepare makes the queue's event of one body, or sets it.failure. key is the
// Idempotency-Key header's; scratch is lent and comes back grown.
func (s *Server) prepare(it *item, body []byte, key string, scratch []byte) []byte {
	catalog := s.o.Catalog()
	in, err := event.Read(body, unset(), catalog)
	if err != nil {
		it.failure = ofEvent(err)
		return scratch
	}
	h := catalog.Helpers[in.HelperID]
	if key != "" && in.ID != "" && key != in.ID {
		it.failure = fail(http.StatusUnprocessableEntity, CodeKeyMismatch,
			"id is %q and the Idempotency-Key header is %q; send one of them, or both alike", in.ID, key).of("id")
		return scratch
	}
	if key == "" {
		key = in.ID
	}
	it.helper = h
	it.ev = queue.Event{ID: in.ID, IdempotencyKey: key, Helper: h.ID, Type: in.Type, EntryID: in.EntryID, Unstable: in.Unstable}
	if key != "" {
		it.ev.BodyHash, scratch = meaning(in, scratch)
	}
	now := s.o.Now().UTC().Truncate(time.Millisecond)
	if in.Timestamp.Equal(unset()) {
		in.Timestamp = now
	}
	if in.CreatedAt.Equal(unset()) {
		in.CreatedAt = now
	}
	it.ev.Timestamp = in.Timestamp
	return it.match(in, scratch)
}

// match decides for each webhook of the helper whether the event goes there,
// and encodes each payload that is needed once.
func (it *item) match(in *event.Input, scratch []byte) []byte {
	for i := range it.helper.Webhooks {
		w := &it.helper.Webhooks[i]
		if reason := delivery.Skip(w.Enabled, w.Events, in.Type); reason != 0 {
			it.skipped = append(it.skipped, queue.Skip{Lane: w.Lane, Reason: reason})
			continue
		}
		it.deliveries = append(it.deliveries, queue.NewDelivery{Lane: w.Lane, Format: queue.Format(w.Format)})
		if payload := &it.ev.Payloads[w.Format]; *payload == nil {
			var idAt int
			scratch, idAt = event.Encode(scratch[:0], in, &it.helper.Helper, w.Format, in.ID)
			// The store keeps it as long as the delivery lives: no byte too many.
			*payload = bytes.Clone(scratch)
			if w.Format == event.FormatEvent {
				it.ev.IDAt = idAt
			}
		}
	}
	it.ev.Deliveries, it.ev.Skipped = it.deliveries, it.skipped
	return scratch
}

// meaning condenses what an event says, so that a repeat can be told from
// another event under the same id. It covers everything that the sender decides
// but the id, in canonical form: white space, the order of the envelope's keys and
// the spelling of numbers and escapes do not matter, nor whether the event came
// alone or in a stream. A time that was left out counts as left out, so that the
// repeat of an event without a timestamp, a second later, is a repeat. What the
// configuration adds (the helper's name and command, declared fields) is not
// covered: a reload between the two makes no conflict.
//
// SHA-256 cut to 128 bits (NIST SP 800-107, section 5.1): it is kept for a day on
// disk, so a hash seeded per process would not do, and two events must not
// collide even when somebody tries.
func meaning(in *event.Input, scratch []byte) (sum [16]byte, grown []byte) {
	b := scratch[:0]
	for _, part := range [...]string{in.Type, in.HelperID, in.EntryID, in.UserID} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	has := byte(0)
	if in.HasUser {
		has = 1
	}
	b = append(b, has)
	b = binary.LittleEndian.AppendUint64(b, uint64(in.Timestamp.UnixMilli()))
	b = binary.LittleEndian.AppendUint64(b, uint64(in.CreatedAt.UnixMilli()))
	b = append(b, in.Data...)
	full := sha256.Sum256(b)
	copy(sum[:], full[:])
	return sum, b
}

// idempotencyKey reads the Idempotency-Key header, "" if there is none: a quoted
// string (draft-ietf-httpapi-idempotency-key-header, section 2.1, which is a
// string of RFC 8941, section 3.3.3), or the bare key as most clients send it.
func idempotencyKey(h http.Header) (string, *failure) {
	values := h["Idempotency-Key"]
	if len(values) == 0 {
		return "", nil
	}
	bad := func(why string) (string, *failure) {
		return "", fail(http.StatusBadRequest, CodeBadKey, "Idempotency-Key header %s", why).of("Idempotency-Key")
	}
	if len(values) > 1 {
		return bad("is there more than once")
	}
	key := strings.Trim(values[0], " \t")
	if strings.HasPrefix(key, `"`) {
		inner, ok := strings.CutSuffix(key[1:], `"`)
		if ok {
			inner, ok = unescape(inner)
		}
		if !ok {
			return bad("begins with a quote but is not a quoted string")
		}
		key = inner
	}
	if !event.ValidID(key) {
		return bad("must be 1 to 255 printable ASCII characters without spaces")
	}
	return key, nil
}

// unescape undoes the two escapes of a structured string.
func unescape(s string) (string, bool) {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return "", false
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		out.WriteByte(s[i])
	}
	return out.String(), true
}
