package notice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// world is a queue that takes notices, a log and a clock.
type world struct {
	*Watch
	t    *testing.T
	now  time.Time
	told []string // "kind webhook others"
	keys map[string]bool
	fail error
	rows map[queue.Lane][]queue.Summary // oldest first
	seq  uint64
}

const (
	backend queue.Lane = iota + 1
	alerts
	onFailing
	onRecovered
	onDelivery
)

func typesOf() [kinds]string {
	return [kinds]string{"relay.webhook.failing", "relay.webhook.recovered", "relay.delivery.failed"}
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: time.Date(2025, 1, 15, 14, 2, 0, 0, time.UTC), keys: map[string]bool{}, rows: map[queue.Lane][]queue.Summary{}}
	w.start()
	return w
}

// start is a life of the process: what was in memory is gone.
func (w *world) start() {
	w.t.Helper()
	w.Watch = New(Options{Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return w.now }, List: w.list,
		Accept: func(_ context.Context, n Notice) (bool, error) {
			if w.fail != nil || w.keys[n.Key] {
				return false, w.fail
			}
			w.keys[n.Key] = true
			w.seq++
			lane := [...]queue.Lane{onFailing, onRecovered, onDelivery}[n.Kind]
			w.rows[lane] = append(w.rows[lane], queue.Summary{Lane: lane, Seq: w.seq, EventType: typesOf()[n.Kind], EntryID: n.Webhook, Accepted: w.now, State: delivery.Success, Finished: w.now})
			w.told = append(w.told, fmt.Sprintf("%s %s %d", strings.TrimPrefix(typesOf()[n.Kind], "relay."), n.Webhook, n.Others))
			return true, nil
		}})
	w.Set(Targets{Webhooks: map[queue.Lane]string{backend: "x.backend", alerts: "x.alerts"}, Told: [kinds]queue.Lane{onFailing, onRecovered, onDelivery}})
	if err := w.Rebuild(typesOf()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) list(q queue.ListQuery) (rows []queue.Summary, _ string, _ error) {
	for _, lane := range q.Lanes {
		for _, row := range w.rows[lane] {
			if len(q.States) == 0 || slices.Contains(q.States, row.State) {
				rows = append(rows, row)
			}
		}
	}
	slices.SortFunc(rows, func(a, b queue.Summary) int { return cmp.Compare(b.Seq, a.Seq) })
	return rows[:min(len(rows), q.Limit)], "", nil
}

// happens is n outcomes of a lane's deliveries, one a second.
func (w *world) happens(lane queue.Lane, state delivery.State, n int) {
	for range n {
		w.now = w.now.Add(time.Second)
		w.seq++
		if state != delivery.Pending {
			w.rows[lane] = append(w.rows[lane], queue.Summary{Lane: lane, Seq: w.seq, State: state, Attempts: 1, Finished: w.now, Accepted: w.now})
		}
		w.Observe([]queue.Change{{Lane: lane, Seq: w.seq, State: state, Kind: queue.ChangeAttempt}})
	}
}

func (w *world) later(d time.Duration) { w.now = w.now.Add(d) }

// expect looks at what was told since it was last asked.
func (w *world) expect(want ...string) {
	w.t.Helper()
	w.Tell(w.t.Context())
	slices.Sort(w.told)
	slices.Sort(want)
	if !slices.Equal(w.told, want) {
		w.t.Errorf("told %q, want %q", w.told, want)
	}
	w.told = nil
}

func TestFailuresAreToldOnceAnHourAndTheirEndOnce(t *testing.T) {
	w := newWorld(t)
	w.happens(backend, delivery.Success, 3)
	w.expect()
	w.happens(backend, delivery.Failed, 1)
	w.expect("delivery.failed x.backend 0")
	w.happens(backend, delivery.Failed, 3)
	w.expect()
	w.happens(backend, delivery.Failed, 1)
	w.expect("webhook.failing x.backend 0")
	w.happens(backend, delivery.Failed, 100)
	w.expect()
	w.happens(alerts, delivery.Failed, 1)
	w.expect("delivery.failed x.alerts 0")
	w.later(time.Hour)
	w.expect("delivery.failed x.backend 103")
	w.happens(backend, delivery.Success, 1)
	w.expect("webhook.recovered x.backend 0")
	w.later(3 * time.Hour)
	w.expect()
}

func TestAWebhookFailsWhenNoAttemptSucceedsForTenMinutes(t *testing.T) {
	w := newWorld(t)
	w.happens(backend, delivery.Pending, 2)
	w.later(FailingAfter)
	w.expect() // two attempts are too few
	w.happens(backend, delivery.Pending, 1)
	w.expect("webhook.failing x.backend 0")
	w.happens(backend, delivery.Success, 1)
	w.expect("webhook.recovered x.backend 0")

	w.happens(alerts, delivery.Pending, 4)
	w.expect()
	w.later(FailingAfter - time.Minute)
	w.happens(alerts, delivery.Success, 1)
	w.later(time.Hour)
	w.expect()
}

// A webhook that comes and goes is told of once an hour, and in the end what holds.
func TestFlappingEndsWithWhatHolds(t *testing.T) {
	w := newWorld(t)
	w.Set(Targets{Webhooks: map[queue.Lane]string{backend: "x.backend"}, Told: [kinds]queue.Lane{onFailing, onRecovered, 0}})
	w.happens(backend, delivery.Failed, FailedInARow)
	w.expect("webhook.failing x.backend 0")
	w.happens(backend, delivery.Success, 1)
	w.expect("webhook.recovered x.backend 0")
	for range 10 {
		w.happens(backend, delivery.Failed, FailedInARow)
		w.expect()
		w.happens(backend, delivery.Success, 1)
		w.expect()
	}
	w.happens(backend, delivery.Failed, FailedInARow)
	w.expect()
	w.later(time.Hour)
	w.expect("webhook.failing x.backend 0")
}

func TestWhatTheQueueDoesNotTakeIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.fail = errors.New("no space")
	w.happens(backend, delivery.Failed, FailedInARow)
	w.expect()
	w.fail = nil
	w.expect("delivery.failed x.backend 4", "webhook.failing x.backend 0")
	w.expect()
}

func TestACrashBeforeANoticeIsMadeUpForAtTheStart(t *testing.T) {
	w := newWorld(t)
	w.happens(backend, delivery.Failed, FailedInARow) // and nothing is told
	w.start()
	w.expect("delivery.failed x.backend 0", "webhook.failing x.backend 0")
	w.start() // told already: nothing again
	w.expect()
	w.later(2 * time.Hour)
	w.start()
	w.expect()
	w.happens(backend, delivery.Success, 1) // a crash before that is told
	w.later(time.Minute)
	w.start()
	w.expect("webhook.recovered x.backend 0")
	w.start()
	w.expect()
}

func TestAStartTellsNothingOfWhatIsLongAgoOrWasDropped(t *testing.T) {
	w := newWorld(t)
	w.happens(backend, delivery.Failed, FailedInARow)
	for i := range w.rows[backend] {
		w.rows[backend][i].Code = delivery.CodeDropped
	}
	w.happens(alerts, delivery.Failed, FailedInARow)
	w.later(25 * time.Hour)
	w.start()
	w.expect()
}

// The webhooks that are told are not watched, so that a dead one makes nothing grow.
func TestNothingIsToldOfTheWebhooksThatAreTold(t *testing.T) {
	w := newWorld(t)
	for _, lane := range []queue.Lane{onFailing, onRecovered, onDelivery} {
		w.happens(lane, delivery.Failed, 2*FailedInARow)
	}
	w.expect()
	w.later(2 * time.Hour)
	w.expect()
}

func TestWithoutAnybodyToTellNothingIsKept(t *testing.T) {
	w := newWorld(t)
	w.Set(Targets{Webhooks: map[queue.Lane]string{backend: "x.backend"}})
	w.happens(backend, delivery.Failed, 10)
	if len(w.tracks) != 0 {
		t.Errorf("%d tracks", len(w.tracks))
	}
	w.expect()
}
