package dispatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// do is what happens to the whole. Longer than most: it is a list.
func (w *whole) do(s move) {
	ctx := context.Background()
	p := w.plans[s.Lane]
	switch s.Do {
	case "accept":
		w.accept(s, "")
	case "keyed":
		w.accept(s, fmt.Sprintf("key-%d", s.N%2))
	case "sleep":
		time.Sleep(time.Duration(s.N) * time.Millisecond)
	case "later":
		time.Sleep(time.Duration(s.N) * time.Minute / 3)
	case "days":
		time.Sleep(time.Duration(s.N) * time.Hour)
	case "mood":
		w.mood(s.Lane, s.N)
	case "leave":
		if p.there {
			w.with(func() { p.there, p.left = false, time.Now() })
		}
		w.configure()
	case "return", "elsewhere":
		w.with(func() { p.there = true })
		if s.Do == "elsewhere" {
			p.host = fmt.Sprint("host-", s.N%3)
		}
		w.configure()
	case "disable", "enable", "limits":
		p.enabled, p.concurrency = s.Do != "disable", 1+s.N%6
		w.configure()
	case "release":
		w.release(s.Lane)
	case "retry", "drop":
		w.operate(s)
	case "drop lane":
		w.with(func() { w.dropping = w.lanes[s.Lane] })
		if _, err := w.life.d.DropLane(ctx, w.dropping); err != nil && !w.noSpace(err) {
			w.fail("drop lane: %v", err)
		}
		w.with(func() { w.dropping = 0 })
	case "replay":
		if _, err := w.life.d.Replay(ctx, queue.ReplayJob{Lane: w.lanes[s.Lane], Rate: float64(s.N%3) * 20}); err != nil {
			w.fail("replay: %v", err)
		}
	case "cancel":
		if jobs := w.life.d.Replays(); len(jobs) > 0 {
			if err := w.life.d.CancelReplay(ctx, jobs[s.N%len(jobs)].ID); err != nil {
				w.fail("cancel: %v", err)
			}
		}
	case "full", "quota", "room", "retention":
		w.limit(s.Do)
	case "read":
		w.read(s)
	case "check":
		w.check("in between")
	case "restart":
		w.restart(time.Duration(s.N/4) * time.Millisecond)
	case "crash":
		w.crash()
	case "crash in a commit":
		w.crashInCommit(s)
	}
}

// mood is what a receiver does from now on.
func (w *whole) mood(lane, n int) {
	outcomes := []delivery.Outcome{delivery.Delivered, delivery.Retry, delivery.Rejected, delivery.Retry, delivery.Crashed, delivery.RateLimited,
		delivery.Misconfigured, delivery.Interrupted, delivery.Skipped}
	w.rmu.Lock()
	defer w.rmu.Unlock()
	w.moods[name(lane)] = outcomes[n%len(outcomes)]
}

func (w *whole) noSpace(err error) bool {
	_, full := errors.AsType[*queue.SpaceError](err)
	return full && w.limits.MinFree > 1
}

// events makes some, each for some of the webhooks, half of them with a payload of
// each format.
func (w *whole) events(s move, key string) (evs []*queue.Event, numbers []int) {
	for i := range 1 + s.N%7 {
		w.mu.Lock()
		n := len(w.sent)
		ev := &queue.Event{Helper: "test", Type: "entry.created", EntryID: fmt.Sprintf("e%d", (s.N+i)%3), Timestamp: time.Now()}
		for f, payload := range []string{fmt.Sprintf(`{"n":%d}`, n), fmt.Sprintf(`{"n":%d,"pad":%q}`, n, strings.Repeat("x", n%50))} {
			ev.Payloads[f] = []byte(payload)
			w.sent[payload] = n
		}
		w.mu.Unlock()
		for lane := 1; lane <= 3; lane++ {
			if (s.N+i)>>(lane-1)&1 == 0 || lane == s.Lane {
				ev.Deliveries = append(ev.Deliveries, queue.NewDelivery{Lane: w.lanes[lane], Format: queue.Format(n % 2)})
			}
		}
		if key != "" && i == 0 {
			ev.IdempotencyKey, ev.BodyHash = key, hash(key)
		}
		evs, numbers = append(evs, ev), append(numbers, n)
	}
	return evs, numbers
}

func hash(text string) (h [16]byte) {
	sum := sha256.Sum256([]byte(text))
	copy(h[:], sum[:])
	return h
}

// accept hands in a batch. Its first event may repeat an earlier one, now and then
// with another body.
func (w *whole) accept(s move, key string) {
	evs, numbers := w.events(s, key)
	first := w.keys[key]
	within := first != nil && time.Since(first.at) < 24*time.Hour
	if first != nil && w.random(6) == 0 {
		evs[0].BodyHash = hash("another body")
	}
	other := first != nil && evs[0].BodyHash != hash(key)
	if err := w.hand(evs); err != nil {
		if !w.noSpace(err) {
			w.fail("accept: %v", err)
		}
		w.stats.refused++
		return
	}
	for i, ev := range evs {
		_, over := errors.AsType[*queue.QuotaError](ev.Err)
		switch {
		case over && w.limits.MaxBytes == 1:
			w.stats.refused++
		case i == 0 && within && other:
			if !errors.Is(ev.Err, queue.ErrKeyReused) {
				w.fail("key %s with another body: %+v", key, ev)
			}
		case ev.Err != nil:
			if i > 0 || !other {
				w.fail("event %d: %v", numbers[i], ev.Err)
			}
		case i == 0 && ev.Duplicate:
			w.stats.repeats++
			if first == nil || ev.Seq != first.seq || ev.ID != first.id || !slices.Equal(ev.Deliveries, first.deliveries) {
				w.fail("the repeat of %+v was answered with %+v", first, ev)
			}
		default:
			if i == 0 && within {
				w.fail("key %s of %v ago was forgotten", key, time.Since(first.at))
			}
			w.acknowledged(numbers[i], ev)
			if i == 0 && key != "" && !other {
				w.keys[key] = &keyed{numbers[i], ev.Seq, ev.ID, slices.Clone(ev.Deliveries), time.Now()}
			}
			if i == 0 && key != "" && other {
				delete(w.keys, key)
			}
		}
	}
}

func (w *whole) hand(evs []*queue.Event) error {
	if w.plant == "acknowledges without storing" && len(w.sent) > 40 {
		for i, ev := range evs {
			ev.Seq = uint64(1000 + i)
		}
		return nil
	}
	return w.life.store.Accept(context.Background(), evs)
}

// crashInCommit crashes when events are durable and their sender has no answer yet;
// with a key it asks again, and must be told what was stored.
func (w *whole) crashInCommit(s move) {
	w.still()
	w.lives++
	w.stats.crashes++
	dir := filepath.Join(w.root, fmt.Sprint(w.lives))
	w.crashing = dir
	key := fmt.Sprintf("lost-%d", w.lives)
	evs, numbers := w.events(s, key)
	err := w.hand(evs)
	if w.crashing != "" || err != nil || evs[0].Err != nil { // refused: nothing was committed
		w.crashing = ""
		w.crash()
		return
	}
	w.after(dir)
	again, _ := w.events(s, key)
	if err := w.hand(again[:1]); err != nil || again[0].Err != nil || !again[0].Duplicate || again[0].Seq != evs[0].Seq {
		w.fail("asked again after a crash: %+v %v, stored was %+v", again[0], err, evs[0])
		return
	}
	w.acknowledged(numbers[0], again[0])
}

func (w *whole) release(n int) {
	if !w.plans[n].there {
		return
	}
	if err := w.life.store.Release(context.Background(), w.lanes[n]); err != nil {
		w.fail("release: %v", err)
	}
	w.held[n] = false
	w.apply()
}

// operate lets an operator do something about a delivery, there or not.
func (w *whole) operate(s move) {
	w.mu.Lock()
	all := slices.SortedFunc(maps.Keys(w.accounts), func(a, b place) int { return int(a.seq)*8 + int(a.lane) - int(b.seq)*8 - int(b.lane) })
	w.mu.Unlock()
	if len(all) == 0 {
		return
	}
	at := all[w.random(len(all))]
	var err error
	if s.Do == "retry" {
		err = w.life.d.Retry(context.Background(), at.lane, at.seq)
	} else {
		w.with(func() { w.removedBy[at] = true })
		err = w.life.d.Drop(context.Background(), at.lane, at.seq)
		w.with(func() { delete(w.removedBy, at) })
	}
	for _, expected := range []error{nil, ErrInFlight, queue.ErrNotFound, queue.ErrDelivered, queue.ErrPayloadExpired} {
		if errors.Is(err, expected) {
			return
		}
	}
	w.fail("%s of %v: %v", s.Do, at, err)
}

// justified reports whether something may end without an attempt. The book is locked.
func (w *whole) justified(at place, code delivery.Code) bool {
	if code != delivery.CodeRemoved {
		return code == delivery.CodeDropped && (w.removedBy[at] || w.dropping == at.lane)
	}
	for n, lane := range w.lanes {
		if p := w.plans[n]; lane == at.lane {
			return !p.there && time.Since(p.left) >= wholeKeep-time.Millisecond
		}
	}
	return false
}

// limit fills the disk, as the store sees it, and frees it; the same with its quota;
// or lets history go sooner.
func (w *whole) limit(what string) {
	switch what {
	case "full":
		w.limits.MinFree = 1 << 60
	case "quota":
		w.limits.MaxBytes = 1
	case "room":
		w.limits.MinFree, w.limits.MaxBytes = 1, 0
	case "retention":
		w.limits.Retention = queue.Retention{Delivered: 24 * time.Hour, Failed: 48 * time.Hour, Payloads: 24 * time.Hour}
	}
	if err := w.life.store.Configure(context.Background(), w.limits); err != nil {
		w.fail("configure: %v", err)
	}
}

// read lists while everything goes on. A page must make sense by itself.
func (w *whole) read(s move) {
	q := queue.ListQuery{Lanes: []queue.Lane{w.lanes[s.Lane]}, Limit: 1 + s.N%5}
	if s.N%2 == 0 {
		q.States = []delivery.State{delivery.Pending, delivery.Failed}
	}
	for range 3 {
		sums, next, err := w.life.store.List(q)
		if err != nil {
			w.fail("list: %v", err)
		}
		w.mu.Lock()
		for _, sum := range sums {
			if a := w.accounts[place{sum.Lane, sum.Seq}]; a == nil || a.entry != sum.EntryID || sum.Lane != q.Lanes[0] ||
				(len(q.States) > 0 && !slices.Contains(q.States, sum.State)) {
				w.wrong("%+v lists %+v, the book has %+v", q, sum, a)
			}
		}
		w.mu.Unlock()
		if q.Cursor = next; next == "" {
			return
		}
	}
}

// finish lets everything succeed: nothing may be left, now or after a restart.
func (w *whole) finish() {
	w.limit("room")
	w.rmu.Lock()
	clear(w.moods)
	w.rmu.Unlock()
	for n, p := range w.plans {
		w.with(func() { p.there = true })
		p.enabled, p.concurrency = true, 3
		w.configure()
		w.release(n)
	}
	time.Sleep(10 * time.Minute)
	for n := range 3 { // nothing else happens that would wake a lane
		w.accept(move{N: 7 * n, Lane: 1}, "")
		time.Sleep(time.Duration(w.random(100)) * time.Millisecond)
	}
	time.Sleep(10 * time.Minute)
	w.check("at the end")
	w.mu.Lock()
	for at, a := range w.accounts {
		if a.state == delivery.Pending || a.answered != nil {
			w.wrong("%v is not finished at the end: %+v", at, *a)
		}
	}
	w.mu.Unlock()
	w.restart(time.Minute)
	w.end(time.Minute)
}

// play lets one history happen in a bubble and returns what went wrong.
func play(t *testing.T, seed uint64, plant string, story []move) (tally, error) {
	root := quickDir(t)
	defer os.RemoveAll(root)
	w := &whole{t: t, root: root, plant: plant, rng: rand.New(rand.NewPCG(seed, 1)), moods: map[string]delivery.Outcome{},
		lanes: map[int]queue.Lane{}, plans: map[int]*plan{}, keys: map[string]*keyed{}, held: map[int]bool{}, removedBy: map[place]bool{}}
	w.book = &book{accounts: map[place]*account{}, sent: map[string]int{}, ordered: map[queue.Lane]bool{1: true}, mayDrop: w.justified,
		schedule: []time.Duration{0, 30 * time.Millisecond, time.Second, time.Minute}}
	for n := 1; n <= 3; n++ {
		w.plans[n] = &plan{there: true, enabled: true, host: "host-0", concurrency: 2}
	}
	synctest.Test(t, func(t *testing.T) {
		for n := 1; n <= 3; n++ {
			w.mood(n, int(seed)/n)
		}
		w.open(filepath.Join(root, "0"))
		for _, s := range story {
			w.do(s)
			if len(w.sent) > 20 {
				w.remember()
			}
			if w.err() != nil {
				break
			}
		}
		if w.err() == nil {
			w.finish()
		} else {
			w.end(0)
		}
	})
	w.stats.acked, w.stats.attempts = w.acked, w.attempts
	return w.stats, w.err()
}

// quickDir is a directory in memory where there is one: these tests are not about
// the disk, and sync it thousands of times.
func quickDir(t *testing.T) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "model"); err == nil {
		return dir
	}
	dir, err := os.MkdirTemp(t.TempDir(), "model")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var stories = rapid.SliceOfN(moves, 5, 60)

// count is what the environment says under a name, else n.
func count(t *testing.T, env string, n int) int {
	t.Helper()
	text := os.Getenv(env)
	if text == "" {
		return n
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return n
}

// histories makes rapid run as many as the environment says, or fewer than elsewhere:
// one opens and closes a store several times.
func histories(t *testing.T) {
	t.Helper()
	given := flag.Lookup("rapid.checks")
	before, n := given.Value.String(), count(t, "DISPATCH_HISTORIES", 0)
	switch {
	case n == 0 && before != given.DefValue:
		return
	case n == 0:
		n = 40
	}
	if err := flag.Set("rapid.checks", strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set("rapid.checks", before) })
}

func TestQueueAndDispatchAgreeWithABookThroughCrashes(t *testing.T) {
	histories(t)
	var sum tally
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64Range(0, 1<<20).Draw(rt, "seed")
		got, err := play(t, seed, "", stories.Draw(rt, "story"))
		sum.add(got)
		if err != nil {
			rt.Fatal(err)
		}
	})
	t.Attr("cases", strconv.Itoa(sum.histories))
	t.Attr("acked", strconv.Itoa(sum.acked))
	t.Attr("lost", "0")
	t.Logf("%+v", sum)
}
