package queue

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// lifeModel says what must hold of a webhook, in the words of the table of
// what happens to queued deliveries, and independently of the store's code.
type lifeModel struct {
	there, held bool
	target      string // where its pending deliveries were meant to go
	left        time.Duration
}

// Longer than most: the actions share the model and read best side by side.
func TestLivesAgreeWithAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHarness(t)
		defer h.close()
		hosts := []string{"one", "two"}
		m := lifeModel{there: true, target: "one"}
		lane := h.set(map[string]LaneIdentity{"x.a": {"http", "one"}})["x.a"].Lane
		current := "one"
		n, pending := 0, 0
		configure := func(there bool, host string) {
			want := map[string]LaneIdentity{}
			if there {
				want["x.a"] = LaneIdentity{"http", host}
			}
			info := h.set(want)["x.a"]
			switch {
			case !there && m.there:
				m = lifeModel{target: m.target, left: RemovedKeep}
			case !there:
			case pending == 0 || host == m.target || (m.there && !m.held):
				m = lifeModel{there: true, target: host}
			default:
				m = lifeModel{there: true, held: true, target: m.target}
			}
			if there {
				current = host
				if info.Returned != m.held {
					rt.Fatalf("returned %v, want %v", info.Returned, m.held)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"configure": func(*rapid.T) {
				configure(rapid.Bool().Draw(rt, "there"), rapid.SampledFrom(hosts).Draw(rt, "host"))
			},
			"accept": func(*rapid.T) {
				n++
				h.accept(testEvent(n, lane))
				if pending++; !m.there && m.left == 0 {
					h.expired(lane)
					pending = 0
				}
			},
			"complete": func(*rapid.T) {
				if ds := h.ready(lane); len(ds) > 0 {
					h.finish(ds[0], delivery.Success, 0)
					h.settle()
					pending--
				}
			},
			"release": func(*rapid.T) {
				if err := h.Release(t.Context(), lane); err != nil {
					rt.Fatal(err)
				}
				if m.held {
					m.held, m.target = false, current
				}
			},
			"later": func(*rapid.T) {
				d := time.Duration(rapid.IntRange(1, 5).Draw(rt, "days")) * day
				h.later(d)
				if m.left = max(m.left-d, 0); !m.there && m.left == 0 {
					h.expired(lane)
					pending = 0
				}
			},
			"restart": func(*rapid.T) {
				h.reopen()
				configure(m.there, current)
			},
			"": func(*rapid.T) {
				st := h.stats(lane)
				if int(st.Pending()) != pending || st.Returned != m.held || st.RemovedAt.IsZero() != m.there {
					rt.Fatalf("%+v, want %d pending and %+v", st, pending, m)
				}
				if want := !m.there && pending > 0; st.Expires.IsZero() == want ||
					(want && st.Expires.Sub(h.clock.now()).Round(time.Second) != m.left) {
					rt.Fatalf("expires %v, want %+v", st.Expires.Sub(h.clock.now()), m)
				}
			},
		})
		h.sound()
	})
}
