package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

// site is a dispatcher on the real store.
type site struct {
	t       *testing.T
	dir     string
	store   *queue.Store
	d       *Dispatcher
	recv    *receiver
	lanes   []queue.Lane
	changed chan struct{}
	entries int              // events are of so many entries in turn; 0 = of one
	keep    time.Duration    // of what a removed webhook leaves behind; 0 = the store's own
	wall    func() time.Time // the store's wall clock; nil = time.Now
}

func newSite(t *testing.T, lanes int) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir() + "/queue", recv: newReceiver(t.Errorf), changed: make(chan struct{}, 1)}
	s.open(lanes)
	return s
}

func (s *site) open(lanes int) {
	s.t.Helper()
	var d atomic.Pointer[Dispatcher]
	store, err := queue.Open(context.Background(), queue.Options{Dir: s.dir, MinFree: 1, Now: s.wall,
		OnReady: func(ds []queue.Delivery) {
			if d := d.Load(); d != nil {
				d.Offer(ds)
			}
		},
		OnChange: func(cs []queue.Change) {
			if d := d.Load(); d != nil {
				d.Changed(cs)
			}
			s.signal()
		},
		OnTurn: func(ts []queue.Turn) {
			if d := d.Load(); d != nil {
				d.Turned(ts)
			}
		},
		RemovedKeep: s.keep,
		Busy: func(lane queue.Lane, seq uint64) bool {
			d := d.Load()
			return d != nil && d.Busy(lane, seq)
		},
		OnFatal: func(err error) { s.t.Errorf("storage error: %v", err) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.store = store
	s.configure(lanes)
	s.d = New(Options{Store: announced{store, s}, StoreID: store.StoreID(), ringSize: 8})
	d.Store(s.d)
}

// configure makes the first so many webhooks those of the configuration.
func (s *site) configure(lanes int) {
	s.t.Helper()
	want := make([]queue.LaneWant, lanes)
	for i := range want {
		want[i] = queue.LaneWant{Webhook: fmt.Sprintf("test.w%d", i+1), Identity: queue.LaneIdentity{Sink: "http"}}
	}
	byName, err := s.store.SetLanes(context.Background(), want)
	if err != nil {
		s.t.Fatal(err)
	}
	s.lanes = s.lanes[:0]
	for _, w := range want {
		s.lanes = append(s.lanes, byName[w.Webhook].Lane)
	}
}

func (s *site) close() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.d.Stop(ctx); err != nil {
		s.t.Error(err)
	}
	if err := s.store.Close(ctx); err != nil {
		s.t.Error(err)
	}
}

// accept stores n events, each for all lanes, in groups.
func (s *site) accept(n int) []uint64 {
	s.t.Helper()
	var seqs []uint64
	for len(seqs) < n {
		evs := make([]*queue.Event, min(50, n-len(seqs)))
		for i := range evs {
			evs[i] = &queue.Event{Helper: "test", Type: "entry.created", EntryID: fmt.Sprintf("e%d", (len(seqs)+i)%max(s.entries, 1)), Timestamp: time.Now()}
			evs[i].Payloads[queue.FormatPeanuts] = fmt.Appendf(nil, `{"n":%d}`, len(seqs)+i)
			for _, l := range s.lanes {
				evs[i].Deliveries = append(evs[i].Deliveries, queue.NewDelivery{Lane: l})
			}
		}
		if err := s.store.Accept(context.Background(), evs); err != nil {
			s.t.Fatal(err)
		}
		for _, ev := range evs {
			if ev.Err != nil {
				s.t.Fatal(ev.Err)
			}
			seqs = append(seqs, ev.Seq)
		}
	}
	return seqs
}

// wait returns when what is pending in the store has become n or less.
func (s *site) wait(n int64) {
	s.t.Helper()
	s.await(fmt.Sprintf("at most %d pending", n), func() bool { return s.store.Stats().Pending <= n })
}

// await returns when done says so; it is asked after every commit that changed a
// delivery and after every step of a replay.
func (s *site) await(what string, done func() bool) {
	s.t.Helper()
	deadline := time.After(30 * time.Second)
	for !done() {
		select {
		case <-s.changed:
		case <-deadline:
			s.t.Fatalf("waited 30 s for %s\n%s", what, s.state())
		}
	}
}

func (s *site) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// announced signals also the step that ends a replay, which changes no
// delivery and so is in no report of the store.
type announced struct {
	*queue.Store
	s *site
}

func (a announced) StepReplay(ctx context.Context, id string, limit int) ([]queue.Delivery, bool, error) {
	defer a.s.signal()
	return a.Store.StepReplay(ctx, id, limit)
}

// state describes the lanes, for a test that waits in vain.
func (s *site) state() string {
	var b strings.Builder
	for _, num := range s.lanes {
		l := s.d.table.Load().lanes[num]
		l.mu.Lock()
		fmt.Fprintf(&b, "lane %d: %d workers, %d in flight, %d live, %d replays, owned %v, ready %+v, waiting %d %d %d, returning %d %v, halt %+v\n",
			num, l.workers, l.inFlight, l.live(), l.back.replays.len(), l.owned.m, l.ready.cursor, l.waiting.cursorDue, l.waiting.next, s.store.Now(),
			l.back.cursor, l.back.more, l.halt)
		l.mu.Unlock()
	}
	fmt.Fprintf(&b, "%+v", s.store.Stats())
	return b.String()
}

func (s *site) apply(f answer, hold delivery.HoldReason, schedule ...time.Duration) {
	var ts []*Target
	for i, l := range s.lanes {
		t := target(l, 2+3*i, s.recv.sink("s", f))
		t.Hold, t.Policy = hold, retry.Policy{Schedule: schedule}
		ts = append(ts, t)
	}
	s.d.Apply(ts)
}

// wantArrivals fails unless every sequence arrived times[0..1] times on every
// lane.
func (s *site) wantArrivals(seqs []uint64, least, most int) {
	s.t.Helper()
	type key struct {
		webhook string
		seq     uint64
	}
	times := map[key]int{}
	for _, a := range s.recv.arrivals() {
		times[key{a.webhook, a.seq}]++
	}
	if len(times) != len(seqs)*len(s.lanes) {
		s.t.Errorf("%d deliveries arrived, %d were accepted", len(times), len(seqs)*len(s.lanes))
	}
	for k, n := range times {
		if n < least || n > most {
			s.t.Errorf("%v arrived %d times, want %d to %d", k, n, least, most)
		}
	}
}

func TestOnBadgerABurstSpillsAndNothingIsLostOrSentTwice(t *testing.T) {
	s := newSite(t, 3)
	defer s.close()
	s.apply(ok, "")
	s.d.Start()
	seqs := s.accept(1500)
	s.wait(0)
	s.wantArrivals(seqs, 1, 1)
	if st := s.store.Stats(); st.Success != 4500 || st.Failed != 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestOnBadgerFailuresAreRetriedUntilTheyAreUsedUp(t *testing.T) {
	s := newSite(t, 2)
	defer s.close()
	s.apply(func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
		if o.Webhook == "test.w1" || o.Attempt < 3 {
			down(ctx, o, a)
			return
		}
		ok(ctx, o, a)
	}, "", time.Millisecond, 0, 5*time.Millisecond)
	s.d.Start()
	s.accept(500)
	s.wait(0)
	if st := s.store.Stats(); st.Success != 500 || st.Failed != 500 {
		t.Errorf("stats: %+v", st)
	}
	if n := s.recv.count(); n != 500*4+500*3 {
		t.Errorf("%d attempts, want %d", n, 500*4+500*3)
	}
}

func TestOnBadgerAHeldLaneLosesNothing(t *testing.T) {
	s := newSite(t, 2)
	defer s.close()
	rng := rand.New(rand.NewPCG(5, 6))
	s.d.Start()
	s.apply(ok, delivery.HoldDisabled)
	seqs := s.accept(500)
	if n := s.recv.count(); n != 0 {
		t.Errorf("%d attempts while held", n)
	}
	for range 20 {
		s.apply(ok, "")
		s.wait(max(s.store.Stats().Pending-int64(rng.IntN(40)), 0))
		s.apply(ok, delivery.HoldDisabled)
		seqs = append(seqs, s.accept(20)...)
	}
	s.apply(ok, "")
	s.wait(0)
	s.wantArrivals(seqs, 1, 1)
}

func TestOnBadgerWorkGoesOnAfterAReopen(t *testing.T) {
	s := newSite(t, 2)
	s.apply(down, "", time.Millisecond, 50*time.Millisecond, 50*time.Millisecond)
	s.d.Start()
	seqs := s.accept(300)
	s.close()
	s.open(2)
	s.apply(ok, "")
	s.d.Start()
	s.wait(0)
	if st := s.store.Stats(); st.Success+st.Failed != 600 {
		t.Errorf("stats: %+v", st)
	}
	for _, a := range s.recv.arrivals() {
		if a.attempt > 4 {
			t.Errorf("attempt %d of a delivery with four", a.attempt)
		}
	}
	s.wantArrivals(seqs, 1, 4)
	s.close()
}

func TestOnBadgerAReplayIsResumedAfterAReopen(t *testing.T) {
	s := newSite(t, 1)
	s.apply(ok, "")
	s.d.Start()
	s.accept(400)
	s.wait(0)
	job, err := s.d.Replay(t.Context(), queue.ReplayJob{Lane: s.lanes[0], Rate: 200})
	if err != nil || job.Matched != 400 {
		t.Fatalf("%+v %v", job, err)
	}
	s.await("a part of the replay", func() bool { return s.d.Replays()[0].Requeued >= 20 })
	s.close()
	before := s.recv.count()
	s.open(1)
	s.apply(ok, "")
	s.d.Start()
	s.await("the end of the replay", func() bool { return s.d.Replays()[0].Done && s.store.Stats().Pending == 0 })
	if n := s.recv.count(); n != 800 || before > 780 {
		t.Errorf("%d attempts, want 800 (%d before the reopen)", n, before)
	}
	s.close()
}

func TestOnBadgerAnOperatorRetriesAndDrops(t *testing.T) {
	s := newSite(t, 1)
	defer s.close()
	back := make(chan struct{})
	s.apply(func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
		select {
		case <-back:
			ok(ctx, o, a)
		default:
			down(ctx, o, a)
		}
	}, "", time.Hour)
	s.d.Start()
	seqs := s.accept(40)
	s.await("40 failures", func() bool { return s.recv.count() >= 40 })
	close(back)
	for i, seq := range seqs {
		var err error
		if i%4 == 0 {
			err = s.d.Drop(t.Context(), s.lanes[0], seq)
		} else {
			err = s.d.Retry(t.Context(), s.lanes[0], seq)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.wait(0)
	if st := s.store.Stats(); st.Success != 30 || st.Failed != 10 {
		t.Errorf("stats: %+v", st)
	}
	s.wantArrivals(seqs, 1, 2)
}

// wantTimetable fails unless the one delivery of a bubble was attempted as the
// product's schedule says.
func (s *site) wantTimetable(t *testing.T, begin time.Time) {
	t.Helper()
	want := []time.Duration{0, time.Minute, 6 * time.Minute, 36 * time.Minute}
	seen := s.recv.arrivals()
	if len(seen) != len(want) {
		t.Fatalf("%d attempts, want %d", len(seen), len(want))
	}
	for i, a := range seen {
		if late := a.at.Sub(begin) - want[i]; late < 0 || late >= time.Second {
			t.Errorf("attempt %d came at %v, want %v", a.attempt, a.at.Sub(begin), want[i])
		}
	}
	if st := s.store.Stats(); st.Failed != 1 || st.Pending != 0 {
		t.Errorf("stats: %+v", st)
	}
}

func TestOnBadgerTheTimetableIsKeptWhateverTheWallClockDoes(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, row := range []struct {
		name  string
		jumps []time.Duration
	}{
		{"a year ahead", []time.Duration{year, year, year}},
		{"a year back", []time.Duration{-year, -year, -year}},
		{"to and fro", []time.Duration{year, -year, 36 * time.Hour}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				var skew atomic.Int64
				s := &site{t: t, dir: dir + "/queue", recv: newReceiver(t.Errorf), changed: make(chan struct{}, 1),
					wall: func() time.Time { return time.Now().Round(0).Add(time.Duration(skew.Load())) }}
				s.open(1)
				s.apply(down, "", standard.Schedule...)
				s.d.Start()
				begin := time.Now()
				s.accept(1)
				for _, jump := range row.jumps {
					time.Sleep(30 * time.Second)
					skew.Store(int64(jump))
				}
				time.Sleep(37 * time.Minute)
				s.wantTimetable(t, begin)
				s.close()
			})
		})
	}
}
