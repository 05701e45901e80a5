package httpsink

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

const receiversDir = "testdata/receivers"

// payloads are what JavaScript writes back as it read it, so that a receiver
// may verify over JSON.stringify(req.body).
func payloads() []string {
	entry := func(data string) string {
		return `{"event":"entry.created","timestamp":"2025-01-15T14:32:00.000Z","helper":{"id":"expenses","name":"Daily Expenses","command":"/expenses"},` +
			`"entry":{"id":"entry-789-xyz","data":` + data + `,"created_at":"2025-01-15T14:32:00.000Z"},"user":{"id":"user-456"}}`
	}
	return []string{
		entry(`{}`),
		entry(`{"amount":42.5,"category":"Food & Dining","date":"2025-01-15","paid":true,"tags":[],"note":null}`),
		entry(`{"a":0.1,"b":1e+21,"c":1e-7,"d":123456789012345680000,"e":9007199254740991,"f":5e-324,"g":1.7976931348623157e+308,"h":-1.5,"i":0}`),
		entry("{\"u\":\"Größe, 日本語, \U0001F600\",\"html\":\"<a href='x'>&</a>\",\"separators\":\"\u2028\u2029\",\"del\":\"\u007f\"}"),
		entry(`{"control":"\b\t\n\f\r\u0000\u001f","quote":"\"\\/","surrogate":"\ud800","other":"\udfff!"}`),
		entry(`{"1":"one","2":"two","10":"ten","b":"first","a":"second","":"empty","__proto__":{"x":1},"constructor":1}`),
		entry(`{"deep":` + strings.Repeat(`[{"a":`, 20) + `1` + strings.Repeat(`}]`, 20) + `}`),
		entry(`{"long":"` + strings.Repeat("0123456789", 30_000) + `"}`),
		`{"id":"evt_1","type":"payment.failed","created_at":"2025-01-15T14:32:00.000Z","data":{"id":"p-1","amount":12}}`,
	}
}

// rawOnly are payloads that JavaScript would write differently: the relay flags
// these deliveries, and only receivers that verify the raw body accept them.
func rawOnly() []string {
	return []string{`{"event":"entry.created","entry":{"id":"e","data":{"n":12345678901234567890}}}`,
		`{"event":"entry.created","entry":{"id":"e","data":{"n":1E400}}}`}
}

var receivers = []struct {
	file  string
	specs []signing.Spec
	raw   bool // verifies the raw body
}{
	{"node-raw.js", []signing.Spec{{Scheme: signing.Peanuts}}, true},
	{"node-standard.js", []signing.Spec{{Scheme: signing.Standard}}, true},
	{"node-stringify.js", []signing.Spec{{Scheme: signing.Peanuts}}, false},
	{"node-strip.js", []signing.Spec{{Scheme: signing.Peanuts}}, true},
	{"node-hex.js", []signing.Spec{{Scheme: signing.Hex, Header: "X-Peanuts-Signature"}}, false},
	{"python-hmac.py", []signing.Spec{{Scheme: signing.Peanuts}}, true},
	{"go-raw.go", []signing.Spec{{Scheme: signing.Peanuts}}, true},
	{"php-raw.php", []signing.Spec{{Scheme: signing.Peanuts}}, true},
}

func TestRealReceiversAcceptWhatIsRightAndNothingElse(t *testing.T) {
	for _, r := range receivers {
		t.Run(r.file, func(t *testing.T) {
			base := startReceiver(t, r.file)
			list := payloads()
			if r.raw {
				list = append(list, rawOnly()...)
			}
			sink := func(url, sec string) *Sink {
				signer, err := signing.New(r.specs, []secret.String{secret.New(sec)})
				if err != nil {
					t.Fatal(err)
				}
				return newSink(t, url+"/", func(o *Options) { o.Signer = signer; o.Timeout = time.Minute })
			}
			right, wrong := sink(base, testSecret), sink(base, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
			tampered := sink(tamperer(t, base), testSecret)
			for i, p := range list {
				o := outbound()
				o.Payload = []byte(p)
				if a := deliver(t, right, o); a.Outcome != delivery.Delivered {
					t.Errorf("payload %d: %v %d %q: %.200s", i, a.Outcome, a.Status, a.Error, a.Body)
				}
				if i > 1 {
					continue
				}
				if a := deliver(t, wrong, o); a.Status != http.StatusUnauthorized || a.Outcome != delivery.Rejected {
					t.Errorf("payload %d with another secret: %v %d", i, a.Outcome, a.Status)
				}
				if a := deliver(t, tampered, o); a.Status != http.StatusUnauthorized || a.Outcome != delivery.Rejected {
					t.Errorf("payload %d changed on the way: %v %d", i, a.Outcome, a.Status)
				}
			}
		})
	}
}

// tamperer passes requests on with one character of the body changed.
func tamperer(t *testing.T, base string) string {
	t.Helper()
	target, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	srv := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		body, err := io.ReadAll(r.In.Body)
		if err != nil {
			t.Error(err)
		}
		r.Out.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte("entry-789"), []byte("entry-780"), 1)))
	}})
	t.Cleanup(func() { srv.Close(); transport.CloseIdleConnections() })
	return srv.URL
}

func startReceiver(t *testing.T, file string) (base string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(receiversDir, file))
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PEANUTS_SECRET="+testSecret, "PORT=0")
	var cmd *exec.Cmd
	switch filepath.Ext(file) {
	case ".js":
		env = append(env, "NODE_PATH="+testhost.NodeModules(t, receiversDir))
		cmd = exec.Command(testhost.Program(t, "node"), path)
	case ".py":
		cmd = exec.Command(testhost.Program(t, "python3"), path)
	case ".php":
		return startPHP(t, path, env)
	case ".go":
		binary := filepath.Join(t.TempDir(), "receiver")
		if out, err := exec.Command(testhost.Program(t, "go"), "build", "-o", binary, path).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", file, err, out)
		}
		cmd = exec.Command(binary)
	}
	cmd.Env = env
	return "http://127.0.0.1:" + start(t, cmd, regexp.MustCompile(`^listening on (\d+)`))
}

// startPHP picks the port itself, because PHP's server does not tell which one
// it got.
func startPHP(t *testing.T, path string, env []string) string {
	t.Helper()
	php := testhost.Program(t, "php")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(php, "-S", addr, path)
	cmd.Env = env
	start(t, cmd, regexp.MustCompile(`(Development Server) \(`))
	return "http://" + addr
}

// start runs a receiver until the test ends, and returns what ready found in
// the first line of its output that matches.
func start(t *testing.T, cmd *exec.Cmd, ready *regexp.Regexp) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	found := make(chan string, 1)
	output := make(chan string, 1)
	go func() {
		var all strings.Builder
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if m := ready.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case found <- m[1]:
				default:
				}
			}
			all.WriteString(lines.Text() + "\n")
		}
		output <- all.String()
	}()
	stop := sync.OnceValue(func() string {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		text := <-output
		r.Close()
		return text
	})
	t.Cleanup(func() {
		if text := stop(); t.Failed() {
			t.Logf("output of the receiver:\n%s", text)
		}
	})
	select {
	case m := <-found:
		return m
	case <-time.After(time.Minute):
		t.Fatalf("%s did not start:\n%s", cmd.Path, stop())
	}
	return ""
}

// checkWithLibrary reads one request a line and verifies it with the npm
// package standardwebhooks.
const checkWithLibrary = `
const { Webhook } = require('standardwebhooks');
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { secret, body, headers } = JSON.parse(line);
  try {
    new Webhook(secret).verify(Buffer.from(body, 'base64'), headers);
    console.log('ok');
  } catch (err) {
    console.log(err.message);
  }
});`

// Whatever secret New takes for the scheme, the library takes as well, and what
// the library cannot work with New refuses.
func TestTheStandardWebhooksPackageAcceptsEverySecretThatWeAccept(t *testing.T) {
	secrets := []string{
		testSecret, strings.TrimPrefix(testSecret, "whsec_"), "whsec_QQ==", "QQ==", "whsec_QUI=", "QUJD", "mysecret",
		"whsec_" + strings.Repeat("QUJD", 200), "whsec_+/+/", "whsec_QR==", // bits behind the last byte are ignored by both
		// not usable:
		"a secret of words", "longersecretwithoutprefix", "QQ", "whsec_QUI", "whsec_", "whsec_-_-_", "whsec_QUJ\nD", "whsec_QQ=", "v1,whsec_QUJD", "whsec_QUJD=", "ünïcode", "whsec_whsec_QUJD",
	}
	var input bytes.Buffer
	var accepted []string
	for _, sec := range secrets {
		signer, err := signing.New([]signing.Spec{{Scheme: signing.Standard}}, []secret.String{secret.New(sec)})
		if err != nil {
			continue
		}
		accepted = append(accepted, sec)
		body := payloads()[1]
		var headers strings.Builder
		for i, h := range signer.Sign(nil, "del_1", time.Now(), []byte(body)) {
			if i > 0 {
				headers.WriteString(",")
			}
			headers.WriteString(strconv.Quote(h.Name) + ":" + strconv.Quote(h.Value))
		}
		fmt.Fprintf(&input, "{\"secret\":%q,\"body\":%q,\"headers\":{%s}}\n", sec, base64.StdEncoding.EncodeToString([]byte(body)), headers.String())
	}
	if want := secrets[:10]; !slices.Equal(accepted, want) {
		t.Errorf("accepted %q, want %q", accepted, want)
	}
	cmd := exec.Command(testhost.Program(t, "node"), "-e", checkWithLibrary)
	cmd.Env = append(os.Environ(), "NODE_PATH="+testhost.NodeModules(t, receiversDir))
	cmd.Stdin = &input
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	verdicts := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(verdicts) != len(accepted) {
		t.Fatalf("%d verdicts for %d secrets:\n%s", len(verdicts), len(accepted), out)
	}
	for i, v := range verdicts {
		if v != "ok" {
			t.Errorf("secret %q: %s", accepted[i], v)
		}
	}
}

// The document shows the receivers that were tested, and no others.
func TestTheDocumentShowsTheTestedReceivers(t *testing.T) {
	doc, err := os.ReadFile("../../docs/receivers.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]string)
	for _, m := range regexp.MustCompile("(?ms)^<!-- receiver: (\\S+) -->\n```[a-z]+\n(.*?)^```$").FindAllStringSubmatch(string(doc), -1) {
		shown[m[1]] = m[2]
	}
	for _, r := range receivers {
		text, err := os.ReadFile(filepath.Join(receiversDir, r.file))
		if err != nil {
			t.Fatal(err)
		}
		if shown[r.file] != string(text) {
			t.Errorf("the document does not show %s as it is", r.file)
		}
		delete(shown, r.file)
	}
	for file := range shown {
		t.Errorf("the document shows %s, which no test drives", file)
	}
	files, err := os.ReadDir(receiversDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(receivers)+2 {
		t.Errorf("%d files for %d receivers and the two of npm", len(files), len(receivers))
	}
	blocks := len(regexp.MustCompile("(?m)^```(js|python|go|php)$").FindAllString(string(doc), -1))
	if blocks != len(receivers) {
		t.Errorf("%d code blocks for %d receivers", blocks, len(receivers))
	}
}
