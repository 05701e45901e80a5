package rest

// AuditLine is one line of the answer to GET /v1/audit: exactly one of its fields is
// not null. The last line is not Progress.
type AuditLine struct {
	Progress *AuditProgress `json:"progress"`
	Audit    *Audit         `json:"audit"`
	Error    *ErrorBody     `json:"error"` // why it was given up
}

// AuditProgress is how far an audit is.
type AuditProgress struct {
	Events int64 `json:"events"` // that were dealt with, of all that were ever accepted
	Of     int64 `json:"of"`
	Rows   int64 `json:"rows"` // of the store that were read
}

// Audit is what the books of the store say at one moment, and what its rows say.
type Audit struct {
	At      Time   `json:"at"`
	StoreID string `json:"store_id"`
	OK      bool   `json:"ok"` // nothing is wrong
	Rows    int64  `json:"rows"`
	// Events: accepted = kept + forgotten + lost.
	Events AuditEvents `json:"events"`
	// Deliveries is the sum of Webhooks; accepted = success + failed + pending.
	Deliveries AuditCounts    `json:"deliveries"`
	Pending    []AuditPending `json:"pending"`
	Webhooks   []AuditWebhook `json:"webhooks"`
	Problems   []AuditProblem `json:"problems"` // at most 100
	Wrong      int64          `json:"wrong"`    // all of them
}

// AuditEvents counts events.
type AuditEvents struct {
	Accepted  int64 `json:"accepted"`
	Kept      int64 `json:"kept"`
	Forgotten int64 `json:"forgotten"` // let go by retention
	// Lost were damaged at rest, and named by a repair of the queue.
	Lost int64 `json:"lost,omitzero"`
}

// AuditCounts counts deliveries: success + failed = in_log + set_aside + removed +
// forgotten.
type AuditCounts struct {
	Accepted  int64 `json:"accepted"`
	Pending   int64 `json:"pending"`
	Success   int64 `json:"success"` // delivered, ever
	Failed    int64 `json:"failed"`  // given up, ever
	InLog     int64 `json:"in_log"`
	SetAside  int64 `json:"set_aside"` // their rows were damaged
	Removed   int64 `json:"removed"`   // taken out of the log by an operator, or lost before a repair
	Forgotten int64 `json:"forgotten"` // let go by retention
}

// AuditPending counts what is pending for one reason.
type AuditPending struct {
	HeldReason string `json:"held_reason"` // "" = not held
	Count      int64  `json:"count"`
}

// AuditWebhook is the part of one webhook.
type AuditWebhook struct {
	Webhook    string      `json:"webhook"`
	HeldReason string      `json:"held_reason"`
	Deliveries AuditCounts `json:"deliveries"`
}

// AuditProblem is something that does not fit.
type AuditProblem struct {
	ID   string `json:"id"` // of the delivery or event; "" = of neither
	What string `json:"what"`
}

// AuditIDs asks for events that somebody believes accepted, at most 1000.
type AuditIDs struct {
	IDs []string `json:"ids"`
}

// AuditAccounts answers it, in the same order.
type AuditAccounts struct {
	Events []AuditAccount `json:"events"`
}

// AuditAccount is what is known of one.
type AuditAccount struct {
	ID        string `json:"id"`
	Known     bool   `json:"known"`     // it was accepted
	Forgotten bool   `json:"forgotten"` // and its record was let go by retention
	Pending   int    `json:"pending"`   // deliveries
	Success   int    `json:"success"`
	Failed    int    `json:"failed"`
	Gone      int    `json:"gone"` // that are not in the log any more
}
