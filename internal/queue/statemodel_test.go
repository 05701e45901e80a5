package queue

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// keptState names what a sink has kept in the model.
type keptState struct {
	webhook string
	sink    string
	entry   string
}

// stateModel is what two webhooks ought to keep.
type stateModel struct {
	h     *harness
	lanes map[string]Lane
	sinks map[string]string // of the configuration; missing = removed
	kept  map[keptState]string
	next  int
}

// configure makes m.sinks the configuration.
func (m *stateModel) configure() {
	var want []LaneWant
	for webhook, sink := range m.sinks {
		want = append(want, wantsSink(webhook, sink)...)
	}
	for webhook, info := range m.h.configure(want...) {
		m.lanes[webhook] = info.Lane
	}
	m.h.swept()
	maps.DeleteFunc(m.kept, func(k keptState, _ string) bool {
		sink, there := m.sinks[k.webhook]
		return there && sink != k.sink
	})
}

// deliver delivers one event and keeps a state for its entry.
func (m *stateModel) deliver(webhook, entry, typ string, state []byte, success bool) {
	m.next++
	lane, sink := m.lanes[webhook], m.sinks[webhook]
	ev := testEvent(m.next, lane)
	ev.EntryID, ev.Type = entry, typ
	m.h.accept(ev)
	d := m.h.ready(lane)[0]
	a := attemptOf(d, delivery.Failed, 0)
	if success {
		a = attemptOf(d, delivery.Success, 0)
	}
	a.EntryState = state
	m.h.Complete(Completion{Delivery: d, Attempt: a, Sink: sink})
	m.h.settle()
	key := keptState{webhook, sink, entry}
	switch {
	case !success || len(state) > MaxEntryState || (state == nil && typ != entryDeleted):
	case len(state) == 0:
		delete(m.kept, key)
	default:
		m.kept[key] = string(state)
	}
}

func (m *stateModel) check(rt *rapid.T) {
	for webhook, lane := range m.lanes {
		for _, sink := range []string{"slack", "sheets"} {
			for n := range 3 {
				key := keptState{webhook, sink, fmt.Sprintf("e%d", n)}
				if got, want := m.h.state(lane, sink, key.entry), m.kept[key]; got != want {
					rt.Fatalf("%+v is %.20q, want %.20q", key, got, want)
				}
			}
		}
	}
	if n := m.h.rows(kindState); n != len(m.kept) {
		rt.Fatalf("%d rows, want %d", n, len(m.kept))
	}
}

// Whatever happens to webhooks and sinks, an entry's state is that of the last
// success of the sink that the webhook has.
func TestStatesAgreeWithAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHarness(t)
		defer h.close()
		webhooks := []string{"x.a", "y.b"}
		m := &stateModel{h: h, lanes: map[string]Lane{}, sinks: map[string]string{"x.a": "slack", "y.b": "slack"}, kept: map[keptState]string{}}
		m.configure()
		state := rapid.Custom(func(t *rapid.T) []byte {
			return [][]byte{nil, {}, []byte("short"), fmt.Appendf(nil, "%d", rapid.IntRange(0, 999).Draw(t, "n")), make([]byte, MaxEntryState), make([]byte, MaxEntryState+1)}[rapid.IntRange(0, 5).Draw(t, "kind")]
		})
		rt.Repeat(map[string]func(*rapid.T){
			"deliver": func(rt *rapid.T) {
				webhook := rapid.SampledFrom(webhooks).Draw(rt, "webhook")
				if m.sinks[webhook] == "" {
					return
				}
				m.deliver(webhook, fmt.Sprintf("e%d", rapid.IntRange(0, 2).Draw(rt, "entry")),
					rapid.SampledFrom([]string{"entry.created", "entry.updated", entryDeleted}).Draw(rt, "type"),
					state.Draw(rt, "state"), rapid.IntRange(0, 4).Draw(rt, "fails") > 0)
			},
			"sink": func(rt *rapid.T) {
				m.sinks[rapid.SampledFrom(webhooks).Draw(rt, "webhook")] = rapid.SampledFrom([]string{"slack", "sheets"}).Draw(rt, "sink")
				m.configure()
			},
			"remove": func(rt *rapid.T) {
				delete(m.sinks, rapid.SampledFrom(webhooks).Draw(rt, "webhook"))
				m.configure()
			},
			"a week": func(*rapid.T) {
				m.h.clock.advance(RemovedKeep + time.Hour)
				m.h.expiry.poke()
				gone := func(k keptState, _ string) bool { return m.sinks[k.webhook] == "" }
				maps.DeleteFunc(m.kept, gone)
				for deadline := time.Now().Add(30 * time.Second); h.rows(kindState) > len(m.kept) && time.Now().Before(deadline); {
				}
				m.h.swept()
			},
			"reopen": func(*rapid.T) {
				h.reopen()
				m.configure()
			},
			"": m.check,
		})
		h.sound()
	})
}
