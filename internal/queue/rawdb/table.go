package rawdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4/fb"
)

const (
	// longestBlock bounds the search for the end of a block whose place nothing tells.
	longestBlock = 1 << 20
	// versionLen is what follows the key of a row: its version.
	versionLen = 8
	crc32c     = 0 // of the algorithms of a checksum
)

// table is one file of sorted rows.
type table struct {
	d      *DB
	path   string
	id     uint64
	size   int64
	first  []byte // key and version of the first row; nil = none
	newest uint64
	bad    string // why its index cannot be believed
	f      *os.File
	blocks []place // while it is read
}

// place is where a block is.
type place struct {
	at, length int64
	key        []byte // of its first row; nil when not known
}

func openTable(d *DB, path string, id uint64) (*table, error) {
	t := &table{d: d, path: path, id: id}
	if err := t.load(); err != nil {
		return nil, err
	}
	if len(t.blocks) > 0 {
		t.first = t.blocks[0].key
	}
	t.close()
	return t, nil
}

// load opens the file and finds its blocks, by the index or else by looking for them.
func (t *table) load() error {
	f, err := os.Open(t.path)
	if err != nil {
		return fmt.Errorf("read table: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("read table: %w", err)
	}
	t.f, t.size = f, info.Size()
	err = t.readIndex()
	if d, ok := errors.AsType[*damage](err); ok {
		t.bad = "its index cannot be read (" + d.what + "), rows may be missing"
		err = t.searchBlocks()
	}
	if err != nil {
		t.close()
	}
	return err
}

func (t *table) close() {
	if t.f != nil {
		t.f.Close()
	}
	t.f, t.blocks = nil, nil
}

// damage is an error that is not of the system.
type damage struct{ what string }

func (e *damage) Error() string { return e.what }

// readFull reads a part of a file. What lies behind its end is damage.
func readFull(f *os.File, at, length, size int64) ([]byte, error) {
	if at < 0 || length < 0 || at+length > size {
		return nil, &damage{"the file is too short"}
	}
	b := make([]byte, length)
	if _, err := f.ReadAt(b, at); errors.Is(err, io.EOF) {
		return nil, &damage{"the file is too short"}
	} else if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return b, nil
}

// readIndex reads index, length4, checksum, length4 at the end of the file.
func (t *table) readIndex() error {
	at := t.size
	back := func(length int64) ([]byte, error) {
		at -= length
		return readFull(t.f, at, length, t.size)
	}
	field := func() ([]byte, error) {
		n, err := back(4)
		if err != nil {
			return nil, err
		}
		return back(int64(binary.BigEndian.Uint32(n)))
	}
	sum, err := field()
	if err != nil {
		return err
	}
	index, err := field()
	if err != nil {
		return err
	}
	if !sumMatches(index, sum) {
		return &damage{"its checksum does not match"}
	}
	return t.parseIndex(index)
}

// sumMatches compares a Checksum (badgerpb4.proto) with what it is of.
func sumMatches(data, sum []byte) bool {
	var algo, want uint64
	ok := eachField(sum, func(number int, v uint64, _ []byte) bool {
		switch number {
		case 1:
			algo = v
		case 2:
			want = v
		}
		return true
	})
	return ok && algo == crc32c && want == uint64(crc32.Checksum(data, castagnoli()))
}

// parseIndex copies the places of the blocks.
func (t *table) parseIndex(index []byte) (err error) {
	defer func() {
		// The checksum matched; but what it is of may have been nonsense already.
		if recover() != nil {
			err = &damage{"it is not one"}
		}
	}()
	root := fb.GetRootAsTableIndex(index, 0)
	t.newest = root.MaxVersion()
	if root.OffsetsLength() > len(index)/4 {
		return &damage{"it is not one"}
	}
	t.blocks = make([]place, 0, root.OffsetsLength())
	var at fb.BlockOffset
	for i := range root.OffsetsLength() {
		if root.Offsets(&at, i) {
			t.blocks = append(t.blocks, place{int64(at.Offset()), int64(at.Len()), bytes.Clone(at.KeyBytes())})
		}
	}
	return nil
}

// searchBlocks finds the blocks of a table without an index. A block ends where its
// checksum says that it does.
func (t *table) searchBlocks() error {
	data, err := readFull(t.f, 0, t.size, t.size)
	if err != nil {
		return err
	}
	t.blocks, t.newest = nil, 0
	for at := int64(0); at < t.size; {
		length := blockLength(data[at:min(at+longestBlock, t.size)])
		if length == 0 {
			break
		}
		rows, err := parseBlock(data[at:at+length], false)
		if err != nil || len(rows) == 0 {
			break
		}
		for _, r := range rows {
			t.newest = max(t.newest, versionOf(r.key))
		}
		t.blocks = append(t.blocks, place{at, length, rows[0].key})
		at += length
	}
	return nil
}

// blockLength finds the end of a block that begins with data, 0 when there is none.
func blockLength(data []byte) int64 {
	const shortest, longest = 2, 16 // of a checksum
	for end := 4 + 4 + shortest + 4; end <= len(data); end++ {
		n := binary.BigEndian.Uint32(data[end-4:])
		if n < shortest || n > longest || int(n)+8 > end {
			continue
		}
		body := end - 4 - int(n)
		if sumMatches(data[:body], data[body:end-4]) {
			return int64(end)
		}
	}
	return 0
}

// stored is a row as a table has it.
type stored struct {
	key   []byte // with its version
	value []byte // encoded
}

// parseBlock reads entries, their offsets, count4, checksum, length4.
func parseBlock(data []byte, trusting bool) ([]stored, error) {
	bad := &damage{"a block is not readable"}
	if len(data) < 8 {
		return nil, bad
	}
	n := int64(binary.BigEndian.Uint32(data[len(data)-4:]))
	end := int64(len(data)) - 4 - n
	if end < 4 {
		return nil, bad
	}
	if !trusting && !sumMatches(data[:end], data[end:len(data)-4]) {
		return nil, &damage{"the checksum of a block does not match"}
	}
	count := int64(binary.BigEndian.Uint32(data[end-4:]))
	index := end - 4 - 4*count
	if index < 0 {
		return nil, bad
	}
	rows := make([]stored, 0, count)
	var base []byte
	for i := range count {
		from, to := int64(binary.LittleEndian.Uint32(data[index+4*i:])), index
		if i+1 < count {
			to = int64(binary.LittleEndian.Uint32(data[index+4*i+4:]))
		}
		if from > to || to > index || to-from < 4 {
			return nil, bad
		}
		e := data[from:to]
		overlap, diff := int(binary.LittleEndian.Uint16(e)), int(binary.LittleEndian.Uint16(e[2:]))
		if overlap > len(base) || 4+diff > len(e) || overlap+diff <= versionLen {
			return nil, bad
		}
		key := append(bytes.Clone(base[:overlap]), e[4:4+diff]...)
		if i == 0 {
			base = key
		}
		rows = append(rows, stored{key, e[4+diff:]})
	}
	return rows, nil
}

// block reads a block. What is wrong with it is reported and costs that block.
func (t *table) block(i int) ([]stored, error) {
	p := t.blocks[i]
	data, err := readFull(t.f, p.at, p.length, t.size)
	t.d.progress(p.length)
	var rows []stored
	if err == nil {
		rows, err = parseBlock(data, t.d.Trusting)
	}
	if _, ok := errors.AsType[*damage](err); ok {
		lost := Problem{File: filepath.Base(t.path), What: fmt.Sprintf("bytes %d to %d: %v", p.at, p.at+p.length, err), From: keyOf(p.key)}
		if i+1 < len(t.blocks) {
			lost.To = keyOf(t.blocks[i+1].key)
		}
		t.d.report(lost)
		return nil, nil
	}
	return rows, err
}

// keyOf is a key without its version.
func keyOf(key []byte) []byte { return key[:max(len(key)-versionLen, 0)] }

func versionOf(key []byte) uint64 {
	if len(key) < versionLen {
		return 0
	}
	return 1<<64 - 1 - binary.BigEndian.Uint64(key[len(key)-versionLen:])
}
