package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue/rawdb"
)

const (
	// startsFile counts the starts since the last one that ended well. A damaged table
	// can end the process when a row of it is met (docs/queue.md, "Caveats"), which
	// nothing in the process can prevent.
	startsFile = "starts"
	// fewStarts is how many may end badly in a row before the tables are verified.
	fewStarts = 2
	// steadyAfter is when a start counts as one that went well.
	steadyAfter = time.Minute
)

// noteStart counts a start that is about to open the database. After a few that did
// not end well it reads all tables first, so that a damaged one is an error with a name
// and not another crash. A count that cannot be read or written is none: it only
// saves the time that reading all takes.
func noteStart(dir string) error {
	path := filepath.Join(dir, startsFile)
	text, _ := os.ReadFile(path)
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if n >= fewStarts {
		if err := verifyTables(dir); err != nil {
			return err
		}
	}
	_ = os.WriteFile(path, []byte(strconv.Itoa(n+1)+"\n"), 0o600)
	return nil
}

// endWell forgets the starts that were counted.
func endWell(dir string) { _ = os.Remove(filepath.Join(dir, startsFile)) }

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
		return &FormatError{File: filepath.Join(dir, dbDir, p.File), What: fmt.Sprintf("is damaged, and the last %d starts did not end well: %s", fewStarts, p.What),
			Remedy: damagedRemedy}
	}
	return nil
}
