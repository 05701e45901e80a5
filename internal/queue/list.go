package queue

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

const (
	defaultLimit = 50
	maxLimit     = 1000
	// maxScanned bounds the rows that one page looks at: a filter that fits
	// little gives short pages, with a cursor to go on from.
	maxScanned = 20000
	// fewPending is up to how many pending rows are read forward from the mark;
	// more than that are dense at the end of the lane and read backward.
	fewPending = 2000
)

// ListQuery selects rows of the delivery log.
type ListQuery struct {
	Lanes     []Lane           // empty = all
	States    []delivery.State // empty = all
	Since     time.Time        // accepted at or after; zero = no bound
	Until     time.Time        // accepted before; zero = no bound
	EventType string           // "" = all
	Limit     int              // 0 = 50, at most 1000
	Cursor    string           // from the page before; "" = the newest
}

// List returns deliveries with the newest (highest sequence number) first, and
// a cursor for the page after, "" at the end. A page may be short or even
// empty while there is a cursor: the work per call is bounded. The cursor is
// opaque; one that was not given out by List is ErrBadCursor.
func (s *Store) List(q ListQuery) (sums []Summary, next string, err error) {
	at := position{seq: 1<<64 - 1, lane: 1<<32 - 1}
	if q.Cursor != "" {
		if at, err = parseCursor(q.Cursor); err != nil {
			return nil, "", err
		}
	}
	limit := min(cmp.Or(max(q.Limit, 0), defaultLimit), maxLimit)
	lo, hi := s.seqRange(q.Since, q.Until)
	if at.seq > hi {
		at = position{seq: hi, lane: 1<<32 - 1}
	}
	sources := s.sources(&q, lo)
	err = s.view(func(txn *badger.Txn) (found []damaged, err error) {
		sums, next = nil, ""
		m := newMerge(txn, slices.Clone(sources), at)
		defer m.it.Close()
		for scanned := 0; ; scanned++ {
			pos, key, err := m.next()
			if err != nil || key == nil || pos.seq < lo {
				return found, err
			}
			if len(sums) >= limit || scanned >= maxScanned {
				// The row just met starts the next page.
				next = pos.cursor()
				return found, nil
			}
			raw, err := getCopy(txn, key)
			if err != nil {
				return found, err
			}
			sum, bad, err := s.summarise(txn, key, raw)
			if err != nil {
				return found, err
			}
			if bad != nil {
				found = append(found, *bad)
				continue
			}
			if (q.EventType == "" || q.EventType == sum.EventType) && within(sum.Accepted, q.Since, q.Until) {
				sums = append(sums, sum)
			}
		}
	})
	return sums, next, err
}

// parseCursor reads what cursor writes, and nothing else: a cursor comes from
// outside.
func parseCursor(text string) (position, error) {
	seq, lane, _ := strings.Cut(text, ".")
	n, err1 := strconv.ParseUint(seq, 16, 64)
	l, err2 := strconv.ParseUint(lane, 16, 32)
	at := position{seq: n, lane: Lane(l)}
	if err1 != nil || err2 != nil || at.cursor() != text {
		return position{}, fmt.Errorf("cursor %q: %w", text, ErrBadCursor)
	}
	return at, nil
}

func (p position) cursor() string { return fmt.Sprintf("%x.%x", p.seq, p.lane) }

// seqRange narrows times of acceptance to sequence numbers by what each day's
// row says of its events.
func (s *Store) seqRange(since, until time.Time) (lo, hi uint64) {
	hi = 1<<64 - 1
	days := s.dayList()
	if !since.IsZero() {
		i := slices.IndexFunc(days, func(d dayState) bool { return d.maxAccepted >= since.UnixMilli() })
		switch {
		case i > 0:
			lo = days[i].firstSeq
		case i < 0 && len(days) > 0:
			lo = 1<<64 - 1
		}
	}
	if !until.IsZero() {
		for i := len(days) - 1; i >= 0 && days[i].minAccepted >= until.UnixMilli(); i-- {
			hi = max(days[i].firstSeq, 1) - 1
		}
	}
	return lo, hi
}

// position is a place in a list: below it means older, or the same event on a
// smaller lane.
type position struct {
	seq  uint64
	lane Lane
}

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.seq, q.seq), cmp.Compare(p.lane, q.lane))
}

// source is one run of keys that ascend by sequence number on one lane.
type source struct {
	prefix []byte // everything before the sequence number
	lane   Lane
	upto   uint64   // no row has a higher sequence number
	few    bool     // pending rows to be collected forward from the mark
	from   []byte   // few: where to start
	rows   []uint64 // few: collected, descending
	dues   map[uint64]int64
}

// sources lists where rows that fit the query can be.
func (s *Store) sources(q *ListQuery, lo uint64) []source {
	s.mu.Lock()
	defer s.mu.Unlock()
	lanes := slices.Clone(q.Lanes)
	if len(lanes) == 0 {
		for lane := range s.lanes {
			lanes = append(lanes, lane)
		}
	}
	slices.Sort(lanes)
	wants := func(st delivery.State) bool { return len(q.States) == 0 || slices.Contains(q.States, st) }
	var out []source
	for _, lane := range slices.Compact(lanes) {
		l := s.lanes[lane]
		if l == nil {
			continue
		}
		if wants(delivery.Pending) {
			out = appendPendingSources(out, lane, l, s.led.lastSeq)
		}
		for i, d := range s.days {
			upto := s.led.lastSeq
			if i+1 < len(s.days) {
				upto = max(s.days[i+1].firstSeq, 1) - 1
			}
			for class, st := range [...]delivery.State{classDelivered: delivery.Success, classFailed: delivery.Failed} {
				if wants(st) && upto >= lo && d.gone&bucketBit(kindFinished, uint8(class)) == 0 {
					full := appendFinishedKey(nil, uint8(class), d.day, lane, 0)
					out = append(out, source{prefix: full[:lenFinished-8], lane: lane, upto: upto})
				}
			}
		}
	}
	return out
}

func appendPendingSources(out []source, lane Lane, l *laneState, last uint64) []source {
	add := func(n int64, index byte, from []byte) {
		if n == 0 {
			return
		}
		out = append(out, source{prefix: appendLanePrefix(nil, index, lane), lane: lane, upto: last, few: n <= fewPending, from: from})
	}
	add(l.ready, kindReady, appendLaneSeq(nil, kindReady, lane, l.readyMark))
	add(l.waiting, kindDue, appendWaitingKey(nil, lane, max(l.waitingMark, 0), 0))
	add(l.returning, kindReturning, appendLaneSeq(nil, kindReturning, lane, l.returningMark))
	add(l.following, kindFollowing, appendLaneSeq(nil, kindFollowing, lane, l.followingMark))
	return out
}

// merge walks many sources as one list, newest first, with one iterator. A
// source is looked into only when its bound comes up, so that a page of new
// rows costs nothing for old days.
type merge struct {
	txn *badger.Txn
	it  *badger.Iterator
	h   mergeHeap
}

// cursor is a source on the heap; opened means that at is an existing row.
type cursor struct {
	src    *source
	at     position
	opened bool
}

type mergeHeap []*cursor

func (h mergeHeap) Len() int           { return len(h) }
func (h mergeHeap) Less(i, j int) bool { return h[i].at.compare(h[j].at) > 0 }
func (h mergeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *mergeHeap) Push(x any)        { *h = append(*h, x.(*cursor)) }
func (h *mergeHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func newMerge(txn *badger.Txn, sources []source, from position) *merge {
	m := &merge{txn: txn, it: txn.NewIterator(badger.IteratorOptions{Reverse: true})}
	for i := range sources {
		src := &sources[i]
		seq := from.seq
		if src.lane > from.lane {
			if seq == 0 {
				continue
			}
			seq--
		}
		m.h = append(m.h, &cursor{src: src, at: position{min(seq, src.upto), src.lane}})
	}
	heap.Init(&m.h)
	return m
}

// next returns the newest row that was not returned yet; a nil key at the end.
func (m *merge) next() (position, []byte, error) {
	for len(m.h) > 0 {
		c := m.h[0]
		if !c.opened {
			m.seek(c)
			continue
		}
		at := c.at
		key, err := m.key(c)
		if err != nil {
			return position{}, nil, err
		}
		c.opened = false
		if at.seq == 0 {
			heap.Pop(&m.h)
		} else {
			c.at.seq--
			heap.Fix(&m.h, 0)
		}
		if key != nil {
			return at, key, nil
		}
	}
	return position{}, nil, nil
}

// seek moves the top source to its newest row at or below its position.
func (m *merge) seek(c *cursor) {
	seq, ok := uint64(0), false
	if c.src.few {
		if c.src.dues == nil {
			m.collect(c.src)
		}
		for len(c.src.rows) > 0 && c.src.rows[0] > c.at.seq {
			c.src.rows = c.src.rows[1:]
		}
		if ok = len(c.src.rows) > 0; ok {
			seq = c.src.rows[0]
		}
	} else {
		m.it.Seek(binary.BigEndian.AppendUint64(slices.Clone(c.src.prefix), c.at.seq))
		if ok = m.it.ValidForPrefix(c.src.prefix); ok {
			seq = tail8(m.it.Item().Key())
		}
	}
	if !ok {
		heap.Pop(&m.h)
		return
	}
	c.at.seq, c.opened = seq, true
	heap.Fix(&m.h, 0)
}

// collect reads the few pending rows of a source forward from the lane's mark,
// where deleted rows are few, and sorts them the other way round.
func (m *merge) collect(src *source) {
	src.dues, src.rows = map[uint64]int64{}, nil
	prefix := src.from[:lenLaneSeq-8]
	it := m.txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	// Counters and snapshot are a commit or two apart: allow for that.
	for it.Seek(src.from); it.ValidForPrefix(prefix) && len(src.rows) < 2*fewPending; it.Next() {
		key := it.Item().Key()
		seq := tail8(key)
		src.rows = append(src.rows, seq)
		if key[0] == kindWaiting {
			src.dues[seq], _ = splitWaiting(key)
		}
	}
	slices.SortFunc(src.rows, func(a, b uint64) int { return cmp.Compare(b, a) })
}

// key is the row to read for the source's position, nil when it is gone.
func (m *merge) key(c *cursor) ([]byte, error) {
	if c.src.prefix[0] != kindDue {
		return binary.BigEndian.AppendUint64(slices.Clone(c.src.prefix), c.at.seq), nil
	}
	if due, ok := c.src.dues[c.at.seq]; ok {
		return appendWaitingKey(nil, c.src.lane, due, c.at.seq), nil
	}
	p, err := locateWaiting(m.txn, c.src.lane, c.at.seq)
	return p.key, err
}
