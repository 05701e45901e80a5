package relay

import (
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// spaceWatch pauses deliveries while the disk is so full that their outcomes
// might not be recorded: one that cannot be recorded would be repeated for
// ever. It looks only while there are commits, and once a second while paused,
// so that an idle daemon costs nothing. At the same time it looks at the heap.
type spaceWatch struct {
	r      *relay
	active chan struct{} // one slot: something was committed
	quit   chan struct{}
	done   sync.WaitGroup
	once   sync.Once
}

// spaceInterval is how often the disk is looked at; the store itself asks the
// file system no more often.
const spaceInterval = time.Second

func newSpaceWatch(r *relay) *spaceWatch {
	return &spaceWatch{r: r, active: make(chan struct{}, 1), quit: make(chan struct{})}
}

// look is called for every commit; it never blocks.
func (w *spaceWatch) look() {
	select {
	case w.active <- struct{}{}:
	default:
	}
}

func (w *spaceWatch) start() { w.done.Go(w.run) }

func (w *spaceWatch) stop() {
	w.once.Do(func() { close(w.quit) })
	w.done.Wait()
}

func (w *spaceWatch) run() {
	paused, heap := false, newHeapWatch()
	for {
		if !paused {
			select {
			case <-w.active:
			case <-w.quit:
				return
			}
		}
		paused = w.apply(paused)
		heap.look()
		select {
		case <-time.After(spaceInterval):
		case <-w.quit:
			return
		}
	}
}

// apply pauses or resumes the dispatcher and returns whether it is paused.
func (w *spaceWatch) apply(paused bool) bool {
	d, s := w.r.dispatcher.running(), w.r.store.get()
	stats := s.Stats()
	short := stats.PauseDispatch
	switch {
	case short && !paused:
		w.r.log.Error("deliveries pause until there is space to record them", "short_of", stats.Short, "free", stats.DiskFree)
		d.Pause(delivery.HoldStorage)
	case !short && paused:
		w.r.log.Info("deliveries resume")
		d.Resume()
	}
	return short
}
