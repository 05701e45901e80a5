package rest

// Values of Delivery.Status. The stored states are pending, success and
// failed; held and in_flight are what a pending one is at this moment.
const (
	StatusPending  = "pending"
	StatusHeld     = "held"
	StatusInFlight = "in_flight"
	StatusSuccess  = "success"
	StatusFailed   = "failed"
)

// Statuses returns every value of Delivery.Status, in the order in which a
// delivery meets them.
func Statuses() []string {
	return []string{StatusPending, StatusHeld, StatusInFlight, StatusSuccess, StatusFailed}
}

// Delivery is one row of the delivery log. It has more than fifteen fields
// because it is a flat row: tables and scripts pick columns of it.
type Delivery struct {
	ID            string     `json:"id"`      // del_…
	Webhook       string     `json:"webhook"` // helper.webhook
	EventID       string     `json:"event_id"`
	Event         string     `json:"event"` // entry.created
	EntryID       string     `json:"entry_id"`
	Status        string     `json:"status"`      // one of Statuses
	StatusCode    StatusCode `json:"status_code"` // of the last attempt
	Attempts      int        `json:"attempts"`    // made so far, over all schedules and replays
	CreatedAt     Time       `json:"created_at"`  // when the event was accepted
	DeliveredAt   Time       `json:"delivered_at"`
	FailedAt      Time       `json:"failed_at"`
	NextAttemptAt Time       `json:"next_attempt_at"` // null when due now, held, in flight or finished
	HeldReason    string     `json:"held_reason"`     // disabled, removed, misconfigured, plugin_down, rate_limited, storage
	Code          string     `json:"code"`            // class of what went wrong last: status, timeout, dns, …
	Error         string     `json:"error"`           // of the last attempt, for people
	Unstable      bool       `json:"unstable_json"`   // some number does not survive JSON.parse in JavaScript
}

// DeliveryPage answers GET /v1/deliveries and
// GET /v1/webhooks/{id}/deliveries: newest first.
type DeliveryPage struct {
	Deliveries []Delivery `json:"deliveries"`
	// NextCursor continues the listing; "" at its end. A page may be shorter
	// than the limit, even empty, and still have a NextCursor: one request looks
	// at a bounded number of rows.
	NextCursor string `json:"next_cursor"`
}

// DeliveryDetail answers GET /v1/deliveries/{id}.
type DeliveryDetail struct {
	Delivery

	Format string `json:"format"` // peanuts or event
	// WaitsFor is the delivery of the same webhook and entry that must end before
	// this one is attempted; "" when there is none.
	WaitsFor string `json:"waits_for"`
	// Payload is a text that holds exactly the bytes that are signed and sent;
	// "" once they were let go by retention, see PayloadExpired.
	Payload        string    `json:"payload"`
	PayloadExpired bool      `json:"payload_expired"`
	Log            []Attempt `json:"log"` // oldest first
	// Curl is a script for sh that repeats the request of the last attempt; ""
	// when there was none, or its payload is gone. The
	// URL and secrets are shell variables; comment lines before it say where in
	// the configuration each comes from.
	Curl string `json:"curl"`
	// Explanation says why the delivery is where it is and what comes next, one
	// sentence in each element.
	Explanation []string `json:"explanation"`
}

// Attempt is one try of a delivery. It has more than fifteen fields because it
// is the whole record of what went out, what came back and what was decided.
type Attempt struct {
	Number        int       `json:"number"` // from 1
	StartedAt     Time      `json:"started_at"`
	Duration      Millis    `json:"duration_ms"`
	Phases        Phases    `json:"phases"`
	Reused        bool      `json:"reused"`   // an idle connection was used again
	Remote        string    `json:"remote"`   // address dialled, ip:port
	Request       *Request  `json:"request"`  // null for a sink that sends no HTTP request
	Response      *Response `json:"response"` // null when none came
	Outcome       string    `json:"outcome"`  // delivered, retry, rejected, …
	Code          string    `json:"code"`
	Error         string    `json:"error"`
	Message       string    `json:"message"`        // what the sink says of it, for people; "" = nothing
	RemoteURL     string    `json:"remote_url"`     // where a person can see the result; "" = nowhere
	RetryAfter    Millis    `json:"retry_after_ms"` // what the receiver asked for; 0 = nothing
	Rule          string    `json:"rule"`           // the sentence of the response table that decided
	RuleText      string    `json:"rule_text"`      // the same in words
	State         string    `json:"state"`          // pending, success or failed: what the rule decided
	NextAttemptAt Time      `json:"next_attempt_at"`
}

// Phases is how long the parts of an attempt took; 0 for one that did not take
// place.
type Phases struct {
	DNS       Millis `json:"dns_ms"`
	Connect   Millis `json:"connect_ms"`
	TLS       Millis `json:"tls_ms"`
	FirstByte Millis `json:"first_byte_ms"` // from the last byte of the request written
}

// Header is one HTTP header in the order in which it travelled.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Request is what an attempt sent. Its body is the payload.
type Request struct {
	Method  string   `json:"method"`
	URL     string   `json:"url"`     // as it may be shown
	Headers []Header `json:"headers"` // signatures as sent, the webhook's own as the file has them
}

// Response is what came back.
type Response struct {
	Status  int      `json:"status"`
	Headers []Header `json:"headers"`
	// Body is an excerpt: 16 KiB of a failure, 256 bytes of a success. Bytes
	// that are not UTF-8 are in base64 and BodyEncoding says so.
	Body          string `json:"body"`
	BodyEncoding  string `json:"body_encoding"` // utf-8 or base64
	BodyTruncated bool   `json:"body_truncated"`
}

// Events answers GET /v1/events/{id}: usually one; several when senders used
// the same id for different helpers.
type Events struct {
	Events []Event `json:"events"`
}

// Event is one accepted event and what became of it.
type Event struct {
	ID          string     `json:"id"` // evt_… or the sender's
	Helper      string     `json:"helper"`
	Event       string     `json:"event"`
	EntryID     string     `json:"entry_id"`
	Timestamp   Time       `json:"timestamp"`
	AcceptedAt  Time       `json:"accepted_at"`
	Unstable    bool       `json:"unstable_json"`
	Payloads    []Payload  `json:"payloads"` // one per format that a delivery uses; empty once let go
	Deliveries  []Delivery `json:"deliveries"`
	Skipped     []Skip     `json:"skipped"`
	Explanation []string   `json:"explanation"`
}

// Payload is the exact bytes that were made of an event.
type Payload struct {
	Format string `json:"format"`
	Body   string `json:"body"`
}

// Skip says why a webhook got no delivery of an event.
type Skip struct {
	Webhook     string `json:"webhook"`
	Reason      string `json:"reason"` // disabled, event_not_selected
	Explanation string `json:"explanation"`
}

// Values of Change.Kind.
const (
	KindAccepted = "accepted" // a new delivery
	KindAttempt  = "attempt"  // an attempt was recorded
	KindRequeued = "requeued" // retried or replayed by an operator
	KindDropped  = "dropped"  // discarded by an operator, or its webhook did not come back: the code says which
)

// Change is the data of a server-sent event "delivery" of
// GET /v1/deliveries/stream: the delivery as it was when the change was sent.
type Change struct {
	Kind     string   `json:"kind"`
	At       Time     `json:"at"`
	Delivery Delivery `json:"delivery"`
}

// Missed is the data of a server-sent event "missed": the reader was too slow
// and this many changes were left out before the next one.
type Missed struct {
	Missed uint64 `json:"missed"`
}
