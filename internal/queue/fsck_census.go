package queue

import (
	"encoding/binary"
	"slices"

	"github.com/peanutsapp/peanuts-relay/internal/queue/rawdb"
)

// bits is a set of sequence numbers. Those that are near each other share memory: ten
// million that follow each other take 1.5 MB.
type bits map[uint64]*[64]uint64

// set adds a number and reports whether it was there.
func (b bits) set(seq uint64) (before bool) {
	page := b[seq>>12]
	if page == nil {
		page = new([64]uint64)
		b[seq>>12] = page
	}
	word, bit := &page[seq>>6&63], uint64(1)<<(seq&63)
	before = *word&bit != 0
	*word |= bit
	return before
}

func (b bits) has(seq uint64) bool {
	page := b[seq>>12]
	return page != nil && page[seq>>6&63]&(1<<(seq&63)) != 0
}

// each calls f for every number, in order.
func (b bits) each(f func(seq uint64)) {
	pages := make([]uint64, 0, len(b))
	for page := range b {
		pages = append(pages, page)
	}
	slices.Sort(pages)
	for _, page := range pages {
		for i := range uint64(4096) {
			if seq := page<<12 | i; b.has(seq) {
				f(seq)
			}
		}
	}
}

// deliveryAt names a delivery.
type deliveryAt struct {
	lane Lane
	seq  uint64
}

// laneCensus is what was found of a lane: more than fifteen fields, one for each thing
// that is compared with another.
type laneCensus struct {
	name    string
	helper  string      // as an event says
	kept    bool        // the name is only in the second place
	counts  *laneCounts // as its row says; nil = not there or not readable
	found   laneCounts  // rows
	logged  [2]int64    // finished, by class
	aside   [2]int64    // finished and set aside before, by class
	removed int64       // failed, and not in the log any more
	wanted  bits        // its events say that there is one
	pending bits
	done    bits
	due     bits // index of waiting ones
	waiting bits
	follow  bits // index of followers
	behind  bits // followers
	heads   bits
	lost    bits   // a repair has said so
	dueSum  uint64 // of the due times in the index and in the rows; 0 when they agree
	broken  bool   // its lines do not fit
	// explained says that whatever is nowhere was taken out of the log by an operator.
	explained bool
	first     struct{ ready, returning, following uint64 }
	soonest   int64
}

// census is what all rows together say, in memory that does not grow with what is in
// them. It has more than fifteen fields, one for each thing that is compared with another.
type census struct {
	store    uint64
	lanes    map[Lane]*laneCensus
	days     []dayState
	led      *ledger
	witness  progressOf
	events   map[payloadRef]*[numFormats]bits // records that are intact, by the payloads that they have
	known    bits                             // events of which any record is intact
	own      bits                             // events with an id of their sender
	ownSeen  bits                             // the same by the index
	lost     bits                             // events that a repair has said to be lost
	twice    map[deliveryAt]bool              // in two places
	gaps     []gap                            // numbers that no event has
	last     uint64                           // highest sequence number that anything speaks of
	doubtful bits                             // numbers that damaged rows speak of
	doubted  []deliveryAt                     // deliveries likewise
	suspects []Lane                           // whose lines may be broken, likewise
	lastDay  uint16
	bad      int64 // rows
	setAside int64 // rows
	line     struct {
		lane Lane
		hash uint64
		want int64
		got  int64
		open bool
	}
}

func newCensus(store uint64) *census {
	return &census{store: store, lanes: map[Lane]*laneCensus{}, events: map[payloadRef]*[numFormats]bits{}, known: bits{}, own: bits{}, ownSeen: bits{}, lost: bits{}, doubtful: bits{},
		twice: map[deliveryAt]bool{}}
}

func (c *census) lane(lane Lane) *laneCensus {
	l := c.lanes[lane]
	if l == nil {
		l = &laneCensus{wanted: bits{}, pending: bits{}, done: bits{}, due: bits{}, waiting: bits{}, follow: bits{}, behind: bits{}, heads: bits{}, lost: bits{}}
		l.first.ready, l.first.returning, l.first.following, l.soonest = 1<<64-1, 1<<64-1, 1<<64-1, 1<<63-1
		c.lanes[lane] = l
	}
	return l
}

// laneAt reads a lane's number within a key.
func laneAt(key []byte, at int) Lane { return Lane(binary.BigEndian.Uint32(key[at:])) }

// count takes a row into the census.
func (f *fsck) count(r rawdb.Row) error {
	c := f.seen
	f.report.Rows++
	if why := rowDamage(f.store, &r); why != "" {
		c.bad++
		f.problem(rowKind(r.Key), why, rowMeans(f.store, r.Key))
		f.countDamaged(r.Key)
		return nil
	}
	key, val := r.Key, r.Value
	switch key[0] {
	case kindEvent, kindFormer:
		f.report.Events++
		c.countEvent(key, val)
	case kindReady, kindWaiting, kindReturning, kindFollowing:
		f.report.Pending++
		f.countPending(key, val)
	case kindFinished:
		f.report.Finished++
		lane, seq := laneAt(key, 4), tail8(key)
		l := c.lane(lane)
		l.logged[key[1]]++
		c.seenDay(binary.BigEndian.Uint16(key[2:]))
		c.once(l.done.set(seq) || l.pending.has(seq), lane, seq)
	case kindDue:
		due, _ := decodeDue(key, val) // rowDamage has read it
		l := c.lane(laneAt(key, 1))
		l.due.set(tail8(key))
		l.dueSum ^= mix(tail8(key), due)
	case kindLine:
		f.countLine(key, val)
	case kindSenderID:
		c.ownSeen.set(tail8(key))
	case kindRepeat:
		row, _ := decodeRepeat(key, val)
		c.last = max(c.last, row.seq)
	case kindLane:
		counts, _ := decodeLaneCounts(key, val)
		c.lane(laneAt(key, 1)).counts = &counts
	case kindDay:
		row, _ := decodeDay(key, val)
		c.days = append(c.days, dayState{binary.BigEndian.Uint16(key[1:]), row})
	case kindQuarantine:
		f.countSetAside(key[1:], val)
	case kindMeta:
		c.countMeta(key, val)
	}
	return nil
}

// mix is a digest of a delivery's due time. Sums of it agree when the times do.
func mix(seq uint64, due int64) uint64 {
	x := seq*0x9e3779b97f4a7c15 ^ uint64(due)*0xbf58476d1ce4e5b9
	x ^= x >> 31
	return x * 0x94d049bb133111eb
}

func (c *census) seenDay(day uint16) { c.lastDay = max(c.lastDay, day) }

// once notes a delivery that is in two places.
func (c *census) once(twice bool, lane Lane, seq uint64) {
	c.last = max(c.last, seq)
	if twice {
		c.twice[deliveryAt{lane, seq}] = true
	}
}

func (c *census) countEvent(key, val []byte) {
	seq := tail8(key)
	r, ownID, _ := decodeEvent(key, val, c.store, seq) // rowDamage has read it
	ref := payloadRef{key[1], binary.BigEndian.Uint16(key[2:])}
	c.seenDay(ref.day)
	c.last = max(c.last, seq)
	c.known.set(seq)
	has := c.events[ref]
	if has == nil {
		has = &[numFormats]bits{{}, {}}
		c.events[ref] = has
	}
	for format, p := range r.Payloads {
		if p != nil {
			has[format].set(seq)
		}
	}
	if ownID && (ref.class == eventAccepted || ref.class == formerAccepted) {
		c.own.set(seq)
	}
	for _, nd := range r.Deliveries {
		l := c.lane(nd.Lane)
		l.wanted.set(seq)
		l.helper = r.Helper
	}
}

func (f *fsck) countPending(key, val []byte) {
	c := f.seen
	row, _ := decodePending(key, val) // rowDamage has read it
	p := splitPending(key)
	l := c.lane(p.lane)
	c.once(l.pending.set(p.seq) || l.done.has(p.seq), p.lane, p.seq)
	if has := c.events[row.ref]; has == nil || !has[row.format].has(p.seq) {
		f.problem(rowKind(key), "the record of its event is missing or damaged", f.deliveryName(p.lane, p.seq)+" cannot be sent")
		f.lostDelivery(f.deliveryID(p.lane, p.seq))
	}
	l.found.live += int64(row.charge)
	switch p.track {
	case Waiting:
		l.found.waiting++
		l.waiting.set(p.seq)
		l.dueSum ^= mix(p.seq, p.due)
		l.soonest = min(l.soonest, p.due)
	case Returning:
		l.found.returning++
		l.first.returning = min(l.first.returning, p.seq)
	case Following:
		l.found.following++
		l.behind.set(p.seq)
		l.first.following = min(l.first.following, p.seq)
	default:
		l.found.ready++
		l.first.ready = min(l.first.ready, p.seq)
	}
}

// countLine reads lines as they come: a line, then its followers.
func (f *fsck) countLine(key, val []byte) {
	c := f.seen
	at := &c.line
	lane, hash := laneAt(key, 1), binary.BigEndian.Uint64(key[5:])
	if len(key) == lenFollower {
		c.lane(lane).follow.set(tail8(key))
		if !at.open || at.lane != lane || at.hash != hash {
			c.lane(lane).broken = true
			return
		}
		at.got++
		return
	}
	c.endLine()
	l, _ := decodeLine(key, val) // rowDamage has read it
	at.lane, at.hash, at.want, at.got, at.open = lane, hash, l.n, 0, true
	c.lane(lane).found.lines++
	c.lane(lane).heads.set(l.head)
}

func (c *census) endLine() {
	if c.line.open && c.line.got != c.line.want {
		c.lane(c.line.lane).broken = true
	}
	c.line.open = false
}

func (c *census) countMeta(key, val []byte) {
	switch key[1] {
	case 'L':
		led, _ := decodeLedger(key, val) // rowDamage has read it
		c.led = &led
	case 'n':
		name, _ := decodePlain(key, val)
		c.lane(laneAt(key, 2)).name = name
	case 'R':
		c.lane(laneAt(key, 2)).removed, _ = decodeDue(key, val)
	case 'G':
		last, _ := decodeDue(key, val)
		c.gaps = append(c.gaps, gap{uint64(last), tail8(key)})
	}
}

// lostReason is what a repair says of what it knows of and could not find.
const lostReason = "lost before a repair"

// countSetAside notes what a repair has named as lost: it is not named again.
func (f *fsck) countSetAside(key, val []byte) {
	c := f.seen
	c.setAside++
	if !keyFits(key) {
		return
	}
	reason, _, _, _ := decodeQuarantine(quarantineKey(key), val)
	switch {
	case key[0] == kindEvent && reason == lostReason:
		c.lost.set(tail8(key))
	case key[0] == kindFinished:
		l := c.lane(laneAt(key, 4))
		l.aside[key[1]]++
		l.lost.set(tail8(key))
	}
}

// doubt notes a delivery that a damaged row speaks of.
func (c *census) doubt(lane Lane, seq uint64) {
	c.doubtful.set(seq)
	c.doubted = append(c.doubted, deliveryAt{lane, seq})
}

// believe takes over what damaged rows speak of and is not beyond what there can be: a
// key that is damaged itself would make lanes and events that never were.
func (c *census) believe() {
	const most = 1 << 16 // events that only damaged rows know of
	last := c.lastSeq()
	for _, d := range c.doubted {
		if l := c.lanes[d.lane]; l != nil && d.seq <= last+most {
			l.wanted.set(d.seq)
		}
	}
	for _, lane := range c.suspects {
		if l := c.lanes[lane]; l != nil {
			l.broken = true
		}
	}
	c.doubtful.each(func(seq uint64) {
		if seq <= last+most {
			c.last = max(c.last, seq)
		}
	})
}

// countDamaged notes what the key of a damaged row says nevertheless.
func (f *fsck) countDamaged(key []byte) {
	if !keyFits(key) {
		return
	}
	c := f.seen
	switch key[0] {
	case kindReady, kindWaiting, kindReturning, kindFollowing:
		lane, seq := laneAt(key, 1), tail8(key)
		c.doubt(lane, seq)
		if key[0] == kindFollowing {
			c.suspects = append(c.suspects, lane)
		}
	case kindEvent, kindFormer:
		c.doubtful.set(tail8(key))
	case kindFinished:
		c.doubt(laneAt(key, 4), tail8(key))
	case kindLine:
		c.suspects = append(c.suspects, laneAt(key, 1))
	}
}
