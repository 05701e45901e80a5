package api

import (
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

func TestMinutesCountWhatWasAttemptedInEach(t *testing.T) {
	p := pasts{}
	now := time.Unix(1_000_000*60+30, 0)
	attempt := func(after time.Duration, state delivery.State, took time.Duration) {
		p.note(&queue.Change{Lane: backend, Kind: queue.ChangeAttempt, State: state, Took: took}, now.Add(after))
	}
	attempt(0, delivery.Success, 10*time.Millisecond)
	attempt(time.Second, delivery.Success, 30*time.Millisecond)
	attempt(2*time.Second, delivery.Pending, time.Second)
	attempt(time.Minute, delivery.Failed, 5*time.Millisecond)
	for _, c := range []queue.Change{
		{Lane: backend, Kind: queue.ChangeAccepted}, {Lane: backend, Kind: queue.ChangeRequeued},
		{Lane: backend, Kind: queue.ChangeDropped, State: delivery.Failed},
		{Lane: backend, Kind: queue.ChangeAttempt, State: delivery.Pending, Code: delivery.CodeInterrupted},
		{Lane: crm, Kind: queue.ChangeAttempt, State: delivery.Success},
	} {
		p.note(&c, now)
	}
	all := p.of(backend, now.Add(time.Minute))
	if got, want := all[keptMinutes-1], (minute{number: 1_000_001, failed: 1, sum: 5 * time.Millisecond, max: 5 * time.Millisecond}); got != want {
		t.Errorf("this minute: %+v", got)
	}
	if got, want := all[keptMinutes-2], (minute{number: 1_000_000, delivered: 2, retried: 1, sum: 1040 * time.Millisecond, max: time.Second}); got != want {
		t.Errorf("the one before: %+v", got)
	}
	for i, m := range all[:keptMinutes-2] {
		if m != (minute{number: 1_000_001 - keptMinutes + 1 + int64(i)}) {
			t.Errorf("minute %d: %+v", i, m)
		}
	}
	// An hour later the place of a minute is that of another one.
	all = p.of(backend, now.Add(time.Hour))
	if got := all[0]; got.failed != 1 || got.number != 1_000_001 {
		t.Errorf("the oldest: %+v", got)
	}
	attempt(time.Hour, delivery.Success, time.Second)
	all = p.of(backend, now.Add(time.Hour))
	if got := all[keptMinutes-1]; got.delivered != 1 || got.retried != 0 {
		t.Errorf("the newest: %+v", got)
	}
}

func TestMinutesAreBoundedAndMakeRoom(t *testing.T) {
	p := pasts{}
	now := time.Unix(1_000_000*60, 0)
	note := func(lane queue.Lane, at time.Time) {
		p.note(&queue.Change{Lane: lane, Kind: queue.ChangeAttempt, State: delivery.Success}, at)
	}
	for lane := range queue.Lane(maxPasts + 100) {
		note(lane+1, now)
	}
	if len(p) != maxPasts || p[maxPasts] == nil || p[maxPasts+1] != nil {
		t.Errorf("%d webhooks", len(p))
	}
	note(1, now.Add(30*time.Minute))
	note(maxPasts+1, now.Add(time.Hour))
	if len(p) != 2 || p[1] == nil || p[maxPasts+1] == nil {
		t.Errorf("%d webhooks after an hour", len(p))
	}
}
