// Package delivery defines, once, the words in which the fate of a delivery is
// told: its states, why it is held or was skipped, what an attempt found out
// and which rule decided what came next.
//
// Guarantee: pure data without behaviour that could fail. Every name has
// exactly one text form, used in the REST API, the log, the metrics and the
// command line; numbers of the enumerations are written to disk and never
// change meaning.
package delivery

import (
	"fmt"
	"time"
)

// State is where a delivery is in its life:
//
//	pending ──attempt──▶ success
//	   ▲  │ ──attempt──▶ failed     (retries used up, or refused for good)
//	   └──┘  retry due later
//	success, failed ──retry, replay──▶ pending
//
// In flight exists in memory only; held is a property of the lane (see
// [HoldReason]), so neither is a State that is stored.
type State uint8

const (
	Pending State = 1 // due now, or at its next attempt's time
	Success State = 2 // the receiver answered 2xx, or the sink took it
	Failed  State = 3 // dead letter: kept and replayable
)

var stateNames = []string{Pending: "pending", Success: "success", Failed: "failed"}

func (s State) String() string { return name(stateNames, s) }

// HoldReason says why a lane makes no attempts for now. "" is not held.
type HoldReason string

const (
	HoldDisabled      HoldReason = "disabled"      // enabled: false
	HoldRemoved       HoldReason = "removed"       // the webhook left the file
	HoldReturned      HoldReason = "returned"      // it came back with another sink or host while deliveries waited
	HoldMisconfigured HoldReason = "misconfigured" // the sink said that its settings, or the service, have to be put right
	HoldPluginDown    HoldReason = "plugin_down"   // its plugin is not ready
	HoldRateLimited   HoldReason = "rate_limited"  // the sink asked for a pause
	HoldStorage       HoldReason = "storage"       // outcomes could not be recorded: disk nearly full
)

// SkipReason says why an event made no delivery for a webhook.
type SkipReason uint8

const (
	SkipDisabled    SkipReason = 1 // the webhook was disabled when the event came
	SkipNotSelected SkipReason = 2 // the webhook's events do not include this one
)

var skipNames = []string{SkipDisabled: "disabled", SkipNotSelected: "event_not_selected"}

func (r SkipReason) String() string { return name(skipNames, r) }

// Skip says why an event of type typ makes no delivery for a webhook; 0 = it
// makes one. takes are the types that the webhook wants, nil is all.
func Skip(enabled bool, takes map[string]bool, typ string) SkipReason {
	switch {
	case !enabled:
		return SkipDisabled
	case takes != nil && !takes[typ]:
		return SkipNotSelected
	}
	return 0
}

// Outcome is what a sink says of one attempt. It does not decide what happens
// next; package retry does.
type Outcome uint8

const (
	Delivered     Outcome = 1 // accepted by the receiver
	Skipped       Outcome = 2 // the sink had nothing to do: success
	Retry         Outcome = 3 // may work later
	RateLimited   Outcome = 4 // the sink asks the whole lane to pause; no attempt used
	Rejected      Outcome = 5 // refused for good
	Misconfigured Outcome = 6 // cannot work until the settings change; no attempt used
	Interrupted   Outcome = 7 // cut short by our own shutdown, or never begun; no attempt used
	Crashed       Outcome = 8 // the sink's process died meanwhile; no attempt used, but crashes are counted
)

// MaxCrashes is how often the process of a sink may die while it has a delivery;
// then the delivery is taken for the cause.
const MaxCrashes = 3

var outcomeNames = []string{Delivered: "delivered", Skipped: "skipped", Retry: "retry", RateLimited: "rate_limited",
	Rejected: "rejected", Misconfigured: "misconfigured", Interrupted: "interrupted", Crashed: "crashed"}

func (o Outcome) String() string { return name(outcomeNames, o) }

// Code classifies what went wrong, in one word for logs, metrics and the
// delivery log. "" is nothing wrong. Sinks may add words of their own.
type Code string

const (
	CodeStatus        Code = "status"          // an HTTP status other than 2xx
	CodeRedirect      Code = "redirect"        // 3xx, never followed
	CodeTimeout       Code = "timeout"         // the attempt's time was used up
	CodeDNS           Code = "dns"             // the name did not resolve
	CodeConnect       Code = "connect"         // no connection: refused, unreachable
	CodeTLS           Code = "tls"             // handshake or certificate
	CodeConnection    Code = "connection"      // broke after it was established
	CodeProtocol      Code = "protocol"        // the answer was not HTTP, or beyond the limits
	CodeForbiddenAddr Code = "forbidden_addr"  // the name resolved to an address that must not be dialled
	CodeProxy         Code = "proxy"           // the proxy refused or failed
	CodeInterrupted   Code = "interrupted"     // the daemon stopped
	CodeDamaged       Code = "damaged"         // the stored payload no longer matches its checksum
	CodeDropped       Code = "dropped"         // discarded by the operator
	CodeRemoved       Code = "webhook_removed" // its webhook left the file and did not come back in time
	CodePanic         Code = "panic"           // the sink panicked
	CodePluginCrash   Code = "plugin_crash"    // the plugin's process died while it had the delivery
	CodePluginDown    Code = "plugin_down"     // the plugin's process was not ready; nothing was sent
	CodeNoResult      Code = "no_result"       // the plugin answered nothing usable for the delivery
)

// Rule names the sentence of the response table that decided what followed an
// attempt.
type Rule string

const (
	RuleDelivered     Rule = "2xx_success"
	RuleSkipped       Rule = "sink_skipped"
	RuleRedirect      Rule = "3xx_never_followed"
	RuleClientError   Rule = "4xx_final"
	RuleAlsoOn        Rule = "status_in_also_on"
	RuleServerError   Rule = "5xx_retried"
	RuleNetwork       Rule = "network_error_retried"
	RuleSinkRetry     Rule = "sink_asked_retry"
	RuleRejected      Rule = "sink_rejected"
	RuleExhausted     Rule = "retries_used_up"
	RuleRateLimited   Rule = "rate_limited_lane_paused"
	RuleMisconfigured Rule = "misconfigured_lane_held"
	RuleInterrupted   Rule = "interrupted_not_counted"
	RuleDamaged       Rule = "payload_damaged"
	RuleDropped       Rule = "dropped_by_operator"
	RuleCrashed       Rule = "plugin_crashed_not_counted"
	RulePoison        Rule = "plugin_crashed_too_often"
)

// UnverifiedMessage is the Message of an attempt over https that took any
// certificate for the receiver's.
const UnverifiedMessage = "the receiver's certificate was not verified (tls.insecure_skip_verify)"

// Header is one HTTP header, in the order in which it travels.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Phases is how long the parts of an HTTP exchange took; zero for a part that
// did not take place (a reused connection has no DNS, Connect or TLS).
type Phases struct {
	DNS       time.Duration
	Connect   time.Duration // behind a proxy: until that carries the connection
	TLS       time.Duration
	FirstByte time.Duration // from the last byte of the request written
}

// Request is what an attempt sent, as it may be shown: values that came from
// references are those references, literal secrets are masked. It is shared by
// all attempts of one webhook under one configuration and never modified.
type Request struct {
	Method  string   `json:"method"`
	URL     string   `json:"url"`     // scheme and host; path, query and userinfo masked unless a reference
	Headers []Header `json:"headers"` // the webhook's own, as in the file
}

// Attempt is one try of one delivery: what was sent, what came back, what was
// decided.
type Attempt struct {
	Number   int           // 1-based, over all schedules and replays
	Started  time.Time     // wall clock, UTC
	Duration time.Duration // monotonic
	Phases   Phases
	Reused   bool   // an idle connection was used again
	Remote   string // address dialled, "ip:port"

	Request    *Request // nil for a sink that sends no HTTP request
	Signatures []Header // the signature headers, exactly as sent

	Outcome       Outcome
	Status        int // HTTP status; 0 when no response came
	Headers       []Header
	Body          []byte // excerpt: 16 KiB of a failure, 256 B of a success
	BodyTruncated bool
	Code          Code
	Error         string        // for people; no URL path, no secret
	Message       string        // what a sink remarks beside the outcome, for people; of the http sink only UnverifiedMessage
	RemoteURL     string        // where a person can see what a plugin made; "" = nowhere
	EntryState    []byte        // what a plugin wants to find at the entry's next delivery; nil = what is kept stays
	RetryAfter    time.Duration // what the receiver asked for; 0 = nothing

	// Decided by package retry.
	Rule   Rule
	State  State
	NextIn time.Duration // Pending: time until the next attempt
}

func name[T ~uint8](names []string, v T) string {
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return fmt.Sprintf("unknown(%d)", uint8(v))
}
