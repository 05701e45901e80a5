package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/disktest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// Kinds of failure of a call.
const (
	lost     = "lost"                    // nothing was done
	part     = "done in part"            // half of it was
	reported = "done, but reported lost" // all of it was
)

var errInjected = errors.New("injected")

// faulty fails one call of a volume, or that one and all after it.
type faulty struct {
	volume

	kind  string
	at    int  // which call fails, from 1 on
	stays bool // and all later ones
	calls atomic.Int64
}

// fails reports whether this call is to fail.
func (f *faulty) fails() bool {
	n := int(f.calls.Add(1))
	return n == f.at || f.stays && n > f.at && f.at > 0
}

// do makes a call that has no halves.
func (f *faulty) do(call func() error) error {
	if !f.fails() {
		return call()
	}
	if f.kind == reported {
		return errors.Join(errInjected, call())
	}
	return errInjected
}

func (f *faulty) rename(from, to string) error {
	return f.do(func() error { return f.volume.rename(from, to) })
}
func (f *faulty) remove(name string) error {
	return f.do(func() error { return f.volume.remove(name) })
}
func (f *faulty) sync() error { return f.do(f.volume.sync) }

func (f *faulty) list() (names []string, err error) {
	err = f.do(func() error { names, err = f.volume.list(); return err })
	return names, err
}

func (f *faulty) read(name string, limit int64) (data []byte, err error) {
	if f.fails() {
		return nil, unix.EMFILE // of a read everything else means damage
	}
	return f.volume.read(name, limit)
}

func (f *faulty) write(files []newFile) error {
	if !f.fails() {
		return f.volume.write(files)
	}
	switch f.kind {
	case part:
		half := []newFile{}
		for _, n := range files[:(len(files)+1)/2] {
			half = append(half, newFile{n.name, n.data[:len(n.data)/2]})
		}
		return errors.Join(errInjected, f.volume.write(half))
	case reported:
		return errors.Join(errInjected, f.volume.write(files))
	}
	return errInjected
}

// faultyLog opens a history through a volume that does not fail yet.
func faultyLog(t *testing.T, dir string) (*Log, *faulty) {
	t.Helper()
	l := openLog(t, dir)
	f := &faulty{volume: l.vol}
	l.vol = f
	return l, f
}

// Every call of an Append fails once, in every way, alone or with all that
// follow. What is there afterwards, for this process and for the next, is what
// was there before, with the new entry or without it; and the next Append works.
func TestEveryFailureLeavesTheOldOrTheNew(t *testing.T) {
	for _, kind := range []string{lost, part, reported} {
		for _, stays := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stays %v", kind, stays), func(t *testing.T) {
				calls, _ := failOnce(t, kind, stays, 0)
				failed := 0
				for at := range calls {
					if _, err := failOnce(t, kind, stays, at+1); err != nil {
						failed++
					}
				}
				// Two writes, two renames, two syncs; the rest is for others to notice.
				if failed < 6 || calls < 12 {
					t.Errorf("%d of %d calls made it fail", failed, calls)
				}
			})
		}
	}
}

// failOnce lets one call, from 1 on, of an Append fail that adds a repeated
// start, and therefore has an entry to remove. It returns how many calls there
// were.
func failOnce(t *testing.T, kind string, stays bool, at int) (calls int, failure error) {
	t.Helper()
	dir := t.TempDir()
	l, f := faultyLog(t, dir)
	fill(t, l, 1, 3)
	mustAppend(t, l, entryOf(4), sourcesOf(3))
	mustAppend(t, l, entryOf(4), sourcesOf(4))
	want := []uint64{4, 4, 3, 2, 1}
	f.calls.Store(0)
	f.kind, f.at, f.stays = kind, at, stays
	failure = l.Append(entryOf(4), sourcesOf(5))
	calls = int(f.calls.Load())
	f.at = 0
	if failure != nil && !errors.Is(failure, errInjected) && !errors.Is(failure, unix.EMFILE) {
		t.Fatalf("call %d: %v", at, failure)
	}
	if got := generations(l); !slices.Equal(got, want) {
		t.Fatalf("call %d: %v after %v", at, got, failure)
	}
	last, files, err := l.Last()
	isNew := reflect.DeepEqual(files, sourcesOf(5))
	if err != nil || last.Generation != 4 || !isNew && !reflect.DeepEqual(files, sourcesOf(4)) || failure == nil && !isNew {
		t.Fatalf("call %d: last %d, new %v, %v, after %v", at, last.Generation, isNew, err, failure)
	}
	// The same process goes on, then the next one.
	mustAppend(t, l, entryOf(5), sourcesOf(5))
	noRemains(t, l, dir)
	next := reopen(t, l, dir)
	if got := generations(next); !slices.Equal(got, append([]uint64{5}, want...)) {
		t.Fatalf("call %d: afterwards %v", at, got)
	}
	for _, e := range next.entries {
		if _, err := next.files(e); err != nil {
			t.Fatalf("call %d: %v", at, err)
		}
	}
	if w := next.Warnings(); len(w) > 0 {
		t.Fatalf("call %d: %q", at, w)
	}
	noRemains(t, next, dir)
	return calls, failure
}

func TestAProcessThatDiesAfterTheFailureLeavesTheOldOrTheNew(t *testing.T) {
	for _, kind := range []string{lost, part, reported} {
		for at := 1; at < 40; at++ {
			dir := t.TempDir()
			l, f := faultyLog(t, dir)
			fill(t, l, 1, 3)
			f.calls.Store(0)
			f.kind, f.at, f.stays = kind, at, true // nothing is cleaned up
			err := l.Append(entryOf(4), sourcesOf(4))
			next := reopen(t, l, dir)
			got := next.Generation()
			if got != 3 && got != 4 || err == nil && got != 4 {
				t.Fatalf("%s, call %d: generation %d after %v", kind, at, got, err)
			}
			if err := check(next); err != nil {
				t.Fatalf("%s, call %d: %v", kind, at, err)
			}
			noRemains(t, next, dir)
		}
	}
}

func TestAFullDiskRefusesAndLosesNothing(t *testing.T) {
	at := disktest.Memory(t, 2<<20)
	dir := filepath.Join(at, "config")
	l := openLog(t, dir)
	fill(t, l, 1, 3)
	for _, free := range []int64{0, 4 << 10, 8 << 10, 12 << 10} {
		release := disktest.Fill(t, at, free)
		big := sourcesOf(4)
		big[1].Data = []byte(strings.Repeat("y", 64<<10))
		if err := l.Append(entryOf(4), big); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%d bytes free: %v", free, err)
		}
		if err := check(l); err != nil {
			t.Errorf("%d bytes free: %v", free, err)
		}
		noRemains(t, l, dir)
		release()
	}
	mustAppend(t, l, entryOf(4), sourcesOf(4))
	l = reopen(t, l, dir)
	if err := check(l); err != nil || l.Generation() != 4 {
		t.Errorf("generation %d, %v", l.Generation(), err)
	}
	if err := l.Close(); err != nil { // before the disk goes
		t.Error(err)
	}
}

func TestADirectoryThatCannotBeWrittenIsAnErrorAndLosesNothing(t *testing.T) {
	if testhost.AsUser(t) {
		return // root is refused nothing
	}
	dir := t.TempDir()
	l := openLog(t, dir)
	fill(t, l, 1, 3)
	if err := os.Chmod(historyDirOf(dir), 0o500); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(entryOf(4), sourcesOf(4)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("append: %v", err)
	}
	if err := check(l); err != nil || l.Generation() != 3 {
		t.Errorf("generation %d, %v", l.Generation(), err)
	}
	if err := check(reopen(t, l, dir)); err != nil { // which gives the mode back
		t.Error(err)
	}
	nowhere := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(nowhere, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(nowhere, "config"), mainFile); !errors.Is(err, os.ErrPermission) {
		t.Errorf("open: %v", err)
	}
}
