package watch

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// kernel stands in for inotify and stat, so that times can be told exactly.
type kernel struct {
	start time.Time

	mu      sync.Mutex
	openErr error
	addErr  func(dir string) error
	opened  []time.Duration // since start
	sources []*fakeSource
	stamp   uint64
	stamps  int // how often it was asked for
}

type fakeSource struct {
	k        *kernel
	events   chan fsnotify.Event
	errors   chan error
	mu       sync.Mutex
	added    int
	isClosed bool
}

func (k *kernel) open() (source, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened = append(k.opened, time.Since(k.start))
	if k.openErr != nil {
		return nil, k.openErr
	}
	s := &fakeSource{k: k, events: make(chan fsnotify.Event), errors: make(chan error)}
	k.sources = append(k.sources, s)
	return s, nil
}

func (k *kernel) set(openErr error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.openErr = openErr
}

func (k *kernel) look(Paths) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stamps++
	return k.stamp
}

// edit changes a file without an event.
func (k *kernel) edit() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stamp++
}

// last is the source that is open now.
func (k *kernel) last(t *testing.T) *fakeSource {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, s := range k.sources {
		s.mu.Lock()
		closed := s.isClosed
		s.mu.Unlock()
		if closed != (i < len(k.sources)-1) {
			t.Fatalf("source %d of %d: closed is %t", i+1, len(k.sources), closed)
		}
	}
	return k.sources[len(k.sources)-1]
}

func (s *fakeSource) Add(dir string) error {
	if s.k.addErr != nil {
		if err := s.k.addErr(dir); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.added++
	return nil
}

func (s *fakeSource) Watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.added
}

func (s *fakeSource) Events() <-chan fsnotify.Event { return s.events }
func (s *fakeSource) Errors() <-chan error          { return s.errors }

func (s *fakeSource) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed {
		return errors.New("closed twice")
	}
	s.isClosed = true
	return nil
}

// signals receives a watcher's signals and notes when they came.
type signals struct {
	start time.Time
	mu    sync.Mutex
	at    []time.Duration
}

// since returns the times of the signals since the last call.
func (s *signals) since() []time.Duration {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.at
	s.at = nil
	return at
}

// bubble runs a test with a watcher whose first signal has come, on a clock of its own,
// which is at zero then.
func bubble(t *testing.T, o Options, k *kernel, test func(*testing.T, *site, *Watcher, *signals)) {
	t.Helper()
	bubbleAt(t, newSite(t), o, k, test)
}

func bubbleAt(t *testing.T, s *site, o Options, k *kernel, test func(*testing.T, *site, *Watcher, *signals)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k.start = time.Now()
		o.open, o.stamp = k.open, k.look
		w := New(o)
		sig := &signals{start: time.Now()}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-w.Changed():
					sig.mu.Lock()
					sig.at = append(sig.at, time.Since(sig.start))
					sig.mu.Unlock()
				}
			}
		})
		w.Set(s.paths)
		time.Sleep(250 * time.Millisecond)
		want(t, sig, 250*time.Millisecond)
		sig.mu.Lock()
		sig.start = time.Now()
		sig.mu.Unlock()
		test(t, s, w, sig)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		close(stop)
		wg.Wait()
	})
}

func want(t *testing.T, sig *signals, at ...time.Duration) {
	t.Helper()
	if got := sig.since(); !slices.Equal(got, at) {
		t.Errorf("signals at %v, want %v", got, at)
	}
}

func TestASignalComesWhenTheEventsHaveSettled(t *testing.T) {
	k := &kernel{}
	bubble(t, Options{}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		src := k.last(t)
		for range 5 { // truncate, write, write, …, each 200 ms after the last
			src.events <- fsnotify.Event{Name: s.paths.Main, Op: fsnotify.Write}
			time.Sleep(200 * time.Millisecond)
		}
		want(t, sig)
		time.Sleep(time.Second)
		want(t, sig, 4*200*time.Millisecond+250*time.Millisecond)
	})
}

func TestEventsWithoutEndPutTheSignalOffForTwoSeconds(t *testing.T) {
	k := &kernel{}
	bubble(t, Options{}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		src := k.last(t)
		for range 50 {
			src.events <- fsnotify.Event{Name: s.paths.DropIns + "/10-a.yaml", Op: fsnotify.Chmod}
			time.Sleep(90 * time.Millisecond)
		}
		time.Sleep(time.Second)
		// The next burst begins with the first event after a signal, at 2070 and
		// 4140 ms; the last event is at 4410.
		want(t, sig, 2000*time.Millisecond, 4070*time.Millisecond, 4660*time.Millisecond)
	})
}

func TestWithoutEventsItIsTimeToCompareEvery30Seconds(t *testing.T) {
	k := &kernel{}
	bubble(t, Options{}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		time.Sleep(100 * time.Second)
		want(t, sig, 30*time.Second, 60*time.Second, 90*time.Second)
		if k.stamps != 4 { // the first signal, and the three
			t.Errorf("the files were looked at %d times", k.stamps)
		}
		if n := len(k.opened); n != 1 {
			t.Errorf("watching began %d times", n)
		}
	})
}

// TestAChangeWithoutAnEventSettlesToo: on a network file system the check every 30 s must not
// fall into the middle of a write either.
func TestAChangeWithoutAnEventSettlesToo(t *testing.T) {
	k := &kernel{}
	bubble(t, Options{}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		time.Sleep(29_900 * time.Millisecond)
		for range 10 { // at 29.9, 30.0, … 30.8 s
			k.edit()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		// Seen at 30.0, another at 30.25, 30.5, 30.75, 31.0, the same at 31.25.
		want(t, sig, 31_250*time.Millisecond)
		time.Sleep(20 * time.Second)
		want(t, sig)
	})
}

func TestNamesThatDoNotMatterCauseNoSignal(t *testing.T) {
	k := &kernel{}
	bubble(t, Options{}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		src := k.last(t)
		for _, dir := range []string{s.at("etc"), s.at("etc/conf.d"), s.at("secrets"), s.root, "/"} {
			for _, name := range []string{
				".config.yaml.swp", ".config.yaml.swx", ".config.yaml.swpx", "config.yaml~", "4913", "#config.yaml#", ".#config.yaml", ".config.yaml.1Ab2Cd", "sedQwErTy",
				".10-a.yaml.swp", "10-a.yaml~", "#10-a.yaml#", ".#10-a.yaml", "#10-a.yaml", ".10-a.yaml", "10-a.yaml.bak", "10-a.yml", "token~", ".token.swp", "relay.log", "config", "yaml",
			} {
				for _, op := range []fsnotify.Op{fsnotify.Create, fsnotify.Write, fsnotify.Chmod, fsnotify.Rename, fsnotify.Remove} {
					src.events <- fsnotify.Event{Name: dir + "/" + name, Op: op}
				}
			}
		}
		for _, name := range []string{"", "/", "config.yaml", s.root + "/elsewhere/config.yaml", s.at("config.yaml"), s.at("etc/10-a.yaml")} {
			src.events <- fsnotify.Event{Name: name, Op: fsnotify.Create}
		}
		time.Sleep(10 * time.Second)
		want(t, sig)
		if n := len(k.opened); n != 1 {
			t.Errorf("watching began %d times", n)
		}
		for i, name := range []string{s.paths.Main, s.paths.DropIns, s.paths.DropIns + "/new.yaml", s.paths.References[0], s.at("etc"), s.at("secrets")} {
			at := time.Since(sig.start)
			k.last(t).events <- fsnotify.Event{Name: name, Op: fsnotify.Chmod}
			time.Sleep(2 * time.Second)
			if got := sig.since(); len(got) != 1 || got[0] < at+250*time.Millisecond || got[0] > at+300*time.Millisecond {
				t.Errorf("%d: %s: signals at %v after an event at %v", i, name, got, at)
			}
		}
	})
}

func TestEventsOfABusyDirectoryCostNothing(t *testing.T) {
	s := newSite(t)
	w := New(Options{Recheck: never})
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	l := loop{w: w, paths: s.paths, tree: plant(s.paths, nil)}
	e := fsnotify.Event{Name: s.at("etc/relay.log"), Op: fsnotify.Write}
	if n := testing.AllocsPerRun(1000, func() { l.event(e) }); n != 0 {
		t.Errorf("an event of another file takes %v allocations", n)
	}
	if next := l.next(); !next.IsZero() {
		t.Errorf("an event of another file sets a timer: %v", next)
	}
	l.event(fsnotify.Event{Name: s.paths.Main, Op: fsnotify.Write})
	if l.next().IsZero() {
		t.Error("an event of the file sets no timer")
	}
}

func BenchmarkEventOfAnotherFile(b *testing.B) {
	s := newSite(b)
	l := loop{tree: plant(s.paths, nil)}
	e := fsnotify.Event{Name: s.at("etc/relay.log"), Op: fsnotify.Write}
	for b.Loop() {
		l.event(e)
	}
}

func TestASetOfTheSamePathsDoesNothing(t *testing.T) {
	k := &kernel{}
	bubble(t, Options{}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		token := s.paths.References[0]
		for range 100 {
			p := s.paths
			p.References = []string{token, "", token}
			w.Set(p)
		}
		time.Sleep(10 * time.Second)
		want(t, sig)

		p := s.paths
		p.References = []string{s.at("secrets/other"), token} // in a directory that is watched
		w.Set(p)
		time.Sleep(10 * time.Second)
		want(t, sig, 10_250*time.Millisecond)
		k.last(t).events <- fsnotify.Event{Name: p.References[0], Op: fsnotify.Create}
		time.Sleep(10 * time.Second)
		want(t, sig, 20_250*time.Millisecond)
		if n := len(k.opened); n != 1 {
			t.Errorf("watching began %d times", n)
		}
	})
}

func TestWithoutEventsTheFilesArePolled(t *testing.T) {
	k := &kernel{openErr: unix.EMFILE}
	var log bytes.Buffer
	bubble(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		if m := w.Mode(); m != ModePolling {
			t.Errorf("mode %s", m)
		}
		time.Sleep(10 * time.Second) // polls at 4.75 and 9.75 s
		want(t, sig)
		k.edit()
		time.Sleep(10 * time.Second)
		want(t, sig, 15*time.Second)
		time.Sleep(27 * time.Second)
		want(t, sig, 45*time.Second) // time to compare, 30 s after the last signal

		k.set(nil)
		time.Sleep(60 * time.Second) // the tries: 1, 3, 7, 15, 31, 63 s after Set
		want(t, sig, 63*time.Second, 93*time.Second)
		if m := w.Mode(); m != ModeEvents {
			t.Errorf("mode %s", m)
		}
		looked := k.stamps
		time.Sleep(12 * time.Second)
		if k.stamps != looked {
			t.Error("it is polled although there are events")
		}
		k.last(t).events <- fsnotify.Event{Name: s.paths.Main, Op: fsnotify.Write}
		time.Sleep(time.Second)
		want(t, sig, 119_250*time.Millisecond)
	})
	if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "max_user_instances") {
		t.Errorf("the log should have one line for each change of the mode:\n%s", log.String())
	}
}
