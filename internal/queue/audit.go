package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/id"
)

const (
	// auditMemory bounds what an audit notes of the events that it looks at together,
	// in bytes: one for each delivery that there can be.
	auditMemory = 16 << 20
	// maxAuditProblems bounds the problems that are named.
	maxAuditProblems = 100
)

// Audit is what the books of the store say at one moment, and what the rows say.
type Audit struct {
	At    time.Time // wall clock
	Store uint64

	Events          int64 // accepted, ever
	EventsKept      int64 // their records are there
	EventsForgotten int64 // their records were let go by retention
	EventsLost      int64 // their records were lost, and a repair named them

	// Deliveries is how many were accepted, ever. It is Pending, Success and Failed of
	// all lanes together.
	Deliveries int64
	Lanes      []AuditLane // ascending

	Rows     int64          // that were read
	Problems []AuditProblem // at most 100
	Wrong    int64          // problems, those that are not named included
}

// AuditLane is the part of one lane. What has ended, Success and Failed, is
// Delivered, Refused, SetAside, Removed and Forgotten together.
type AuditLane struct {
	Lane    Lane
	Webhook string
	Pending int64 // rows, in all tracks
	Success int64 // by the ledger, ever
	Failed  int64

	Delivered int64 // rows of the log with success
	Refused   int64 // rows of the log that failed
	SetAside  int64 // rows of the log that were damaged, and set aside
	Removed   int64 // failed ones that an operator took out of the log
	Forgotten int64 // let go by retention
}

// AuditProblem is something that does not fit.
type AuditProblem struct {
	ID   string // of the delivery or event; "" = of neither
	What string
}

// AuditProgress is how far an audit is.
type AuditProgress struct {
	Events int64 // numbers of events that were dealt with
	Of     int64 // 0 = not known yet
	Rows   int64
}

// auditor is one audit. The rows of each kind and place are in the order of their
// events, so it walks all of them at once from event to event, and notes for a window
// of events where each delivery is. It belongs to one goroutine.
type auditor struct {
	*snapshot
	ctx      context.Context
	progress func(AuditProgress)
	it       *badger.Iterator
	out      Audit
	lanes    map[Lane]*auditLane
	order    []*auditLane
	gaps     []gap
	findings Findings // of what Verify has a sentence for

	base, end uint64 // the window; end is not in it
	events    []uint8
}

// auditLane is a lane as the rows say it is.
type auditLane struct {
	laneCounts
	at       int
	name     string
	kept     [2]int64 // rows of the log, by class
	setAside [2]int64
	gone     int64          // deliveries of kept events that are nowhere, with no retention to explain it
	names    []AuditProblem // of these
	places   []uint8
}

// Bits of auditLane.places and auditor.events.
const (
	placeCount  = 3 // how many places were met, at most 3
	placeListed = 4 // the event says that there is one

	eventThere   = 1
	eventDamaged = 2
	eventLost    = 4 // a repair has named it
)

// gap is a run of numbers that no event has, see metaGapKey.
type gap struct{ last, next uint64 }

// Audit looks at everything that was ever accepted: each delivery of each event that
// is kept is in exactly one place, each event whose time is not over is kept, and the
// sums of the rows are those of the ledger. It reads from one snapshot beside the work
// of the store and changes nothing; memory does not grow with the store. progress may
// be nil. What it found is no error. A *[SpaceError] says that the disk was too full to
// go on.
func (s *Store) Audit(ctx context.Context, progress func(AuditProgress)) (found Audit, err error) {
	defer s.panicked(&err)
	p, err := s.openSnapshot(ctx)
	if err != nil {
		return Audit{}, err
	}
	defer p.close()
	if progress == nil {
		progress = func(AuditProgress) {}
	}
	a := &auditor{snapshot: p, ctx: ctx, progress: progress, lanes: map[Lane]*auditLane{}}
	a.out = Audit{At: p.at, Store: s.id, Events: p.led.events, Deliveries: p.led.deliveries}
	for at, lane := range p.laneOrder() {
		l := &auditLane{at: at, name: p.lanes[lane].name,
			laneCounts: laneCounts{readyMark: 1<<64 - 1, returningMark: 1<<64 - 1, waitingMark: 1<<63 - 1, followingMark: 1<<64 - 1}}
		a.lanes[lane], a.order = l, append(a.order, l)
	}
	a.it = p.txn.NewIterator(badger.IteratorOptions{})
	defer a.it.Close()
	for _, step := range [...]func() error{a.readGaps, a.waiting, a.setAside, a.lines, a.walk} {
		if err := step(); err != nil {
			return Audit{}, err
		}
	}
	a.settle()
	return a.out, nil
}

func (a *auditor) wrong(id, format string, args ...any) {
	a.out.Wrong++
	if len(a.out.Problems) < maxAuditProblems {
		a.out.Problems = append(a.out.Problems, AuditProblem{ID: id, What: fmt.Sprintf(format, args...)})
	}
}

func (a *auditor) delivery(lane Lane, seq uint64) string {
	return id.Delivery(a.s.id, uint32(lane), seq)
}

// scan calls f for the rows from a key on that begin with a prefix, until it says that
// it has enough. The key is valid during the call only.
func (a *auditor) scan(from, prefix []byte, f func(key []byte, val func() []byte) bool) error {
	for a.it.Seek(from); a.it.ValidForPrefix(prefix); a.it.Next() {
		if err := a.step(a.ctx); err != nil {
			return err
		}
		var failed error
		more := f(a.it.Item().Key(), func() []byte {
			val, err := a.it.Item().ValueCopy([]byte{})
			failed = err
			return val
		})
		if failed != nil {
			return a.failed(fmt.Errorf("audit queue %q: %w", a.s.opts.Dir, failed))
		}
		if !more {
			break
		}
	}
	return nil
}

func (a *auditor) readGaps() error {
	prefix := []byte{kindMeta, 'G'}
	return a.scan(prefix, prefix, func(key []byte, val func() []byte) bool {
		last, err := decodeDue(key, val())
		if err != nil || len(key) != lenMetaGap {
			a.wrong("", "the note of a restore is damaged: %v", err)
			return true
		}
		a.gaps = append(a.gaps, gap{uint64(last), tail8(key)})
		return true
	})
}

// waiting goes through the rows that are not in the order of events. Their places are
// those of their index, which is.
func (a *auditor) waiting() error {
	prefix := []byte{kindWaiting}
	return a.scan(prefix, prefix, func(key []byte, val func() []byte) bool {
		if len(key) != lenLaneSeq+8 {
			a.wrong("", "the key %q of a waiting delivery has %d bytes", key, len(key))
			return true
		}
		p := splitPending(key)
		if l := a.pending(p, key, val()); l != nil {
			l.waiting++
			l.waitingMark = min(l.waitingMark, p.due)
			index := appendLaneSeq(nil, kindDue, p.lane, p.seq)
			raw, err := getCopy(a.txn, index)
			due, damage := decodeDue(index, raw)
			if err != nil || damage != nil || due != p.due {
				a.wrong(a.delivery(p.lane, p.seq), "waits for a retry and is not in the index of those that do")
			}
		}
		return true
	})
}

// pending looks at a row of a pending delivery. It returns nil for a lane that does not
// exist.
func (a *auditor) pending(p pendingPlace, key, val []byte) *auditLane {
	l := a.lanes[p.lane]
	if l == nil {
		a.wrong(a.delivery(p.lane, p.seq), "is pending for a webhook that the store does not know")
		return nil
	}
	row, err := decodePending(key, val)
	if err != nil {
		a.wrong(a.delivery(p.lane, p.seq), "its row is damaged: %v", err)
		return l
	}
	l.live += int64(row.charge)
	if !exists(a.txn, appendEventKey(nil, row.ref, p.seq)) {
		a.wrong(a.delivery(p.lane, p.seq), "is pending and its event's record is missing")
	}
	return l
}

// setAside counts the rows of the log that are in quarantine.
func (a *auditor) setAside() error {
	prefix := []byte{kindQuarantine, kindFinished}
	return a.scan(prefix, prefix, func(key []byte, _ func() []byte) bool {
		if len(key) != 1+lenFinished || key[2] > classFailed {
			return true
		}
		if l := a.lanes[Lane(binary.BigEndian.Uint32(key[5:]))]; l != nil {
			l.setAside[key[2]]++
		}
		return true
	})
}

func (a *auditor) lines() error {
	got := map[Lane]*laneCounts{}
	for lane, l := range a.lanes {
		got[lane] = &l.laneCounts
	}
	prefix := []byte{kindLine}
	return a.scan(prefix, prefix, func(key []byte, val func() []byte) bool {
		if len(key) != lenLine && len(key) != lenFollower {
			a.wrong("", "the key %q of a line has %d bytes", key, len(key))
			return true
		}
		a.s.verifyLine(a.txn, &a.findings, got, bytes.Clone(key), val())
		return true
	})
}

// auditSource is a run of rows that ascend by the numbers of their events.
type auditSource struct {
	prefix []byte
	next   uint64 // the event of the first row that was not looked at
}

// sources finds all runs that exist, one seek each.
func (a *auditor) sources() (out []auditSource) {
	const seqLen = 8
	lengths := map[string]int{string(kindEvent): lenEvent, string(kindFormer): lenEvent, string(kindFinished): lenFinished,
		string(kindReady): lenLaneSeq, string(kindReturning): lenLaneSeq, string(kindFollowing): lenLaneSeq, string(kindDue): lenLaneSeq,
		string(quarantineKey([]byte{kindEvent})): 1 + lenEvent}
	for _, kind := range slices.Sorted(maps.Keys(lengths)) {
		n := lengths[kind]
		for from := []byte(kind); ; {
			a.it.Seek(from)
			if !a.it.ValidForPrefix([]byte(kind)) {
				break
			}
			key := a.it.Item().KeyCopy(nil)
			if len(key) != n {
				a.wrong("", "the key %q has %d bytes instead of %d", key, len(key), n)
				from = append(key, 0)
				continue
			}
			prefix := key[:n-seqLen]
			out = append(out, auditSource{prefix: prefix, next: tail8(key)})
			from = append(slices.Clone(prefix), 255, 255, 255, 255, 255, 255, 255, 255, 255)
		}
	}
	return out
}

// walk goes through all events, a window at a time. What lies between windows has no
// rows, and no event that must be there.
func (a *auditor) walk() error {
	size := uint64(min(max(auditMemory/(len(a.order)+1), 4096), 1<<20))
	a.events = make([]uint8, size)
	for _, l := range a.order {
		l.places = make([]uint8, size)
	}
	sources := a.sources()
	for a.end = 1; ; {
		next := a.due(a.end)
		for i := range sources {
			next = min(next, sources[i].next)
		}
		if next == 1<<64-1 {
			return nil
		}
		a.base, a.end = next, next+size
		clear(a.events)
		for _, l := range a.order {
			clear(l.places)
		}
		for i := range sources {
			if err := a.run(&sources[i]); err != nil {
				return err
			}
		}
		a.window()
		a.progress(AuditProgress{Events: int64(min(a.end, a.led.lastSeq+1)) - 1, Of: int64(a.led.lastSeq), Rows: a.rows})
	}
}

// run reads the rows of one source within the window.
func (a *auditor) run(src *auditSource) error {
	if src.next >= a.end {
		return nil
	}
	from, inside := binary.BigEndian.AppendUint64(slices.Clone(src.prefix), src.next), false
	err := a.scan(from, src.prefix, func(key []byte, val func() []byte) bool {
		seq := tail8(key)
		if inside = seq < a.end; !inside {
			src.next = seq
			return false
		}
		a.row(key, seq, val)
		return true
	})
	if !a.it.ValidForPrefix(src.prefix) {
		src.next = 1<<64 - 1
	}
	return err
}

func (a *auditor) row(key []byte, seq uint64, val func() []byte) {
	switch key[0] {
	case kindEvent, kindFormer:
		a.event(key, seq, val())
	case kindFinished:
		a.finished(key, seq, val())
	case kindQuarantine:
		if reason, _, _, err := decodeQuarantine(key, val()); err == nil && reason == lostReason {
			a.events[seq-a.base] |= eventLost
		}
	case kindDue:
		lane := Lane(binary.BigEndian.Uint32(key[1:]))
		due, err := decodeDue(key, val())
		if err != nil || !exists(a.txn, appendWaitingKey(nil, lane, due, seq)) {
			a.wrong(a.delivery(lane, seq), "is in the index of those that wait for a retry, and does not: %v", err)
			return
		}
		a.met(lane, seq)
	default:
		p := splitPending(key)
		l := a.pending(p, key, val())
		if l == nil {
			return
		}
		a.met(p.lane, seq)
		switch p.track {
		case Returning:
			l.returning++
			l.returningMark = min(l.returningMark, seq)
		case Following:
			l.following++
			l.followingMark = min(l.followingMark, seq)
		default:
			l.ready++
			l.readyMark = min(l.readyMark, seq)
		}
	}
	if seq > a.led.lastSeq {
		a.wrong("", "a row %q is of an event that was never accepted", key)
	}
}

// met notes a place of a delivery.
func (a *auditor) met(lane Lane, seq uint64) {
	if l := a.lanes[lane]; l != nil {
		if at := &l.places[seq-a.base]; *at&placeCount < placeCount {
			*at++
		}
	}
}

func (a *auditor) event(key []byte, seq uint64, val []byte) {
	r, _, err := decodeEvent(key, val, a.s.id, seq)
	if err != nil {
		a.events[seq-a.base] |= eventDamaged
		return
	}
	a.events[seq-a.base] |= eventThere
	for _, d := range r.Deliveries {
		if l := a.lanes[d.Lane]; l != nil {
			l.places[seq-a.base] |= placeListed
		} else {
			a.wrong(a.delivery(d.Lane, seq), "is of a webhook that the store does not know")
		}
	}
}

func (a *auditor) finished(key []byte, seq uint64, val []byte) {
	class, lane := key[1], Lane(binary.BigEndian.Uint32(key[4:]))
	l := a.lanes[lane]
	if l == nil || class > classFailed {
		a.wrong(a.delivery(lane, seq), "is in the log for a webhook that the store does not know")
		return
	}
	if _, err := decodeFinished(key, val); err != nil {
		a.wrong(a.delivery(lane, seq), "its row of the log is damaged: %v", err)
	}
	l.kept[class]++
	a.met(lane, seq)
}
