package overhead

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/dispatch"
	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

const (
	legTime = 5 * time.Minute // a leg takes seconds
	senders = 16              // with Options.Flow: as many as the other benchmarks have
	group   = 100             // events in one call of Accept beforehand
)

// leg is one side's share of a round.
type leg struct {
	perSecond   float64
	cpu, plugin time.Duration // processor time of this process, of the plugin's
}

var errMiscounted = errors.New("the deliveries do not add up")

// site is one queue with its dispatcher.
type site struct {
	l     *lab
	store *queue.Store
	d     *dispatch.Dispatcher
	lanes map[string]queue.LaneInfo
	sinks []counted

	mu      sync.Mutex // guards the rest
	success int        // deliveries whose success is on the disk
	other   int        // attempts on the disk that were none
	fatal   error
	last    time.Time
	all     chan struct{} // closed when all have succeeded, or nothing more will
	over    bool
}

// leg delivers everything once.
func (l *lab) leg(ctx context.Context, sink func(context.Context, int) (counted, error)) (g leg, err error) {
	ctx, cancel := context.WithTimeout(ctx, legTime)
	defer cancel()
	s, err := l.open(ctx, sink)
	if err != nil {
		return g, err
	}
	g, err = s.deliver(ctx)
	err = errors.Join(err, s.close())
	if err != nil {
		return g, err
	}
	return g, s.check(ctx)
}

// open makes an empty queue, and a sink for each webhook.
func (l *lab) open(ctx context.Context, sink func(context.Context, int) (counted, error)) (s *site, err error) {
	s = &site{l: l, all: make(chan struct{})}
	dir := filepath.Join(l.dir, "queue")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	s.store, err = queue.Open(ctx, queue.Options{Dir: dir, MinFree: 1, Logger: l.o.Logger,
		OnReady:  func(ds []queue.Delivery) { s.each(func(d *dispatch.Dispatcher) { d.Offer(ds) }) },
		OnTurn:   func(ts []queue.Turn) { s.each(func(d *dispatch.Dispatcher) { d.Turned(ts) }) },
		OnChange: s.changed,
		OnFatal:  s.broken,
		Busy: func(lane queue.Lane, seq uint64) bool {
			d := l.running.Load()
			return d != nil && d.Busy(lane, seq)
		},
	})
	if err != nil {
		return nil, err
	}
	var want []queue.LaneWant
	for n := range l.o.Webhooks {
		want = append(want, queue.LaneWant{Webhook: webhook(n), Identity: queue.LaneIdentity{Sink: l.file.Sink}})
		k, err := sink(ctx, n)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.sinks = append(s.sinks, k)
	}
	if s.lanes, err = s.store.SetLanes(ctx, want); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) each(tell func(d *dispatch.Dispatcher)) {
	if d := s.l.running.Load(); d != nil {
		tell(d)
	}
}

// changed counts what is on the disk.
func (s *site) changed(cs []queue.Change) {
	s.each(func(d *dispatch.Dispatcher) { d.Changed(cs) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range cs {
		switch {
		case c.State == delivery.Success:
			s.success++
		case c.Kind != queue.ChangeAccepted:
			s.other++
		}
	}
	if s.success+s.other >= s.l.perLeg() {
		s.end()
	}
}

func (s *site) broken(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fatal = err
	s.end()
}

// end says that nothing more is waited for. The caller holds mu.
func (s *site) end() {
	if !s.over {
		s.over, s.last = true, time.Now()
		close(s.all)
	}
}

// deliver accepts and delivers everything, and measures.
func (s *site) deliver(ctx context.Context) (g leg, err error) {
	d := dispatch.New(dispatch.Options{Store: s.store, StoreID: s.store.StoreID(), Logger: s.l.o.Logger})
	s.d = d
	events, flow := s.l.events(), s.l.o.Flow
	if !flow {
		for from := 0; from < events; from += group {
			if err := s.accept(ctx, from, min(from+group, events)); err != nil {
				return g, err
			}
		}
	}
	s.l.running.Store(d)
	d.Apply(s.targets())
	runtime.GC() // what was made so far is not this leg's
	before, err := s.l.usage()
	if err != nil {
		return g, err
	}
	began := time.Now()
	d.Start()
	if flow {
		if err := s.flow(ctx, events); err != nil {
			return g, err
		}
	}
	select {
	case <-s.all:
	case <-ctx.Done():
		return g, errors.Join(s.counted(), ctx.Err())
	}
	after, err := s.l.usage()
	if err != nil {
		return g, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.perSecond = float64(s.l.perLeg()) / s.last.Sub(began).Seconds()
	g.cpu, g.plugin = after.cpu-before.cpu, after.plugin-before.plugin
	return g, s.fatal
}

func (s *site) targets() (out []*dispatch.Target) {
	for n, k := range s.sinks {
		out = append(out, &dispatch.Target{Webhook: webhook(n), Lane: s.lanes[webhook(n)].Lane, Sink: k,
			Policy: retry.Policy{Timeout: dispatch.DefaultTimeout}, Concurrency: s.l.o.Concurrency, Generation: 1})
	}
	return out
}

// flow lets senders hand in one event after the other, each waiting for its answer.
func (s *site) flow(ctx context.Context, events int) error {
	errs := make([]error, senders)
	var wg sync.WaitGroup
	for n := range senders {
		wg.Go(func() {
			for e := n; e < events && errs[n] == nil; e += senders {
				errs[n] = s.accept(ctx, e, e+1)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// accept makes some events durable.
func (s *site) accept(ctx context.Context, from, to int) error {
	now := time.Now()
	evs := make([]*queue.Event, to-from)
	for n := range evs {
		e := &queue.Event{Helper: "bench", Type: event.Created, EntryID: "entry-" + strconv.Itoa(from+n), Timestamp: now}
		e.Payloads[queue.FormatPeanuts] = s.l.o.Payload(from + n)
		for _, lane := range s.lanes {
			e.Deliveries = append(e.Deliveries, queue.NewDelivery{Lane: lane.Lane, Format: queue.FormatPeanuts})
		}
		evs[n] = e
	}
	err := s.store.Accept(ctx, evs)
	for _, e := range evs {
		err = errors.Join(err, e.Err)
	}
	return err
}

// close ends everything; the sinks are closed with the dispatcher.
func (s *site) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	if s.d != nil {
		err = s.d.Stop(ctx)
		s.l.running.Store(nil)
	} else {
		for _, k := range s.sinks {
			k.Close()
		}
	}
	return errors.Join(err, s.store.Close(ctx))
}

// check compares what the store and what each sink counted with what was accepted.
func (s *site) check(ctx context.Context) error {
	if err := s.counted(); err != nil {
		return err
	}
	for n, k := range s.sinks {
		once, again, err := k.counts(ctx)
		if err != nil {
			return err
		}
		if once != int64(s.l.events()) || again != 0 {
			return fmt.Errorf("%w: the sink of %s got %d of %d, and %d again", errMiscounted, webhook(n), once, s.l.events(), again)
		}
	}
	return nil
}

func (s *site) counted() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := s.l.perLeg(); s.success != want || s.other != 0 {
		return fmt.Errorf("%w: %d of %d succeeded, %d attempts did not", errMiscounted, s.success, want, s.other)
	}
	return nil
}

// usage is processor time since the start.
type usage struct{ cpu, plugin time.Duration }

func (l *lab) usage() (u usage, err error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return u, err
	}
	u.cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	for _, s := range l.host.Status() {
		if s.PID == 0 {
			return u, fmt.Errorf("the plugin does not run: %s", s.LastError)
		}
		if u.plugin, err = processTime(s.PID); err != nil {
			return u, err
		}
	}
	return u, nil
}

// processTime reads utime and stime, in ticks of 10 ms: proc(5).
func processTime(pid int) (sum time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	for _, i := range []int{11, 12} {
		ticks, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ticks) * 10 * time.Millisecond
	}
	return sum, nil
}
