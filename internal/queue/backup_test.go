package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/backup"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// restoreDirEnv is the directory that a child restores into, restoreFileEnv from what.
const (
	restoreDirEnv  = "QUEUE_RESTORE_DIR"
	restoreFileEnv = "QUEUE_RESTORE_FILE"
)

// restoreChild restores until it is killed, and says when it is done.
func restoreChild(dir string) {
	o := RestoreOptions{Dir: dir, stat: roomy, Open: func() (io.ReadCloser, error) { return os.Open(os.Getenv(restoreFileEnv)) }}
	fmt.Println("READY")
	if _, err := Restore(context.Background(), o); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("DONE")
}

func (h *harness) backup() []byte {
	h.t.Helper()
	var out bytes.Buffer
	if _, err := h.Backup(h.t.Context(), &out, "test"); err != nil {
		h.t.Fatal(err)
	}
	return out.Bytes()
}

// restored is a harness over a new store that was made from a backup.
func restored(t *testing.T, file []byte) *harness {
	t.Helper()
	dir := t.TempDir() + "/q"
	if _, err := Restore(t.Context(), restoreOptions(dir, file)); err != nil {
		t.Fatal(err)
	}
	return newHarness(t, func(o *Options) { o.Dir = dir })
}

func restoreOptions(dir string, file []byte) RestoreOptions {
	return RestoreOptions{Dir: dir, Size: int64(len(file)), stat: roomy,
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(file)), nil }}
}

// rows is every row that travels, but those that a restore changes.
func (h *harness) travelling() map[string]string {
	h.t.Helper()
	out := map[string]string{}
	h.catchUp()
	err := h.db.View(func(txn *badger.Txn) error {
		return scanPrefix(txn, nil, func(key, val []byte) error {
			if travels(key) && !bytes.Equal(key, metaLedgerKey()) && !bytes.HasPrefix(key, []byte{kindMeta, 'G'}) {
				out[string(key)] = string(val)
			}
			return nil
		})
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func TestARestoredStoreHasEveryRow(t *testing.T) {
	h, lanes := auditWorld(t)
	large := testEvent(99, lanes...)
	large.ID, large.Payloads[FormatPeanuts] = "large", bytes.Repeat([]byte("p"), 900<<10)
	h.accept(large)
	file, want, before := h.backup(), h.travelling(), h.Stats()
	r := restored(t, file)
	got := r.travelling()
	for key, val := range want {
		if got[key] != val {
			t.Errorf("row %q is another one", key)
		}
	}
	mustEqual(t, "rows", len(got), len(want))
	mustEqual(t, "store", r.StoreID(), h.StoreID())
	r.lane("x.a", "x.b")
	r.sound()
	mustEqual(t, "deliveries", r.audited().Deliveries, before.Deliveries)

	// A repeat of an event that the backup has is one, and a new event gets a number that
	// the store that was backed up will not give to another one.
	again := testEvent(99, lanes...)
	again.ID, again.Payloads[FormatPeanuts] = "large", bytes.Repeat([]byte("p"), 900<<10)
	if r.accept(again); !again.Duplicate || again.Seq != large.Seq {
		t.Errorf("a repeat was taken for event %d", again.Seq)
	}
	fresh := r.accept(testEvent(100, lanes...))[0]
	if fresh.Seq <= large.Seq+restoreGap {
		t.Errorf("event %d follows %d", fresh.Seq, large.Seq)
	}
	r.finish(r.ready(lanes[0])[0], delivery.Success, 0)
	r.settle()
	r.reopen()
	r.lane("x.a", "x.b")
	r.sound()
	r.audited()

	// And so again, from a store that was restored.
	second := restored(t, r.backup())
	second.lane("x.a", "x.b")
	second.accept(testEvent(101, lanes...))
	second.sound()
	second.audited()
	t.Attr("cases", "2")
	t.Attr("acked", fmt.Sprint(before.Events))
	t.Attr("lost", "0")
}

// A backup is of one moment: whatever was accepted before it began is in it, and it fits
// its own books, while events and outcomes go on.
func TestABackupIsWholeWhileTheStoreWorks(t *testing.T) {
	h, lanes := auditWorld(t)
	var acked atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			ev := testEvent(n, lanes...)
			ev.ID = fmt.Sprintf("load-%d", n)
			if err := h.Accept(context.Background(), []*Event{ev}); err != nil {
				t.Error(err)
				return
			}
			acked.Store(int64(n + 1))
			d := Delivery{Lane: lanes[0], Seq: ev.Seq, Track: Ready, EventID: ev.ID, ref: payloadRef{class: eventAccepted, day: dayOf(h.Now())}}
			h.finish(d, delivery.Success, 0)
		}
	}()
	var file []byte
	var before int64
	for range 5 {
		for want := before + 20; acked.Load() < want; {
			<-time.After(time.Millisecond)
		}
		before = acked.Load()
		file = h.backup()
	}
	close(stop)
	<-done
	r := restored(t, file)
	r.lane("x.a", "x.b")
	r.audited()
	lost := 0
	for n := range before {
		id := fmt.Sprintf("load-%d", n)
		found, err := r.FindEvent(id)
		if err != nil || len(found) != 1 || !bytes.Equal(found[0].Payloads[FormatPeanuts], testEvent(int(n)).Payloads[FormatPeanuts]) {
			lost++
			t.Errorf("event %s: %v", id, err)
		}
	}
	t.Attr("cases", "1")
	t.Attr("acked", fmt.Sprint(before))
	t.Attr("lost", fmt.Sprint(lost))
}

// A file that is not whole makes no store, wherever it is not whole.
func TestADamagedBackupIsRefusedAndChangesNothing(t *testing.T) {
	h, _ := auditWorld(t)
	file := h.backup()
	cases := 0
	refused := func(file []byte) {
		t.Helper()
		cases++
		dir := t.TempDir() + "/q"
		_, err := Restore(t.Context(), restoreOptions(dir, file))
		if _, ok := errors.AsType[*backup.DamageError](err); !ok {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Error("the directory was made")
		}
	}
	for n := 0; n < len(file); n += max(1, len(file)/100) {
		refused(file[:n])
		spoilt := bytes.Clone(file)
		spoilt[n] ^= 0x10
		refused(spoilt)
	}
	var newer bytes.Buffer
	w, err := backup.NewWriter(&newer, backup.Header{Store: "0123456789", QueueFormat: formatNumber + 1})
	if err == nil {
		_, err = w.Close(backup.Footer{})
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = Restore(t.Context(), restoreOptions(t.TempDir()+"/q", newer.Bytes()))
	if e, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(e.What, "format") {
		t.Errorf("a newer format: %v", err)
	}
	t.Attr("cases", fmt.Sprint(cases+1))
}

func TestARestoreNeverTouchesAQueueThatIsThere(t *testing.T) {
	h, _ := auditWorld(t)
	file := h.backup()
	o := restoreOptions(h.opts.Dir, file)
	if _, err := Restore(t.Context(), o); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("under a daemon: %v", err)
	}
	h.close()
	for _, kept := range []string{formatFile, journalFile, dbDir} {
		dir := t.TempDir()
		if err := os.Rename(filepath.Join(h.opts.Dir, kept), filepath.Join(dir, kept)); err != nil {
			t.Fatal(err)
		}
		o.Dir = dir
		if _, err := Restore(t.Context(), o); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("beside %s: %v", kept, err)
		}
		if err := os.Rename(filepath.Join(dir, kept), filepath.Join(h.opts.Dir, kept)); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	lock, err := lockDir(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	o.Dir = dir
	_, err = Restore(t.Context(), o)
	if _, locked := errors.AsType[*LockedError](err); !locked {
		t.Errorf("locked: %v", err)
	}
	o.Dir, o.stat = t.TempDir()+"/q", func(string) (diskState, error) { return diskState{free: 1 << 20, total: 1 << 30}, nil }
	_, err = Restore(t.Context(), o)
	if _, short := errors.AsType[*SpaceError](err); !short {
		t.Errorf("without room: %v", err)
	}
	h.open()
}

// Wherever a restore is killed, the directory has no queue, and says so, or the whole
// one; and the same restore works then.
func TestAKillInTheMiddleOfARestoreLeavesNothingHalf(t *testing.T) {
	h, lanes := auditWorld(t)
	h.acceptMany(10, lanes[0])
	content := h.backup()
	file := t.TempDir() + "/backup"
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	want := h.Stats()
	unfinished, whole := 0, 0
	kills := crashKills()
	for n := range kills {
		dir := t.TempDir() + "/q"
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), restoreDirEnv+"="+dir, restoreFileEnv+"="+file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Each kill comes at a later file that the restore makes.
		marks := []string{formatFile, restoreDir, restoreDir + "/" + journalFile, restoreDir + "/" + dbDir + "/" + manifestFile, restoreDir + "/" + dbDir + "/000001.sst", journalFile, dbDir}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		mark := filepath.Join(dir, marks[n%len(marks)])
		for over := false; !over; {
			select {
			case err := <-ended:
				ended <- err
				over = true
			case <-time.After(100 * time.Microsecond):
				_, err := os.Stat(mark)
				over = err == nil
			}
		}
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		o := h.opts
		o.Dir = dir
		m, err := readMarkerFile(dir)
		if err != nil {
			t.Fatal(err)
		}
		if m == nil || m.Restoring {
			unfinished++
			if m != nil {
				_, err := Open(t.Context(), o)
				if e, ok := errors.AsType[*FormatError](err); !ok || !strings.Contains(e.What, "restore") {
					t.Errorf("a half restored queue: %v", err)
				}
			}
			if _, err := Restore(t.Context(), restoreOptions(dir, content)); err != nil {
				t.Fatal(err)
			}
		} else {
			whole++
		}
		r := newHarness(t, func(o *Options) { o.Dir = dir })
		r.lane("x.a", "x.b")
		mustEqual(t, "deliveries", r.audited().Deliveries, want.Deliveries)
		r.close()
	}
	t.Logf("%d kills: %d before the end of the restore, %d after", kills, unfinished, whole)
	if unfinished == 0 {
		t.Error("no kill came before the end of the restore")
	}
	t.Attr("cases", fmt.Sprint(kills))
	t.Attr("acked", fmt.Sprint(want.Events))
	t.Attr("lost", "0")
}

func FuzzRestoredRows(f *testing.F) {
	f.Add(appendRows(nil, []row{{key: metaLedgerKey(), val: (&ledger{lastSeq: 7}).append(nil, metaLedgerKey()), op: opPut}}))
	f.Add(appendRows(nil, []row{{key: []byte("r"), val: []byte("v"), op: opPut}, {key: []byte("r"), op: opDel}}))
	f.Fuzz(func(t *testing.T, content []byte) {
		rows, err := checkedRows(content, nil)
		if err != nil {
			return
		}
		for i := range rows {
			_ = leap(&rows[i], func(_, _ []byte) error { return nil }) // whatever the row, no panic
		}
	})
}
