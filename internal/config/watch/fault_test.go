package watch

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

func TestLostEventsAreMadeUpForAtOnceAndThenWithBackOff(t *testing.T) {
	k := &kernel{}
	bubble(t, Options{}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		lose := func(err error) {
			time.Sleep(time.Second)
			k.last(t).errors <- err
		}
		lose(fsnotify.ErrEventOverflow)
		time.Sleep(time.Second)
		want(t, sig, 1250*time.Millisecond)
		if m := w.Mode(); m != ModeEvents {
			t.Errorf("mode %s after the first overflow", m)
		}
		lose(errors.New("read inotify: input/output error")) // at 3 s
		time.Sleep(time.Second)
		want(t, sig, 3250*time.Millisecond)
		if m := w.Mode(); m != ModePolling {
			t.Errorf("mode %s after the second", m)
		}
		time.Sleep(2 * time.Second)
		want(t, sig, 5250*time.Millisecond) // watched again from 5 s on, and what was missed meanwhile
		if m := w.Mode(); m != ModeEvents {
			t.Errorf("mode %s after the back-off", m)
		}
		time.Sleep(2 * time.Minute)
		sig.since()
		close(k.last(t).events) // at 126 s
		time.Sleep(time.Second)
		want(t, sig, 126_250*time.Millisecond)

		opened := []time.Duration{0, 1250 * time.Millisecond, 5250 * time.Millisecond, 126_250 * time.Millisecond} // since Set
		if !slices.Equal(k.opened, opened) {
			t.Errorf("watching began at %v, want %v", k.opened, opened)
		}
		k.last(t)
	})
}

// TestAWatchThatWentByItselfIsNoFailure: fsnotify reports so when a directory is renamed
// and removed at once.
func TestAWatchThatWentByItselfIsNoFailure(t *testing.T) {
	k := &kernel{}
	var log bytes.Buffer
	bubble(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		for range 5 {
			k.last(t).errors <- unix.EINVAL
			time.Sleep(time.Second)
			if got := sig.since(); len(got) != 1 {
				t.Errorf("signals at %v", got)
			}
			if m := w.Mode(); m != ModeEvents {
				t.Errorf("mode %s", m)
			}
		}
		if len(k.opened) != 6 {
			t.Errorf("watching began %d times", len(k.opened))
		}
	})
	if log.Len() > 0 {
		t.Errorf("the log has:\n%s", log.String())
	}
}

func TestADirectoryThatCannotBeWatched(t *testing.T) {
	type row struct {
		dir  string // below the root; "" is the root itself
		err  error
		mode string
	}
	for name, c := range map[string]row{
		"of the main file, not readable":          {"etc", unix.EACCES, ModePolling},
		"of the main file, no watch left":         {"etc", unix.ENOSPC, ModePolling},
		"of a secret, not readable":               {"secrets", unix.EACCES, ModePolling},
		"of the drop-ins, not readable":           {"etc/conf.d", unix.EACCES, ModePolling},
		"on the way, not readable":                {"", unix.EACCES, ModeEvents},
		"on the way, no watch left":               {"", unix.ENOSPC, ModePolling},
		"removed meanwhile, which its parent saw": {"etc/conf.d", unix.ENOENT, ModeEvents},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			var lifted atomic.Bool
			k := &kernel{addErr: func(dir string) error {
				if dir == s.at(c.dir) && !lifted.Load() {
					return c.err
				}
				return nil
			}}
			bubbleAt(t, s, Options{}, k,
				func(t *testing.T, s *site, w *Watcher, sig *signals) {
					if m := w.Mode(); m != c.mode {
						t.Errorf("mode %s, want %s", m, c.mode)
					}
					k.edit()
					time.Sleep(6 * time.Second)
					if got := len(sig.since()) > 0; got != (c.mode == ModePolling) {
						t.Errorf("a change without an event was noticed: %t", got)
					}
					// Elsewhere there are events still.
					other := s.paths.Main
					if c.dir == "etc" {
						other = s.paths.References[0]
					}
					time.Sleep(10 * time.Second)
					sig.since()
					k.last(t).events <- fsnotify.Event{Name: other, Op: fsnotify.Write}
					time.Sleep(time.Second)
					if got := sig.since(); len(got) == 0 {
						t.Error("no signal for an event from another directory")
					}
					lifted.Store(true)
					time.Sleep(2 * time.Minute)
					if m := w.Mode(); m != ModeEvents {
						t.Errorf("mode %s after the reason has gone", m)
					}
				})
		})
	}
}

// gated is the kernel's source, whose events can be held up.
type gated struct {
	source
	gate *sync.Mutex // held: nothing passes
	out  chan fsnotify.Event
	done chan struct{}
	wg   sync.WaitGroup
}

func gate(src source, lock *sync.Mutex) *gated {
	g := &gated{source: src, gate: lock, out: make(chan fsnotify.Event), done: make(chan struct{})}
	g.wg.Go(func() {
		defer close(g.out)
		for e := range src.Events() {
			g.gate.Lock()
			select {
			case g.out <- e:
			case <-g.done:
			}
			g.gate.Unlock()
		}
	})
	return g
}

func (g *gated) Events() <-chan fsnotify.Event { return g.out }

func (g *gated) Close() error {
	close(g.done)
	err := g.source.Close()
	g.wg.Wait()
	return err
}

// TestAnOverflowOfTheKernelsQueueIsMadeUpFor stops the reader and lets more happen than
// the kernel keeps, so that the edit itself is lost.
func TestAnOverflowOfTheKernelsQueueIsMadeUpFor(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if most > 1<<20 {
		t.Skipf("%s: the kernel keeps %d events here, too many to overflow", t.Name(), most)
	}
	s := newSite(t)
	s.sh(`: >etc/a; : >etc/b`)
	var held sync.Mutex
	var opened int
	var log bytes.Buffer
	r := s.reload(Options{
		Recheck: never, PollEvery: never, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		open: func() (source, error) {
			src, err := openEvents()
			if opened++; err != nil || opened > 1 {
				return src, err
			}
			return gate(src, &held), nil
		},
	})
	held.Lock()
	for i := range most/2 + 4096 { // fsnotify reads up to 4096 ahead
		mode := os.FileMode(0o600 + i%2)
		if err := errors.Join(os.Chmod(s.at("etc/a"), mode), os.Chmod(s.at("etc/b"), mode)); err != nil {
			t.Fatal(err)
		}
	}
	s.add("etc/config.yaml", "v: 2")
	held.Unlock()
	r.noticed("an overflow")
	s.add("etc/conf.d/10-a.yaml", "v: 3")
	r.noticed("a further edit")
	if reloads, _ := r.count(); reloads != 2 {
		t.Errorf("%d reloads", reloads)
	}
	if err := r.w.Close(); err != nil {
		t.Fatal(err)
	}
	if opened != 2 || !strings.Contains(log.String(), "overflow") {
		t.Errorf("watching began %d times, the log has:\n%s", opened, log.String())
	}
}

const limitsChild = "WATCH_TEST_LIMITS"

// TestWithoutInotifyTheFilesArePolled runs in a user namespace of its own, where the limits can
// be used up without anybody else noticing.
func TestWithoutInotifyTheFilesArePolled(t *testing.T) {
	if os.Getenv(limitsChild) != "" {
		limits(t)
		return
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	c.Env = append(os.Environ(), limitsChild+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Skipf("%s needs a user namespace: %v", t.Name(), err)
	}
	err := c.Wait()
	t.Logf("%s", out.String())
	if err != nil || !strings.Contains(out.String(), "--- PASS") {
		t.Fatalf("the test in the namespace: %v", err)
	}
}

func limits(t *testing.T) {
	const dir = "/proc/sys/user/"
	if _, err := os.Stat(dir + "max_inotify_instances"); err != nil {
		t.Skipf("this kernel counts inotify instances for all namespaces together: %v", err)
	}
	limit := func(name string, n int) {
		t.Helper()
		if err := os.WriteFile(dir+name, []byte(strconv.Itoa(n)), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"max_inotify_instances", "max_inotify_watches"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			limit(name, 0)
			r := s.reload(Options{Recheck: never, PollEvery: 100 * time.Millisecond})
			r.mode(ModePolling)
			for i, file := range []string{"etc/config.yaml", "etc/conf.d/10-a.yaml", "secrets/token"} {
				s.add(file, fmt.Sprint("v: ", i))
				r.noticed("an edit of " + file + " without inotify")
			}
			s.sh(`echo "v: 4" >etc/.n; mv etc/.n etc/config.yaml; rm -r etc/conf.d`)
			r.noticed("a rename without inotify")
			limit(name, 1000)
			r.mode(ModeEvents)
			s.sh(`mkdir etc/conf.d; echo "v: 5" >etc/conf.d/20-b.yaml`)
			r.noticed("a drop-in with inotify again")
		})
	}
}

// TestADirectoryThatMayNotBeListedIsPolled: inotify wants to read a directory, opening a file in it
// does not.
func TestADirectoryThatMayNotBeListedIsPolled(t *testing.T) {
	if testhost.AsUser(t) {
		return // root may list every directory
	}
	s := newSite(t)
	s.sh(`chmod 300 secrets`)
	t.Cleanup(func() { s.sh(`chmod 700 secrets`) })
	r := s.reload(Options{Recheck: never, PollEvery: 100 * time.Millisecond})
	r.mode(ModePolling)
	s.add("secrets/token", "secret 2")
	r.noticed("a new secret")
	s.sh(`chmod 700 secrets`)
	r.mode(ModeEvents)
	s.add("secrets/token", "secret 3")
	r.noticed("another secret")
}

// inotifies lists the inotify instances of this process, with the number of watches of each.
func inotifies(t *testing.T) []int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var watches []int
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || !strings.Contains(to, "inotify") {
			continue
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + fd.Name())
		if err != nil {
			t.Fatal(err)
		}
		watches = append(watches, strings.Count(string(info), "inotify wd:"))
	}
	return watches
}

func TestTenThousandDropInsTakeOneInstanceAndNoWatchEach(t *testing.T) {
	s := newSite(t)
	s.sh(`for i in $(seq 10000); do : >etc/conf.d/$i.yaml; done`)
	r := s.reload(Options{Recheck: never})
	directories := strings.Count(s.paths.DropIns, "/") + 1 + 1 // with "/", and secrets
	if got := inotifies(t); !slices.Equal(got, []int{directories}) {
		t.Errorf("instances with these numbers of watches: %v, want one with %d", got, directories)
	}
	s.add("etc/conf.d/7777.yaml", "v: 2")
	r.noticed("an edit of one")
	begun := time.Now()
	plant(s.paths, nil)
	planted := time.Now()
	newStamper().of(s.paths)
	t.Logf("looking for links took %v, comparing without reading %v", planted.Sub(begun), time.Since(planted))
}

// TestNothingIsLeftBehind changes what is watched many times. goleak sees to goroutines.
func TestNothingIsLeftBehind(t *testing.T) {
	s := newSite(t)
	r := s.reload(Options{Recheck: never, Debounce: time.Millisecond})
	for i := range 50 {
		s.sh(fmt.Sprintf(`rm -rf etc/conf.d; mkdir etc/conf.d d%d; echo %d >d%d/f; ln -sfn ../d%d/f etc/config.yaml`, i, i, i, i))
		r.noticed("a link to another directory")
		p := s.paths
		p.References = append(p.References, s.at("etc/"+strconv.Itoa(i)))
		r.w.Set(p)
	}
	if got := inotifies(t); len(got) != 1 || got[0] > strings.Count(s.paths.DropIns, "/")+1+1+1 {
		t.Errorf("instances with these numbers of watches: %v", got)
	}
	for range 2 {
		if err := r.w.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := inotifies(t); len(got) != 0 {
		t.Errorf("after Close: instances with these numbers of watches: %v", got)
	}
	r.w.Set(Paths{Main: filepath.Join(s.root, "x")})
}

// TestADirectoryMadeAnewIsWatchedAnew although it may have got the inode number of the old one,
// as is usual on ext4 and tmpfs, so that it looks the same.
func TestADirectoryMadeAnewIsWatchedAnew(t *testing.T) {
	k := &kernel{}
	bubble(t, Options{}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		k.last(t).events <- fsnotify.Event{Name: s.paths.DropIns, Op: fsnotify.Remove}
		k.last(t).events <- fsnotify.Event{Name: s.paths.DropIns, Op: fsnotify.Create}
		time.Sleep(time.Second)
		want(t, sig, 300*time.Millisecond) // of the new watches, which are there after 50 ms
		if n := len(k.opened); n != 2 {
			t.Errorf("watching began %d times", n)
		}
	})
}

// TestAWatchThatTheKernelDroppedIsMadeAnew: an unmount takes a watch away without any event.
func TestAWatchThatTheKernelDroppedIsMadeAnew(t *testing.T) {
	k := &kernel{}
	bubble(t, Options{}, k, func(t *testing.T, s *site, w *Watcher, sig *signals) {
		src := k.last(t)
		src.mu.Lock()
		src.added--
		src.mu.Unlock()
		time.Sleep(31 * time.Second)
		want(t, sig, 30_250*time.Millisecond)
		time.Sleep(60 * time.Second)
		if n := len(k.opened); n != 2 {
			t.Errorf("watching began %d times", n)
		}
	})
}
