package queue

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// Sizes of Badger's parts. memTableSize is a constant for ever: a database
// that was left by a crash does not open with a smaller one (docs/queue.md,
// "Caveats"). Larger parts cost five times as many bytes written.
const (
	memTableSize     = 16 << 20
	valueLogFileSize = 32 << 20
	valueThreshold   = 2 << 10
	tableSize        = 4 << 20
	// baseLevelSize is what level zero is merged into: about as much as comes from
	// there at a time, four tables of a memtable each. Less, and there are more levels
	// below, each of which writes everything once more; more, and a merge writes
	// older rows again that only lie between those that came.
	baseLevelSize = 64 << 20
)

func badgerOptions(dir string, log *badgerLog, sync bool) badger.Options {
	o := badger.DefaultOptions(dir).
		WithLogger(log).
		WithSyncWrites(sync).       // one transaction per group: one sync, durable on return
		WithDetectConflicts(false). // the committer is the only writer
		WithNumVersionsToKeep(1).
		WithMetricsEnabled(false).
		WithMemTableSize(memTableSize).
		WithNumMemtables(1). // each is 21 MiB of heap; more only hide a flood from the disk for longer
		WithNumLevelZeroTables(4).
		WithNumLevelZeroTablesStall(12).
		WithBaseTableSize(tableSize).
		WithBaseLevelSize(baseLevelSize).
		WithNumCompactors(2).
		WithNumGoroutines(1).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithValueThreshold(valueThreshold).
		WithVerifyValueChecksum(true). // of a value that is not one it keeps a lock, and closing waits for that for ever
		WithValueLogFileSize(valueLogFileSize)
	// A table is built in memory of twice its size, and Badger keeps the memory of
	// eight builders. By default tables double in size from level to level: then a
	// backlog of a million costs 250 MB that way.
	o.TableSizeMultiplier = 1
	return o
}

// badgerLog receives Badger's log lines. Badger reports some failures, of the
// value log's sync for one, by a line only, and acknowledges the transaction;
// so any line of level ERROR stops the store. The exceptions are lines about
// reading one value: there the row's own checksum decides.
type badgerLog struct {
	log    *slog.Logger
	poison atomic.Pointer[error]
	alarm  chan struct{} // closed with the first error, so that an idle store hears of it too
	// unreadable is set by a damaged value-log entry. Badger keeps that file's
	// lock then, so that collecting garbage in it would wait for ever.
	unreadable atomic.Bool
}

func newBadgerLog(log *slog.Logger) *badgerLog {
	return &badgerLog{log: log, alarm: make(chan struct{})}
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
	l.stop(text)
}

// stop makes the first of these the last thing that the store did.
func (l *badgerLog) stop(text string) {
	err := fmt.Errorf("database reported: %s", clip(text, maxText))
	if l.poison.CompareAndSwap(nil, &err) {
		close(l.alarm)
	}
	l.log.Error("database reported an error", "err", err)
}

// Warningf stops the store as well when the warning is about an error: Badger
// only warns of a compaction that failed, and then goes on behind what may be a
// hole in its list of files. That there was nothing to compact is no error.
func (l *badgerLog) Warningf(format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	for _, arg := range args {
		if err, ok := arg.(error); ok && !nothingToCompact(err) {
			l.stop(text)
			return
		}
	}
	l.log.Warn("database warning", "text", clip(text, maxText))
}

// nothingToCompact tells Badger's errFillTables (levels.go), which it does not
// export, from a failure.
func nothingToCompact(err error) bool { return strings.Contains(err.Error(), "Unable to fill tables") }

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
// Open fail, the second succeed (docs/queue.md, "Caveats"). sync is true but in
// a test.
func openBadger(dir string, log *slog.Logger, sync bool) (*badger.DB, *badgerLog, error) {
	if err := firstError(sweepEmpty(dir, log), sweepState(dir, log)); err != nil {
		return nil, nil, err
	}
	failpoint.Here("open.swept")
	readTails(dir)
	bl := newBadgerLog(log)
	db, err := badger.Open(badgerOptions(dir, bl, sync))
	if err != nil {
		log.Warn("database did not open, trying once more", "err", err)
		if err := sweepEmpty(dir, log); err != nil {
			return nil, nil, err
		}
		bl = newBadgerLog(log)
		if db, err = badger.Open(badgerOptions(dir, bl, sync)); err != nil {
			return nil, nil, openFailed(dir, err)
		}
	}
	if err := bl.poisoned(); err != nil {
		_ = db.Close() // the error that counts is the one that was reported
		return nil, nil, fmt.Errorf("open database %q: %w", dir, err)
	}
	return db, bl, nil
}

// openFailed tells a disk or a system that failed from a database that cannot be
// read: the first may work at the next start, the second needs an operator.
// Badger's errors are text (y.Wrap, error.go).
func openFailed(dir string, err error) error {
	for _, of := range [...]syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
		syscall.EROFS, syscall.EAGAIN, syscall.EINTR, syscall.EUCLEAN, syscall.ESHUTDOWN, syscall.EACCES, syscall.EPERM} {
		if strings.Contains(err.Error(), of.Error()) {
			return fmt.Errorf("open database %q: %w (%w)", dir, err, of)
		}
	}
	if strings.Contains(err.Error(), "Cannot acquire directory lock") {
		return fmt.Errorf("open database %q: %w", dir, err)
	}
	return &FormatError{File: dir, What: "the database is damaged: " + clip(err.Error(), maxText),
		Remedy: damagedRemedy}
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
