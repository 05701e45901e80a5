package api

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

func TestWhatIsToldFromManyGoroutinesIsCountedOnce(t *testing.T) {
	w := newWorld(t)
	const each, tellers, sinks = 500, 8, 5
	var all sync.WaitGroup
	for range tellers {
		all.Go(func() {
			for i := range each {
				a := &delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeTLS, Duration: time.Second}
				w.Timings.Attempted(fmt.Sprint("sink-", i%sinks), a, 0)
			}
		})
	}
	all.Wait()
	text := parseMetrics(t, w)
	for i := range sinks {
		want := float64(each * tellers / sinks)
		for _, series := range []string{`attempt_errors_total{code="tls",sink="sink-%d"}`, `attempt_duration_seconds_count{outcome="failure",sink="sink-%d"}`} {
			name := "peanuts_relay_" + fmt.Sprintf(series, i)
			if got := text[name]; got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
	}
}

// The last of these is a code of a sink's own, so that looking for it takes longest.
func attempts() []*delivery.Attempt {
	return []*delivery.Attempt{{Outcome: delivery.Delivered, Duration: 3 * time.Millisecond},
		{Outcome: delivery.Rejected, Duration: 3 * time.Millisecond, Code: "made_up_by_a_sink"}}
}

func BenchmarkAnAttemptIsTold(b *testing.B) {
	for _, a := range attempts() {
		b.Run(a.Outcome.String(), func(b *testing.B) {
			timings := NewTimings()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					timings.Attempted("http", a, time.Second)
				}
			})
		})
	}
}
