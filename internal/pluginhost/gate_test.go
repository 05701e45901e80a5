package pluginhost

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestTheGateKeepsWhoIsAloneAloneAndLetsEverybodyIn(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type caller struct {
			alone              bool
			at, stay, patience time.Duration
		}
		ms := func(name string, most int) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(rt, name)) * time.Millisecond
		}
		callers := make([]caller, rapid.IntRange(1, 30).Draw(rt, "callers"))
		for n := range callers {
			callers[n] = caller{rapid.IntRange(0, 3).Draw(rt, "alone") == 0, ms("at", 50), 1 + ms("stay", 20), 1 + ms("patience", 400)}
		}
		closeAt := 10*time.Second + ms("close", 0)
		if rapid.Bool().Draw(rt, "closes") {
			closeAt = 1 + ms("close", 100)
		}
		synctest.Test(t, func(t *testing.T) {
			var g gate
			var mu sync.Mutex
			var wg sync.WaitGroup
			inside, alone, entered, turned := 0, 0, 0, 0
			closed := false
			for _, c := range callers {
				wg.Go(func() {
					time.Sleep(c.at)
					ctx, cancel := context.WithTimeout(t.Context(), c.patience)
					defer cancel()
					err := g.enter(ctx, c.alone)
					mu.Lock()
					if err != nil {
						turned++
						if !errors.Is(err, context.DeadlineExceeded) && (!errors.Is(err, errClosed) || !closed) {
							t.Errorf("turned away with %v", err)
						}
						mu.Unlock()
						return
					}
					entered++
					inside++
					if c.alone {
						alone++
					}
					if alone > 1 || alone == 1 && inside > 1 {
						t.Errorf("%d inside, %d of them alone", inside, alone)
					}
					mu.Unlock()
					time.Sleep(c.stay)
					mu.Lock()
					inside--
					if c.alone {
						alone--
					}
					mu.Unlock()
					g.leave()
				})
			}
			wg.Go(func() {
				time.Sleep(closeAt)
				mu.Lock()
				closed = true
				mu.Unlock()
				<-g.close()
				<-g.close()
				mu.Lock()
				defer mu.Unlock()
				if inside != 0 {
					t.Errorf("%d inside when the gate says idle", inside)
				}
			})
			wg.Wait()
			if entered+turned != len(callers) || g.active != 0 || len(g.waiting) != 0 {
				t.Errorf("%d entered, %d were turned away, of %d; %d active, %d waiting", entered, turned, len(callers), g.active, len(g.waiting))
			}
		})
	})
}

func TestNeitherKindKeepsTheOtherOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		var wg sync.WaitGroup
		longest := map[bool]time.Duration{}
		var mu sync.Mutex
		for n := range 400 {
			wg.Go(func() {
				time.Sleep(time.Duration(n) * time.Millisecond / 2)
				began := time.Now()
				if err := g.enter(t.Context(), n%20 == 0); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				longest[n%20 == 0] = max(longest[n%20 == 0], time.Since(began))
				mu.Unlock()
				time.Sleep(4 * time.Millisecond)
				g.leave()
			})
		}
		wg.Wait()
		if longest[true] > 100*time.Millisecond || longest[false] > 100*time.Millisecond {
			t.Errorf("the longest waits: alone %s, together %s", longest[true], longest[false])
		}
	})
}
