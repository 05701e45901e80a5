package queue

import (
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// Account is what the store knows of an event that somebody believes accepted.
type Account struct {
	ID string
	// Known says that an event with this id was accepted.
	Known bool
	// Forgotten says that its record was let go by retention, so that nothing else is
	// known of it.
	Forgotten bool
	Pending   int
	Success   int
	Failed    int
	// Gone counts deliveries that are not in the log any more, because retention or an
	// operator took them out.
	Gone int
}

// Account looks events up by their ids, generated ones or the senders' own. Of several
// events with the same id it counts the deliveries of all.
func (s *Store) Account(ids []string) ([]Account, error) {
	out := make([]Account, 0, len(ids))
	for _, eventID := range ids {
		a, err := s.accountOf(eventID)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func (s *Store) accountOf(eventID string) (Account, error) {
	a := Account{ID: eventID}
	records, err := s.FindEvent(eventID)
	if errors.Is(err, ErrNotFound) {
		a.Forgotten, err = s.wasForgotten(eventID)
		a.Known = a.Forgotten
		return a, err
	}
	if err != nil {
		return a, err
	}
	a.Known = true
	days := s.dayList()
	err = s.view(func(txn *badger.Txn) ([]damaged, error) {
		a.Pending, a.Success, a.Failed, a.Gone = 0, 0, 0, 0
		for i := range records {
			for _, d := range records[i].Deliveries {
				state, err := stateOf(txn, days, d.Lane, records[i].Seq)
				if err != nil && !errors.Is(err, ErrNotFound) {
					return nil, err
				}
				switch {
				case err != nil:
					a.Gone++
				case state == delivery.Success:
					a.Success++
				case state == delivery.Failed:
					a.Failed++
				default:
					a.Pending++
				}
			}
		}
		return nil, nil
	})
	return a, err
}

func stateOf(txn *badger.Txn, days []dayState, lane Lane, seq uint64) (delivery.State, error) {
	p, err := locate(txn, days, lane, seq)
	switch {
	case err != nil || !p.finished:
		return delivery.Pending, err
	case p.class == classDelivered:
		return delivery.Success, nil
	}
	return delivery.Failed, nil
}

// wasForgotten reports whether an event without a record was accepted once, and is
// not lost: retention dropped the day that had it.
func (s *Store) wasForgotten(eventID string) (bool, error) {
	store, seq, generated := id.ParseEvent(eventID)
	days := s.dayList()
	if generated && store == s.id {
		s.mu.Lock()
		given := seq >= 1 && seq <= s.shown.lastSeq
		s.mu.Unlock()
		if !given {
			return false, nil
		}
		at := -1
		for i := range days {
			if days[i].firstSeq <= seq {
				at = i
			}
		}
		return at < 0 || days[at].gone&bucketBit(kindEvent, eventAccepted) != 0, nil
	}
	var found bool
	hash := hashParts(eventID)
	err := s.view(func(txn *badger.Txn) ([]damaged, error) {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{kindSenderID}})
		defer it.Close()
		for _, d := range days {
			prefix := appendSenderIDKey(nil, d.day, hash, 0)[:lenSenderID-8]
			if it.Seek(prefix); it.ValidForPrefix(prefix) {
				found = true
			}
		}
		return nil, nil
	})
	return found, err
}
