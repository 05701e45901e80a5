package queue

import (
	"encoding/binary"
	"hash/crc32"
)

// valueVersion starts every value. A reader that meets a higher one reports
// damage; the format number in FORMAT keeps that from happening.
const valueVersion = 1

// castagnoli is CRC-32C, which amd64 and arm64 compute in hardware.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// damageError says why a row cannot be believed. It never leaves the package:
// the row is quarantined instead.
type damageError struct{ reason string }

func (e *damageError) Error() string { return e.reason }

// seal ends the value that begins at b[start] with a checksum over its key and
// itself: a value under another row's key is damage too.
func seal(b []byte, start int, key []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli()), castagnoli(), b[start:])
	return binary.BigEndian.AppendUint32(b, sum)
}

// unseal checks version and checksum and returns a decoder of the fields.
func unseal(key, val []byte) (decoder, error) {
	if len(val) < 1+crc32.Size {
		return decoder{}, &damageError{"value is empty or cut short"}
	}
	body, tail := val[:len(val)-crc32.Size], val[len(val)-crc32.Size:]
	sum := crc32.Update(crc32.Checksum(key, castagnoli()), castagnoli(), body)
	if sum != binary.BigEndian.Uint32(tail) {
		return decoder{}, &damageError{"checksum does not match"}
	}
	if body[0] != valueVersion {
		return decoder{}, &damageError{"value is of an unknown version"}
	}
	return decoder{b: body[1:]}, nil
}

// decoder reads fields in order. After the first that does not fit every read
// gives zero and err says so; no input makes it panic or allocate more than
// the input's own length.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() {
	d.bad = true
	d.b = nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) number() int {
	v := d.uvarint()
	if v > 1<<31-1 {
		d.fail()
		return 0
	}
	return int(v)
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

// fixed returns the next n bytes, which share memory with the input.
func (d *decoder) fixed(n int) []byte {
	if n < 0 || len(d.b) < n {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u16() uint16 {
	if v := d.fixed(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if v := d.fixed(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// bytes returns a counted field, which shares memory with the input.
func (d *decoder) bytes() []byte { return d.fixed(d.number()) }

func (d *decoder) str() string { return string(d.bytes()) }

// count reads the length of a list whose elements take at least one byte each.
func (d *decoder) count() int {
	n := d.number()
	if n > len(d.b) {
		d.fail()
		return 0
	}
	return n
}

// end reports whether the fields filled the value exactly.
func (d *decoder) end() error {
	if d.bad || len(d.b) != 0 {
		return &damageError{"fields do not fit the value"}
	}
	return nil
}

func appendNumber(b []byte, v int) []byte { return binary.AppendUvarint(b, uint64(max(v, 0))) }

func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(appendNumber(b, len(s)), s...)
}

// clip shortens text from outside to at most n bytes.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

func appendRef(b []byte, ref payloadRef) []byte {
	return binary.BigEndian.AppendUint16(append(b, ref.class), ref.day)
}

func (d *decoder) ref() payloadRef { return payloadRef{class: d.byte(), day: d.u16()} }

func flags(bits ...bool) (f byte) {
	for i, on := range bits {
		if on {
			f |= 1 << i
		}
	}
	return f
}
