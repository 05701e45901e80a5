package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue/rawdb"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// inspect checks a closed store.
func inspect(t *testing.T, dir string, repair bool) *FsckReport {
	t.Helper()
	r, err := Fsck(context.Background(), FsckOptions{Dir: dir, Repair: repair, stat: roomy})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *FsckReport) mustBeSound(t *testing.T) {
	t.Helper()
	for _, p := range r.Problems {
		t.Errorf("%s: %s; %s", p.Where, p.What, p.Means)
	}
}

// The rows that are read from the files are those that the database has, also when values
// were moved because the garbage beside them was collected.
func TestFilesAreReadAsTheDatabaseReadsThem(t *testing.T) {
	for _, mode := range []string{crashState, crashChurn} {
		t.Run("mode="+mode, func(t *testing.T) {
			dir := t.TempDir() + "/q"
			killOnce(t, testhost.Chance(t), dir, mode, map[uint64]string{})
			killOnce(t, testhost.Chance(t), dir, mode, map[uint64]string{})
			sameRows(t, filepath.Join(dir, dbDir))
		})
	}
}

func sameRows(t *testing.T, dir string) {
	t.Helper()
	raw, err := rawdb.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	type pair struct{ key, val string }
	var got, want []pair
	err = raw.Rows(t.Context(), nil, func(r rawdb.Row) error {
		got = append(got, pair{string(r.Key), string(r.Value) + r.Damage})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range raw.Problems() {
		t.Errorf("%+v", p)
	}
	db, _, err := openBadger(dir, Options{}.withDefaults().Logger, true)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(txn *badger.Txn) error {
		return scanPrefix(txn, nil, func(key, val []byte) error {
			want = append(want, pair{string(key), string(val)})
			return nil
		})
	})
	if err != nil || len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("%d rows were read, the database has %d; %v", len(got), len(want), err)
	}
}

// Whatever a store went through, as long as nothing was damaged there is nothing to
// say about it: right after a kill, and after the next clean stop.
func TestAHealthyStoreHasNoProblems(t *testing.T) {
	for _, mode := range []string{"", crashChurn, crashLeave, crashState, crashOrder} {
		t.Run("mode="+mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir() + "/q"
			for range 2 {
				killOnce(t, testhost.Chance(t), dir, mode, map[uint64]string{})
				inspect(t, dir, false).mustBeSound(t)
			}
			h := &harness{t: t, opts: Options{Dir: dir, stat: roomy}}
			h.open()
			h.close()
			inspect(t, dir, false).mustBeSound(t)
		})
	}
}

func TestWhatAnOperatorDroppedIsNoProblem(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	for i := range 5 {
		h.accept(testEvent(i, lane))
	}
	for i, d := range h.ready(lane) {
		h.finish(d, []delivery.State{delivery.Success, delivery.Failed}[i%2], time.Second)
	}
	h.settle()
	if err := h.Drop(t.Context(), lane, 2); err != nil {
		t.Fatal(err)
	}
	h.close()
	r := inspect(t, h.opts.Dir, false)
	r.mustBeSound(t)
	mustEqual(t, "notes", len(r.Notes), 1)
}

func TestFsckRefusesAStoreThatIsOpen(t *testing.T) {
	h := newHarness(t)
	_, err := Fsck(t.Context(), FsckOptions{Dir: h.opts.Dir})
	if le, ok := err.(*LockedError); !ok || le.PID == 0 {
		t.Errorf("got %v", err)
	}
}

// A repair of a sound store that is forced keeps every row.
func TestARepairedStoreHasEverythingThatCouldBeRead(t *testing.T) {
	h := newHarness(t)
	lanes := h.lane("x.a", "x.b")
	for i := range 300 {
		h.accept(testEvent(i, lanes...))
	}
	for i, d := range h.ready(lanes[0]) {
		switch i % 4 {
		case 0:
			h.finish(d, delivery.Success, 0)
		case 1:
			h.finish(d, delivery.Failed, 0)
		case 2:
			h.finish(d, delivery.Pending, time.Hour)
		}
	}
	h.settle()
	before := fmt.Sprint(h.states(lanes[0]), h.states(lanes[1]), h.Stats().Deliveries)
	h.close()
	if err := writeMarker(h.opts.Dir, &marker{Format: formatNumber, Store: "zz"}); err != nil {
		t.Fatal(err)
	}
	r := inspect(t, h.opts.Dir, true)
	if !r.Repaired || r.LostEventCount+r.LostDeliveryCount > 0 {
		t.Fatalf("%+v", r)
	}
	inspect(t, h.opts.Dir, false).mustBeSound(t)
	h.open()
	h.sound()
	if after := fmt.Sprint(h.states(lanes[0]), h.states(lanes[1]), h.Stats().Deliveries); after != before {
		t.Errorf("it had %s and has %s", before, after)
	}
}

// A repair is often made as root, for a daemon that runs as somebody else.
func TestARepairAsRootLeavesTheFilesToTheOwnerOfTheQueue(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("files can be given away by root only")
	}
	b := newSmallBase(t)
	const nobody = 65534
	for _, name := range []string{"", formatFile} {
		if err := os.Chown(filepath.Join(b.dir, name), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Remove(filepath.Join(b.dir, lockFile)), os.Remove(filepath.Join(b.dir, dbDir, manifestFile))); err != nil {
		t.Fatal(err)
	}
	r := inspect(t, b.dir, true)
	if !r.Repaired {
		t.Fatalf("%+v", r)
	}
	for _, name := range []string{lockFile, formatFile, journalFile, dbDir, filepath.Join(dbDir, manifestFile), filepath.Base(r.Quarantine), filepath.Join(filepath.Base(r.Quarantine), "report.json")} {
		info, err := os.Stat(filepath.Join(b.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if uid, gid := owner(info); uid != nobody || gid != nobody {
			t.Errorf("%s belongs to %d:%d", name, uid, gid)
		}
	}
}
