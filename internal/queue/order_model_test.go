package queue

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// orderModel drives one ordered lane as dispatch does, with deliveries under way
// for any time, and knows of each delivery what must hold.
type orderModel struct {
	*harness
	rt      *rapid.T
	lane    Lane
	entries map[uint64]string         // of every delivery
	state   map[uint64]delivery.State // as the model has it
	outside map[uint64]bool           // was finished once
	busy    map[string]Delivery       // ready ones that were claimed, by entry
	back    map[uint64]Delivery       // others that were claimed
	met     uint64                    // ready ones up to here were met in this life
}

// first is the first delivery of an entry that is in order and pending, 0 when
// there is none.
func (m *orderModel) first(entry string) (first uint64) {
	for seq, e := range m.entries {
		if e == entry && m.state[seq] == delivery.Pending && !m.outside[seq] && (first == 0 || seq < first) {
			first = seq
		}
	}
	return first
}

// mayGo fails when a delivery that is about to be attempted is not the first.
func (m *orderModel) mayGo(d *Delivery) {
	if first := m.first(d.EntryID); !m.outside[d.Seq] && first != d.Seq {
		m.rt.Fatalf("%d of entry %s goes, and %d is pending", d.Seq, d.EntryID, first)
	}
}

// meet claims or parks the next ready delivery.
func (m *orderModel) meet() {
	ds, _, err := m.ReadReady(m.lane, m.met, 1, 1<<20)
	if err != nil {
		m.rt.Fatal(err)
	}
	if len(ds) == 0 {
		return
	}
	d := ds[0]
	m.met = d.Seq
	ahead, under := m.busy[d.EntryID]
	if !under && !m.isBlocked(d) {
		m.mayGo(&d)
		m.busy[d.EntryID] = d
		return
	}
	if under && ahead.Seq == d.Seq {
		return
	}
	if turns := m.park(ahead.Seq, d); len(turns) > 0 && m.first(d.EntryID) != d.Seq {
		m.rt.Fatalf("%d was called before its turn", d.Seq)
	}
}

// again claims something that is due, or was brought back.
func (m *orderModel) again() {
	for _, d := range slices.Concat(m.due(m.lane), m.returning(m.lane)) {
		if _, under := m.back[d.Seq]; !under {
			m.mayGo(&d)
			m.back[d.Seq] = d
			return
		}
	}
}

// end gives one that is under way an outcome.
func (m *orderModel) end(state delivery.State) {
	var under []Delivery
	for _, d := range m.busy {
		under = append(under, d)
	}
	for _, d := range m.back {
		under = append(under, d)
	}
	if len(under) == 0 {
		return
	}
	slices.SortFunc(under, func(a, b Delivery) int { return int(a.Seq) - int(b.Seq) })
	d := rapid.SampledFrom(under).Draw(m.rt, "which")
	in := time.Duration(rapid.IntRange(0, 3).Draw(m.rt, "in")) * time.Second
	m.Complete(Completion{Delivery: d, Attempt: attemptOf(d, state, in), Ordered: true})
	m.settle()
	if m.state[d.Seq] = state; state != delivery.Pending {
		m.outside[d.Seq] = true
	}
	if m.busy[d.EntryID].Seq == d.Seq {
		delete(m.busy, d.EntryID)
	}
	delete(m.back, d.Seq)
}

// underWay reports whether an operator must keep off a delivery.
func (m *orderModel) underWay(seq uint64) bool {
	_, back := m.back[seq]
	return back || m.busy[m.entries[seq]].Seq == seq
}

func (m *orderModel) operate(drop bool) {
	seq := rapid.Uint64Range(1, uint64(len(m.entries))+1).Draw(m.rt, "seq")
	if m.underWay(seq) {
		return
	}
	var err error
	if drop {
		err = m.Drop(m.t.Context(), m.lane, seq)
	} else {
		_, err = m.Requeue(m.t.Context(), m.lane, seq)
	}
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrDelivered):
	case err != nil:
		m.rt.Fatal(err)
	case drop && m.state[seq] == delivery.Failed:
		delete(m.entries, seq) // from the log
	case drop:
		m.state[seq], m.outside[seq] = delivery.Failed, true
	default:
		m.state[seq] = delivery.Pending
	}
}

func (m *orderModel) dropAll() {
	q := &PendingDrop{Lane: m.lane, Code: delivery.CodeDropped, Skip: m.underWay}
	for more := true; more; {
		var err error
		if _, more, err = m.DropPending(m.t.Context(), q, rapid.IntRange(1, 4).Draw(m.rt, "step")); err != nil {
			m.rt.Fatal(err)
		}
	}
	for seq := range m.entries {
		if m.state[seq] == delivery.Pending && !m.underWay(seq) {
			m.state[seq], m.outside[seq] = delivery.Failed, true
		}
	}
}

// forget is what a restart of dispatch does.
func (m *orderModel) forget() {
	clear(m.busy)
	clear(m.back)
	m.met = 0
}

func (m *orderModel) check() {
	states := m.states(m.lane)
	for seq := range m.entries {
		if states[seq] != m.state[seq] {
			m.rt.Fatalf("delivery %d is %v, want %v", seq, states[seq], m.state[seq])
		}
		if m.state[seq] == delivery.Pending {
			if sum, err := m.Summary(m.lane, seq); err != nil || (sum.WaitsFor != 0 && m.state[sum.WaitsFor] != delivery.Pending) {
				m.rt.Fatalf("delivery %d waits for %d: %v", seq, sum.WaitsFor, err)
			}
		}
	}
	f, err := m.Verify(m.t.Context())
	if err != nil || len(f.Problems) > 0 {
		m.rt.Fatalf("%v %v", f.Problems, err)
	}
}

// drain lets everything succeed, which must come to an end.
func (m *orderModel) drain() {
	for range 20 * len(m.entries) {
		m.clock.advance(time.Second)
		m.meet()
		m.again()
		m.end(delivery.Success)
	}
	st := m.stats(m.lane)
	if followers, lines := m.Following(m.lane); st.Pending() != 0 || followers != 0 || lines != 0 {
		m.rt.Fatalf("stuck: %+v with %d lines, under way %v %v", st, lines, m.busy, m.back)
	}
}

func TestEntriesStayInOrderWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHarness(t)
		defer h.close()
		m := &orderModel{harness: h, rt: rt, lane: h.lane("x.a")[0], entries: map[uint64]string{}, state: map[uint64]delivery.State{},
			outside: map[uint64]bool{}, busy: map[string]Delivery{}, back: map[uint64]Delivery{}}
		outcomes := []delivery.State{delivery.Pending, delivery.Pending, delivery.Success, delivery.Failed}
		rt.Repeat(map[string]func(*rapid.T){
			"accept": func(*rapid.T) {
				for range rapid.IntRange(1, 4).Draw(rt, "events") {
					ev := testEvent(len(m.entries)+1, m.lane)
					ev.EntryID = fmt.Sprint("entry-", rapid.IntRange(1, 2).Draw(rt, "entry"))
					h.accept(ev)
					m.entries[ev.Seq], m.state[ev.Seq] = ev.EntryID, delivery.Pending
				}
			},
			"meet":      func(*rapid.T) { m.meet() },
			"meet more": func(*rapid.T) { m.meet(); m.meet(); m.meet() },
			"again":     func(*rapid.T) { m.again() },
			"end":       func(*rapid.T) { m.end(rapid.SampledFrom(outcomes).Draw(rt, "outcome")) },
			"end again": func(*rapid.T) { m.end(rapid.SampledFrom(outcomes).Draw(rt, "outcome")) },
			"later":     func(*rapid.T) { h.clock.advance(2 * time.Second) },
			"requeue":   func(*rapid.T) { m.operate(false) },
			"drop":      func(*rapid.T) { m.operate(true) },
			"drop all":  func(*rapid.T) { m.dropAll() },
			"forget":    func(*rapid.T) { m.forget() },
			"reopen":    func(*rapid.T) { h.reopen(); m.forget() },
			"":          func(*rapid.T) { m.check() },
		})
		m.drain()
	})
}
