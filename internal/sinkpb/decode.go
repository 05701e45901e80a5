package sinkpb

import (
	"bytes"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The functions of this file return false for everything that is not as this contract
// has it: the caller starts again with protobuf's own decoder. What they accept they
// decode as that one does.

// A tag is the number of a field and one of these.
const (
	number = byte(protowire.VarintType)
	text   = byte(protowire.BytesType)
)

// field is one field: its tag, and its value as a number or as bytes.
type field struct {
	tag byte
	v   uint64
	s   []byte
}

// next takes the first field off b, which is not empty.
func next(b []byte) (f field, rest []byte, ok bool) {
	f.tag = b[0]
	if f.tag >= 0x80 {
		return f, nil, false
	}
	v, n := protowire.ConsumeVarint(b[1:])
	if n < 0 {
		return f, nil, false
	}
	f.v, rest = v, b[1+n:]
	switch f.tag & 7 {
	case number:
		return f, rest, true
	case text:
		if v > uint64(len(rest)) {
			return f, nil, false
		}
		f.s = rest[:v:v]
		return f, rest[v:], true
	}
	return f, nil, false
}

// each gives take every field of b, until it does not take one.
func each(b []byte, take func(f field) bool) bool {
	for len(b) > 0 {
		f, rest, ok := next(b)
		if !ok || !take(f) {
			return false
		}
		b = rest
	}
	return true
}

// count is how many times tag is among the fields of b.
func count(b []byte, tag byte) (n int, ok bool) {
	ok = each(b, func(f field) bool {
		if f.tag == tag {
			n++
		}
		return true
	})
	return n, ok
}

// parcel is everything of one delivery, in one piece.
type parcel struct {
	delivery        Delivery
	helper          Helper
	entry           Entry
	user            User
	timestamp, made timestamppb.Timestamp
}

func decodeRequest(b []byte, m *DeliverRequest) bool {
	n, ok := count(b, 2<<3|text)
	if !ok {
		return false
	}
	parcels := make([]parcel, n)
	if n > 0 {
		m.Deliveries = make([]*Delivery, 0, n)
	}
	return each(b, func(f field) bool {
		switch f.tag {
		case 1<<3 | text:
			return texts{}.of(f.s, &m.Instance)
		case 2<<3 | text:
			to := &parcels[len(m.Deliveries)]
			m.Deliveries = append(m.Deliveries, &to.delivery)
			return decodeDelivery(f.s, to)
		}
		return false
	})
}

// largeDelivery is from what size on, in bytes, a text of a delivery has memory of its
// own: who keeps an id should not keep a large payload with it.
const largeDelivery = 4 << 10

// texts makes strings of parts of one delivery.
type texts struct{ shared bool }

// of is s as a string. Where it is shared nobody writes to s: it is a part of a copy that
// belongs to this delivery, and no field of bytes is made of the same part.
func (t texts) of(s []byte, to *string) (ok bool) {
	if !utf8.Valid(s) {
		return false
	}
	if t.shared && len(s) > 0 {
		*to = unsafe.String(unsafe.SliceData(s), len(s))
	} else {
		*to = string(s)
	}
	return true
}

func decodeDelivery(b []byte, m *parcel) (ok bool) {
	d, t := &m.delivery, texts{len(b) < largeDelivery}
	b = bytes.Clone(b) // what was received is used again
	return each(b, func(f field) (ok bool) {
		ok = true
		switch f.tag {
		case 1<<3 | text:
			ok = t.of(f.s, &d.Id)
		case 2<<3 | text:
			ok = t.of(f.s, &d.Webhook)
		case 3<<3 | text:
			ok = t.of(f.s, &d.EventId)
		case 4<<3 | text:
			ok = t.of(f.s, &d.Event)
		case 5<<3 | text:
			ok = d.Timestamp == nil && decodeTime(f.s, &m.timestamp)
			d.Timestamp = &m.timestamp
		case 6<<3 | text:
			ok = d.Helper == nil && decodeHelper(f.s, &m.helper, t)
			d.Helper = &m.helper
		case 7<<3 | text:
			ok = d.Entry == nil && decodeEntry(f.s, m, t)
			d.Entry = &m.entry
		case 8<<3 | text:
			ok = d.User == nil && decodeUser(f.s, &m.user, t)
			d.User = &m.user
		case 9<<3 | number:
			d.Attempt = uint32(f.v)
		case 10<<3 | text:
			d.Payload = f.s
		case 11<<3 | text:
			ok = decodeHeader(f.s, d, t)
		case 12<<3 | text:
			d.State = f.s
		case 13<<3 | number:
			d.Sequence = f.v
		case 14<<3 | number:
			d.Test = f.v != 0
		default:
			return false
		}
		return ok
	})
}

func decodeTime(b []byte, m *timestamppb.Timestamp) bool {
	return decodeMoment(b, &m.Seconds, &m.Nanos)
}

// decodeMoment is for timestamps and durations, which look the same.
func decodeMoment(b []byte, seconds *int64, nanos *int32) bool {
	return each(b, func(f field) bool {
		switch f.tag {
		case 1<<3 | number:
			*seconds = int64(f.v)
		case 2<<3 | number:
			*nanos = int32(f.v)
		default:
			return false
		}
		return true
	})
}

func decodeHelper(b []byte, m *Helper, t texts) bool {
	return each(b, func(f field) bool {
		switch f.tag {
		case 1<<3 | text:
			return t.of(f.s, &m.Id)
		case 2<<3 | text:
			return t.of(f.s, &m.Name)
		case 3<<3 | text:
			return t.of(f.s, &m.Command)
		}
		return false
	})
}

func decodeEntry(b []byte, m *parcel, t texts) bool {
	return each(b, func(f field) (ok bool) {
		ok = true
		switch f.tag {
		case 1<<3 | text:
			ok = t.of(f.s, &m.entry.Id)
		case 2<<3 | text:
			ok = m.entry.CreatedAt == nil && decodeTime(f.s, &m.made)
			m.entry.CreatedAt = &m.made
		case 3<<3 | text:
			m.entry.DataJson = f.s
		default:
			return false
		}
		return ok
	})
}

func decodeUser(b []byte, m *User, t texts) bool {
	return each(b, func(f field) bool { return f.tag == 1<<3|text && t.of(f.s, &m.Id) })
}

func decodeHeader(b []byte, d *Delivery, t texts) bool {
	var name, value string
	ok := each(b, func(f field) bool {
		switch f.tag {
		case 1<<3 | text:
			return t.of(f.s, &name)
		case 2<<3 | text:
			return t.of(f.s, &value)
		}
		return false
	})
	if !ok {
		return false
	}
	if d.Headers == nil {
		d.Headers = make(map[string]string)
	}
	d.Headers[name] = value
	return true
}

func decodeResponse(b []byte, m *DeliverResponse) bool {
	n, ok := count(b, 1<<3|text)
	if !ok {
		return false
	}
	results := make([]Result, n)
	if n > 0 {
		m.Results = make([]*Result, 0, n)
	}
	return each(b, func(f field) bool {
		if f.tag != 1<<3|text {
			return false
		}
		r := &results[len(m.Results)]
		m.Results = append(m.Results, r)
		return decodeResult(f.s, r)
	})
}

func decodeResult(b []byte, m *Result) bool {
	var t texts // not shared: a few of them are kept for long, such as a message
	return each(b, func(f field) (ok bool) {
		ok = true
		switch f.tag {
		case 1<<3 | text:
			ok = t.of(f.s, &m.DeliveryId)
		case 2<<3 | number:
			m.Outcome = Outcome(f.v)
		case 3<<3 | text:
			ok = t.of(f.s, &m.Code)
		case 4<<3 | text:
			ok = t.of(f.s, &m.Message)
		case 5<<3 | text:
			ok = m.RetryAfter == nil
			m.RetryAfter = new(durationpb.Duration)
			ok = ok && decodeMoment(f.s, &m.RetryAfter.Seconds, &m.RetryAfter.Nanos)
		case 6<<3 | text:
			m.State = bytes.Clone(f.s)
		case 7<<3 | text:
			ok = t.of(f.s, &m.RemoteUrl)
		case 8<<3 | number:
			m.StatusCode = uint32(f.v)
		default:
			return false
		}
		return ok
	})
}
