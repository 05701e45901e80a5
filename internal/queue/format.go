package queue

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
)

const (
	// formatNumber grows when a former version could not read what this one
	// writes. Of 2 are the s rows, crashes in pending rows, and what a sink says of
	// an attempt; of 3 is the journal. What 1 and 2 wrote is read as it is.
	formatNumber = 3
	formatFile   = "FORMAT"
	lockFile     = "LOCK"
	dbDir        = "db"
	manifestFile = "MANIFEST" // Badger's list of its own files

	// damagedRemedy is what to do about damage.
	damagedRemedy = "run peanuts-relay fsck, which says what is lost, and with --repair saves the rest; or restore the directory from a backup"

	// lockPatience is how long a lock is waited for. Who gave it up may have been
	// starting another process, which has a copy of it between its fork and its exec.
	lockPatience = 500 * time.Millisecond
)

// marker is the content of FORMAT. It exists before the database does and says
// whether the database was completed, so that an empty or missing database can
// be told from a new one: Badger itself opens a directory without MANIFEST as
// an empty database.
type marker struct {
	Format      int    `json:"format"`
	Store       string `json:"store"` // number, 10 hexadecimal digits
	Created     string `json:"created"`
	Initialised bool   `json:"initialised"`
	// Restoring says that journal and database are being made from a backup. A version
	// that does not know it finds no database, and refuses for that.
	Restoring bool `json:"restoring,omitempty"`
}

func (m *marker) storeID() (uint64, error) { return strconv.ParseUint(m.Store, 16, id.StoreBits) }

// LockedError says that another process has the store open.
type LockedError struct {
	Dir string
	PID int // 0 = not known
}

func (e *LockedError) Error() string {
	if e.PID != 0 {
		return fmt.Sprintf("queue %q is in use by process %d", e.Dir, e.PID)
	}
	return fmt.Sprintf("queue %q is in use by another process", e.Dir)
}

// lockDir takes the store for this process until the file is closed or the
// process ends, however it ends. It waits for the lock for as long as patience.
func lockDir(dir string, patience time.Duration) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for deadline := time.Now().Add(patience); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(deadline); {
		time.Sleep(lockPatience / 50)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		text := make([]byte, 32)
		n, _ := f.ReadAt(text, 0) // whoever holds the lock wrote it; a short read is normal
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %q: %w", path, err)
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n]))) // 0 when it is not a number
		return nil, &LockedError{Dir: dir, PID: pid}
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("write lock file: %w", err)
		}
	}
	return f, nil
}

// makeDir makes a directory that only its owner can enter, whatever the umask,
// and those above it that are missing. Each is synced into the one above it: a
// power cut must not take away a directory that holds what was acknowledged.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if above := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && above != dir {
		if err := makeDir(above); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(dir, 0o700) // #nosec G302 -- a directory
	}
	if err == nil {
		err = failpoint.Call("create.directory", func() error { return journal.SyncDir(filepath.Dir(dir)) })
	}
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return nil
}

// readMarker returns nil without an error when there is no FORMAT.
func readMarker(dir string) (*marker, error) {
	m, err := readMarkerFile(dir)
	if m != nil && m.Restoring {
		return nil, &FormatError{File: filepath.Join(dir, formatFile), What: "a restore into this directory was not finished",
			Remedy: "run peanuts-relay restore again, or move the directory away to start an empty queue"}
	}
	return m, err
}

// readMarkerFile is readMarker for whoever may go on with a restore.
func readMarkerFile(dir string) (*marker, error) {
	path := filepath.Join(dir, formatFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read format of queue: %w", err)
	}
	var m marker
	if err := json.Unmarshal(text, &m); err != nil || m.Format < 1 {
		return nil, &FormatError{File: path, What: "does not say the format of this queue",
			Remedy: damagedRemedy}
	}
	if m.Format > formatNumber {
		return nil, &FormatError{File: path, What: fmt.Sprintf("format %d is newer than the format %d that this version knows", m.Format, formatNumber),
			Remedy: "install the version that wrote it, or restore a backup made before the upgrade", newer: true}
	}
	if _, err := m.storeID(); err != nil {
		return nil, &FormatError{File: path, What: "the store's number is not readable",
			Remedy: damagedRemedy}
	}
	return &m, nil
}

// writeMarker replaces FORMAT as a whole: a crash leaves the old or the new.
func writeMarker(dir string, m *marker) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode format of queue: %w", err)
	}
	tmp := filepath.Join(dir, formatFile+".tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write format of queue: %w", err)
	}
	failpoint.Torn("format.write", f, text, 0)
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = failpoint.Call("format.sync", func() error { return f.Sync() })
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = failpoint.Call("format.rename", func() error { return os.Rename(tmp, filepath.Join(dir, formatFile)) })
	}
	if err == nil {
		err = failpoint.Call("format.sync-dir", func() error { return journal.SyncDir(dir) })
	}
	if err != nil {
		return fmt.Errorf("write format of queue: %w", err)
	}
	return nil
}

// prepare reads or makes FORMAT and checks that the database beside it can be
// the one it speaks of. Of an existing store it changes nothing.
func prepare(dir string, now time.Time) (*marker, error) {
	m, err := readMarker(dir)
	if err != nil {
		return nil, err
	}
	db := filepath.Join(dir, dbDir)
	entries, err := os.ReadDir(db)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look into database: %w", err)
	}
	if m == nil {
		if len(entries) > 0 {
			return nil, &FormatError{File: filepath.Join(dir, formatFile), What: "is missing although " + db + " holds a database",
				Remedy: damagedRemedy}
		}
		var number [8]byte
		rand.Read(number[:]) // never fails
		m = &marker{Format: formatNumber, Created: now.UTC().Format(time.RFC3339),
			Store: fmt.Sprintf("%010x", binary.BigEndian.Uint64(number[:])>>(64-id.StoreBits))}
		if err := writeMarker(dir, m); err != nil {
			return nil, err
		}
	}
	if m.Initialised {
		if _, err := os.Stat(filepath.Join(db, manifestFile)); errors.Is(err, fs.ErrNotExist) {
			return nil, &FormatError{File: filepath.Join(db, manifestFile), What: "is missing, so the database would open empty",
				Remedy: damagedRemedy}
		} else if err != nil {
			return nil, fmt.Errorf("look into database: %w", err)
		}
	}
	return m, makeDir(db)
}
