package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
	"pgregory.net/rapid"
)

// step is one thing that happens to a running dispatcher.
type step struct {
	Do   string
	Lane queue.Lane
	N    int // how many, how long in ms, or which
}

var steps = rapid.Custom(func(t *rapid.T) step {
	return step{
		Do: rapid.SampledFrom([]string{"accept", "accept", "accept", "sleep", "sleep", "sleep", "mood", "mood", "hold", "enable", "enable",
			"remove", "retry", "retry", "drop", "order", "drop lane", "replay", "cancel", "pause", "resume", "restart", "test", "down", "up", "recheck"}).Draw(t, "do"),
		Lane: queue.Lane(rapid.IntRange(1, 3).Draw(t, "lane")),
		N:    rapid.IntRange(0, 40).Draw(t, "n"),
	}
})

// machine drives a dispatcher through steps and keeps what must hold at the
// end: every delivery finished, none attempted by two at once, none attempted
// without being pending.
type machine struct {
	store   *memStore
	recv    *receiver
	d       *Dispatcher
	targets map[queue.Lane]*Target
	seqs    []uint64
	ordered map[queue.Lane]bool

	mu     sync.Mutex
	errs   []error
	rng    *rand.Rand
	mood   map[string]int
	number int
}

func (m *machine) fail(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errs = append(m.errs, fmt.Errorf(format, args...))
}

func (m *machine) random(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

// moods are what a receiver may do; the last three are those of a sink plugin.
var moods = []delivery.Outcome{delivery.Delivered, delivery.Retry, delivery.Rejected, delivery.Interrupted, delivery.RateLimited, delivery.Misconfigured, delivery.Crashed}

func (m *machine) answer(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
	m.checkOrder(o)
	m.mu.Lock()
	mood := moods[m.mood[o.Webhook]]
	if m.rng.IntN(3) == 0 {
		mood = delivery.Delivered
	}
	delay := time.Duration(m.rng.IntN(20)) * time.Millisecond
	panics := m.rng.IntN(50) == 0
	m.mu.Unlock()
	after(delay, func(context.Context, *delivery.Outbound, *delivery.Attempt) {
		a.Outcome, a.RetryAfter = mood, 2*time.Second
	})(ctx, o, a)
	if panics {
		panic("sink")
	}
}

func (m *machine) newDispatcher() {
	m.d = New(Options{Store: m.store, StoreID: testStoreID, ringSize: 4, RingBytes: 400})
	m.store.serve(m.d)
}

func (m *machine) target(lane queue.Lane, concurrency int) *Target {
	m.number++
	t := target(lane, concurrency, m.sink(lane))
	t.Generation, t.Ordered = uint64(m.number), m.ordered[lane]
	t.Policy = retry.Policy{Schedule: []time.Duration{0, time.Millisecond, 30 * time.Millisecond, time.Second}, Timeout: time.Second}
	return t
}

// sink is a plain one, or one that takes several at once, wants to be paced and
// can be held.
func (m *machine) sink(lane queue.Lane) Sink {
	name := fmt.Sprintf("%d.%d", lane, m.number)
	if m.random(3) == 0 {
		return m.recv.sink(name, m.answer)
	}
	limits := Limits{Concurrency: m.random(4), Batch: m.random(7), BatchBytes: m.random(3) * 40, Linger: time.Duration(m.random(30)) * time.Millisecond,
		State: m.random(2) == 0}
	if m.random(3) == 0 {
		limits.PerSecond, limits.Burst = float64(2+m.random(500)*m.random(2)), m.random(5)
	}
	return m.recv.many(name, limits, m.answer)
}

// holdSink is what the owner of a sink does. It may be forgotten that it changed
// until a recheck comes.
func (m *machine) holdSink(lane queue.Lane, reason delivery.HoldReason, tell bool) {
	if t := m.targets[lane]; t != nil {
		if s, ok := t.Sink.(*manySink); ok {
			s.mu.Lock()
			s.held = reason
			s.mu.Unlock()
		}
	}
	if tell {
		m.d.Recheck()
	}
}

func (m *machine) apply() {
	var ts []*Target
	for _, t := range m.targets {
		ts = append(ts, t)
	}
	m.d.Apply(ts)
}

func (m *machine) hold(lane queue.Lane, reason delivery.HoldReason) {
	t := m.targets[lane]
	if t == nil {
		t = m.target(lane, 1)
	}
	changed := *t
	changed.Hold = reason
	m.targets[lane] = &changed
	m.apply()
}

func (m *machine) do(s step) {
	switch s.Do {
	case "accept":
		m.seqs = append(m.seqs, m.store.accept(s.N/3+1, 1, 2, 3)...)
	case "sleep":
		time.Sleep(time.Duration(s.N) * time.Millisecond)
	case "mood":
		m.mu.Lock()
		m.mood[fmt.Sprintf("test.w%d", s.Lane)] = s.N % len(moods)
		m.mu.Unlock()
	case "hold":
		m.hold(s.Lane, delivery.HoldDisabled)
	case "enable":
		m.targets[s.Lane] = m.target(s.Lane, s.N%6)
		m.apply()
	case "remove":
		delete(m.targets, s.Lane)
		m.apply()
	case "retry", "drop":
		m.operate(s)
	case "drop lane":
		if _, err := m.d.DropLane(context.Background(), s.Lane); err != nil {
			m.fail("drop lane: %v", err)
		}
	case "replay":
		if _, err := m.d.Replay(context.Background(), queue.ReplayJob{Lane: s.Lane, Rate: float64(s.N%3) * 50}); err != nil {
			m.fail("replay: %v", err)
		}
	case "cancel":
		if jobs := m.d.Replays(); len(jobs) > 0 {
			if err := m.d.CancelReplay(context.Background(), jobs[s.N%len(jobs)].ID); err != nil {
				m.fail("cancel: %v", err)
			}
		}
	case "order":
		m.reorder(s)
	case "down":
		m.holdSink(s.Lane, delivery.HoldPluginDown, s.N%2 == 0)
	case "up":
		m.holdSink(s.Lane, "", s.N%2 == 0)
	case "recheck":
		m.d.Recheck()
	case "pause":
		m.d.Pause(delivery.HoldStorage)
	case "resume":
		m.d.Resume()
	case "restart":
		m.stop(time.Duration(s.N/4) * time.Millisecond)
		m.newDispatcher()
		m.d.Start()
		m.renewSinks()
		m.apply()
	case "test":
		if _, err := m.d.Test(context.Background(), s.Lane, &delivery.Outbound{Test: true, Attempt: 1}); err != nil && !errors.Is(err, ErrUnknownWebhook) {
			m.fail("test: %v", err)
		}
	}
}

func (m *machine) renewSinks() {
	for lane, old := range m.targets {
		t := m.target(lane, old.Concurrency)
		t.Hold = old.Hold
		m.targets[lane] = t
	}
}

func (m *machine) stop(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = m.d.Stop(ctx)
	m.store.flushNow()
}

// operate lets an operator do something while the dispatcher goes on.
func (m *machine) operate(s step) {
	if len(m.seqs) == 0 {
		return
	}
	seq := m.seqs[m.random(len(m.seqs))]
	var err error
	if s.Do == "retry" {
		err = m.d.Retry(context.Background(), s.Lane, seq)
	} else {
		err = m.d.Drop(context.Background(), s.Lane, seq)
	}
	if err != nil && !errors.Is(err, ErrInFlight) && !errors.Is(err, queue.ErrNotFound) {
		m.fail("%s: %v", s.Do, err)
	}
}

// settle lets everything succeed and checks what is left.
func (m *machine) settle() {
	m.mu.Lock()
	clear(m.mood)
	m.mu.Unlock()
	for lane := queue.Lane(1); lane <= 3; lane++ {
		m.targets[lane] = m.target(lane, 3)
	}
	m.d.Resume()
	m.apply()
	time.Sleep(10 * time.Minute)
	for range 12 { // nothing else happens that would wake a lane
		m.store.accept(1, 1, 2, 3)
		time.Sleep(time.Duration(m.random(100)) * time.Millisecond)
	}
	time.Sleep(10 * time.Minute)
	synctest.Wait()
	for lane := queue.Lane(1); lane <= 3; lane++ {
		pending, success, failed := m.store.count(lane)
		if pending > 0 {
			m.fail("lane %d: %d of %d are pending for ever", lane, pending, pending+success+failed)
		}
		l := m.d.table.Load().lanes[lane]
		m.checkEntries(l)
		if l.inFlight != 0 || l.workers != 0 || len(l.owned.m) != 0 || l.order.replaying != 0 || len(l.jobs) != 0 ||
			l.calls.n != 0 || l.calls.waiting != nil {
			m.fail("lane %d is not at rest: %d in flight, %d workers, %d calls, owned %v, %d replays in flight, %d jobs",
				lane, l.inFlight, l.workers, l.calls.n, l.owned.m, l.order.replaying, len(l.jobs))
		}
	}
	if n := m.d.held.Load(); n != 0 {
		m.fail("%d bytes are still counted as held", n)
	}
	m.stop(time.Minute)
}

// run plays the steps in a bubble of their own and returns what went wrong.
func run(t *testing.T, seed uint64, play []step) error {
	m := &machine{rng: rand.New(rand.NewPCG(seed, 0)), mood: map[string]int{}, targets: map[queue.Lane]*Target{}, ordered: map[queue.Lane]bool{1: true}}
	synctest.Test(t, func(t *testing.T) {
		m.store, m.recv = newMemStore(m.fail), newReceiver(m.fail)
		m.recv.model = true
		m.store.flush = time.Duration(seed%20) * time.Millisecond
		m.store.early = 4
		m.store.entries = seed % 7
		m.store.readDelay = func() time.Duration { return time.Duration(m.store.rng.IntN(25)) * time.Millisecond }
		m.newDispatcher()
		m.d.Start()
		for _, s := range play {
			m.do(s)
		}
		m.settle()
	})
	return errors.Join(m.errs...)
}

func TestWhateverHappensEveryDeliveryEndsAndNoneIsInFlightTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64Range(0, 1<<20).Draw(rt, "seed")
		play := rapid.SliceOfN(steps, 5, 120).Draw(rt, "steps")
		if err := run(t, seed, play); err != nil {
			rt.Fatal(err)
		}
	})
}
