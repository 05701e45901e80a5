package queue

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// What follows are values as the last version of format 1 wrote them.
const (
	formerPending = "010101014e200201f40380a0abfef962f70306737461747573033530330f86b8a9"
	formerAttempt = "01070301030280897a0000000080ade204809c9c39095b3a3a315d3a34343300000000000000050113582d5065616e7574732d5369676e6174757265097368613235" +
		"363d3030f703010b52657472792d41667465720135046275737906737461747573033530330b3578785f726574726965643fdccee5"
	formerFinished = "010002000000000d656e7472792e637265617465640165030000070301030280897a0000000080ade204809c9c39095b3a3a315d3a343433000000000000000901" +
		"13582d5065616e7574732d5369676e6174757265097368613235363d3030f703010b52657472792d41667465720135046275737906737461747573033530330b3578785f7265747269" +
		"65646d580532"
)

// formerExample is the attempt in them.
func formerExample() *delivery.Attempt {
	return &delivery.Attempt{Number: 3, Started: time.UnixMicro(1).UTC(), Duration: time.Second, Reused: true, Remote: "[::1]:443",
		Signatures: []delivery.Header{{Name: "X-Peanuts-Signature", Value: "sha256=00"}}, Outcome: delivery.Retry, Status: 503,
		Headers: []delivery.Header{{Name: "Retry-After", Value: "5"}}, Body: []byte("busy"), BodyTruncated: true,
		Code: delivery.CodeStatus, Error: "503", RetryAfter: 5 * time.Second, Rule: delivery.RuleServerError, State: delivery.Pending,
		NextIn: time.Minute}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRowsOfTheFormerFormatAreReadAndWrittenAsTheyWere(t *testing.T) {
	key := appendLaneSeq(nil, kindReady, 1, 2)
	wantRow := pendingRow{format: FormatEvent, replay: true, ref: payloadRef{1, 20000}, attempts: 2, tries: 1, charge: 500,
		accepted: 1700000000000, status: 503, code: "status", errText: "503"}
	if row, err := decodePending(key, unhex(t, formerPending)); err != nil || row != wantRow {
		t.Errorf("pending: %+v, %v", row, err)
	}
	if got := wantRow.append(nil, key); !bytes.Equal(got, unhex(t, formerPending)) {
		t.Errorf("pending is written as %x", got)
	}

	key = appendAttemptKey(nil, 20000, 1, 7, 3)
	if a, request, err := decodeAttemptRow(key, unhex(t, formerAttempt)); err != nil || request != 5 || !reflect.DeepEqual(&a, formerExample()) {
		t.Errorf("attempt: %+v, %d, %v", a, request, err)
	}
	if got := appendAttemptRow(nil, key, formerExample(), 5); !bytes.Equal(got, unhex(t, formerAttempt)) {
		t.Errorf("attempt is written as %x", got)
	}

	key = appendFinishedKey(nil, classFailed, 20000, 1, 7)
	h, err := decodeFinished(key, unhex(t, formerFinished))
	if err != nil || h.typ != "entry.created" || h.request != 9 || !reflect.DeepEqual(h.last, formerExample()) {
		t.Errorf("finished: %+v, %v", h, err)
	}
	if got := h.append(nil, key); !bytes.Equal(got, unhex(t, formerFinished)) {
		t.Errorf("finished is written as %x", got)
	}
}

// asFormer makes a closed store one of format 1, as far as its marks go.
func (h *harness) asFormer(marker1, row1 bool) {
	h.t.Helper()
	m, err := readMarker(h.opts.Dir)
	if err != nil {
		h.t.Fatal(err)
	}
	if marker1 {
		m.Format = 1
		if err := writeMarker(h.opts.Dir, m); err != nil {
			h.t.Fatal(err)
		}
	}
	if !row1 {
		return
	}
	db, _, err := openBadger(h.opts.Dir+"/"+dbDir, h.opts.withDefaults().Logger, true)
	if err != nil {
		h.t.Fatal(err)
	}
	key := metaFormatKey()
	err = db.Update(func(txn *badger.Txn) error { return txn.Set(key, appendPlain(nil, key, "1 "+m.Store)) })
	if err = firstError(err, db.Close()); err != nil {
		h.t.Fatal(err)
	}
}

// formerEvents gives the events of a closed store the keys of format 1.
func (h *harness) formerEvents() {
	h.t.Helper()
	db, _, err := openBadger(h.opts.Dir+"/"+dbDir, h.opts.withDefaults().Logger, true)
	if err != nil {
		h.t.Fatal(err)
	}
	moved := 0
	err = db.Update(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			val, err := it.Item().ValueCopy(nil)
			to := bytes.Clone(key)
			switch key[0] {
			case kindEvent:
				moved++
				to[0], to[1] = kindFormer, key[1]-eventAccepted
				val = seal(val[:len(val)-4], 0, to)
				err = firstError(err, txn.Delete(key))
			case kindReady, kindWaiting, kindReturning, kindFollowing:
				row, failed := decodePending(key, val)
				row.ref.class -= eventAccepted
				val, err = row.append(nil, key), firstError(err, failed)
			case kindFinished:
				row, failed := decodeFinished(key, val)
				row.ref.class -= eventAccepted
				val, err = row.append(nil, key), firstError(err, failed)
			default:
				continue
			}
			if err := firstError(err, txn.Set(to, val)); err != nil {
				return err
			}
		}
		return nil
	})
	if err = firstError(err, db.Close()); err != nil || moved == 0 {
		h.t.Fatal(err, moved)
	}
}

// The two rows say the same in the end, wherever a crash came between them.
func TestAStoreOfTheFormerFormatIsRaisedAndKeepsWhatItHas(t *testing.T) {
	for _, c := range []struct{ marker, row bool }{{true, true}, {false, true}, {true, false}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			h := newHarness(t)
			lane := h.lane("x.a")
			h.accept(testEvent(1, lane...), testEvent(2, lane...))
			h.close()
			h.asFormer(c.marker, c.row)
			for range 2 {
				h.open()
				mustSeqs(t, "ready", h.ready(lane[0]), 1, 2)
				h.sound()
				h.close()
				if m, err := readMarker(h.opts.Dir); err != nil || m.Format != formatNumber || !m.Initialised {
					t.Fatalf("FORMAT is %+v, %v", m, err)
				}
			}
			h.open()
		})
	}
}
