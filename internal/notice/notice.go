// Package notice decides when somebody is to be told that deliveries fail.
//
// Guarantee: what is told has been accepted into the queue like any event, before
// it counts as told. Of each kind at most one is told for a webhook in a clock hour;
// what changes again in that hour is told in the next one if it still holds then.
// What happened before a crash or a stop and was not told is told after the next start:
// see Rebuild. Nothing is told of the webhooks that are told, so that a dead one makes
// nothing grow. Observe never waits.
//
// A webhook is failing when its last [FailedInARow] deliveries ended as failed, or when
// no attempt has succeeded for [FailingAfter] since one failed, and [FailedAttempts]
// have failed by then. It has recovered with the next success.
package notice

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// When a webhook is failing.
const (
	FailedInARow   = 5
	FailedAttempts = 3
	FailingAfter   = 10 * time.Minute
)

const (
	// period is how often is looked what has become due by time alone, and tried again
	// what the queue did not take.
	period = 15 * time.Second
	// horizon is how old a failure may be that a start still tells of. The queue knows for
	// a day what it has accepted.
	horizon = 23 * time.Hour
	// mostTold is how many of the events about the relay itself a start looks through, to
	// know what was told last.
	mostTold = 1000
	// patience bounds one acceptance.
	patience = 10 * time.Second
)

// Kind is what is told.
type Kind uint8

// Kinds.
const (
	Failing   Kind = iota // a webhook began to fail
	Recovered             // one that was told to fail does not any more
	Delivery              // a delivery ended as failed
	kinds
)

// Notice is one thing to tell.
type Notice struct {
	Kind    Kind
	Webhook string
	// Key is the same for whatever must not be told twice.
	Key string
	At  time.Time
	// Last is the newest delivery that failed; of Recovered the one that succeeded.
	// Its Seq is 0 when it is not known.
	Lane queue.Lane
	Seq  uint64
	// Since is when the first attempt failed after the last success; zero = not known.
	Since    time.Time
	InARow   int   // deliveries that ended as failed since the last success
	Attempts int   // attempts that failed since then
	Others   int64 // of Delivery: how many more have failed since the last notice
}

// Options of a Watch. All are required.
type Options struct {
	// Accept makes a notice durable. told is false when one with its Key was before.
	Accept func(context.Context, Notice) (told bool, err error)
	// List reads the delivery log, as [queue.Store.List] does.
	List   func(queue.ListQuery) ([]queue.Summary, string, error)
	Logger *slog.Logger
	Now    func() time.Time // its monotonic part measures how long a webhook fails
}

// Targets say what is watched and who is told.
type Targets struct {
	Webhooks map[queue.Lane]string // watched; never those that are told
	Told     [kinds]queue.Lane     // 0 = nobody is told of this kind
}

func (t *Targets) none() bool { return t.Told == [kinds]queue.Lane{} }

// Watch follows the outcomes of deliveries.
type Watch struct {
	o    Options
	wake chan struct{}

	mu      sync.Mutex
	targets Targets
	tracks  map[queue.Lane]*track
}

// track is one webhook.
type track struct {
	webhook  string
	inARow   int
	attempts int
	since    time.Time // the first failed attempt after the last success
	failing  bool
	told     bool   // that it is failing
	last     uint64 // newest delivery that failed
	ok       uint64 // newest that succeeded

	failed   int64 // deliveries that ended as failed and were not told
	failedAt time.Time
	old      bool // failed is from before the start: it has been told if its hour has been

	quiet [kinds]time.Time // until when a kind has been told enough
}

// New returns a Watch that watches nothing yet.
func New(o Options) *Watch {
	return &Watch{o: o, wake: make(chan struct{}, 1), tracks: map[queue.Lane]*track{}}
}

// Set replaces what is watched. What is known of webhooks that stay is kept.
func (w *Watch) Set(t Targets) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets = t
	for lane := range w.tracks {
		if _, ok := t.Webhooks[lane]; !ok || t.none() {
			delete(w.tracks, lane)
		}
	}
}

// Observe takes what became durable. It is for the committer's goroutine.
func (w *Watch) Observe(cs []queue.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.targets.none() {
		return
	}
	due := false
	for i := range cs {
		c := &cs[i]
		name, watched := w.targets.Webhooks[c.Lane]
		if !watched || c.Kind != queue.ChangeAttempt {
			continue
		}
		t := w.tracks[c.Lane]
		if t == nil {
			t = &track{webhook: name}
			w.tracks[c.Lane] = t
		}
		due = t.outcome(c, w.o.Now()) || due
	}
	if due {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// outcome notes one attempt and reports whether something may have to be told.
func (t *track) outcome(c *queue.Change, now time.Time) bool {
	if c.State == delivery.Success {
		due := t.told
		t.inARow, t.attempts, t.since, t.failing, t.ok = 0, 0, time.Time{}, false, c.Seq
		return due
	}
	if t.attempts == 0 {
		t.since = now
	}
	t.attempts++
	t.last = c.Seq
	if c.State != delivery.Failed {
		return false
	}
	t.inARow++
	t.failed++
	t.failedAt, t.old = now, false
	return true
}

// Run tells what is to be told until the context ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		w.Tell(ctx)
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-tick.C:
		}
	}
}

// Tell tells what is due now. What the queue does not take stays due.
func (w *Watch) Tell(ctx context.Context) {
	for _, n := range w.due() {
		if ctx.Err() != nil {
			return
		}
		limited, cancel := context.WithTimeout(ctx, patience)
		told, err := w.o.Accept(limited, n)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				w.o.Logger.Warn("an event about the relay itself was not accepted; it is tried again", "webhook", n.Webhook, "err", err)
			}
			continue
		}
		w.answered(&n, told)
	}
}

// due lists what has to be told.
func (w *Watch) due() (list []Notice) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.o.Now()
	for lane, t := range w.tracks {
		t.failing = t.failing || t.inARow >= FailedInARow || t.attempts >= FailedAttempts && now.Sub(t.since) >= FailingAfter
		base := Notice{Webhook: t.webhook, At: now, Lane: lane, Seq: t.last, Since: t.since, InARow: t.inARow, Attempts: t.attempts}
		add := func(k Kind, n Notice) {
			if w.targets.Told[k] == 0 || now.Before(t.quiet[k]) {
				return
			}
			n.Kind, n.Key = k, key(k, t.webhook, n.At)
			list = append(list, n)
		}
		switch {
		case t.failing && !t.told:
			if add(Failing, base); w.targets.Told[Failing] == 0 {
				t.told = true // so that its end is told at least
			}
		case !t.failing && t.told:
			n := base
			if n.Seq = t.ok; w.targets.Told[Recovered] == 0 {
				t.told = false
			}
			add(Recovered, n)
		}
		if t.failed > 0 {
			n := base
			n.Others = t.failed - 1
			if t.old {
				n.At = t.failedAt
			}
			if add(Delivery, n); w.targets.Told[Delivery] == 0 {
				t.failed = 0
			}
		}
	}
	return list
}

// answered notes what the queue said of a notice.
func (w *Watch) answered(n *Notice, told bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.tracks[n.Lane]
	if t == nil {
		return
	}
	t.quiet[n.Kind] = n.At.UTC().Truncate(time.Hour).Add(time.Hour)
	switch {
	case n.Kind == Delivery && (told || t.old):
		t.failed = max(t.failed-1-n.Others, 0)
	case n.Kind == Failing && told:
		t.told = true
	case n.Kind == Recovered && told:
		t.told = false
	}
}

func key(k Kind, webhook string, at time.Time) string {
	return [...]string{"failing", "recovered", "delivery"}[k] + "/" + webhook + "/" + at.UTC().Format("2006-01-02T15")
}

// Rebuild learns from the delivery log what an earlier life of the process knew, and
// what it had no time to tell: a webhook whose newest deliveries failed, one that was
// told to fail and has succeeded since, and the newest failure of each. It is called
// once, after the first Set and before the first Observe. eventTypes are those of the kinds.
func (w *Watch) Rebuild(eventTypes [kinds]string) error {
	w.mu.Lock()
	targets := w.targets
	w.mu.Unlock()
	if targets.none() {
		return nil
	}
	told, err := w.lastTold(&targets, eventTypes)
	if err != nil {
		return err
	}
	now := w.o.Now()
	for lane, name := range targets.Webhooks {
		rows, _, err := w.o.List(queue.ListQuery{Lanes: []queue.Lane{lane}, States: []delivery.State{delivery.Success, delivery.Failed}, Limit: FailedInARow})
		if err != nil {
			return err
		}
		if t := rebuilt(name, rows, told[name], now); t != nil {
			w.mu.Lock()
			if w.tracks[lane] == nil {
				w.tracks[lane] = t
			}
			w.mu.Unlock()
		}
	}
	return nil
}

// lastTold is what was told last of each webhook, Failing or Recovered, and when.
func (w *Watch) lastTold(targets *Targets, eventTypes [kinds]string) (map[string]queue.Summary, error) {
	last := map[string]queue.Summary{}
	var lanes []queue.Lane
	for _, k := range [...]Kind{Failing, Recovered} {
		if targets.Told[k] != 0 {
			lanes = append(lanes, targets.Told[k])
		}
	}
	if len(lanes) == 0 {
		return last, nil
	}
	rows, _, err := w.o.List(queue.ListQuery{Lanes: lanes, Limit: mostTold})
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if _, newer := last[row.EntryID]; !newer {
			last[row.EntryID] = row
		}
	}
	for name, row := range last {
		if row.EventType != eventTypes[Failing] {
			delete(last, name)
		}
	}
	return last, nil
}

// rebuilt is the track of a webhook with these newest finished deliveries; failing is
// the zero Summary when it was not told to fail. nil = there is nothing to know.
func rebuilt(name string, rows []queue.Summary, failing queue.Summary, now time.Time) *track {
	t := &track{webhook: name, told: failing.Seq != 0}
	t.failing = t.told
	newest := queue.Summary{}
	for _, row := range rows {
		if row.State == delivery.Success {
			if t.told && row.Finished.After(failing.Accepted) {
				t.failing, t.ok = false, row.Seq
			}
			break
		}
		if row.Code == delivery.CodeDropped || row.Code == delivery.CodeRemoved || now.Sub(row.Finished) >= horizon {
			continue // no receiver's doing, or long ago
		}
		if newest.Seq == 0 {
			newest = row
		}
		t.inARow++
		t.attempts += row.Attempts
		t.since = row.Finished
		t.last = max(t.last, row.Seq)
	}
	if newest.Seq != 0 {
		t.failed, t.failedAt, t.old = 1, newest.Finished, true
	}
	if t.inARow == 0 && !t.told && t.failed == 0 {
		return nil
	}
	return t
}
