package queue

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func FuzzStateFiles(f *testing.F) {
	f.Add([]byte(`{"store":"00000000aa","lanes":{"1":"x.a"}}` + "\n9c0eb0d1\n"))
	f.Add([]byte("0123456789abcdefHello Badger"))
	f.Add(make([]byte, 1<<20))
	f.Fuzz(func(t *testing.T, text []byte) {
		names, err := decodeLaneNames(text, 0xaa)
		if err != nil && names != nil {
			t.Error("names beside an error")
		}
		_ = soundRegistry(text)
		_ = soundDiscard(text)
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, witnessFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if p, damaged := readWitness(dir); damaged && p != (progressOf{}) {
			t.Error("progress of a file that is damaged")
		}
	})
}

// What the store writes beside the database follows it, is made anew when it is gone or
// damaged, and is compared at the next start.
func TestTheNamesOfLanesAreKeptASecondTime(t *testing.T) {
	h := newHarness(t)
	h.lane("x.a", "x.b")
	number := h.id
	names := func() map[Lane]string {
		got, err := readLaneNames(h.opts.Dir, number)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	mustEqual(t, "names", len(names()), 2)
	h.lane("x.a", "x.b", "x.c")
	mustEqual(t, "the new one", names()[3], "x.c")
	h.close()
	path := filepath.Join(h.opts.Dir, lanesFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		bad := append([]byte{}, text...)
		bad[i] ^= 1
		if _, err := decodeLaneNames(bad, number); err == nil {
			t.Errorf("a flip at %d was not noticed", i)
		}
	}
	for _, damage := range [][]byte{nil, text[:20]} {
		if err := os.WriteFile(path, damage, 0o600); err != nil {
			t.Fatal(err)
		}
		h.open()
		mustEqual(t, "made anew", names()[2], "x.b")
		h.close()
	}
}

// A repaired store adds up for an audit: what is lost was named, and gives out no number
// again.
func TestAnAuditOfARepairedStoreAddsUp(t *testing.T) {
	h := newHarness(t)
	lanes := h.lane("x.a", "x.b")
	const n = 60
	for i := range n {
		ev := testEvent(i, lanes...)
		ev.Payloads[FormatPeanuts] = make([]byte, 3000) // in the value log
		h.accept(ev)
	}
	for i, d := range h.ready(lanes[0]) {
		h.finish(d, []delivery.State{delivery.Success, delivery.Failed, delivery.Pending}[i%3], time.Hour)
	}
	h.settle()
	if err := h.Drop(t.Context(), lanes[0], 2); err != nil {
		t.Fatal(err)
	}
	h.close()
	logs, err := filepath.Glob(filepath.Join(h.opts.Dir, dbDir, "*.vlog"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no value log: ", err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	copy(text[len(text)/4:], make([]byte, usedLen(text)/4)) // the records of some events
	if err := os.WriteFile(logs[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	r := inspect(t, h.opts.Dir, true)
	if !r.Repaired || r.LostEventCount == 0 || r.LostEventCount > n/2 {
		t.Fatalf("%+v", r)
	}
	h.open()
	h.sound()
	a, err := h.Audit(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range a.Problems {
		t.Errorf("%s: %s", p.ID, p.What)
	}
	mustEqual(t, "events", a.Events, n)
	mustEqual(t, "lost", a.EventsLost, r.LostEventCount)
	mustEqual(t, "kept", a.EventsKept, n-r.LostEventCount)
	mustEqual(t, "deliveries", a.Deliveries, 2*n)
	if seq := h.accept(testEvent(n, lanes...))[0].Seq; seq < restoreGap {
		t.Errorf("the next event has number %d", seq)
	}
	if a, err = h.Audit(t.Context(), nil); err != nil || a.Wrong > 0 {
		t.Errorf("after another event: %+v, %v", a.Problems, err)
	}
	h.close()
	inspect(t, h.opts.Dir, false).mustBeSound(t)
}

// The database panics on a damaged block that it reads. That is a storage error like any
// other, and the start after it verifies the tables.
func TestAPanicOfAReaderStopsTheStore(t *testing.T) {
	h := newHarness(t)
	h.lane("x.a")
	err := h.view(func(*badger.Txn) ([]damaged, error) { panic("a block is damaged") })
	if !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "a block is damaged") {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(filepath.Join(h.opts.Dir, startsFile))
	if err != nil || string(text) != "2\n" {
		t.Errorf("%q, %v", text, err)
	}
}
