package config

import (
	"io/fs"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// The comments on the fields are the text of docs/config.md. Tags:
//
//	koanf    the key in the file; "-id" receives the key of a map's entry and
//	         "-value" its scalar value
//	default  used when the key is absent; $runtime and $state depend on the
//	         environment, see defaultDirs
//	enum     the words that are allowed
//	range    lowest and highest value, both allowed
//	max      most entries of a list
//	kind     how the text is read, where the Go type does not say so
//	ids      this is a map in the file, and what its keys look like
//	restart  a change takes effect at the next start only
//	later    the key is understood, but this version refuses to use it
//	example  shown in the reference

// Config is the effective configuration: the files merged, references
// expanded, defaults filled in. It is immutable after [Load].
type Config struct {
	// Sockets and addresses the daemon listens on.
	Listen Listen `koanf:"listen"`
	// What the daemon writes about itself.
	Log Log `koanf:"log"`
	// The durable queue.
	Queue Queue `koanf:"queue"`
	// How long the delivery log and the payloads are kept.
	History History `koanf:"history"`
	// Retries and timeout, shared by every sink. A webhook may override each key.
	Retry Retry `koanf:"retry"`
	// Signs every webhook that has no secret of its own and whose helper has none.
	Secret secret.String `koanf:"secret" example:"${cred:webhook-secret}"`
	// Like `secret`, for a rotation: two secrets. Not together with `secret`.
	Secrets []secret.String `koanf:"secrets" max:"2" example:"[\"${file:/etc/peanuts-relay/old}\", \"${file:/etc/peanuts-relay/new}\"]"`
	// Webhooks that are told about the relay itself, by event: `relay.webhook.failing`, `relay.webhook.recovered`, `relay.delivery.failed`. Each takes the keys of a webhook with the http sink; `format` is `event`, and `events` is the event itself. See [notifications.md](notifications.md).
	Notify []WebhookKeys `koanf:"notify" ids:"notice"`
	// How a changed file is taken over.
	Reload Reload `koanf:"reload"`
	// Where deliveries may go.
	Egress Egress `koanf:"egress"`
	// Where sink plugins are found.
	Plugins Plugins `koanf:"plugins"`
	// Third-party sink plugins by name.
	Sinks []SinkFile `koanf:"sinks" ids:"id"`
	// The helpers by id.
	Helpers []Helper `koanf:"helpers" ids:"id"`
	// Tests of this configuration by name: an event, and what has to become of it. `check` runs them, a reload too (see `reload.require_tests`). Nothing is sent.
	Tests []Test `koanf:"tests" ids:"test" max:"10000"`

	// texts has, by JSON Pointer, the values that the files obtain through
	// references, as the files have them. Secrets carry theirs themselves.
	texts map[string]string

	plugins  map[string]SinkFile // see PluginFile
	settings map[string]string   // of webhooks with a plugin, as JSON with the secrets in it

	main    string       // see MainFile
	defined []definition // see DefinedIn
}

// Listen names the sockets.
type Listen struct {
	// Unix socket on which programs hand in events.
	Events string `koanf:"events" default:"$runtime/events.sock" restart:"yes" example:"/run/peanuts-relay/events.sock"`
	// Unix socket for the command line and the REST API, mode 0600.
	Admin string `koanf:"admin" default:"$runtime/admin.sock" restart:"yes" example:"/run/peanuts-relay/admin.sock"`
	// TCP address of the web page and REST, of this machine only; empty is off. Needs `web_token`.
	Web string `koanf:"web" default:"" restart:"yes" example:"127.0.0.1:8465"`
	// Host names under which a reverse proxy on this machine offers the web listener. Requests for other names than these, `localhost` and the addresses of the loopback are refused.
	WebHosts []string `koanf:"web_hosts" default:"[]" max:"100" restart:"yes" example:"[relay.example.com]"`
	// Permissions of the events socket: octal, in quotes.
	EventsMode fs.FileMode `koanf:"events_mode" default:"0660" restart:"yes" example:"\"0660\""`
	// Group that owns the events socket, by name or number; empty leaves the daemon's own.
	EventsGroup string `koanf:"events_group" default:"" restart:"yes" example:"www-data"`
	// User ids that may hand in events, checked against the connecting process; empty allows whoever can open the socket.
	AllowUIDs []uint32 `koanf:"allow_uids" default:"[]" range:"0..4294967295" max:"1000" restart:"yes" example:"[1001]"`
	// TCP address of an additional listener with `/metrics`, `/livez` and `/readyz` and nothing else; empty is off. Without a token: an address that others reach is warned of.
	Metrics string `koanf:"metrics" default:"" restart:"yes" example:"127.0.0.1:9465"`
	// Bearer token of the web listener, and what its login asks for: at least 16 characters. Whoever has it may do everything that the admin socket can.
	WebToken secret.String `koanf:"web_token" restart:"yes" example:"${cred:web-token}"`
	// Largest event that is accepted; larger ones get 413.
	MaxEventBytes int64 `koanf:"max_event_bytes" kind:"size" default:"1MiB" range:"1KiB..4MiB" restart:"yes" example:"2MiB"`
}

// Log says what is logged and how.
type Log struct {
	// Lowest level that is written.
	Level string `koanf:"level" default:"info" enum:"debug,info,warn,error" example:"debug"`
	// `auto` is `journal` under systemd and `text` otherwise.
	Format string `koanf:"format" default:"auto" enum:"auto,text,json,journal" example:"json"`
}

// Queue places and bounds the durable queue.
type Queue struct {
	// Directory of the queue; the daemon owns it.
	Dir string `koanf:"dir" default:"$state" restart:"yes" example:"/var/lib/peanuts-relay"`
	// Most bytes that undelivered events may take. Beyond it events get 429 with Retry-After; nothing accepted is lost.
	MaxBytes int64 `koanf:"max_bytes" kind:"size" default:"10GiB" range:"64MiB..64TiB" example:"20GiB"`
	// Most of it that one helper may take, as a percentage of `max_bytes` or a size, so that one held webhook does not stop the other helpers.
	MaxBytesPerHelper Share `koanf:"max_bytes_per_helper" default:"50%" range:"1MiB..64TiB" example:"25%"`
	// Disk space that must stay free. Below it events get 507. `auto` is 5 % of the disk, at least 512MiB and at most 4GiB.
	MinFree int64 `koanf:"min_free" kind:"autosize" default:"auto" range:"1MiB..64TiB" example:"2GiB"`
}

// History bounds what is kept of finished deliveries.
type History struct {
	// How long successful deliveries stay in the delivery log.
	Delivered time.Duration `koanf:"delivered" default:"30d" range:"1s..3650d" example:"14d"`
	// How long failed deliveries stay in the delivery log.
	Failed time.Duration `koanf:"failed" default:"90d" range:"1s..3650d" example:"180d"`
	// How far back delivered events can be replayed.
	Payloads time.Duration `koanf:"payloads" default:"7d" range:"1s..3650d" example:"3d"`
	// Most bytes that history may take; the oldest days go first.
	MaxBytes int64 `koanf:"max_bytes" kind:"size" default:"5GiB" range:"1MiB..64TiB" example:"1GiB"`
}

// Retry is the shared retry policy.
type Retry struct {
	// Waits before the second, third, … attempt, each after the failure before it. An empty list never retries.
	Schedule []time.Duration `koanf:"schedule" default:"[1m, 5m, 30m]" range:"1ms..7d" max:"20" example:"[30s, 5m, 30m, 2h]"`
	// Time for one attempt, from the DNS query to the end of the response.
	Timeout time.Duration `koanf:"timeout" default:"30s" range:"1ms..10m" example:"10s"`
	// 4xx status codes that are retried as well. Without it a 4xx is final.
	AlsoOn []int `koanf:"also_on" default:"[]" range:"400..499" max:"100" example:"[408, 429]"`
}

// RetryKeys is what one webhook overrides of [Retry]: nil and 0 inherit.
type RetryKeys struct {
	// Overrides the shared `retry.schedule`; inherited when absent.
	Schedule []time.Duration `koanf:"schedule" range:"1ms..7d" max:"20" example:"[30s, 5m]"`
	// Overrides the shared `retry.timeout`; inherited when absent.
	Timeout time.Duration `koanf:"timeout" range:"1ms..10m" example:"10s"`
	// Overrides the shared `retry.also_on`; inherited when absent, while an empty list retries no 4xx.
	AlsoOn []int `koanf:"also_on" range:"400..499" max:"100" example:"[429]"`
}

// Reload says how a changed file is taken over.
type Reload struct {
	// Take a changed file over only when all its `tests` hold.
	RequireTests bool `koanf:"require_tests" default:"false" example:"true"`
}

// Egress says where deliveries may go.
type Egress struct {
	// Host names, IP addresses or CIDRs that may lead to private or loopback addresses although a URL does not spell the address out. Link-local and cloud metadata addresses are never allowed.
	Allow []string `koanf:"allow" default:"[]" max:"1000" example:"[intranet.example.com, 10.0.0.0/8]"`
}

// Plugins says where sink plugins are.
type Plugins struct {
	// Directory of the plugins that ship with the relay.
	Dir string `koanf:"dir" default:"/usr/lib/peanuts-relay/sinks" example:"/opt/peanuts-relay/sinks"`
	// Refuse plugins that have no `sha256`.
	RequireChecksums bool `koanf:"require_checksums" default:"false" example:"true"`
}

// SinkFile declares one sink plugin.
type SinkFile struct {
	ID string `koanf:"-id"`
	// Absolute path of the executable; empty is `peanuts-sink-<name>` in `plugins.dir`. Owner must be root or the daemon's user, and nobody else may be able to write to it or to its directory.
	Path string `koanf:"path" default:"" example:"/opt/pagerduty/peanuts-sink-pagerduty"`
	// Expected SHA-256 of the executable, in hex.
	SHA256 string `koanf:"sha256" kind:"sha256" default:"" example:"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"`
}

// Helper is one mini-app and its webhooks.
type Helper struct {
	ID string `koanf:"-id"`
	// Shown to receivers as `helper.name`; the id when empty.
	Name string `koanf:"name" default:"" example:"Daily Expenses"`
	// Slash command, shown to receivers as `helper.command`.
	Command string `koanf:"command" default:"" example:"/expenses"`
	// Signs the helper's webhooks that have no secret of their own.
	Secret secret.String `koanf:"secret" example:"${env:EXPENSES_SECRET}"`
	// Like `secret`, for a rotation: two secrets. Not together with `secret`.
	Secrets []secret.String `koanf:"secrets" max:"2" example:"[\"${file:/etc/peanuts-relay/old}\", \"${file:/etc/peanuts-relay/new}\"]"`
	// Fields of an entry and their types, in this order. A declared field that a created entry lacks is sent as null; a value that contradicts its type is refused.
	Fields []Field `koanf:"fields" ids:"field" example:"{amount: number, tags: list}"`
	// Further event types besides `entry.created`, `entry.updated` and `entry.deleted`.
	Events []string `koanf:"events" kind:"event" default:"[]" max:"1000" example:"[user.created, payment.failed]"`
	// The helper's webhooks by id, at most 4096.
	Webhooks []WebhookKeys `koanf:"webhooks" ids:"id" max:"4096"`
}

// Field is one declared field of a helper's entries.
type Field struct {
	Name string `koanf:"-id"`
	Type string `koanf:"-value" enum:"number,string,boolean,list,object" example:"number"`
}

// Header is one header of a webhook's requests. Names are as in the file.
type Header struct {
	Name  string        `koanf:"-id"`
	Value secret.String `koanf:"-value" example:"Bearer ${file:/etc/peanuts-relay/token}"`
}

// WebhookKeys is one webhook as the file has it. [Config.Webhooks] resolves what
// it inherits.
type WebhookKeys struct {
	ID string `koanf:"-id"`
	// Where the `http` sink posts to; required there. Treated as a secret: only scheme and host are shown.
	URL secret.String `koanf:"url" kind:"url" example:"https://api.example.com/peanuts"`
	// What carries the payload out: `http`, or the name of a plugin: one under `sinks`, or one whose executable `peanuts-sink-<name>` is in `plugins.dir`.
	Sink string `koanf:"sink" default:"http" example:"slack"`
	// Events that are sent: a word or a list. `create`, `created` and `entry.created` are the same.
	Events []string `koanf:"events" kind:"words" default:"all" max:"1000" example:"[create, update, delete]"`
	// Headers that the `http` sink adds to every request; the values are treated as secrets. `Content-Type` and `User-Agent` replace the built-in ones.
	Headers []Header `koanf:"headers" ids:"header" max:"100" example:"{Authorization: \"Bearer ${file:/etc/peanuts-relay/token}\"}"`
	// Signs the requests; the helper's or the file's when absent.
	Secret secret.String `koanf:"secret" example:"${env:EXPENSES_SECRET}"`
	// Like `secret`, for a rotation: two secrets. Not together with `secret`. List the old one first until the receiver has switched.
	Secrets []secret.String `koanf:"secrets" max:"2" example:"[\"${file:/etc/peanuts-relay/old}\", \"${file:/etc/peanuts-relay/new}\"]"`
	// How requests are signed: a list of schemes, or `none`. The default is the scheme `peanuts`; for a plugin, if there is a secret.
	Signatures Signatures `koanf:"signatures" max:"8" example:"[{scheme: peanuts}, {scheme: standard}]"`
	// `peanuts` sends the helper and the entry, `event` the generic envelope; `http` only.
	Format string `koanf:"format" default:"peanuts" enum:"peanuts,event" example:"event"`
	// Overrides of the shared `retry`.
	Retry RetryKeys `koanf:"retry"`
	// Most requests at the same time.
	Concurrency int `koanf:"concurrency" default:"8" range:"1..1024" example:"16"`
	// `none` delivers as fast as possible; `entry` keeps the events of one entry in order, retries included: each waits until the one before it has succeeded or failed for good.
	Ordering string `koanf:"ordering" default:"none" enum:"none,entry" example:"entry"`
	// Certificates for https, of the `http` sink. Relative paths start at the directory of the main file. [certificates.md](certificates.md) explains them.
	TLS TLS `koanf:"tls"`
	// Settings of a plugin, which says what there are. They are treated as secrets.
	Settings map[string]any `koanf:"settings"`
	// `false` holds the webhook: what is queued stays queued, new events are not queued for it.
	Enabled bool `koanf:"enabled" default:"true" example:"false"`
}

// Signatures is a list of schemes, or none at all. The zero value means the
// default, which is the scheme peanuts.
type Signatures struct {
	None bool        `koanf:"-none"`
	List []Signature `koanf:"-list"`
}

// Signature is one signature of a request.
type Signature struct {
	// `peanuts`: `sha256=` and hex HMAC-SHA256 of the body. `hex`: the bare hex. `standard`: Standard Webhooks 1.0.
	Scheme string `koanf:"scheme" enum:"peanuts,hex,standard" required:"yes" example:"standard"`
	// Other name of the header. When empty: `X-Peanuts-Signature` for `peanuts`, `X-Webhook-Signature` for `hex`, `webhook-signature` for `standard`, where it must end in `-signature` and names the other two headers too.
	Header string `koanf:"header" default:"" example:"X-Peanuts-Signature"`
}

// TLS names PEM files. [Load] makes the paths absolute and reads the files.
type TLS struct {
	// Certificate authorities that are trusted instead of the system's, one or several in one file.
	CA string `koanf:"ca" default:"" example:"/etc/ssl/partner.pem"`
	// Client certificate for receivers that ask for one, followed by the intermediate ones if there are any; together with `key`.
	Cert string `koanf:"cert" default:"" example:"client.pem"`
	// Key of the client certificate, not encrypted.
	Key string `koanf:"key" default:"" example:"client.key"`
	// `true` takes any certificate for the receiver's, so that whoever is on the way can read and answer the requests. Each check, plan, reload and start warns of it, and each attempt says so. For a test; name the receiver's authority in `ca` instead.
	InsecureSkipVerify bool `koanf:"insecure_skip_verify" default:"false" example:"true"`

	// What the files had when Load read them; unset without a file.
	CAPEM   []byte        `koanf:"-"`
	CertPEM []byte        `koanf:"-"`
	KeyPEM  secret.String `koanf:"-"`
}

// JSON is a value of the file as JSON text: keys in the file's order, numbers
// with the file's digits. "" is absent.
type JSON string

// Test is one test of the configuration.
type Test struct {
	Name string `koanf:"-id"`
	// What a program would hand in: the keys of an event on the events socket, checked by the same code. Without `timestamp` and `entry.created_at` they are `2025-01-01T00:00:00Z`, without `id` the event's id is `evt_test`.
	Event JSON `koanf:"event" example:"{event: entry.created, helper: expenses, entry: {id: lunch-1, data: {amount: 42.5}}}"`
	// What has to become of it.
	Expect Expectation `koanf:"expect"`
}

// Expectation is what a test expects.
type Expectation struct {
	// Webhooks that get a delivery, exactly these in any order: a word or a list; `[]` is none. When absent, only `deliveries` counts.
	Webhooks []string `koanf:"webhooks" kind:"words" max:"4096" example:"[expenses.backend]"`
	// The event is refused: `true`, or the code of the refusal.
	Rejected string `koanf:"rejected" kind:"rejected" enum:"unknown_field,missing_field,wrong_type,too_long,bad_id,bad_time,unknown_event,field_type,unknown_helper,too_deep" example:"field_type"`
	// Requests that are made, by webhook.
	Deliveries []ExpectedDelivery `koanf:"deliveries" ids:"webhook" max:"4096"`
}

// ExpectedDelivery is what a test expects of one request. The delivery's id is
// del_test and the attempt the first.
type ExpectedDelivery struct {
	Webhook string `koanf:"-id"`
	// Headers that the request has, with exactly these values; it may have others. The values are treated as secrets. The delivery's id is `del_test`, the attempt the first.
	Headers []Header `koanf:"headers" ids:"header" max:"100" example:"{X-Peanuts-Event: entry.created}"`
	// The exact bytes of the body.
	Body string `koanf:"body" example:"'{\"event\":\"entry.deleted\"}'"`
	// What the body contains: each key of a map with this value, whatever else is there; lists entry by entry, of the same length; numbers by their value.
	JSON JSON `koanf:"json" example:"{entry: {data: {amount: 42.5}}}"`
	// Value of the header with the first signature. For the scheme standard the time is `2025-01-01T00:00:00Z` and the message's id `del_test`.
	Signature string `koanf:"signature" example:"sha256=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd"`
}
