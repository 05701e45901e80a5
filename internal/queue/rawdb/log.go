package rawdb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

const (
	logHead = 20 // bytes before the first entry of a log

	// Bits of an entry's meta byte (badger, value.go).
	bitDelete  = 1 << 0
	bitPointer = 1 << 1
	bitTxn     = 1 << 6
	bitFinTxn  = 1 << 7

	longestKey = 1 << 16
)

// logEntry is an entry of the log of a memtable or of a value log.
type logEntry struct {
	meta       byte
	key, value []byte
	length     int // of all of it
}

// parseEntry reads header, key, value, CRC-32C.
func parseEntry(b []byte) (e logEntry, ok bool) {
	if len(b) < 2 {
		return e, false
	}
	e.meta = b[0]
	at := 2
	var numbers [3]uint64 // lengths of key and value, expiry
	for i := range numbers {
		v, n := binary.Uvarint(b[at:])
		if n <= 0 {
			return e, false
		}
		numbers[i], at = v, at+n
	}
	klen, vlen := numbers[0], numbers[1]
	if klen == 0 || klen > longestKey || klen+vlen+crc32.Size > uint64(len(b)-at) {
		return e, false
	}
	end := at + int(klen+vlen)
	e.key, e.value, e.length = b[at:at+int(klen)], b[at+int(klen):end], end+crc32.Size
	return e, crc32.Checksum(b[:end], castagnoli()) == binary.BigEndian.Uint32(b[end:])
}

// memtable is what the log of a memtable has, sorted.
type memtable struct {
	rows   []row
	newest uint64
}

// openMemtable reads a log as Badger does: whole transactions, up to the first that is
// not. But what lies behind that one is damage and not the end, when there is another
// whole entry: each transaction was synced before the next began.
func openMemtable(d *DB, path string) (*memtable, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read memtable: %w", err)
	}
	m := &memtable{}
	data = data[:min(usedLen(data)+64, len(data))] // an entry may end with zeros
	if len(data) < logHead {
		return m, nil // a crash leaves that before the first entry
	}
	for at := logHead; at < len(data); {
		end := m.transactions(data, at)
		next := nextEntry(data, end, m.newest)
		if next < 0 {
			break
		}
		d.report(Problem{File: filepath.Base(path), What: fmt.Sprintf("bytes %d to %d cannot be read, others follow", end, next)})
		at = next
	}
	slices.Reverse(m.rows) // of equal ones the last counts
	slices.SortStableFunc(m.rows, func(a, b row) int { return compare(a.key, a.version, b.key, b.version) })
	return m, nil
}

// usedLen is the length without the zeros at the end, about: logs are made long.
func usedLen(data []byte) int {
	zeros := make([]byte, 16<<10)
	n := len(data)
	for n >= len(zeros) && bytes.Equal(data[n-len(zeros):n], zeros) {
		n -= len(zeros)
	}
	for n > 0 && data[n-1] == 0 {
		n--
	}
	return n
}

// transactions adds those that begin at a place to the rows, and returns where the
// last whole one ends.
func (m *memtable) transactions(data []byte, at int) (end int) {
	end = at
	var open []row
	var txn uint64
	for {
		e, ok := parseEntry(data[at:])
		if !ok {
			return end
		}
		at += e.length
		version := versionOf(e.key)
		switch {
		case e.meta&bitTxn != 0:
			if len(open) > 0 && version != txn {
				return end
			}
			txn = version
			open = append(open, rowOf(e.key, e.meta, e.value))
		case e.meta&bitFinTxn != 0:
			if number, err := strconv.ParseUint(string(e.value), 10, 64); err != nil || len(open) > 0 && number != txn {
				return end
			}
			m.take(open)
			open, end = nil, at
		default:
			m.take([]row{rowOf(e.key, e.meta, e.value)})
			end = at
		}
	}
}

func (m *memtable) take(rows []row) {
	for i := range rows {
		m.newest = max(m.newest, rows[i].version)
	}
	m.rows = append(m.rows, rows...)
}

// nextEntry finds a whole entry of a later transaction, -1 when there is none.
func nextEntry(data []byte, from int, newest uint64) int {
	for at := from + 1; at < len(data)-16; at++ {
		if data[at+2] == 0 || data[at]&(bitTxn|bitFinTxn) == 0 && data[at]&^(bitDelete|bitPointer) != 0 {
			continue
		}
		e, ok := parseEntry(data[at:])
		if ok && len(e.key) > versionLen && versionOf(e.key) > newest+1 {
			return at
		}
	}
	return -1
}

// pointer is what a row has in place of a value that is in the value log.
type pointer struct{ file, length, at uint32 }

func decodePointer(b []byte) (p pointer, ok bool) {
	if len(b) != 12 {
		return p, false
	}
	return pointer{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}, true
}

// unresolved says why a value cannot be read from the value log.
type unresolved struct {
	why     string // of the row
	problem Problem
}

// resolve reads a value from the value log.
func (d *DB) resolve(r *row) (value []byte, wrong *unresolved, err error) {
	p, ok := decodePointer(r.value)
	if !ok {
		return nil, &unresolved{why: "it does not say where its value is"}, nil
	}
	name := fmt.Sprintf("%06d.vlog", p.file)
	f := d.vlogs[p.file]
	if f == nil {
		return nil, &unresolved{"its value was in " + name + ", which is missing", Problem{File: name, What: "is missing; the values that it had are lost"}}, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("read value log: %w", err)
	}
	raw, err := readFull(f, int64(p.at), int64(p.length), info.Size())
	if err == nil {
		e, ok := parseEntry(raw)
		if (ok || d.Trusting && e.length > 0) && bytes.Equal(keyOf(e.key), r.key) {
			return e.value, nil, nil
		}
	} else if _, damaged := err.(*damage); !damaged {
		return nil, nil, err
	}
	return nil, &unresolved{fmt.Sprintf("its value in %s, at byte %d, cannot be read", name, p.at),
		Problem{File: name, What: fmt.Sprintf("bytes %d to %d cannot be read", p.at, uint64(p.at)+uint64(p.length)), From: r.key, To: r.key}}, nil
}
