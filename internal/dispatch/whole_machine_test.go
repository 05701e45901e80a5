package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

// move is one thing that happens to a running queue and dispatcher.
type move struct {
	Do   string
	Lane int // 1 to 3
	N    int
}

var moves = rapid.Custom(func(t *rapid.T) move {
	return move{
		Do: rapid.SampledFrom([]string{"accept", "accept", "accept", "accept", "keyed", "keyed", "sleep", "sleep", "sleep", "later", "mood", "mood", "mood",
			"leave", "return", "return", "elsewhere", "disable", "enable", "release", "limits", "retry", "retry", "drop", "drop lane", "replay", "cancel",
			"full", "quota", "room", "retention", "days", "read", "check", "restart", "crash", "crash", "crash in a commit"}).Draw(t, "do"),
		Lane: rapid.IntRange(1, 3).Draw(t, "lane"),
		N:    rapid.IntRange(0, 40).Draw(t, "n"),
	}
})

// plan is a webhook in the configuration.
type plan struct {
	there, enabled bool
	host           string
	concurrency    int
	left           time.Time
}

// keyed is an event that was acknowledged under an idempotency key.
type keyed struct {
	number     int
	seq        uint64
	id         string
	deliveries []queue.NewDelivery
	at         time.Time
}

// life is one process: what is in memory of it ends with a crash.
type life struct {
	w     *whole
	dir   string
	store *queue.Store
	d     *Dispatcher
	recv  *receiver
	dead  atomic.Bool // crashed: nobody sees what it still does
}

// whole is a real queue and a real dispatcher with a book beside them, over many
// lives.
type whole struct {
	*book
	t      *testing.T
	root   string
	lives  int
	life   *life
	lanes  map[int]queue.Lane
	plans  map[int]*plan
	keys   map[string]*keyed
	held   map[int]bool // returned: held until it is released
	limits queue.Limits
	number int
	plant  string // a bug, by name
	old    string // plant: a copy of the store that is older than it ought to be

	rmu   sync.Mutex
	rng   *rand.Rand
	moods map[string]delivery.Outcome

	crashing  string         // where the store is copied to with the next commit
	removedBy map[place]bool // an operator's drops
	dropping  queue.Lane     // an operator drops the whole lane
	stats     tally
}

// tally is what the histories of a test came to.
type tally struct{ histories, acked, attempts, crashes, restarts, refused, repeats int }

func (t *tally) add(o tally) {
	t.histories++
	t.acked += o.acked
	t.attempts += o.attempts
	t.crashes += o.crashes
	t.restarts += o.restarts
	t.refused += o.refused
	t.repeats += o.repeats
}

// wholeKeep is short, so that webhooks that left expire within a history.
const wholeKeep = 3 * time.Hour

func (w *whole) random(n int) int {
	w.rmu.Lock()
	defer w.rmu.Unlock()
	return w.rng.IntN(n)
}

// with changes what [whole.justified] reads.
func (w *whole) with(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func name(n int) string { return fmt.Sprintf("test.w%d", n) }

// open begins a life on what is in dir.
func (w *whole) open(dir string) {
	l := &life{w: w, dir: dir, recv: newReceiver(w.fail)}
	var d atomic.Pointer[Dispatcher]
	store, err := queue.Open(context.Background(), queue.Options{Dir: dir, MinFree: 1, MaxBytes: w.limits.MaxBytes, Retention: w.limits.Retention, RemovedKeep: wholeKeep,
		OnReady: func(ds []queue.Delivery) {
			if !l.dead.Load() {
				w.offered(ds)
			}
			if d := d.Load(); d != nil {
				d.Offer(ds)
			}
		},
		OnChange: func(cs []queue.Change) {
			l.changed(cs)
			if d := d.Load(); d != nil {
				d.Changed(cs)
			}
		},
		OnTurn: func(ts []queue.Turn) {
			if d := d.Load(); d != nil {
				d.Turned(ts)
			}
		},
		Busy:    func(lane queue.Lane, seq uint64) bool { d := d.Load(); return d != nil && d.Busy(lane, seq) },
		OnFatal: func(err error) { w.fail("storage error: %v", err) },
	})
	if err != nil {
		w.t.Fatalf("open the store of life %d: %v", w.lives, err)
	}
	l.store = store
	w.mu.Lock()
	w.book.store = store
	w.mu.Unlock()
	w.life = l
	w.limits.MinFree = 1
	number := store.StoreID()
	if w.plant == "other ids" {
		number++
	}
	l.d = New(Options{Store: w.planted(store), StoreID: number, ringSize: 4, RingBytes: 600})
	d.Store(l.d)
	w.configure()
	l.d.Start()
}

// changed is OnChange. A crash in a commit is here: the events are durable, and their
// sender has no answer.
func (l *life) changed(cs []queue.Change) {
	if l.dead.Load() {
		return
	}
	w := l.w
	w.happened(cs)
	accepted := slices.ContainsFunc(cs, func(c queue.Change) bool { return c.Kind == queue.ChangeAccepted })
	if to := w.crashing; to != "" && accepted {
		w.crashing = ""
		l.dead.Store(true)
		if err := copyStore(to, l.dir); err != nil {
			w.fail("%v", err)
		}
	}
}

// configure makes the plans the configuration, as the daemon does it.
func (w *whole) configure() {
	var want []queue.LaneWant
	for _, n := range slices.Sorted(maps.Keys(w.plans)) {
		if p := w.plans[n]; p.there {
			want = append(want, queue.LaneWant{Webhook: name(n), Identity: queue.LaneIdentity{Sink: "http", Host: p.host}})
		}
	}
	infos, err := w.life.store.SetLanes(context.Background(), want)
	if err != nil {
		w.fail("set lanes: %v", err)
		return
	}
	for n := range w.plans {
		info, there := infos[name(n)]
		if there && w.lanes[n] != 0 && w.lanes[n] != info.Lane {
			w.fail("%s was lane %d and is %d", name(n), w.lanes[n], info.Lane)
		}
		if there {
			w.with(func() { w.lanes[n] = info.Lane })
		}
		w.held[n] = info.Returned
	}
	w.apply()
}

func (w *whole) apply() {
	var ts []*Target
	w.number++
	for _, n := range slices.Sorted(maps.Keys(w.plans)) {
		p := w.plans[n]
		if !p.there {
			continue
		}
		t := &Target{Webhook: name(n), Lane: w.lanes[n], Concurrency: p.concurrency, Ordered: n == 1, Sink: w.sink(n), Generation: uint64(w.number),
			Policy: retry.Policy{Schedule: w.schedule, Timeout: time.Minute}}
		switch {
		case !p.enabled:
			t.Hold = delivery.HoldDisabled
		case w.held[n]:
			t.Hold = delivery.HoldReturned
		}
		ts = append(ts, t)
	}
	w.life.d.Apply(ts)
}

// sink is a plain one, or one that takes several at once.
func (w *whole) sink(n int) Sink {
	l := w.life
	if w.random(2) == 0 {
		return l.recv.sink(name(n), l.answer(true))
	}
	return l.recv.many(name(n), Limits{Batch: w.random(5), Linger: time.Duration(w.random(20)) * time.Millisecond, Concurrency: w.random(3)}, l.answer(false))
}

// answer is a receiver that does what its mood says, or now and then accepts.
func (l *life) answer(panics bool) answer {
	return func(ctx context.Context, o *delivery.Outbound, out *delivery.Attempt) {
		w := l.w
		if l.dead.Load() {
			out.Outcome = delivery.Interrupted
			return
		}
		at, a := w.begins(o)
		w.rmu.Lock()
		mood, pause := w.moods[o.Webhook], time.Duration(1+w.rng.IntN(20))*time.Millisecond
		if mood == 0 || w.rng.IntN(4) == 0 {
			mood = delivery.Delivered
		}
		bang := panics && w.rng.IntN(40) == 0
		w.rmu.Unlock()
		select {
		case <-time.After(pause):
			out.Outcome = mood
		case <-ctx.Done():
			out.Outcome = delivery.Interrupted
		}
		if mood == delivery.Retry && at.seq%3 == 0 {
			out.Status, out.Code, out.RetryAfter = 503, delivery.CodeStatus, 5*time.Second
		}
		if mood == delivery.RateLimited {
			out.RetryAfter = 2 * time.Second
		}
		if bang = bang && out.Outcome != delivery.Interrupted; bang {
			out.Outcome, out.Status, out.RetryAfter = delivery.Retry, 0, 0
		}
		if !l.dead.Load() && a != nil {
			w.answers(a, out, o.Attempt)
		}
		if bang {
			panic("sink")
		}
	}
}

// still waits until nothing goes on and every outcome handed in is durable.
func (w *whole) still() {
	synctest.Wait()
	_ = w.life.store.CancelReplay(context.Background(), "none") // commits what waits
	synctest.Wait()
}

// check compares all that the store says with the book.
func (w *whole) check(when string) {
	for range 5 {
		w.still()
		w.mu.Lock()
		before := w.version
		w.mu.Unlock()
		err := w.agrees(context.Background(), w.life.store, w.keep())
		w.mu.Lock()
		same := w.version == before
		w.mu.Unlock()
		if same {
			if err != nil {
				w.fail("%s: %w", when, err)
			}
			return
		}
	}
}

// keep is what retention surely leaves. Configure makes it shorter for good.
func (w *whole) keep() kept {
	if w.limits.Retention.Delivered == 0 {
		return kept{30 * 24 * time.Hour, 90 * 24 * time.Hour, 7 * 24 * time.Hour}
	}
	return kept{24 * time.Hour, 48 * time.Hour, 24 * time.Hour}
}

// crash goes on with what the disk has at this moment.
func (w *whole) crash() {
	synctest.Wait()
	w.lives++
	w.stats.crashes++
	to := filepath.Join(w.root, fmt.Sprint(w.lives))
	from := w.life.dir
	if w.old != "" {
		from = w.old
	}
	if err := copyStore(to, from); err != nil {
		w.fail("%v", err)
	}
	w.after(to)
}

// after ends the life that crashed, unseen, and begins the next on a copy.
func (w *whole) after(dir string) {
	w.life.dead.Store(true)
	w.forgets(true)
	w.end(0)
	w.open(dir)
	w.check("after a crash")
}

// end stops dispatch and queue.
func (w *whole) end(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = w.life.d.Stop(ctx)
	if err := w.life.store.Close(context.Background()); err != nil {
		w.fail("close: %v", err)
	}
}

func (w *whole) restart(patience time.Duration) {
	w.stats.restarts++
	w.end(patience)
	w.forgets(false)
	w.open(w.life.dir)
	w.check("after a restart")
}

// copyStore copies what a store has on disk: the journal last, since what it has is
// there until the database has it. Holes stay holes.
func copyStore(to, from string) error {
	var files []string
	err := filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "LOCK" {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(files, func(a, b string) int {
		last := func(p string) int {
			if filepath.Base(p) == "journal" {
				return 1
			}
			return 0
		}
		return last(a) - last(b)
	})
	for _, p := range files {
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if err := copySparse(filepath.Join(to, rel), p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("copy %s: %w", rel, err)
		}
	}
	return nil
}

func copySparse(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // nothing but a hole
		}
		if err != nil {
			return err
		}
		if at, err = unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, data), io.NewSectionReader(in, data, at-data)); err != nil {
			return err
		}
	}
	return out.Truncate(info.Size())
}
