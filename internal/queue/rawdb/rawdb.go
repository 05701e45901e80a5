// Package rawdb reads the files of a Badger database without opening it: to find out
// what of a damaged one can still be read.
//
// Guarantees:
//
//   - Nothing is written, and no file is mapped into memory: a damaged or shortened file
//     is an error of a read and never a signal. No content makes a reader panic or
//     allocate more than the file is long.
//   - What cannot be read is reported with file, place and the keys between which it
//     was, once, and never skipped silently.
//   - A row comes with its newest version that can be read. Every block, log entry and
//     value carries a checksum of the database, which was compared.
//   - Memory does not grow with the number of rows: of the tables only those are held
//     whose keys are under way.
//
// The format is that of Badger v4 without encryption and compression.
package rawdb

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const manifestFile = "MANIFEST"

// Problem is something that cannot be read.
type Problem struct {
	File string // of the database's directory
	What string
	// Torn says that a crash leaves it so, and that nothing is lost by it.
	Torn bool
	// From and To are the keys between which rows may be missing; nil = not known.
	From, To []byte
}

// DB is a database's files. It belongs to one goroutine.
type DB struct {
	dir      string
	tables   []*table
	logs     []*memtable
	vlogs    map[uint32]*os.File
	problems []Problem
	seen     map[string]bool
	newest   uint64 // version
	progress func(read int64)
	Bytes    int64 // of all tables and logs together
	// Trusting compares no checksum of a block or a value. It is for tests: that damage is
	// found must be owed to the checksums.
	Trusting bool
}

// castagnoli is CRC-32C.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Open lists what there is and reads the lists, the ends of the tables and the
// logs of the memtables. progress, if not nil, is told how many bytes of tables were
// read. The error is one of the system; damage is in Problems.
func Open(dir string, progress func(read int64)) (*DB, error) {
	d := &DB{dir: dir, vlogs: map[uint32]*os.File{}, seen: map[string]bool{}, progress: progress}
	if d.progress == nil {
		d.progress = func(int64) {}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		d.report(Problem{File: ".", What: "the directory of the database is missing"})
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look into database: %w", err)
	}
	present := map[uint64]bool{}
	for _, e := range entries {
		if err := d.add(e, present); err != nil {
			d.Close()
			return nil, err
		}
	}
	if err := d.choose(present); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// add opens a file of the directory, if it holds rows.
func (d *DB) add(e os.DirEntry, present map[uint64]bool) error {
	name := e.Name()
	ext := filepath.Ext(name)
	number, err := strconv.ParseUint(strings.TrimSuffix(name, ext), 10, 32)
	if err != nil || !e.Type().IsRegular() {
		return nil
	}
	info, err := e.Info()
	if err != nil {
		return fmt.Errorf("look into database: %w", err)
	}
	path := filepath.Join(d.dir, name)
	switch ext {
	case ".sst":
		present[number] = true
		d.Bytes += info.Size()
		t, err := openTable(d, path, number)
		if err != nil {
			return err
		}
		d.tables = append(d.tables, t)
	case ".mem":
		d.Bytes += info.Size()
		m, err := openMemtable(d, path)
		if err != nil {
			return err
		}
		d.logs = append(d.logs, m)
	case ".vlog":
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("read value log: %w", err)
		}
		d.vlogs[uint32(number)] = f
	}
	return nil
}

// choose leaves out tables that the list does not name: a crash leaves such behind,
// and their rows are in others. When the list is damaged, or they have rows that
// nothing else has, they are taken in.
func (d *DB) choose(present map[uint64]bool) error {
	listed, whole, torn, err := d.readManifest()
	if err != nil {
		return err
	}
	if torn > 0 {
		// Without tables that it does not name, what it ends within is about none.
		stray := slices.ContainsFunc(d.tables, func(t *table) bool { return !listed[t.id] })
		d.report(Problem{File: manifestFile, What: fmt.Sprintf("ends within a record, at byte %d", torn), Torn: !stray})
		whole = whole && !stray
	}
	for id := range listed {
		if !present[id] {
			d.report(Problem{File: fmt.Sprintf("%06d.sst", id), What: "is missing; the rows that only it had are lost"})
			whole = false
		}
	}
	var newest uint64
	for _, m := range d.logs {
		newest = max(newest, m.newest)
	}
	for _, t := range d.tables {
		if listed[t.id] {
			newest = max(newest, t.newest)
		}
	}
	for _, t := range d.tables {
		if whole && !listed[t.id] && t.newest > newest {
			d.report(Problem{File: manifestFile, What: fmt.Sprintf("does not name the table %s, which has rows that nothing else has: its end is missing", filepath.Base(t.path))})
			whole = false
		}
		d.newest = max(d.newest, t.newest)
	}
	d.newest = max(d.newest, newest)
	if whole {
		d.tables = slices.DeleteFunc(d.tables, func(t *table) bool { return !listed[t.id] })
	}
	for _, t := range d.tables {
		if t.bad != "" {
			d.report(Problem{File: filepath.Base(t.path), What: t.bad})
		}
	}
	return nil
}

// readManifest returns the tables that the list names; whole is false when it is
// damaged, and torn is where it ends within a record, 0 when it does not.
func (d *DB) readManifest() (listed map[uint64]bool, whole bool, torn int, err error) {
	listed = map[uint64]bool{}
	bad := func(format string, args ...any) {
		d.report(Problem{File: manifestFile, What: fmt.Sprintf(format, args...)})
		whole = false
	}
	text, err := os.ReadFile(filepath.Join(d.dir, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		bad("is missing: the database would open empty")
		return listed, false, 0, nil
	}
	if err != nil {
		return nil, false, 0, fmt.Errorf("read the list of tables: %w", err)
	}
	whole = true
	if len(text) < 8 || string(text[:8]) != "Bdgr\x00\x00\x00\x08" { // and its version
		bad("is no list of tables")
		return listed, whole, 0, nil
	}
	for at := 8; at < len(text); {
		if len(text)-at < 8 {
			torn = at
			break
		}
		length, sum := int(binary.BigEndian.Uint32(text[at:])), binary.BigEndian.Uint32(text[at+4:])
		if length > len(text) { // with which the database refuses, torn or not
			bad("has a record at byte %d that is longer than the file", at)
			break
		}
		if length > len(text)-at-8 {
			torn = at
			break
		}
		record := text[at+8 : at+8+length]
		if crc32.Checksum(record, castagnoli()) != sum || !applyChanges(record, listed) {
			bad("has a damaged record at byte %d", at)
			break
		}
		at += 8 + length
	}
	return listed, whole, torn, nil
}

// applyChanges reads a ManifestChangeSet (badgerpb4.proto).
func applyChanges(record []byte, listed map[uint64]bool) bool {
	return eachField(record, func(number int, _ uint64, change []byte) bool {
		if number != 1 {
			return true
		}
		var id, op uint64
		ok := eachField(change, func(number int, v uint64, _ []byte) bool {
			switch number {
			case 1:
				id = v
			case 2:
				op = v
			}
			return true
		})
		if op == 0 {
			listed[id] = true
		} else {
			delete(listed, id)
		}
		return ok
	})
}

// eachField calls f for the fields of a protocol buffer that has numbers and
// messages only, and returns false when it is none.
func eachField(b []byte, f func(number int, v uint64, text []byte) bool) bool {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return false
		}
		v, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return false
		}
		b = b[n+m:]
		var text []byte
		switch tag & 7 {
		case 0:
		case 2:
			if v > uint64(len(b)) {
				return false
			}
			text, b = b[:v], b[v:]
		default:
			return false
		}
		if !f(int(tag>>3), v, text) {
			return false
		}
	}
	return true
}

func (d *DB) report(p Problem) {
	id := p.File + "\x00" + p.What
	if !d.seen[id] {
		d.seen[id] = true
		d.problems = append(d.problems, p)
	}
}

// Problems lists what could not be read so far.
func (d *DB) Problems() []Problem {
	return slices.SortedStableFunc(slices.Values(d.problems), func(a, b Problem) int { return cmp.Compare(a.File, b.File) })
}

// Newest is the highest version that any file speaks of.
func (d *DB) Newest() uint64 { return d.newest }

// Close closes the files.
func (d *DB) Close() {
	for _, f := range d.vlogs {
		f.Close()
	}
	for _, t := range d.tables {
		t.close()
	}
}
