package queue

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func requestOf(helper string, events int) *acceptReq {
	r := &acceptReq{done: make(chan error, 1)}
	for range events {
		r.evs = append(r.evs, &Event{Helper: helper})
	}
	return r
}

// takeOne does with the intake what a group does with one event.
func takeOne(in *intake, bytes int) *Event {
	r := in.first()
	ev := r.evs[r.next]
	r.next++
	if over, done := in.took(bytes), r.next == len(r.evs); over || done {
		in.pass(done)
	}
	return ev
}

func TestASingleEventPassesTheStreamsOfItsOwnHelper(t *testing.T) {
	var in intake
	in.init()
	for range 4 {
		in.add(requestOf("a", 1000))
	}
	single := requestOf("a", 1)
	in.add(single)
	for n := 0; takeOne(&in, 100) != single.evs[0]; n++ {
		if n > 4*turnEvents {
			t.Fatalf("it waits behind %d events", n)
		}
	}
}

func TestLargeEventsEndATurnEarly(t *testing.T) {
	var in intake
	in.init()
	in.add(requestOf("a", 100))
	in.add(requestOf("b", 1))
	takeOne(&in, turnBytes)
	mustEqual(t, "next", takeOne(&in, 100).Helper, "b")
}

// Whatever comes and is taken: each event leaves once, a request's in their order,
// and nobody who waits is passed over by more than one turn of each other helper.
func TestEveryHelperHasItsTurn(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var in intake
		in.init()
		helpers := []string{"a", "b", "c", "d"}
		owed := map[string][][]*Event{} // by helper: what is left of each request
		since := map[string][]string{}  // by helper: who was served since it waits or was served
		turn, served, waiting := "", 0, 0
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				r := requestOf(rapid.SampledFrom(helpers).Draw(rt, "helper"), rapid.IntRange(1, 3*turnEvents).Draw(rt, "events"))
				h := r.evs[0].Helper
				if len(owed[h]) == 0 {
					since[h] = nil
				}
				owed[h] = append(owed[h], slices.Clone(r.evs))
				in.add(r)
				waiting++
			},
			"take": func(rt *rapid.T) {
				if waiting == 0 {
					rt.Skip()
				}
				ev := takeOne(&in, rapid.SampledFrom([]int{10, turnBytes / 4, turnBytes}).Draw(rt, "bytes"))
				h := ev.Helper
				i := slices.IndexFunc(owed[h], func(evs []*Event) bool { return evs[0] == ev })
				if i < 0 {
					rt.Fatalf("an event of %q is out of order, or comes twice", h)
				}
				if owed[h][i] = owed[h][i][1:]; len(owed[h][i]) == 0 {
					owed[h] = slices.Delete(owed[h], i, i+1)
					waiting--
				}
				if served++; h != turn {
					turn, served = h, 1
				}
				others := 0
				for _, o := range helpers {
					if o == h || len(owed[o]) == 0 {
						continue
					}
					others++
					if since[o] = append(since[o], h); len(since[o]) > len(helpers)*turnEvents {
						rt.Fatalf("%q waits while these were served: %v", o, since[o])
					}
				}
				since[h] = nil
				if others > 0 && served > 2*turnEvents {
					rt.Fatalf("%q had %d events in a row while others waited", h, served)
				}
			},
			"": func(rt *rapid.T) {
				mustEqualRapid(rt, in.waiting, waiting)
				if (in.first() == nil) != (waiting == 0) {
					rt.Fatalf("first is %v while %d wait", in.first(), waiting)
				}
			},
		})
	})
}

func mustEqualRapid(rt *rapid.T, got, want int) {
	if got != want {
		rt.Fatalf("%d requests wait, want %d", got, want)
	}
}

// held runs f while the committer is held up, and lets it go on afterwards.
func (h *harness) held(f func()) {
	h.t.Helper()
	holding, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- h.do(h.t.Context(), func(*group) error { close(holding); <-release; return nil })
	}()
	<-holding
	f()
	close(release)
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
}

// handedOver waits until n requests wait for the committer.
func (h *harness) handedOver(n int) {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(h.accepts) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("%d requests wait for the committer, want %d", len(h.accepts), n)
		}
	}
}

// With streams of one helper waiting, thousands of events, an event of another
// helper is in the next group, and groups are small whatever waits.
func TestAnEventOfAnotherHelperIsInTheNextGroup(t *testing.T) {
	const streams, length = 3, 2000
	var mu sync.Mutex
	var groups [][]Delivery
	h := newHarness(t, func(o *Options) {
		ready := o.OnReady
		o.OnReady = func(ds []Delivery) {
			mu.Lock()
			groups = append(groups, slices.Clone(ds))
			mu.Unlock()
			ready(ds)
		}
	})
	lanes := h.lane("burst.a", "quiet.a")
	var all sync.WaitGroup
	hand := func(evs []*Event) {
		all.Go(func() {
			if err := h.Accept(t.Context(), evs); err != nil {
				t.Error(err)
			}
		})
	}
	h.held(func() {
		for s := range streams {
			var evs []*Event
			for i := range length {
				ev := testEvent(s*length+i, lanes[0])
				ev.Helper = "burst"
				evs = append(evs, ev)
			}
			hand(evs)
		}
		h.handedOver(streams)
		single := testEvent(streams*length, lanes[1])
		single.Helper = "quiet"
		hand([]*Event{single})
		h.handedOver(streams + 1)
	})
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	if !slices.ContainsFunc(groups[0], func(d Delivery) bool { return d.Lane == lanes[1] }) {
		t.Errorf("the other helper's event is not in the first of %d groups", len(groups))
	}
	last := map[int]uint64{}
	for i, g := range groups {
		if len(g) > shortBytes/100 {
			t.Errorf("group %d has %d events", i, len(g))
		}
		for _, d := range g {
			var n int
			if _, err := fmt.Sscanf(d.EntryID, "e%d", &n); err != nil {
				t.Fatal(err)
			}
			if s := n / length; s < streams {
				if uint64(n%length) != last[s] {
					t.Fatalf("stream %d: event %d comes as number %d", s, n%length, last[s])
				}
				last[s]++
			}
		}
	}
	h.sound()
}

// A group ends when it is large, too: the bytes of a few events fill it. Streams alone
// have longer ones; for as long as single events come they are short.
func TestLargeEventsEndAGroup(t *testing.T) {
	var mu sync.Mutex
	most := 0
	h := newHarness(t, func(o *Options) {
		o.OnReady = func(ds []Delivery) { mu.Lock(); most = max(most, len(ds)); mu.Unlock() }
	})
	lane := h.lane("x.a")[0]
	const size = shortBytes / 8
	stream := func() int {
		var evs []*Event
		for i := range 64 {
			ev := testEvent(i, lane)
			ev.Payloads[FormatPeanuts] = []byte(`"` + strings.Repeat("x", size) + `"`)
			evs = append(evs, ev)
		}
		mu.Lock()
		most = 0
		mu.Unlock()
		h.accept(evs...)
		mu.Lock()
		defer mu.Unlock()
		return most
	}
	mustEqual(t, "events in a group of a stream alone", stream(), 64)
	h.accept(testEvent(100, lane))
	mustEqual(t, "events in a group when single ones come", stream(), 8)
	h.clock.advance(hurry)
	mustEqual(t, "events in a group when none has come for a while", stream(), 64)
}

// Outcomes that wait are committed a group at a time, and chance decides whether one
// of these or the events that wait are next. So an event passes some of many.
func TestAnEventIsNotBehindAllOutcomes(t *testing.T) {
	const outcomes, rounds = 7000, 4
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	for round := range rounds {
		var evs []*Event
		for i := range outcomes {
			evs = append(evs, testEvent(i, lane))
		}
		h.accept(evs...)
		ds := h.ready(lane)
		h.mu.Lock()
		h.steps = nil
		h.mu.Unlock()
		answered := make(chan error, 1)
		h.held(func() {
			var cs []Completion
			for _, d := range ds {
				cs = append(cs, Completion{Delivery: d, Attempt: attemptOf(d, delivery.Success, 0)})
			}
			h.CompleteAll(cs)
			go func() { answered <- h.Accept(t.Context(), []*Event{testEvent(outcomes, lane)}) }()
			h.handedOver(1)
		})
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
		h.settle()
		h.mu.Lock()
		at := slices.IndexFunc(h.steps, func(c Change) bool { return c.Kind == ChangeAccepted })
		if at < 0 || at >= len(ds) {
			t.Errorf("round %d: %d of %d outcomes were committed before the event", round, at, len(ds))
		}
		h.mu.Unlock()
	}
	h.sound()
}

// What passes through a list that stays nearly full is not moved each time.
func TestAListThatStaysFullIsCheap(t *testing.T) {
	var f fifo[int]
	const kept = 1000
	for i := range kept {
		f.push(i)
	}
	allocs := testing.AllocsPerRun(5, func() {
		for range 10 * kept {
			v := f.pop()
			f.push(v)
		}
	})
	if allocs > 0 || cap(f.items) > 2*kept {
		t.Errorf("%v allocations, room for %d", allocs, cap(f.items))
	}
}

func TestAListKeepsItsOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var f fifo[int]
		var model []int
		n := 0
		rt.Repeat(map[string]func(*rapid.T){
			"push": func(rt *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(rt, "pushed") {
					n++
					f.push(n)
					model = append(model, n)
				}
				if !slices.Equal(f.last(1), model[len(model)-1:]) {
					rt.Fatalf("last is %v", f.last(1))
				}
			},
			"pop": func(rt *rapid.T) {
				if len(model) == 0 {
					rt.Skip()
				}
				if f.first() != model[0] || f.pop() != model[0] {
					rt.Fatal("out of order")
				}
				model = model[1:]
			},
			"drop": func(rt *rapid.T) {
				k := rapid.IntRange(0, len(model)).Draw(rt, "dropped")
				f.drop(k)
				model = model[k:]
			},
			"": func(rt *rapid.T) {
				if f.len() != len(model) {
					rt.Fatalf("%d left, want %d", f.len(), len(model))
				}
			},
		})
	})
}
