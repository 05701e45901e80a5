// Package id forms and reads the identifiers that a store gives out.
//
// Guarantee: an id is unique among all stores (its first part is the store's
// random number, so that a wiped or a second server never repeats an id that a
// receiver remembers), sorts in the order of acceptance within one store, and
// is safe in a URL path, a header and a file name.
//
//	evt_ <store 8> <sequence 13>
//	del_ <store 8> <lane 7> <sequence 13>
//
// Each part is a big-endian number in Crockford's base 32 in lower case
// (https://www.crockford.com/base32.html), zero padded.
package id

import "strings"

const (
	alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

	storeLen = 8  // 40 bits
	laneLen  = 7  // 32 bits in 35
	seqLen   = 13 // 64 bits in 65

	eventPrefix    = "evt_"
	deliveryPrefix = "del_"

	// EventLen is the length in bytes of every generated event id.
	EventLen = len(eventPrefix) + storeLen + seqLen
	// DeliveryLen is the length in bytes of every delivery id.
	DeliveryLen = len(deliveryPrefix) + storeLen + laneLen + seqLen
)

// StoreBits is how many random bits name a store.
const StoreBits = 40

// AppendEvent appends the generated id of the event with sequence number seq.
func AppendEvent(dst []byte, store, seq uint64) []byte {
	dst = append(dst, eventPrefix...)
	dst = appendPart(dst, store, storeLen)
	return appendPart(dst, seq, seqLen)
}

// Event is AppendEvent as a string.
func Event(store, seq uint64) string {
	return string(AppendEvent(make([]byte, 0, EventLen), store, seq))
}

// Delivery is the id of the delivery of event seq on a lane.
func Delivery(store uint64, lane uint32, seq uint64) string {
	dst := append(make([]byte, 0, DeliveryLen), deliveryPrefix...)
	dst = appendPart(dst, store, storeLen)
	dst = appendPart(dst, uint64(lane), laneLen)
	return string(appendPart(dst, seq, seqLen))
}

// ParseEvent reads a generated event id; ok is false for any other text.
func ParseEvent(s string) (store, seq uint64, ok bool) {
	rest, found := strings.CutPrefix(s, eventPrefix)
	if !found || len(rest) != storeLen+seqLen {
		return 0, 0, false
	}
	store, ok1 := parsePart(rest[:storeLen])
	seq, ok2 := parsePart(rest[storeLen:])
	return store, seq, ok1 && ok2
}

// ParseDelivery reads a delivery id; ok is false for any other text.
func ParseDelivery(s string) (store uint64, lane uint32, seq uint64, ok bool) {
	rest, found := strings.CutPrefix(s, deliveryPrefix)
	if !found || len(rest) != storeLen+laneLen+seqLen {
		return 0, 0, 0, false
	}
	store, ok1 := parsePart(rest[:storeLen])
	l, ok2 := parsePart(rest[storeLen : storeLen+laneLen])
	seq, ok3 := parsePart(rest[storeLen+laneLen:])
	return store, uint32(l), seq, ok1 && ok2 && ok3 && l <= 1<<32-1
}

func appendPart(dst []byte, v uint64, n int) []byte {
	for i := n - 1; i >= 0; i-- {
		shift := 5 * i
		var digit uint64
		if shift < 64 {
			digit = v >> shift & 31
		}
		dst = append(dst, alphabet[digit])
	}
	return dst
}

func parsePart(s string) (v uint64, ok bool) {
	for i := range len(s) {
		d := strings.IndexByte(alphabet, s[i])
		if d < 0 || v > 1<<59-1 {
			return 0, false
		}
		v = v<<5 | uint64(d)
	}
	return v, true
}
