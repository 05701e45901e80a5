package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// tornEnv is how many kinds are tried one by one, in turn.
const tornEnv = "QUEUE_TORN"

// tornList is the one of tornFiles that is damage when there is a stray table as well.
const tornList = 5

// tornFiles is what a crash can leave behind, beside what was acknowledged.
func tornFiles() []struct {
	name string
	do   func(r *rand.Rand, dir string) error
} {
	write := func(name string, text []byte) func(*rand.Rand, string) error {
		return func(_ *rand.Rand, dir string) error { return os.WriteFile(filepath.Join(dir, name), text, 0o600) }
	}
	part := func(name string) func(*rand.Rand, string) error {
		return func(r *rand.Rand, dir string) error {
			return os.WriteFile(filepath.Join(dir, name), make([]byte, 1+r.IntN(19)), 0o600)
		}
	}
	return []struct {
		name string
		do   func(r *rand.Rand, dir string) error
	}{
		{"an empty memtable", write("db/00099.mem", nil)},
		{"an empty value log", write("db/000099.vlog", nil)},
		{"a value log without its head", part("db/000099.vlog")},
		{"a memtable that ends within an entry", func(r *rand.Rand, dir string) error { return tearMemtable(r, dir) }},
		{"a table that no list names", func(_ *rand.Rand, dir string) error { return strayTable(dir) }},
		{"a list that ends within a record", func(r *rand.Rand, dir string) error {
			tail := binary.BigEndian.AppendUint32(nil, 40)
			return appendTo(filepath.Join(dir, "db/MANIFEST"), append(tail, make([]byte, r.IntN(40))...))
		}},
		{"a journal that ends within a record", tearJournal},
		{"an empty lock", write("LOCK", nil)},
		{"a FORMAT that was being replaced", write("FORMAT.tmp", []byte(`{"for`))},
		{"a journal that was being made", write("journal.tmp", make([]byte, 5000))},
		{"a repair that was not complete", func(_ *rand.Rand, dir string) error {
			return errors.Join(os.MkdirAll(filepath.Join(dir, buildingDir, dbDir), 0o700),
				os.WriteFile(filepath.Join(dir, buildingDir, dbDir, "MANIFEST"), []byte("Bdg"), 0o600))
		}},
	}
}

func appendTo(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// tearMemtable puts the beginning of a transaction behind the last one.
func tearMemtable(r *rand.Rand, dir string) error {
	logs, err := filepath.Glob(filepath.Join(dir, "db", "*.mem"))
	if err != nil || len(logs) == 0 {
		return err
	}
	path := slices.Max(logs)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	used := usedLen(text)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	entry := []byte{1 << 6, 0, 30, 40, 0, 'm', 'L'}
	_, err = f.WriteAt(entry[:1+r.IntN(len(entry))], int64(used+4))
	return errors.Join(err, f.Close())
}

// strayTable is the output of a compaction that was not noted any more.
func strayTable(dir string) error {
	tables, err := filepath.Glob(filepath.Join(dir, "db", "*.sst"))
	if err != nil || len(tables) == 0 {
		return err
	}
	text, err := os.ReadFile(tables[0])
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "db", "000999.sst"), text, 0o600)
}

// tearJournal writes the beginning of the record that comes next to where nothing is.
func tearJournal(r *rand.Rand, dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	block := make([]byte, 4096)
	for at := info.Size() - int64(len(block)); err == nil && at > 0; at -= int64(len(block)) {
		if _, err = f.ReadAt(block, at); err == nil && allZero(block) {
			head := binary.BigEndian.AppendUint32([]byte{1, 2, 3, 4}, 9000)
			_, err = f.WriteAt(head[:1+r.IntN(len(head))], at)
			break
		}
	}
	return errors.Join(err, f.Close())
}

// Whatever a crash leaves half written beside what was acknowledged: a check has
// nothing to say, and the store opens with everything.
func TestTornAndEmptyFilesAreNoDamage(t *testing.T) {
	b := newDamageBase(t)
	kinds := tornFiles()
	each, _ := strconv.Atoi(os.Getenv(tornEnv)) // one by one; otherwise all at once
	try := func(name string, seed int, some ...int) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/q"
			b.copyTo(t, dir)
			for _, k := range some {
				if err := kinds[k].do(rand.New(rand.NewPCG(uint64(seed), 8)), dir); err != nil {
					t.Fatal(err)
				}
			}
			inspect(t, dir, false).mustBeSound(t)
			for _, wrong := range b.account(t, dir, nil) {
				t.Error(wrong)
			}
			os.RemoveAll(dir)
		})
	}
	for i := range each {
		k := i % len(kinds)
		try(fmt.Sprintf("%s/%d", strings.ReplaceAll(kinds[k].name, " ", "_"), i), i, k)
	}
	if each == 0 {
		each = len(kinds)
		all := []int{}
		for k := range kinds {
			if k != tornList {
				all = append(all, k)
			}
		}
		try("all", 1, all...)
		try("list", 2, tornList)
	}
	testhost.Cases(t, each)
	testhost.Account(t, each*len(b.acked), 0) // one that is lost fails the test
}

// The control: what a repair names as lost is lost, and an account that does not know
// the names complains.
func TestTheAccountNoticesWhatNobodyNames(t *testing.T) {
	b := newDamageBase(t)
	dir := t.TempDir() + "/q"
	b.copyTo(t, dir)
	logs, err := filepath.Glob(filepath.Join(dir, "db", "*.vlog"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no value log: ", err)
	}
	for _, name := range logs {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	r := inspect(t, dir, true)
	if r.LostEventCount == 0 {
		t.Fatalf("nothing was lost: %+v", r)
	}
	if wrong := b.account(t, dir, r); len(wrong) > 0 {
		t.Errorf("with the names: %v", wrong[:min(3, len(wrong))])
	}
	if wrong := b.account(t, dir, nil); len(wrong) == 0 {
		t.Error("without the names nothing is missing")
	}
}

// A repair that is interrupted anywhere leaves the former store or the repaired one,
// and doing it again works.
func TestAnInterruptedRepairLeavesTheOldOrTheNew(t *testing.T) {
	b := newSmallBase(t)
	for _, step := range []string{"built", "durable", "decided", "decided 1", "decided 2", "decided 3", "decided 4", "decided 5"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir() + "/q"
			b.copyTo(t, dir)
			if err := os.WriteFile(filepath.Join(dir, formatFile), []byte("no format"), 0o600); err != nil {
				t.Fatal(err)
			}
			at, moves, _ := strings.Cut(step, " ")
			interruptRepair(t, dir, at)
			n, _ := strconv.Atoi(moves)
			moveSome(t, dir, n)
			if at != "decided" { // the former one, as damaged as it was
				if r := inspect(t, dir, true); !r.Repaired {
					t.Fatalf("%+v", r)
				}
			}
			for _, wrong := range b.account(t, dir, nil) {
				t.Error(wrong)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, repairedPrefix+"*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if kept, _ := filepath.Glob(filepath.Join(dir, quarantinePrefix+"*", formatFile)); len(kept) != 1 {
				t.Errorf("the former FORMAT was kept %d times", len(kept))
			}
			os.RemoveAll(dir)
		})
	}
}

// newSmallBase is a store with little in it.
func newSmallBase(t *testing.T) *damageBase {
	t.Helper()
	b := &damageBase{dir: t.TempDir() + "/q", acked: map[uint64]string{}, texts: map[string][]byte{}, sizes: map[string]int{}}
	h := &harness{t: t, opts: Options{Dir: b.dir, stat: roomy}}
	h.open()
	lanes := h.lane("expenses.a", "expenses.b")
	for i := range 20 {
		ev := testEvent(i, lanes...)
		ev.Payloads[FormatPeanuts] = crashPayload(ev.EntryID)
		b.acked[h.accept(ev)[0].Seq] = ev.EntryID
	}
	h.close()
	b.read(t)
	return b
}

// interruptRepair ends a repair at a step, as a kill does.
func interruptRepair(t *testing.T, dir, at string) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("the repair never came to %q", at)
		}
	}()
	_, err := Fsck(t.Context(), FsckOptions{Dir: dir, Repair: true, stat: roomy, crash: func(step string) {
		if step == at {
			panic("killed")
		}
	}})
	t.Errorf("not interrupted: %v", err)
}

// moveSome does the first n renames of a repair that was decided.
func moveSome(t *testing.T, dir string, n int) {
	t.Helper()
	repaired, _ := filepath.Glob(filepath.Join(dir, repairedPrefix+"*"))
	if len(repaired) == 0 {
		return
	}
	aside := filepath.Join(dir, quarantinePrefix+strings.TrimPrefix(filepath.Base(repaired[0]), repairedPrefix))
	var moves [][2]string
	for _, name := range storeFiles() {
		moves = append(moves, [2]string{filepath.Join(dir, name), filepath.Join(aside, name)}, [2]string{filepath.Join(repaired[0], name), filepath.Join(dir, name)})
	}
	for _, m := range moves[:n] {
		if err := os.Rename(m[0], m[1]); err != nil {
			t.Fatal(err)
		}
	}
}
