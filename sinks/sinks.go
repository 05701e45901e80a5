package sinks

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"
)

// Plugin is a sink as its author describes it. C is the type of its settings: a
// struct, whose fields and tags become the JSON Schema (see [Schema]).
//
// Name and Open are required.
type Plugin[C any] struct {
	// Name is what operators write after `sink:`, [a-z0-9][a-z0-9-]{0,62}. The binary is
	// called peanuts-sink-<name>.
	Name     string
	Version  string // for people; semantic versioning is usual
	Summary  string // one line
	Homepage string // URL of the documentation

	Capabilities Capabilities

	// Open makes the sink for one webhook. It is called once for each configuration of a
	// webhook, with settings that passed the schema and their Validate; ctx ends after
	// 10 s. Its error is shown at the webhook's settings; a [SettingError] at the very
	// setting. Nothing may be sent yet.
	Open func(ctx context.Context, env Env, settings C) (Sink, error)
}

// Capabilities tell the relay how to call a sink. The zero value is one delivery at a
// time and call, of all events, in any order, as fast as they come.
type Capabilities struct {
	Events          []string // event types that the sink can carry; nil = all
	MaxBatch        int      // most deliveries in one call of a [BatchSink], which the sink has to be then; 0 = 1
	MaxBatchBytes   int      // most bytes of payload in one call; 0 = the relay's limit, 3 MiB
	MaxConcurrency  int      // most calls at a time for one webhook; 0 = the webhook's `concurrency`
	OrderedPerEntry bool     // each delivery of an entry comes after the one before it has succeeded or failed
	Idempotent      bool     // the same delivery id again has no second effect
	UsesState       bool     // Delivery.State and Receipt.State are used; implies OrderedPerEntry
	MaxPerSecond    float64  // most calls a second for one webhook, on average; 0 = no limit
	Burst           int      // how many of them may come at once; 0 = 1
}

// Sink carries deliveries to one remote side, for one webhook.
//
// Deliver tries once, and says with its error what became of it:
//
//	nil                        the remote side has it
//	[Skip]                     there was nothing to do: success
//	[Reject]                   it will never work: the delivery fails now
//	[RateLimited]              the webhook pauses; no attempt is used up
//	[Misconfigured]            it cannot work until the settings change: the webhook is held; no attempt is used up
//	any other error            it may work later: the relay's schedule decides when
//
// When it is not known whether the remote side has it (a timeout after the request was
// written), it may not: return the error. The relay tries again under the same
// [Delivery].ID, so let the remote side see that id.
//
// Deliver may be called concurrently, Capabilities.MaxConcurrency times. ctx ends with the
// webhook's timeout; Deliver has to return soon after. A panic counts as an error with
// the code "panic". Errors are logged and shown: they must hold no secret.
//
// A Sink may also be a [BatchSink], a [HealthChecker] and an [io.Closer], which is closed
// after its last delivery.
type Sink interface {
	Deliver(ctx context.Context, d *Delivery) (Receipt, error)
}

// BatchSink is a Sink that takes several deliveries at once, up to
// Capabilities.MaxBatch; Deliver is not called then.
//
// The results are those of ds, in the same order; the zero Result is a delivery that the
// remote side has. An error instead of results is the outcome of all of them. When
// DeliverBatch panics over several it is called again with each of them alone, so that the
// one at fault takes no other with it.
type BatchSink interface {
	Sink
	DeliverBatch(ctx context.Context, ds []*Delivery) ([]Result, error)
}

// Result is what became of one delivery of a batch. Err is as in [Sink].
type Result struct {
	Receipt Receipt
	Err     error
}

// HealthChecker is a Sink that knows whether it is well. It is asked every 15 s and must
// answer within 2 s, from what it knows. An error is shown to the operator and changes
// nothing else.
type HealthChecker interface {
	Healthy(ctx context.Context) error
}

// Validator is a type of settings that can be wrong in ways that the schema cannot say.
// Validate reports through v and keeps nothing. It is a method of the settings type or of
// a pointer to it.
type Validator interface {
	Validate(ctx context.Context, v *Validation)
}

// Env is what the relay gives a sink besides its settings. The zero value works, for
// tests.
type Env struct {
	Webhook     string       // "helper.webhook"
	HostVersion string       // of the relay; "" in tests
	Log         *slog.Logger // to the relay's log, at its own level. Never log a secret or a payload. nil only in tests; see Logger
}

// Logger is Log, or one that discards.
func (e Env) Logger() *slog.Logger {
	if e.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Log
}

// Delivery is one event for one webhook. It is shared and must not be modified.
type Delivery struct {
	ID        string // idempotency key: the same on every attempt and replay
	Webhook   string // "helper.webhook"
	EventID   string
	Event     string    // [Created], [Updated], [Deleted], or a type that the helper declares
	Timestamp time.Time // of the event, as its sender says; UTC
	Helper    Helper
	Entry     Entry
	User      *User  // nil when the event has none
	Attempt   int    // 1-based
	Payload   []byte // the exact bytes that are signed: forward them untouched
	// Headers are the signature headers of Payload, to be forwarded with it; nil when the
	// webhook is not signed.
	Headers map[string]string
	// State is the last Receipt.State of this webhook and entry; nil when there is none.
	State []byte
	// Sequence is the order of acceptance: newer is larger, whatever the senders' clocks
	// say.
	Sequence uint64
	Test     bool // a sample that an operator asked for; its entry id begins with "test_"
}

// The types of events that every helper has.
const (
	Created = "entry.created"
	Updated = "entry.updated"
	Deleted = "entry.deleted"
)

// Helper is the mini-app that an entry belongs to.
type Helper struct {
	ID      string
	Name    string
	Command string // slash command; "" when it has none
}

// Entry is what an event is about.
type Entry struct {
	ID        string
	CreatedAt time.Time
	Data      json.RawMessage // a JSON object; keys in order, numbers exact. See [Entry.Fields]
}

// User is who caused an event.
type User struct {
	ID string
}

// Receipt is what is worth knowing of an attempt, shown in the delivery log. The zero
// value is fine.
type Receipt struct {
	Status    int    // HTTP status of the remote side; 0 = none
	Message   string // for people, without secrets; at most 2 KiB are kept
	RemoteURL string // where a person can see the result
	// State is kept for this webhook and entry, at most 4 KiB, and comes with the entry's
	// next delivery. nil leaves what is kept. It is dropped after a successful
	// entry.deleted that sets none.
	State []byte
}
