package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

const (
	testStore = 0xabcdef
	testSize  = 2 * MaxRecord
)

func newJournal(t testing.TB) (j *Journal, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "journal")
	if err := Create(path, testStore, testSize); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, path)
	if err := j.Recover(0, func(number uint64, _ []byte) error { t.Errorf("a new journal has record %d", number); return nil }); err != nil {
		t.Fatal(err)
	}
	return j, path
}

func openJournal(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := Open(path, testStore)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func appendOne(t testing.TB, j *Journal, content []byte) uint64 {
	t.Helper()
	n, err := j.Append(append(j.Begin(), content...))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func recovered(t testing.TB, path string, applied uint64) (contents [][]byte, err error) {
	t.Helper()
	j := openJournal(t, path)
	err = j.Recover(applied, func(number uint64, content []byte) error {
		if want := applied + uint64(len(contents)) + 1; number != want {
			t.Errorf("record %d, want %d", number, want)
		}
		contents = append(contents, slices.Clone(content))
		return nil
	})
	return contents, err
}

// A journal is written round and round, closed without a word and opened again, and
// always gives back what was appended and not applied.
func TestWhatWasAppendedAndNotAppliedComesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := Create(path, testStore, testSize); err != nil {
			rt.Fatal(err)
		}
		var model [][]byte // not applied
		applied := uint64(0)
		open := func() *Journal {
			j, err := Open(path, testStore)
			if err != nil {
				rt.Fatal(err)
			}
			j.Unsynced() // nothing cuts the power here
			var got [][]byte
			if err := j.Recover(applied, func(_ uint64, c []byte) error { got = append(got, slices.Clone(c)); return nil }); err != nil {
				rt.Fatal(err)
			}
			if !slices.EqualFunc(got, model, bytes.Equal) {
				rt.Fatalf("%d records came back, want %d", len(got), len(model))
			}
			applied += uint64(len(model))
			model = nil
			return j
		}
		j := open()
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				size := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(BlockSize-HeaderSize-2, BlockSize-HeaderSize+2),
					rapid.IntRange(0, MaxRecord-HeaderSize)).Draw(rt, "size")
				content := bytes.Repeat([]byte{byte(size), byte(size >> 8), 1}, size/3+1)[:size]
				number, err := j.Append(append(j.Begin(), content...))
				if errors.Is(err, ErrFull) {
					if len(model) == 0 {
						rt.Fatal("full of nothing")
					}
					return
				}
				if want := applied + uint64(len(model)) + 1; err != nil || number != want {
					rt.Fatalf("record %d, want %d: %v", number, want, err)
				}
				model = append(model, content)
			},
			"apply": func(rt *rapid.T) {
				n := rapid.IntRange(0, len(model)).Draw(rt, "n")
				applied += uint64(n)
				model = model[n:]
				j.Applied(applied)
			},
			"reopen": func(*rapid.T) { j.Close(); j = open() },
		})
		j.Close()
	})
}

func TestNothingIsOverwrittenBeforeItIsApplied(t *testing.T) {
	j, path := newJournal(t)
	big := make([]byte, MaxRecord-HeaderSize)
	first := appendOne(t, j, big)
	if _, err := j.Append(append(j.Begin(), big...)); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v", err)
	}
	if got, err := recovered(t, path, 0); err != nil || len(got) != 1 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	j.Applied(first)
	if n := appendOne(t, j, big); n != first+1 {
		t.Errorf("record %d", n)
	}
	if _, err := j.Append(append(j.Begin(), make([]byte, MaxRecord)...)); !errors.Is(err, ErrTooLong) {
		t.Errorf("got %v", err)
	}
}

// edit changes a file in place.
func edit(t *testing.T, path string, at int64, to []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(to, at); err != nil {
		t.Fatal(err)
	}
}

// A power cut may leave any of the blocks of the record that was being written.
func TestARecordThatWasNotWrittenToItsEndIsPassedOver(t *testing.T) {
	for lost := range int64(3) {
		j, path := newJournal(t)
		appendOne(t, j, []byte("first"))
		appendOne(t, j, bytes.Repeat([]byte("x"), 3*BlockSize-HeaderSize))
		edit(t, path, (2+lost)*BlockSize, make([]byte, BlockSize))
		got, err := recovered(t, path, 0)
		if err != nil || len(got) != 1 || string(got[0]) != "first" {
			t.Errorf("block %d lost: %q, %v", lost, got, err)
		}
	}
}

func TestARecordThatWasDamagedLaterIsAnError(t *testing.T) {
	for _, damaged := range []int64{1, 2} {
		j, path := newJournal(t)
		for range 3 {
			appendOne(t, j, []byte("content"))
		}
		edit(t, path, damaged*BlockSize+HeaderSize, []byte("X"))
		if _, err := recovered(t, path, 0); !isDamage(err) {
			t.Errorf("record %d damaged: got %v", damaged, err)
		}
		// What the database has already may be damaged.
		if got, err := recovered(t, path, 2); err != nil || len(got) != 1 {
			t.Errorf("record %d damaged: %d records, %v", damaged, len(got), err)
		}
	}
}

func isDamage(err error) bool {
	_, ok := errors.AsType[*DamageError](err)
	return ok
}

// A sender decides what is in a record, so it must not be able to put one there.
func TestARecordInsideARecordIsNotOne(t *testing.T) {
	j, path := newJournal(t)
	forged := make([]byte, BlockSize)
	binary.BigEndian.PutUint32(forged[4:], BlockSize)
	binary.BigEndian.PutUint64(forged[8:], 2)
	binary.BigEndian.PutUint32(forged, crc32.Checksum(forged[4:], castagnoli()))
	content := append(make([]byte, BlockSize-HeaderSize), forged...)
	appendOne(t, j, content)
	if got, err := recovered(t, path, 0); err != nil || len(got) != 1 || !bytes.Equal(got[0], content) {
		t.Fatalf("%d records, %v", len(got), err)
	}
	// The same with the number that nobody knows is taken for one, so it is that which protects.
	j, path = newJournal(t)
	copy(forged[16:], j.nonce[:])
	binary.BigEndian.PutUint32(forged, crc32.Checksum(forged[4:], castagnoli()))
	appendOne(t, j, append(make([]byte, BlockSize-HeaderSize), forged...))
	if got, _ := recovered(t, path, 0); len(got) < 2 {
		t.Errorf("%d records: this test does not forge one", len(got))
	}
}

func TestWhatIsNoJournalOfThisStoreIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(path string) error
		damage bool
	}{
		{"missing", os.Remove, false},
		{"empty", func(p string) error { return os.Truncate(p, 0) }, true},
		{"cut off", func(p string) error { return os.Truncate(p, testSize-BlockSize) }, true},
		{"longer", func(p string) error { return os.Truncate(p, testSize+BlockSize) }, true},
		{"of another store", func(p string) error { return Create(p, testStore+1, testSize) }, true},
		{"something else", func(p string) error { return os.WriteFile(p, make([]byte, testSize), 0o600) }, true},
	} {
		_, path := newJournal(t)
		if err := c.spoil(path); err != nil {
			t.Fatal(err)
		}
		j, err := Open(path, testStore)
		if err == nil {
			j.Close()
		}
		if isDamage(err) != c.damage || errors.Is(err, fs.ErrNotExist) == c.damage {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestOneFromAnotherMomentIsRefused(t *testing.T) {
	j, path := newJournal(t)
	appendOne(t, j, []byte("one"))
	j.Applied(1)
	appendOne(t, j, []byte("two"))
	// The database is older than the journal: what is missing may have been overwritten.
	j.Applied(2)
	for range int64(testSize/BlockSize) - 2 {
		j.Applied(appendOne(t, j, nil))
	}
	if _, err := recovered(t, path, 0); !isDamage(err) {
		t.Errorf("got %v", err)
	}
}

func TestTheErrorOfWhoTakesTheRecordsComesBack(t *testing.T) {
	j, path := newJournal(t)
	appendOne(t, j, []byte("one"))
	mine := errors.New("mine")
	if err := openJournal(t, path).Recover(0, func(uint64, []byte) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("got %v", err)
	}
}

// Whatever is in the blocks, Recover ends, with records that follow each other.
func FuzzRecover(f *testing.F) {
	f.Add([]byte("x"), uint16(0), uint64(0))
	f.Add(make([]byte, HeaderSize), uint16(BlockSize), uint64(1))
	f.Fuzz(func(t *testing.T, junk []byte, at uint16, applied uint64) {
		j, path := newJournal(t)
		for range 3 {
			appendOne(t, j, junk[:min(len(junk), BlockSize)])
		}
		if len(junk) > 0 {
			to, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = to.WriteAt(junk[:min(len(junk), testSize-BlockSize-int(at))], BlockSize+int64(at))
			if err := errors.Join(err, to.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := recovered(t, path, applied); err != nil && !isDamage(err) {
			t.Errorf("got %v", err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{500, 16 << 10} {
		b.Run("", func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "journal")
			if err := Create(path, testStore, 8<<20); err != nil {
				b.Fatal(err)
			}
			j := openJournal(b, path)
			if err := j.Recover(0, func(uint64, []byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
			content := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				j.Applied(appendOne(b, j, content))
			}
		})
	}
}

// A disk may want more than a page to begin and end with.
func TestAWriteThatTheDiskRefusesPastTheCacheGoesThroughIt(t *testing.T) {
	j, path := newJournal(t)
	if j.to == j.f {
		t.Skip("this file system has no O_DIRECT")
	}
	j.aligned = alignedBytes(MaxRecord + BlockSize)[1:]
	appendOne(t, j, []byte("one"))
	appendOne(t, j, []byte("two"))
	if got, err := recovered(t, path, 0); err != nil || len(got) != 2 || string(got[1]) != "two" {
		t.Errorf("%q, %v", got, err)
	}
	if j.to != j.f {
		t.Skip("the disk took it at any address")
	}
}
