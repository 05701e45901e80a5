package httpsink

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
)

// wait is a watched exchange over a pipe that nobody answers. It tells how long
// it took until it was interrupted.
func wait(t *testing.T, w *watch, ctx context.Context, end time.Duration) (x *watched, took func() time.Duration) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	c := http1.NewConn(ours)
	start, result := time.Now(), make(chan time.Duration, 1)
	x = &watched{}
	w.add(x, ctx, c, start.Add(end))
	go func() {
		_, _ = c.Read(make([]byte, 1))
		result <- time.Since(start)
	}()
	return x, func() time.Duration { return <-result }
}

func TestAWatchedExchangeEndsOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watch
		// In no order; the first of them is over before its time.
		early, _ := wait(t, &w, t.Context(), 2*time.Second)
		if !w.remove(early) {
			t.Error("an exchange that nobody interrupted counts as interrupted")
		}
		ends := []time.Duration{3 * time.Second, time.Second, 5 * time.Second, 3 * time.Second, -time.Second, 4 * time.Second}
		var xs []*watched
		var took []func() time.Duration
		for _, end := range ends {
			x, f := wait(t, &w, t.Context(), end)
			xs, took = append(xs, x), append(took, f)
		}
		for i, end := range ends {
			if got := took[i](); got != max(end, 0) {
				t.Errorf("an exchange of %v took %v", end, got)
			}
		}
		for _, x := range xs {
			if w.remove(x) {
				t.Error("an interrupted exchange counts as whole")
			}
		}
		if w.first != nil || w.last != nil || w.users != 0 {
			t.Errorf("left behind: %+v", &w)
		}
		_, late := wait(t, &w, t.Context(), time.Minute) // the timer is armed again
		if got := late(); got != time.Minute {
			t.Errorf("took %v", got)
		}
	})
}

func TestCancellingEndsTheExchangesOfThatContextOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watch
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		defer cancelSecond()
		a, aTook := wait(t, &w, first, time.Hour)
		b, bTook := wait(t, &w, second, time.Minute)
		c, cTook := wait(t, &w, first, time.Hour)
		d, dTook := wait(t, &w, context.Background(), 2*time.Minute)
		time.Sleep(time.Second)
		cancelFirst()
		if aTook() != time.Second || cTook() != time.Second {
			t.Error("the cancelled are not interrupted")
		}
		e, eTook := wait(t, &w, first, time.Hour) // cancelled already
		if eTook() != 0 {
			t.Error("a cancelled context does not end an exchange")
		}
		if got := bTook(); got != time.Minute {
			t.Errorf("another context's exchange took %v", got)
		}
		if got := dTook(); got != 2*time.Minute {
			t.Errorf("an exchange without a context took %v", got)
		}
		for _, x := range []*watched{a, b, c, d, e} {
			if w.remove(x) {
				t.Error("an interrupted exchange counts as whole")
			}
		}
		f, fTook := wait(t, &w, second, time.Hour) // the callback moves to this context
		time.Sleep(time.Second)
		cancelSecond()
		if fTook() != time.Second || w.remove(f) || w.first != nil || w.users != 0 {
			t.Error("after the change of context")
		}
		w.close()
	})
}

// Exchanges that end by themselves, by time and by cancellation, all at once.
func TestTheWatchMayBeUsedByMany(t *testing.T) {
	var w watch
	shared, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var x watched
			for i := range 300 {
				ours, theirs := net.Pipe()
				ctx, end := shared, time.Minute
				own, cancelOwn := context.WithCancel(shared)
				switch (g + i) % 4 {
				case 0:
					ctx = own
					go cancelOwn()
				case 1:
					end = time.Microsecond
				}
				c := http1.NewConn(ours)
				w.add(&x, ctx, c, time.Now().Add(end))
				if (g+i)%4 < 2 {
					_, _ = c.Read(make([]byte, 1)) // until it is interrupted
				}
				whole := w.remove(&x)
				if whole != ((g+i)%4 >= 2) {
					t.Errorf("case %d: whole %v", (g+i)%4, whole)
				}
				cancelOwn()
				ours.Close()
				theirs.Close()
			}
		})
	}
	wg.Wait()
	if w.first != nil || w.last != nil || w.users != 0 {
		t.Errorf("left behind: first %v, last %v, users %d", w.first, w.last, w.users)
	}
	w.close()
}
