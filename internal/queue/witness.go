package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// witnessFile says, outside the database, how far it had come.
const witnessFile = "committed"

const witnessLen = 8 + 8 + 4

// witness notices that a database is of an earlier moment than what was acknowledged:
// when a file that had the newest rows is gone, nothing inside can say so. It is written
// after each group and never synced: it may lag behind after a power cut, and is
// never ahead. Owned by the committer.
type witness struct {
	f   *os.File
	buf [witnessLen]byte
}

// progressOf is what a witness says.
type progressOf struct {
	groups  uint64
	lastSeq uint64
}

// readWitness returns zeros for one that is missing or cannot be believed.
func readWitness(dir string) (p progressOf, damaged bool) {
	text, err := os.ReadFile(filepath.Join(dir, witnessFile))
	if err != nil || len(text) == 0 {
		return p, err != nil && !errors.Is(err, os.ErrNotExist)
	}
	if len(text) != witnessLen || crc32.Checksum(text[:16], castagnoli()) != binary.BigEndian.Uint32(text[16:]) {
		return p, true
	}
	return progressOf{binary.BigEndian.Uint64(text), binary.BigEndian.Uint64(text[8:])}, false
}

// forgetFormer is for a store that is made anew, in which nothing was accepted: what
// speaks of a former one must not be compared with it.
func forgetFormer(dir string) error {
	for _, name := range []string{witnessFile, lanesFile, startsFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget how far a former queue had come: %w", err)
		}
	}
	return nil
}

// openWitness compares what was loaded with it, and keeps it open.
func (s *Store) openWitness() error {
	if s.opts.unsynced {
		return nil
	}
	path := filepath.Join(s.opts.Dir, witnessFile)
	p, damaged := readWitness(s.opts.Dir)
	if damaged {
		s.log.Warn("what says how far the queue had come is damaged; it is made anew", "file", path)
	}
	if have := uint64(s.led.groups); have < p.groups {
		return &FormatError{File: filepath.Join(s.opts.Dir, dbDir), What: fmt.Sprintf(
			"the database is of an earlier moment than what was acknowledged: %d groups are missing, and up to %d events", p.groups-have, p.lastSeq-min(p.lastSeq, s.led.lastSeq)),
			Remedy: damagedRemedy + "; if you put an older copy of the queue here on purpose, remove " + path}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open %q: %w", path, err)
	}
	if err := f.Truncate(witnessLen); err != nil {
		f.Close()
		return fmt.Errorf("open %q: %w", path, err)
	}
	s.witness.f = f
	return s.witness.note(&s.led)
}

// noteProgress says how far the store has come, after each group.
func (s *Store) noteProgress() error {
	return failpoint.Call("commit.witness", func() error { return s.witness.note(&s.led) })
}

// note says that a group is durable.
func (w *witness) note(led *ledger) error {
	if w.f == nil {
		return nil
	}
	binary.BigEndian.PutUint64(w.buf[:], uint64(led.groups))
	binary.BigEndian.PutUint64(w.buf[8:], led.lastSeq)
	binary.BigEndian.PutUint32(w.buf[16:], crc32.Checksum(w.buf[:16], castagnoli()))
	if _, err := w.f.WriteAt(w.buf[:], 0); err != nil {
		return fmt.Errorf("write how far the queue has come: %w", err)
	}
	return nil
}

func (w *witness) Close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}
