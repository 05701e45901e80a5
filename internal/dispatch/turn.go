package dispatch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// overdue is how much longer than its timeout a call of a sink may take before it counts
// as one that never ends. Sinks end soon after their context does ([Sink]); on a machine
// that is short of everything, soon can be a minute.
const overdue = 2 * time.Minute

// Turn returns once the dispatcher has come round after the call: its timers answered and
// each lane's lock was free for a moment. at hears what is waited for, before each wait.
// The error, unless it is that of ctx, names a lane whose calls all take longer than their
// timeout and [overdue] allow: its sink does not return, and nothing of the lane is
// delivered any more. A dispatcher that is not started, or stops, has nothing to show.
//
// Turn does not return while a lock is held for ever; ctx does not end that wait.
func (d *Dispatcher) Turn(ctx context.Context, at func(what string)) error {
	if !d.started.Load() || d.stopping.Load() {
		return nil
	}
	at("the timers of the lanes")
	asked := make(chan struct{})
	select {
	case d.timers.ask <- asked:
	case <-d.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	table := d.table.Load()
	for _, num := range slices.Sorted(maps.Keys(table.slots)) {
		l, webhook := table.lanes[num], table.slots[num].Webhook
		at("the lane of " + webhook)
		if took := l.stuck(); took > 0 {
			return fmt.Errorf("the sink of %s has not returned for %v; its timeout is %v",
				webhook, took.Round(time.Second), table.slots[num].timeout())
		}
	}
	return nil
}

// stuck is for how long no call of the lane has ended although all that are under way
// should have; 0 when none is that late. What is being filled waits of its own accord.
func (l *lane) stuck() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.slot()
	if s == nil || l.calls.n == 0 || l.calls.waiting != nil {
		return 0
	}
	took := time.Duration(l.d.store.Now()-l.calls.moved) * time.Millisecond
	if took <= s.timeout()+overdue {
		return 0
	}
	return took
}
