package queue

import "encoding/binary"

func (l laneLife) append(b, key []byte) []byte {
	start := len(b)
	b = append(b, valueVersion, flags(l.removed, l.returned))
	b = append(b, l.identity[:]...)
	b = binary.AppendVarint(b, l.at)
	b = binary.AppendVarint(b, l.wall)
	return seal(b, start, key)
}

func decodeLaneLife(key, val []byte) (l laneLife, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return l, err
	}
	f := d.byte()
	l.removed, l.returned = f&1 != 0, f&2 != 0
	copy(l.identity[:], d.fixed(len(l.identity)))
	l.at = d.varint()
	l.wall = d.varint()
	return l, d.end()
}
