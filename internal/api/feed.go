package api

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

const (
	// maxSubscribers bounds the readers of the stream.
	maxSubscribers = 16
	// subscriberBuffer is how many changes one reader may be behind before it
	// loses the oldest. A change takes about 100 bytes.
	subscriberBuffer = 1024
)

// errFeedFull answers a subscription when maxSubscribers are there.
var errFeedFull = errors.New("too many readers of the stream")

// Feed receives every committed change of a delivery, counts attempts, and
// passes the changes on to the readers of the stream. It is made before the
// store, which publishes to it.
type Feed struct {
	mu     sync.Mutex // guards the following
	lanes  map[queue.Lane]*laneCounts
	pasts  pasts
	subs   map[*subscriber]struct{}
	closed bool
}

// laneCounts counts what happened on a lane since the start.
type laneCounts struct {
	last     uint64              // sequence of the delivery attempted last; 0 = none
	attempts [numOutcomes]uint64 // by what became of the delivery
	success  uint64              // deliveries that became success or failed
	failed   uint64
}

// NewFeed returns an empty feed.
func NewFeed() *Feed {
	return &Feed{lanes: map[queue.Lane]*laneCounts{}, pasts: pasts{}, subs: map[*subscriber]struct{}{}}
}

// Publish takes the changes of one commit. It is for [queue.Options].OnChange:
// it never blocks and never calls the store, and keeps nothing of cs.
func (f *Feed) Publish(cs []queue.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for i := range cs {
		f.count(&cs[i])
		f.pasts.note(&cs[i], now)
		for s := range f.subs {
			s.push(change{Change: cs[i], at: now})
		}
	}
}

// count is called with f.mu held.
func (f *Feed) count(c *queue.Change) {
	if c.Kind != queue.ChangeAttempt && c.Kind != queue.ChangeDropped {
		return
	}
	l := f.lanes[c.Lane]
	if l == nil {
		l = &laneCounts{}
		f.lanes[c.Lane] = l
	}
	switch c.State {
	case delivery.Success:
		l.success++
	case delivery.Failed:
		l.failed++
	}
	if c.Kind != queue.ChangeAttempt {
		return
	}
	l.last = c.Seq
	l.attempts[outcomeOf(c.State)]++
}

// counts returns a copy of what was counted on a lane.
func (f *Feed) counts(lane queue.Lane) laneCounts {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.lanes[lane]; l != nil {
		return *l
	}
	return laneCounts{}
}

// lastAttempt is the sequence of the delivery on a lane whose attempt was
// recorded last.
func (f *Feed) lastAttempt(lane queue.Lane) (seq uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.lanes[lane]; l != nil && l.last != 0 {
		return l.last, true
	}
	return 0, false
}

// readers is how many subscribers there are.
func (f *Feed) readers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs)
}

// subscribe returns a new reader of the changes on lane, 0 = all. The caller
// ends it with unsubscribe.
func (f *Feed) subscribe(lane queue.Lane) (*subscriber, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return nil, queue.ErrStopped
	case len(f.subs) >= maxSubscribers:
		return nil, errFeedFull
	}
	s := &subscriber{lane: lane, wake: make(chan struct{}, 1)}
	f.subs[s] = struct{}{}
	return s, nil
}

func (f *Feed) unsubscribe(s *subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.subs, s)
}

// close ends all streams, now and for ever. Publish goes on counting.
func (f *Feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for s := range f.subs {
		s.end()
		delete(f.subs, s)
	}
}

// change is a change with the time at which it was published.
type change struct {
	queue.Change
	at time.Time
}

// subscriber is a bounded buffer of changes between the committer and one
// reader.
type subscriber struct {
	lane queue.Lane
	wake chan struct{} // holds one element while there is something to take

	mu     sync.Mutex // guards the following
	buffer []change   // a ring once it is full
	head   int        // index of the oldest
	missed uint64     // lost since the last take
	ended  bool
}

func (s *subscriber) push(c change) {
	if s.lane != 0 && s.lane != c.Lane {
		return
	}
	s.mu.Lock()
	if len(s.buffer) < subscriberBuffer {
		s.buffer = append(s.buffer, c)
	} else {
		s.buffer[s.head] = c
		s.head = (s.head + 1) % subscriberBuffer
		s.missed++
	}
	s.mu.Unlock()
	s.rouse()
}

func (s *subscriber) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.rouse()
}

func (s *subscriber) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take empties the buffer. missed is how many changes were lost before the
// first of them; ended says that no more will come.
func (s *subscriber) take() (cs []change, missed uint64, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs = append(slices.Clone(s.buffer[s.head:]), s.buffer[:s.head]...)
	missed, ended = s.missed, s.ended
	clear(s.buffer)
	s.buffer, s.head, s.missed = s.buffer[:0], 0, 0
	return cs, missed, ended
}
