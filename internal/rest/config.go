package rest

// Values of ReloadResult.Result and ConfigEntry.Result.
const (
	ReloadApplied   = "applied"   // runs now
	ReloadUnchanged = "unchanged" // the files say what runs already
	ReloadRejected  = "rejected"  // the files are wrong; what ran goes on
	ReloadRestored  = "restored"  // only of an entry: a start with the last known good configuration
)

// ReloadResults returns every value of ReloadResult.Result.
func ReloadResults() []string { return []string{ReloadApplied, ReloadUnchanged, ReloadRejected} }

// Values of ConfigEntry.Trigger and Reload.Trigger.
const (
	TriggerStart    = "start"    // the daemon's start, which is no reload
	TriggerWatch    = "watch"    // a file changed
	TriggerSignal   = "signal"   // SIGHUP
	TriggerReload   = "reload"   // POST /v1/reload
	TriggerWebhooks = "webhooks" // POST, PATCH, DELETE of /v1/webhooks
)

// ReloadTriggers returns every trigger of a reload.
func ReloadTriggers() []string {
	return []string{TriggerWatch, TriggerSignal, TriggerReload, TriggerWebhooks}
}

// Values of Config.State.
const (
	ConfigCurrent       = "current"         // what runs is what the files say
	ConfigRejected      = "rejected"        // the files were refused; an older configuration runs
	ConfigLastKnownGood = "last_known_good" // started with the last applied configuration: the files were refused
)

// Values of Config.Watching.
const (
	WatchingEvents  = "events"  // the system reports changed files
	WatchingPolling = "polling" // it does not, so they are looked at
)

// Values of ConfigChange.Object.
const (
	ObjectSetting = "setting" // a key outside of helpers and sinks; ID is its name, such as retry.schedule
	ObjectHelper  = "helper"
	ObjectWebhook = "webhook"
	ObjectSink    = "sink"
	ObjectTest    = "test"
)

// Values of ConfigChange.Change.
const (
	ChangeAdded   = "added"
	ChangeRemoved = "removed"
	ChangeChanged = "changed"
)

// ConfigChange is one object that differs between two configurations. It names keys,
// never values.
type ConfigChange struct {
	Object string   `json:"object"`
	ID     string   `json:"id"` // helper.webhook for a webhook
	Change string   `json:"change"`
	Fields []string `json:"fields"` // of a changed object: its keys that differ, such as url or headers.X-Env
	// Restart says that the change takes effect at the next start only.
	Restart bool `json:"restart"`
}

// Finding is one thing that is wrong, or looks wrong, in a configuration, as
// `check --format json` prints it.
type Finding struct {
	Severity   string `json:"severity"` // error, warning
	Code       string `json:"code"`
	File       string `json:"file"`
	Line       int    `json:"line"`
	Column     int    `json:"column"`
	Path       string `json:"path"` // JSON Pointer
	Message    string `json:"message"`
	Suggestion string `json:"suggestion"`
}

// ReloadResult answers POST /v1/reload.
type ReloadResult struct {
	Result     string `json:"result"`
	Generation uint64 `json:"generation"` // that runs now
	Digest     string `json:"digest"`     // of what runs now
	FileDigest string `json:"file_digest"`
	// Changes that were applied; of a rejected reload none.
	Changes []ConfigChange `json:"changes"`
	// RestartRequired lists the keys whose value in the files differs from what
	// runs and takes effect at the next start only.
	RestartRequired []string  `json:"restart_required"`
	Findings        []Finding `json:"findings"`
	// Report is the findings as `check` prints them, with source frames; "" =
	// none.
	Report string `json:"report"`
}

// PlanRequest is the body of POST /v1/plan: a candidate for the daemon's
// configuration. Without files it is what the daemon's own files say now.
type PlanRequest struct {
	// Replace says that Files are the whole configuration; else each takes the
	// place of the daemon's file of the same role, and the others stay.
	Replace bool       `json:"replace"`
	Files   []PlanFile `json:"files"`
}

// RoleMain is the role of the main file.
const RoleMain = "main"

// PlanFile is one file of a candidate.
type PlanFile struct {
	// Role is RoleMain, or the name of a drop-in such as "50-crm.yaml".
	Role    string `json:"role"`
	Name    string `json:"name"` // how findings call it: its path on the operator's side
	Content string `json:"content"`
}

// PlanResult answers it. Nothing was applied.
type PlanResult struct {
	Valid           bool           `json:"valid"`
	Digest          string         `json:"digest"` // of the candidate
	Changes         []ConfigChange `json:"changes"`
	RestartRequired []string       `json:"restart_required"`
	Webhooks        []PlanWebhook  `json:"webhooks"` // those whose deliveries are affected
	Findings        []Finding      `json:"findings"`
	Report          string         `json:"report"`
}

// PlanWebhook says what a plan means for the deliveries of one webhook.
type PlanWebhook struct {
	Webhook string `json:"webhook"`
	Pending int64  `json:"pending"` // at the moment of the plan
	// NewEvents and Queued say in words what happens to events that come after
	// the change and to deliveries that are pending; "" = nothing changes.
	NewEvents string `json:"new_events"`
	Queued    string `json:"queued"`
}

// ConfigHistory answers GET /v1/config/history, newest first.
type ConfigHistory struct {
	Entries []ConfigEntry `json:"entries"`
}

// ConfigEntry is one attempt to change what runs, or a start.
type ConfigEntry struct {
	// Generation is what ran afterwards. It grows by one with every applied
	// configuration and goes on counting over restarts.
	Generation uint64         `json:"generation"`
	At         Time           `json:"at"`
	Trigger    string         `json:"trigger"` // start, watch, signal, reload, webhooks
	UID        *uint32        `json:"uid"`     // of the process that asked; null when nobody did
	Result     string         `json:"result"`
	Digest     string         `json:"digest"` // of the files that were tried
	Changes    []ConfigChange `json:"changes"`
	Errors     int            `json:"errors"` // of a rejected one
	Error      string         `json:"error"`  // the first of them
	Running    bool           `json:"running"`
	Files      []string       `json:"files"` // kept for `config rollback`; of a rejected one none
}

// ConfigFiles answers GET /v1/config/history/{generation}: the files of a
// former configuration as they were, references unexpanded. They may contain
// literal secrets.
type ConfigFiles struct {
	Generation uint64       `json:"generation"`
	At         Time         `json:"at"`
	Digest     string       `json:"digest"`
	Files      []ConfigFile `json:"files"` // the main file first
	// Extra are files that are there now and were not part of it.
	Extra []string `json:"extra"`
}

// ConfigFile is one file of a former configuration.
type ConfigFile struct {
	Path    string `json:"path"`
	Content string `json:"content"`
	// Now compares it with the file at Path: same, differs, missing.
	Now string `json:"now"`
}

// Values of ConfigFile.Now.
const (
	FileSame    = "same"
	FileDiffers = "differs"
	FileMissing = "missing"
)

// RunningConfig answers GET /v1/config: the effective configuration that runs,
// as YAML, secrets redacted.
type RunningConfig struct {
	Generation uint64 `json:"generation"`
	Digest     string `json:"digest"`
	YAML       string `json:"yaml"`
}

// WebhookChange is the body of POST /v1/webhooks and, with what shall change
// only, of PATCH /v1/webhooks/{id}. nil leaves a key as it is or has its
// default. The keys mean what they mean in the file; Active is `enabled`.
type WebhookChange struct {
	Helper *string `json:"helper,omitempty"` // POST only; may be left out when there is one helper
	ID     *string `json:"id,omitempty"`     // POST only; made when absent
	Sink   *string `json:"sink,omitempty"`
	URL    *string `json:"url,omitempty"`
	// Settings are those of a plugin. The API hands whole numbers on as int64,
	// others as float64.
	Settings    map[string]any     `json:"settings,omitempty"`
	Headers     map[string]*string `json:"headers,omitempty"` // PATCH: null removes one
	Events      *[]string          `json:"events,omitempty"`
	Secret      *string            `json:"secret,omitempty"` // POST: made when absent
	Format      *string            `json:"format,omitempty"`
	Concurrency *int               `json:"concurrency,omitempty"`
	Active      *bool              `json:"active,omitempty"`
}

// WebhookChanged answers both. Secret is there only when POST made it: it is
// shown this once.
type WebhookChanged struct {
	ID        string   `json:"id"` // helper.webhook
	URL       string   `json:"url"`
	Events    []string `json:"events"`
	Secret    string   `json:"secret,omitempty"`
	Active    bool     `json:"active"`
	CreatedAt Time     `json:"created_at,omitzero"` // of POST
	File      string   `json:"file"`                // that was written; "" = nothing had to be
	// Released says that held deliveries of a webhook that had come back with
	// another sink or host are attempted again.
	Released bool `json:"released"`
}

// Dropped answers DELETE /v1/webhooks/{id}/deliveries.
type Dropped struct {
	Webhook string `json:"webhook"`
	Dropped int64  `json:"dropped"` // pending deliveries that are now failed with the code dropped
}
