package queue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each row breaks a closed, healthy store; opening must name the file and the
// remedy and change nothing.
func TestWhatCannotBeOpenedIsRefusedWithFileAndRemedy(t *testing.T) {
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name string
		do   func(*testing.T, string)
		file string
		what string
	}{
		{"newer format", write("FORMAT", `{"format":1000000,"store":"00000000aa","initialised":true}`), "FORMAT", "newer"},
		{"format is not JSON", write("FORMAT", "hello"), "FORMAT", "does not say"},
		{"format is empty", write("FORMAT", ""), "FORMAT", "does not say"},
		{"format without a store", write("FORMAT", `{"format":1,"initialised":true}`), "FORMAT", "number"},
		{"database without format", remove("FORMAT"), "FORMAT", "missing"},
		{"manifest missing", remove("db/MANIFEST"), "MANIFEST", "missing"},
		{"database missing", remove("db"), "MANIFEST", "missing"},
		{"another store", write("FORMAT", `{"format":1,"store":"00000000aa","initialised":true}`), "db", "another store"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			h.accept(testEvent(1, h.lane("x.a")...))
			h.close()
			c.do(t, h.opts.Dir)
			before := listing(t, h.opts.Dir)
			_, err := Open(context.Background(), h.opts)
			fe, ok := errors.AsType[*FormatError](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			if !strings.HasSuffix(fe.File, c.file) || !strings.Contains(fe.What, c.what) || fe.Remedy == "" {
				t.Errorf("%+v", fe)
			}
			if after := listing(t, h.opts.Dir); c.file != "db" && before != after {
				t.Errorf("changed from\n%s\nto\n%s", before, after)
			}
		})
	}
}

func TestAnEmptyDatabaseUnderAnInitialisedFormatIsRefused(t *testing.T) {
	a, b := newHarness(t), newHarness(t)
	a.close()
	b.close()
	db, _, err := openBadger(filepath.Join(a.opts.Dir, dbDir), a.opts.withDefaults().Logger, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.DropAll(); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := Open(context.Background(), a.opts); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("got %v", err)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && filepath.Base(path) != lockFile && !info.IsDir() {
			b.WriteString(path + " " + info.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestASecondOpenNamesTheProcess(t *testing.T) {
	h := newHarness(t)
	_, err := Open(context.Background(), h.opts)
	le, ok := errors.AsType[*LockedError](err)
	if !ok || le.PID != os.Getpid() {
		t.Errorf("got %v", err)
	}
}

func TestACrashWhileInitialisingIsRepaired(t *testing.T) {
	h := newHarness(t)
	number := h.StoreID()
	h.close()
	m, err := readMarker(h.opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	m.Initialised = false
	if err := writeMarker(h.opts.Dir, m); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(h.opts.Dir, dbDir)); err != nil {
		t.Fatal(err)
	}
	h.open()
	mustEqual(t, "store number", h.StoreID(), number)
	h.accept(testEvent(1, h.lane("x.a")...))
	h.reopen()
	mustEqual(t, "events", h.Stats().Events, 1)
}

func TestEmptyFilesOfACrashAreSwept(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")
	h.accept(testEvent(1, lane...))
	h.close()
	for _, name := range []string{"00099.mem", "000099.vlog"} {
		if err := os.WriteFile(filepath.Join(h.opts.Dir, dbDir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.open()
	mustSeqs(t, "ready", h.ready(lane[0]), 1)
}

func TestDirectoriesArePrivateWhateverTheUmask(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	h := newHarness(t)
	for name, want := range map[string]os.FileMode{"": 0o700, dbDir: 0o700, formatFile: 0o600, lockFile: 0o600} {
		info, err := os.Stat(filepath.Join(h.opts.Dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v, %v", name, info.Mode(), err)
		}
	}
}

// A process that is being started has a copy of a lock between its fork and its exec.
func TestALockThatIsGivenUpIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	held, err := lockDir(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(dir, 0); err == nil {
		t.Fatal("it was locked twice")
	}
	time.AfterFunc(20*time.Millisecond, func() { held.Close() })
	got, err := lockDir(dir, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
}
