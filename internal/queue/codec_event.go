package queue

import (
	"encoding/binary"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// appendEvent makes the value of an e row. An id that the store generated is
// not stored: it follows from the store's number and the sequence number.
func appendEvent(b, key []byte, r *EventRecord, ownID bool) []byte {
	start := len(b)
	b = append(b, valueVersion, flags(r.Unstable, ownID))
	if ownID {
		b = appendText(b, r.ID)
	}
	b = appendText(b, r.Helper)
	b = appendText(b, r.Type)
	b = appendText(b, r.EntryID)
	b = binary.AppendVarint(b, r.Timestamp.UnixMicro())
	b = binary.AppendVarint(b, r.Accepted.UnixMilli())
	b = appendTargets(b, r.Deliveries, r.Skipped)
	for _, p := range r.Payloads {
		if p == nil {
			b = append(b, 0)
			continue
		}
		b = appendText(append(b, 1), p)
	}
	return seal(b, start, key)
}

// decodeEvent reads an e row. The payloads share memory with val.
func decodeEvent(key, val []byte, store, seq uint64) (r EventRecord, ownID bool, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return r, false, err
	}
	f := d.byte()
	r.Seq = seq
	r.Unstable, ownID = f&1 != 0, f&2 != 0
	if ownID {
		r.ID = d.str()
	} else {
		r.ID = id.Event(store, seq)
	}
	r.Helper = d.str()
	r.Type = d.str()
	r.EntryID = d.str()
	r.Timestamp = time.UnixMicro(d.varint()).UTC()
	r.Accepted = time.UnixMilli(d.varint()).UTC()
	r.Deliveries, r.Skipped = d.targets()
	for i := range r.Payloads {
		if d.byte() != 0 {
			r.Payloads[i] = d.bytes()
		}
	}
	return r, ownID, d.end()
}

func appendTargets(b []byte, ds []NewDelivery, skips []Skip) []byte {
	b = appendNumber(b, len(ds))
	for _, nd := range ds {
		b = append(binary.AppendUvarint(b, uint64(nd.Lane)), byte(nd.Format))
	}
	b = appendNumber(b, len(skips))
	for _, s := range skips {
		b = append(binary.AppendUvarint(b, uint64(s.Lane)), byte(s.Reason))
	}
	return b
}

func (d *decoder) lane() Lane {
	v := d.uvarint()
	if v > 1<<32-1 {
		d.fail()
		return 0
	}
	return Lane(v)
}

func (d *decoder) targets() (ds []NewDelivery, skips []Skip) {
	if n := d.count(); n > 0 {
		ds = make([]NewDelivery, 0, n)
		for range n {
			ds = append(ds, NewDelivery{Lane: d.lane(), Format: d.format()})
		}
	}
	if n := d.count(); n > 0 {
		skips = make([]Skip, 0, n)
		for range n {
			skips = append(skips, Skip{Lane: d.lane(), Reason: delivery.SkipReason(d.byte())})
		}
	}
	return ds, skips
}

// repeatRow is the value of an i row: the whole answer to a repeat, so that it
// does not depend on what retention left of the event.
type repeatRow struct {
	bodyHash   [16]byte
	at         int64 // relay time, ms
	seq        uint64
	ownID      string // "" = generated
	deliveries []NewDelivery
	skipped    []Skip
}

func (r *repeatRow) append(b, key []byte) []byte {
	start := len(b)
	b = append(append(b, valueVersion), r.bodyHash[:]...)
	b = binary.AppendVarint(b, r.at)
	b = binary.AppendUvarint(b, r.seq)
	b = appendText(b, r.ownID)
	b = appendTargets(b, r.deliveries, r.skipped)
	return seal(b, start, key)
}

func decodeRepeat(key, val []byte) (r repeatRow, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return r, err
	}
	copy(r.bodyHash[:], d.fixed(len(r.bodyHash)))
	r.at = d.varint()
	r.seq = d.uvarint()
	r.ownID = d.str()
	r.deliveries, r.skipped = d.targets()
	return r, d.end()
}
