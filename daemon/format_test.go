package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/cli"
)

// digests is the content of every file below dir but LOCK, which names the process
// that looked.
func digests(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == "LOCK" {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		fmt.Fprintf(&b, "%s %x\n", name, sha256.Sum256(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Each row spoils a queue that was in use. The daemon must not start on it, say
// which file is at fault and what to do, and leave everything for whoever
// repairs it.
func TestAQueueThatCannotBeUsedIsRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	write := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.RemoveAll(filepath.Join(dir, name)) }
	}
	const other = `{"format":1,"store":"00000000aa","created":"2025-01-01T00:00:00Z","initialised":true}`
	for name, c := range map[string]struct {
		spoil  func(dir string) error
		file   string // that the message names
		remedy string
		opened bool // it can only be seen by opening the database, which repairs itself
	}{
		"a newer format":          {write("FORMAT", `{"format":1000000,"store":"00000000aa","initialised":true}`), "data/FORMAT", "install the version that wrote it", false},
		"FORMAT is no JSON":       {write("FORMAT", "hello"), "data/FORMAT", "peanuts-relay fsck", false},
		"FORMAT is empty":         {write("FORMAT", ""), "data/FORMAT", "peanuts-relay fsck", false},
		"FORMAT is zeroes":        {write("FORMAT", strings.Repeat("\x00", 100)), "data/FORMAT", "peanuts-relay fsck", false},
		"FORMAT names no store":   {write("FORMAT", `{"format":1,"initialised":true}`), "data/FORMAT", "peanuts-relay fsck", false},
		"FORMAT is missing":       {remove("FORMAT"), "data/FORMAT", "peanuts-relay fsck", false},
		"MANIFEST is missing":     {remove("db/MANIFEST"), "data/db/MANIFEST", "peanuts-relay fsck", false},
		"the database is missing": {remove("db"), "data/db/MANIFEST", "peanuts-relay fsck", false},
		"MANIFEST is garbage":     {write("db/MANIFEST", "garbage that is no manifest at all"), "data/db", "peanuts-relay fsck", true},
		"MANIFEST is empty":       {write("db/MANIFEST", ""), "data/db", "peanuts-relay fsck", true},
		"the journal is missing":  {remove("journal"), "data/journal", "peanuts-relay fsck", true},
		"the journal is cut off":  {func(dir string) error { return os.Truncate(filepath.Join(dir, "journal"), 5000) }, "data/journal", "peanuts-relay fsck", true},
		"the journal is garbage":  {write("journal", "garbage that is no journal at all"), "data/journal", "peanuts-relay fsck", true},
		"another store's FORMAT":  {write("FORMAT", other), "data/db", "of the same store", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "", crashWebhooks(r))
			var next atomic.Int64
			p := s.up()
			s.answers(newLedger(), &next, http.StatusAccepted)
			p.stop()
			if err := c.spoil(s.data); err != nil {
				t.Fatal(err)
			}
			before := digests(t, s.data)
			p = s.start()
			if code := p.wait(); code != cli.ExitStoreFormat {
				t.Errorf("ended with %d", code)
			}
			if said := p.output(); !strings.Contains(said, c.file) || !strings.Contains(said, c.remedy) {
				t.Errorf("said %q", said)
			}
			if after := digests(t, s.data); !c.opened && after != before {
				t.Errorf("changed from\n%s\nto\n%s", before, after)
			}
		})
	}
}
