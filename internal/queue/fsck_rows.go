package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"sort"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
	"github.com/peanutsapp/peanuts-relay/internal/queue/rawdb"
)

// overlay is the newest changes of the journal that the database does not have,
// sorted by key.
type overlay []row

// readJournal reads what the journal has and the database does not. A missing record
// is a problem; those behind it are taken nevertheless, since rows are whole values.
func (f *fsck) readJournal(ctx context.Context) error {
	if f.format < 3 {
		return nil
	}
	records, _, damage, err := journal.Salvage(filepath.Join(f.o.Dir, journalFile), f.store)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		damage = "is missing: what was acknowledged last can have been in it"
	case err != nil:
		return err
	}
	if damage != "" {
		f.holes = true
		f.problem(journalFile, damage, "")
	}
	applied, err := f.journalMark(ctx)
	if err != nil {
		return err
	}
	next, at := applied+1, map[string]int{}
	for _, r := range records {
		if r.Number < next {
			continue
		}
		if r.Number > next {
			f.holes = true
			f.problem(journalFile, fmt.Sprintf("records %d to %d are missing or damaged", next, r.Number-1), "")
		}
		next = r.Number + 1
		rows, err := decodeRows(r.Content, nil)
		if err != nil {
			f.problem(journalFile, fmt.Sprintf("record %d is not readable", r.Number), "")
		}
		for _, r := range rows {
			if i, ok := at[string(r.key)]; ok {
				f.over[i] = r
				continue
			}
			at[string(r.key)] = len(f.over)
			f.over = append(f.over, r)
		}
	}
	sort.Slice(f.over, func(i, j int) bool { return bytes.Compare(f.over[i].key, f.over[j].key) < 0 })
	return nil
}

// journalMark is the number of the last record that the database has.
func (f *fsck) journalMark(ctx context.Context) (uint64, error) {
	var applied int64
	err := f.raw.Rows(ctx, metaJournalKey(), func(r rawdb.Row) error {
		applied, _ = decodeDue(r.Key, r.Value) // damage is reported with all rows
		return nil
	})
	return uint64(applied), err
}

// journalStore is the store that the journal says it is of, 0 when it says nothing.
func (f *fsck) journalStore() uint64 {
	_, of, _, err := journal.Salvage(filepath.Join(f.o.Dir, journalFile), 0)
	if err != nil {
		return 0
	}
	return of
}

// eachRow calls f for every row with a prefix as the store would have it after a start.
func (f *fsck) eachRow(ctx context.Context, prefix []byte, do func(rawdb.Row) error) error {
	if f.o.trusting {
		do = trusting(do)
	}
	i := sort.Search(len(f.over), func(i int) bool { return bytes.Compare(f.over[i].key, prefix) >= 0 })
	put := func() error {
		r := f.over[i]
		i++
		if r.op == opDel || !bytes.HasPrefix(r.key, prefix) {
			return nil
		}
		return do(rawdb.Row{Key: r.key, Value: r.val, Version: 1<<64 - 1})
	}
	err := f.raw.Rows(ctx, prefix, func(r rawdb.Row) error {
		for i < len(f.over) && bytes.Compare(f.over[i].key, r.Key) < 0 {
			if err := put(); err != nil {
				return err
			}
		}
		if i < len(f.over) && bytes.Equal(f.over[i].key, r.Key) {
			return put()
		}
		return do(r)
	})
	for err == nil && i < len(f.over) {
		err = put()
	}
	return err
}

// trusting gives rows the checksums that they ought to have.
func trusting(do func(rawdb.Row) error) func(rawdb.Row) error {
	return func(r rawdb.Row) error {
		if n := len(r.Value) - crc32.Size; n > 0 {
			r.Value = seal(bytes.Clone(r.Value[:n]), 0, r.Key)
		}
		return do(r)
	}
}

// keyFits reports whether a key has the form of its kind, so that it can be split.
func keyFits(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	n := len(key)
	switch key[0] {
	case kindReady, kindReturning, kindDue, kindFollowing:
		return n == lenLaneSeq
	case kindWaiting:
		return n == lenLaneSeq+8
	case kindLine:
		return n == lenLine || n == lenFollower
	case kindEvent, kindFormer:
		return n == lenEvent
	case kindFinished:
		return n == lenFinished && key[1] <= classFailed
	case kindAttempt:
		return n == lenAttempt || n == lenAttempt+1
	case kindRepeat:
		return n == 1+2+16
	case kindSenderID:
		return n == lenSenderID
	case kindTemplate:
		return n == 1+8
	case kindLane:
		return n == 1+4
	case kindDay:
		return n == 1+2
	case kindState:
		return n == lenState
	case kindReplay, kindQuarantine:
		return n > 1
	case kindMeta:
		return n == 2 && bytes.IndexByte([]byte("LFJDd"), key[1]) >= 0 || n == lenMetaLane && bytes.IndexByte([]byte("nwR"), key[1]) >= 0 ||
			n == lenMetaGap && key[1] == 'G'
	case kindDummy:
		return n == 1
	}
	return false
}

// rowDamage says why a row cannot be believed, "" when it can.
func rowDamage(store uint64, r *rawdb.Row) string {
	if r.Damage != "" {
		return r.Damage
	}
	if !keyFits(r.Key) {
		return "its key has no form that is known"
	}
	if err := decodeAny(store, r.Key, r.Value); err != nil {
		return err.Error()
	}
	return ""
}

func decodeAny(store uint64, key, val []byte) (err error) {
	switch key[0] {
	case kindReady, kindWaiting, kindReturning, kindFollowing:
		_, err = decodePending(key, val)
	case kindDue:
		_, err = decodeDue(key, val)
	case kindLine:
		if len(key) == lenLine {
			_, err = decodeLine(key, val)
		} else {
			_, err = unseal(key, val)
		}
	case kindEvent, kindFormer:
		_, _, err = decodeEvent(key, val, store, tail8(key))
	case kindFinished:
		_, err = decodeFinished(key, val)
	case kindAttempt:
		_, _, err = decodeAttemptRow(key, val)
	case kindRepeat:
		_, err = decodeRepeat(key, val)
	case kindTemplate:
		_, err = decodeRequest(key, val)
	case kindLane:
		_, err = decodeLaneCounts(key, val)
	case kindDay:
		_, err = decodeDay(key, val)
	case kindReplay:
		_, err = decodeReplay(key, val)
	case kindState:
		_, err = decodeEntryState(key, val)
	case kindQuarantine:
		_, _, _, err = decodeQuarantine(key, val)
	case kindMeta:
		err = decodeMeta(key, val)
	case kindDummy:
	default:
		_, err = unseal(key, val)
	}
	return err
}

func decodeMeta(key, val []byte) (err error) {
	switch key[1] {
	case 'L':
		_, err = decodeLedger(key, val)
	case 'J', 'D', 'd', 'R', 'G':
		_, err = decodeDue(key, val)
	case 'w':
		_, err = decodeLaneLife(key, val)
	default:
		_, err = decodePlain(key, val)
	}
	return err
}

// rowKind is a kind of row for people.
func rowKind(key []byte) string {
	if len(key) == 0 {
		return "row"
	}
	names := map[byte]string{kindReady: "pending delivery", kindWaiting: "pending delivery", kindReturning: "pending delivery",
		kindFollowing: "pending delivery", kindDue: "index of retries", kindLine: "line of an entry", kindEvent: "event", kindFormer: "event",
		kindFinished: "finished delivery", kindAttempt: "attempt", kindRepeat: "idempotency key", kindSenderID: "index of senders' ids",
		kindTemplate: "request template", kindLane: "counters of a webhook", kindDay: "day", kindReplay: "replay", kindState: "state of an entry",
		kindQuarantine: "row set aside before", kindMeta: "ledger"}
	if name := names[key[0]]; name != "" {
		return name
	}
	return "row of an unknown kind"
}

// rowMeans is what the loss of a row means for whom.
func rowMeans(store uint64, key []byte) string {
	if !keyFits(key) {
		return ""
	}
	laneSeq := func(at int) string {
		return id.Delivery(store, uint32(laneAt(key, at)), seqOf(key))
	}
	switch key[0] {
	case kindEvent, kindFormer:
		return "event " + id.Event(store, tail8(key)) + " cannot be sent or shown any more"
	case kindReady, kindWaiting, kindReturning, kindFollowing:
		return "delivery " + id.Delivery(store, uint32(laneAt(key, 1)), tail8(key)) + " was pending"
	case kindFinished:
		return "delivery " + id.Delivery(store, uint32(laneAt(key, 4)), tail8(key)) + " was finished"
	case kindAttempt:
		return "an attempt of delivery " + laneSeq(3) + " cannot be shown any more"
	case kindRepeat:
		return "a repeat with that key is accepted as a new event"
	case kindReplay:
		return "replay " + strings.TrimSpace(string(key[1:])) + " does not go on"
	case kindState:
		return fmt.Sprintf("what a sink kept for an entry of lane %d is forgotten", laneAt(key, 1))
	case kindTemplate:
		return "attempts are shown without the request"
	}
	return ""
}

// between says what may be missing between two keys.
func between(store uint64, from, to []byte) string {
	if from == nil {
		return ""
	}
	if bytes.Equal(from, to) {
		return rowMeans(store, from)
	}
	first := rowKind(from)
	if keyFits(from) && (from[0] == kindEvent || from[0] == kindFormer) {
		first += " " + id.Event(store, tail8(from))
	}
	if to == nil {
		return "rows are missing from " + first + " on"
	}
	last := rowKind(to)
	if keyFits(to) && (to[0] == kindEvent || to[0] == kindFormer) {
		last += " " + id.Event(store, tail8(to))
	}
	if first == last {
		return "rows are missing: " + first
	}
	return "rows are missing between " + first + " and " + last
}
