package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/queue/rawdb"
)

const (
	// startsFile counts the starts since the last stop that went well. A damaged table
	// can end the process when a row of it is met (docs/queue.md, "Caveats"), which
	// nothing in the process can prevent.
	startsFile = "starts"
	// fewStarts is how many may end badly in a row before the tables are verified, and
	// someStarts is after how many more that is done again.
	fewStarts  = 2
	someStarts = 4
)

// noteStart counts a start that is about to open the database. After a few that did
// not end well it reads all tables first, so that a damaged one is an error with a name
// and not another crash. A count that cannot be read or written is none: it only
// saves the time that reading all takes.
func noteStart(dir string) error {
	text, _ := os.ReadFile(filepath.Join(dir, startsFile))
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if n == fewStarts || n > 0 && n%someStarts == 0 {
		if err := verifyTables(dir); err != nil {
			return err
		}
	}
	writeStarts(dir, n+1)
	return nil
}

func writeStarts(dir string, n int) {
	_ = os.WriteFile(filepath.Join(dir, startsFile), []byte(strconv.Itoa(n)+"\n"), 0o600) // see noteStart
}

// endWell forgets the starts that were counted.
func endWell(dir string) { _ = os.Remove(filepath.Join(dir, startsFile)) }

// panicked is deferred by whoever reads. The database panics on a damaged block; the
// store stops then like after any storage error, and the next start verifies the tables.
func (s *Store) panicked(err *error) {
	p := recover()
	if p == nil {
		return
	}
	writeStarts(s.opts.Dir, fewStarts)
	s.log.Error("reading the queue panicked", "err", clip(fmt.Sprint(p), maxText), "stack", string(debug.Stack()))
	s.fail(fmt.Errorf("read queue %q: the database panicked: %s", s.opts.Dir, clip(fmt.Sprint(p), maxText)))
	*err = s.stopped()
}

// verifyTables compares the checksums of everything in the database's files.
func verifyTables(dir string) error {
	raw, err := rawdb.Open(filepath.Join(dir, dbDir), nil)
	if err != nil {
		return err
	}
	defer raw.Close()
	if err := raw.Verify(); err != nil {
		return err
	}
	for _, p := range raw.Problems() {
		if p.Torn {
			continue
		}
		return &FormatError{File: filepath.Join(dir, dbDir, p.File), What: fmt.Sprintf("is damaged, and the last starts did not end well: %s", p.What),
			Remedy: damagedRemedy}
	}
	return nil
}
