package main

import (
	"slices"
	"testing"
	"time"
)

// TestTheRateBesideTheZoo measures what a plugin costs the webhooks beside it:
// DAEMON_ZOO_RATE is how many seconds each measurement takes. The same number of events a
// second is handed in beside each animal, and beside none before and after.
func TestTheRateBesideTheZoo(t *testing.T) {
	seconds := number("DAEMON_ZOO_RATE", 0)
	if seconds == 0 {
		t.Skip("a measurement needs a machine with nothing else to do: DAEMON_ZOO_RATE says for how many seconds each")
	}
	const perSecond = 500
	t.Logf("%-20s %8s %8s %8s", "beside", "kept", "p50 ms", "p99 ms")
	for _, behaviour := range []string{"", "crash-start", "hang-start", "hang-describe", "flood-stdout", "crash-deliver", "hang-deliver", "stopped", "unknown", "huge-64",
		"flood-stderr-1024", "flood-long-1024", "flood-message-1024", "fork-64", ""} {
		kept, p50, p99 := rateBeside(t, behaviour, perSecond, seconds)
		t.Logf("%-20s %7.1f%% %8.2f %8.2f", behaviour, 100*kept, p50, p99)
		if kept < 0.95 {
			t.Errorf("beside %q %.1f%% of what was handed in arrived in the time", behaviour, 100*kept)
		}
	}
}

// rateBeside is how much of what was handed in arrived over http before the last event
// was handed in, and how long it took from the acceptance to the delivery, in ms.
func rateBeside(t *testing.T, behaviour string, perSecond, seconds int) (kept, p50, p99 float64) {
	t.Helper()
	var some []string
	if behaviour != "" {
		some = append(some, behaviour)
	}
	c := newCage(t, 0, ", retry: {timeout: 2s, schedule: [1s, 1s, 1s, 1h]}", some...)
	p := c.up()
	defer p.kill()
	c.ready("ordered")
	c.hand(100) // connections are open, and the animal is what it is
	c.neighbours()
	before := c.sent
	tick := time.NewTicker(time.Second / time.Duration(perSecond/10))
	defer tick.Stop()
	began := time.Now()
	for n := 0; n < perSecond*seconds; n += 10 {
		<-tick.C
		c.hand(10)
	}
	end := time.Now()
	c.neighbours()
	t.Logf("%q: %d events in %v", behaviour, c.sent-before, end.Sub(began).Round(time.Millisecond))
	var took []float64
	all, inTime := 0, 0
	for _, d := range c.listing() {
		if d.Webhook != "crash.ok" || d.CreatedAt.Before(began) {
			continue
		}
		all++
		if !d.DeliveredAt.After(end) {
			inTime++
		}
		took = append(took, float64(d.DeliveredAt.Sub(d.CreatedAt.Time).Microseconds())/1000)
	}
	slices.Sort(took)
	return float64(inTime) / float64(all), took[len(took)/2], took[len(took)*99/100]
}
