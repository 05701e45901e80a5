package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// Store is what the dispatcher needs of the durable queue. Its methods may be
// called concurrently. After the store has stopped they answer
// [queue.ErrStopped], and Complete discards.
type Store interface {
	// Now is relay time in ms. It never goes back and never jumps.
	Now() int64

	// ReadReady, ReadWaiting and ReadReturning return the next rows behind a
	// cursor, at least one when there is one; more and next say truly whether
	// the scan came to the end.
	ReadReady(lane queue.Lane, after uint64, limit, maxBytes int) (ds []queue.Delivery, more bool, err error)
	ReadWaiting(lane queue.Lane, afterDue int64, afterSeq uint64, now int64, limit, maxBytes int) (ds []queue.Delivery, next int64, err error)
	ReadReturning(lane queue.Lane, after uint64, limit, maxBytes int) (ds []queue.Delivery, more bool, err error)

	// Complete records an attempt. It may return before that is durable; the
	// store reports the commit through [Dispatcher.Changed].
	Complete(c queue.Completion)
	// CompleteAll is Complete for several, in their order; cs is not kept.
	CompleteAll(cs []queue.Completion)

	// EntryState is what the sink of that name has kept for an entry with its last
	// durable success; nil when there is nothing.
	EntryState(lane queue.Lane, sink, entryID string) ([]byte, error)

	// Lines reports whether any delivery may be Blocked; it is as cheap as Now.
	Lines() bool
	// Blocked reports whether a ready delivery must wait for one of its entry that
	// is pending and not in memory.
	Blocked(lane queue.Lane, entry string, seq uint64) (bool, error)
	// Park takes ready deliveries out of the way until the store calls them, see
	// [Dispatcher.Turned]. It is durable on return; n is how many of them it did.
	// What has nothing to wait for it calls at once, and returns.
	Park(ctx context.Context, ps []queue.Parking) (turns []queue.Turn, n int, err error)
	// ReleaseFollowers calls some of what was parked, in no order.
	ReleaseFollowers(ctx context.Context, q *queue.Release) (more bool, err error)

	// Requeue and Drop are durable on return. The caller guarantees that the
	// delivery is not in flight.
	Requeue(ctx context.Context, lane queue.Lane, seq uint64) (queue.Delivery, error)
	Drop(ctx context.Context, lane queue.Lane, seq uint64) error

	// DropPending ends some pending deliveries of a lane, but none that q.Skip
	// names, and moves q on. It is durable on return. It calls Skip while it holds
	// locks of its own.
	DropPending(ctx context.Context, q *queue.PendingDrop, limit int) (n int, more bool, err error)

	CreateReplay(ctx context.Context, job queue.ReplayJob) (queue.ReplayJob, error)
	Replays() []queue.ReplayJob
	// StepReplay moves up to limit finished deliveries to the Returning track
	// and advances the job's durable cursor, both in one transaction.
	StepReplay(ctx context.Context, id string, limit int) (ds []queue.Delivery, done bool, err error)
	CancelReplay(ctx context.Context, id string) error
}

// ErrInFlight answers an operation on a delivery that is being attempted at
// this moment.
var ErrInFlight = errors.New("delivery is in flight")

// ErrUnknownWebhook answers an operation that needs a running webhook.
var ErrUnknownWebhook = errors.New("webhook is not running")

const (
	// ringSize is how many deliveries of each kind a lane keeps in memory.
	ringSize = 512
	// defaultRingBytes bounds the payloads in all rings together.
	defaultRingBytes = 32 << 20
)

// Options configure a [Dispatcher].
type Options struct {
	Store     Store
	StoreID   uint64       // forms the delivery ids
	Logger    *slog.Logger // nil discards
	RingBytes int64        // payload bytes that all lanes together keep in memory; 0 = 32 MiB

	// Observe, if set, is told of each attempt that is over, by the goroutine that made
	// it: the Target.SinkName, and how long ago by the wall clock the event was accepted,
	// which is less than 0 for a delivery that an operator brought back. It must
	// not block, nor keep the attempt. Tests of a webhook are no attempts.
	Observe func(sink string, a *delivery.Attempt, since time.Duration)

	ringSize int // tests: other than 512
}

// Dispatcher attempts what is pending. All methods may be called concurrently.
type Dispatcher struct {
	store     Store
	storeID   uint64
	log       *slog.Logger
	observe   func(sink string, a *delivery.Attempt, since time.Duration)
	ringSize  int
	ringBytes int64

	held   atomic.Int64 // payload bytes in rings
	table  atomic.Pointer[table]
	pause  atomic.Pointer[delivery.HoldReason]
	timers timers

	applying sync.Mutex // serialises what creates lanes or gives them jobs

	base   context.Context // of every attempt
	cancel context.CancelCauseFunc

	life     sync.Mutex // guards the transition to stopping against new goroutines
	started  atomic.Bool
	stopping atomic.Bool
	dead     atomic.Bool // the store has stopped
	next     chan func() // to a goroutine that lingers
	done     chan struct{}
	wg       sync.WaitGroup
}

// New returns a dispatcher without lanes. It makes no attempt before Start.
func New(o Options) *Dispatcher {
	d := &Dispatcher{store: o.Store, storeID: o.StoreID, log: o.Logger, ringSize: o.ringSize,
		ringBytes: o.RingBytes, next: make(chan func()), done: make(chan struct{})}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.observe = o.Observe; d.observe == nil {
		d.observe = func(string, *delivery.Attempt, time.Duration) {}
	}
	if d.ringSize == 0 {
		d.ringSize = ringSize
	}
	if d.ringBytes <= 0 {
		d.ringBytes = defaultRingBytes
	}
	d.table.Store(&table{})
	d.timers.init()
	d.base, d.cancel = context.WithCancelCause(context.Background())
	return d
}

// Start begins to attempt what is pending on the lanes that Apply made. It is
// called once.
func (d *Dispatcher) Start() {
	if !d.spawn(func() { d.timers.run(d.done, d.store.Now) }) {
		return
	}
	d.started.Store(true)
	d.rouse()
}

// Stop ends claiming at once and waits for the attempts in flight. When ctx
// ends first it interrupts them with [delivery.ErrShutdown], waits for them all
// the same, and says so in its error; the interrupted deliveries stay pending
// and no attempt is counted. At the end all sinks are closed.
func (d *Dispatcher) Stop(ctx context.Context) error {
	d.life.Lock()
	first := !d.stopping.Swap(true)
	d.life.Unlock()
	if first {
		close(d.done)
	}
	finished := make(chan struct{})
	go func() {
		d.wg.Wait()
		close(finished)
	}()
	var err error
	select {
	case <-finished:
	case <-ctx.Done():
		err = fmt.Errorf("stop deliveries: attempts were interrupted: %w", context.Cause(ctx))
		d.cancel(delivery.ErrShutdown)
		<-finished
	}
	d.cancel(delivery.ErrShutdown)
	if first {
		d.applying.Lock()
		defer d.applying.Unlock()
		for _, s := range d.table.Load().slots {
			s.use.release()
		}
	}
	return err
}

// Offer hands new deliveries to their lanes, in the order of their commit. It
// is [queue.Options].OnReady: it does not block and does not call the store.
func (d *Dispatcher) Offer(ds []queue.Delivery) {
	lanes := d.table.Load().lanes
	for i := range ds {
		if l := lanes[ds[i].Lane]; l != nil {
			l.offer(&ds[i])
		}
	}
}

// Changed tells the lanes which completions have been committed. It is called
// from [queue.Options].OnChange, after every commit and in the order of
// commits; it does not block. Without it no lane could tell a stale row from
// one that came back.
func (d *Dispatcher) Changed(cs []queue.Change) {
	lanes := d.table.Load().lanes
	for i := range cs {
		if cs[i].Kind != queue.ChangeAttempt {
			continue
		}
		if l := lanes[cs[i].Lane]; l != nil {
			l.settled(&cs[i])
		}
	}
}

// Pause stops claiming on all lanes, for a reason that listings show. What is
// in flight goes on.
func (d *Dispatcher) Pause(reason delivery.HoldReason) { d.pause.Store(&reason) }

// Resume ends a Pause.
func (d *Dispatcher) Resume() {
	d.pause.Store(nil)
	d.rouse()
}

// Apply makes targets what runs: from one instant on, every new attempt of
// every lane sees its new target. Lanes that are missing from targets are held
// as removed. A sink that no target uses any more is closed after its last
// attempt; the same Sink in an old and a new target stays open. Sinks must be
// comparable values, such as pointers.
func (d *Dispatcher) Apply(targets []*Target) {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.stopping.Load() {
		return
	}
	old := d.table.Load()
	next := old.with(d, targets)
	d.adoptReplays(old, next)
	d.table.Store(next)
	failpoint.Here("reload.lanes")
	for num, l := range next.lanes {
		l.switched(old.slots[num], next.slots[num])
	}
	// Every claim that saw the old table has counted itself on its sink by now,
	// since it did so under the lock of its lane.
	failpoint.Here("reload.lanes-told")
	for _, s := range old.slots {
		s.use.release()
	}
}

// rouse lets every lane see whether there is something to do.
func (d *Dispatcher) rouse() {
	lanes := d.table.Load().lanes
	for _, num := range slices.Sorted(maps.Keys(lanes)) {
		l := lanes[num]
		l.mu.Lock()
		l.kick()
		l.arm()
		l.mu.Unlock()
	}
}

// spawn runs f in a goroutine that Stop waits for; false when stopping.
func (d *Dispatcher) spawn(f func()) bool {
	d.life.Lock()
	defer d.life.Unlock()
	if d.stopping.Load() {
		return false
	}
	select {
	case d.next <- f: // somebody lingers
	default:
		d.wg.Go(func() { d.linger(f) })
	}
	return true
}

// lingerTime is how long a goroutine waits for more work after its own.
const lingerTime = time.Second

// linger runs f and then what comes within lingerTime. An attempt needs a stack
// four times as large as that of a new goroutine; growing it for each delivery
// of a busy lane costs 4 to 5 % of the daemon's processor time.
func (d *Dispatcher) linger(f func()) {
	idle := time.NewTimer(lingerTime)
	defer idle.Stop()
	for {
		f()
		idle.Reset(lingerTime)
		select {
		case f = <-d.next:
		case <-idle.C:
			return
		case <-d.done:
			return
		}
	}
}

// running reports whether anything may be claimed at all.
func (d *Dispatcher) running() bool {
	return d.started.Load() && !d.stopping.Load() && !d.dead.Load() && d.pause.Load() == nil
}

// room is how many bytes one scan may bring into memory. A lane gets a little
// even when the others have used up the budget: it must not wait for them.
func (d *Dispatcher) room() int {
	free := min(d.ringBytes-d.held.Load(), d.ringBytes/4)
	return int(max(free, minFill))
}

func (d *Dispatcher) wall(relay int64) time.Time {
	return time.Now().Add(time.Duration(relay-d.store.Now()) * time.Millisecond)
}
