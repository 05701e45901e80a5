package queue

import "time"

const (
	// shortBytes ends a group while somebody sends single events: who comes while a
	// group is on its way to the disk waits for all of it. So it goes through the
	// journal, with the counters of its lanes. Streams alone are faster in large ones.
	shortBytes = lightBytes / 4 * 3
	// turnEvents and turnBytes end the turn of a helper. They are a small part of a
	// group, so that many helpers find room in each.
	turnEvents = 16
	turnBytes  = shortBytes / 6
	// hurry is how long groups stay short after the last request of no more than a
	// turn: longer than the pauses of somebody who sends a few events a second.
	hurry = 500 * time.Millisecond
)

// intake holds the requests that wait for a group. Helpers take turns. In its turn
// a helper adds a few events to the group, from its requests in the order in which
// they came; a request that has more goes behind the helper's others then. So an
// event of one helper is in the next group whatever waits of another, and a single
// event passes the streams of its own helper. The events of a request keep their
// order. A request counts for the helper of its first event. Owned by the committer.
type intake struct {
	lines   map[string]*helperLine // of helpers with requests
	turns   fifo[*helperLine]      // the same; the first one's turn is under way
	free    []*helperLine
	waiting int // requests
	events  int // of the turn under way
	bytes   int
	short   bool          // a request of no more than a turn came since begin
	until   time.Duration // such requests are expected, of the monotonic clock
	now     time.Duration // when the group under way was begun
}

// helperLine is what waits of one helper.
type helperLine struct {
	helper string
	reqs   fifo[*acceptReq]
}

func (in *intake) init() { in.lines = map[string]*helperLine{} }

// add puts a request behind the others of its helper.
func (in *intake) add(r *acceptReq) {
	helper := r.evs[0].Helper
	l := in.lines[helper]
	if l == nil {
		if n := len(in.free); n > 0 {
			l, in.free = in.free[n-1], in.free[:n-1]
		} else {
			l = &helperLine{}
		}
		l.helper = helper
		in.lines[helper] = l
		in.turns.push(l)
	}
	l.reqs.push(r)
	in.waiting++
	in.short = in.short || len(r.evs) <= turnEvents
}

// begin notes that a group is begun.
func (in *intake) begin(now time.Duration) {
	in.now = now
	if in.short {
		in.until, in.short = now+hurry, false
	}
}

// hurried reports whether groups should be short, because somebody sends single
// events and would wait for a long one.
func (in *intake) hurried() bool { return in.short || in.now < in.until }

// first is the request whose turn it is, nil when none waits.
func (in *intake) first() *acceptReq {
	if in.waiting == 0 {
		return nil
	}
	return in.turns.first().reqs.first()
}

// took notes that an event of the first request was added to the group, and
// reports whether the turn is over.
func (in *intake) took(bytes int) bool {
	in.events++
	in.bytes += bytes
	return in.events >= turnEvents || in.bytes >= turnBytes
}

// pass ends what the first request does in this turn: it leaves when it is done,
// else goes behind the others of its helper. Then it is the turn of the next
// helper, or goes on with another request of this one.
func (in *intake) pass(done bool) {
	l := in.turns.first()
	r := l.reqs.pop()
	if done {
		in.waiting--
	} else {
		l.reqs.push(r)
	}
	if l.reqs.len() > 0 && done && in.events < turnEvents && in.bytes < turnBytes {
		return
	}
	in.events, in.bytes = 0, 0
	in.turns.pop()
	if l.reqs.len() > 0 {
		in.turns.push(l)
		return
	}
	delete(in.lines, l.helper)
	in.free = append(in.free, l)
}

// drain empties it, and hands each request to f.
func (in *intake) drain(f func(*acceptReq)) {
	for in.waiting > 0 {
		f(in.first())
		in.pass(true)
	}
}
