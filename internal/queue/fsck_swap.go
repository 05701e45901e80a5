package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
)

const (
	buildingDir      = "repairing"   // a repaired store that is not complete
	repairedPrefix   = "repaired-"   // a complete one that is to take the former one's place
	quarantinePrefix = "quarantine-" // what was put aside, at the same time
)

// storeFiles are what a repair replaces, in the order in which that is done.
func storeFiles() [3]string { return [...]string{dbDir, journalFile, formatFile} }

// finishSwap puts a repaired store that is complete in the place of the former one,
// which goes into the directory of what was put aside. The directory's name is the
// commit point: a crash before it leaves the former store, a crash after it is
// continued here, by the next start or check. Each step is done once, whatever was
// done before. The lock is held.
func finishSwap(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into queue: %w", err)
	}
	for _, e := range entries {
		if at, ok := strings.CutPrefix(e.Name(), repairedPrefix); ok && e.IsDir() {
			if err := swapIn(dir, e.Name(), quarantinePrefix+at); err != nil {
				return fmt.Errorf("put the repaired queue in place: %w", err)
			}
		}
	}
	return nil
}

func swapIn(dir, repaired, aside string) error {
	if err := makeDir(filepath.Join(dir, aside)); err != nil {
		return err
	}
	for _, name := range storeFiles() {
		from, to, former := filepath.Join(dir, repaired, name), filepath.Join(dir, name), filepath.Join(dir, aside, name)
		if !there(from) {
			continue // done before
		}
		if there(to) {
			if err := os.Rename(to, former); err != nil {
				return err
			}
		}
		if err := errors.Join(journal.SyncDir(filepath.Join(dir, aside)), os.Rename(from, to), journal.SyncDir(dir)); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dir, repaired)); err != nil {
		return err
	}
	return journal.SyncDir(dir)
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
