package sinkpb

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The functions whose names begin with size give the bytes that those which begin with
// append add. They return false for what is left to protobuf's own encoder: unknown
// fields, which travel on, texts that are not UTF-8, which it refuses, and a part that
// is nil. Measuring leaves the size of a part in its sizeCache, which is there for that.
// All fields have numbers below 16: a tag is one byte.

const tagSize = 1

// sizer adds up sizes, and notes what cannot be encoded here.
type sizer struct {
	n     int
	wrong bool
}

func (z *sizer) text(s string) {
	if s != "" {
		z.n += tagSize + protowire.SizeBytes(len(s))
		z.wrong = z.wrong || !utf8.ValidString(s)
	}
}

func (z *sizer) bytes(n int) {
	if n > 0 {
		z.part(n)
	}
}

// part adds a message, which also travels when it is empty.
func (z *sizer) part(n int) { z.n += tagSize + protowire.SizeBytes(n) }

func (z *sizer) number(v uint64) {
	if v != 0 {
		z.n += tagSize + protowire.SizeVarint(v)
	}
}

// unknown notes fields of a newer contract.
func (z *sizer) unknown(fields []byte) { z.wrong = z.wrong || len(fields) > 0 }

// moment is the size of a timestamp or a duration.
func (z *sizer) moment(m proto.Message, seconds int64, nanos int32) {
	z.unknown(m.ProtoReflect().GetUnknown())
	z.part(sizeMoment(seconds, nanos))
}

func sizeMoment(seconds int64, nanos int32) int {
	var z sizer
	z.number(uint64(seconds))
	z.number(uint64(nanos))
	return z.n
}

func sizeRequest(m *DeliverRequest) (n int, ok bool) {
	var z sizer
	z.unknown(m.unknownFields)
	z.text(m.Instance)
	for _, d := range m.Deliveries {
		if d == nil {
			return 0, false
		}
		d.sizeCache = z.add(sizeDelivery(d))
	}
	return z.n, !z.wrong
}

func sizeDelivery(d *Delivery) (z sizer) {
	z.unknown(d.unknownFields)
	z.text(d.Id)
	z.text(d.Webhook)
	z.text(d.EventId)
	z.text(d.Event)
	if t := d.Timestamp; t != nil {
		z.moment(t, t.Seconds, t.Nanos)
	}
	if h := d.Helper; h != nil {
		var part sizer
		part.unknown(h.unknownFields)
		part.text(h.Id)
		part.text(h.Name)
		part.text(h.Command)
		h.sizeCache = z.add(part)
	}
	if e := d.Entry; e != nil {
		e.sizeCache = z.add(sizeEntry(e))
	}
	if u := d.User; u != nil {
		var part sizer
		part.unknown(u.unknownFields)
		part.text(u.Id)
		u.sizeCache = z.add(part)
	}
	z.number(uint64(d.Attempt))
	z.bytes(len(d.Payload))
	for name, value := range d.Headers {
		z.wrong = z.wrong || !utf8.ValidString(name) || !utf8.ValidString(value)
		z.part(sizeHeader(name, value))
	}
	z.bytes(len(d.State))
	z.number(d.Sequence)
	if d.Test {
		z.number(1)
	}
	return z
}

// add adds a message and returns its size.
func (z *sizer) add(part sizer) int32 {
	z.wrong = z.wrong || part.wrong || part.n > math.MaxInt32
	z.part(part.n)
	return int32(part.n)
}

func sizeEntry(e *Entry) (z sizer) {
	z.unknown(e.unknownFields)
	z.text(e.Id)
	if t := e.CreatedAt; t != nil {
		z.moment(t, t.Seconds, t.Nanos)
	}
	z.bytes(len(e.DataJson))
	return z
}

// sizeHeader is of an entry of a map, whose texts travel when they are empty, too.
func sizeHeader(name, value string) int {
	return 2*tagSize + protowire.SizeBytes(len(name)) + protowire.SizeBytes(len(value))
}

func appendText(b []byte, field byte, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(append(b, field<<3|text), s)
}

func appendBytes(b []byte, field byte, s []byte) []byte {
	if len(s) == 0 {
		return b
	}
	return protowire.AppendBytes(append(b, field<<3|text), s)
}

func appendNumber(b []byte, field byte, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, field<<3|number), v)
}

// appendPart begins a message of so many bytes.
func appendPart(b []byte, field byte, size int) []byte {
	return protowire.AppendVarint(append(b, field<<3|text), uint64(size))
}

func appendMoment(b []byte, field byte, seconds int64, nanos int32) []byte {
	b = appendPart(b, field, sizeMoment(seconds, nanos))
	b = appendNumber(b, 1, uint64(seconds))
	return appendNumber(b, 2, uint64(nanos))
}

func appendTime(b []byte, field byte, t *timestamppb.Timestamp) []byte {
	if t == nil {
		return b
	}
	return appendMoment(b, field, t.Seconds, t.Nanos)
}

func appendRequest(b []byte, m *DeliverRequest) []byte {
	b = appendText(b, 1, m.Instance)
	for _, d := range m.Deliveries {
		b = appendDelivery(appendPart(b, 2, int(d.sizeCache)), d)
	}
	return b
}

func appendDelivery(b []byte, d *Delivery) []byte {
	b = appendText(b, 1, d.Id)
	b = appendText(b, 2, d.Webhook)
	b = appendText(b, 3, d.EventId)
	b = appendText(b, 4, d.Event)
	b = appendTime(b, 5, d.Timestamp)
	if h := d.Helper; h != nil {
		b = appendPart(b, 6, int(h.sizeCache))
		b = appendText(b, 1, h.Id)
		b = appendText(b, 2, h.Name)
		b = appendText(b, 3, h.Command)
	}
	if e := d.Entry; e != nil {
		b = appendPart(b, 7, int(e.sizeCache))
		b = appendText(b, 1, e.Id)
		b = appendTime(b, 2, e.CreatedAt)
		b = appendBytes(b, 3, e.DataJson)
	}
	if u := d.User; u != nil {
		b = appendText(appendPart(b, 8, int(u.sizeCache)), 1, u.Id)
	}
	b = appendNumber(b, 9, uint64(d.Attempt))
	b = appendBytes(b, 10, d.Payload)
	for name, value := range d.Headers {
		b = appendPart(b, 11, sizeHeader(name, value))
		b = protowire.AppendString(append(b, 1<<3|text), name)
		b = protowire.AppendString(append(b, 2<<3|text), value)
	}
	b = appendBytes(b, 12, d.State)
	b = appendNumber(b, 13, d.Sequence)
	if d.Test {
		b = appendNumber(b, 14, 1)
	}
	return b
}

func sizeResponse(m *DeliverResponse) (n int, ok bool) {
	var z sizer
	z.unknown(m.unknownFields)
	for _, r := range m.Results {
		if r == nil {
			return 0, false
		}
		r.sizeCache = z.add(sizeResult(r))
	}
	return z.n, !z.wrong
}

func sizeResult(r *Result) (z sizer) {
	z.unknown(r.unknownFields)
	z.text(r.DeliveryId)
	z.number(uint64(r.Outcome))
	z.text(r.Code)
	z.text(r.Message)
	if d := r.RetryAfter; d != nil {
		z.moment(d, d.Seconds, d.Nanos)
	}
	z.bytes(len(r.State))
	z.text(r.RemoteUrl)
	z.number(uint64(r.StatusCode))
	return z
}

func appendResponse(b []byte, m *DeliverResponse) []byte {
	for _, r := range m.Results {
		b = appendResult(appendPart(b, 1, int(r.sizeCache)), r)
	}
	return b
}

func appendResult(b []byte, r *Result) []byte {
	b = appendText(b, 1, r.DeliveryId)
	b = appendNumber(b, 2, uint64(r.Outcome))
	b = appendText(b, 3, r.Code)
	b = appendText(b, 4, r.Message)
	if d := r.RetryAfter; d != nil {
		b = appendMoment(b, 5, d.Seconds, d.Nanos)
	}
	b = appendBytes(b, 6, r.State)
	b = appendText(b, 7, r.RemoteUrl)
	return appendNumber(b, 8, uint64(r.StatusCode))
}
