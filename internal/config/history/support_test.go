package history

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

const mainFile = "/etc/peanuts-relay/config.yaml"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashChild(dir)
		return
	}
	// Every check fills a whole history; -rapid.checks on the command line asks
	// for more.
	if err := flag.Set("rapid.checks", "15"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// sourcesOf is what the files said in one generation: a drop-in that changes
// each time, one that changes seldom, and two with the same bytes.
func sourcesOf(generation uint64) []config.File {
	dropIn := func(name, text string) config.File {
		return config.File{Path: filepath.Join(filepath.Dir(mainFile), "conf.d", name), Data: []byte(text), Mode: 0o640}
	}
	return []config.File{
		{Path: mainFile, Data: []byte("secret: ${env:SECRET}\r\nqueue: {dir: /q}\n"), Mode: 0o644},
		dropIn("10-each.yaml", fmt.Sprintf("# generation %d\n%s\n", generation, strings.Repeat("x", int(generation*7919%9000)))),
		dropIn("20-seldom.yaml", fmt.Sprintf("# %d\n", generation/7)),
		dropIn("30-same.yaml", fmt.Sprintf("# %d\n", generation/7)),
	}
}

// entryOf is an applied entry of that generation.
func entryOf(generation uint64) Entry {
	return Entry{
		Generation: generation, At: time.Unix(1_700_000_000+int64(generation), 123456789).UTC(), Trigger: "watch", UID: new(uint32(0)),
		Result: Applied, Digest: sum(fmt.Append(nil, generation)),
		Changes: []Change{{Object: "webhook", ID: "expenses.backend", Op: "changed", Fields: []string{"url", "headers.X-Env"}}},
	}
}

func rejectedOf(generation uint64) Entry {
	e := entryOf(generation)
	e.Result, e.Changes, e.Errors, e.Error = Rejected, nil, 2, "config.yaml:3:1: unknown key"
	return e
}

func openLog(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir, mainFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// reopen closes and opens, as a restart does.
func reopen(t *testing.T, l *Log, dir string) *Log {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return openLog(t, dir)
}

func mustAppend(t *testing.T, l *Log, e Entry, sources []config.File) {
	t.Helper()
	if err := l.Append(e, sources); err != nil {
		t.Fatal(err)
	}
}

// fill applies generations from to to.
func fill(t *testing.T, l *Log, from, to uint64) {
	t.Helper()
	for g := from; g <= to; g++ {
		mustAppend(t, l, entryOf(g), sourcesOf(g))
	}
}

// check fails unless everything that the log reports is whole and as it was
// appended, and it has nothing to warn of.
func check(l *Log) error {
	err := whole(l)
	for _, w := range l.Warnings() {
		err = errors.Join(err, fmt.Errorf("warning: %s", w))
	}
	return err
}

func whole(l *Log) error {
	var errs []error
	for _, e := range l.Entries() {
		want := entryOf(e.Generation)
		if e.Result == Rejected {
			want = rejectedOf(e.Generation)
		}
		want.Result = e.Result
		got := e
		got.Files = nil
		if !reflect.DeepEqual(got, want) {
			errs = append(errs, fmt.Errorf("entry of generation %d is %+v, want %+v", e.Generation, got, want))
		}
		if e.kept() {
			files, err := l.Files(e.Generation)
			if err == nil && !reflect.DeepEqual(files, sourcesOf(e.Generation)) {
				err = fmt.Errorf("files of generation %d are others", e.Generation)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// generations of the entries with files, newest first.
func generations(l *Log) []uint64 {
	var list []uint64
	for _, e := range l.Entries() {
		if e.kept() {
			list = append(list, e.Generation)
		}
	}
	return list
}

// historyDirOf is where the files are.
func historyDirOf(dir string) string { return filepath.Join(dir, place(mainFile)) }

// namesIn lists a directory.
func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// noRemains fails when there is a file that no entry needs.
func noRemains(t *testing.T, l *Log, dir string) {
	t.Helper()
	wanted := map[string]bool{}
	for _, e := range l.entries {
		wanted[e.name] = true
		for _, f := range e.Files {
			wanted[fileName(f.SHA256)] = true
		}
	}
	for _, name := range namesIn(t, historyDirOf(dir)) {
		if !wanted[name] && !strings.HasPrefix(name, damagedPrefix) {
			t.Errorf("%s is left over", name)
		}
		delete(wanted, name)
	}
	if len(wanted) > 0 {
		t.Errorf("missing: %v", wanted)
	}
}
