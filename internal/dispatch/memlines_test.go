package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/id"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// memEntry names an entry of the model store.
type memEntry struct {
	lane  queue.Lane
	entry string
}

func (s *memStore) entryOf(seq uint64) string {
	if s.entries == 0 {
		return fmt.Sprintf("entry-%d", seq)
	}
	return fmt.Sprintf("entry-%d", seq%s.entries)
}

func lineOf(r *memRow) memEntry { return memEntry{r.del.Lane, r.del.EntryID} }

func (s *memStore) startLine(r *memRow) {
	if at := lineOf(r); s.lines[at] == 0 {
		s.lines[at] = r.del.Seq
	}
}

// endInLine follows the end of a row: the first follower of a head is called.
func (s *memStore) endInLine(r *memRow) {
	if s.lines[lineOf(r)] == r.del.Seq {
		s.callNext(lineOf(r))
	}
}

func (s *memStore) callNext(at memEntry) {
	delete(s.lines, at)
	var next *memRow
	for _, r := range s.rows[at.lane] {
		if r.del.Track == queue.Following && r.del.EntryID == at.entry && (next == nil || r.del.Seq < next.del.Seq) {
			next = r
		}
	}
	if next != nil {
		s.lines[at] = next.del.Seq
		s.turns = append(s.turns, s.due(next))
	}
}

func (s *memStore) due(r *memRow) queue.Turn {
	r.del.Track, r.del.Due = queue.Waiting, s.Now()
	return queue.Turn{Lane: r.del.Lane, Seq: r.del.Seq, Due: r.del.Due}
}

// headOf is the head of a delivery's entry.
func (s *memStore) headOf(lane queue.Lane, seq uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines[lineOf(s.rows[lane][seq])]
}

// callTurns is the store's callback; commit is held, and mu is not.
func (s *memStore) callTurns() {
	s.mu.Lock()
	turns := s.turns
	s.turns = nil
	s.mu.Unlock()
	if len(turns) > 0 {
		s.d.Turned(turns)
	}
}

func (s *memStore) Lines() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines) > 0
}

func (s *memStore) Blocked(lane queue.Lane, entry string, seq uint64) (bool, error) {
	s.mu.Lock()
	head := s.lines[memEntry{lane, entry}]
	stopped := s.stopped
	var delay time.Duration
	if s.readDelay != nil {
		delay = s.readDelay()
	}
	s.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay) // the answer grows old
	}
	if stopped {
		return false, queue.ErrStopped
	}
	return head != 0 && head != seq, nil
}

func (s *memStore) Park(_ context.Context, ps []queue.Parking) (turns []queue.Turn, n int, err error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.commitBuffer()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, 0, queue.ErrStopped
	}
	for n < len(ps) && n < 3 {
		p := &ps[n]
		n++
		r := s.rows[p.Delivery.Lane][p.Delivery.Seq]
		if r == nil || r.del.Track != queue.Ready {
			continue
		}
		at := lineOf(r)
		if b := s.rows[at.lane][p.Behind]; s.lines[at] == 0 && b != nil && b.del.Track == queue.Ready {
			s.lines[at] = p.Behind
		}
		switch s.lines[at] {
		case 0, r.del.Seq:
			s.lines[at] = r.del.Seq
			turns = append(turns, s.due(r))
		default:
			r.del.Track = queue.Following
			s.parked++
		}
	}
	return turns, n, nil
}

func (s *memStore) ReleaseFollowers(_ context.Context, q *queue.Release) (more bool, err error) {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.commitBuffer()
	s.mu.Lock()
	for at := range s.lines {
		if at.lane == q.Lane {
			s.callNext(at)
			more = true
			break
		}
	}
	s.mu.Unlock()
	s.callTurns()
	return more, nil
}

// overtaken reports what an attempt of a delivery, which begins now, has
// overtaken: an earlier delivery of the same entry whose end is not durable.
// What was finished once is outside the order.
func (s *memStore) overtaken(lane queue.Lane, seq uint64) (earlier uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	this := s.rows[lane][seq]
	if this == nil || this.once {
		return 0
	}
	for _, r := range s.rows[lane] {
		if r.del.EntryID == this.del.EntryID && r.del.Seq < seq && r.state == delivery.Pending && !r.once {
			return r.del.Seq
		}
	}
	return 0
}

// checkOrder looks at an attempt of the lane that is ordered all the time.
func (m *machine) checkOrder(o *delivery.Outbound) {
	_, lane, seq, ok := id.ParseDelivery(o.DeliveryID)
	if !ok || lane != 1 {
		return
	}
	if earlier := m.store.overtaken(1, seq); earlier != 0 {
		m.fail("attempt %d of %d began before the end of %d", o.Attempt, seq, earlier)
	}
}

// reorder switches the order of the second lane.
func (m *machine) reorder(s step) {
	m.ordered[2] = s.N%2 == 0
	t := m.targets[2]
	if t == nil {
		return
	}
	changed := *t
	changed.Ordered = m.ordered[2]
	m.targets[2] = &changed
	m.apply()
}

// checkEntries fails when a lane at rest still holds something back.
func (m *machine) checkEntries(l *lane) {
	e := &l.entries
	if len(e.m) != 0 || len(e.seqs) != 0 || len(e.asked) != 0 || e.kept.len() != 0 || e.parks.len() != 0 || e.parking {
		m.fail("lane %d is at rest and holds %v %v %v, %d kept, %d to park", l.num, e.m, e.seqs, e.asked, e.kept.len(), e.parks.len())
	}
}
