package queue

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
)

// patient lets nothing leave the journal but what something needs.
func patient(o *Options) { o.apply = time.Hour }

// crashed is a second harness on what the disk would have if the process of the first
// were killed now. A kill stops everything at once and a copy does not: what refers to
// something is copied before it, so that rows that the store takes over meanwhile are
// there too, or not.
func (h *harness) crashed(t *testing.T) *harness {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "q")
	for _, files := range []string{journalFile, dbDir + "/*.mem", dbDir + "/MANIFEST", dbDir + "/*.sst", dbDir + "/*.vlog", "*", dbDir + "/*"} {
		copyOnce(t, dir, h.opts.Dir, files)
	}
	c := &harness{t: t, clock: h.clock, opts: h.opts}
	c.opts.Dir = dir
	c.opts.OnReady, c.opts.OnChange, c.opts.OnFatal = nil, nil, nil
	c.open()
	t.Cleanup(c.close)
	return c
}

// copyOnce copies files that are not there yet, without the lock of the database.
func copyOnce(t *testing.T, to, from, pattern string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(from, pattern))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		rel, err := filepath.Rel(from, name)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(to, rel)
		if _, err := os.Stat(target); err == nil || info.IsDir() || info.Name() == "LOCK" {
			continue
		}
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(target), 0o700)
		}
		if err == nil {
			err = os.WriteFile(target, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (h *harness) unappliedRows() int { return len(h.c.unapplied.cur.rows) }

func TestWhatOnlyTheJournalHasIsThereAfterACrash(t *testing.T) {
	h := newHarness(t, patient)
	lane := h.lane("x.a")[0]
	evs := h.accept(testEvent(1, lane), testEvent(2, lane), testEvent(3, lane))
	h.finish(h.fresh[0], delivery.Success, 0)
	h.finish(h.fresh[1], delivery.Pending, time.Minute)
	waitUntil(t, "both outcomes", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return len(h.steps) == 5 })
	if !h.c.unapplied.pending.Load() {
		t.Fatal("the database has everything, so this test shows nothing")
	}
	c := h.crashed(t)
	mustSeqs(t, "ready", c.ready(lane), evs[2].Seq)
	mustSeqs(t, "waiting", c.waiting(lane), evs[1].Seq)
	mustEqual(t, "succeeded", c.Stats().Success, 1)
	c.sound()
	c.accept(testEvent(4, lane))
	c.reopen()
	mustEqual(t, "accepted after two more starts", c.Stats().Deliveries, 4)
	c.sound()
}

// Readers never see less than what was acknowledged, wherever it is.
func TestWhatOnlyTheJournalHasIsRead(t *testing.T) {
	h := newHarness(t, patient)
	lane := h.lane("x.a")[0]
	for n := range 5 {
		ev := h.accept(testEvent(n, lane))[0]
		if _, err := h.Event(ev.Seq); err != nil {
			t.Errorf("event %d: %v", n, err)
		}
		if got := len(h.ready(lane)); got != n+1 {
			t.Errorf("%d ready, want %d", got, n+1)
		}
	}
	h.sound()
}

// The keys of a sender are looked up in the group, the journal and the database.
func TestARepeatIsFoundWhereverItsFirstUseIs(t *testing.T) {
	h := newHarness(t, patient)
	lane := h.lane("x.a")[0]
	keyed := func() *Event {
		ev := testEvent(1, lane)
		ev.IdempotencyKey = "once"
		return ev
	}
	both := h.accept(keyed(), keyed())
	if both[0].Duplicate || !both[1].Duplicate {
		t.Errorf("in one group: %v, %v", both[0].Duplicate, both[1].Duplicate)
	}
	if h.unappliedRows() == 0 {
		t.Fatal("the group is not in the journal")
	}
	if again := h.accept(keyed())[0]; !again.Duplicate || again.Seq != both[0].Seq {
		t.Errorf("in the journal: %+v", again)
	}
	h.settle()
	if again := h.accept(keyed())[0]; !again.Duplicate || again.Seq != both[0].Seq {
		t.Errorf("in the database: %+v", again)
	}
	c := h.crashed(t)
	if again := c.accept(keyed())[0]; !again.Duplicate {
		t.Errorf("after a crash: %+v", again)
	}
}

// The journal is many times smaller than what goes through it.
func TestTheJournalGoesRoundAndRound(t *testing.T) {
	h := newHarness(t, patient)
	lane := h.lane("x.a")[0]
	const size, groups = 40 << 10, 2 * journalBytes / (40 << 10)
	for n := range groups {
		ev := testEvent(n, lane)
		ev.Payloads[FormatPeanuts] = bytes.Repeat([]byte{byte('a' + n%26)}, size)
		h.accept(ev)
		if n%97 == 0 && n > 0 {
			c := h.crashed(t)
			ds := c.ready(lane)
			if len(ds) != n+1 {
				t.Fatalf("%d after a crash, want %d", len(ds), n+1)
			}
			if last := ds[n].Payload; len(last) != size || last[0] != byte('a'+n%26) {
				t.Errorf("payload %d is another one", n)
			}
			c.close()
		}
	}
	h.sound()
}

// Small groups take a block each, so that they fill the journal long before the
// database is due to take them over.
func TestAJournalThatIsFullGivesWhatItHasToTheDatabase(t *testing.T) {
	h := newHarness(t, patient, func(o *Options) { o.journal = 2 * journal.MaxRecord })
	lane := h.lane("x.a")[0]
	const groups = 3 * 2 * journal.MaxRecord / journal.BlockSize
	for n := range groups {
		h.accept(testEvent(n, lane))
	}
	if h.c.unapplied.busy {
		t.Fatal("the database took rows over by itself, so the journal was not full")
	}
	c := h.crashed(t)
	mustEqual(t, "ready after a crash", len(c.ready(lane)), groups)
	mustEqual(t, "ready", len(h.ready(lane)), groups)
	h.sound()
}

// A row that came and went while only the journal had it never gets to the database;
// one that was there before does not stay there.
func TestRowsThatCameAndWentAreCollapsed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := &batch{}
		kept := map[string]string{} // of the database
		for n := range rapid.IntRange(0, 3).Draw(rt, "before") {
			kept[string(appendLaneSeq(nil, kindReady, 1, uint64(n)))] = "old"
		}
		want := map[string]string{}
		maps.Copy(want, kept)
		next := uint64(10)
		for n := range rapid.IntRange(0, 30).Draw(rt, "changes") {
			val := fmt.Sprint(n)
			seq := rapid.Uint64Range(0, next).Draw(rt, "seq")
			key := appendLaneSeq(nil, kindReady, 1, seq)
			switch _, there := want[string(key)]; {
			case seq == next:
				next++
				b.rows = append(b.rows, row{key: key, val: []byte(val), op: opNew})
				want[string(key)] = val
			case there && rapid.Bool().Draw(rt, "change"):
				b.rows = append(b.rows, row{key: key, val: []byte(val), op: opPut})
				want[string(key)] = val
			case there:
				b.rows = append(b.rows, row{key: key, op: opDel})
				delete(want, string(key))
			}
		}
		b.collapse()
		for i, r := range b.rows {
			switch {
			case b.gone[i]:
			case r.op == opDel:
				if _, there := kept[string(r.key)]; !there {
					rt.Fatalf("the database is told to delete a row that it never had")
				}
				delete(kept, string(r.key))
			default:
				kept[string(r.key)] = string(r.val)
			}
		}
		if fmt.Sprint(kept) != fmt.Sprint(want) {
			rt.Fatalf("got %v, want %v", kept, want)
		}
	})
}

func TestADeliveredEventsReadyRowNeverReachesTheDatabase(t *testing.T) {
	h := newHarness(t, patient)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.finish(h.fresh[0], delivery.Success, 0)
	h.settle()
	err := h.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{AllVersions: true, Prefix: []byte{kindReady}})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			t.Errorf("the database knows of %q, deleted %v", it.Item().Key(), it.Item().IsDeletedOrExpired())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.sound()
}

func TestAJournalThatIsNotTheStoresIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, what string
		spoil      func(t *testing.T, path string) error
	}{
		{"missing", "is missing", func(_ *testing.T, p string) error { return os.Remove(p) }},
		{"cut off", "bytes long", func(_ *testing.T, p string) error { return os.Truncate(p, 1<<20) }},
		{"of another store", "another store", func(t *testing.T, p string) error {
			o := newHarness(t)
			o.close()
			text, err := os.ReadFile(filepath.Join(o.opts.Dir, journalFile))
			if err == nil {
				err = os.WriteFile(p, text, 0o600)
			}
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			h.accept(testEvent(1, h.lane("x.a")...))
			h.close()
			path := filepath.Join(h.opts.Dir, journalFile)
			if err := c.spoil(t, path); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), h.opts)
			fe, ok := errors.AsType[*FormatError](err)
			if !ok || fe.File != path || !strings.Contains(fe.What, c.what) || fe.Remedy == "" {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A journal and a database that are not of the same moment are missing something.
func TestAnOlderDatabaseBesideTheJournalIsRefused(t *testing.T) {
	h := newHarness(t, patient)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.settle()
	old := h.crashed(t)
	old.close()
	const groups = journalBytes/(40<<10) + 20
	for n := range groups { // until the records between are overwritten
		ev := testEvent(n, lane)
		ev.Payloads[FormatPeanuts] = bytes.Repeat([]byte("x"), 40<<10)
		h.accept(ev)
	}
	h.close()
	text, err := os.ReadFile(filepath.Join(h.opts.Dir, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old.opts.Dir, journalFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), old.opts)
	if fe, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(fe.What, "has record") {
		t.Errorf("got %v", err)
	}
}

func TestAStoreOfAFormerFormatGetsAJournal(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.close()
	m, err := readMarker(h.opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	m.Format = 2
	if err := errors.Join(writeMarker(h.opts.Dir, m), os.Remove(filepath.Join(h.opts.Dir, journalFile))); err != nil {
		t.Fatal(err)
	}
	db, _, err := openBadger(filepath.Join(h.opts.Dir, dbDir), h.opts.withDefaults().Logger, true)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(txn *badger.Txn) error {
		key := metaFormatKey()
		return errors.Join(txn.Delete(metaJournalKey()), txn.Set(key, appendPlain(nil, key, "2 "+m.Store)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	h.open()
	h.accept(testEvent(2, lane))
	h.reopen()
	mustEqual(t, "ready", len(h.ready(lane)), 2)
	if m, err = readMarker(h.opts.Dir); err != nil || m.Format != formatNumber {
		t.Errorf("format %v, %v", m, err)
	}
}

func FuzzDecodeRows(f *testing.F) {
	f.Add(appendRows(nil, []row{{key: []byte("k"), val: []byte("v"), op: opPut}, {key: []byte("k"), op: opDel}, {key: []byte("n"), op: opNew}}))
	f.Add([]byte{1, 200, 'x'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		rows, err := decodeRows(raw, nil)
		if err != nil {
			return
		}
		again, err := decodeRows(appendRows(nil, rows), nil)
		if err != nil || len(again) != len(rows) {
			t.Fatalf("%d rows became %d: %v", len(rows), len(again), err)
		}
		for i := range rows {
			if string(rows[i].key) != string(again[i].key) || string(rows[i].val) != string(again[i].val) || rows[i].op != again[i].op {
				t.Fatalf("row %d changed", i)
			}
		}
	})
}

func TestTheLargestLightGroupFitsARecord(t *testing.T) {
	if most := journal.MaxRecord - journal.HeaderSize; 2*lightBytes > most {
		t.Errorf("a group of %d bytes and what one row adds does not fit %d", lightBytes, most)
	}
}

// What dispatch asks before each delivery does not wait for the database.
func TestWhatASinkKeptIsReadFromTheJournal(t *testing.T) {
	h := newHarness(t, patient)
	lane := h.lane("x.a")[0]
	keep := func(state []byte) {
		t.Helper()
		h.mu.Lock()
		h.fresh = nil
		h.mu.Unlock()
		h.accept(testEvent(1, lane))
		a := attemptOf(h.fresh[0], delivery.Success, 0)
		a.EntryState = state
		h.mu.Lock()
		done := len(h.steps) + 1
		h.mu.Unlock()
		h.Complete(Completion{Delivery: h.fresh[0], Attempt: a, Sink: "http"})
		waitUntil(t, "the outcome", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return len(h.steps) == done })
	}
	want := func(state string) {
		t.Helper()
		got, err := h.EntryState(lane, "http", "e1")
		if err != nil || string(got) != state {
			t.Errorf("got %q, %v, want %q", got, err, state)
		}
	}
	keep([]byte("first"))
	want("first")
	if !h.c.unapplied.pending.Load() {
		t.Error("reading it took the journal into the database")
	}
	keep([]byte("second"))
	want("second")
	h.settle()
	want("second")
	keep([]byte{})
	want("")
	h.reopen()
	want("")
}

// Readers wait for what was durable when they came, among senders and among each
// other, and never for ever.
func TestReadersAmongSendersSeeWhatWasAcknowledged(t *testing.T) {
	h := newHarness(t, patient)
	lane := h.lane("x.a")[0]
	const senders, each = 6, 50
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for n := range each {
				ev := testEvent(n, lane)
				if err := h.Accept(t.Context(), []*Event{ev}); err != nil {
					t.Error(err)
					return
				}
				of := []Change{{Lane: lane, Seq: ev.Seq + 1_000_000}, {Lane: lane, Seq: ev.Seq}}
				sums, err := h.Summaries(of)
				if err != nil || len(sums) != 2 {
					t.Errorf("event %d: %d rows, %v", ev.Seq, len(sums), err)
					return
				}
				if gone, own := sums[0], sums[1]; own.Seq != ev.Seq || own.EventID != ev.ID || gone.EventID != "" || gone.Seq != of[0].Seq || gone.ID == "" {
					t.Errorf("event %d: %+v", ev.Seq, sums)
				}
			}
		})
	}
	wg.Wait()
	mustEqual(t, "ready", len(h.ready(lane)), senders*each)
	h.sound()
}

func TestAReaderThatWaitsIsAnsweredWhenTheStoreCloses(t *testing.T) {
	h := newHarness(t, patient)
	lane := h.lane("x.a")[0]
	ev := h.accept(testEvent(1, lane))[0]
	s := h.Store
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for {
				if _, err := s.Summaries([]Change{{Lane: lane, Seq: ev.Seq}}); err != nil {
					if !errors.Is(err, ErrStopped) {
						t.Error(err)
					}
					return
				}
			}
		})
		wg.Go(func() {
			for s.Accept(t.Context(), []*Event{testEvent(2, lane)}) == nil {
			}
		})
	}
	waitUntil(t, "some events", func() bool { return s.Stats().Deliveries > 100 })
	h.close()
	wg.Wait()
}
