// Package doctor looks for what keeps deliveries from arriving: in the files, on the
// machine, on the way to each receiver, and in what receivers answered before.
//
// Guarantee: it changes nothing but that each receiver may get one signed test
// request. Whatever cannot be looked at, with no daemon running or without the
// rights, is a check that was skipped and says why; the others go on. Every check
// ends within its time: nothing waits longer than a webhook's own timeout. No
// secret and no path or query of a URL gets into a result.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// Values of Result.Status, from the best to the worst.
const (
	OK      = "ok"
	Skipped = "skipped" // could not be looked at
	Warning = "warning" // works, or will not for long
	Failed  = "failed"
)

// Result is what one check found.
type Result struct {
	Subject string `json:"subject"` // configuration, daemon, host, or a webhook
	Check   string `json:"check"`   // dns, tcp, tls, …
	Status  string `json:"status"`
	Message string `json:"message"`
	Fix     string `json:"fix"`    // what to do; "" = nothing
	File    string `json:"file"`   // where the key is that decides; "" = none does
	Line    int    `json:"line"`   // 0 = the file as a whole
	Column  int    `json:"column"` // 0 = the line as a whole
}

// Options say what to look at.
type Options struct {
	Config  *config.Config // nil = the files are not valid
	Report  *config.Report // nil = there are none
	Client  *adminclient.Client
	Offline string       // why there is no daemon to ask; "" = Client answers
	Status  *rest.Status // of the daemon; nil when Offline
	Only    string       // id of the one webhook to look at; "" = all, and the host
	Ping    bool         // send each receiver a signed test
	Found   func(Result) // gets each result as soon as it is there
	Now     func() time.Time

	proc string                            // tests: instead of /proc
	slow time.Duration                     // tests: other than the constant
	show func(unit string) (string, error) // tests: instead of systemctl show; nil where there is no systemd
}

// doctor is one run.
type doctor struct {
	Options
	subject string
}

// Run does every check, one after the other, and returns the worst status.
func Run(ctx context.Context, o Options) (worst string) {
	found := o.Found
	rank := map[string]int{OK: 0, Skipped: 0, Warning: 1, Failed: 2}
	worst = OK
	o.Found = func(r Result) {
		if rank[r.Status] > rank[worst] {
			worst = r.Status
		}
		found(r)
	}
	o.Now = cmpFunc(o.Now, time.Now)
	o.proc, o.slow = cmp.Or(o.proc, "/proc"), cmp.Or(o.slow, slow)
	if _, err := os.Stat("/run/systemd/system"); err == nil && o.show == nil {
		o.show = showUnit
	}
	d := &doctor{Options: o}
	d.configuration()
	d.daemon()
	if o.Only == "" {
		d.host()
	}
	if d.Config == nil {
		return worst
	}
	for _, w := range slices.Concat(d.Config.Webhooks(), d.Config.Notices()) {
		if ctx.Err() == nil && (o.Only == "" || o.Only == w.ID) {
			d.webhook(ctx, &w)
		}
	}
	return worst
}

func cmpFunc[F ~func() time.Time](f, otherwise F) F {
	if f == nil {
		return otherwise
	}
	return f
}

func (d *doctor) add(r Result) {
	r.Subject = d.subject
	d.Found(r)
}

func (d *doctor) ok(check, format string, args ...any) {
	d.add(Result{Check: check, Status: OK, Message: fmt.Sprintf(format, args...)})
}

func (d *doctor) skip(check, format string, args ...any) {
	d.add(Result{Check: check, Status: Skipped, Message: fmt.Sprintf(format, args...)})
}

// at is the place of a key, as the start of a result.
func (d *doctor) at(path ...string) (r Result) {
	if d.Report != nil {
		r.File, r.Line, r.Column = d.Report.Position(path...)
	}
	return r
}

// bad completes a result that is no good one.
func (d *doctor) bad(r Result, check, status, message, fix string) {
	r.Check, r.Status, r.Message, r.Fix = check, status, message, fix
	d.add(r)
}

// configuration passes on what a check of the files says.
func (d *doctor) configuration() {
	d.subject = "configuration"
	if d.Report == nil {
		d.bad(Result{}, "files", Failed, "there is no configuration file", "name it with --config, or write "+config.DefaultPath)
		return
	}
	for _, f := range d.Report.Findings {
		status := Failed
		if f.Severity == config.SeverityWarning {
			status = Warning
		}
		d.add(Result{Check: f.Code, Status: status, Message: f.Message, Fix: f.Suggestion, File: f.File, Line: f.Line, Column: f.Column})
	}
	if d.Report.Err() == nil && d.Config != nil {
		d.ok("files", "%s can be used: %s", strings.Join(d.Report.Files, ", "), plural(len(d.Config.Webhooks()), "webhook"))
	}
}

// daemon compares the files with what runs.
func (d *doctor) daemon() {
	d.subject = "daemon"
	if d.Status == nil {
		d.skip("running", "%s; what only it knows is left out", d.Offline)
		return
	}
	s, c := d.Status, &d.Status.Config
	d.ok("running", "version %s, process %d, since %s", s.Version, s.PID, s.StartedAt.Time.Local().Format(time.DateTime))
	for _, reason := range s.Reasons {
		d.bad(Result{}, "state", Failed, reason, "peanuts-relay status")
	}
	d.running(c)
	for _, p := range s.Plugins {
		d.plugin(&p)
	}
}

func (d *doctor) running(c *rest.Config) {
	switch {
	case c.State == rest.ConfigRejected:
		message := "the files were refused, so configuration " + fmt.Sprint(c.Generation) + " goes on"
		if c.LastReload != nil {
			message += ": " + c.LastReload.Error
		}
		d.bad(Result{}, "configuration", Failed, message, "correct the file; peanuts-relay reload says whether it is taken")
	case c.State == rest.ConfigLastKnownGood:
		d.bad(Result{}, "configuration", Failed, fmt.Sprintf("the last known good configuration %d runs, from %s: the files were refused", c.Generation, c.LoadedAt.Time.Local().Format(time.DateTime)),
			"correct the file; peanuts-relay check says what is wrong")
	case d.Report != nil && d.Report.Digest != c.Digest:
		d.bad(Result{}, "configuration", Warning, "what runs is not what the files say", "peanuts-relay reload; peanuts-relay plan shows what it would change")
	default:
		d.ok("configuration", "generation %d is what the files say", c.Generation)
	}
	for _, key := range c.RestartRequired {
		d.bad(d.at(strings.Split(key, ".")...), "restart", Warning, "the new value of "+key+" takes effect at the next start", "systemctl restart peanuts-relay")
	}
	if c.Watching == rest.WatchingPolling {
		d.bad(Result{}, "watching", Warning, "changed files are noticed by looking every 5 s: the system reports no changes",
			"raise the limits: sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=65536")
	}
}

func (d *doctor) plugin(p *rest.Plugin) {
	check := "plugin " + p.Sink
	switch {
	case p.State == rest.PluginBackoff || p.State == rest.PluginSuspended:
		d.bad(d.at("sinks", p.Sink), check, Failed, fmt.Sprintf("its process ended %d times in ten minutes: %s", p.Crashes, p.LastError), "peanuts-relay status --json has its last words (crash_report)")
	case !p.Healthy && p.State == rest.PluginReady:
		d.bad(d.at("sinks", p.Sink), check, Failed, "it says that it is not well: "+p.Health, "see what it needs; its log lines have sink="+p.Sink)
	case p.Outdated:
		d.bad(d.at("sinks", p.Sink), check, Warning, "version "+p.Version+" runs, the file on the disk is another one", "peanuts-relay reload starts it")
	default:
		d.ok(check, "version %s is %s, sha256 %.12s", cmp.Or(p.Version, "?"), p.State, p.SHA256)
	}
	for _, r := range p.Refused {
		d.bad(d.at(keyOf(r.Webhook, "settings")...), check, Failed, "it refuses the settings of "+r.Webhook+": "+r.Reason, "correct the settings; peanuts-relay check asks it")
	}
}

// keyOf is the path of a key of a webhook.
func keyOf(webhook string, keys ...string) []string {
	return config.KeyPath(webhook, keys...)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if stem, ok := strings.CutSuffix(what, "y"); ok {
		what = stem + "ie"
	}
	return fmt.Sprintf("%d %ss", n, what)
}
