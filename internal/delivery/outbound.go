package delivery

import "errors"

// Outbound is one delivery as a sink sees it: everything that one attempt
// needs to know about what it carries. It is shared and must not be modified.
type Outbound struct {
	DeliveryID string
	EventID    string
	EventType  string
	EntryID    string
	Webhook    string // helper.webhook
	Attempt    int    // 1-based, over all schedules and replays
	Test       bool   // a sample that an operator asked for, not a queued delivery
	Payload    []byte
}

// ErrShutdown is the cancellation cause of attempts that are cut short because
// the daemon stops. A sink answers it with [Interrupted].
var ErrShutdown = errors.New("daemon is stopping")
