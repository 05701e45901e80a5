package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/planted"
	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
)

// appendRows encodes rows for the journal.
func appendRows(to []byte, rows []row) []byte {
	for i := range rows {
		r := &rows[i]
		op := r.op
		if op == opNew { // what is new is known while it is in memory
			op = opPut
		}
		to = append(to, byte(op))
		to = binary.AppendUvarint(to, uint64(len(r.key)))
		to = append(to, r.key...)
		if op == opPut {
			to = binary.AppendUvarint(to, uint64(len(r.val)))
			to = append(to, r.val...)
		}
	}
	return to
}

// decodeRows is the inverse of appendRows; the rows refer to raw.
func decodeRows(raw []byte, rows []row) ([]row, error) {
	field := func() ([]byte, bool) {
		n, used := binary.Uvarint(raw)
		if used <= 0 || n > uint64(len(raw)-used) {
			return nil, false
		}
		f := raw[used : used+int(n) : used+int(n)]
		raw = raw[used+int(n):]
		return f, true
	}
	for len(raw) > 0 {
		r := row{op: rowOp(raw[0])}
		raw = raw[1:]
		ok := r.op == opPut || r.op == opDel
		if ok {
			r.key, ok = field()
		}
		if ok && r.op == opPut {
			r.val, ok = field()
		}
		if !ok || len(r.key) == 0 {
			return rows, errors.New("rows of the journal are not readable")
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// makeJournal makes the journal of a store that never had one.
func (s *Store) makeJournal() error {
	return journal.Create(filepath.Join(s.opts.Dir, journalFile), s.id, s.opts.journal)
}

// openJournal opens the journal and gives the database what it lacks.
func (s *Store) openJournal() error {
	path := filepath.Join(s.opts.Dir, journalFile)
	j, err := journal.Open(path, s.id)
	if err != nil {
		return journalFailed(path, err)
	}
	if s.opts.unsynced || planted.AckBeforeFsync {
		j.Unsynced()
	}
	if err := s.recover(j); err != nil {
		j.Close()
		return journalFailed(path, err)
	}
	s.c.unapplied.journal = j
	return nil
}

// journalFailed tells what an operator must look at from an error of the system.
func journalFailed(path string, err error) error {
	if d, ok := errors.AsType[*journal.DamageError](err); ok {
		return &FormatError{File: path, What: d.What, Remedy: damagedRemedy}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &FormatError{File: path, What: "is missing: what was acknowledged last can be in it", Remedy: damagedRemedy}
	}
	return err
}

func (s *Store) recover(j *journal.Journal) error {
	var applied int64
	err := s.db.View(func(txn *badger.Txn) error {
		key := metaJournalKey()
		raw, err := getCopy(txn, key)
		if err == nil && raw != nil {
			applied, err = decodeDue(key, raw)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read the journal's mark: %w", err)
	}
	b, records := &batch{}, 0
	flush := func() error {
		if len(b.rows) == 0 || planted.NoCatchUp {
			return nil
		}
		failpoint.Here("recover.read")
		err := firstError(failpoint.Call("recover.apply", func() error { return b.apply(s.db) }), s.blog.poisoned())
		b.reset()
		return err
	}
	err = j.Recover(uint64(applied), func(number uint64, content []byte) (err error) {
		records++
		if b.rows, err = decodeRows(content, b.rows); err != nil {
			return &journal.DamageError{What: fmt.Sprintf("has a record %d that is not readable", number)}
		}
		b.last = number
		if b.size += len(content); b.size < applyBytes && len(b.rows) < applyRows {
			return nil
		}
		return flush()
	})
	if err = firstError(err, flush()); err == nil && records > 0 {
		s.log.Info("took over what the last run had made durable in its journal", "groups", records)
	}
	return err
}
