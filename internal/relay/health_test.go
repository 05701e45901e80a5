package relay

import (
	"bytes"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/watchdog"
)

// manager is a service manager that remembers what it is told.
type manager struct {
	mu   sync.Mutex
	told []string
}

func (m *manager) notify(state string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = append(m.told, state)
	return nil
}

func (m *manager) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.told)
}

func (m *manager) count(state string) (n int) {
	for _, s := range m.all() {
		if s == state {
			n++
		}
	}
	return n
}

func TestTheServiceManagerHearsTheWholeLife(t *testing.T) {
	m := &manager{}
	h := newHome(t)
	d := h.start(helperWith("http://127.0.0.1:9/", ""), func(o *Options) { o.Notify, o.Watchdog = m.notify, 300*time.Millisecond })
	await(t, "the watchdog's food", func() (int, error) { return m.count("WATCHDOG=1"), nil }, func(n int) bool { return n >= 4 })
	d.stop()
	fed := m.count("WATCHDOG=1")
	told := slices.DeleteFunc(m.all(), func(s string) bool { return s == "WATCHDOG=1" || strings.HasPrefix(s, "STATUS=hangs") })
	want := []string{"STATUS=opening the queue", "READY=1\nSTATUS=configuration 1 runs", "STOPPING=1\nSTATUS=stopping"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if all := m.all(); all[len(all)-1] == "WATCHDOG=1" || fed != m.count("WATCHDOG=1") {
		t.Errorf("it is fed after the stop: %q", all)
	}
}

func TestWithoutAWatchdogNobodyIsFed(t *testing.T) {
	m := &manager{}
	d := newHome(t).start(helperWith("http://127.0.0.1:9/", ""), func(o *Options) { o.Notify = m.notify })
	d.stop()
	if n := m.count("WATCHDOG=1"); n > 0 {
		t.Errorf("fed %d times", n)
	}
}

// It answers, and whoever waited for it to be ready could wait for ever.
func TestAStartThatWaitsForSpaceIsReadyAndSaysSo(t *testing.T) {
	m := &manager{}
	h := newHome(t)
	text := strings.Replace(h.text(helperWith("http://127.0.0.1:9/", "")), "min_free: 128MiB", "min_free: 60TiB", 1)
	d := h.launch(text, func(o *Options) { o.Notify, o.Watchdog = m.notify, time.Minute })
	await(t, "READY=1", func() (string, error) {
		for _, s := range m.all() {
			if strings.HasPrefix(s, "READY=1") {
				return s, nil
			}
		}
		return "", nil
	}, func(s string) bool { return strings.Contains(s, "STATUS=degraded: events are answered 507: ") })
	if m.count("WATCHDOG=1") == 0 {
		await(t, "the watchdog's food", func() (int, error) { return m.count("WATCHDOG=1"), nil }, func(n int) bool { return n > 0 })
	}
	d.cancel()
	if err := d.end(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsWrongTakesThePlaceOfTheStatus(t *testing.T) {
	m := &manager{}
	r := newRelay(&config.Config{}, Options{Notify: m.notify})
	r.notify("READY=1\nSTATUS=one")
	r.trouble("hangs: queue")
	r.notify("RELOADING=1")
	r.notify("READY=1\nSTATUS=two")
	r.trouble("")
	want := []string{"READY=1\nSTATUS=one", "STATUS=hangs: queue", "RELOADING=1", "READY=1\nSTATUS=hangs: queue", "STATUS=two"}
	if got := m.all(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestAStartThatGetsAheadIsGivenMoreTimeAndNoOther(t *testing.T) {
	want := []string{"STATUS=opening the queue", "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=opening the queue for 5s"}
	for range 20 {
		m := &manager{}
		disturbed := false // what other tests left in this process has worked, too
		synctest.Test(t, func(t *testing.T) {
			r := newRelay(&config.Config{}, Options{Notify: m.notify})
			end := r.sayStarting()
			synctest.Wait()
			work(t, 2*startLook/50)
			before := watchdog.Look()
			time.Sleep(startLook + 1)
			synctest.Wait()
			time.Sleep(startLook) // it does nothing
			synctest.Wait()
			disturbed = watchdog.Look().Progress(before, startLook)
			end()
		})
		if got := m.all(); slices.Equal(got, want) {
			return
		} else if !disturbed {
			t.Fatalf("told %q, want %q", got, want)
		}
	}
	t.Error("this process never did nothing for long enough")
}

// work uses so much of a processor.
func work(t *testing.T, d time.Duration) {
	t.Helper()
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for from := used(); used() < from+d; {
	}
}

func TestASocketElsewhereThanConfiguredIsSaid(t *testing.T) {
	path := filepath.Join(newHome(t).dir, "other.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var log bytes.Buffer
	r := newRelay(&config.Config{}, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	r.sayOthers(l, path)
	if log.Len() > 0 {
		t.Errorf("it is where it should be: %s", log.String())
	}
	r.sayOthers(l, "/run/peanuts-relay/events.sock")
	if !strings.Contains(log.String(), "socket="+path) || !strings.Contains(log.String(), "configured=/run/peanuts-relay/events.sock") {
		t.Errorf("logged %s", log.String())
	}
}
