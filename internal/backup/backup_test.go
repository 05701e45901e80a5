package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/backup"
)

func written(t testing.TB, frames ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, backup.Header{Store: "0123456789", QueueFormat: 3, CreatedAt: "2025-01-15T14:32:00Z", Counts: backup.Counts{Events: 2}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := w.Frame([]byte(f)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(backup.Footer{Rows: int64(len(frames)), Counts: backup.Counts{Events: 2}}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read is every frame of a backup, and how it ended.
func read(from io.Reader) (frames []string, f backup.Footer, err error) {
	r, err := backup.NewReader(from)
	if err != nil {
		return nil, f, err
	}
	for {
		content, err := r.Next()
		if err != nil {
			return frames, r.Footer(), err
		}
		frames = append(frames, string(content))
	}
}

func TestABackupReadsBack(t *testing.T) {
	want := []string{"one", strings.Repeat("two", 1<<18), "three"}
	got, f, err := read(bytes.NewReader(written(t, want...)))
	if !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
		t.Fatalf("%d frames: %v", len(got), err)
	}
	if f.Rows != 3 || f.Events != 2 || f.Bytes != 8+3<<18 || len(f.SHA256) != 64 {
		t.Errorf("%+v", f)
	}
}

// Every prefix, and every file with one byte changed, is refused, and says where.
func TestNothingButTheWholeFileIsTakenForOne(t *testing.T) {
	whole := written(t, "one", "two", strings.Repeat("three", 50))
	refused := func(what string, file []byte) {
		t.Helper()
		_, _, err := read(bytes.NewReader(file))
		damage, damaged := errors.AsType[*backup.DamageError](err)
		_, newer := errors.AsType[*backup.VersionError](err)
		if !damaged && !newer || damaged && damage.Offset > int64(len(file)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	cases := 0
	for n := range whole {
		refused(fmt.Sprintf("the first %d bytes", n), whole[:n])
		for _, bit := range []byte{1, 0x80} {
			spoilt := slices.Clone(whole)
			spoilt[n] ^= bit
			refused(fmt.Sprintf("byte %d changed by %x", n, bit), spoilt)
			cases++
		}
		cases++
	}
	refused("something after the end", append(slices.Clone(whole), 0))
	t.Attr("cases", fmt.Sprint(cases+1))
}

func TestFramesCannotChangePlaces(t *testing.T) {
	whole := string(written(t, "one", "two"))
	one, two := strings.Index(whole, "one")-9, strings.Index(whole, "two")-9
	swapped := whole[:one] + whole[two:two+12] + whole[one:one+12] + whole[two+12:]
	_, _, err := read(strings.NewReader(swapped))
	if d, ok := errors.AsType[*backup.DamageError](err); !ok || d.Offset != int64(one) {
		t.Errorf("want damage at %d, got %v", one, err)
	}
}

func TestANewerVersionIsRefusedAsSuch(t *testing.T) {
	_, _, err := read(strings.NewReader("peanuts-relay backup 2\nwhatever it is"))
	if v, ok := errors.AsType[*backup.VersionError](err); !ok || v.Version != 2 {
		t.Errorf("got %v", err)
	}
}

func TestAnErrorOfTheFileIsNotDamage(t *testing.T) {
	broken := errors.New("no tape")
	whole := written(t, "one")
	_, _, err := read(io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), failing{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzReader(f *testing.F) {
	f.Add(written(f, "one", "two"))
	f.Add(written(f))
	f.Add([]byte("peanuts-relay backup 1\nH"))
	f.Add([]byte("peanuts-relay backup 9999999999"))
	f.Fuzz(func(t *testing.T, file []byte) {
		frames, footer, err := read(bytes.NewReader(file))
		if err == nil {
			t.Fatal("it never ends")
		}
		if !errors.Is(err, io.EOF) {
			return
		}
		// Whatever reads to its end is a backup: written anew it has the same content.
		again, _, err := read(bytes.NewReader(written(t, frames...)))
		if !errors.Is(err, io.EOF) || !slices.Equal(again, frames) || footer.SHA256 == "" {
			t.Fatalf("%d frames, then %d: %v", len(frames), len(again), err)
		}
	})
}
