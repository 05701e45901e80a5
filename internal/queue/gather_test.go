package queue

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestFewSendersAreNeverHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gathering
		mustEqual(t, "wait in the first group", g.limit(1, 1), 0)
		for senders := range gatherFrom {
			g.round(senders, 0)
			mustEqual(t, "wait", g.limit(1, 1), 0)
		}
	})
}

func TestAGroupWaitsForTheSendersOfTheLastRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gathering
		g.round(8, 8) // one half was answered, the other came meanwhile
		mustEqual(t, "wait of the half that is there", g.limit(8, 8), gatherGap)
		mustEqual(t, "wait of too few", g.limit(11, 11), gatherGap)
		mustEqual(t, "wait without the last few", g.limit(12, 12), 0)
		mustEqual(t, "wait of a large group", g.limit(8, gatherEvents), 0)
		g.round(0, 3) // outcomes alone answer nobody
		mustEqual(t, "wait after a commit without senders", g.limit(8, 8), gatherGap)
		time.Sleep(gatherFor - gatherGap/2)
		mustEqual(t, "wait late in the round", g.limit(8, 8), gatherGap/2)
		time.Sleep(gatherGap)
		mustEqual(t, "wait when the round is long over", g.limit(8, 8), 0)
	})
}

func TestSendersThatStayAwayAreWaitedForMoreAndMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gathering
		waits := 0
		for range 1000 {
			g.round(2, 2)
			if g.limit(1, 1) > 0 {
				waits++
				g.missed()
			}
		}
		if waits < 7 || waits > 22 {
			t.Errorf("waited %d times in 1000 groups", waits)
		}
	})
}

func TestNoWaitIsLongerThanItsBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var g gathering
		g.init()
		rt.Repeat(map[string]func(*rapid.T){
			"round": func(rt *rapid.T) {
				g.round(rapid.IntRange(0, 300).Draw(rt, "answered"), rapid.IntRange(0, 256).Draw(rt, "waiting"))
			},
			"missed": func(*rapid.T) { g.missed() },
			"": func(rt *rapid.T) {
				have := rapid.IntRange(1, 300).Draw(rt, "have")
				if l := g.limit(have, have); l < 0 || l > gatherGap || l > 0 && have >= g.enough() {
					rt.Fatalf("waits %v with %d of %d", l, have, g.expected)
				}
				if g.pass < 0 || g.pass > gatherPause {
					rt.Fatalf("passes over %d groups", g.pass)
				}
			},
		})
	})
}

// Senders in a closed loop, of which some leave in the middle, all get their
// answers.
func TestSendersComeAndGoWhileGroupsWaitForThem(t *testing.T) {
	h := newHarness(t)
	lane := h.lane("x.a")[0]
	var all sync.WaitGroup
	sent := 0
	for w := range 16 {
		n := 5 + 5*(w%4)
		sent += n
		all.Go(func() {
			for i := range n {
				ev := testEvent(w*1000+i, lane)
				if err := h.Accept(t.Context(), []*Event{ev}); err != nil || ev.Err != nil {
					t.Errorf("event %d of sender %d: %v, %v", i, w, err, ev.Err)
				}
			}
		})
	}
	all.Wait()
	mustEqual(t, "pending", len(h.ready(lane)), sent)
	h.sound()
}
