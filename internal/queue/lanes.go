package queue

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// laneState is one lane in memory; Store.mu guards it.
type laneState struct {
	laneCounts
	shown  laneCounts // as of the last commit
	life   laneLife
	wanted [16]byte // identity in the configuration, as SetLanes said it last
	told   bool     // it did, in this process
	sink   uint32   // the number of its sink
	states []uint32 // sinks that may have kept something
	name   string
	helper string
	moved  int  // rows that left since the marks were last raised
	dirty  bool // its row is to be written with the group under way
	// stirred grows whenever a row goes from one track to another without an
	// attempt, so that who walks the tracks knows that one may have passed by.
	stirred int64
	// removedRows counts the failed deliveries that an operator took out of the log.
	removedRows int64
}

// LaneStats says what a lane holds.
type LaneStats struct {
	Webhook   string
	Ready     int64 // wait for their first attempt
	Waiting   int64 // wait for the time of a retry
	Returning int64 // retried or replayed by an operator
	Following int64 // wait for an earlier one of their entry
	LiveBytes int64
	// Success and Failed count deliveries by how they ended, kept or not. One
	// that is retried or replayed is pending again and leaves its count, so
	// that what was accepted is always the sum of all six.
	Success int64
	Failed  int64

	RemovedAt time.Time // wall clock; zero = the webhook is in the configuration
	// Expires is when what is pending on a removed lane ends as failed, unless
	// the webhook comes back; wall clock. Zero when nothing would.
	Expires  time.Time
	Returned bool // see LaneInfo
}

// Pending is how many deliveries are not finished.
func (l LaneStats) Pending() int64 { return l.Ready + l.Waiting + l.Returning + l.Following }

// Values of Stats.State.
const (
	StateStarting = "starting" // never said by a Store: nothing is open yet
	StateOK       = "ok"
	StateNoSpace  = "no_space" // accepts nothing until there is room
	StateStopped  = "stopped"  // by a storage error, or closed
)

// Stats says what the whole store holds. Zero fields are plain zeros.
type Stats struct {
	Events      int64 // accepted, ever
	Deliveries  int64 // accepted, ever = Success + Failed + Pending
	Success     int64
	Failed      int64
	Pending     int64
	LiveBytes   int64
	Groups      int64 // transactions, ever
	Quarantined int64 // rows that could not be believed, ever
	LastSeq     uint64
	ClockAhead  time.Duration // relay time less the wall clock; far from 0 when that was set

	DiskFree      int64  // bytes, at most a second old
	AcceptMark    int64  // below this many free bytes nothing is accepted
	DispatchMark  int64  // below this many outcomes may not find room: pause
	PauseDispatch bool   // bytes, inodes or descriptors are below half of what accepting needs
	State         string // StateOK, StateNoSpace or StateStopped
	Short         string // what there is too little of, as in SpaceError.What; "" = of nothing
}

func helperOf(webhook string) string {
	helper, _, _ := strings.Cut(webhook, ".")
	return helper
}

func (s *Store) addLane(lane Lane, name string, counts laneCounts) {
	l := &laneState{laneCounts: counts, shown: counts, name: name, helper: helperOf(name)}
	s.lanes[lane], s.names[name] = l, lane
	s.live[l.helper] += counts.live
	s.total += counts.live
	s.lines.Add(counts.lines)
}

// load reads the state that lives in memory: ledger, lanes, days, replay jobs.
// All of it is small; no delivery is looked at.
func (s *Store) load() error {
	err := s.db.View(func(txn *badger.Txn) error {
		raw, err := getCopy(txn, metaLedgerKey())
		if err != nil {
			return err
		}
		if s.led, err = decodeLedger(metaLedgerKey(), raw); err != nil {
			return err
		}
		s.shown = s.led
		err = scanPrefix(txn, []byte{kindMeta, 'n'}, func(key, val []byte) error {
			name, err := decodePlain(key, val)
			if err != nil {
				return err
			}
			lane := Lane(binary.BigEndian.Uint32(key[2:]))
			var counts laneCounts
			if raw, err := getCopy(txn, laneKey(lane)); err != nil {
				return err
			} else if raw != nil {
				if counts, err = decodeLaneCounts(laneKey(lane), raw); err != nil {
					return err
				}
			}
			s.addLane(lane, name, counts)
			return nil
		})
		if err != nil {
			return err
		}
		if err := s.loadLives(txn); err != nil {
			return err
		}
		s.loadStates(txn)
		err = scanPrefix(txn, []byte{kindDay}, func(key, val []byte) error {
			row, err := decodeDay(key, val)
			s.days = append(s.days, dayState{day: binary.BigEndian.Uint16(key[1:]), dayRow: row})
			return err
		})
		if err != nil {
			return err
		}
		return scanPrefix(txn, []byte{kindReplay}, func(key, val []byte) error {
			job, err := decodeReplay(key, val)
			s.jobs[job.ID] = &job
			return err
		})
	})
	if damage, ok := errors.AsType[*damageError](err); ok {
		return &FormatError{File: filepath.Join(s.opts.Dir, dbDir), What: "a row that everything depends on is damaged: " + damage.reason,
			Remedy: damagedRemedy}
	}
	if err != nil {
		return fmt.Errorf("read state of queue: %w", err)
	}
	return nil
}

// loadLives reads what is known of the webhooks behind the lanes.
func (s *Store) loadLives(txn *badger.Txn) error {
	raw, err := getCopy(txn, metaDoubtKey())
	if err != nil {
		return err
	}
	if raw != nil {
		if s.doubt, err = decodeDue(metaDoubtKey(), raw); err != nil {
			return err
		}
	}
	if raw, err = getCopy(txn, metaDoubtAtKey()); err != nil {
		return err
	}
	if raw != nil {
		if s.doubtAt, err = decodeDue(metaDoubtAtKey(), raw); err != nil {
			return err
		}
	}
	err = scanPrefix(txn, []byte{kindMeta, 'R'}, func(key, val []byte) error {
		n, err := decodeDue(key, val)
		if l := s.lanes[Lane(binary.BigEndian.Uint32(key[2:]))]; l != nil {
			l.removedRows = n
		}
		return err
	})
	if err != nil {
		return err
	}
	return scanPrefix(txn, []byte{kindMeta, 'w'}, func(key, val []byte) error {
		life, err := decodeLaneLife(key, val)
		if err != nil {
			return err
		}
		l := s.lanes[Lane(binary.BigEndian.Uint32(key[2:]))]
		if l == nil {
			return &damageError{"the state of a lane without a name"}
		}
		l.life = life
		return nil
	})
}

// scanPrefix calls f with copies of every row under a prefix of few rows.
func scanPrefix(txn *badger.Txn, prefix []byte, f func(key, val []byte) error) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	for it.Seek(prefix); it.ValidForPrefix(prefix); it.Next() {
		val, err := it.Item().ValueCopy(nil)
		if err != nil {
			return err
		}
		if err := f(bytes.Clone(it.Item().Key()), val); err != nil {
			return err
		}
	}
	return nil
}

// LaneName is the webhook of a lane, "" for an unknown one.
func (s *Store) LaneName(lane Lane) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[lane]; l != nil {
		return l.name
	}
	return ""
}

// Lanes lists all lanes in ascending order, those of removed webhooks
// included. The figures are those of the last commit.
func (s *Store) Lanes() iter.Seq2[Lane, LaneStats] {
	s.mu.Lock()
	defer s.mu.Unlock()
	order := make([]Lane, 0, len(s.lanes))
	stats := make(map[Lane]LaneStats, len(s.lanes))
	for lane, l := range s.lanes {
		order = append(order, lane)
		st := LaneStats{Webhook: l.name, Ready: l.shown.ready, Waiting: l.shown.waiting, Returning: l.shown.returning, Following: l.shown.following,
			LiveBytes: l.shown.live, Success: l.shown.success, Failed: l.shown.failed}
		s.lifeStats(lane, l, &st)
		stats[lane] = st
	}
	slices.Sort(order)
	return func(yield func(Lane, LaneStats) bool) {
		for _, lane := range order {
			if !yield(lane, stats[lane]) {
				return
			}
		}
	}
}

// Stats sums up what is durable: whatever it counts, a read that begins later
// finds. It looks at the disk when the last look is over a second old, so asking
// for it is also how an idle store notices that there is room again.
func (s *Store) Stats() Stats {
	space := s.guard.marks()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Events: s.shown.events, Deliveries: s.shown.deliveries, Groups: s.shown.groups,
		Quarantined: s.shown.quarantined, LastSeq: s.shown.lastSeq,
		ClockAhead: time.Duration(s.Now()-s.opts.Now().UnixMilli()) * time.Millisecond, DiskFree: space.free, AcceptMark: space.accept,
		DispatchMark: space.accept / 2, PauseDispatch: space.pause, State: StateOK}
	for _, l := range s.lanes {
		st.Success += l.shown.success
		st.Failed += l.shown.failed
		st.Pending += l.shown.pending()
		st.LiveBytes += l.shown.live
	}
	switch {
	case s.usable() != nil:
		st.State = StateStopped
	case space.err != nil:
		st.State = StateNoSpace
	}
	if short, ok := errors.AsType[*SpaceError](space.err); ok {
		st.Short = short.What
	}
	return st
}

// OldestAccepted is when the oldest delivery of a lane that still waits for
// its first attempt was accepted; zero when there is none. It costs a seek, and
// another one when some wait for others of their entry.
func (s *Store) OldestAccepted(lane Lane) (time.Time, error) {
	ds, _, err := s.ReadReady(lane, 0, 1, 1)
	if c, _ := s.marks(lane); err == nil && c.following > 0 {
		var behind []Delivery
		behind, _, err = s.readBySeq(appendLaneSeq(nil, kindFollowing, lane, c.followingMark), 1, 1)
		ds = append(ds, behind...)
	}
	if err != nil || len(ds) == 0 {
		return time.Time{}, err
	}
	return slices.MinFunc(ds, func(a, b Delivery) int { return cmp.Compare(a.Seq, b.Seq) }).Accepted, nil
}
