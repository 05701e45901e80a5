package watchdog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = time.Minute

// disk is what the process is said to do with its storage.
type disk struct {
	mu    sync.Mutex
	stuck bool
	moves bool
	now   Activity
}

func (d *disk) look() Activity {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moves {
		d.now.blocks++
	}
	a := d.now
	a.waiting = map[int]counted{}
	if d.stuck {
		a.waiting[7] = "12/3/"
	}
	return a
}

func (d *disk) set(stuck, moves bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stuck, d.moves = stuck, moves
}

// kennel is a watchdog in a bubble, and the service manager that listens to it.
type kennel struct {
	t    *testing.T
	disk disk
	log  bytes.Buffer

	mu       sync.Mutex
	fed      []time.Time
	statuses []string
}

// watch runs a watchdog over these parts while f does something.
func watch(t *testing.T, f func(t *testing.T, k *kennel), parts ...Part) {
	synctest.Test(t, func(t *testing.T) {
		k := &kennel{t: t}
		ctx, cancel := context.WithCancel(t.Context())
		var dog sync.WaitGroup
		dog.Go(func() {
			Run(ctx, Options{Limit: limit, Parts: parts, Logger: slog.New(slog.NewTextHandler(&k.log, nil)), storage: &k.disk,
				Notify: func(state string) {
					if state != "WATCHDOG=1" {
						t.Errorf("told %q", state)
					}
					k.mu.Lock()
					defer k.mu.Unlock()
					k.fed = append(k.fed, time.Now())
				},
				Status: func(text string) {
					k.mu.Lock()
					defer k.mu.Unlock()
					k.statuses = append(k.statuses, text)
				}})
		})
		f(t, k)
		cancel()
		dog.Wait()
	})
}

// bites reports whether the service manager restarts the daemon in the next d.
func (k *kennel) bites(d time.Duration) bool {
	k.t.Helper()
	begin := time.Now()
	k.mu.Lock()
	k.fed = nil
	k.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for last := begin; ; {
		if len(k.fed) == 0 {
			return time.Since(last) > limit
		}
		if k.fed[0].Sub(last) > limit {
			return true
		}
		last, k.fed = k.fed[0], k.fed[1:]
	}
}

func (k *kennel) status() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.statuses) == 0 {
		return ""
	}
	return k.statuses[len(k.statuses)-1]
}

func turns(name string, s Storage) Part {
	return Part{Name: name, Storage: s, Turn: func(context.Context, func(string)) error { return nil }}
}

// hanging is a part that hangs when it is told to, and then as long as it is not let go.
type hanging struct {
	mu   sync.Mutex
	gate chan struct{}
}

func (h *hanging) part(name string, s Storage) Part {
	return Part{Name: name, Storage: s, Turn: func(ctx context.Context, at func(string)) error {
		h.mu.Lock()
		gate := h.gate
		h.mu.Unlock()
		if gate == nil {
			return nil
		}
		at("the committer")
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return nil
	}}
}

func (h *hanging) hang() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = make(chan struct{})
}

func (h *hanging) letGo() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.gate)
	h.gate = nil
}

func TestItIsFedInEveryHalfOfTheLimitWhileAllGoesRound(t *testing.T) {
	watch(t, func(t *testing.T, k *kennel) {
		time.Sleep(10*limit + time.Second)
		synctest.Wait()
		if len(k.fed) != 21 {
			t.Errorf("fed %d times in ten limits", len(k.fed))
		}
		if k.log.Len() > 0 || len(k.statuses) > 0 {
			t.Errorf("told %q, logged %s", k.statuses, k.log.String())
		}
	}, turns("a", Unexcused), turns("b", Slow))
}

func TestAPartThatHangsIsToldAndThenTheServiceManagerBites(t *testing.T) {
	var h hanging
	watch(t, func(t *testing.T, k *kennel) {
		if k.bites(5 * limit) {
			t.Fatal("it bites although all go round")
		}
		h.hang()
		if !k.bites(2*limit + time.Second) {
			t.Fatal("it does not bite")
		}
		if got, want := k.status(), "hangs: queue: the committer has not gone round for"; !strings.HasPrefix(got, want) {
			t.Errorf("status %q, want %q", got, want)
		}
		if got := k.log.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "part=queue") || strings.Contains(got, "part=other") {
			t.Errorf("logged %s", got)
		}
		h.letGo()
		if time.Sleep(limit); k.bites(5 * limit) {
			t.Error("it bites although all go round again")
		}
		if k.status() != "" || !strings.Contains(k.log.String(), "goes round again") {
			t.Errorf("status %q, logged %s", k.status(), k.log.String())
		}
	}, h.part("queue", Slow), turns("other", Unexcused))
}

func TestItIsToldBeforeTheLimitIsOver(t *testing.T) {
	var h hanging
	watch(t, func(t *testing.T, k *kennel) {
		time.Sleep(time.Second)
		h.hang() // right after it was fed
		time.Sleep(limit - 2*time.Second)
		synctest.Wait()
		if len(k.fed) != 1 || k.status() == "" {
			t.Errorf("fed %d times, status %q", len(k.fed), k.status())
		}
	}, h.part("queue", Slow))
}

func TestAPartThatIsSlowAndAnswersInTimeIsNoHang(t *testing.T) {
	watch(t, func(t *testing.T, k *kennel) {
		if k.bites(20 * limit) {
			t.Error("it bites")
		}
	}, Part{Name: "queue", Turn: func(ctx context.Context, _ func(string)) error {
		select {
		case <-time.After(limit/2 - time.Second):
		case <-ctx.Done():
		}
		return nil
	}})
}

func TestAPartThatSaysThatItIsBrokenIsNotFedFor(t *testing.T) {
	broken := errors.New("the sink of a.b has not returned for 3m0s")
	watch(t, func(t *testing.T, k *kennel) {
		if !k.bites(2 * limit) {
			t.Error("it does not bite")
		}
		if got, want := k.status(), "hangs: deliveries: "+broken.Error(); got != want {
			t.Errorf("status %q, want %q", got, want)
		}
		if n := strings.Count(k.log.String(), "level=ERROR"); n < 2 || n > 6 {
			t.Errorf("%d lines in two limits:\n%s", n, k.log.String())
		}
	}, turns("queue", Slow), Part{Name: "deliveries", Storage: Stuck, Turn: func(context.Context, func(string)) error { return broken }})
}

func TestStorageThatDoesNotAnswerIsToldAndNoReasonToRestart(t *testing.T) {
	var h hanging
	watch(t, func(t *testing.T, k *kennel) {
		h.hang()
		k.disk.set(true, false)
		time.Sleep(limit)
		if k.bites(100 * limit) {
			t.Error("it bites")
		}
		if got := k.status(); !strings.Contains(got, "the storage does not answer; a restart would not help") || strings.Contains(got, "hangs") {
			t.Errorf("status %q", got)
		}
		if n := strings.Count(k.log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d lines:\n%s", n, k.log.String())
		}
		k.disk.set(false, false) // it answers, and the part hangs all the same
		if !k.bites(3 * limit) {
			t.Error("it does not bite")
		}
		h.letGo()
	}, h.part("queue", Slow), turns("other", Unexcused))
}

func TestSlowStorageIsGivenTenMinutes(t *testing.T) {
	var h hanging
	watch(t, func(t *testing.T, k *kennel) {
		h.hang()
		k.disk.set(false, true)
		time.Sleep(time.Second)
		if k.bites(slowLimit - limit) {
			t.Error("it bites early")
		}
		if !strings.Contains(k.status(), "the storage is slow") {
			t.Errorf("status %q", k.status())
		}
		if !k.bites(4 * limit) {
			t.Error("it does not bite")
		}
		h.letGo()
	}, h.part("queue", Slow))
}

func TestStorageExcusesNobodyWhoDoesNotNeedIt(t *testing.T) {
	for _, of := range []struct {
		name         string
		part         Storage
		stuck, moves bool
	}{
		{"stuck, and the part needs none", Unexcused, true, true},
		{"it moves, and the part does not write", Stuck, false, true},
	} {
		t.Run(of.name, func(t *testing.T) {
			var h hanging
			watch(t, func(t *testing.T, k *kennel) {
				h.hang()
				k.disk.set(of.stuck, of.moves)
				if time.Sleep(time.Second); !k.bites(2 * limit) {
					t.Error("it does not bite")
				}
				h.letGo()
			}, h.part("part", of.part))
		})
	}
}

func TestWhoWaitsAgainIsNotStuck(t *testing.T) {
	before := Activity{waiting: map[int]counted{1: "5/0/", 2: "7/1/"}}
	for _, of := range []struct {
		now  map[int]counted
		want bool
	}{
		{map[int]counted{2: "7/1/"}, true},
		{map[int]counted{1: "6/0/", 2: "8/1/"}, false},
		{map[int]counted{3: "5/0/"}, false},
		{nil, false},
	} {
		if got := (Activity{waiting: of.now}).stuckSince(before); got != of.want {
			t.Errorf("%v: %v", of.now, got)
		}
	}
}

func TestTheStateOfAThreadIsReadFromItsFile(t *testing.T) {
	state, switches := parseStatus([]byte("Name:\tbadger D: x\nState:\tD (disk sleep)\nTgid:\t1\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n"))
	if state != 'D' || switches != "150/545/" {
		t.Errorf("%c %q", state, switches)
	}
	own, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	if state, switches := parseStatus(own); state != 'R' || strings.Count(string(switches), "/") != 2 {
		t.Errorf("this thread: %c %q", state, switches)
	}
}

func TestAProcessThatWorksGetsAhead(t *testing.T) {
	before := Look()
	for deadline := time.Now().Add(30 * time.Second); !Look().Progress(before, time.Second); {
		if time.Now().After(deadline) {
			t.Fatal("this loop is no progress")
		}
	}
	if before.Progress(before, time.Second) {
		t.Error("nothing is progress")
	}
	if slow := (Activity{cpu: 19 * time.Millisecond}); slow.Progress(Activity{}, time.Second) {
		t.Error("timers are progress")
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte("Name:\tx\nState:\tD (disk sleep)\nvoluntary_ctxt_switches:\t150\n"))
	f.Add([]byte("State:\nState\n:\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		state, switches := parseStatus(text)
		if state == 0 && bytes.HasPrefix(text, []byte("State:\tD")) {
			t.Errorf("no state in %q", text)
		}
		if len(switches) > len(text) {
			t.Errorf("%q is more than %q", switches, text)
		}
	})
}
