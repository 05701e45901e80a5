package journal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSalvageReadsWhatIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if err := Create(path, 7, 2*MaxRecord); err != nil {
		t.Fatal(err)
	}
	j, err := Open(path, 7)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Recover(0, nil); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two", "three"} {
		if _, err := j.Append(append(j.Begin(), text...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil   func([]byte) []byte
		store   uint64
		records string
		damaged bool
	}{
		"whole":             {func(b []byte) []byte { return b }, 7, "1one2two3three", false},
		"store not known":   {func(b []byte) []byte { return b }, 0, "1one2two3three", false},
		"another store":     {func(b []byte) []byte { return b }, 8, "", true},
		"no head":           {func(b []byte) []byte { clear(b[:100]); return b }, 7, "1one2two3three", true},
		"a record damaged":  {func(b []byte) []byte { b[2*BlockSize+HeaderSize]++; return b }, 7, "1one3three", false},
		"cut off":           {func(b []byte) []byte { return b[:3*BlockSize] }, 7, "1one2two", true},
		"longer":            {func(b []byte) []byte { return append(b, 1) }, 7, "1one2two3three", true},
		"shorter than that": {func(b []byte) []byte { return b[:10] }, 7, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, c.spoil(append([]byte(nil), whole...)), 0o600); err != nil {
				t.Fatal(err)
			}
			records, _, damage, err := Salvage(path, c.store)
			var got strings.Builder
			for _, r := range records {
				got.WriteString(string(rune('0'+r.Number)) + string(r.Content))
			}
			if err != nil || got.String() != c.records || (damage != "") != c.damaged {
				t.Errorf("%q, %q, %v", got.String(), damage, err)
			}
		})
	}
}

func FuzzSalvage(f *testing.F) {
	f.Add([]byte(title))
	f.Add(make([]byte, 2*BlockSize))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := Salvage(path, 1); err != nil {
			t.Fatal(err)
		}
	})
}
