package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

const (
	// crashTour is the mode of a child that goes everywhere once or a few times and ends
	// by itself.
	crashTour = "tour"
	// tourAheadEnv is how far ahead the wall clock of a child is.
	tourAheadEnv = "QUEUE_TOUR_AHEAD"
)

func tourWebhooks() []string { return []string{"expenses.a", "expenses.b"} }

// tourTimes is how often a tour comes to a point at least.
func tourTimes(point string) int {
	switch point {
	case "accept.group", "accept.over", "accept.handed-over", "commit.made", "commit.durable", "commit.offered", "commit.answered",
		"journal.append.torn", "journal.append.write", "journal.append.sync", "commit.disk-alive", "complete.given", "complete.taken":
		return 12
	}
	return 1
}

// tour is a life of a store with everything in it: events of several senders, large ones
// among them, outcomes of every kind, entries in order, what sinks keep, an operator,
// a replay, webhooks that leave and return, days that pass, space that is given back, and
// the end. It prints what was acknowledged.
type tour struct {
	*Store

	mu    sync.Mutex // guards fresh and standard output
	fresh []Delivery
	later atomic.Int64 // what the clock was moved on by
	sent  atomic.Int64
	lanes map[string]LaneInfo
}

// tourErr ends the process as an error of the queue ends a daemon.
func tourErr(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "tour:", err)
		os.Exit(1)
	}
}

func (tr *tour) open(dir string) {
	began := time.Now()
	ahead, _ := time.ParseDuration(os.Getenv(tourAheadEnv)) // 0 when there is none
	s, err := Open(context.Background(), Options{Dir: dir, stat: roomy, OnFatal: tourErr, apply: 5 * time.Millisecond,
		// What is finished stays in the log, so that it can be counted; payloads go.
		Retention:   Retention{Payloads: 24 * time.Hour, Delivered: 1000 * 24 * time.Hour, Failed: 1000 * 24 * time.Hour},
		RemovedKeep: time.Hour,
		Now:         func() time.Time { return time.Now().Add(ahead) },
		elapsed:     func() time.Duration { return time.Since(began) + time.Duration(tr.later.Load()) },
		OnReady: func(ds []Delivery) {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			tr.fresh = append(tr.fresh, ds...)
		}})
	tourErr(err)
	tr.Store = s
	tr.configure(wants(tourWebhooks()...))
}

func (tr *tour) configure(want []LaneWant) {
	lanes, err := tr.SetLanes(context.Background(), want)
	tourErr(err)
	tr.lanes = lanes
}

// send hands in n events, the last of them large, in one call each, or all in one.
func (tr *tour) send(n int, atOnce bool) {
	evs := make([]*Event, n)
	for i := range evs {
		ev := testEvent(0, tr.lanes["expenses.a"].Lane, tr.lanes["expenses.b"].Lane)
		ev.EntryID = fmt.Sprintf("0-%d-%d", tr.sent.Load()%5, i%3+1) // a few
		if i == n-1 || atOnce {
			ev.EntryID += "0" // in the value log
		}
		ev.Payloads[FormatPeanuts] = crashPayload(ev.EntryID)
		ev.ID = fmt.Sprintf("%d-%d", os.Getpid(), tr.sent.Add(1))
		evs[i] = ev
	}
	each := 1
	if atOnce {
		each = n
	}
	for ; len(evs) > 0; evs = evs[each:] {
		tourErr(tr.Accept(context.Background(), evs[:each]))
		tr.mu.Lock()
		for _, ev := range evs[:each] {
			tourErr(ev.Err)
			fmt.Printf("%d %s.\n", ev.Seq, ev.EntryID)
		}
		tr.mu.Unlock()
	}
}

// crowd sends from several senders at once.
func (tr *tour) crowd() {
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { tr.send(9, false) })
	}
	all.Wait()
	tr.send(20, true)
}

// attempt gives some of the new deliveries an outcome.
func (tr *tour) attempt() {
	tr.mu.Lock()
	fresh := tr.fresh
	tr.fresh = nil
	tr.mu.Unlock()
	for i, d := range fresh {
		c := Completion{Delivery: d, Sink: crashSink, Attempt: attemptOf(d, delivery.Success, 0)}
		switch i % 7 {
		case 0, 1, 2:
			continue // stays pending
		case 3:
			c.Attempt, c.Ordered = attemptOf(d, delivery.Pending, 2000*time.Hour), true
		case 4:
			c.Attempt = attemptOf(d, delivery.Failed, 0)
		case 5:
			c.Attempt.EntryState = []byte("kept")
		}
		tr.Complete(c)
	}
	tr.wait()
}

// wait waits until every outcome is durable.
func (tr *tour) wait() { tourErr(tr.do(context.Background(), func(*group) error { return nil })) }

// order parks deliveries of one entry behind each other, ends the first, and lets the
// others go.
func (tr *tour) order() {
	ctx, lane := context.Background(), tr.lanes["expenses.a"].Lane
	ds, _, err := tr.ReadReady(lane, 0, 12, 1<<20)
	tourErr(err)
	byEntry := map[string][]Delivery{}
	for _, d := range ds {
		byEntry[d.EntryID] = append(byEntry[d.EntryID], d)
	}
	var ended []Delivery
	for _, of := range byEntry {
		var ps []Parking
		for _, d := range of[1:] {
			ps = append(ps, Parking{Delivery: d, Behind: of[0].Seq})
		}
		if len(ps) > 0 {
			_, _, err := tr.Park(ctx, ps)
			tourErr(err)
			ended = append(ended, of[0])
		}
	}
	if len(ended) > 0 {
		tr.Complete(Completion{Delivery: ended[0], Attempt: attemptOf(ended[0], delivery.Success, 0)})
		tr.wait()
	}
	for q, more := (&Release{Lane: lane}), true; more; {
		more, err = tr.ReleaseFollowers(ctx, q)
		tourErr(err)
	}
}

// operate is an operator: retries, drops and replays.
func (tr *tour) operate() {
	ctx, lane := context.Background(), tr.lanes["expenses.a"].Lane
	failed, _, err := tr.List(ListQuery{Lanes: []Lane{lane}, States: []delivery.State{delivery.Failed}, Limit: 1})
	tourErr(err)
	for _, sum := range failed {
		if _, err := tr.Requeue(ctx, lane, sum.Seq); !errors.Is(err, ErrPayloadExpired) {
			tourErr(err)
		}
	}
	pending, _, err := tr.List(ListQuery{Lanes: []Lane{lane}, States: []delivery.State{delivery.Pending}, Limit: 1})
	tourErr(err)
	for _, sum := range pending {
		tourErr(tr.Drop(ctx, lane, sum.Seq))
	}
	q := &PendingDrop{Lane: tr.lanes["expenses.b"].Lane, Code: delivery.CodeDropped}
	_, _, err = tr.DropPending(ctx, q, 3)
	tourErr(err)
	job, err := tr.CreateReplay(ctx, ReplayJob{Lane: lane, States: []delivery.State{delivery.Success}})
	tourErr(err)
	_, _, err = tr.StepReplay(ctx, job.ID, 3)
	tourErr(err)
	tourErr(tr.CancelReplay(ctx, job.ID))
}

// raise moves the marks as if many rows had left.
func (tr *tour) raise() {
	tourErr(tr.do(context.Background(), func(*group) error {
		for _, l := range tr.Store.lanes {
			l.moved = raiseEvery
		}
		return nil
	}))
	tr.send(1, false)
}

// leave removes a webhook for longer than it is waited for, and brings it back with
// another sink, so that what the former kept goes.
func (tr *tour) leave() {
	lane := tr.lanes["expenses.b"].Lane
	tr.configure(wants(tourWebhooks()[:1]...))
	tr.later.Add(int64(2 * time.Hour))
	tr.expiry.poke()
	for tr.stats(lane).Pending() > 0 {
		time.Sleep(time.Millisecond)
	}
	want := wants(tourWebhooks()...)
	want[1].Identity.Sink = "other"
	tr.configure(want)
	tr.until(func() bool { return !tr.c.sweep.wanted })
	tr.configure(wants(tourWebhooks()...))
}

func (tr *tour) stats(of Lane) (st LaneStats) {
	for lane, s := range tr.Lanes() {
		if lane == of {
			st = s
		}
	}
	return st
}

// passDays lets days pass, whose payloads are dropped, and then space be given back.
func (tr *tour) passDays() {
	tr.later.Add(int64(3 * 24 * time.Hour))
	tr.committer(func() { tr.c.day.Reset(0) })
	tr.until(func() bool { return tr.c.retiring == nil && tr.days[0].gone != 0 })
	tr.committer(func() {
		tr.c.space.churn, tr.c.space.armed, tr.c.space.last = spaceChurn, true, -quiet
		tr.c.space.timer.Reset(0)
	})
	tr.until(func() bool { return !tr.c.space.armed && !tr.c.space.busy })
}

// committer calls f in the committer's place.
func (tr *tour) committer(f func()) {
	tourErr(tr.quietly(context.Background(), func(*group) error { f(); return errUnchanged }))
}

func (tr *tour) until(f func() bool) {
	for done := false; !done; {
		tr.committer(func() { done = f() })
		time.Sleep(time.Millisecond)
	}
}

func crashTourist(dir string) {
	tr := &tour{}
	tr.open(dir)
	for range 2 {
		tr.crowd()
		tr.attempt()
	}
	tr.order()
	tr.operate()
	tr.raise()
	tr.leave()
	tr.passDays()
	tr.crowd()
	tourErr(tr.Close(context.Background()))
}
