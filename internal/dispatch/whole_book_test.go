package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// place names a delivery.
type place struct {
	lane queue.Lane
	seq  uint64
}

// account is what the book knows of one delivery.
type account struct {
	number   int // of the event, as the sender counts
	entry    string
	payload  string
	state    delivery.State
	attempts int  // that counted
	tries    int  // of the schedule under way
	crashes  int  // of the schedule under way
	ended    bool // once: an operator brought it back, so it is outside the order of its entry
	removed  bool // from the log, by an operator
	lapsed   bool // from the log, by retention
	accepted time.Time
	changed  time.Time
	due      time.Time // no attempt before
	answered *ruling   // to the attempt under way, until the store says that it is durable
}

// ruling is what must become of a delivery after an answer.
type ruling struct {
	outcome  delivery.Outcome
	state    delivery.State
	number   int
	attempts int
	tries    int
	crashes  int
	due      time.Time
}

// book is the model of queue and dispatch together: it hears what senders were told,
// what receivers saw and answered and what the store says is durable, and works out
// what must be. It shares no code with either. A book outlives crashes.
type book struct {
	mu       sync.Mutex
	errs     []error
	store    *queue.Store // of the life under way, to ask about a suspicion
	accounts map[place]*account
	sent     map[string]int // payloads that were handed in, and the event's number
	version  int            // grows with every change
	acked    int            // deliveries
	attempts int            // answers
	mayDrop  func(place, delivery.Code) bool
	schedule []time.Duration
	ordered  map[queue.Lane]bool
}

func (b *book) fail(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong(format, args...)
}

// wrong is fail under the lock.
func (b *book) wrong(format string, args ...any) {
	if len(b.errs) < 5 {
		b.errs = append(b.errs, fmt.Errorf(format, args...))
	}
}

func (b *book) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.errs...)
}

// offered is OnReady: deliveries that have become durable.
func (b *book) offered(ds []queue.Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	for i := range ds {
		d := &ds[i]
		number, known := b.sent[string(d.Payload)]
		at := place{d.Lane, d.Seq}
		if !known || b.accounts[at] != nil {
			b.wrong("delivery %v with %q is new to the store, and should not be", at, d.Payload)
			continue
		}
		b.accounts[at] = &account{number: number, entry: d.EntryID, payload: string(d.Payload), state: delivery.Pending, accepted: time.Now()}
	}
}

// happened is OnChange: steps of deliveries that have become durable.
func (b *book) happened(cs []queue.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	for i := range cs {
		c := &cs[i]
		at := place{c.Lane, c.Seq}
		a := b.accounts[at]
		if a == nil {
			b.wrong("%+v of a delivery that nobody accepted", *c)
			continue
		}
		switch c.Kind {
		case queue.ChangeAccepted:
		case queue.ChangeAttempt:
			b.recorded(at, a, c)
		case queue.ChangeRequeued:
			a.state, a.tries, a.crashes, a.due = delivery.Pending, 0, 0, time.Time{}
		case queue.ChangeDropped:
			if !b.mayDrop(at, c.Code) {
				b.wrong("%+v, and nobody wanted that", *c)
			}
			if a.state == delivery.Failed {
				a.removed = true
			}
			a.state, a.ended = delivery.Failed, true
		}
		a.changed = time.Now()
	}
}

// recorded is an attempt that has become durable. It must be the one that was
// answered, once, with the state that the answer demands.
func (b *book) recorded(at place, a *account, c *queue.Change) {
	v := a.answered
	if v == nil {
		b.wrong("an attempt of %v is recorded that was not made, or twice: %+v", at, *c)
		return
	}
	if c.State != v.state || c.Attempts != v.number {
		b.wrong("an attempt of %v that was answered %+v is recorded as %+v", at, *v, *c)
	}
	a.state, a.attempts, a.tries, a.crashes, a.due = v.state, v.attempts, v.tries, v.crashes, v.due
	a.ended = a.ended || v.state != delivery.Pending
	a.answered = nil
}

// begins is the begin of an attempt, as the receiver sees it. A suspicion is
// looked up in the store: a change is durable a moment before the book hears of it.
func (b *book) begins(o *delivery.Outbound) (place, *account) {
	_, lane, seq, _ := id.ParseDelivery(o.DeliveryID)
	at := place{queue.Lane(lane), seq}
	b.mu.Lock()
	a := b.accounts[at]
	if a == nil || id.Delivery(b.store.StoreID(), lane, seq) != o.DeliveryID {
		b.wrong("%s is attempted, and nobody accepted it", o.DeliveryID)
		b.mu.Unlock()
		return at, nil
	}
	if string(o.Payload) != a.payload || o.Sequence != seq || o.EntryID != a.entry {
		b.wrong("%v carries %q of entry %s, accepted was %q of %s", at, o.Payload, o.EntryID, a.payload, a.entry)
	}
	if a.answered != nil {
		b.wrong("%v is attempted while the outcome of its attempt %d is not durable", at, a.answered.number)
	}
	if early := time.Until(a.due); early > 2*time.Millisecond {
		b.wrong("%v is attempted %v before its time", at, early)
	}
	if o.Attempt != a.attempts+1 {
		b.wrong("%v has had %d attempts, and the next says that it is number %d", at, a.attempts, o.Attempt)
	}
	suspects := map[place]bool{} // true: must be finished, false: must be pending
	if a.state != delivery.Pending {
		suspects[at] = false
	}
	if b.ordered[at.lane] && !a.ended {
		for p, other := range b.accounts {
			if p.lane == at.lane && p.seq < at.seq && other.entry == a.entry && other.state == delivery.Pending && !other.ended {
				suspects[p] = true
			}
		}
	}
	store := b.store
	b.mu.Unlock()
	for p, finished := range suspects {
		if sum, err := store.Summary(p.lane, p.seq); err == nil && (sum.State != delivery.Pending) != finished {
			b.fail("%v is attempted while %v is %v", at, p, sum.State)
		}
	}
	return at, a
}

// answers notes what a receiver is about to answer. What uses up no attempt and is
// not kept leaves nothing to wait for.
func (b *book) answers(a *account, out *delivery.Attempt, number int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempts++
	v := &ruling{outcome: out.Outcome, state: delivery.Pending, number: number, attempts: a.attempts, tries: a.tries, crashes: a.crashes, due: a.due}
	counted := func(state delivery.State) {
		v.state, v.attempts, v.tries = state, number, a.tries+1
	}
	switch out.Outcome {
	case delivery.Delivered, delivery.Skipped:
		counted(delivery.Success)
	case delivery.Rejected:
		counted(delivery.Failed)
	case delivery.Interrupted:
		return
	case delivery.Crashed:
		if v.crashes++; v.crashes == delivery.MaxCrashes {
			counted(delivery.Failed)
		}
	case delivery.Retry:
		if a.tries == len(b.schedule) {
			counted(delivery.Failed)
			break
		}
		counted(delivery.Pending)
		wait := b.schedule[a.tries]
		if out.Status == 503 {
			wait = max(wait, out.RetryAfter)
		}
		v.due = time.Now().Add(wait)
	}
	a.answered = v
}

// forgets is what a crash does to answers that were not durable, and what a stop
// does to attempts that it interrupts. all = of a crash.
func (b *book) forgets(all bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for at, a := range b.accounts {
		if v := a.answered; v != nil && !all && (v.outcome == delivery.Delivered || v.outcome == delivery.Skipped) {
			b.wrong("the success of %v was not recorded before the store was closed", at)
		}
		a.answered = nil
	}
}

// acknowledged is a sender's 202.
func (b *book) acknowledged(number int, ev *queue.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, nd := range ev.Deliveries {
		a := b.accounts[place{nd.Lane, ev.Seq}]
		if a == nil || a.number != number || a.entry != ev.EntryID {
			b.wrong("event %d was accepted as %d, and its delivery of lane %d is %+v", number, ev.Seq, nd.Lane, a)
		}
		b.acked++
	}
}

// kept is for how long what has ended must be in the log, and payloads be readable.
type kept struct{ delivered, failed, payloads time.Duration }

// agrees compares everything that the store says with the book, at a moment when
// nothing changes. Longer than most: it is one list of what must hold.
func (b *book) agrees(ctx context.Context, s *queue.Store, keep kept) error {
	listed, err := everything(s)
	if err != nil {
		return err
	}
	st := s.Stats()
	b.mu.Lock()
	defer b.mu.Unlock()
	var sum queue.Stats
	for at, a := range b.accounts {
		sum.Deliveries++
		until := keep.delivered
		switch a.state {
		case delivery.Pending:
			sum.Pending++
		case delivery.Success:
			sum.Success++
		case delivery.Failed:
			sum.Failed++
			until = keep.failed
		}
		row, there := listed[at]
		switch {
		case there && (a.removed || a.lapsed):
			return fmt.Errorf("%v left the log and is listed as %+v", at, row)
		case !there && a.state != delivery.Pending && !a.removed && time.Since(a.changed) >= until:
			a.lapsed = true
		case !there && !a.removed && !a.lapsed:
			return fmt.Errorf("%v is not listed: %+v", at, *a)
		case there && (row.State != a.state || row.Attempts != a.attempts || row.EntryID != a.entry || row.ID != id.Delivery(s.StoreID(), uint32(at.lane), at.seq)):
			return fmt.Errorf("%v is listed as %+v, and is %+v", at, row, *a)
		}
		if there {
			if err := b.readable(s, at, a, keep); err != nil {
				return err
			}
		}
	}
	if st.Deliveries != sum.Deliveries || st.Success != sum.Success || st.Failed != sum.Failed || st.Pending != sum.Pending || st.Quarantined != 0 {
		return fmt.Errorf("the store counts %+v, the book %+v", st, sum)
	}
	if len(listed) > len(b.accounts) {
		return fmt.Errorf("%d are listed, the book has %d", len(listed), len(b.accounts))
	}
	f, err := s.Verify(ctx)
	if err == nil && len(f.Problems) > 0 {
		err = fmt.Errorf("the store finds %q", f.Problems)
	}
	return err
}

// readable looks at the payload and the attempts of a delivery that is listed.
func (b *book) readable(s *queue.Store, at place, a *account, keep kept) error {
	ev, err := s.Event(at.seq)
	switch {
	case errors.Is(err, queue.ErrNotFound) && a.state != delivery.Pending && time.Since(a.accepted) >= keep.payloads:
	case err != nil:
		return fmt.Errorf("the event of %v: %w; %+v", at, err, *a)
	case !slices.ContainsFunc(ev.Payloads[:], func(p []byte) bool { return string(p) == a.payload }):
		return fmt.Errorf("the event of %v has payloads %q, accepted was %q", at, ev.Payloads, a.payload)
	}
	if time.Since(a.accepted) >= min(keep.delivered, keep.failed) {
		return nil // earlier attempts age out
	}
	log, err := s.Attempts(at.lane, at.seq)
	if err != nil {
		return fmt.Errorf("the attempts of %v: %w", at, err)
	}
	n := 0
	for i := range log {
		if log[i].State == delivery.Pending && log[i].Outcome != delivery.Retry {
			continue // used up none
		}
		if n++; log[i].Number != n {
			return fmt.Errorf("attempt %d of %v has the number %d", n, at, log[i].Number)
		}
	}
	if n != a.attempts {
		return fmt.Errorf("%d attempts of %v are in the log, %d were made", n, at, a.attempts)
	}
	return nil
}

// everything is the whole listing, in pages of an odd size.
func everything(s *queue.Store) (map[place]queue.Summary, error) {
	out := map[place]queue.Summary{}
	last := uint64(1<<64 - 1)
	for cursor := ""; ; {
		sums, next, err := s.List(queue.ListQuery{Limit: 37, Cursor: cursor})
		if err != nil {
			return nil, err
		}
		for _, sum := range sums {
			at := place{sum.Lane, sum.Seq}
			if _, twice := out[at]; twice || sum.Seq > last {
				return nil, fmt.Errorf("%v is listed twice or out of order", at)
			}
			last = sum.Seq
			out[at] = sum
		}
		if cursor = next; next == "" {
			return out, nil
		}
	}
}
