package queue

import "encoding/binary"

// line is the value of an o row without a sequence number: the deliveries of an
// entry that wait for one of them, the head. A lane has it only as long as
// there is something to wait for.
type line struct {
	head uint64 // pending: ready, waiting or returning
	from uint64 // no follower has a smaller sequence number
	n    int64  // followers
}

func (l line) append(b, key []byte) []byte {
	start := len(b)
	b = binary.AppendUvarint(append(b, valueVersion), l.head)
	b = binary.AppendUvarint(b, l.from)
	return seal(binary.AppendVarint(b, l.n), start, key)
}

func decodeLine(key, val []byte) (l line, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return l, err
	}
	l.head = d.uvarint()
	l.from = d.uvarint()
	l.n = d.varint()
	return l, d.end()
}
