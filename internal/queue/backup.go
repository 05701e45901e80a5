package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/backup"
)

// backupFrame ends a frame of rows: enough of them that its header costs nothing.
const backupFrame = 256 << 10

// Backup writes the whole store as it is at one moment, beside its work: what was
// accepted before the call is in it. Rows are copied as they are, damaged ones
// included, which are counted. Memory does not grow with the store. A *[SpaceError]
// says that the disk became too full to go on; an error of w is returned as it is, and
// leaves what no reader takes for a backup. relay is the version of the program.
func (s *Store) Backup(ctx context.Context, w io.Writer, relay string) (f backup.Footer, err error) {
	defer s.panicked(&err)
	p, err := s.openSnapshot(ctx)
	if err != nil {
		return f, err
	}
	defer p.close()
	f.Counts = p.counts()
	out, err := backup.NewWriter(w, backup.Header{Store: fmt.Sprintf("%010x", s.id), QueueFormat: formatNumber,
		CreatedAt: p.at.UTC().Format(time.RFC3339), Relay: relay, Counts: f.Counts})
	if err != nil {
		return f, err
	}
	it := p.txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	var frame []byte
	for it.Rewind(); it.Valid(); it.Next() {
		if err := p.step(ctx); err != nil {
			return f, err
		}
		key := it.Item().Key()
		if !travels(key) {
			continue
		}
		val, err := it.Item().ValueCopy(nil)
		if err != nil {
			return f, p.failed(fmt.Errorf("back up queue %q: %w", s.opts.Dir, err))
		}
		if _, err := unseal(key, val); err != nil {
			f.Damaged++
		}
		f.Rows++
		if frame = appendRows(frame, []row{{key: key, val: val, op: opPut}}); len(frame) >= backupFrame {
			if err := out.Frame(frame); err != nil {
				return f, err
			}
			frame = frame[:0]
			p.worked = p.now() // the reader's time was no work
		}
	}
	if len(frame) > 0 {
		if err := out.Frame(frame); err != nil {
			return f, err
		}
	}
	return out.Close(f)
}

// travels reports whether a row means something to another directory: the mark of this
// journal and the row that is there to be dropped do not.
func travels(key []byte) bool {
	return key[0] != kindDummy && !bytes.Equal(key, metaJournalKey())
}

func (p *snapshot) counts() backup.Counts {
	c := backup.Counts{Events: p.led.events, Deliveries: p.led.deliveries}
	for _, l := range p.lanes {
		c.Success += l.success
		c.Failed += l.failed
		c.Pending += l.pending()
	}
	return c
}

// checkedRows decodes a frame and checks that it can be of a store.
func checkedRows(content []byte, rows []row) ([]row, error) {
	rows, err := decodeRows(content, rows)
	if err != nil {
		return rows, err
	}
	for i := range rows {
		if r := &rows[i]; r.op != opPut || !travels(r.key) || len(r.key) > 1<<10 {
			return rows, fmt.Errorf("a row with a key of %d bytes cannot be in a backup", len(r.key))
		}
	}
	return rows, nil
}

// rowSum adds up rows whatever their order.
func rowSum(key, val []byte) uint64 {
	h := hashParts(string(key), string(val))
	return binary.BigEndian.Uint64(h[:])
}
