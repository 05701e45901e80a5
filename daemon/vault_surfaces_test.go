package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// surfaces are where a secret could come out.
func surfaces() []string {
	return []string{"log", "output of commands", "arguments of processes", "environment of children", "core file", "store", "metrics",
		"admin routes", "stream", "configuration as shown", "curl line", "errors of check, plan and reload", "delivery log", "standard error of plugins", "panic", "page"}
}

// hand hands in an event for the helper and waits until each of its deliveries was
// attempted.
func (v *vault) hand(id, helper string) (deliveries []string) {
	v.t.Helper()
	body := `{"id":"` + id + `","event":"entry.created","helper":"` + helper + `","entry":{"id":"` + id + `","data":{"zoo":"leak"}}}`
	resp, err := v.client.Post("http://relay/v1/events", "application/json", strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || resp.StatusCode != http.StatusAccepted {
		v.t.Fatalf("%d, %v", resp.StatusCode, err)
	}
	for _, d := range a.Deliveries {
		deliveries = append(deliveries, d.ID)
		v.await("an attempt for "+d.Webhook, func() bool {
			detail, err := v.admin.Delivery(v.t.Context(), d.ID)
			return err == nil && len(detail.Log) > 0
		})
	}
	return deliveries
}

// collect fills every surface but the core file, the store and the panic, for which the
// daemon has to end.
func (v *vault) collect(deliveries []string, hook string) {
	v.t.Helper()
	stop := v.listen()
	v.processes()
	v.loggings(strings.Split(hook, ".")[0])
	for _, id := range deliveries {
		_, body := v.ask(v.t, "GET", "/v1/deliveries/"+id, "")
		v.add("delivery log", id, body)
		detail, err := v.admin.Delivery(v.t.Context(), id)
		if err != nil {
			v.t.Fatal(err)
		}
		v.add("curl line", id, []byte(detail.Curl))
	}
	pages := v.browse(deliveries, hook)
	v.commands(deliveries, hook)
	v.routes(deliveries[0], hook)
	v.mistakes(pages)
	_, text := v.ask(v.t, "GET", "/metrics", "")
	v.add("metrics", "GET /metrics", text)
	stop()
}

// listen follows the stream until stop is called.
func (v *vault) listen() (stop func()) {
	ctx, cancel := context.WithCancel(v.t.Context())
	c := &http.Client{Transport: v.toAdmin()}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://admin/v1/deliveries/stream", nil)
	if err != nil {
		v.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body) // it ends with the context
		v.add("stream", "GET /v1/deliveries/stream", text)
	})
	return func() { cancel(); all.Wait() }
}

// processes reads what the kernel shows of the daemon's children and what they started.
func (v *vault) processes() {
	v.t.Helper()
	c := &cage{site: v.site}
	v.await("both plugins", func() bool {
		n := 0
		for _, one := range c.creatures() {
			if strings.HasPrefix(one.name, "peanuts-sink-") {
				n++
			}
		}
		return n >= 2
	})
	children := 0
	for pid, one := range c.creatures() {
		proc := "/proc/" + strconv.Itoa(pid)
		args, err := os.ReadFile(proc + "/cmdline")
		if err != nil {
			continue // it has ended: some plugins do
		}
		v.add("arguments of processes", one.name, args)
		if pid == v.daemon.cmd.Process.Pid {
			continue
		}
		if environ, err := os.ReadFile(proc + "/environ"); err == nil {
			v.add("environment of children", one.name, environ)
			children++
		}
	}
	if children < 2 { // a plugin and its guard
		v.t.Errorf("only %d children were found", children)
	}
}

// loggings has every plugin tell its token under each level and format of the log.
func (v *vault) loggings(helper string) {
	v.t.Helper()
	for _, level := range []string{"debug", "info", "warn", "error"} {
		for _, format := range []string{"json", "journal", "text"} {
			v.put("conf.d/10-log.yaml", "log: {level: "+level+", format: "+format+"}\n")
			v.reload()
			v.hand(level+format, helper)
		}
	}
	if err := os.Remove(v.file("conf.d/10-log.yaml")); err != nil {
		v.t.Fatal(err)
	}
	v.reload()
}

// reload has the files taken over, which are sound: a plugin that a busy machine does not
// start in time makes them refused for a while.
func (v *vault) reload() {
	v.t.Helper()
	v.await("the files to be taken", func() bool {
		r, err := v.admin.Reload(v.t.Context())
		return err == nil && r.Result != rest.ReloadRejected
	})
}

// await is until, with the patience that plugins need.
func (v *vault) await(what string, done func() bool) {
	v.t.Helper()
	(&cage{site: v.site}).await(what, done)
}

// commands runs every command that shows anything.
func (v *vault) commands(deliveries []string, hook string) {
	v.t.Helper()
	list := [][]string{{"check"}, {"check", "--format", "json"}, {"config", "show"}, {"config", "history"}, {"config", "rollback", "1"}, {"status"}, {"status", "--json"},
		{"webhooks"}, {"webhooks", "--json"}, {"deliveries"}, {"deliveries", "--json"}, {"event", "first"}, {"event", "first", "--json"}, {"plan"}, {"plan", "--json"},
		{"reload"}, {"reload", "--json"}, {"test", hook}, {"test", hook, "--json"}, {"disable", hook}, {"enable", hook}, {"retry", deliveries[0]},
		{"replay", hook, "--dry-run"}, {"replay", hook, "--json"}, {"replay", "--list"}, {"doctor", "--no-ping"}, {"doctor", "--json"},
		{"replay", hook, "--status", "success,failed", "--to", "http://127.0.0.1:1/"}, {"sinks", "list"}, {"version"}, {"drop", deliveries[len(deliveries)-1]},
		{"send", "--helper", strings.Split(hook, ".")[0], "--event", "created", "--entry", "e9"},
		{"verify", "--secret-file", v.file("old"), "--header", "X-Peanuts-Signature: sha256=00"}, {"send", "--helper", "none", "--event", "created", "--entry", "e9"}}
	for _, id := range deliveries {
		list = append(list, []string{"delivery", id}, []string{"delivery", id, "--json"})
	}
	four := make(chan struct{}, 4)
	var all sync.WaitGroup
	for _, args := range list {
		four <- struct{}{}
		all.Go(func() {
			defer func() { <-four }()
			out := v.command("{}", args...)
			surface := "output of commands"
			if args[0] == "config" {
				surface = "configuration as shown"
			}
			v.add(surface, strings.Join(args, " "), out)
			if len(out) == 0 {
				v.t.Errorf("%v printed nothing", args)
			}
		})
	}
	all.Wait()
}

// routes asks every route that there is, with what it needs.
func (v *vault) routes(id, hook string) {
	v.t.Helper()
	_, none := v.ask(v.t, "GET", "/nothing", "")
	list := regexp.MustCompile(`(GET|POST|PATCH|DELETE) (/[a-z0-9/{}]+)`).FindAllStringSubmatch(string(none), -1)
	if len(list) < 25 {
		v.t.Fatalf("the routes are %q", none)
	}
	slices.SortStableFunc(list, func(a, b []string) int { // what removes comes last
		return strings.Compare(strings.Replace(a[1], "DELETE", "Z", 1), strings.Replace(b[1], "DELETE", "Z", 1))
	})
	made := strings.Split(hook, ".")[0] + ".made"
	bodies := map[string]string{
		"POST /v1/webhooks": fmt.Sprintf(`{"helper":%q,"id":"made","url":"http://relay:%s@127.0.0.1:1/x","secret":"${file:%s}"}`,
			strings.Split(hook, ".")[0], vaultURL, v.file("old")),
		"PATCH /v1/webhooks/{id}": `{"active":false}`, "POST /v1/webhooks/{id}/test": "{}", "POST /v1/webhooks/{id}/replay": "{}",
		"POST /v1/plan": fmt.Sprintf(`{"files":[{"role":"50-x.yaml","name":"x","content":"helpers: {vault: {secret: %s, webhooks: {x: {url: [%s]}}}}"}]}`, vaultBearer, vaultURL),
	}
	for _, r := range list {
		if r[2] == "/v1/deliveries/stream" {
			continue // see listen
		}
		at := id
		switch {
		case strings.HasPrefix(r[2], "/v1/webhooks/") && (r[1] == "PATCH" || r[1] == "DELETE"):
			at = made
		case strings.HasPrefix(r[2], "/v1/webhooks/"):
			at = hook
		case strings.HasPrefix(r[2], "/v1/events/"):
			at = "first"
		}
		path := strings.NewReplacer("{id}", at, "{generation}", "1").Replace(r[2])
		_, text := v.ask(v.t, r[1], path, bodies[r[1]+" "+r[2]])
		v.add("admin routes", r[1]+" "+r[2], text)
	}
	v.add("admin routes", "a route that there is not", none)
}

// mistakes are made near each secret: in the main file, and in the files that it refers
// to. check, plan, reload and the page say what is wrong.
func (v *vault) mistakes(pages func(when string)) {
	v.t.Helper()
	kinds := []func(line string) string{
		func(l string) string { return strings.Replace(l, ": ", ": [", 1) },
		func(l string) string { return strings.Replace(l, ":", "x:", 1) },
		func(l string) string { return l + "\x01" },
		func(l string) string { return "\t" + l },
		func(l string) string { return l + "\n" + l },
		func(l string) string { return strings.Replace(l, "}", "", 1) + " # " + vaultBearer },
		func(l string) string { return strings.NewReplacer("env:", "evn:", "file:", "flie:").Replace(l) + `"` },
	}
	whole, err := os.ReadFile(v.config())
	if err != nil {
		v.t.Fatal(err)
	}
	lines := strings.Split(string(whole), "\n")
	tried := 0
	try := func(what, name, text, good string) {
		v.put(name, text)
		defer v.put(name, good)
		command := []string{"check", "plan", "reload"}[tried%3] // the last two each time by their routes, too
		v.add("errors of check, plan and reload", command+" "+what, v.command("", command))
		for _, route := range []string{"/v1/plan", "/v1/reload"} {
			_, text := v.ask(v.t, "POST", route, "")
			if !bytes.Contains(text, []byte(`"findings"`)) {
				v.t.Errorf("POST %s of %s: %s", route, what, text)
			}
			v.add("errors of check, plan and reload", route+" "+what, text)
		}
		pages("after a mistake in " + what)
		tried++
	}
	for i, line := range lines {
		if !strings.Contains(line, "${") && !strings.Contains(line, "s3cr3t") && !strings.Contains(line, "client.key") && !strings.Contains(line, vaultNew) {
			continue
		}
		broken := slices.Clone(lines)
		broken[i] = kinds[tried%len(kinds)](line)
		try(fmt.Sprintf("line %d", i+1), "config.yaml", strings.Join(broken, "\n"), string(whole))
	}
	user := strings.Replace(string(whole), "http://127.0.0.1", "http://relay:"+vaultURL+"@127.0.0.1", 1) // is refused
	try("a user in a URL", "config.yaml", user, string(whole))
	for _, name := range []string{"client.key", "google.json", "slack.url", "zap.url", "old", "token"} {
		good, err := os.ReadFile(v.file(name))
		if err != nil {
			v.t.Fatal(err)
		}
		try(name, name, strings.Replace(string(good), "-----BEGIN", "-----", 1)+"\xff\x00", string(good))
	}
	v.reload()
}

// end has a plugin die, aborts the daemon and collects what is left of it.
func (v *vault) end() {
	v.t.Helper()
	for _, id := range v.hand("last", "grave") {
		_, body := v.ask(v.t, "GET", "/v1/deliveries/"+id, "")
		v.add("panic", "in the delivery log", body)
		_, body = v.ask(v.t, "GET", "/v1/status", "")
		v.add("panic", "in the status", body)
	}
	before := len(v.daemon.output())
	if err := v.daemon.cmd.Process.Signal(syscall.SIGABRT); err != nil {
		v.t.Fatal(err)
	}
	v.daemon.wait()
	output := v.daemon.output()
	v.add("log", "of the daemon", []byte(output))
	for line := range strings.Lines(output) {
		if strings.Contains(line, "sink") {
			v.add("standard error of plugins", "in the log", []byte(line))
		}
		if strings.Contains(line, "panic") {
			v.add("panic", "of a plugin", []byte(line))
		}
	}
	v.add("panic", "of the daemon", []byte(output[before:]))
	if status, ok := v.daemon.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGABRT || status.CoreDump() {
		v.t.Errorf("the aborted daemon ended with %v", v.daemon.cmd.ProcessState)
	}
	v.add("core file", "where the daemon ran", nil)
	for _, core := range coresIn(v.t, v.cores) {
		data, err := os.ReadFile(core)
		if err != nil {
			v.t.Fatal(err)
		}
		v.add("core file", core, data)
	}
	v.disk()
}

// disk collects every file of the queue's directory. Space that was only reserved is
// left out.
func (v *vault) disk() {
	v.t.Helper()
	err := filepath.WalkDir(v.data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(v.data, path) // it is below
		v.add("store", name, bytes.TrimRight(data, "\x00"))
		if info, err := e.Info(); err == nil && strings.HasPrefix(name, "config/") && info.Mode().Perm() != 0o600 {
			v.t.Errorf("%s has mode %s", name, info.Mode())
		}
		return err
	})
	if err != nil {
		v.t.Fatal(err)
	}
}

// mayShow says where a secret that is spelled out in the configuration file is seen on
// purpose: in the copies that the history keeps of the file, for config rollback.
func mayShow(p planted, surface, place string) bool {
	return p.literal && (surface == "store" && strings.HasPrefix(place, "config/") ||
		surface == "admin routes" && place == "GET /v1/config/history/{generation}" ||
		surface == "configuration as shown" && strings.HasPrefix(place, "config rollback"))
}
