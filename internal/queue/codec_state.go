package queue

import (
	"encoding/binary"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// laneCounts is the value of a c row: what the lane's rows add up to, and from
// where reads start. It is written in the transaction that changes the rows.
type laneCounts struct {
	ready     int64
	waiting   int64
	returning int64
	live      int64 // bytes
	success   int64
	failed    int64

	readyMark     uint64 // no r row has a smaller sequence number
	waitingMark   int64  // no w row has a smaller due time
	returningMark uint64 // no p row has a smaller sequence number

	following     int64
	lines         int64  // o rows that name a head
	followingMark uint64 // no f row has a smaller sequence number
}

func (c *laneCounts) pending() int64 { return c.ready + c.waiting + c.returning + c.following }

func (c *laneCounts) append(b, key []byte) []byte {
	start := len(b)
	b = append(b, valueVersion)
	for _, v := range [...]int64{c.ready, c.waiting, c.returning, c.live, c.success, c.failed, c.waitingMark} {
		b = binary.AppendVarint(b, v)
	}
	b = binary.AppendUvarint(b, c.readyMark)
	b = binary.AppendUvarint(b, c.returningMark)
	// A lane that needs no order has the row of versions that knew none.
	if c.following != 0 || c.lines != 0 {
		b = binary.AppendVarint(b, c.following)
		b = binary.AppendVarint(b, c.lines)
		b = binary.AppendUvarint(b, c.followingMark)
	}
	return seal(b, start, key)
}

func decodeLaneCounts(key, val []byte) (c laneCounts, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return c, err
	}
	for _, p := range [...]*int64{&c.ready, &c.waiting, &c.returning, &c.live, &c.success, &c.failed, &c.waitingMark} {
		*p = d.varint()
	}
	c.readyMark = d.uvarint()
	c.returningMark = d.uvarint()
	if len(d.b) > 0 {
		c.following = d.varint()
		c.lines = d.varint()
		c.followingMark = d.uvarint()
	}
	return c, d.end()
}

// ledger is the value of m L: it is part of every transaction, so that it
// always says exactly what the rows beside it add up to.
type ledger struct {
	relayTime   int64 // ms
	lastSeq     uint64
	nextLane    uint32
	nextReplay  uint64
	events      int64
	deliveries  int64
	quarantined int64
	groups      int64
}

func (l *ledger) append(b, key []byte) []byte {
	start := len(b)
	b = binary.AppendVarint(append(b, valueVersion), l.relayTime)
	for _, v := range [...]uint64{l.lastSeq, uint64(l.nextLane), l.nextReplay} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range [...]int64{l.events, l.deliveries, l.quarantined, l.groups} {
		b = binary.AppendVarint(b, v)
	}
	return seal(b, start, key)
}

func decodeLedger(key, val []byte) (l ledger, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return l, err
	}
	l.relayTime = d.varint()
	l.lastSeq = d.uvarint()
	l.nextLane = uint32(d.lane())
	l.nextReplay = d.uvarint()
	for _, p := range [...]*int64{&l.events, &l.deliveries, &l.quarantined, &l.groups} {
		*p = d.varint()
	}
	return l, d.end()
}

// dayRow is the value of a b row: what was written on one day of relay time.
type dayRow struct {
	firstSeq    uint64 // sequence numbers of the day's events start here
	bytes       int64  // of all rows in the day's buckets, an upper bound
	minAccepted int64  // wall clock, ms; of the day's events
	maxAccepted int64
	gone        uint8 // buckets already dropped, see bucketBit
}

func (r *dayRow) append(b, key []byte) []byte {
	start := len(b)
	b = binary.AppendUvarint(append(b, valueVersion), r.firstSeq)
	for _, v := range [...]int64{r.bytes, r.minAccepted, r.maxAccepted} {
		b = binary.AppendVarint(b, v)
	}
	return seal(append(b, r.gone), start, key)
}

func decodeDay(key, val []byte) (r dayRow, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return r, err
	}
	r.firstSeq = d.uvarint()
	for _, p := range [...]*int64{&r.bytes, &r.minAccepted, &r.maxAccepted} {
		*p = d.varint()
	}
	r.gone = d.byte()
	return r, d.end()
}

func (j *ReplayJob) append(b, key []byte) []byte {
	start := len(b)
	b = append(b, valueVersion, flags(j.Done, j.selective()))
	b = binary.AppendUvarint(b, uint64(j.Lane))
	b = appendNumber(b, len(j.States))
	for _, s := range j.States {
		b = append(b, byte(s))
	}
	for _, t := range [...]time.Time{j.Since, j.Until, j.Started} {
		b = appendTime(b, t)
	}
	b = appendText(b, j.EventType)
	b = binary.AppendUvarint(b, uint64(max(j.Rate, 0)*1000))
	b = binary.AppendUvarint(b, j.Cursor)
	b = binary.AppendUvarint(b, j.upto)
	for _, v := range [...]int64{j.Matched, j.Requeued, j.Expired} {
		b = binary.AppendVarint(b, v)
	}
	if j.selective() {
		b = appendText(appendText(b, j.EventID), j.Where)
		b = appendText(binary.AppendVarint(b, j.Undecided), j.Trouble)
	}
	return seal(b, start, key)
}

func decodeReplay(key, val []byte) (j ReplayJob, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return j, err
	}
	if len(key) > 1 {
		j.ID = string(key[1:])
	}
	f := d.byte()
	j.Done = f&1 != 0
	j.Lane = d.lane()
	for range d.count() {
		j.States = append(j.States, delivery.State(d.byte()))
	}
	for _, p := range [...]*time.Time{&j.Since, &j.Until, &j.Started} {
		*p = d.time()
	}
	j.EventType = d.str()
	j.Rate = float64(d.uvarint()) / 1000
	j.Cursor = d.uvarint()
	j.upto = d.uvarint()
	for _, p := range [...]*int64{&j.Matched, &j.Requeued, &j.Expired} {
		*p = d.varint()
	}
	if f&2 != 0 {
		j.EventID, j.Where = d.str(), d.str()
		j.Undecided, j.Trouble = d.varint(), d.str()
		if !j.selective() {
			d.fail() // is never written
		}
	}
	return j, d.end()
}

// appendTime keeps a time to the millisecond; the zero time stays zero.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendVarint(append(b, 1), t.UnixMilli())
}

func (d *decoder) time() time.Time {
	if d.byte() == 0 {
		return time.Time{}
	}
	return time.UnixMilli(d.varint()).UTC()
}

// appendPlain makes values that are one text: lane names, the format row, and
// the empty values of x rows.
func appendPlain(b, key []byte, text string) []byte {
	start := len(b)
	return seal(appendText(append(b, valueVersion), text), start, key)
}

func decodePlain(key, val []byte) (string, error) {
	d, err := unseal(key, val)
	if err != nil {
		return "", err
	}
	s := d.str()
	return s, d.end()
}

// appendQuarantine makes the value of a z row.
func appendQuarantine(b, key []byte, reason string, at int64, raw []byte) []byte {
	start := len(b)
	b = appendText(append(b, valueVersion), reason)
	b = binary.AppendVarint(b, at)
	b = appendText(b, raw)
	return seal(b, start, key)
}

func decodeQuarantine(key, val []byte) (reason string, at int64, raw []byte, err error) {
	d, err := unseal(key, val)
	if err != nil {
		return "", 0, nil, err
	}
	reason, at, raw = d.str(), d.varint(), d.bytes()
	return reason, at, raw, d.end()
}
