package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

// Record is a record that [Salvage] could read.
type Record struct {
	Number  uint64
	Content []byte
}

// Salvage reads what can be read of a journal, whatever happened to the file, and
// changes nothing. The records ascend; those that the database has long had may be
// among them. damage says what is wrong with the file as a whole, "" = nothing; whether
// a record is missing only its owner can tell. store is 0 when it is not known, and then
// what the file says; it stays 0 when that is not readable. A missing file is
// fs.ErrNotExist.
func Salvage(path string, store uint64) (records []Record, of uint64, damage string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, store, "", fmt.Errorf("read journal: %w", err)
	}
	defer f.Close()
	// A journal has one size; a file that became larger has nothing of ours behind it.
	const most = 64 << 20
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, store, "", fmt.Errorf("read journal: %w", err)
	}
	nonce, of, damage, foreign := salvageHead(data, store)
	if foreign {
		return nil, of, damage, nil
	}
	for at := BlockSize; at+HeaderSize <= len(data); at += BlockSize {
		record, ok := salvageRecord(data[at:], nonce)
		if !ok {
			continue
		}
		if nonce == nil { // the first that is whole; no sender can have put one before it
			nonce = record[16:HeaderSize]
		}
		records = append(records, Record{binary.BigEndian.Uint64(record[8:]), record[HeaderSize:]})
	}
	slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.Number, b.Number) })
	return records, of, damage, nil
}

// salvageHead returns the random number of the file, nil when it is not readable.
func salvageHead(data []byte, store uint64) (nonce []byte, of uint64, damage string, foreign bool) {
	if len(data) < fileHead || !bytes.HasPrefix(data, []byte(title)) ||
		crc32.Checksum(data[:fileHead-4], castagnoli()) != binary.BigEndian.Uint32(data[fileHead-4:]) {
		return nil, store, "its first block is damaged", false
	}
	at := len(title)
	is, size := binary.BigEndian.Uint64(data[at:]), binary.BigEndian.Uint64(data[at+8:])
	switch {
	case store != 0 && is != store:
		return nil, store, "it belongs to another store", true
	case size != uint64(len(data)):
		damage = fmt.Sprintf("it has %d bytes and not %d", len(data), size)
	}
	return data[fileHead-4-nonceSize : fileHead-4], is, damage, false
}

func salvageRecord(data, nonce []byte) ([]byte, bool) {
	length := int64(binary.BigEndian.Uint32(data[4:]))
	if length < HeaderSize || length > MaxRecord || length > int64(len(data)) || nonce != nil && !bytes.Equal(data[16:HeaderSize], nonce) {
		return nil, false
	}
	record := data[:length]
	return record, crc32.Checksum(record[4:], castagnoli()) == binary.BigEndian.Uint32(record)
}
