package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// hook is a drop-in with these keys of one webhook.
func hook(helper, keys string) string {
	return "helpers: {" + helper + ": {webhooks: {w: {" + keys + "}}}}"
}

// rows is what is to be seen of every key. The history comes first, because what
// is kept shrinks.
func (s *stage) rows() []row {
	rows := []row{
		{leaf: "history.max_bytes", edit: "history: {max_bytes: 1MiB}", see: kept("old.big"), before: "kept", after: "gone", slow: true, oneWay: true},
		{leaf: "history.payloads", edit: "history: {payloads: 1s}", see: payloadOf("old.ok"), before: "kept", after: "gone", slow: true, oneWay: true},
		{leaf: "history.delivered", edit: "history: {delivered: 1s}", see: kept("old.ok"), before: "kept", after: "gone", slow: true, oneWay: true},
		{leaf: "history.failed", edit: "history: {failed: 1s}", see: kept("old.bad"), before: "kept", after: "gone", slow: true, oneWay: true},
	}
	rows = append(rows, s.settingRows()...)
	rows = append(rows, s.restartRows()...)
	rows = append(rows, s.helperRows()...)
	rows = append(rows, s.webhookRows()...)
	return append(rows, testRows()...)
}

func (s *stage) settingRows() []row {
	const text, json = "text", "json"
	rows := []row{
		{leaf: "log.level", edit: "log: {level: debug}", see: debugLine, before: "silent", after: "logged"},
		{leaf: "log.format", edit: "log: {format: json}", see: logFormat, before: text, after: json},
		{leaf: "queue.min_free", edit: "queue: {min_free: 64TiB}", see: answered("plain"), before: "202", after: "507", slow: true},
		{leaf: "queue.max_bytes", edit: "queue: {max_bytes: 64MiB}", see: crowded, before: "bulk 202, plain 202", after: "bulk 429, plain 429"},
		{leaf: "queue.max_bytes_per_helper", edit: "queue: {max_bytes_per_helper: 1MiB}", see: crowded, before: "bulk 202, plain 202", after: "bulk 429, plain 202"},
		{leaf: "retry.schedule", edit: "retry: {schedule: []}", see: ended("failing"), before: "pending status", after: "failed status"},
		{leaf: "retry.timeout", edit: "retry: {timeout: 100ms}", see: patient("hanging"), before: "answered", after: "timeout"},
		{leaf: "retry.also_on", edit: "retry: {also_on: [404]}", see: ended("refusing"), before: "failed status", after: "pending status"},
		{leaf: "secret", edit: "secret: " + keyNew, see: signed("plain"), before: "X-Peanuts-Signature top", after: "X-Peanuts-Signature new"},
		{leaf: "secrets", edit: "secrets: [" + keyTop + ", " + keyNew + "]", cut: "secret: " + keyTop + "\n", see: signed("plain"),
			before: "X-Peanuts-Signature top", after: "X-Peanuts-Signature top, X-Peanuts-Signature-Previous new"},
		{leaf: "notify", edit: `notify: {relay.webhook.failing: {url: "@URL@/ok"}}`, see: notified, before: "nobody", after: "relay.webhook.failing"},
		{leaf: "reload.require_tests", edit: "reload: {require_tests: true}", see: brokenTest, before: "current", after: "rejected"},
		{leaf: "plugins.dir", edit: "plugins: {dir: @PLUGINS@/b}", see: shows(`dir: (.*/sinks/.)\n`), before: s.plugins + "/a", after: s.plugins + "/b"},
		{leaf: "plugins.require_checksums", edit: "plugins: {require_checksums: true}", see: shows(`require_checksums: (\w+)\n`), before: "false", after: "true"},
		{leaf: "sinks.*.path", edit: "sinks: {tool: {path: @PLUGINS@/b/peanuts-sink-tool}}", see: shows(`path: (.*)/peanuts-sink-tool\n`), before: s.plugins + "/a", after: s.plugins + "/b"},
		{leaf: "sinks.*.sha256", edit: `sinks: {tool: {sha256: ""}}`, see: shows(`sha256: (\S+)\n`), before: pluginSum, after: `""`},
	}
	if os.Getenv("DAEMON_BINARY") == "" { // else it resolves names as everybody does
		return append(rows, row{leaf: "egress.allow", edit: "egress: {allow: [receiver.example.com]}", see: ended("named"), before: "failed forbidden_addr", after: "success "})
	}
	return append(rows, row{leaf: "egress.allow", edit: "egress: {allow: [receiver.example.com]}", see: shows(`allow:\s+- (\S+)\n`), before: "", after: "receiver.example.com"})
}

// restartRows are keys that take effect at the next start, which is said in each
// place.
func (s *stage) restartRows() []row {
	rows := []row{}
	keys := map[string]string{"listen.events": "@DIR@/e.sock", "listen.admin": "@DIR@/a.sock", "listen.events_mode": `"0600"`,
		"listen.events_group": `"@GID@"`, "listen.allow_uids": "[@UID@]", "listen.max_event_bytes": "2MiB", "queue.dir": "@DIR@/other",
		"listen.web": "127.0.0.1:1, web_token: token-of-the-web-page-000000", "listen.metrics": "127.0.0.1:1", "listen.web_hosts": "[relay.example.com]",
		"listen.web_token": "token-of-the-web-page-000000"}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		section, name, _ := strings.Cut(key, ".")
		r := row{leaf: key, edit: section + ": {" + name + ": " + keys[key] + "}", see: restart(key), after: key}
		if key == "listen.web" {
			r.after += " listen.web_token" // without which it is not valid
		}
		rows = append(rows, r)
	}
	return rows
}

func (s *stage) helperRows() []row {
	return []row{
		{leaf: "helpers.*.name", edit: "helpers: {own: {name: Other}}", see: body("own", `"name":"(\w+)"`), before: "Own", after: "Other"},
		{leaf: "helpers.*.command", edit: "helpers: {own: {command: /other}}", see: body("own", `"command":"(\S+?)"`), before: "/own", after: "/other"},
		{leaf: "helpers.*.secret", edit: "helpers: {own: {secret: " + keyNew + "}}", see: signed("own"), before: "X-Peanuts-Signature helper", after: "X-Peanuts-Signature new"},
		{leaf: "helpers.*.secrets", edit: "helpers: {plain: {secrets: [" + keyNew + ", " + keyTop + "]}}", see: signed("plain"),
			before: "X-Peanuts-Signature top", after: "X-Peanuts-Signature new, X-Peanuts-Signature-Previous top"},
		{leaf: "helpers.*.fields.*", edit: "helpers: {own: {fields: {amount: string}}}", see: answered("own"), before: "202", after: "422"},
		{leaf: "helpers.*.fields.*", how: "more", edit: "helpers: {own: {fields: {note: string}}}", see: body("own", `"data":(\{.*?\})`), before: `{"amount":1}`, after: `{"amount":1,"note":null}`},
		{leaf: "helpers.*.events", edit: "helpers: {own: {events: [user.created]}}", see: answeredType("own", "user.created"), before: "422", after: "202"},
	}
}

func (s *stage) webhookRows() []row {
	return []row{
		{leaf: "helpers.*.webhooks.*.url", edit: hook("own", `url: "@URL@/other"`), see: path("own"), before: "/ok", after: "/other"},
		{leaf: "helpers.*.webhooks.*.sink", edit: hook("own", "sink: tool"), see: works, before: "works", after: "works", refused: true},
		{leaf: "helpers.*.webhooks.*.events", edit: hook("own", "events: [delete]"), see: deliveries("own"), before: "1", after: "0"},
		{leaf: "helpers.*.webhooks.*.headers.*", edit: hook("own", "headers: {X-Env: live}"), see: header("own", "X-Env"), before: "", after: "live"},
		{leaf: "helpers.*.webhooks.*.secret", edit: hook("own", "secret: "+keyHook), see: signed("own"), before: "X-Peanuts-Signature helper", after: "X-Peanuts-Signature hook"},
		{leaf: "helpers.*.webhooks.*.secrets", edit: hook("own", "secrets: ["+keyHook+", "+keyNew+"]"), see: signed("own"),
			before: "X-Peanuts-Signature helper", after: "X-Peanuts-Signature hook, X-Peanuts-Signature-Previous new"},
		{leaf: "helpers.*.webhooks.*.signatures.none", edit: hook("own", "signatures: none"), see: signed("own"), before: "X-Peanuts-Signature helper", after: ""},
		{leaf: "helpers.*.webhooks.*.signatures[].scheme", edit: hook("own", "signatures: [{scheme: hex}]"), see: signed("own"),
			before: "X-Peanuts-Signature helper", after: "X-Webhook-Signature helper"},
		{leaf: "helpers.*.webhooks.*.signatures[].header", edit: hook("own", "signatures: [{scheme: peanuts, header: X-Mine}]"), see: signed("own"),
			before: "X-Peanuts-Signature helper", after: "X-Mine helper"},
		{leaf: "helpers.*.webhooks.*.format", edit: hook("own", "format: event"), see: body("own", `^\{"(\w+)"`), before: "event", after: "id"},
		{leaf: "helpers.*.webhooks.*.retry.schedule", edit: hook("failing", "retry: {schedule: []}"), see: ended("failing"), before: "pending status", after: "failed status"},
		{leaf: "helpers.*.webhooks.*.retry.timeout", edit: hook("hanging", "retry: {timeout: 100ms}"), see: patient("hanging"), before: "answered", after: "timeout"},
		{leaf: "helpers.*.webhooks.*.retry.also_on", edit: hook("refusing", "retry: {also_on: [404]}"), see: ended("refusing"), before: "failed status", after: "pending status"},
		{leaf: "helpers.*.webhooks.*.concurrency", edit: hook("many", "concurrency: 3"), see: atOnce("many"), before: "1", after: "3"},
		{leaf: "helpers.*.webhooks.*.ordering", edit: hook("twins", "ordering: entry"), see: atOnce("twins"), before: "5", after: "1"},
		{leaf: "helpers.*.webhooks.*.tls.ca", edit: hook("secure", "tls: {ca: other.pem}"), see: ended("secure"), before: "success ", after: "pending tls"},
		{leaf: "helpers.*.webhooks.*.tls.ca", how: "content", files: map[string]string{"ca.pem": s.read("other.pem")}, see: ended("secure"), before: "success ", after: "pending tls"},
		{leaf: "helpers.*.webhooks.*.tls.cert", edit: hook("secure", "tls: {cert: second.pem, key: second.key}"), see: clientOf, before: "client", after: "second"},
		{leaf: "helpers.*.webhooks.*.tls.key", how: "content", files: map[string]string{"client.pem": s.certs[2], "client.key": s.certs[3]}, see: clientOf, before: "client", after: "second"},
		{leaf: "helpers.*.webhooks.*.tls.insecure_skip_verify", edit: hook("secure", "tls: {ca: other.pem, insecure_skip_verify: true}"), see: verified("secure"),
			before: "verified", after: "not verified"},
		{leaf: "helpers.*.webhooks.*.settings", edit: hook("own", "settings: {tab: one}"), see: works, before: "works", after: "works", refused: true},
		{leaf: "helpers.*.webhooks.*.enabled", edit: hook("own", "enabled: false"), see: deliveries("own"), before: "1", after: "0"},
	}
}

// testRows break a test of the file by each of its keys.
func testRows() []row {
	delivery := func(keys string) string {
		return "tests: {good: {expect: {deliveries: {own.w: {" + keys + "}}}}}"
	}
	rows := []row{
		{leaf: "tests.*.event", edit: "tests: {good: {event: {event: entry.created, helper: plain, entry: {id: e1, data: {}}}}}"},
		{leaf: "tests.*.expect.webhooks", edit: "tests: {good: {expect: {webhooks: [plain.w]}}}"},
		{leaf: "tests.*.expect.rejected", edit: "tests: {bad: {expect: {rejected: unknown_helper}}}"},
		{leaf: "tests.*.expect.deliveries.*.headers.*", edit: delivery("headers: {X-Peanuts-Event: entry.deleted}")},
		{leaf: "tests.*.expect.deliveries.*.body", edit: delivery("body: other")},
		{leaf: "tests.*.expect.deliveries.*.json", edit: delivery("json: {entry: {id: other}}")},
		{leaf: "tests.*.expect.deliveries.*.signature", edit: delivery("signature: sha256=00")},
	}
	for i := range rows {
		rows[i].see, rows[i].before, rows[i].after = testsHold, "hold", "do not hold"
	}
	return rows
}

// works sends an event through.
func works(s *stage, _ string) string {
	event, id := s.send("own")
	s.arrival(event)
	if d := s.row(id); d.Status != rest.StatusSuccess {
		return d.Status + " " + d.Error
	}
	return "works"
}

// notified is the event that the webhook of failing webhooks gets.
func notified(s *stage, _ string) string {
	result, err := s.admin.Test(s.t.Context(), "relay.webhook.failing", rest.TestRequest{})
	if refused, ok := errors.AsType[*adminclient.Error](err); ok && (refused.Code == rest.CodeNotFound || refused.Code == rest.CodeRemoved) {
		return "nobody"
	}
	if err != nil || !result.Delivered {
		s.t.Fatalf("%+v, %v", result, err)
	}
	return result.Event
}

// restart returns the key when the status and the metric say that it waits for a
// restart, and checks that the daemon goes on as it started.
func restart(key string) func(*stage, string) string {
	return func(s *stage, _ string) string {
		works(s, "")
		metrics, err := s.admin.Metrics(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		needed := s.status().Config.RestartRequired
		inMetrics := strings.Contains(string(metrics), `_config_restart_required{key="`+key+`"} 1`)
		if inMetrics != slices.Contains(needed, key) {
			s.t.Errorf("the metric and the status disagree about %s", key)
		}
		return strings.Join(needed, " ")
	}
}

// first is what a request of an event of the helper has.
func first(helper string, of func(s *stage, r *request) string) func(*stage, string) string {
	return func(s *stage, _ string) string {
		event, _ := s.send(helper)
		return of(s, s.arrival(event))
	}
}

func path(helper string) func(*stage, string) string {
	return first(helper, func(_ *stage, r *request) string { return r.path })
}

func header(helper, name string) func(*stage, string) string {
	return first(helper, func(_ *stage, r *request) string { return r.header.Get(name) })
}

func body(helper, pattern string) func(*stage, string) string {
	form := regexp.MustCompile(pattern)
	return first(helper, func(_ *stage, r *request) string { return submatch(form, r.body) })
}

func clientOf(s *stage, want string) string {
	return first("secure", func(_ *stage, r *request) string { return r.client })(s, want)
}

func submatch(form *regexp.Regexp, text string) string {
	if found := form.FindStringSubmatch(text); found != nil {
		return found[1]
	}
	return ""
}

// signed lists the headers that carry a signature, and whose key made each.
func signed(helper string) func(*stage, string) string {
	return first(helper, func(_ *stage, r *request) string {
		var out []string
		for _, name := range slices.Sorted(maps.Keys(r.header)) {
			for owner, key := range stageKeys() {
				for _, scheme := range []signing.Scheme{signing.Peanuts, signing.Hex} {
					in := signing.VerifyInput{Spec: signing.Spec{Scheme: scheme, Header: "X-Any"}, Headers: http.Header{"X-Any": r.header[name]},
						Body: []byte(r.body), Secrets: []secret.String{secret.New(key)}}
					if signing.Verify(in) == nil {
						out = append(out, name+" "+owner)
					}
				}
			}
		}
		return strings.Join(slices.Compact(out), ", ")
	})
}

// answered is the status of an event.
func answered(helper string) func(*stage, string) string {
	return answeredType(helper, "entry.created")
}

func answeredType(helper, kind string) func(*stage, string) string {
	return func(s *stage, _ string) string {
		_, status := s.post(helper, kind, "")
		return fmt.Sprint(status)
	}
}

// deliveries is for how many webhooks an event is accepted.
func deliveries(helper string) func(*stage, string) string {
	return func(s *stage, _ string) string {
		a, _ := s.post(helper, "entry.created", "")
		return fmt.Sprint(len(a.Deliveries))
	}
}

// ended is the state of a delivery after its first attempt.
func ended(helper string) func(*stage, string) string {
	return func(s *stage, _ string) string {
		_, id := s.send(helper)
		d := s.row(id)
		return d.Status + " " + d.Code
	}
}

// verified says whether an attempt that succeeded looked at the certificate.
func verified(helper string) func(*stage, string) string {
	return func(s *stage, _ string) string {
		_, id := s.send(helper)
		if d := s.row(id); d.Status != rest.StatusSuccess {
			return d.Code
		}
		d, err := s.admin.Delivery(s.t.Context(), id)
		if err != nil {
			s.t.Fatal(err)
		}
		explained := strings.Contains(strings.Join(d.Explanation, " "), "certificate was not verified")
		switch said := d.Log[0].Message; {
		case said == "" && !explained:
			return "verified"
		case said == delivery.UnverifiedMessage && explained:
			return "not verified"
		}
		return fmt.Sprintf("message %q, explained %v", d.Log[0].Message, d.Explanation)
	}
}

// patient is how an attempt ends that the receiver answers after a while only.
func patient(helper string) func(*stage, string) string {
	return func(s *stage, want string) string {
		event, id := s.send(helper)
		s.arrival(event)
		if want == "answered" {
			s.mu.Lock()
			close(s.freeing(event))
			s.mu.Unlock()
		}
		if d := s.row(id); d.Status != rest.StatusSuccess {
			return d.Code
		}
		return "answered"
	}
}

// atOnce is how many requests come at once, of five events of a helper.
func atOnce(helper string) func(s *stage, want string) string {
	return func(s *stage, want string) string { return s.mostOf(helper, want) }
}

func (s *stage) mostOf(helper, want string) string {
	s.mu.Lock()
	s.most, s.gate = 0, make(chan struct{})
	gate := s.gate
	s.mu.Unlock()
	var ids []string
	for range 5 {
		_, id := s.send(helper)
		ids = append(ids, id)
	}
	atLeast, err := strconv.Atoi(want)
	if err != nil {
		s.t.Fatal(err)
	}
	until(s.t, "as many requests as there should be", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.most >= atLeast
	})
	works(s, "") // meanwhile more would come, if they might
	close(gate)
	for _, id := range ids {
		s.row(id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.most)
}

// crowded is how events are answered while a helper has a backlog of more than
// 64 MiB.
func crowded(s *stage, _ string) string {
	if !s.full {
		s.full = true
		data := `{"pad":"` + strings.Repeat("x", 1000<<10) + `"}`
		for range 68 {
			if _, status := s.post("bulk", "entry.created", data); status != http.StatusAccepted {
				s.t.Fatalf("an event of the backlog was answered %d", status)
			}
		}
	}
	return "bulk " + answered("bulk")(s, "") + ", plain " + answered("plain")(s, "")
}

// kept is whether the only delivery of an old webhook is still in the log.
func kept(webhook string) func(*stage, string) string {
	return func(s *stage, _ string) string {
		page, err := s.admin.Deliveries(s.t.Context(), adminclient.DeliveryQuery{Webhook: webhook})
		if err != nil {
			s.t.Fatal(err)
		}
		if len(page.Deliveries) == 0 {
			return "gone"
		}
		return "kept"
	}
}

// payloadOf is whether what it sent is still there.
func payloadOf(webhook string) func(*stage, string) string {
	return func(s *stage, _ string) string {
		page, err := s.admin.Deliveries(s.t.Context(), adminclient.DeliveryQuery{Webhook: webhook})
		if err != nil || len(page.Deliveries) != 1 {
			s.t.Fatalf("%d deliveries of %s, %v", len(page.Deliveries), webhook, err)
		}
		d, err := s.admin.Delivery(s.t.Context(), page.Deliveries[0].ID)
		if err != nil {
			s.t.Fatal(err)
		}
		if d.PayloadExpired {
			return "gone"
		}
		return "kept"
	}
}

// shows is what `config show --running` has; of keys that nothing runs from yet,
// there is no more to see.
func shows(pattern string) func(*stage, string) string {
	form := regexp.MustCompile(pattern)
	return func(s *stage, _ string) string {
		running, err := s.admin.RunningConfig(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		return submatch(form, running.YAML)
	}
}

// testsHold is what the daemon says about the tests in its files.
func testsHold(s *stage, _ string) string {
	for _, w := range s.status().Config.Warnings {
		if strings.Contains(w, "test ") {
			return "do not hold"
		}
	}
	return "hold"
}

// brokenTest is what becomes of an edit with a test that does not hold.
func brokenTest(s *stage, _ string) string {
	s.write("conf.d/60-broken.yaml", "tests: {good: {expect: {webhooks: []}}}\n")
	_, err := s.admin.Reload(s.t.Context())
	state := s.status().Config.State
	if remove := os.Remove(s.dir + "/conf.d/60-broken.yaml"); err != nil || remove != nil {
		s.t.Fatal(err, remove)
	}
	if _, err := s.admin.Reload(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return state
}

// logged returns what is logged while a harmless edit is made and taken back.
func (s *stage) logged() []string {
	s.t.Helper()
	from := len(s.daemon.all())
	if _, err := s.admin.Reload(s.t.Context()); err != nil { // of what runs
		s.t.Fatal(err)
	}
	s.write("conf.d/60-marker.yaml", "helpers: {plain: {name: marker}}\n")
	_, err := s.admin.Reload(s.t.Context())
	if remove := os.Remove(s.dir + "/conf.d/60-marker.yaml"); err != nil || remove != nil {
		s.t.Fatal(err, remove)
	}
	if _, err := s.admin.Reload(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	last := regexp.MustCompile(fmt.Sprintf(`configuration applied.*generation"?[=:]%d\b`, s.status().Config.Generation))
	var lines []string
	until(s.t, "the reload in the log", func() bool {
		lines = s.daemon.all()[from:]
		return slices.ContainsFunc(lines, last.MatchString)
	})
	return lines
}

func debugLine(s *stage, _ string) string {
	if slices.ContainsFunc(s.logged(), func(l string) bool { return strings.Contains(l, "configuration is unchanged") }) {
		return "logged"
	}
	return "silent"
}

func logFormat(s *stage, _ string) string {
	lines := s.logged()
	if strings.HasPrefix(lines[len(lines)-1], "{") {
		return "json"
	}
	return "text"
}

// all are the lines that were logged so far.
func (p *process) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}
