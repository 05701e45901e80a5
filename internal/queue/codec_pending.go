package queue

import "encoding/binary"

// maxErrorText bounds the last attempt's error in a waiting row, which only
// listings show; the attempt's own row has it in full.
const maxErrorText = 200

// pendingRow is the value of r, w and p rows. What came later follows the other
// fields, where a flag says that it is there: a row of format 1 is read as it is.
type pendingRow struct {
	format   Format
	replay   bool
	ref      payloadRef
	attempts int
	tries    int
	crashes  int
	charge   uint32
	accepted int64 // wall clock, ms
	status   int   // of the last attempt, for listings
	code     string
	errText  string
}

func (p *pendingRow) append(b, key []byte) []byte {
	start := len(b)
	b = append(b, valueVersion, byte(p.format), flags(p.replay, p.crashes > 0))
	b = appendRef(b, p.ref)
	b = appendNumber(b, p.attempts)
	b = appendNumber(b, p.tries)
	b = binary.AppendUvarint(b, uint64(p.charge))
	b = binary.AppendVarint(b, p.accepted)
	b = appendNumber(b, p.status)
	b = appendText(b, p.code)
	b = appendText(b, clip(p.errText, maxErrorText))
	if p.crashes > 0 {
		b = appendNumber(b, p.crashes)
	}
	return seal(b, start, key)
}

func decodePending(key, val []byte) (p pendingRow, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return p, err
	}
	p.format = d.format()
	f := d.byte()
	p.replay = f&1 != 0
	p.ref = d.ref()
	p.attempts = d.number()
	p.tries = d.number()
	p.charge = uint32(d.number())
	p.accepted = d.varint()
	p.status = d.number()
	p.code = d.str()
	p.errText = d.str()
	if f&2 != 0 {
		p.crashes = d.number()
	}
	return p, d.end()
}

func (d *decoder) format() Format {
	f := Format(d.byte())
	if f >= numFormats {
		d.fail()
		return 0
	}
	return f
}

// appendDue makes the value of a d row.
func appendDue(b, key []byte, due int64) []byte {
	start := len(b)
	b = binary.AppendVarint(append(b, valueVersion), due)
	return seal(b, start, key)
}

func decodeDue(key, val []byte) (due int64, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return 0, err
	}
	due = d.varint()
	return due, d.end()
}
