package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/peanutsapp/peanuts-relay/internal/queue/rawdb"
)

// compare finds what does not fit together.
func (f *fsck) compare(ctx context.Context) error {
	c := f.seen
	c.endLine()
	f.nameLanes()
	c.believe()
	slices.SortFunc(c.days, func(a, b dayState) int { return int(a.day) - int(b.day) })
	f.compareLedger()
	f.noteRetiring()
	missing := f.missingEvents()
	for _, lane := range c.sortedLanes() {
		f.compareLane(lane, c.lanes[lane])
	}
	for at := range c.twice {
		f.problem("deliveries", "one is in two places at once", f.deliveryName(at.lane, at.seq))
	}
	if n := without(c.own, c.ownSeen); n > 0 {
		f.problem(rowKind([]byte{kindSenderID}), fmt.Sprintf("%d events with an id of their sender are not in it", n), "they are not found by that id")
	}
	if c.setAside > 0 {
		f.note("%d rows were set aside before", c.setAside)
	}
	f.missing = missing
	return f.nameLost(ctx, missing)
}

// nameLanes takes over the names that the database has lost.
func (f *fsck) nameLanes() {
	names, err := readLaneNames(f.o.Dir, f.store)
	if damage, ok := errors.AsType[*damageError](err); ok {
		f.note("%s is not readable (%s); it is made anew when the daemon starts", lanesFile, damage.reason)
	}
	for lane, name := range names {
		if l := f.seen.lane(lane); l.name == "" {
			l.name, l.kept = name, true
		}
	}
}

// without counts what is in a and not in b.
func without(a, b bits) (n int64) {
	a.each(func(seq uint64) {
		if !b.has(seq) {
			n++
		}
	})
	return n
}

func (f *fsck) compareLedger() {
	c := f.seen
	if c.led == nil {
		f.holes = true
		f.problem(rowKind([]byte{kindMeta}), "is missing or damaged", "the daemon cannot open the store")
		return
	}
	if c.last > c.led.lastSeq {
		f.holes = true
		f.problem(rowKind([]byte{kindMeta}), fmt.Sprintf("is older than the rows: it ends with event %s, and there is %s", f.eventID(c.led.lastSeq), f.eventID(c.last)), "")
	}
	if have := uint64(c.led.groups); have < c.witness.groups {
		f.holes = true
		f.problem(dbDir, fmt.Sprintf("is of an earlier moment than what was acknowledged: the last %d groups are missing", c.witness.groups-have),
			"outcomes of that time are lost; events are named below")
	}
	var sum int64
	complete := true
	for _, l := range c.lanes {
		if l.counts == nil {
			complete = complete && l.found == laneCounts{} && l.logged == [2]int64{}
			continue
		}
		sum += l.counts.pending() + l.counts.success + l.counts.failed
	}
	if complete && sum != c.led.deliveries {
		f.problem(rowKind([]byte{kindMeta}), fmt.Sprintf("%d deliveries were accepted, the webhooks' counters add up to %d", c.led.deliveries, sum), "")
	}
}

// lastSeq is the highest sequence number that was given out, as far as anything says.
func (c *census) lastSeq() uint64 {
	last := max(c.last, c.witness.lastSeq)
	for _, g := range c.gaps {
		last = max(last, g.next-1)
	}
	if c.led == nil {
		return last
	}
	return max(last, c.led.lastSeq)
}

// skipped is how many numbers up to the last no event has.
func (c *census) skipped() (n uint64) {
	for _, g := range c.gaps {
		n += g.next - g.last - 1
	}
	return n
}

// goneFrom is the last day of which retention has dropped one of the buckets, -1 when
// there is none. Of what was accepted later everything must be there.
func (c *census) goneFrom(mask uint8) (day int) {
	day = -1
	for i, d := range c.days {
		if d.gone&mask != 0 {
			day = i
		}
	}
	return day
}

// noteRetiring looks for a drop of old history that a crash interrupted: it takes rows
// away a part at a time, and notes that afterwards. Without any sign of damage that is
// what is missing of days before the last.
func (f *fsck) noteRetiring() {
	c := f.seen
	if f.damaged() || len(c.days) < 2 {
		return
	}
	today := c.days[len(c.days)-1].firstSeq
	under := false
	c.missingRuns(func(from, _ uint64) { under = under || from < today })
	for _, l := range c.lanes {
		under = under || l.counts != nil && c.allDelivered() && l.counts.success > l.logged[classDelivered]+l.aside[classDelivered]
	}
	if !under {
		return
	}
	f.note("old history was being dropped when the daemon ended; that goes on when it starts")
	for i := range c.days[:len(c.days)-1] {
		c.days[i].gone |= bucketBit(kindEvent, eventAccepted) | bucketBit(kindFinished, classDelivered) | bucketBit(kindFinished, classFailed)
	}
}

// allDelivered reports whether the log has everything that was ever delivered.
func (c *census) allDelivered() bool {
	return c.fromTheFirst() && c.goneFrom(bucketBit(kindFinished, classDelivered)) < 0
}

// firstOf is the lowest sequence number of the days behind the i-th. A day can note
// one more than the number of its first event, so that one is left out.
func (c *census) firstOf(i int) uint64 {
	switch {
	case i < 0 && (len(c.days) == 0 || c.fromTheFirst()):
		return 1
	case i+1 < len(c.days):
		return c.days[i+1].firstSeq + 1
	}
	return c.lastSeq() + 1
}

// fromTheFirst reports whether there are rows of all days since the store was made.
func (c *census) fromTheFirst() bool { return len(c.days) > 0 && c.days[0].firstSeq <= 2 }

// longestLoss is how many events in a row can be missing. What is longer is a gap that
// a restore or a repair left, and whose note is lost: each is far longer (restoreGap).
const longestLoss = 1 << 32

// missingEvents names the events that are missing.
func (f *fsck) missingEvents() bits {
	missing := bits{}
	f.seen.missingRuns(func(from, to uint64) {
		switch n := to - from + 1; {
		case n > longestLoss:
			f.problem("event", fmt.Sprintf("no event has a number from %d to %d, and the note of the restore that left them out is missing", from, to), "")
			f.unnoted = append(f.unnoted, gap{from - 1, to + 1})
			return
		case n == 1:
			f.problem("event", "its record is missing or damaged", "event "+f.eventID(from)+" was accepted")
		default:
			f.problem("event", fmt.Sprintf("%d records in a row are missing or damaged", n), fmt.Sprintf("events %s to %s were accepted", f.eventID(from), f.eventID(to)))
		}
		for seq := from; seq <= to; seq++ {
			missing.set(seq)
			f.lostEvent(f.eventID(seq))
		}
	})
	return missing
}

// missingRuns finds the numbers without an event that neither retention nor a note of a
// restore explains.
func (c *census) missingRuns(each func(from, to uint64)) {
	slices.SortFunc(c.gaps, func(a, b gap) int { return cmp.Compare(a.last, b.last) })
	next := c.firstOf(c.goneFrom(bucketBit(kindEvent, eventAccepted)))
	there := bits{}
	for _, b := range [...]bits{c.known, c.lost} {
		for page, words := range b {
			if there[page] == nil {
				there[page] = new([64]uint64)
			}
			for i, w := range words {
				there[page][i] |= w
			}
		}
	}
	there.each(func(seq uint64) {
		if seq > next {
			c.missingRun(next, seq-1, each)
		}
		next = max(next, seq+1)
	})
	if last := c.lastSeq(); next <= last {
		c.missingRun(next, last, each)
	}
}

// missingRun leaves out the numbers that are in a gap.
func (c *census) missingRun(from, to uint64, each func(from, to uint64)) {
	for _, g := range c.gaps {
		if g.last >= to || g.next <= from {
			continue
		}
		if g.last >= from {
			each(from, g.last)
		}
		if from = g.next; from > to {
			return
		}
	}
	each(from, to)
}

// missingIn lists the deliveries of a lane that an event speaks of and that are
// nowhere, although retention cannot have taken them.
func (c *census) missingIn(l *laneCensus, each func(seq uint64)) {
	from := c.firstOf(c.goneFrom(bucketBit(kindFinished, classDelivered) | bucketBit(kindFinished, classFailed)))
	l.wanted.each(func(seq uint64) {
		if seq >= from && !l.pending.has(seq) && !l.done.has(seq) && !l.lost.has(seq) {
			each(seq)
		}
	})
}

// lostPending reports whether deliveries of a lane that are nowhere may have been
// pending. If not, they were finished: an operator dropped them, or their rows are lost.
func (c *census) lostPending(l *laneCensus) bool {
	return l.counts == nil || l.counts.pending() > l.found.pending() || l.broken
}

func (f *fsck) compareLane(lane Lane, l *laneCensus) {
	c := f.seen
	name := fmt.Sprintf("counters of webhook %s (lane %d)", l.name, lane)
	switch missing := fmt.Sprintf("the name of lane %d is missing or damaged", lane); {
	case l.kept:
		f.problem(rowKind([]byte{kindMeta}), missing, "it is that of webhook "+l.name+", as "+lanesFile+" says")
	case l.name == "" && l.helper != "":
		f.problem(rowKind([]byte{kindMeta}), missing, "which webhook of helper "+l.helper+" its deliveries are for is not known")
	case l.name == "":
		f.problem(rowKind([]byte{kindMeta}), missing, "which webhook its deliveries are for is not known")
	}
	var none laneCounts
	if l.counts == nil && l.found != none {
		f.problem(name, "are missing or damaged", "")
	}
	if l.counts != nil {
		f.compareCounts(name, l)
	}
	f.compareIndexes(lane, l)
	var n int64
	c.missingIn(l, func(uint64) { n++ })
	pending := c.lostPending(l)
	if l.explained = !pending && (!f.damaged() || n <= l.removed); l.explained {
		if n > 0 {
			f.note("%d finished deliveries to %s are not in the log any more: an operator dropped them", n, l.name)
		}
		return
	}
	c.missingIn(l, func(seq uint64) {
		f.lostDelivery(f.deliveryID(lane, seq))
		what := "its row is missing; it may have been pending"
		if !pending {
			what = "its row is missing; it was finished, or an operator dropped it"
		}
		f.problem("delivery", what, f.deliveryName(lane, seq))
	})
}

// damaged reports whether anything could not be read, so that rows may be missing.
func (f *fsck) damaged() bool {
	return f.holes || f.seen.bad > 0 || slices.ContainsFunc(f.raw.Problems(), func(p rawdb.Problem) bool { return !p.Torn })
}

func (f *fsck) compareCounts(name string, l *laneCensus) {
	a, b := l.counts, &l.found
	if a.ready != b.ready || a.waiting != b.waiting || a.returning != b.returning || a.following != b.following || a.lines != b.lines {
		f.problem(name, fmt.Sprintf("say ready %d, waiting %d, returning %d, following %d, lines %d; there are %d, %d, %d, %d, %d",
			a.ready, a.waiting, a.returning, a.following, a.lines, b.ready, b.waiting, b.returning, b.following, b.lines), "")
	} else if a.live != b.live {
		f.problem(name, fmt.Sprintf("say %d live bytes; there are %d", a.live, b.live), "")
	}
	if a.readyMark > l.first.ready || a.returningMark > l.first.returning || a.waitingMark > l.soonest ||
		b.following > 0 && a.followingMark > l.first.following {
		f.problem(name, "a mark is behind an unfinished delivery", "it would not be attempted")
	}
	// An operator removes failed deliveries from the log, but only retention those that succeeded.
	if f.seen.allDelivered() && a.success != l.logged[classDelivered]+l.aside[classDelivered] {
		f.problem(name, fmt.Sprintf("say that %d succeeded; the log has %d, and %d were set aside", a.success, l.logged[classDelivered], l.aside[classDelivered]), "")
	}
}

// compareIndexes looks at the rows that find others.
func (f *fsck) compareIndexes(lane Lane, l *laneCensus) {
	where := fmt.Sprintf("indexes of webhook %s (lane %d)", l.name, lane)
	if a, b := without(l.waiting, l.due), without(l.due, l.waiting); a > 0 || b > 0 {
		f.problem(where, fmt.Sprintf("%d waiting deliveries are not in the index of retries, and %d in it are nowhere", a, b), "")
	} else if l.dueSum != 0 {
		f.problem(where, "the index of retries has other times than the deliveries", "")
	}
	a, b := without(l.behind, l.follow), without(l.follow, l.behind)
	var heads int64
	l.heads.each(func(seq uint64) {
		if !l.pending.has(seq) || l.behind.has(seq) {
			heads++
		}
	})
	if l.broken || a > 0 || b > 0 || heads > 0 {
		l.broken = true
		f.problem(where, fmt.Sprintf("lines of entries do not fit: %d followers are in none, %d in one are nowhere, %d have no first delivery", a, b, heads),
			"deliveries that follow others may not be attempted")
	}
}

// nameLost adds what is known of lost events from other rows: their senders' ids.
func (f *fsck) nameLost(ctx context.Context, missing bits) error {
	if len(missing) == 0 {
		return nil
	}
	return f.eachRow(ctx, []byte{kindRepeat}, func(r rawdb.Row) error {
		if rowDamage(f.store, &r) != "" {
			return nil
		}
		row, _ := decodeRepeat(r.Key, r.Value) // rowDamage has read it
		if !missing.has(row.seq) {
			return nil
		}
		for _, nd := range row.deliveries {
			if l := f.seen.lane(nd.Lane); !l.done.has(row.seq) {
				f.lostDelivery(f.deliveryID(nd.Lane, row.seq))
			}
		}
		if row.ownID != "" {
			f.note("the lost event %s is the one that its sender called %q", f.eventID(row.seq), clip(row.ownID, maxText))
		}
		return nil
	})
}
