package relay

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/cli"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secrettest"
)

// What is planted, one for each place of a configuration that can hold a secret.
const (
	plantedTop      = "TopLiteral/s3cr3t+one=alpha&<b>"
	plantedHelper   = "HelperFromEnv/s3cr3t+two=beta"
	plantedWebhook  = "WebhookLiteral/s3cr3t+three=gamma"
	plantedFile     = "OldFromFile/s3cr3t+four=delta"
	plantedCred     = "NewFromCredential/s3cr3t+five=eps"
	plantedStandard = "U3RhbmRhcmRTY2hlbWVLZXlPZjMyQnl0ZXNFeGFjdGx5" // of whsec_
	plantedBearer   = "BearerLiteral/s3cr3t+six=zeta"
	plantedDefault  = "DefaultOfEnv/s3cr3t+seven=eta"
	plantedApiKey   = "KeyFromFile/s3cr3t+eight=theta"
	plantedTeam     = "TeamHeaderLiteral-nine-iota"
	plantedPath     = "PathLiteral-s3cr3t-ten-kappa"
	plantedQuery    = "QueryLiteral-s3cr3t-eleven-lambda"
	plantedURLEnv   = "UrlFromEnv-s3cr3t-twelve-mu"
)

func planted() []string {
	return []string{plantedTop, plantedHelper, plantedWebhook, plantedFile, plantedCred, plantedStandard, plantedBearer,
		plantedDefault, plantedApiKey, plantedTeam, plantedPath, plantedQuery, plantedURLEnv}
}

// indiscreet is a receiver that tells everything it knows, in every form that is
// usual, and then fails in the way that the path asks for.
func indiscreet(t *testing.T) *httptest.Server {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var dump bytes.Buffer
		fmt.Fprintf(&dump, "%s %s\n", r.Method, r.RequestURI)
		for name, values := range r.Header {
			fmt.Fprintf(&dump, "%s: %s\n%s\n", name, values[0], url.QueryEscape(values[0]))
			w.Header().Set("X-Echo-"+name, values[0])
		}
		_ = json.NewEncoder(&dump).Encode(map[string]any{"headers": r.Header, "url": r.URL.String(), "body": string(body)})
		fmt.Fprintf(&dump, "query %v, expected the signature made with one of:\n", r.URL.Query())
		for _, s := range knownTo(r.URL.Query().Get("do")) {
			fmt.Fprintf(&dump, "%s %s\n", s, hex.EncodeToString([]byte(s)))
		}
		answer := func(code int) {
			w.WriteHeader(code)
			_, _ = w.Write(dump.Bytes())
		}
		switch r.URL.Query().Get("do") {
		case "refuse":
			answer(http.StatusUnprocessableEntity)
		case "fail":
			answer(http.StatusBadGateway)
		case "hang":
			<-r.Context().Done()
		case "redirect":
			w.Header().Set("Location", "https://"+plantedPath+".example.com"+r.RequestURI)
			answer(http.StatusFound)
		case "garble":
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nbroken %s %s\r\n\r\n", r.Header.Get("Authorization"), r.RequestURI)
		case "shout":
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "%s %s", r.Header.Get("Authorization"), r.RequestURI)
		default:
			answer(http.StatusOK)
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

// knownTo are the secrets that the receiver of a webhook shares with us.
func knownTo(do string) []string {
	i := slices.Index(fates(), do)
	switch {
	case do == "top":
		return []string{plantedTop}
	case i < 0:
		return []string{plantedHelper}
	}
	return [][]string{{plantedHelper}, {plantedWebhook}, {plantedFile, plantedCred}, {plantedStandard}}[i%4]
}

// secretive is a configuration with a secret in each place. Each webhook has
// another fate.
func (h *home) secretive(base string, fates ...string) string {
	h.env["HELPER_SECRET"], h.env["URL_PART"] = plantedHelper, plantedURLEnv
	h.env["CREDENTIALS_DIRECTORY"] = h.path("creds")
	if err := os.Mkdir(h.path("creds"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	for name, content := range map[string]string{"old": plantedFile, "creds/new": plantedCred, "key": plantedApiKey} {
		if err := os.WriteFile(h.path(name), []byte(content+"\n"), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	var b strings.Builder
	b.WriteString("retry: {schedule: [1ms], timeout: 5s}\nsecret: '" + plantedTop + "'\nhelpers:\n  expenses:\n    secret: ${env:HELPER_SECRET}\n    webhooks:\n")
	secrets := []string{"", "        secret: '" + plantedWebhook + "'\n",
		"        secrets: ['${file:" + h.path("old") + "}', '${cred:new}']\n",
		"        secret: whsec_" + plantedStandard + "\n        signatures: [{scheme: standard}]\n"}
	for i, do := range fates {
		where := base
		if do == "tls" {
			where = strings.Replace(base, "http://", "https://", 1)
		}
		if do == "nobody" {
			where = "http://127.0.0.1:1"
		}
		fmt.Fprintf(&b, "      %s:\n        url: '%s/%s?do=%s&key=%s'\n", do, where, plantedPath, do, plantedQuery)
		if i%2 == 1 {
			b.WriteString("        format: event\n")
		}
		b.WriteString(secrets[i%len(secrets)])
		if do == "hang" {
			b.WriteString("        retry: {timeout: 100ms}\n")
		}
		fmt.Fprintf(&b, "        headers:\n          Authorization: Bearer %s\n          X-Default: '${env:NOT_SET:-%s}'\n          X-Api-Key: ${file:%s}\n          X-Team: %s\n",
			plantedBearer, plantedDefault, h.path("key"), plantedTeam)
	}
	fmt.Fprintf(&b, "      env:\n        url: '%s/${env:URL_PART}/%s'\n  other:\n    webhooks:\n      top: {url: '%s/?do=top'}\n", base, plantedPath, base)
	return b.String()
}

func fates() []string {
	return []string{"succeed", "refuse", "fail", "hang", "redirect", "garble", "shout", "tls", "nobody"}
}

// output is everything that came out, by where it came from.
type output map[string][]byte

// run collects what a command prints.
func (o output) run(d *daemon, args ...string) {
	var out, errs bytes.Buffer
	cli.Main(d.t.Context(), args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs, Env: func(name string) (string, bool) {
		if name == "PEANUTS_RELAY_CONFIG" {
			return d.path("config.yaml"), true
		}
		return d.lookup(name)
	}}, cli.Deps{Version: "1.2.3"})
	o["command "+strings.Join(args, " ")] = append(out.Bytes(), errs.Bytes()...)
}

// ask collects what a route of the admin socket answers.
func (o output) ask(d *daemon, method, path string) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.path("admin.sock"))
		}}}
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://admin"+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var all bytes.Buffer
	if err := resp.Header.Write(&all); err != nil {
		d.t.Fatal(err)
	}
	if _, err := io.Copy(&all, resp.Body); err != nil {
		d.t.Fatal(err)
	}
	o[method+" "+path] = all.Bytes()
}

// disk collects every file of the queue, but for the copy of the configuration
// file that the history keeps: it is the file as the operator wrote it, so it has
// what is spelled out there and nothing that a reference stands for, and only the
// daemon's user may read it.
func (o output) disk(h *home, when string) {
	written, err := os.ReadFile(h.path("config.yaml"))
	if err != nil {
		h.t.Fatal(err)
	}
	copies := 0
	err = filepath.WalkDir(h.path("data"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasPrefix(path, filepath.Join(h.path("data"), "config")) && bytes.Equal(data, written) {
			copies++
			info, err := e.Info()
			if err == nil && info.Mode().Perm() != 0o600 {
				h.t.Errorf("%s has mode %s", path, info.Mode())
			}
			return err
		}
		o["disk "+when+" "+e.Name()] = data
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if copies != 1 {
		h.t.Errorf("the history has %d copies of the configuration file", copies)
	}
}

func (o output) check(t *testing.T) {
	t.Helper()
	for _, s := range planted() {
		forms := secrettest.Forms(s)
		for where, data := range o {
			if found := secrettest.Sightings(data, forms); found != nil {
				at := bytes.Index(data, []byte(s))
				around := ""
				if at >= 0 {
					around = fmt.Sprintf(": %q", data[max(0, at-60):min(len(data), at+len(s)+20)])
				}
				t.Errorf("%s shows %q (%v)%s", where, s, found, around)
			}
		}
	}
}

func TestNoSecretGetsOut(t *testing.T) {
	srv := indiscreet(t)
	h := newHome(t)
	d := h.start(h.secretive(srv.URL, fates()...))
	out := output{}
	const canary = "canary/in+the=payload"
	if code, answer := h.post(`{"id":"e","event":"entry.created","helper":"expenses","entry":{"id":"e1","data":{"note":"` + canary + `"}}}`); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, answer)
	}
	if code, answer := h.post(`{"event":"entry.created","helper":"other","entry":{"id":"e2","data":{}}}`); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, answer)
	}
	page := await(t, "the end of all deliveries", func() (rest.DeliveryPage, error) {
		return d.Deliveries(t.Context(), adminclient.DeliveryQuery{Limit: 100})
	}, func(p rest.DeliveryPage) bool {
		for _, row := range p.Deliveries {
			if row.Status != rest.StatusSuccess && row.Status != rest.StatusFailed {
				return false
			}
		}
		return len(p.Deliveries) == len(fates())+2
	})
	codes := map[string]int{}
	for _, row := range page.Deliveries {
		codes[row.Code]++
		for _, args := range [][]string{{"delivery", row.ID}, {"delivery", row.ID, "--json"}} {
			out.run(d, args...)
		}
		out.ask(d, "GET", "/v1/deliveries/"+row.ID)
		out.ask(d, "GET", "/v1/webhooks/"+row.Webhook)
		out.ask(d, "POST", "/v1/webhooks/"+row.Webhook+"/test")
		out.run(d, "test", row.Webhook)
	}
	for _, code := range []string{"", "status", "timeout", "redirect", "tls", "connect", "protocol"} {
		if codes[code] == 0 {
			t.Errorf("nothing ended with the code %q: %v", code, codes)
		}
	}
	for _, path := range []string{"/v1/helpers", "/v1/webhooks", "/v1/deliveries", "/v1/events/e", "/v1/replays", "/v1/status", "/metrics", "/livez", "/readyz",
		"/v1/webhooks/none", "/v1/deliveries/none", "/nothing"} {
		out.ask(d, "GET", path)
	}
	for _, args := range [][]string{{"check"}, {"check", "--format", "json"}, {"config", "show"}, {"status"}, {"status", "--json"}, {"webhooks"}, {"webhooks", "--json"},
		{"deliveries"}, {"deliveries", "--json"}, {"event", "e"}, {"event", "e", "--json"}, {"retry", page.Deliveries[0].ID}, {"replay", "expenses.refuse"}} {
		out.run(d, args...)
	}
	out.disk(h, "running")
	d.stop()
	out.disk(h, "stopped")
	out["log"] = []byte(h.log.String())
	out.check(t)

	// The search has to find what is there: the payload, which is no secret.
	for _, where := range []string{"disk stopped", "GET /v1/deliveries/", "command delivery", "GET /v1/events/e"} {
		seen := false
		for name, data := range out {
			seen = seen || strings.HasPrefix(name, where) && secrettest.Sightings(data, secrettest.Forms(canary)) != nil
		}
		if !seen {
			t.Errorf("the payload was not found in what %q gave: the search is blind", where)
		}
	}
	// And what is masked has to be there, masked: else nothing was shown at all.
	for _, part := range []string{"********", "${env:HELPER_SECRET}", "${env:NOT_SET:-********}", "${cred:new}"} {
		if !bytes.Contains(out["command config show"], []byte(part)) {
			t.Errorf("config show has no %s:\n%s", part, out["command config show"])
		}
	}
	echoed := false
	for name, data := range out {
		echoed = echoed || strings.HasPrefix(name, "GET /v1/deliveries/") &&
			bytes.Contains(data, []byte(`{"name":"X-Echo-Authorization","value":"********"}`)) && bytes.Contains(data, []byte("Authorization: ********"))
	}
	if !echoed {
		t.Error("no delivery shows the echo of the Authorization header, masked")
	}
	if !strings.Contains(h.log.String(), "level=DEBUG") {
		t.Error("the log is not at debug")
	}
}

// Each line of the file is broken in many ways; what is said of it shows none of
// the secrets.
func TestNoBrokenConfigurationShowsASecret(t *testing.T) {
	h := newHome(t)
	text := h.text(h.secretive("http://127.0.0.1:1", fates()[:4]...))
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	breaks := map[string]func(line string) string{
		"a tab in front":        func(l string) string { return "\t" + l },
		"one space less":        func(l string) string { return strings.TrimPrefix(l, " ") },
		"one space more":        func(l string) string { return " " + l },
		"twice":                 func(l string) string { return l + "\n" + l },
		"the end cut off":       func(l string) string { return l[:len(l)-1] },
		"an open quote":         func(l string) string { return strings.Replace(l, ": ", `: "`, 1) },
		"an open brace":         func(l string) string { return strings.Replace(l, ": ", ": {", 1) },
		"an open reference":     func(l string) string { return strings.ReplaceAll(l, "}", "") },
		"an unknown reference":  func(l string) string { return strings.NewReplacer("env:", "evn:", "file:", "flie:").Replace(l) },
		"no space after colons": func(l string) string { return strings.ReplaceAll(l, ": ", ":") },
		"another key":           func(l string) string { return strings.Replace(l, ":", "x:", 1) },
		"a list":                func(l string) string { return strings.Replace(l, ": ", ": [", 1) + "]" },
		"a tag":                 func(l string) string { return strings.Replace(l, ": ", ": !!int ", 1) },
		"an anchor":             func(l string) string { return strings.Replace(l, ": ", ": &a ", 1) },
		"an alias":              func(l string) string { return strings.Replace(l, ": ", ": *", 1) },
		"a control character":   func(l string) string { return l + "\x01" },
		"not UTF-8":             func(l string) string { return l + "\xff" },
		"a comment":             func(l string) string { return l + " # " + plantedTop },
		"a block":               func(l string) string { k, v, _ := strings.Cut(l, ": "); return k + ": |\n" + v },
		"an @ in front":         func(l string) string { return strings.Replace(l, ": ", ": @", 1) },
	}
	valid, invalid := 0, 0
	for name, f := range breaks {
		out := output{}
		for i, line := range lines {
			if slices.Index(lines, line) < i {
				continue // nothing new
			}
			broken := append(append(append([]string{}, lines[:i]...), f(line)), lines[i+1:]...)
			if err := os.WriteFile(h.path("config.yaml"), []byte(strings.Join(broken, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			cfg, report := config.Load(config.Options{Path: h.path("config.yaml"), LookupEnv: h.lookup})
			var all bytes.Buffer
			if err := errors.Join(report.WriteText(&all, true), report.WriteJSON(&all)); err != nil {
				t.Fatal(err)
			}
			if cfg == nil {
				invalid++
				fmt.Fprint(&all, report.Err())
			} else {
				valid++
				if err := cfg.Show(&all); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&all, "%+v %#v", *cfg, *cfg)
			}
			out[fmt.Sprintf("line %d with %s", i+1, name)] = all.Bytes()
		}
		out.check(t)
	}
	if invalid < valid {
		t.Errorf("only %d of %d files are invalid", invalid, valid+invalid)
	}
}
