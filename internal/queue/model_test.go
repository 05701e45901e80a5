package queue

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// modelDelivery is what the model knows of one delivery.
type modelDelivery struct {
	track    Track // 0 = finished
	state    delivery.State
	attempts int
	payload  string
	gone     bool // dropped from the log
}

// Random operations, with closing and opening in between, against a map. Longer
// than most: the actions share the model and read best side by side.
func TestTheStoreAgreesWithAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHarness(t)
		defer h.close()
		lanes := h.lane("x.a", "y.b")
		model := map[position]*modelDelivery{}
		next := 0
		pick := func() (position, Delivery, bool) {
			lane := rapid.SampledFrom(lanes).Draw(rt, "lane")
			all := append(append(h.ready(lane), h.waiting(lane)...), h.returning(lane)...)
			if len(all) == 0 {
				return position{}, Delivery{}, false
			}
			d := all[rapid.IntRange(0, len(all)-1).Draw(rt, "delivery")]
			return position{d.Seq, d.Lane}, d, true
		}
		anySeq := func() position {
			return position{rapid.Uint64Range(1, uint64(next)+1).Draw(rt, "seq"), rapid.SampledFrom(lanes).Draw(rt, "lane")}
		}
		actions := map[string]func(*rapid.T){
			"accept": func(*rapid.T) {
				for range rapid.IntRange(1, 5).Draw(rt, "events") {
					next++
					to := lanes[:rapid.IntRange(0, 2).Draw(rt, "lanes")]
					ev := h.accept(testEvent(next, to...))[0]
					for _, lane := range to {
						model[position{ev.Seq, lane}] = &modelDelivery{track: Ready, state: delivery.Pending, payload: string(ev.Payloads[0])}
					}
				}
			},
			"complete": func(*rapid.T) {
				at, d, ok := pick()
				if !ok {
					return
				}
				state := rapid.SampledFrom([]delivery.State{delivery.Success, delivery.Failed, delivery.Pending}).Draw(rt, "state")
				h.finish(d, state, time.Duration(rapid.IntRange(0, 100).Draw(rt, "in"))*time.Second)
				h.settle()
				m := model[at]
				m.attempts++
				m.state = state
				if m.track = 0; state == delivery.Pending {
					m.track = Waiting
				}
			},
			"requeue": func(*rapid.T) {
				at := anySeq()
				_, err := h.Requeue(t.Context(), at.lane, at.seq)
				m := model[at]
				if m == nil || m.gone {
					if !errors.Is(err, ErrNotFound) {
						rt.Fatalf("requeue of %v: %v", at, err)
					}
					return
				}
				if err != nil {
					rt.Fatalf("requeue of %v: %v", at, err)
				}
				if m.state = delivery.Pending; m.track != Ready {
					m.track = Returning
				}
			},
			"drop": func(*rapid.T) {
				at := anySeq()
				err := h.Drop(t.Context(), at.lane, at.seq)
				m := model[at]
				switch {
				case m == nil || m.gone:
					if !errors.Is(err, ErrNotFound) {
						rt.Fatalf("drop of %v: %v", at, err)
					}
				case m.state == delivery.Success:
					if !errors.Is(err, ErrDelivered) {
						rt.Fatalf("drop of %v: %v", at, err)
					}
				case err != nil:
					rt.Fatalf("drop of %v: %v", at, err)
				case m.state == delivery.Failed:
					m.gone = true
				default:
					m.track, m.state = 0, delivery.Failed
				}
			},
			"drop all": func(*rapid.T) {
				q := &PendingDrop{Lane: rapid.SampledFrom(lanes).Draw(rt, "lane"), Code: delivery.CodeDropped}
				spared := rapid.Uint64Range(0, 3).Draw(rt, "spared")
				q.Skip = func(seq uint64) bool { return seq%4 == spared }
				for more := true; more; {
					var err error
					if _, more, err = h.DropPending(t.Context(), q, rapid.IntRange(1, 3).Draw(rt, "step")); err != nil {
						rt.Fatal(err)
					}
				}
				for at, m := range model {
					if at.lane == q.Lane && m.state == delivery.Pending && !q.Skip(at.seq) {
						m.track, m.state = 0, delivery.Failed
					}
				}
			},
			"reopen": func(*rapid.T) { h.reopen() },
			"rest": func(*rapid.T) {
				if err := h.letRest(); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(*rapid.T) {
				if err := agree(h, lanes, model); err != nil {
					rt.Fatal(err)
				}
			},
		}
		rt.Repeat(actions)
		h.sound()
	})
}

func agree(h *harness, lanes []Lane, model map[position]*modelDelivery) error {
	for _, lane := range lanes {
		want := map[Track]map[uint64]*modelDelivery{Ready: {}, Waiting: {}, Returning: {}}
		listed := 0
		for at, m := range model {
			if at.lane != lane {
				continue
			}
			if m.track != 0 {
				want[m.track][at.seq] = m
			}
			if !m.gone {
				listed++
			}
		}
		for track, ds := range map[Track][]Delivery{Ready: h.ready(lane), Waiting: h.waiting(lane), Returning: h.returning(lane)} {
			if len(ds) != len(want[track]) {
				return fmt.Errorf("lane %d track %d has %v, want %d", lane, track, seqs(ds), len(want[track]))
			}
			for _, d := range ds {
				m := want[track][d.Seq]
				if m == nil || d.Attempts != m.attempts || string(d.Payload) != m.payload {
					return fmt.Errorf("lane %d track %d: %+v, want %+v", lane, track, d, m)
				}
			}
		}
		states := h.states(lane)
		if len(states) != listed {
			return fmt.Errorf("lane %d lists %v, want %d", lane, states, listed)
		}
		for seq, state := range states {
			if m := model[position{seq, lane}]; m == nil || m.state != state {
				return fmt.Errorf("lane %d delivery %d is %v, want %+v", lane, seq, state, m)
			}
		}
	}
	return nil
}
