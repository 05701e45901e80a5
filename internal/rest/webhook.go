package rest

// Helpers answers GET /v1/helpers.
type Helpers struct {
	Helpers []Helper `json:"helpers"`
}

// Helper is one helper of the running configuration.
type Helper struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Command  string   `json:"command"`
	Fields   []Field  `json:"fields"`   // declared fields of an entry
	Events   []string `json:"events"`   // event types that it takes
	Webhooks []string `json:"webhooks"` // ids of its webhooks
}

// Field is a declared field of an entry.
type Field struct {
	Name string `json:"name"`
	Type string `json:"type"` // number, string, boolean, list, object
}

// Webhooks answers GET /v1/webhooks.
type Webhooks struct {
	Webhooks []Webhook `json:"webhooks"`
}

// Values of Webhook.State.
const (
	WebhookActive = "active" // deliveries are attempted
	WebhookHeld   = "held"   // they wait, see HeldReason
)

// Webhook answers GET /v1/webhooks/{id}: what runs, and how it fares. A
// webhook that left the configuration while deliveries of it remain is held
// with the reason removed; its settings are then empty. It has more than
// fifteen fields because it is the webhook of the configuration file, flat as
// there, and its state.
type Webhook struct {
	ID          string      `json:"id"` // helper.webhook
	Helper      string      `json:"helper"`
	Sink        string      `json:"sink"`
	URL         string      `json:"url"` // as it may be shown
	Headers     []Header    `json:"headers"`
	Events      []string    `json:"events"` // event types that it takes
	Enabled     bool        `json:"enabled"`
	Format      string      `json:"format"`
	Signatures  []Signature `json:"signatures"`
	Retry       Retry       `json:"retry"`
	Concurrency int         `json:"concurrency"`
	State       string      `json:"state"`
	HeldReason  string      `json:"held_reason"`
	HeldText    string      `json:"held_text"` // the same in words
	// HeldUntil is when the hold ends by itself: the pending deliveries of a
	// removed webhook fail then, those of a rate-limited one go on. null = it does
	// not.
	HeldUntil Time   `json:"held_until"`
	Counts    Counts `json:"counts"`
	// NextAttemptAt is when the earliest of the waiting deliveries is due; null
	// when none waits or the webhook is held.
	NextAttemptAt Time `json:"next_attempt_at"`
	// Last is the delivery whose attempt was recorded last, or, when there was
	// none since the start, the newest finished one; null without any.
	Last *Delivery `json:"last"`
}

// Signature is one signature scheme of a webhook.
type Signature struct {
	Scheme  string   `json:"scheme"`  // peanuts, hex, standard
	Headers []string `json:"headers"` // names of the headers that it sends
}

// Retry is a webhook's retry policy.
type Retry struct {
	Schedule []string `json:"schedule"` // waits between attempts, such as "1m0s"
	Timeout  string   `json:"timeout"`  // of one attempt
	AlsoOn   []int    `json:"also_on"`  // status codes that are retried besides 5xx
}

// Counts is how many deliveries of a webhook, or of all, are in which state.
// Success and Failed count everything ever finished, whether still in the log or
// not; a retry or replay takes the delivery out again. Pending includes those in
// flight and those held.
type Counts struct {
	Pending   int64 `json:"pending"`
	InFlight  int64 `json:"in_flight"`
	Held      int64 `json:"held"`
	Success   int64 `json:"success"`
	Failed    int64 `json:"failed"`
	LiveBytes int64 `json:"live_bytes"`
}

// TestRequest is the body of POST /v1/webhooks/{id}/test; it may be left out.
type TestRequest struct {
	Event string `json:"event,omitempty"` // default: the first that the webhook takes
}

// TestResult answers it. The test is not queued and never retried.
type TestResult struct {
	Webhook    string  `json:"webhook"`
	EventID    string  `json:"event_id"`
	DeliveryID string  `json:"delivery_id"`
	Event      string  `json:"event"`
	EntryID    string  `json:"entry_id"` // test_…
	Payload    string  `json:"payload"`
	Delivered  bool    `json:"delivered"` // whether the receiver accepted it
	Attempt    Attempt `json:"attempt"`
	Curl       string  `json:"curl"`
}

// ReplayRequest is the body of POST /v1/webhooks/{id}/replay. Since and Until
// are RFC 3339 times or durations ago ("2h", "7d"), "" is no bound.
type ReplayRequest struct {
	Since  string `json:"since,omitempty"`
	Until  string `json:"until,omitempty"`
	Status string `json:"status,omitempty"` // success, failed or both with a comma; default failed, with EventID both
	Event  string `json:"event,omitempty"`  // an event type; "" = all
	// EventID names one event. Where is an expression of jq over the payload; what it
	// selects is replayed. It may read the payload only.
	EventID string `json:"event_id,omitempty"`
	Where   string `json:"where,omitempty"`
	// Rate is how many deliveries a second are put back; 0 is as many as the
	// webhook takes. Live traffic goes first either way.
	Rate   float64 `json:"rate,omitempty"`
	DryRun bool    `json:"dry_run,omitempty"` // only count
}

// Replays answers GET /v1/replays: those under way and those that ended.
type Replays struct {
	Replays []Replay `json:"replays"`
}

// Replay is a replay under way, ended, or, with DryRun, only counted: it then
// has no ID. It has more than fifteen fields because it is what was asked for and
// how far it is, flat as a row of a table.
type Replay struct {
	ID        string   `json:"id"`
	Webhook   string   `json:"webhook"`
	Status    []string `json:"status"`
	Event     string   `json:"event"`
	EventID   string   `json:"event_id"`
	Where     string   `json:"where"`
	Since     Time     `json:"since"`
	Until     Time     `json:"until"`
	Rate      float64  `json:"rate"`
	DryRun    bool     `json:"dry_run"`
	Matched   int64    `json:"matched"`   // finished deliveries that the request names
	Requeued  int64    `json:"requeued"`  // put back so far
	Expired   int64    `json:"expired"`   // left out: their payload is gone
	Undecided int64    `json:"undecided"` // left out: where failed on their payload
	Trouble   string   `json:"trouble"`   // the first of those, and why
	Done      bool     `json:"done"`
	StartedAt Time     `json:"started_at"`
}

// Minutes answers GET /v1/webhooks/{id}/minutes: the attempts of the last 60 minutes, the
// one under way included, as far as the daemon has run. Oldest first, none left out.
type Minutes struct {
	Webhook string   `json:"webhook"`
	Minutes []Minute `json:"minutes"`
}

// Minute counts the attempts that ended in one minute, by what they made of their
// deliveries.
type Minute struct {
	At        Time   `json:"at"` // its beginning
	Delivered uint32 `json:"delivered"`
	Failed    uint32 `json:"failed"`  // for good
	Retried   uint32 `json:"retried"` // there will be another one
	Mean      Millis `json:"mean_ms"` // of the durations of all of them; 0 without any
	Max       Millis `json:"max_ms"`  // the longest of them
}
