package main

import (
	"slices"
	"testing"
	"time"
)

// TestTheRateBesideTheZoo measures what a plugin costs the webhooks beside it:
// DAEMON_ZOO_RATE is how many seconds each measurement takes. The same number of events a
// second, DAEMON_ZOO_PER_SECOND, is handed in beside each animal and, right before that,
// beside a plugin that is well.
func TestTheRateBesideTheZoo(t *testing.T) {
	seconds := number("DAEMON_ZOO_RATE", 0)
	if seconds == 0 {
		t.Skip("a measurement needs a machine with nothing else to do: DAEMON_ZOO_RATE says for how many seconds each")
	}
	perSecond := number("DAEMON_ZOO_PER_SECOND", 500)
	t.Logf("%-20s %8s %8s %8s", "beside", "kept", "p50 ms", "p99 ms")
	for _, behaviour := range []string{"crash-start", "hang-start", "hang-describe", "flood-stdout", "crash-deliver", "hang-deliver", "stopped", "unknown", "huge-64",
		"flood-stderr-1024", "flood-long-1024", "flood-message-1024", "fork-64"} {
		before, p50, p99 := rateBeside(t, "batch", perSecond, seconds)
		t.Logf("%-20s %8s %8.0f %8.0f   %.0f/s", "batch, which is well", "", p50, p99, before)
		beside, p50, p99 := rateBeside(t, behaviour, perSecond, seconds)
		kept := beside / before
		t.Logf("%-20s %7.1f%% %8.0f %8.0f   %.0f/s", behaviour, 100*kept, p50, p99, beside)
		if kept < 0.95 {
			t.Errorf("beside %q %.1f%% of the rate was kept", behaviour, 100*kept)
		}
	}
}

// rateBeside is how many events a second arrived over http while they were handed in,
// and how long each took from the acceptance to the delivery, in ms.
func rateBeside(t *testing.T, behaviour string, perSecond, seconds int) (rate, p50, p99 float64) {
	t.Helper()
	c := newCage(t, 0, ", retry: {timeout: 2s, schedule: [1s, 1s, 1s, 1h]}", behaviour)
	p := c.up()
	defer p.kill()
	c.ready("ordered")
	c.hand(100) // connections are open, and the animal is what it is
	c.neighbours()
	const atOnce = 10
	tick := time.NewTicker(atOnce * time.Second / time.Duration(perSecond))
	defer tick.Stop()
	began := time.Now()
	for n := 0; n < perSecond*seconds; n += atOnce {
		<-tick.C
		c.hand(atOnce)
	}
	end := time.Now()
	c.neighbours()
	var took []float64
	inTime := 0
	for _, d := range c.listing() {
		if d.Webhook != "crash.ok" || d.CreatedAt.Before(began) {
			continue
		}
		if !d.DeliveredAt.After(end) {
			inTime++
		}
		took = append(took, float64(d.DeliveredAt.Sub(d.CreatedAt.Time).Microseconds())/1000)
	}
	slices.Sort(took)
	return float64(inTime) / end.Sub(began).Seconds(), took[len(took)/2], took[len(took)*99/100]
}
