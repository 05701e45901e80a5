package rawdb

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

// The database itself writes what is read in the tests of package queue. Here the
// readers get what nobody wrote.

func sumOf(data []byte) []byte {
	sum := []byte{1 << 3, 0, 2 << 3}
	return binary.AppendUvarint(sum, uint64(crc32.Checksum(data, castagnoli())))
}

// aBlock has two rows, of which the second shares the beginning of its key.
func aBlock() []byte {
	version := make([]byte, versionLen)
	var b []byte
	entry := func(overlap int, diff string) {
		b = binary.LittleEndian.AppendUint16(b, uint16(overlap))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(diff)))
		b = append(b, diff...)
		b = append(b, 0, 0, 0, 'v')
	}
	entry(0, "first"+string(version))
	second := len(b)
	entry(2, "ve"+string(version))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(second))
	b = binary.BigEndian.AppendUint32(b, 2)
	sum := sumOf(b)
	return binary.BigEndian.AppendUint32(append(b, sum...), uint32(len(sum)))
}

func anEntry() []byte {
	b := []byte{bitTxn, 0, 10, 2, 0}
	b = append(b, "kk12345678vv"...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

func aManifest() []byte {
	record := []byte{1<<3 | 2, 2, 1 << 3, 7}
	b := append([]byte("Bdgr"), 0, 0, 0, 8)
	b = binary.BigEndian.AppendUint32(b, uint32(len(record)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(record, castagnoli()))
	return append(b, record...)
}

func TestABlockIsReadAndFoundWithoutItsIndex(t *testing.T) {
	rows, err := parseBlock(aBlock(), false)
	if err != nil || len(rows) != 2 || string(keyOf(rows[0].key)) != "first" || string(keyOf(rows[1].key)) != "five"[:2]+"ve" {
		t.Fatalf("%q, %v", rows, err)
	}
	two := append(aBlock(), aBlock()...)
	if n := blockLength(two); n != int64(len(aBlock())) {
		t.Errorf("the block ends at %d of %d", n, len(aBlock()))
	}
	for i := range aBlock() {
		bad := aBlock()
		bad[i] ^= 1
		if _, err := parseBlock(bad, false); err == nil {
			t.Errorf("a flip at %d was not noticed", i)
		}
	}
}

func FuzzBlock(f *testing.F) {
	f.Add(aBlock())
	f.Add(aBlock()[:20])
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := parseBlock(data, false)
		if err == nil && len(rows) > len(data) {
			t.Error("more rows than bytes")
		}
		for _, r := range rows {
			_, _ = tableRow(r)
		}
		if n := blockLength(data); n > int64(len(data)) {
			t.Error("longer than what there is")
		}
		// The same behind a checksum that is right.
		sum := sumOf(data)
		_, _ = parseBlock(binary.BigEndian.AppendUint32(append(data[:len(data):len(data)], sum...), uint32(len(sum))), false)
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte{4, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, data []byte) {
		t := &table{}
		_ = t.parseIndex(data) // it does not panic
	})
}

func FuzzLog(f *testing.F) {
	f.Add(anEntry())
	f.Add(append(anEntry(), anEntry()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, ok := parseEntry(data); ok && e.length > len(data) {
			t.Error("longer than what there is")
		}
		m := &memtable{}
		if end := m.transactions(data, 0); end > len(data) {
			t.Error("ends behind the end")
		}
		_ = nextEntry(data, 0, 0)
		_, _ = decodePointer(data)
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(aManifest())
	f.Add(aManifest()[:13])
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, manifestFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
		_ = applyChanges(data, map[uint64]bool{})
	})
}

func TestAListNamesTablesAndSaysWhereItEnds(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, manifestFile)
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"whole":                    {aManifest(), "000007.sst"}, // named, and not there
		"cut":                      {aManifest()[:18], manifestFile},
		"flipped":                  {append(aManifest()[:19], 0xff), manifestFile},
		"empty":                    {nil, manifestFile},
		"other version":            {append(aManifest()[:7], append([]byte{9}, aManifest()[8:]...)...), manifestFile},
		"a record longer than all": {append(aManifest()[:8], 0, 1, 0, 0, 0, 0, 0, 0), manifestFile},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, c.text, 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := Open(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if ps := d.Problems(); len(ps) != 1 || ps[0].File != c.want {
				t.Errorf("%+v", ps)
			}
		})
	}
}

// Collecting garbage writes a value again under the version that it had. The place that
// older files name is gone then, and that is no damage.
func TestARowThatIsThereTwiceIsReadFromWhereItCanBe(t *testing.T) {
	gone := row{key: []byte("k"), version: 7, meta: bitPointer, value: []byte{1, 0, 0, 0, 9, 0, 0, 0, 20, 0, 0, 0}}
	moved := row{key: []byte("k"), version: 7, value: []byte("v")}
	for name, c := range map[string]struct {
		rows     []row
		want     string
		problems int
	}{
		"moved": {[]row{gone, moved}, "v", 0},
		"gone":  {[]row{gone, gone}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := &DB{seen: map[string]bool{}}
			err := d.emit(c.rows, nil, func(r Row) error {
				if string(r.Value) != c.want || (r.Damage != "") != (c.problems > 0) {
					t.Errorf("%+v", r)
				}
				return nil
			})
			if err != nil || len(d.Problems()) != c.problems {
				t.Errorf("%+v, %v", d.Problems(), err)
			}
		})
	}
}
