package rest

// Values of Status.State.
const (
	StateOK       = "ok"       // accepts and delivers
	StateDegraded = "degraded" // runs, but refuses events, holds deliveries, or is not what the files say; Reasons says why
	StateStopping = "stopping" // finishes what is in flight
)

// Status answers GET /v1/status.
type Status struct {
	Version   string   `json:"version"`
	Commit    string   `json:"commit"`
	GoVersion string   `json:"go_version"`
	PID       int      `json:"pid"`
	StartedAt Time     `json:"started_at"`
	Uptime    Millis   `json:"uptime_ms"`
	State     string   `json:"state"`
	Reasons   []string `json:"reasons"`
	Config    Config   `json:"config"`
	Listen    Listen   `json:"listen"`
	Ingest    Ingest   `json:"ingest"`
	Queue     Queue    `json:"queue"`
	Webhooks  []Lane   `json:"webhooks"`
	Plugins   []Plugin `json:"plugins"`
	Replays   int      `json:"replays"` // under way
}

// Config says which configuration runs.
type Config struct {
	Path       string   `json:"path"`
	Files      []string `json:"files"`      // every file it was read from, in the order of merging
	Generation uint64   `json:"generation"` // counts applied configurations, over restarts, from 1
	Digest     string   `json:"digest"`     // sha256 over the files as they run
	LoadedAt   Time     `json:"loaded_at"`
	Warnings   []string `json:"warnings"`

	State      string `json:"state"`       // current, rejected, last_known_good
	FileDigest string `json:"file_digest"` // sha256 over the files as they were last read
	// LastReload is the newest attempt to change what runs; null since the start
	// none.
	LastReload *Reload `json:"last_reload"`
	// RestartRequired lists keys whose value in the files takes effect at the
	// next start only and differs from what runs.
	RestartRequired []string `json:"restart_required"`
	// Watching says how changed files are noticed: events, polling.
	Watching string `json:"watching"`
	// Reloads counts the attempts to change what runs since the start, by what
	// asked for them and how they ended; what never happened may be left out.
	Reloads []ReloadCount `json:"reloads"`
}

// ReloadCount counts the reloads of one kind.
type ReloadCount struct {
	Trigger string `json:"trigger"` // one of ReloadTriggers
	Result  string `json:"result"`  // one of ReloadResults
	Count   uint64 `json:"count"`
}

// Reload is the outcome of the newest reload.
type Reload struct {
	At      Time   `json:"at"`
	Trigger string `json:"trigger"`
	Result  string `json:"result"`
	Errors  int    `json:"errors"`
	Error   string `json:"error"` // the first of them, with file and line
}

// Listen says where the daemon listens.
type Listen struct {
	Events string `json:"events"`
	Admin  string `json:"admin"`
	Web    string `json:"web"` // address of the page and REST; "" = off
	// Metrics is the TCP address of the metrics listener; "" = there is none.
	Metrics string `json:"metrics"`
}

// Ingest counts what came in since the start.
type Ingest struct {
	Accepted   uint64     `json:"accepted"`
	Duplicates uint64     `json:"duplicates"`
	Unstable   uint64     `json:"unstable_json"`
	Rejected   []Rejected `json:"rejected"` // by reason, in the order of the reasons
}

// Rejected counts refused events of one reason.
type Rejected struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// Queue is the state of the store.
type Queue struct {
	Dir             string `json:"dir"`
	State           string `json:"state"` // starting, ok, no_space, stopped
	StoreID         string `json:"store_id"`
	Accepted        int64  `json:"accepted"` // deliveries ever made; = success + failed + pending
	Counts          Counts `json:"counts"`
	OldestPendingAt Time   `json:"oldest_pending_at"` // acceptance of the oldest that waits for its first attempt
	MaxBytes        int64  `json:"max_bytes"`         // of live bytes; then events are refused
	DiskFree        int64  `json:"disk_free_bytes"`
	MinFree         int64  `json:"min_free_bytes"` // below it events are refused
	Groups          int64  `json:"groups"`         // commits, each one fsync, ever
	Quarantined     int64  `json:"quarantined"`    // damaged records set aside
	// ClockAhead is how far the time that retries go by is ahead of the system's
	// clock: far from 0 when that was set while the daemon ran.
	ClockAhead Millis `json:"clock_ahead_ms"`
}

// Lane is the short state of one webhook.
type Lane struct {
	Webhook       string `json:"webhook"`
	State         string `json:"state"`
	HeldReason    string `json:"held_reason"`
	HeldUntil     Time   `json:"held_until"` // when the hold ends by itself; of a removed webhook: when its pending deliveries fail
	Counts        Counts `json:"counts"`
	NextAttemptAt Time   `json:"next_attempt_at"`
}

// Values of Plugin.State.
const (
	PluginStarting  = "starting"  // the process is on its way
	PluginReady     = "ready"     // it takes deliveries
	PluginBackoff   = "backoff"   // it ended and is started again at NextStartAt
	PluginSuspended = "suspended" // it ended too often; one start is tried every 5 minutes
	PluginDraining  = "draining"  // replaced or no longer needed; it ends
)

// PluginStates are all of them.
func PluginStates() []string {
	return []string{PluginStarting, PluginReady, PluginBackoff, PluginSuspended, PluginDraining}
}

// Plugin is the process of one sink plugin. While it is replaced there are two of the
// same sink. It has many fields because it is all that can be known.
type Plugin struct {
	Sink        string   `json:"sink"`
	Path        string   `json:"path"`
	SHA256      string   `json:"sha256"`   // of the file that runs; "" = it could not be opened yet
	Outdated    bool     `json:"outdated"` // the file on the disk is another one; a reload starts it
	Version     string   `json:"version"`  // as the plugin says; "" before it said
	State       string   `json:"state"`
	PID         int      `json:"pid"` // 0 = there is no process
	Since       Time     `json:"since"`
	NextStartAt Time     `json:"next_start_at"` // null unless backoff or suspended
	Restarts    uint64   `json:"restarts"`      // since the daemon's start
	Crashes     int      `json:"crashes"`       // ends and failed starts in the last ten minutes; five suspend it
	Dropped     uint64   `json:"dropped_lines"` // of the process's output that were not logged: there were too many
	LastError   string   `json:"last_error"`    // why it ended, or did not start, the last time; "" = never
	CrashReport string   `json:"crash_report"`  // what the process wrote when it last crashed; "" = nothing
	Healthy     bool     `json:"healthy"`       // what the plugin says of itself
	Health      string   `json:"health"`        // and why not
	Webhooks    []string `json:"webhooks"`      // that use it
	// Refused are those of the webhooks that it does not take as they are: they are held.
	Refused []PluginRefusal `json:"refused"`
}

// PluginRefusal is a webhook that a plugin that is ready does not take.
type PluginRefusal struct {
	Webhook string `json:"webhook"`
	Reason  string `json:"reason"` // what is wrong with its settings, or what happened when the plugin got them
}

// Health answers GET /livez and GET /readyz: 200 when OK, else 503.
type Health struct {
	OK      bool     `json:"ok"`
	Reasons []string `json:"reasons"`
}

// Error is every answer that is not a success.
type Error struct {
	Error ErrorBody `json:"error"`
}

// ErrorBody says what was wrong.
type ErrorBody struct {
	Code    string `json:"code"` // one of the Code constants
	Message string `json:"message"`
	Field   string `json:"field"` // parameter or key at fault; "" = none
	// Findings are those of a configuration that was refused.
	Findings []Finding `json:"findings,omitempty"`
}

// Values of ErrorBody.Code.
const (
	CodeBadRequest       = "bad_request"        // 400: malformed or unknown parameter, key or value
	CodeNotFound         = "not_found"          // 404: no such route, webhook, delivery, event or replay
	CodeMethodNotAllowed = "method_not_allowed" // 405: Allow lists what the route takes
	CodeUnauthorized     = "unauthorized"       // 401: the web listener needs the token
	CodeForbidden        = "forbidden"          // 403: the web listener refuses the host, or a page of another origin
	CodeReadOnly         = "read_only"          // 403: the daemon may not write conf.d
	CodeInFlight         = "in_flight"          // 409: the delivery is being attempted; try again
	CodeFinished         = "finished"           // 409: a delivered delivery cannot be discarded
	CodeNotFinished      = "not_finished"       // 409: the delivery is still pending
	CodeConflict         = "conflict"           // 409: a file of the operator's decides it
	CodeInvalidConfig    = "invalid_config"     // 422: the configuration would be, or is, invalid
	CodeRemoved          = "webhook_removed"    // 409: the webhook left the configuration
	CodeNotTestable      = "not_testable"       // 409: the webhook cannot be tested as it stands
	CodePayloadExpired   = "payload_expired"    // 410: the payload was let go by retention
	CodeTooLarge         = "too_large"          // 413: body over 1 MiB, of a plan over 64 MiB
	CodeUnsupportedType  = "unsupported_media"  // 415: the body is not application/json
	CodeTooMany          = "too_many"           // 429: as many streams, tests, plans or audits as are allowed at once
	CodeInternal         = "internal"           // 500
	CodeNoSpace          = "no_space"           // 507: the disk has no room for the edit, audit or backup
	CodeUnavailable      = "unavailable"        // 503: the store is not open, or the daemon is ending
)
