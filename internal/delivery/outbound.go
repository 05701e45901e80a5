package delivery

import "errors"

// ErrShutdown is the cause with which the context of an attempt is cancelled
// when the daemon stops and will not wait for it any longer.
var ErrShutdown = errors.New("daemon is stopping")

// Outbound is one attempt as a sink gets it. The sink must not modify it and
// must not keep Payload after the attempt is over.
type Outbound struct {
	DeliveryID string // stable over retries and replays
	EventID    string
	EventType  string // "entry.created"
	EntryID    string
	Webhook    string // "helper.webhook"
	Attempt    int    // 1-based, over all schedules and replays
	Test       bool   // made by an operator's test, not by an event
	Payload    []byte // the exact bytes to sign and send
}
