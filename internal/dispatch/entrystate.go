package dispatch

import (
	"errors"
	"fmt"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// stateOf is whose states a call under this target reads and writes; "" is
// none.
func (s *slot) stateOf(limits *Limits) string {
	if !limits.State {
		return ""
	}
	return s.SinkName
}

// recall puts what the sink has kept for the entry into o; false when the store
// does not say, so that the delivery cannot be attempted now. It is called after
// the claim: nothing else of an ordered entry is under way then, and what was
// kept last is durable.
func (d *Dispatcher) recall(sink string, del *queue.Delivery, o *delivery.Outbound) bool {
	if sink == "" {
		return true
	}
	state, err := d.store.EntryState(del.Lane, sink, del.EntryID)
	if err == nil {
		o.EntryState = state
		return true
	}
	if errors.Is(err, queue.ErrStopped) {
		d.dead.Store(true) // the store itself has reported why
	} else {
		d.log.Error("the state of an entry cannot be read", "webhook", o.Webhook, "delivery_id", o.DeliveryID, "err", err)
	}
	return false
}

// notSent is the outcome of an attempt that was not begun.
func notSent(o *delivery.Outbound) delivery.Attempt {
	return delivery.Attempt{Number: o.Attempt, Outcome: delivery.Interrupted, Code: delivery.CodeInterrupted}
}

// boundState refuses a state that is too large, whatever the sink made of the
// delivery: its next attempt would begin without what the sink believes is kept.
func boundState(a *delivery.Attempt) {
	if n := len(a.EntryState); n > queue.MaxEntryState {
		*a = delivery.Attempt{Number: a.Number, Started: a.Started, Duration: a.Duration, Outcome: delivery.Retry, Code: delivery.CodeNoResult,
			Error: fmt.Sprintf("the sink wants to keep %d bytes for the entry, the limit is %d", n, queue.MaxEntryState)}
	}
}
