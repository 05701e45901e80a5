package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

// Retention is how long what is finished is kept. Zero fields take the
// defaults of [Open].
type Retention struct {
	Delivered time.Duration // rows of the delivery log; 0 = 30 days
	Failed    time.Duration // the same and the payload of a failed delivery; 0 = 90 days
	Payloads  time.Duration // payloads of what was delivered; 0 = 7 days
	MaxBytes  int64         // of all buckets together; the oldest days go first; 0 = 5 GiB
}

// Options configure a store. Only Dir is required.
type Options struct {
	Dir               string
	Logger            *slog.Logger // nil discards
	MaxBytes          int64        // live bytes of the whole queue; 0 = 10 GiB
	MaxBytesPerHelper int64        // 0 = no limit of its own
	MinFree           int64        // bytes of the disk left alone; 0 = 5 %, at least 512 MiB, at most 4 GiB
	Retention         Retention
	Now               func() time.Time // the wall clock; nil = time.Now
	RemovedKeep       time.Duration    // 0 = the constant

	// OnReady gets the new deliveries of every commit, in the committer's
	// goroutine, after they are durable and before Accept returns. It must not
	// block or call the store; the slice is valid during the call only.
	OnReady func([]Delivery)
	// OnChange gets what every commit changed, under the same rules.
	OnChange func([]Change)
	// OnTurn gets the followers that a commit called, under the same rules.
	OnTurn func([]Turn)
	// OnCommit is told how long each group took to be written and synced, under the
	// same rules.
	OnCommit func(took time.Duration)
	// Busy says whether a delivery is being attempted, or its outcome was not in
	// an OnChange yet, so that it is not ended as one of a removed webhook. It is
	// called in the committer's goroutine, under the rules of OnReady; nil = never.
	Busy func(Lane, uint64) bool
	// Where reads the expression of a replay: what it returns says whether a payload
	// is chosen, and must return soon. It is called by whoever counts, creates or steps
	// the replay, with no lock held. nil = no replay may have one.
	Where func(expression string) (func(ctx context.Context, payload []byte) (bool, error), error)
	// OnFatal is called once, with the first storage error.
	OnFatal func(error)

	// For this package's tests.
	elapsed  func() time.Duration
	stat     func(string) (diskState, error)
	look     time.Duration // instead of lookEvery
	apply    time.Duration // instead of applyDelay
	journal  int64         // instead of journalBytes, when the store is made
	unsynced bool          // acknowledges what is not on disk: the control of the power-cut tests
}

// Values of Change.Kind.
const (
	ChangeAccepted = "accepted" // a new delivery
	ChangeAttempt  = "attempt"  // a completion was committed
	ChangeRequeued = "requeued" // retried or replayed by an operator
	ChangeDropped  = "dropped"  // ended without an attempt, or removed from the log; Code says why
)

// Change is one delivery's step, as it became durable.
type Change struct {
	Lane       Lane
	Seq        uint64
	State      delivery.State
	Attempts   int
	StatusCode int
	Code       delivery.Code
	Next       time.Time // wall clock; zero when due now or finished
	Kind       string    // ChangeAccepted, …
	// Took is how long the attempt of a ChangeAttempt was.
	Took time.Duration
}

// Store is an open queue. All methods are safe for concurrent use. It has more
// than fifteen fields because it is the one place that owns the database, the
// committer's queues and the state that the committer shares with readers.
type Store struct {
	opts Options
	log  *slog.Logger
	id   uint64
	db   *badger.DB
	blog *badgerLog
	// witness says how far the store came.
	witness witness
	lock    *os.File
	clock   *relayClock
	guard   *guard

	accepts chan *acceptReq
	ops     chan *op
	turns   chan chan<- error // see Turn
	comps   completions

	mu     sync.Mutex // guards the rest of this block; written by the committer only
	led    ledger     // of the group under way
	shown  ledger     // as of the last commit
	lanes  map[Lane]*laneState
	names  map[string]Lane
	live   map[string]int64      // by helper
	total  int64                 // live bytes
	days   []dayState            // ascending
	jobs   map[string]*ReplayJob // as of the last commit
	limits Limits
	expiry expiry

	lines atomic.Int64 // of all lanes, as of the last commit

	doubt   int64 // ms of relay time that only a doubtful wall clock added; constant once open
	doubtAt int64 // relay time after the last start that added to it; 0 = none; constant once open

	c committer // owned by the committer's goroutine

	readers sync.RWMutex // held for reading by a snapshot, for writing by closing the database

	closing   chan struct{}
	closeOnce sync.Once
	dead      chan struct{} // closed by the first storage error
	failOnce  sync.Once
	failure   atomic.Pointer[error]
	done      chan struct{} // closed when the committer takes nothing more
	ended     chan struct{} // closed when the database is closed
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.RemovedKeep == 0 {
		o.RemovedKeep = RemovedKeep
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.elapsed == nil {
		start := time.Now()
		o.elapsed = func() time.Duration { return time.Since(start) }
	}
	if o.stat == nil {
		o.stat = statDisk
	}
	o.look = cmp.Or(o.look, lookEvery)
	o.apply = cmp.Or(o.apply, applyDelay)
	o.journal = cmp.Or(o.journal, journalBytes)
	return o
}

// Open opens the store in o.Dir or makes a new one. Errors are a *[SpaceError]
// (nothing was opened: try again when there is space), a *[FormatError]
// (nothing was changed: an operator must act), a *[LockedError], or the error
// of a system call. ctx bounds nothing once the database is being opened,
// which may take seconds after a crash.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if err := checkSpace(o.Dir, o.MinFree, o.stat); err != nil {
		return nil, err
	}
	s, err := open(o)
	if err != nil {
		return nil, err
	}
	go s.commitLoop()
	go s.expireLoop()
	go s.residencyLoop()
	return s, nil
}

// enter takes the directory, ends a repair that was under way, and reads FORMAT.
func enter(o Options) (lock *os.File, m *marker, number uint64, err error) {
	if err := makeDir(o.Dir); err != nil {
		return nil, nil, 0, err
	}
	if lock, err = lockDir(o.Dir, lockPatience); err != nil {
		return nil, nil, 0, err
	}
	if err = finishSwap(o.Dir); err == nil {
		m, err = prepare(o.Dir, o.Now())
	}
	if err == nil {
		number, err = m.storeID()
	}
	if err == nil {
		err = noteStart(o.Dir)
	}
	if err != nil {
		lock.Close()
		return nil, nil, 0, err
	}
	return lock, m, number, nil
}

func open(o Options) (s *Store, err error) {
	var undo []io.Closer
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				_ = undo[i].Close() // the first error is the one to report
			}
			if len(undo) > 0 {
				endWell(o.Dir) // a refusal is no crash
			}
		}
	}()
	lock, m, number, err := enter(o)
	if err != nil {
		return nil, err
	}
	undo = append(undo, lock)
	db, blog, err := openBadger(filepath.Join(o.Dir, dbDir), o.Logger, !o.unsynced)
	if err != nil {
		if strings.Contains(err.Error(), "Cannot acquire directory lock") {
			return nil, &LockedError{Dir: o.Dir}
		}
		return nil, err
	}
	undo = append(undo, db)
	failpoint.Here("open.database")
	s = &Store{opts: o, log: o.Logger, id: number, db: db, blog: blog, lock: lock,
		accepts: make(chan *acceptReq, 256), ops: make(chan *op), turns: make(chan chan<- error),
		lanes: map[Lane]*laneState{}, names: map[string]Lane{}, live: map[string]int64{}, jobs: map[string]*ReplayJob{},
		closing: make(chan struct{}), dead: make(chan struct{}), done: make(chan struct{}), ended: make(chan struct{})}
	s.guard = &guard{dir: o.Dir, minFree: o.MinFree, stat: o.stat, now: o.elapsed}
	s.limits = Limits{MaxBytes: o.MaxBytes, MaxBytesPerHelper: o.MaxBytesPerHelper, MinFree: o.MinFree, Retention: o.Retention}.withDefaults()
	s.comps.init()
	s.expiry.init()
	if err := s.initialise(m); err != nil {
		return nil, err
	}
	if err := s.openJournal(); err != nil {
		return nil, err
	}
	undo = append(undo, s.c.unapplied.journal)
	if err := s.load(); err != nil {
		return nil, err
	}
	if err := firstError(s.openLaneNames(), s.openWitness()); err != nil {
		s.witness.Close()
		return nil, err
	}
	undo = append(undo, &s.witness)
	s.clock = newRelayClock(s.led.relayTime, s.doubtAt, o.Now, o.elapsed)
	if err := s.noteDoubt(); err != nil {
		return nil, err
	}
	s.c.init(s)
	failpoint.Here("open.opened")
	return s, nil
}

// initialise writes the first rows of a new store, and checks those of an old
// one. A crash before the marker says "initialised" repeats it: nothing can
// have been accepted.
func (s *Store) initialise(m *marker) error {
	path := filepath.Join(s.opts.Dir, dbDir)
	key, want := metaFormatKey(), fmt.Sprintf("%d %s", formatNumber, m.Store)
	var got string
	err := s.db.View(func(txn *badger.Txn) error {
		raw, err := getCopy(txn, key)
		if err != nil || raw == nil {
			return err
		}
		got, err = decodePlain(key, raw)
		return err
	})
	if _, damaged := errors.AsType[*damageError](err); damaged {
		return &FormatError{File: path, What: "the database's own format row is damaged", Remedy: damagedRemedy}
	}
	if err != nil {
		return fmt.Errorf("read format row: %w", err)
	}
	if m.Initialised && got == want && m.Format == formatNumber {
		return nil
	}
	if m.Initialised && got == "" {
		return &FormatError{File: path, What: "the database is empty although this queue was in use",
			Remedy: damagedRemedy}
	}
	if got != "" && !ofStore(got, m.Store) {
		return &FormatError{File: path, What: fmt.Sprintf("the database belongs to another store (%q, expected %q)", got, want),
			Remedy: "put FORMAT and db of the same store together, from one backup"}
	}
	if m.Initialised {
		return s.raiseFormat(m, want)
	}
	if err := firstError(s.makeJournal(), forgetFormer(s.opts.Dir)); err != nil {
		return err
	}
	failpoint.Here("create.journal")
	err = s.db.Update(func(txn *badger.Txn) error {
		led := ledger{relayTime: newRelayClock(0, 0, s.opts.Now, s.opts.elapsed).now(), nextLane: 1, nextReplay: 1}
		if err := txn.Set(metaLedgerKey(), led.append(nil, metaLedgerKey())); err != nil {
			return err
		}
		return txn.Set(key, appendPlain(nil, key, want))
	})
	if err == nil {
		err = s.blog.poisoned()
	}
	if err != nil {
		return fmt.Errorf("write first rows: %w", err)
	}
	failpoint.Here("create.rows")
	m.Initialised, m.Format = true, formatNumber
	return writeMarker(s.opts.Dir, m)
}

// ofStore reports whether a format row is of a store, and of this format or a former one.
func ofStore(row, store string) bool {
	var format int
	var name string
	n, err := fmt.Sscanf(row, "%d %s", &format, &name)
	return n == 2 && err == nil && format >= 1 && format <= formatNumber && name == store
}

// raiseFormat makes a store of a former format one of this. FORMAT comes before all
// but the empty journal, which former versions pass over: from then on they refuse,
// and nothing of the new form is written before. A crash in between repeats it.
func (s *Store) raiseFormat(m *marker, want string) error {
	if m.Format < formatNumber {
		if err := s.makeJournal(); err != nil {
			return err
		}
	}
	failpoint.Here("raise.journal")
	m.Format = formatNumber
	if err := writeMarker(s.opts.Dir, m); err != nil {
		return err
	}
	key := metaFormatKey()
	row := func(txn *badger.Txn) error { return txn.Set(key, appendPlain(nil, key, want)) }
	err := failpoint.Call("raise.row", func() error { return s.db.Update(row) })
	if err = firstError(err, s.blog.poisoned()); err != nil {
		return fmt.Errorf("write format row: %w", err)
	}
	s.log.Info("queue was raised to a new format; former versions cannot open it any more", "format", formatNumber)
	return nil
}

// StoreID is the random number that is part of every id of this store.
func (s *Store) StoreID() uint64 { return s.id }

// Close records what is buffered and closes the database. Accept and all other
// calls answer [ErrStopped] from then on. After a storage error it writes
// nothing more and leaves the database as it is: opening it anew, in a new
// process, is the recovery.
func (s *Store) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { close(s.closing) })
	select {
	case <-s.ended:
		<-s.expiry.ended // nothing holds it up once the committer is gone
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.stopped(); err != nil {
		return err
	}
	return s.c.closeErr
}

// fail stops the store for good. Only the first error counts.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		s.failure.Store(&err)
		s.log.Error("queue stopped on a storage error", "err", err)
		close(s.dead)
		if s.opts.OnFatal != nil {
			s.opts.OnFatal(err)
		}
	})
}

// stopped returns nil while the store works, else an error that is ErrStopped.
func (s *Store) stopped() error {
	if p := s.failure.Load(); p != nil {
		return fmt.Errorf("%w: %w", ErrStopped, *p)
	}
	return nil
}

func (s *Store) usable() error {
	if err := s.stopped(); err != nil {
		return err
	}
	select {
	case <-s.closing:
		return ErrStopped
	default:
		return nil
	}
}

// getCopy returns nil for a key that is not there. An unreadable value is
// empty, which unseal reports as damage.
func getCopy(txn *badger.Txn, key []byte) ([]byte, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	val, err := item.ValueCopy([]byte{})
	if val == nil {
		val = []byte{}
	}
	return val, err
}
