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
	Replayed   bool   // goes to another receiver than its webhook's, because an operator wanted to look at it
	Payload    []byte
	Sequence   uint64 // order of acceptance; 0 for a Test
	Crashes    int    // how many times a plugin's process died while it had this delivery
	EntryState []byte // what the sink's last success left for the entry; nil = nothing
}

// ErrShutdown is the cancellation cause of attempts that are cut short because
// the daemon stops. A sink answers it with [Interrupted].
var ErrShutdown = errors.New("daemon is stopping")
