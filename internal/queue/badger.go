package queue

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Sizes of Badger's parts. memTableSize is a constant for ever: a database
// that was left by a crash does not open with a smaller one (docs/queue.md,
// "Caveats"). Larger parts cost five times as many bytes written.
const (
	memTableSize     = 16 << 20
	valueLogFileSize = 32 << 20
	valueThreshold   = 2 << 10
)

func badgerOptions(dir string, log *badgerLog) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(log).
		WithSyncWrites(true).       // one transaction per group: one sync, durable on return
		WithDetectConflicts(false). // the committer is the only writer
		WithNumVersionsToKeep(1).
		WithMetricsEnabled(false).
		WithMemTableSize(memTableSize).
		WithNumMemtables(3).
		WithNumLevelZeroTables(4).
		WithNumLevelZeroTablesStall(12).
		WithBaseTableSize(4 << 20).
		WithBaseLevelSize(8 << 20).
		WithNumCompactors(2).
		WithNumGoroutines(1).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(valueLogFileSize)
}

// badgerLog receives Badger's log lines. Badger reports some failures, of the
// value log's sync for one, by a line only, and acknowledges the transaction;
// so any line of level ERROR stops the store. The exceptions are lines about
// reading one value: there the row's own checksum decides.
type badgerLog struct {
	log    *slog.Logger
	poison atomic.Pointer[error]
	// unreadable is set by a damaged value-log entry. Badger keeps that file's
	// lock then, so that collecting garbage in it would wait for ever.
	unreadable atomic.Bool
}

func (l *badgerLog) Errorf(format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	for _, reading := range []string{"Unable to read: Key", "Key: %v, Version", "Invalid read: vp"} {
		if strings.HasPrefix(format, reading) {
			l.unreadable.Store(true)
			l.log.Warn("database could not read a value", "err", clip(text, maxText))
			return
		}
	}
	err := fmt.Errorf("database reported: %s", clip(text, maxText))
	l.poison.CompareAndSwap(nil, &err)
	l.log.Error("database reported an error", "err", err)
}

func (l *badgerLog) Warningf(format string, args ...any) {
	l.log.Warn("database warning", "text", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Badger's own information is about its inner workings.
func (l *badgerLog) Infof(string, ...any)  {}
func (l *badgerLog) Debugf(string, ...any) {}

// poisoned returns the first error that Badger only logged.
func (l *badgerLog) poisoned() error {
	if p := l.poison.Load(); p != nil {
		return *p
	}
	return nil
}

// openBadger opens the database after removing what a crash between creating
// and first writing a file leaves behind: such an empty file makes the first
// Open fail, the second succeed (docs/queue.md, "Caveats").
func openBadger(dir string, log *slog.Logger) (*badger.DB, *badgerLog, error) {
	if err := sweepEmpty(dir, log); err != nil {
		return nil, nil, err
	}
	bl := &badgerLog{log: log}
	db, err := badger.Open(badgerOptions(dir, bl))
	if err != nil {
		log.Warn("database did not open, trying once more", "err", err)
		if err := sweepEmpty(dir, log); err != nil {
			return nil, nil, err
		}
		bl = &badgerLog{log: log}
		if db, err = badger.Open(badgerOptions(dir, bl)); err != nil {
			return nil, nil, fmt.Errorf("open database %q: %w", dir, err)
		}
	}
	if err := bl.poisoned(); err != nil {
		_ = db.Close() // the error that counts is the one that was reported
		return nil, nil, fmt.Errorf("open database %q: %w", dir, err)
	}
	return db, bl, nil
}

// sweepEmpty removes memtable and value-log files of no length: they never
// hold data.
func sweepEmpty(dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into database: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".mem") && !strings.HasSuffix(name, ".vlog") {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() != 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove empty file: %w", err)
		}
		log.Info("removed an empty file that a crash left", "file", name)
	}
	return nil
}
