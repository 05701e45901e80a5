package dispatch

import (
	"container/heap"
	"sync"
	"time"
)

// timers wakes lanes at relay times. One goroutine sleeps until the earliest of
// them on the monotonic clock, so that neither a jump of the wall clock nor the
// number of lanes matters to it.
type timers struct {
	mu   sync.Mutex
	heap wakeHeap
	at   map[*lane]*wakeup
	poke chan struct{}
	ask  chan chan<- struct{} // see Dispatcher.Turn
}

type wakeup struct {
	lane  *lane
	at    int64
	index int
}

// maxSleep bounds one sleep of the timers, whatever times they were given.
const maxSleep = time.Hour

func (t *timers) init() {
	t.at = map[*lane]*wakeup{}
	t.poke = make(chan struct{}, 1)
	t.ask = make(chan chan<- struct{})
}

// set arranges for l.wake at a relay time; 0 cancels.
func (t *timers) set(l *lane, at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.at[l]
	switch {
	case w == nil && at == 0:
		return
	case w == nil:
		w = &wakeup{lane: l, at: at}
		t.at[l] = w
		heap.Push(&t.heap, w)
	case at == 0:
		heap.Remove(&t.heap, w.index)
		delete(t.at, l)
		return
	default:
		w.at = at
		heap.Fix(&t.heap, w.index)
	}
	if t.heap[0] == w {
		select {
		case t.poke <- struct{}{}:
		default:
		}
	}
}

// take removes the lanes whose time has come and says how long to sleep for the
// next one.
func (t *timers) take(now int64) (ripe []*lane, sleep time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.heap) > 0 && t.heap[0].at <= now {
		w := heap.Pop(&t.heap).(*wakeup)
		delete(t.at, w.lane)
		ripe = append(ripe, w.lane)
	}
	sleep = maxSleep
	if len(t.heap) > 0 {
		ms := min(t.heap[0].at-now, maxSleep.Milliseconds())
		sleep = time.Duration(ms) * time.Millisecond
	}
	return ripe, sleep
}

// run is the goroutine.
func (t *timers) run(done <-chan struct{}, now func() int64) {
	timer := time.NewTimer(maxSleep)
	defer timer.Stop()
	for {
		ripe, sleep := t.take(now())
		for _, l := range ripe {
			l.wake()
		}
		if len(ripe) > 0 {
			continue
		}
		timer.Reset(sleep)
		select {
		case <-timer.C:
		case <-t.poke:
		case asked := <-t.ask:
			close(asked)
		case <-done:
			return
		}
	}
}

// arm tells the timers when the lane wants to be woken.
func (l *lane) arm() {
	if at := l.wakeAt(); at != l.armed {
		l.armed = at
		l.d.timers.set(l, at)
	}
}

func (l *lane) wakeAt() int64 {
	s := l.slot()
	if s.hold() != "" || l.d.stopping.Load() {
		return 0
	}
	at := l.halt.next()
	if l.closed(s) {
		return at
	}
	if !l.waiting.more {
		at = earlier(at, l.waiting.next)
	}
	if paced := l.pacedUntil(); paced != 0 && l.backlog(s) > 0 {
		at = earlier(at, paced)
	}
	return earlier(at, l.nextStep())
}

// wake is called by the timers when a time that the lane gave has come.
func (l *lane) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = 0
	now := l.d.store.Now()
	l.halt.ripen(now)
	if w := &l.waiting; w.next != 0 && w.next <= now {
		w.more, w.next = true, 0
	}
	l.kick()
	l.arm()
}

// wakeHeap is a container/heap ordered by time.
type wakeHeap []*wakeup

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *wakeHeap) Push(x any) {
	w := x.(*wakeup)
	w.index = len(*h)
	*h = append(*h, w)
}

func (h *wakeHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return w
}
