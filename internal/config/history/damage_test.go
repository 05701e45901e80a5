package history

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// damage is done to one file of a history of three generations.
type damage struct {
	name string
	do   func(path string) error
}

// ofAnyFile is damage that is noticed in entries and in kept files alike.
func ofAnyFile() []damage {
	change := func(f func([]byte) []byte) func(string) error {
		return func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, f(data), 0o600)
		}
	}
	replace := func(f func(path string) error) func(string) error {
		return func(path string) error { return errors.Join(os.Rename(path, path+"-away"), f(path)) }
	}
	return []damage{
		{"empty", change(func([]byte) []byte { return nil })},
		{"cut in half", change(func(b []byte) []byte { return b[:len(b)/2] })},
		{"without its end", change(func(b []byte) []byte { return b[:len(b)-1] })},
		{"zeros", change(func(b []byte) []byte { return make([]byte, len(b)) })},
		{"a bit of the end", change(func(b []byte) []byte { b[len(b)-2] ^= 1; return b })},
		{"a bit of the middle", change(func(b []byte) []byte { b[len(b)/2] ^= 0x80; return b })},
		{"something after it", change(func(b []byte) []byte { return append(b, '\n') })},
		{"too large", func(path string) error { return os.Truncate(path, maxEntryBytes+1) }},
		{"a directory", replace(func(path string) error { return os.Mkdir(path, 0o700) })},
		{"a pipe", replace(func(path string) error { return unix.Mkfifo(path, 0o600) })},
		{"a symbolic link to what it was", replace(func(path string) error { return os.Symlink(filepath.Base(path)+"-away", path) })},
		{"a symbolic link to nothing", replace(func(path string) error { return os.Symlink("nothing", path) })},
	}
}

func TestADamagedEntryCostsItselfAndNoOther(t *testing.T) {
	for _, d := range append(ofAnyFile(),
		damage{"another number", func(path string) error { return os.Rename(path, filepath.Join(filepath.Dir(path), entryName(9, 3))) }},
		damage{"another generation", func(path string) error {
			return os.Rename(path, filepath.Join(filepath.Dir(path), entryName(3, 9)))
		}},
		damage{"of another main file", func(path string) error {
			r := record{Main: "/elsewhere", Number: 3, Entry: rejectedOf(3)}
			text, err := r.encode()
			return errors.Join(err, os.WriteFile(path, text, 0o600))
		}},
	) {
		t.Run(d.name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir)
			fill(t, l, 1, 3)
			if err := d.do(filepath.Join(historyDirOf(dir), entryName(3, 3))); err != nil {
				t.Fatal(err)
			}
			l = reopen(t, l, dir)
			if w := l.Warnings(); len(w) != 1 || !strings.Contains(w[0], "set aside") {
				t.Errorf("warnings %q", w)
			}
			if entry, _, err := l.Last(); err != nil || entry.Generation != 2 {
				t.Errorf("last %d, %v", entry.Generation, err)
			}
			if got := l.Generation(); got != 3 && got != 9 {
				t.Errorf("generation %d would be given out again", got)
			}
			damaged, err := filepath.Glob(filepath.Join(historyDirOf(dir), damagedPrefix+"*"))
			if err != nil || len(damaged) != 1 {
				t.Errorf("set aside: %v, %v", damaged, err)
			}
			fill(t, l, l.Generation()+1, l.Generation()+1)
			l = reopen(t, l, dir)
			if err := check(l); err != nil { // no warning any more either
				t.Error(err)
			}
			if n := len(l.Entries()); n != 3 {
				t.Errorf("%d entries", n)
			}
		})
	}
}

func TestADamagedFileCostsTheEntriesThatHaveItAndIsHealed(t *testing.T) {
	for _, d := range append(ofAnyFile(), damage{"gone", os.Remove}) {
		t.Run(d.name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir)
			fill(t, l, 1, 3)
			if err := d.do(filepath.Join(historyDirOf(dir), fileName(sum(sourcesOf(3)[1].Data)))); err != nil {
				t.Fatal(err)
			}
			l = reopen(t, l, dir)
			if entry, _, err := l.Last(); err != nil || entry.Generation != 2 {
				t.Errorf("last %d, %v", entry.Generation, err)
			}
			if w := l.Warnings(); len(w) == 0 || !strings.Contains(w[0], "10-each.yaml") {
				t.Errorf("warnings %q do not name the file", w)
			}
			if _, err := l.Files(3); err == nil || !strings.Contains(err.Error(), "10-each.yaml") {
				t.Errorf("files of generation 3: %v", err)
			}
			// The same content again is written again, where that is possible.
			err := l.Append(entryOf(3), sourcesOf(3))
			if d.name == "a directory" {
				if err == nil {
					t.Error("a directory was replaced")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := check(reopen(t, l, dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWhenNothingIntactIsLeftTheErrorNamesEverything(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	fill(t, l, 1, 2)
	if err := os.Remove(filepath.Join(historyDirOf(dir), fileName(sum(sourcesOf(1)[0].Data)))); err != nil {
		t.Fatal(err)
	}
	_, _, err := l.Last()
	if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "generation 1 ") || !strings.Contains(err.Error(), "generation 2 ") || !strings.Contains(err.Error(), mainFile) {
		t.Errorf("error %v", err)
	}
}

func TestDamagedEntriesThatWereSetAsideAreBounded(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	for g := uint64(1); g <= 20; g++ {
		fill(t, l, g, g)
		if err := os.Truncate(filepath.Join(historyDirOf(dir), entryName(g, g)), 3); err != nil {
			t.Fatal(err)
		}
		l = reopen(t, l, dir)
	}
	l = reopen(t, l, dir)
	if n := len(namesIn(t, historyDirOf(dir))); n != maxDamaged {
		t.Errorf("%d files: %v", n, namesIn(t, historyDirOf(dir)))
	}
	if l.Generation() != 20 {
		t.Errorf("generation %d", l.Generation())
	}
}

func TestADirectoryThatIsALinkIsRefused(t *testing.T) {
	real := t.TempDir()
	for _, below := range []string{"", place(mainFile)} {
		dir := filepath.Join(t.TempDir(), "config")
		if below != "" {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(real, filepath.Join(dir, below)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, mainFile); err == nil {
			t.Errorf("%s: opened", below)
		}
		if _, err := Peek(dir, mainFile); err == nil {
			t.Errorf("%s: looked into", below)
		}
	}
	if names := namesIn(t, real); len(names) > 0 {
		t.Errorf("written through the link: %v", names)
	}
}

func TestWarningsAreBoundedAndSayHowManyMore(t *testing.T) {
	var l Log
	for i := range maxWarnings + 7 {
		l.warn("damage %d", i)
		l.warn("damage %d", i%3)
	}
	if w := l.Warnings(); len(w) != maxWarnings+1 || w[maxWarnings] != "and 7 more" {
		t.Errorf("%d warnings, the last %q", len(w), w[len(w)-1])
	}
}

func FuzzDecode(f *testing.F) {
	r := record{Main: mainFile, Number: 7, Entry: entryOf(3)}
	if _, err := r.complete(sourcesOf(3)); err != nil {
		f.Fatal(err)
	}
	text, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	// Nothing but the true SHA-256 leads past the first line, so what follows it
	// is also tried by itself.
	f.Add(text[bytes.IndexByte(text, '\n')+1:])
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, input := range [][]byte{data, fmt.Appendf(nil, "%s%s\n%s", firstWords, sum(data), data)} {
			r, err := decode(input)
			if err != nil {
				if r != nil || !errors.Is(err, errDamaged) {
					t.Fatalf("record %v, error %v", r, err)
				}
				continue
			}
			if err := r.validate(); err != nil {
				t.Fatalf("decode let pass what encode would not: %v", err)
			}
			once, err := r.encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := decode(once)
			if err != nil {
				t.Fatal(err)
			}
			twice, err := again.encode()
			if err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%q became %q (%v)", once, twice, err)
			}
		}
	})
}
