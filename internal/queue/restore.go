package queue

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/backup"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
)

const (
	// restoreDir is where a store is made before it is one, within its directory.
	restoreDir = "restore.tmp"
	// A restored store goes on with numbers that no other one made from the same
	// backup, and not the one that the backup is of, has reached or will: its first is
	// this much and a random part of restoreSpread further.
	restoreGap    = 1 << 40
	restoreSpread = 1 << 56
)

// ErrNotEmpty answers a Restore into a directory that has a queue already.
var ErrNotEmpty = errors.New("there is a queue already")

// RestoreOptions say where a backup goes. Only Dir and Open are required.
type RestoreOptions struct {
	Dir string
	// Open opens the backup. It is read twice: to check it before anything is
	// written, and to restore it.
	Open func() (io.ReadCloser, error)
	// Size of the backup in bytes, to check whether there is room; 0 = not checked.
	Size     int64
	Logger   *slog.Logger // nil discards
	Now      func() time.Time
	Progress func(done int64) // bytes of the backup that were read, of twice its size; nil = nobody asks

	stat func(string) (diskState, error)
}

// CheckBackup reads a whole backup and restores nothing. Errors are a
// *[backup.DamageError], a *[backup.VersionError], a *[FormatError] for rows of a newer
// format, or that of the reader.
func CheckBackup(ctx context.Context, r io.Reader, progress func(int64)) (h backup.Header, f backup.Footer, err error) {
	var counted backup.Footer
	h, f, err = eachFrame(ctx, r, progress, func(rows []row) error {
		counted.Rows += int64(len(rows))
		return nil
	})
	if err == nil && counted.Rows != f.Rows {
		err = &backup.DamageError{What: fmt.Sprintf("its footer says %d rows, there are %d", f.Rows, counted.Rows)}
	}
	return h, f, err
}

// eachFrame calls f for the rows of each frame, which are valid during the call only.
func eachFrame(ctx context.Context, r io.Reader, progress func(int64), f func([]row) error) (h backup.Header, end backup.Footer, err error) {
	in, err := backup.NewReader(r)
	if err != nil {
		return h, end, err
	}
	if h = in.Header(); h.QueueFormat > formatNumber || h.QueueFormat < 1 {
		return h, end, &FormatError{File: "the backup", What: fmt.Sprintf("has rows of format %d, this version knows format %d", h.QueueFormat, formatNumber),
			Remedy: "install the version that wrote it"}
	}
	var rows []row
	for {
		if err := context.Cause(ctx); err != nil {
			return h, end, err
		}
		at := in.Offset()
		content, err := in.Next()
		if errors.Is(err, io.EOF) {
			return h, in.Footer(), nil
		}
		if err != nil {
			return h, end, err
		}
		if rows, err = checkedRows(content, rows[:0]); err != nil {
			return h, end, &backup.DamageError{Offset: at, What: err.Error()}
		}
		if err := f(rows); err != nil {
			return h, end, err
		}
		if progress != nil {
			progress(in.Offset())
		}
	}
}

// Restore makes a store in o.Dir from a backup. The directory must not have one: a
// *[LockedError] when a process has it open, else [ErrNotEmpty]; what a Restore that
// was interrupted left is removed. The backup is read to its end and checked before
// anything is written, and what was written is read back and compared before the store
// becomes visible, in one step. Until then FORMAT says that a restore is under way, and
// no version opens the directory.
//
// The restored store keeps the number of the one that was backed up, so that all ids
// are what they were, and what is pending is sent again under the ids that receivers
// may know. Its next event gets a number far from all that were given out, so that no
// id that the original gave out after the backup is given out again, for another
// event.
func Restore(ctx context.Context, o RestoreOptions) (f backup.Footer, err error) {
	r := &restorer{RestoreOptions: o}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.stat == nil {
		r.stat = statDisk
	}
	if err := refuseStore(o.Dir); err != nil {
		return f, err // before anything is read or made
	}
	var h backup.Header
	if err := r.read(func(in io.Reader) error { h, f, err = CheckBackup(ctx, in, r.report(0)); return err }); err != nil {
		return f, err
	}
	number, err := strconv.ParseUint(h.Store, 16, id.StoreBits)
	if err != nil {
		return f, &backup.DamageError{What: "the store's number is not readable"}
	}
	if err := r.room(); err != nil {
		return f, err
	}
	if err := makeDir(o.Dir); err != nil {
		return f, err
	}
	lock, err := lockDir(o.Dir, lockPatience)
	if err != nil {
		return f, err
	}
	defer lock.Close()
	if err := refuseStore(o.Dir); err != nil {
		return f, err
	}
	m := &marker{Format: formatNumber, Store: h.Store, Created: r.Now().UTC().Format(time.RFC3339), Initialised: true, Restoring: true}
	if err := r.begin(m); err != nil {
		return f, err
	}
	if err := r.fill(ctx, number, f); err != nil {
		return f, err
	}
	return f, r.publish(m)
}

type restorer struct {
	RestoreOptions
	sum  uint64 // rowSum of all rows that were written
	rows int64
}

// refuseStore returns nil for a directory without a queue, or with one that a restore
// did not finish.
func refuseStore(dir string) error {
	m, err := readMarkerFile(dir)
	if err != nil {
		return err
	}
	if m != nil && m.Restoring {
		return nil
	}
	for _, name := range []string{formatFile, journalFile, dbDir} {
		_, err := os.Lstat(filepath.Join(dir, name))
		if err == nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, name), ErrNotEmpty)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look into %q: %w", dir, err)
		}
	}
	return nil
}

func (r *restorer) read(f func(io.Reader) error) error {
	in, err := r.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	return f(in)
}

func (r *restorer) report(before int64) func(int64) {
	if r.Progress == nil {
		return nil
	}
	return func(n int64) { r.Progress(before + n) }
}

// room refuses a disk on which the restored store would not open.
func (r *restorer) room() error {
	at := r.Dir
	for _, err := os.Stat(at); err != nil && filepath.Dir(at) != at; _, err = os.Stat(at) {
		at = filepath.Dir(at)
	}
	d, err := r.stat(at)
	if err != nil {
		return fmt.Errorf("look at free space: %w", err)
	}
	// The rows, what merging them takes meanwhile, and what an open database needs.
	if short := d.short(r.Dir, r.Size+r.Size/2+hardLeastFree, 1); short != nil {
		return short
	}
	return nil
}

// begin says that a restore is under way, and removes what an earlier one left.
func (r *restorer) begin(m *marker) error {
	if err := writeMarker(r.Dir, m); err != nil {
		return err
	}
	for _, name := range []string{restoreDir, dbDir, journalFile} {
		if err := os.RemoveAll(filepath.Join(r.Dir, name)); err != nil {
			return fmt.Errorf("remove what an earlier restore left: %w", err)
		}
	}
	if err := forgetFormer(r.Dir); err != nil {
		return err
	}
	return makeDir(filepath.Join(r.Dir, restoreDir, dbDir))
}

// fill makes journal and database beside where they will be, compares what is in the
// database with what was read, and syncs all of it.
func (r *restorer) fill(ctx context.Context, number uint64, want backup.Footer) error {
	at := filepath.Join(r.Dir, restoreDir)
	if err := journal.Create(filepath.Join(at, journalFile), number, journalBytes); err != nil {
		return err
	}
	db, log, err := openBadger(filepath.Join(at, dbDir), r.Logger, false) // synced as a whole below
	if err != nil {
		return err
	}
	err = r.read(func(in io.Reader) error { return r.write(ctx, db, in) })
	if err == nil && r.rows != want.Rows+1 { // and the gap
		err = &backup.DamageError{What: "it is not the file any more that was checked"}
	}
	if err == nil {
		err = r.compare(ctx, db)
	}
	if err = firstError(err, db.Close(), log.poisoned()); err != nil {
		return fmt.Errorf("restore into %q: %w", r.Dir, err)
	}
	return syncAs(r.Dir, at)
}

func (r *restorer) write(ctx context.Context, db *badger.DB, in io.Reader) error {
	batch := db.NewWriteBatch()
	defer batch.Cancel()
	put := func(key, val []byte) error {
		r.rows++
		r.sum += rowSum(key, val)
		return batch.SetEntry(&badger.Entry{Key: bytes.Clone(key), Value: bytes.Clone(val)})
	}
	_, _, err := eachFrame(ctx, in, r.report(r.Size), func(rows []row) error {
		for i := range rows {
			row := &rows[i]
			if bytes.Equal(row.key, metaLedgerKey()) {
				if err := leap(row, put); err != nil {
					return err
				}
			}
			if err := put(row.key, row.val); err != nil {
				return err
			}
		}
		return nil
	})
	return firstError(err, batch.Flush())
}

// leap lets the numbers of events go on far away, and notes which are left out.
func leap(row *row, put func(key, val []byte) error) error {
	led, err := decodeLedger(row.key, row.val)
	if err != nil {
		return fmt.Errorf("the ledger: %w", err)
	}
	var random [8]byte
	rand.Read(random[:]) // never fails
	before := led.lastSeq
	led.lastSeq += restoreGap + binary.BigEndian.Uint64(random[:])%(restoreSpread-restoreGap)
	row.val = led.append(nil, row.key)
	key := metaGapKey(led.lastSeq + 1)
	return put(key, appendDue(nil, key, int64(before)))
}

// compare reads back what was written.
func (r *restorer) compare(ctx context.Context, db *badger.DB) error {
	var sum uint64
	var rows int64
	err := db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			rows++
			err := it.Item().Value(func(val []byte) error { sum += rowSum(it.Item().Key(), val); return nil })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && (sum != r.sum || rows != r.rows) {
		err = fmt.Errorf("%d rows were written, and other ones read back: the disk is not to be trusted", r.rows)
	}
	return err
}

// syncAs makes everything durable that is under a directory. As root it gives it to
// whoever the queue's directory belongs to.
func syncAs(queue, at string) error {
	uid, gid := -1, -1
	if info, err := os.Stat(queue); err == nil && os.Geteuid() == 0 {
		uid, gid = owner(info)
	}
	return filepath.WalkDir(at, func(path string, d fs.DirEntry, err error) error {
		if err == nil && uid >= 0 {
			err = os.Lchown(path, uid, gid)
		}
		if err != nil {
			return err
		}
		return journal.SyncDir(path) // a file is synced like a directory
	})
}

// publish is the commit point: journal and database are complete and durable where no
// version looks for them. They come to their places, and FORMAT says so last; a crash
// before that is a restore that was not finished.
func (r *restorer) publish(m *marker) error {
	at := filepath.Join(r.Dir, restoreDir)
	for _, name := range []string{journalFile, dbDir} {
		if err := os.Rename(filepath.Join(at, name), filepath.Join(r.Dir, name)); err != nil {
			return fmt.Errorf("restore into %q: %w", r.Dir, err)
		}
	}
	if err := firstError(os.Remove(at), journal.SyncDir(r.Dir)); err != nil {
		return fmt.Errorf("restore into %q: %w", r.Dir, err)
	}
	m.Restoring = false
	if err := writeMarker(r.Dir, m); err != nil {
		return err
	}
	info, err := os.Stat(r.Dir)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	uid, gid := owner(info)
	return firstError(os.Lchown(filepath.Join(r.Dir, formatFile), uid, gid), os.Lchown(filepath.Join(r.Dir, lockFile), uid, gid))
}

func owner(info fs.FileInfo) (uid, gid int) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return -1, -1
}
