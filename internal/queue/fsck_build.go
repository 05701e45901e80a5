package queue

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
	"github.com/peanutsapp/peanuts-relay/internal/queue/rawdb"
)

// builder makes the repaired store. Beside the rows under way it has what sums them up.
type builder struct {
	f       *fsck
	w       *badger.WriteBatch
	aside   *bufio.Writer
	counts  map[Lane]*laneCounts
	logged  map[Lane]*[2]int64
	outside map[Lane]*[2]int64 // of the log, and set aside or lost
	days    map[uint16]*dayRow
	kinds   map[uint16]uint8 // buckets that have rows
	winner  map[deliveryAt][]byte
	at      int64 // relay time
	wall    time.Time

	back        map[string]bool // deliveries, by id
	putAside    int64
	broughtBack int64
}

func (f *fsck) build(ctx context.Context, dir, aside string) (*builder, error) {
	log := newBadgerLog(slog.New(slog.DiscardHandler))
	db, err := badger.Open(badgerOptions(filepath.Join(dir, dbDir), log, false))
	if err != nil {
		return nil, err
	}
	b := &builder{f: f, w: db.NewWriteBatch(), counts: map[Lane]*laneCounts{}, logged: map[Lane]*[2]int64{}, outside: map[Lane]*[2]int64{}, days: map[uint16]*dayRow{}, kinds: map[uint16]uint8{},
		winner: map[deliveryAt][]byte{}, back: map[string]bool{}, wall: time.Now()}
	b.at = f.relayTime()
	err = b.fill(ctx, aside)
	if err == nil {
		err = b.w.Flush()
	}
	b.w.Cancel()
	if err := firstError(err, log.poisoned(), db.Close(), log.poisoned()); err != nil {
		return nil, err
	}
	if err := journal.Create(filepath.Join(dir, journalFile), f.store, journalBytes); err != nil {
		return nil, err
	}
	created := b.wall.UTC().Format(time.RFC3339)
	if f.marker != nil && f.marker.Created != "" {
		created = f.marker.Created
	}
	return b, writeMarker(dir, &marker{Format: formatNumber, Store: fmt.Sprintf("%010x", f.store), Created: created, Initialised: true})
}

// relayTime is the ledger's, or else what the rows say at most.
func (f *fsck) relayTime() int64 {
	last := int64(f.seen.lastDay) * dayMillis
	if led := f.seen.led; led != nil {
		last = max(last, led.relayTime)
	}
	if last == 0 {
		last = newRelayClock(0, 0, time.Now, func() time.Duration { return 0 }).now()
	}
	return last
}

func (b *builder) fill(ctx context.Context, aside string) error {
	f := b.f
	file, err := os.OpenFile(filepath.Join(aside, "rows.jsonl"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	b.aside = bufio.NewWriter(file)
	if err := b.findWinners(ctx); err != nil {
		return err
	}
	raw, err := rawdb.Open(filepath.Join(f.o.Dir, dbDir), nil)
	if err != nil {
		return err
	}
	defer raw.Close()
	f.raw = raw
	if err := f.eachRow(ctx, nil, b.row); err != nil {
		return err
	}
	err = nil
	f.missing.each(func(seq uint64) {
		if err == nil {
			err = b.lost(appendEventKey(nil, payloadRef{class: eventAccepted, day: dayOf(b.at)}, seq))
		}
	})
	if err := firstError(err, b.totals()); err != nil {
		return err
	}
	return firstError(b.aside.Flush(), file.Sync())
}

// findWinners decides for each delivery that is in two places which one is right: the
// row that was written last. Of a row that was deleted the deletion was lost.
func (b *builder) findWinners(ctx context.Context) error {
	f := b.f
	if len(f.seen.twice) == 0 {
		return nil
	}
	raw, err := rawdb.Open(filepath.Join(f.o.Dir, dbDir), nil)
	if err != nil {
		return err
	}
	defer raw.Close()
	f.raw = raw
	newest := map[deliveryAt]uint64{}
	for _, kind := range []byte{kindReady, kindWaiting, kindReturning, kindFollowing, kindFinished} {
		err := f.eachRow(ctx, []byte{kind}, func(r rawdb.Row) error {
			if rowDamage(f.store, &r) != "" {
				return nil
			}
			at := deliveryOf(r.Key)
			// Among equals the pending one: twice is better than never.
			if f.seen.twice[at] && (b.winner[at] == nil || r.Version > newest[at]) {
				b.winner[at], newest[at] = r.Key, r.Version
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// deliveryOf is the delivery of a pending or finished row.
func deliveryOf(key []byte) deliveryAt {
	if key[0] == kindFinished {
		return deliveryAt{laneAt(key, 4), tail8(key)}
	}
	return deliveryAt{laneAt(key, 1), tail8(key)}
}

func (b *builder) put(key, val []byte) error {
	b.counted(key, val)
	return b.w.Set(key, val)
}

// setAside writes a row down that does not get into the repaired store.
func (b *builder) setAside(r *rawdb.Row, why string) error {
	b.putAside++
	return json.NewEncoder(b.aside).Encode(struct {
		Kind   string `json:"kind"`
		Reason string `json:"reason"`
		Means  string `json:"means,omitempty"`
		Key    []byte `json:"key"`
		Value  []byte `json:"value"`
	}{rowKind(r.Key), why, rowMeans(b.f.store, r.Key), r.Key, r.Value})
}

// row takes a row over, or what stands for it.
func (b *builder) row(r rawdb.Row) error {
	if why := rowDamage(b.f.store, &r); why != "" {
		return b.setAside(&r, why)
	}
	switch r.Key[0] {
	case kindEvent, kindFormer:
		return b.event(&r)
	case kindReady, kindWaiting, kindReturning, kindFollowing:
		return b.pending(&r)
	case kindFinished:
		if w := b.winner[deliveryOf(r.Key)]; w != nil && string(w) != string(r.Key) {
			return b.setAside(&r, "the delivery has a newer row")
		}
		pairOf(b.logged, laneAt(r.Key, 4))[r.Key[1]]++
	case kindLine:
		lane := laneAt(r.Key, 1)
		if b.f.seen.lane(lane).broken {
			return b.setAside(&r, "the lines of the webhook do not fit; its followers do not wait any more")
		}
		if len(r.Key) == lenLine {
			b.countsOf(lane).lines++
		}
	case kindDay:
		row, _ := decodeDay(r.Key, r.Value) // rowDamage has read it
		*b.day(binary.BigEndian.Uint16(r.Key[1:])) = row
		return nil
	case kindMeta:
		switch k := r.Key[1]; {
		case k == 'L', k == 'J', k == 'F', k == 'R', k == 'n', k == 'w' && b.f.seen.lane(laneAt(r.Key, 2)).name == "":
			return nil // made anew
		}
	case kindDue, kindLane, kindDummy:
		return nil // made anew
	}
	return b.put(r.Key, r.Value)
}

// event takes an event's record over, with its place in the index of senders' ids and
// the deliveries that it says there are and that are nowhere.
func (b *builder) event(r *rawdb.Row) error {
	f, seq := b.f, tail8(r.Key)
	e, ownID, _ := decodeEvent(r.Key, r.Value, f.store, seq) // rowDamage has read it
	if err := b.put(r.Key, r.Value); err != nil {
		return err
	}
	ref := payloadRef{r.Key[1], binary.BigEndian.Uint16(r.Key[2:])}
	if accepted := ref.class == eventAccepted || ref.class == formerAccepted; accepted && ownID && !f.seen.ownSeen.has(seq) {
		key := appendSenderIDKey(nil, ref.day, hashParts(e.ID), seq)
		if err := b.put(key, appendPlain(nil, key, "")); err != nil {
			return err
		}
	}
	from := f.seen.firstOf(f.seen.goneFrom(bucketBit(kindFinished, classDelivered) | bucketBit(kindFinished, classFailed)))
	for _, nd := range e.Deliveries {
		l := f.seen.lane(nd.Lane)
		if seq < from || l.pending.has(seq) || l.done.has(seq) || l.lost.has(seq) {
			continue
		}
		l.lost.set(seq) // the same event may be in another bucket
		if !f.seen.lostPending(l) || e.Payloads[nd.Format] == nil {
			if !l.explained {
				if err := b.lost(appendFinishedKey(nil, classFailed, dayOf(b.at), nd.Lane, seq)); err != nil {
					return err
				}
			}
			continue
		}
		b.back[f.deliveryID(nd.Lane, seq)] = true
		row := pendingRow{format: nd.Format, ref: ref, charge: chargeOf(len(r.Value), len(e.Deliveries)), accepted: e.Accepted.UnixMilli()}
		key := appendLaneSeq(nil, kindReady, nd.Lane, seq)
		if err := b.put(key, row.append(nil, key)); err != nil {
			return err
		}
		c := b.countsOf(nd.Lane)
		c.ready++
		c.live += int64(row.charge)
		b.broughtBack++
	}
	return nil
}

// lost names what is known of and nowhere, so that the next check knows it.
func (b *builder) lost(key []byte) error {
	at := quarantineKey(key)
	return b.put(at, appendQuarantine(nil, at, lostReason, b.at, nil))
}

// pending takes a pending delivery over. One without its event ends as failed.
func (b *builder) pending(r *rawdb.Row) error {
	f := b.f
	p := splitPending(r.Key)
	if w := b.winner[deliveryOf(r.Key)]; w != nil && string(w) != string(r.Key) {
		return b.setAside(r, "the delivery has a newer row")
	}
	row, _ := decodePending(r.Key, r.Value) // rowDamage has read it
	if has := f.seen.events[row.ref]; has == nil || !has[row.format].has(p.seq) {
		return b.fail(p, &row)
	}
	c := b.countsOf(p.lane)
	c.live += int64(row.charge)
	if p.track == Following && f.seen.lane(p.lane).broken {
		p.track, p.due = Waiting, b.at
		r = &rawdb.Row{Key: appendWaitingKey(nil, p.lane, p.due, p.seq)}
		r.Value = row.append(nil, r.Key)
	}
	switch p.track {
	case Waiting:
		c.waiting++
		key := appendLaneSeq(nil, kindDue, p.lane, p.seq)
		if err := b.put(key, appendDue(nil, key, p.due)); err != nil {
			return err
		}
	case Returning:
		c.returning++
	case Following:
		c.following++
	default:
		c.ready++
	}
	return b.put(r.Key, r.Value)
}

// fail ends a delivery whose payload is lost, as the daemon would when it meets it.
func (b *builder) fail(p pendingPlace, row *pendingRow) error {
	h := finishedRow{format: row.format, ref: row.ref, attempts: row.attempts, accepted: row.accepted, finished: b.wall.UnixMilli(),
		code: delivery.CodeDamaged, errText: "the stored payload is damaged: its record was lost"}
	key := appendFinishedKey(nil, classFailed, dayOf(b.at), p.lane, p.seq)
	pairOf(b.logged, p.lane)[classFailed]++
	return b.put(key, h.append(nil, key))
}

func (b *builder) countsOf(lane Lane) *laneCounts {
	c := b.counts[lane]
	if c == nil {
		c = &laneCounts{}
		b.counts[lane] = c
	}
	return c
}

func pairOf(m map[Lane]*[2]int64, lane Lane) *[2]int64 {
	p := m[lane]
	if p == nil {
		p = &[2]int64{}
		m[lane] = p
	}
	return p
}

func (b *builder) day(day uint16) *dayRow {
	d := b.days[day]
	if d == nil {
		d = &dayRow{}
		b.days[day] = d
	}
	return d
}

// counted notes which days have rows.
func (b *builder) counted(key, val []byte) {
	var day uint16
	var class uint8
	switch key[0] {
	case kindEvent, kindFormer, kindFinished:
		day, class = binary.BigEndian.Uint16(key[2:]), key[1]
	case kindQuarantine:
		if len(key) == 1+lenFinished && key[1] == kindFinished && key[2] <= classFailed {
			pairOf(b.outside, laneAt(key, 5))[key[2]]++
		}
		return
	case kindAttempt, kindRepeat, kindSenderID:
		day = binary.BigEndian.Uint16(key[1:])
	default:
		return
	}
	kind := key[0]
	if kind == kindFormer {
		kind, class = kindEvent, payloadRef{class: class}.current()
	}
	b.kinds[day] |= bucketBit(kind, class)
	d := b.days[day]
	if d == nil { // its row is lost, or comes later and says more
		d = b.day(day)
		d.gone = allGone
	}
	if d.gone != 0 {
		d.bytes += int64(len(key) + len(val))
		if kind == kindEvent && (d.firstSeq == 0 || tail8(key) < d.firstSeq) {
			d.firstSeq = tail8(key)
		}
	}
}

// totals writes what sums the rows up.
func (b *builder) totals() error {
	f, c := b.f, b.f.seen
	led := ledger{nextReplay: 1}
	if c.led != nil {
		led = *c.led
	}
	c.gaps = append(c.gaps, f.unnoted...)
	last := c.lastSeq()
	led.relayTime, led.lastSeq, led.deliveries = b.at, last, 0
	led.events = int64(last - c.skipped())
	led.groups = max(led.groups, int64(c.witness.groups))
	led.quarantined += b.putAside
	for lane := range b.counts {
		c.lane(lane)
	}
	for _, lane := range c.sortedLanes() {
		l := c.lanes[lane]
		led.nextLane = max(led.nextLane, uint32(lane)+1)
		counts, removed := b.laneTotals(lane, l)
		led.deliveries += counts.pending() + counts.success + counts.failed
		if err := b.laneRows(lane, l, counts, removed); err != nil {
			return err
		}
	}
	led.nextLane = max(led.nextLane, 1)
	if err := b.dayRows(); err != nil {
		return err
	}
	for _, g := range f.unnoted {
		key := metaGapKey(g.next)
		if err := b.put(key, appendDue(nil, key, int64(g.last))); err != nil {
			return err
		}
	}
	// What was acknowledged last may be lost without a trace: no id of it is given out again.
	books := row{key: metaLedgerKey()}
	books.val = led.append(nil, books.key)
	if err := leap(&books, b.put); err != nil {
		return err
	}
	if err := b.put(books.key, books.val); err != nil {
		return err
	}
	key := metaFormatKey()
	return b.put(key, appendPlain(nil, key, fmt.Sprintf("%d %010x", formatNumber, f.store)))
}

// laneRows writes name and counters of a lane.
func (b *builder) laneRows(lane Lane, l *laneCensus, counts *laneCounts, removed int64) error {
	key := metaLaneKey(lane)
	if err := b.put(key, appendPlain(nil, key, cmp.Or(l.name, unknownLane(lane)))); err != nil {
		return err
	}
	if removed > 0 {
		key := metaRemovedKey(lane)
		if err := b.put(key, appendDue(nil, key, removed)); err != nil {
			return err
		}
	}
	key = laneKey(lane)
	return b.put(key, counts.append(nil, key))
}

// unknownLane is the name of a lane whose name is lost.
func unknownLane(lane Lane) string { return fmt.Sprintf("unknown.lane-%d", lane) }

// laneTotals counts what was accepted, and is nowhere, as failed: the sum stays
// what was accepted. What of it has no name is in removed. Marks begin at the head: there
// are no deleted rows yet.
func (b *builder) laneTotals(lane Lane, l *laneCensus) (counts *laneCounts, removed int64) {
	c := b.f.seen
	counts, logged, outside := b.countsOf(lane), pairOf(b.logged, lane), pairOf(b.outside, lane)
	success, failed := logged[classDelivered]+outside[classDelivered], logged[classFailed]+outside[classFailed]
	counts.success, counts.failed = success, failed+l.removed
	dropped := func(class uint8) bool { // by retention, so that not all is in the log
		return !c.fromTheFirst() || c.goneFrom(bucketBit(kindFinished, class)) >= 0
	}
	if former := l.counts; former != nil {
		accepted := former.pending() + former.success + former.failed
		if dropped(classDelivered) {
			counts.success = max(min(former.success, accepted-counts.pending()-counts.failed), success)
		}
		counts.failed = max(counts.failed, accepted-counts.pending()-counts.success)
	}
	if dropped(classFailed) {
		return counts, l.removed
	}
	return counts, counts.failed - failed
}

func (b *builder) dayRows() error {
	for _, day := range slices.Sorted(maps.Keys(b.days)) {
		d := b.days[day]
		d.gone &^= b.kinds[day]
		if day >= dayOf(b.at) {
			d.gone = 0
		}
		if d.firstSeq == 0 {
			d.firstSeq = b.f.seen.lastSeq() + 1
		}
		key := dayKey(day)
		if err := b.put(key, d.append(nil, key)); err != nil {
			return err
		}
	}
	return nil
}
