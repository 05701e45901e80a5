package queue

import (
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// raiseMarks moves a lane's marks past what was deleted. It is right by
// construction: the mark becomes the first row that still exists, and every
// row that appears later is either younger or lowers the mark itself.
func (s *Store) raiseMarks(lanes []Lane) {
	for _, lane := range lanes {
		l := s.lanes[lane] // only this goroutine changes the map
		if l.moved < raiseEvery {
			continue
		}
		failpoint.Here("marks.raise")
		if s.settle() != nil {
			return
		}
		err := s.db.View(func(txn *badger.Txn) error {
			ready := firstAtOrAfter(txn, appendLaneSeq(nil, kindReady, lane, l.readyMark), lenLaneSeq-8)
			returning := firstAtOrAfter(txn, appendLaneSeq(nil, kindReturning, lane, l.returningMark), lenLaneSeq-8)
			waiting := firstAtOrAfter(txn, appendWaitingKey(nil, lane, l.waitingMark, 0), lenLaneSeq-8)
			var following []byte
			if l.following > 0 {
				following = firstAtOrAfter(txn, appendLaneSeq(nil, kindFollowing, lane, l.followingMark), lenLaneSeq-8)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			l.moved = 0
			l.readyMark, l.returningMark, l.waitingMark = s.led.lastSeq+1, s.led.lastSeq+1, s.Now()
			if ready != nil {
				l.readyMark = tail8(ready)
			}
			if returning != nil {
				l.returningMark = tail8(returning)
			}
			if waiting != nil {
				l.waitingMark, _ = splitWaiting(waiting)
			}
			if following != nil {
				l.followingMark = tail8(following)
			}
			return nil
		})
		if err != nil {
			s.fail(fmt.Errorf("read queue %q: %w", s.opts.Dir, err))
			return
		}
	}
}

// firstAtOrAfter returns the first key at or after key with the same leading
// bytes, nil when there is none.
func firstAtOrAfter(txn *badger.Txn, key []byte, same int) []byte {
	prefix := key[:same]
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	if it.Seek(key); !it.ValidForPrefix(prefix) {
		return nil
	}
	return slices.Clone(it.Item().Key())
}
