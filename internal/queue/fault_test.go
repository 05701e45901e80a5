package queue

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// raw changes the closed store's database behind its back.
func (h *harness) raw(f func(txn *badger.Txn) error) {
	h.t.Helper()
	h.close()
	db, _, err := openBadger(filepath.Join(h.opts.Dir, dbDir), h.opts.withDefaults().Logger, true)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := db.Update(f); err != nil {
		h.t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

func TestADamagedRowEndsAsFailedAndIsKept(t *testing.T) {
	for _, c := range []struct {
		name string
		key  func(h *harness, lane Lane) []byte
		val  []byte
	}{
		{"event record flipped", func(h *harness, _ Lane) []byte {
			return appendEventKey(nil, payloadRef{eventAccepted, dayOf(h.Now())}, 2)
		}, []byte("garbage")},
		{"event record empty", func(h *harness, _ Lane) []byte {
			return appendEventKey(nil, payloadRef{eventAccepted, dayOf(h.Now())}, 2)
		}, nil},
		{"ready row flipped", func(_ *harness, lane Lane) []byte { return appendLaneSeq(nil, kindReady, lane, 2) }, []byte("garbage")},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			lane := h.lane("x.a")[0]
			h.accept(testEvent(1, lane), testEvent(2, lane), testEvent(3, lane))
			key := c.key(h, lane)
			h.raw(func(txn *badger.Txn) error { return txn.Set(key, c.val) })
			mustSeqs(t, "ready", h.ready(lane), 1, 3)
			mustSeqs(t, "ready the second time", h.ready(lane), 1, 3)
			sum, err := h.Summary(lane, 2)
			if err != nil || sum.State != delivery.Failed || sum.Code != delivery.CodeDamaged {
				t.Errorf("%+v, %v", sum, err)
			}
			st := h.Stats()
			if st.Quarantined != 1 || st.Failed != 1 || st.Pending != 2 || st.Deliveries != 3 {
				t.Errorf("%+v", st)
			}
			h.reopen()
			mustEqual(t, "quarantined after reopening", h.Stats().Quarantined, 1)
			err = h.db.View(func(txn *badger.Txn) error {
				raw, err := getCopy(txn, quarantineKey(key))
				if err != nil {
					return err
				}
				reason, _, bytes, err := decodeQuarantine(quarantineKey(key), raw)
				if reason == "" || string(bytes) != string(c.val) {
					t.Errorf("kept %q, %q", reason, bytes)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			mustEqual(t, "live bytes", h.Stats().LiveBytes > 0, true)
		})
	}
}

func TestADamagedRowOfTheLogIsSetAside(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane), testEvent(2, lane))
	for _, d := range h.ready(lane) {
		h.finish(d, delivery.Success, 0)
	}
	h.settle()
	key := appendFinishedKey(nil, classDelivered, dayOf(h.Now()), lane, 1)
	h.raw(func(txn *badger.Txn) error { return txn.Set(key, []byte("x")) })
	if got := h.states(lane); len(got) != 1 || got[2] != delivery.Success {
		t.Errorf("%v", got)
	}
	mustEqual(t, "quarantined", h.Stats().Quarantined, 1)
	h.sound()
}

func TestACompletionSurvivesADamagedRow(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	d := h.ready(lane)[0]
	h.raw(func(txn *badger.Txn) error { return txn.Set(appendLaneSeq(nil, kindReady, lane, 1), []byte("x")) })
	h.finish(d, delivery.Success, 0)
	h.settle()
	if st := h.Stats(); st.Success != 1 || st.Pending != 0 || st.LiveBytes != 0 {
		t.Errorf("%+v", st)
	}
}

func TestAnErrorLineOfTheDatabaseStopsEverything(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	h.blog.Errorf("Error while curlf sync: %v\n", "input/output error")
	if err := h.Accept(t.Context(), []*Event{testEvent(2, lane)}); !errors.Is(err, ErrStopped) {
		t.Errorf("accept: %v", err)
	}
	h.Complete(Completion{})
	if _, _, err := h.ReadReady(lane, 0, 1, 1); !errors.Is(err, ErrStopped) {
		t.Errorf("read: %v", err)
	}
	if err := h.Drop(t.Context(), lane, 1); !errors.Is(err, ErrStopped) {
		t.Errorf("drop: %v", err)
	}
	if err := h.Accept(t.Context(), []*Event{testEvent(3, lane)}); !errors.Is(err, ErrStopped) {
		t.Errorf("accept again: %v", err)
	}
	mustEqual(t, "state", h.Stats().State, "stopped")
	<-h.ended // the committer has reported what it met
	if len(h.fatal) != 1 || !strings.Contains(h.fatal[0].Error(), "curlf sync") {
		t.Errorf("reported %v", h.fatal)
	}
	mustSeqs(t, "offered", h.fresh, 1)
	if err := h.Store.Close(context.Background()); !errors.Is(err, ErrStopped) {
		t.Errorf("close: %v", err)
	}
	h.reopen()
	if got := h.ready(lane); len(got) == 0 || got[0].Seq != 1 {
		t.Errorf("what was acknowledged: %v", seqs(got))
	}
}

// The database goes on with the transaction when the line is written: only what does not
// return is early enough.
func TestAnErrorOfAValueAborts(t *testing.T) {
	for line, aborts := range map[string]bool{"Error while curlf sync: %v\n": true, "error flushing memtable to disk: %v, retrying": false, "Unable to read: Key %v": false} {
		var met []error
		l := newBadgerLog(slog.New(slog.DiscardHandler))
		l.abort = func(err error) { met = append(met, err) }
		l.Errorf(line, "input/output error")
		if (len(met) == 1) != aborts || aborts && !strings.Contains(met[0].Error(), "input/output error") {
			t.Errorf("%q: aborts with %v", line, met)
		}
	}
}

func TestAnErrorThatAReaderMeetsStopsTheGroupUnderWay(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	err := h.do(t.Context(), func(g *group) error {
		g.accept(testEvent(1, lane))
		h.fail(errors.New("a reader met this"))
		return nil
	})
	if !errors.Is(err, ErrStopped) {
		t.Errorf("a change after the first error was acknowledged: %v", err)
	}
	mustSeqs(t, "offered", h.fresh)
	h.reopen()
	mustSeqs(t, "ready", h.ready(lane))
}

func TestAnErrorThatAReaderMeetsEndsAnIdleStore(t *testing.T) {
	h := newHarness(t)
	h.fail(errors.New("a reader met this"))
	select {
	case <-h.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the committer goes on")
	}
}

// What was written counts until the next look at the disk: a second is long.
func TestManyBytesAreReasonEnoughToLookAtTheDiskAgain(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 40)
	h := newHarness(t, func(o *Options) {
		o.stat = func(string) (diskState, error) {
			return diskState{free: free.Load(), total: 1 << 40, maxOpen: 1 << 20}, nil
		}
	})
	lane := h.lane("x.a")[0]
	large := func(n int) *Event {
		ev := testEvent(n, lane)
		ev.Payloads[FormatPeanuts] = make([]byte, 1<<20)
		return ev
	}
	h.accept(large(1))
	free.Store(0) // the clock of the store stands still
	for n := range 2 * spaceBytes >> 20 {
		err := h.Accept(t.Context(), []*Event{large(n)})
		if _, short := errors.AsType[*SpaceError](err); short {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("nobody looked at the disk")
}

// Badger works in the background too, and a store may have nothing to commit for
// hours.
func TestAnErrorLineStopsAnIdleStore(t *testing.T) {
	for name, report := range map[string]func(*badgerLog){
		"an error":            func(l *badgerLog) { l.Errorf("error flushing memtable to disk: %v, retrying", syscall.EIO) },
		"a failed compaction": func(l *badgerLog) { l.Warningf("While running doCompact: %v\n", syscall.EIO) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			report(h.blog)
			select {
			case <-h.dead:
			case <-time.After(30 * time.Second):
				t.Fatal("the store goes on")
			}
			if err := h.stopped(); !errors.Is(err, ErrStopped) {
				t.Errorf("stopped: %v", err)
			}
		})
	}
}

func TestAWarningWithoutAnErrorDoesNotStopTheStore(t *testing.T) {
	h := newHarness(t)
	h.blog.Warningf("While running doCompact with %+v. Error: %v\n", 1, errors.New("Unable to fill tables"))
	h.blog.Warningf("MANIFEST delete: table %d has already been removed", 7)
	h.accept(testEvent(1, h.lane("x.a")...))
}

// The committer may be busy for a while: copying forward, dropping a day.
func TestTheTimeToARetryCountsFromTheOutcome(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	h.accept(testEvent(1, lane))
	d, before := h.ready(lane)[0], h.Now()
	err := h.do(t.Context(), func(*group) error {
		h.finish(d, delivery.Pending, time.Minute)
		h.clock.advance(5 * time.Second) // the group takes its time
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.settle()
	mustEqual(t, "due", h.waiting(lane)[0].Due, before+time.Minute.Milliseconds())
}

func TestAnErrorLineAboutReadingAValueDoesNot(t *testing.T) {
	h := newHarness(t)
	h.blog.Errorf("Unable to read: Key: %v, Version : %v, meta: %v, userMeta: %v Error: %v", 1, 2, 3, 4, 5)
	h.accept(testEvent(1, h.lane("x.a")...))
}

func TestTooLittleSpaceRefusesAndRecoversByItself(t *testing.T) {
	for what, short := range map[string]diskState{
		"disk space":       {free: 100 << 20, total: 100 << 30, maxOpen: 1 << 20},
		"inodes":           {free: 1 << 40, total: 1 << 40, inodes: 1 << 20, freeInodes: 10, maxOpen: 1 << 20},
		"file descriptors": {free: 1 << 40, total: 1 << 40, maxOpen: 1024, descriptors: 1000},
	} {
		t.Run(what, func(t *testing.T) {
			var now atomic.Pointer[diskState]
			ok, _ := roomy("")
			now.Store(&ok)
			h := newHarness(t, func(o *Options) { o.stat = func(string) (diskState, error) { return *now.Load(), nil } })
			lane := h.lane("x.a")[0]
			h.accept(testEvent(1, lane))
			now.Store(&short)
			h.clock.advance(2 * time.Second)
			err := h.Accept(t.Context(), []*Event{testEvent(2, lane)})
			if e, ok := errors.AsType[*SpaceError](err); !ok || e.What != what {
				t.Fatalf("got %v", err)
			}
			st := h.Stats()
			mustEqual(t, "state", st.State, "no_space")
			mustEqual(t, "short of", st.Short, what)
			mustEqual(t, "pause", st.PauseDispatch, true)
			h.finish(h.ready(lane)[0], delivery.Success, 0) // outcomes still find room
			h.settle()
			mustEqual(t, "success", h.Stats().Success, 1)
			now.Store(&ok)
			h.clock.advance(2 * time.Second)
			h.accept(testEvent(3, lane))
			mustEqual(t, "state", h.Stats().State, "ok")
			now.Store(&short)
			h.close()
			if _, err := Open(context.Background(), h.opts); err == nil {
				t.Error("opened without space")
			}
			now.Store(&ok)
		})
	}
}

func TestMinFreeLowersTheMarkButNotBelowWhatTheDatabaseNeeds(t *testing.T) {
	mustEqual(t, "auto on a small disk", needFree(0, 1<<30), int64(autoFreeMin))
	mustEqual(t, "auto on a large disk", needFree(0, 1<<40), int64(autoFreeMax))
	mustEqual(t, "auto in between", needFree(0, 40<<30), int64(2<<30))
	mustEqual(t, "explicit", needFree(200<<20, 1<<40), int64(200<<20))
	mustEqual(t, "explicit, too low", needFree(1, 1<<40), int64(hardLeastFree))
	if err := checkSpace(t.TempDir()+"/not/there", 0, statDisk); err != nil {
		if _, ok := errors.AsType[*SpaceError](err); !ok {
			t.Error(err)
		}
	}
}

func TestAcceptAndReadAfterCloseAreRefused(t *testing.T) {
	h := newHarness(t)
	s, lane := h.Store, h.lane("x.a")[0]
	h.close()
	if err := s.Accept(t.Context(), []*Event{testEvent(1, lane)}); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if _, _, err := s.ReadReady(lane, 0, 1, 1); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	s.Complete(Completion{})
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
