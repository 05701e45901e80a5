package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/secrettest"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// What is planted, but for the keys, which are made.
const (
	vaultOld     = "OldFromFile/s3cr3t+one=alpha"
	vaultNew     = "NewLiteral/s3cr3t+two=beta&<b>"
	vaultHelper  = "HelperFromEnv/s3cr3t+three=gamma"
	vaultBearer  = "BearerLiteral/s3cr3t+four=delta"
	vaultDefault = "DefaultOfEnv/s3cr3t+five=eps"
	vaultToken   = "TokenOfPlugin/s3cr3t+six=zeta"
	vaultSlack   = "SlackPathS3cr3tSevenEta"
	vaultZap     = "ZapPath-s3cr3t_eight-theta" // has the form of an id: see the control
	vaultProxy   = "ProxyWord.s3cr3t-nine-iota"
	vaultURL     = "UrlPart.s3cr3t-ten-kappa"
	vaultWeb     = "WebToken/s3cr3t+thirteen=mu"
)

// planted is one secret of the thirteen.
type planted struct {
	name    string
	literal bool                // it stands in the configuration file itself
	forms   []map[string]string // of each part: a key has its lines
}

// vault is a daemon whose configuration has a secret in each place for one, in front of
// receivers, a proxy and plugins that tell everything they know.
type vault struct {
	*site
	plain, secure, proxy *httptest.Server
	secrets              []planted
	daemon               *process
	cores                string // the directory in which the daemon runs
	bin                  string // that of the plugins

	mu  sync.Mutex                   // guards the rest
	out map[string]map[string][]byte // what was found, by surface and place
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{site: newSite(t, "", ""), out: map[string]map[string][]byte{}, cores: t.TempDir()}
	v.plain = httptest.NewServer(http.HandlerFunc(tellAll))
	v.proxy = httptest.NewServer(http.HandlerFunc(tellAll))
	t.Cleanup(v.plain.Close)
	t.Cleanup(v.proxy.Close)
	if err := os.Mkdir(v.file("conf.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	v.plant()
	v.bin = v.file("bin")
	if err := os.Mkdir(v.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	zoo.Install(t, v.bin, "healthy")
	zoo.Install(t, v.bin, "leak")
	proxied := "http://relay:" + vaultProxy + "@" + v.proxy.Listener.Addr().String()
	v.env = []string{"HELPER_SECRET=" + vaultHelper, "HTTP_PROXY=" + proxied, "HTTPS_PROXY=" + proxied, "GOTRACEBACK=crash", "TZ=UTC"}
	return v
}

func (v *vault) file(name string) string { return filepath.Join(v.dir, name) }

func (v *vault) put(name, text string) {
	v.t.Helper()
	if err := os.WriteFile(v.file(name), []byte(text), 0o600); err != nil {
		v.t.Fatal(err)
	}
}

// plant makes the keys, writes the files that the configuration refers to, and starts
// the receiver that asks for a certificate.
func (v *vault) plant() {
	v.t.Helper()
	ca := newAuthority(v.t, "ca")
	pair, key := ca.issue(v.t, "server")
	cert, err := tls.X509KeyPair([]byte(pair), []byte(key))
	if err != nil {
		v.t.Fatal(err)
	}
	v.secure = httptest.NewUnstartedServer(http.HandlerFunc(tellAll))
	v.secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert}
	v.secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	v.secure.StartTLS()
	v.t.Cleanup(v.secure.Close)
	clientCert, clientKey := ca.issue(v.t, "client")
	_, google := ca.issue(v.t, "google")
	account, err := json.Marshal(map[string]string{"type": "service_account", "private_key": google, "client_email": "relay@example.com"})
	if err != nil {
		v.t.Fatal(err)
	}
	for name, text := range map[string]string{"ca.pem": ca.pem, "client.pem": clientCert, "client.key": clientKey, "google.json": string(account), "old": vaultOld + "\n",
		"token": vaultToken, "web.token": vaultWeb, "slack.url": "https://hooks.slack.com/services/T0/B0/" + vaultSlack, "zap.url": "https://hooks.zapier.com/hooks/catch/1/" + vaultZap + "/"} {
		v.put(name, text)
	}
	add := func(name string, literal bool, parts ...string) {
		p := planted{name: name, literal: literal}
		for _, part := range parts {
			p.forms = append(p.forms, secrettest.Forms(part))
		}
		v.secrets = append(v.secrets, p)
	}
	add("the old secret of a webhook", false, vaultOld)
	add("the new secret of a webhook", true, vaultNew)
	add("the secret of a helper", false, vaultHelper)
	add("the value of a header", true, vaultBearer)
	add("the default of a reference", true, vaultDefault)
	add("the token of a plugin", false, vaultToken)
	add("the key of a service account", false, linesOf(google)...)
	add("the URL of a Slack webhook", false, vaultSlack)
	add("the URL of a Zap", false, vaultZap)
	add("the password of the proxy", false, vaultProxy)
	add("a part of a URL", true, vaultURL)
	add("the key of a client's certificate", false, linesOf(clientKey)...)
	add("the token of the page", false, vaultWeb)
}

// linesOf are the lines of a key that can be recognised: the first of those that we make
// begins as any key of its kind does.
func linesOf(key string) (lines []string) {
	for line := range strings.Lines(key) {
		if line = strings.TrimSpace(line); len(line) == 64 && !strings.HasPrefix(line, "-----") {
			lines = append(lines, line)
		}
	}
	return lines[1:]
}

// configuration is the main file. The plugin called deadly tells its token at every call
// and dies of the first delivery. extra are more helpers.
func (v *vault) configuration(deadly, extra string) string {
	plugin := func(name, sink, file string) string {
		return fmt.Sprintf("      %s:\n        sink: %s\n        settings:\n          record: %s\n          token: ${file:%s}\n",
			name, sink, v.file("record-"+name), v.file(file))
	}
	healthy := zoo.Name("healthy")
	return fmt.Sprintf(`listen: {events: %[1]s/events.sock, admin: %[1]s/admin.sock, web: "127.0.0.1:0", web_token: "${file:%[1]s/web.token}"}
log: {format: text, level: debug}
queue: {dir: %[2]s, min_free: 128MiB}
retry: {timeout: 30s, schedule: [1h]}
plugins: {dir: %[1]s/bin}
helpers:
  vault:
    secret: ${env:HELPER_SECRET}
    webhooks:
      account:
        url: %[4]s/%[3]s/refuse?key=%[3]s
      rotated:
        url: %[4]s/refuse
        secrets:
          - ${file:%[1]s/old}
          - '%[5]s'
        headers:
          Authorization: Bearer %[6]s
          X-Default: '${env:NOT_SET:-%[7]s}'
      fails:
        url: %[4]s/fail
      client:
        url: %[8]s/refuse
        tls:
          ca: %[1]s/ca.pem
          cert: %[1]s/client.pem
          key: %[1]s/client.key
      proxied:
        url: http://receiver.example.com/refuse
      tunnel:
        url: https://receiver.example.com/refuse
`, v.dir, v.data, vaultURL, v.plain.URL, vaultNew, vaultBearer, vaultDefault, v.secure.URL) +
		plugin("sheet", healthy, "google.json") + plugin("slack", healthy, "slack.url") + plugin("zap", healthy, "zap.url") + plugin("token", healthy, "token") +
		"  grave:\n    secret: ${env:HELPER_SECRET}\n    webhooks:\n" + plugin("deadly", deadly, "token") + extra
}

// start starts a daemon that may leave a core file.
func (v *vault) start(env ...string) {
	v.t.Helper()
	v.prepare = func(cmd *exec.Cmd) {
		name := v.file("peanuts-relay")
		_ = os.Remove(name)
		if err := os.Symlink(cmd.Path, name); err != nil {
			v.t.Fatal(err)
		}
		cmd.Path = name
		cmd.Env = append(cmd.Env, env...)
		withCores(cmd, v.cores)
	}
	v.daemon = v.up()
}

// tellAll is a receiver, or a proxy, that shows everything it was sent and knows.
func tellAll(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var dump bytes.Buffer
	fmt.Fprintf(&dump, "%s %s\n", r.Method, r.RequestURI)
	for name, values := range r.Header {
		fmt.Fprintf(&dump, "%s: %s\n%s\n", name, values[0], url.QueryEscape(values[0]))
		w.Header().Set("X-Echo-"+name, values[0])
		if _, word, ok := (&http.Request{Header: http.Header{"Authorization": values}}).BasicAuth(); ok {
			fmt.Fprintf(&dump, "password %s\n", word)
			w.Header().Set("X-Word", word)
		}
	}
	_ = json.NewEncoder(&dump).Encode(map[string]any{"headers": r.Header, "body": string(body)}) // a buffer takes everything
	fmt.Fprintf(&dump, "query %v\n", r.URL.Query())
	switch {
	case r.Header.Get("Proxy-Authorization") != "": // a proxy knows nothing of ours
	case strings.Contains(dump.String(), vaultBearer):
		fmt.Fprintf(&dump, "expected the signature made with %s or %s\n", vaultOld, vaultNew)
	default:
		fmt.Fprintf(&dump, "expected the signature made with %s\n", vaultHelper)
	}
	if r.Method == http.MethodConnect {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			fmt.Fprintf(c, "HTTP/1.1 502 not with %s\r\nContent-Length: %d\r\n\r\n%s", r.Header.Get("Proxy-Authorization"), dump.Len(), dump.Bytes())
			c.Close()
		}
		return
	}
	status := http.StatusUnprocessableEntity
	if strings.HasSuffix(r.URL.Path, "/fail") {
		status = http.StatusBadGateway
	}
	w.WriteHeader(status)
	_, _ = w.Write(dump.Bytes())
}

// add keeps what was found at a place of a surface.
func (v *vault) add(surface, place string, data []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.out[surface] == nil {
		v.out[surface] = map[string][]byte{}
	}
	v.out[surface][place] = append(v.out[surface][place], data...)
}

// toAdmin connects to the admin socket for each request.
func (v *vault) toAdmin() *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", v.file("admin.sock"))
	}}
}

// ask puts a request to the admin socket, without a client of ours between.
func (v *vault) ask(t *testing.T, method, path, body string) (int, []byte) {
	t.Helper()
	c := &http.Client{Timeout: patience, Transport: v.toAdmin()}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://admin"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	var all bytes.Buffer
	if err := resp.Header.Write(&all); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&all, resp.Body); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, all.Bytes()
}

// command runs the program and returns what it prints, whatever its status.
func (v *vault) command(stdin string, args ...string) []byte {
	v.t.Helper()
	self, err := os.Executable()
	if err != nil {
		v.t.Fatal(err)
	}
	cmd := exec.CommandContext(v.t.Context(), self, args...)
	cmd.Args[0] = "peanuts-relay"
	cmd.Env = append(append(os.Environ(), v.env...), "PEANUTS_RELAY_CONFIG="+v.config())
	cmd.Stdin = strings.NewReader(stdin)
	out, _ := cmd.CombinedOutput() // what it says is looked at, not whether it could
	return out
}
