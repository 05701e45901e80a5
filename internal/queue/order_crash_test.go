package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// crashOrder is the mode of a child whose lanes are ordered.
const crashOrder = "order"

// orderly attempts the deliveries of ordered lanes as dispatch does, with
// outcomes at random: one of an entry at a time, and none that is blocked.
type orderly struct {
	s *Store

	mu   sync.Mutex
	busy map[orderlyKey]uint64 // the ready delivery that is under way
}

type orderlyKey struct {
	lane  Lane
	entry string
}

// meetMost is how many deliveries are looked at before some of them are parked.
const meetMost = 64

// newOrderly returns nil for another mode.
func newOrderly(mode string) *orderly {
	if mode != crashOrder {
		return nil
	}
	return &orderly{busy: map[orderlyKey]uint64{}}
}

func keyOf(d *Delivery) orderlyKey { return orderlyKey{d.Lane, d.EntryID} }

// changed hears of commits: what is durable is not under way any more.
func (o *orderly) changed(cs []Change) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, seq := range o.busy {
		if slices.ContainsFunc(cs, func(c Change) bool { return c.Kind == ChangeAttempt && c.Lane == k.lane && c.Seq == seq }) {
			delete(o.busy, k)
		}
	}
}

// meet claims ready deliveries, which come in order, or parks them, many at a time:
// else a life would be over before it is through with what the one before left.
func (o *orderly) meet(ds ...Delivery) {
	var ps []Parking
	parking := map[orderlyKey]bool{}
	for _, d := range ds {
		k := keyOf(&d)
		o.mu.Lock()
		ahead := o.busy[k]
		if ahead == 0 && !parking[k] {
			o.busy[k] = d.Seq
		}
		o.mu.Unlock()
		if ahead == 0 && !parking[k] {
			blocked, err := o.s.Blocked(d.Lane, d.EntryID, d.Seq)
			if err != nil {
				return
			}
			if !blocked {
				o.attempt(d)
				continue
			}
			o.mu.Lock()
			delete(o.busy, k)
			o.mu.Unlock()
		}
		parking[k] = true
		ps = append(ps, Parking{Delivery: d, Behind: ahead})
	}
	for len(ps) > 0 {
		_, n, err := o.s.Park(context.Background(), ps)
		if err != nil {
			return
		}
		ps = ps[n:]
	}
}

func (o *orderly) attempt(d Delivery) {
	switch n := rand.IntN(20); {
	case n == 0: // stays under way until the next life
	case n < 8:
		o.s.Complete(Completion{Delivery: d, Attempt: attemptOf(d, delivery.Pending, time.Duration(n)*time.Millisecond), Ordered: d.Track == Ready})
	case n < 11:
		o.s.Complete(Completion{Delivery: d, Attempt: attemptOf(d, delivery.Failed, 0)})
	default:
		o.s.Complete(Completion{Delivery: d, Attempt: attemptOf(d, delivery.Success, 0)})
	}
}

// start goes through what a former life left, and then, when that is done,
// through what comes.
func (o *orderly) start(s *Store, lanes []Lane, work <-chan Delivery) {
	o.s = s
	for _, lane := range lanes {
		ds, _, err := o.s.ReadReady(lane, 0, 1<<20, 1<<30)
		if err != nil {
			return
		}
		for some := range slices.Chunk(ds, meetMost) {
			o.meet(some...)
		}
		go o.retry(lane)
	}
	go func() {
		for d := range work {
			ds := []Delivery{d}
			for len(work) > 0 && len(ds) < meetMost {
				ds = append(ds, <-work)
			}
			o.meet(ds...)
		}
	}()
}

// retry attempts what is due, each row once.
func (o *orderly) retry(lane Lane) {
	tick := time.NewTicker(time.Millisecond)
	done := map[[2]int64]bool{}
	for range tick.C {
		ds, _, err := o.s.ReadWaiting(lane, 0, 0, o.s.Now(), 1000, 1<<20)
		if err != nil {
			return
		}
		for _, d := range ds {
			if at := [2]int64{d.Due, int64(d.Seq)}; !done[at] {
				done[at] = true
				o.attempt(d)
			}
		}
	}
}

// The same with lanes that are ordered: whatever moment the process is killed
// in, a line has a head that is pending, each follower a line, and nothing of an
// entry has ended that is younger than something pending.
func TestNoOrderIsLostByKill(t *testing.T) {
	killAll(t, crashOrder, func(h *harness) bool {
		var followers int64
		for _, lane := range h.lane("expenses.a", "expenses.b") {
			n, _ := h.Following(lane)
			followers += n
			if wrong := h.overtaken(lane); len(wrong) > 0 {
				t.Fatal(strings.Join(wrong, "\n"))
			}
		}
		return followers > 0
	})
}

// overtaken lists the deliveries that ended before an earlier one of their
// entry.
func (h *harness) overtaken(lane Lane) (wrong []string) {
	h.t.Helper()
	pending := map[string]uint64{} // the first of each entry
	states, entries := h.states(lane), h.entries(lane)
	seqs := make([]uint64, 0, len(states))
	for seq := range states {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	for _, seq := range seqs {
		entry := entries[seq]
		switch first := pending[entry]; {
		case states[seq] == delivery.Pending && first == 0:
			pending[entry] = seq
		case states[seq] != delivery.Pending && first != 0:
			wrong = append(wrong, fmt.Sprintf("lane %d: %d of entry %s is %v, and %d is pending", lane, seq, entry, states[seq], first))
		}
	}
	return wrong
}
