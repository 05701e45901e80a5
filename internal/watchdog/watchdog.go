package watchdog

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Part is one thing that has to go round.
type Part struct {
	Name string // as the log and the status name it, such as "queue"
	// Turn returns when the part went round after the call: nil, or why it will not any
	// more. It may tell at what it waits for. It is never called again before it has
	// returned; ctx ends with Run. A part that is not there yet, or in a state that is
	// known and told elsewhere (a full disk, a stop), returns nil.
	Turn func(ctx context.Context, at func(what string)) error
	// Storage says how far the part depends on the disk.
	Storage Storage
}

// Storage is what a part that does not go round is excused by.
type Storage uint8

const (
	// Unexcused: whatever the disk does, the part goes round.
	Unexcused Storage = iota
	// Stuck: a thread of the process is inside the kernel and cannot be interrupted.
	Stuck
	// Slow: that, or for ten minutes that bytes go to or come from a disk.
	Slow
)

// slowLimit is how long storage that moves may keep a part from going round.
const slowLimit = 10 * time.Minute

// Options configure [Run]. All but Logger are required.
type Options struct {
	Limit  time.Duration // of the service manager (WATCHDOG_USEC): it restarts after so long without word
	Parts  []Part
	Notify func(state string) // sd_notify(3)
	// Status says in words what is wrong; "" that nothing is any more.
	Status func(text string)
	Logger *slog.Logger

	storage storage // tests; nil = of this process
}

// Run feeds the watchdog until ctx ends: at once, and then in every half of the limit,
// when all parts have gone round. A part has a quarter of the limit to do so before it is
// called hung, which leaves a quarter to tell.
func Run(ctx context.Context, o Options) {
	if o.storage == nil {
		o.storage = process{}
	}
	w := &dog{Options: o, answers: make(chan answer, len(o.Parts)), told: map[string]string{}}
	for i := range o.Parts {
		w.parts = append(w.parts, &state{Part: &o.Parts[i]})
	}
	tick := time.NewTicker(max(o.Limit/2, time.Millisecond))
	defer tick.Stop()
	patience := time.NewTimer(0)
	defer patience.Stop()
	for {
		w.ask(ctx)
		patience.Reset(o.Limit / 4)
		for asked := true; asked; {
			select {
			case a := <-w.answers:
				w.take(a)
				w.judge(false)
			case <-patience.C:
				w.judge(true)
			case <-tick.C:
				asked = false
			case <-ctx.Done():
				return
			}
		}
	}
}

// dog is the state of Run.
type dog struct {
	Options
	parts   []*state
	answers chan answer
	fed     bool              // in this round
	told    map[string]string // what is wrong, by part, as it was logged
	status  string
}

type answer struct {
	of  *state
	err error
}

// state is a part and its present turn.
type state struct {
	*Part
	asked    time.Time // when the turn began; zero = it is over
	err      error     // of the last turn that is over
	before   Activity  // of the storage when it began
	slowFrom time.Time // since when slow storage excuses it

	mu sync.Mutex
	at string // what the turn waits for
}

func (s *state) waits(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = what
}

func (s *state) waitsFor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// ask begins a turn of each part that has none under way.
func (w *dog) ask(ctx context.Context) {
	w.fed = false
	for _, s := range w.parts {
		if !s.asked.IsZero() {
			s.before = w.storage.look() // for the excuse of this round
			continue
		}
		s.asked, s.before = time.Now(), w.storage.look()
		s.waits("")
		go func() { w.answers <- answer{s, s.Turn(ctx, s.waits)} }()
	}
}

func (w *dog) take(a answer) {
	a.of.asked, a.of.err = time.Time{}, a.err
	if a.err == nil {
		a.of.slowFrom = time.Time{}
	}
}

// judge feeds when all have gone round. late says that the time for it is over: then
// what is still under way is excused, or hangs.
func (w *dog) judge(late bool) {
	wrong := map[string]string{}
	healthy, open := true, false
	for _, s := range w.parts {
		switch {
		case s.asked.IsZero() && s.err == nil:
		case s.asked.IsZero():
			wrong[s.Name], healthy = s.err.Error(), false
		case !late:
			open = true
		default:
			text, excused := w.excuse(s)
			wrong[s.Name] = text
			healthy = healthy && excused
		}
	}
	if open && healthy {
		return // it has time
	}
	w.tell(wrong, healthy, late)
	if healthy && !w.fed {
		w.fed = true
		w.Notify("WATCHDOG=1")
	}
}

// excuse says what a part that is late waits for, and whether a restart would be of no use.
func (w *dog) excuse(s *state) (text string, excused bool) {
	took := time.Since(s.asked).Round(time.Second)
	what := "it has not gone round"
	if at := s.waitsFor(); at != "" {
		what = at + " has not gone round"
	}
	now := w.storage.look()
	switch {
	case s.Storage == Unexcused:
	case now.stuckSince(s.before):
		return fmt.Sprintf("%s for %v: the storage does not answer; a restart would not help", what, took), true
	case s.Storage == Slow && now.moved(s.before):
		if s.slowFrom.IsZero() {
			s.slowFrom = s.asked
		}
		if time.Since(s.slowFrom) < slowLimit {
			return fmt.Sprintf("%s for %v: the storage is slow", what, took), true
		}
	}
	return fmt.Sprintf("%s for %v", what, took), false
}

// tell logs what has changed, a hang in every round, and says all of it to the service
// manager.
func (w *dog) tell(wrong map[string]string, healthy, late bool) {
	var all []string
	for _, s := range w.parts {
		text, is := wrong[s.Name]
		_, was := w.told[s.Name]
		switch {
		case is && healthy && !was:
			w.Logger.Warn("the daemon waits for its storage", "part", s.Name, "why", text)
		case is && !healthy && (late || !was):
			w.Logger.Error("the daemon hangs; the watchdog is not fed", "part", s.Name, "why", text, "restart_after", w.Limit.String())
		case was && !is:
			w.Logger.Info("goes round again", "part", s.Name)
		}
		if is {
			all = append(all, s.Name+": "+text)
		}
	}
	w.told = wrong
	status := strings.Join(all, "; ")
	if status != "" && !healthy {
		status = "hangs: " + status
	}
	if status != w.status {
		w.status = status
		w.Status(status)
	}
}
