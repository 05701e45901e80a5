package history

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

func TestWhatWasAppendedIsReadBackAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "above", "queue", "config")
	l := openLog(t, dir)
	if _, _, err := l.Last(); !errors.Is(err, ErrNone) {
		t.Errorf("of an empty history: %v", err)
	}
	fill(t, l, 1, 3)
	mustAppend(t, l, rejectedOf(3), sourcesOf(9))
	for range 2 {
		if err := check(l); err != nil {
			t.Error(err)
		}
		entry, files, err := l.Last()
		if err != nil || entry.Generation != 3 || !reflect.DeepEqual(files, sourcesOf(3)) {
			t.Errorf("last: generation %d, %v", entry.Generation, err)
		}
		if got := l.Entries(); len(got) != 4 || got[0].Result != Rejected || len(got[0].Files) != 0 || got[1].Generation != 3 {
			t.Errorf("entries %+v", got)
		}
		if _, err := l.Files(4); !errors.Is(err, ErrNone) {
			t.Errorf("files of a generation that never was: %v", err)
		}
		if l.Generation() != 3 {
			t.Errorf("generation %d", l.Generation())
		}
		noRemains(t, l, dir)
		l = reopen(t, l, dir)
	}
}

func TestTheSameBytesAreKeptOnce(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	fill(t, l, 1, 6)
	files := 0
	for _, name := range namesIn(t, historyDirOf(dir)) {
		if strings.HasPrefix(name, filePrefix) {
			files++
		}
	}
	// The main file, one that changes each time, and two that are the same.
	if files != 1+6+1 {
		t.Errorf("%d files are kept", files)
	}
}

func TestOldEntriesAndTheirFilesGo(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	fill(t, l, 1, 60)
	for range 60 {
		mustAppend(t, l, rejectedOf(60), nil)
	}
	for range 2 {
		if got := generations(l); len(got) != 50 || got[0] != 60 || got[49] != 11 {
			t.Errorf("kept %v", got)
		}
		if n := len(l.Entries()); n != 100 {
			t.Errorf("%d entries", n)
		}
		if _, err := l.Files(10); !errors.Is(err, ErrNone) {
			t.Errorf("files of generation 10: %v", err)
		}
		if err := check(l); err != nil {
			t.Error(err)
		}
		noRemains(t, l, dir)
		l = reopen(t, l, dir)
	}
}

func TestADaemonThatStartsAgainAndAgainPushesNothingOut(t *testing.T) {
	l := openLog(t, t.TempDir())
	fill(t, l, 1, 5)
	for range 70 {
		e := entryOf(5)
		e.Result = Restored
		mustAppend(t, l, rejectedOf(5), nil)
		mustAppend(t, l, e, sourcesOf(5))
	}
	if got, want := generations(l), []uint64{5, 5, 4, 3, 2, 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	results := []string{}
	for _, e := range l.Entries() {
		if e.kept() {
			results = append(results, e.Result)
		}
	}
	if want := []string{Restored, Applied, Applied, Applied, Applied, Applied}; !reflect.DeepEqual(results, want) {
		t.Errorf("results %v", results)
	}
}

func TestLimitsOfSpaceKeepFewer(t *testing.T) {
	large := func(number uint64, size int64, files int) *stored {
		e := &stored{Entry: Entry{Result: Applied, Generation: number}, number: number}
		for i := range files {
			e.Files = append(e.Files, FileRef{Size: size, SHA256: fmt.Sprintf("%d-%d", number, i)})
		}
		return e
	}
	for _, c := range []struct {
		name  string
		size  int64
		files int
		want  int
	}{
		{"bytes", maxFileBytes, 6, 4},
		{"files", 10, maxFiles, 10},
		{"one that is all too large stays", maxBytes, 1, 1},
	} {
		var list []*stored
		for i := range 20 {
			list = append(list, large(uint64(i+1), c.size, c.files))
		}
		stay, drop := divide(list)
		if len(stay) != c.want || len(drop) != 20-c.want || stay[len(stay)-1].number != 20 {
			t.Errorf("%s: %d stay, want %d", c.name, len(stay), c.want)
		}
	}
}

func TestWhatIsTooMuchIsRefusedAndNothingIsWritten(t *testing.T) {
	many := make([]config.File, maxFiles+1)
	for i := range many {
		many[i] = config.File{Path: fmt.Sprintf("/f/%d", i)}
	}
	big := bytes.Repeat([]byte("x"), maxFileBytes)
	total := []config.File{}
	for i := range maxTotalBytes/maxFileBytes + 1 {
		total = append(total, config.File{Path: fmt.Sprintf("/f/%d", i), Data: big})
	}
	with := func(change func(*Entry)) Entry {
		e := entryOf(2)
		change(&e)
		return e
	}
	for _, c := range []struct {
		name    string
		entry   Entry
		sources []config.File
		want    string
	}{
		{"a file", entryOf(2), []config.File{{Path: mainFile, Data: append(big, 'x')}}, "10485761 bytes"},
		{"files", entryOf(2), many, "10002 files"},
		{"all files", entryOf(2), total, "the files take"},
		{"no files", entryOf(2), nil, "0 files"},
		{"a relative path", entryOf(2), []config.File{{Path: "config.yaml"}}, "not an absolute path"},
		{"a path that is not UTF-8", entryOf(2), []config.File{{Path: "/\xff"}}, "not an absolute path in UTF-8"},
		{"a path twice", entryOf(2), []config.File{{Path: "/a"}, {Path: "/./a"}}, "twice"},
		{"no generation", with(func(e *Entry) { e.Generation = 0 }), sourcesOf(2), "generation 0"},
		{"no result", with(func(e *Entry) { e.Result = "unchanged" }), sourcesOf(2), `unknown result "unchanged"`},
		{"a long digest", with(func(e *Entry) { e.Digest = strings.Repeat("x", 257) }), sourcesOf(2), "too long"},
	} {
		dir := t.TempDir()
		l := openLog(t, dir)
		fill(t, l, 1, 1)
		before := namesIn(t, historyDirOf(dir))
		if err := l.Append(c.entry, c.sources); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if after := namesIn(t, historyDirOf(dir)); !reflect.DeepEqual(before, after) {
			t.Errorf("%s: %v became %v", c.name, before, after)
		}
	}
}

func TestLongListsAndTextsAreCut(t *testing.T) {
	l := openLog(t, t.TempDir())
	e := rejectedOf(1)
	e.Changes = make([]Change, maxChanges+5)
	e.Error = strings.Repeat("é", maxErrorBytes)
	mustAppend(t, l, e, nil)
	got := l.Entries()[0]
	if len(got.Changes) != maxChanges || len(got.Error) != maxErrorBytes || strings.Trim(got.Error, "é") != "" {
		t.Errorf("%d changes, %d bytes", len(got.Changes), len(got.Error))
	}
}

func TestEachMainFileHasItsOwnHistory(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	fill(t, l, 1, 2)
	other, err := Open(dir, "/home/somebody/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if n := len(other.Entries()); n != 0 || other.Generation() != 0 {
		t.Errorf("the other one has %d entries", n)
	}
	mustAppend(t, other, entryOf(1), sourcesOf(1))
	if got := generations(reopen(t, l, dir)); len(got) != 2 {
		t.Errorf("the first one has %v", got)
	}
}

func TestHistoriesOfOtherMainFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range maxOthers + 4 {
		l, err := Open(dir, fmt.Sprintf("/tmp/%d/config.yaml", i))
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, entryOf(1), sourcesOf(1))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stranger := filepath.Join(dir, "0123456789abcdef")
	if err := os.MkdirAll(filepath.Join(stranger, "precious"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(stranger, entryOf(1).At, entryOf(1).At); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, dir)
	if n := len(namesIn(t, dir)); n != 1+maxOthers+1 {
		t.Errorf("%d histories", n)
	}
	if _, err := os.Stat(filepath.Join(stranger, "precious")); err != nil {
		t.Errorf("what is not a history: %v", err)
	}
	if w := l.Warnings(); len(w) != 1 || !strings.Contains(w[0], "not removed") {
		t.Errorf("warnings %q", w)
	}
}

func TestASecondProcessCannotOpenItButLookAtIt(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	fill(t, l, 1, 2)
	if _, err := Open(dir, mainFile); !errors.Is(err, ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	p, err := Peek(dir, mainFile)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if entry, files, err := p.Last(); err != nil || entry.Generation != 2 || !reflect.DeepEqual(files, sourcesOf(2)) {
		t.Errorf("last %d, %v", entry.Generation, err)
	}
	if err := p.Append(entryOf(3), sourcesOf(3)); !errors.Is(err, errReadOnly) {
		t.Errorf("append after Peek: %v", err)
	}
}

func TestPeekChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	if _, err := Peek(dir, mainFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it made %s: %v", dir, err)
	}
	l := openLog(t, dir)
	fill(t, l, 1, 2)
	place := historyDirOf(dir)
	remains := map[string]string{newPrefix + "x": "half", fileName(sum([]byte("nobody"))): "nobody", entryName(3, 3): "damaged"}
	for name, text := range remains {
		if err := os.WriteFile(filepath.Join(place, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := namesIn(t, place)
	p, err := Peek(dir, mainFile)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if after := namesIn(t, place); !reflect.DeepEqual(before, after) {
		t.Errorf("%v became %v", before, after)
	}
	if len(p.Warnings()) != 1 || p.Generation() != 3 {
		t.Errorf("warnings %q, generation %d", p.Warnings(), p.Generation())
	}
}

func TestModesAreThoseOfSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	l := openLog(t, dir)
	fill(t, l, 1, 2)
	loosen := func(path string, mode fs.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	loosen(dir, 0o755)
	loosen(historyDirOf(dir), 0o777)
	for _, name := range namesIn(t, historyDirOf(dir)) {
		loosen(filepath.Join(historyDirOf(dir), name), 0o644)
	}
	if _, err := Peek(dir, mainFile); !errors.Is(err, errUntrusted) {
		t.Errorf("Peek of what others may write: %v", err)
	}
	l = reopen(t, l, dir)
	if err := check(l); err != nil { // reads every file
		t.Error(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAHistoryOfAnotherUserIsNotTrusted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const nobody = 65534
	dir := filepath.Join(t.TempDir(), "config")
	l := openLog(t, dir)
	fill(t, l, 1, 2)
	if err := os.Chown(filepath.Join(historyDirOf(dir), entryName(2, 2)), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	p, err := Peek(dir, mainFile)
	if err != nil {
		t.Fatal(err)
	}
	if entry, _, err := p.Last(); err != nil || entry.Generation != 1 {
		t.Errorf("last %d, %v", entry.Generation, err)
	}
	if err := errors.Join(p.Close(), l.Close(), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	for _, open := range []func(string, string) (*Log, error){Peek, Open} {
		if _, err := open(dir, mainFile); !errors.Is(err, errUntrusted) || !strings.Contains(err.Error(), "user 65534") {
			t.Errorf("the directory of another user: %v", err)
		}
	}
}

func TestConcurrentCallsAreOneAfterTheOther(t *testing.T) {
	l := openLog(t, t.TempDir())
	var wg sync.WaitGroup
	for g := uint64(1); g <= 8; g++ {
		wg.Go(func() {
			if err := l.Append(entryOf(g), sourcesOf(g)); err != nil {
				t.Error(err)
			}
			if _, _, err := l.Last(); err != nil {
				t.Error(err)
			}
			if err := check(l); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(l.Entries()); n != 8 || l.Generation() != 8 {
		t.Errorf("%d entries, generation %d", n, l.Generation())
	}
}
