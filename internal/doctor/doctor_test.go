package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// authority issues certificates for receivers on loopback.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// receiver answers every request as f says, over TLS when cert has one.
func receiver(t *testing.T, cert *tls.Certificate, f http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(f)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if cert == nil {
		s.Start()
	} else {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return s.URL
}

func answers(status int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
	}
}

// examine runs the doctor on a file with one webhook, without a daemon.
func examine(t *testing.T, keys string, adjust ...func(*Options)) (results []Result, worst string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	content := "listen: {events: " + dir + "/e.sock, admin: " + dir + "/a.sock}\nqueue: {dir: " + dir + "/q, min_free: 1MiB}\n" +
		"helpers:\n  x:\n    secret: 0123456789abcdef01234567\n    webhooks:\n      a:\n        " + keys + "\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: func(string) (string, bool) { return "", false }})
	if cfg == nil {
		t.Fatalf("%v", report.Err())
	}
	o := Options{Config: cfg, Report: report, Offline: "nobody is asked", Only: "x.a", Ping: true, Found: func(r Result) { results = append(results, r) }}
	for _, f := range adjust {
		f(&o)
	}
	worst = Run(t.Context(), o)
	return results, worst
}

func find(results []Result, check string) *Result {
	for i, r := range results {
		if r.Check == check && r.Subject == "x.a" {
			return &results[i]
		}
	}
	return nil
}

func show(results []Result) string {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%+v\n", r)
	}
	return b.String()
}

func TestEachFaultOfAReceiverIsFoundWithItsFix(t *testing.T) {
	ca := newAuthority(t)
	issued := func(change func(*x509.Certificate)) *tls.Certificate { return new(ca.issue(t, change)) }
	trusted := "\n        tls: {ca: " + ca.file + "}"
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + closed.Addr().String()
	closed.Close()
	date := func(off time.Duration) string { return time.Now().Add(off).UTC().Format(http.TimeFormat) }

	for _, row := range []struct {
		name, keys, check, status, says, fix string
		line                                 int
	}{
		{"refused", "url: " + nobody, "tcp", Failed, "refused", "nothing listens on port", 8},
		{"no such name", "url: https://receiver.invalid/hook", "dns", Failed, "receiver.invalid cannot be resolved", "host of the url", 8},
		{"private", "url: http://localhost.localdomain/", "dns", Failed, "", "", 8},
		{"expired", "url: " + receiver(t, issued(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(0, 0, -3)
		}), answers(200)) + trusted, "tls", Failed, "has expired", "renew it", 8},
		{"expires soon", "url: " + receiver(t, issued(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(72 * time.Hour) }), answers(200)) + trusted, "tls", Warning, "3 days left", "renew it", 8},
		{"wrong name", "url: " + receiver(t, issued(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} }), answers(200)) + trusted,
			"tls", Failed, "for another name (certificate of other.example", "must list 127.0.0.1", 8},
		{"unknown authority", "url: " + receiver(t, issued(nil), answers(200)), "tls", Failed, "not trusted", "full chain", 8},
		{"no TLS there", "url: " + strings.Replace(receiver(t, nil, answers(200)), "http:", "https:", 1), "tls", Failed, "no TLS connection", "is it https", 8},
		{"redirect", "url: " + receiver(t, nil, answers(308, "Location", "https://new.example/secret/path")), "redirect", Failed, "points to https://new.example;", "the url must be", 8},
		{"unauthorised", "url: " + receiver(t, nil, answers(401)), "ping", Failed, "401", "compare the secret", 8},
		{"body limit", "url: " + receiver(t, nil, answers(413)), "ping", Failed, "413", "express.json({limit", 8},
		{"wrong path", "url: " + receiver(t, nil, answers(404)), "ping", Failed, "404", "the path", 8},
		{"server error", "url: " + receiver(t, nil, answers(500)), "ping", Failed, "500", "receiver's own log", 8},
		{"clock behind", "url: " + receiver(t, nil, answers(200, "Date", date(-3*time.Minute))), "clock skew", Warning, "behind ours", "set-ntp", 7},
		{"clock ahead with timestamps", "signatures: [{scheme: standard}]\n        url: " + receiver(t, nil, answers(200, "Date", date(time.Hour))), "clock skew", Failed, "refuse the timestamps", "set-ntp", 7},
		{"disabled", "enabled: false\n        url: " + receiver(t, nil, answers(200)), "state", Warning, "disabled", "peanuts-relay enable x.a", 8},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.says == "" { // needs a name that resolves to loopback here
				if _, err := net.LookupHost("localhost.localdomain"); err != nil {
					t.Skip("localhost.localdomain does not resolve here")
				}
				row.says = "may not be called"
			}
			results, worst := examine(t, row.keys)
			r := find(results, row.check)
			if r == nil || r.Status != row.status || !strings.Contains(r.Message, row.says) || !strings.Contains(r.Fix, row.fix) || r.Line != row.line || r.File == "" {
				t.Fatalf("want %s %s %q with %q at line %d, got\n%s", row.check, row.status, row.says, row.fix, row.line, show(results))
			}
			if row.status == Failed && worst != Failed || worst == OK {
				t.Errorf("the worst is %s", worst)
			}
			for _, secret := range []string{"secret/path", "0123456789abcdef01234567", "/hook"} {
				if strings.Contains(show(results), secret) {
					t.Errorf("%q is shown:\n%s", secret, show(results))
				}
			}
		})
	}
}

// The control of the test above: what is well is not found fault with.
func TestNothingIsWrongWithAGoodReceiver(t *testing.T) {
	ca := newAuthority(t)
	overTLS := receiver(t, new(ca.issue(t, nil)), answers(200)) + "\n        tls: {ca: " + ca.file + "}"
	for _, url := range []string{receiver(t, nil, answers(204)), overTLS} {
		results, worst := examine(t, "url: "+url)
		if worst != OK || find(results, "ping") == nil || find(results, "ping").Status != OK || !strings.Contains(find(results, "ping").Message, "directly") {
			t.Errorf("%s: %s\n%s", url, worst, show(results))
		}
	}
}

func TestWhatTheLogSaysOfAReceiver(t *testing.T) {
	large := strings.Repeat("x", jsonLimit+1)
	one := func(status string, code int, payload string, took time.Duration) *rest.DeliveryDetail {
		return &rest.DeliveryDetail{Delivery: rest.Delivery{ID: "del_" + strconv.Itoa(code), Status: status, StatusCode: rest.StatusCode(code)}, Payload: payload,
			Log: []rest.Attempt{{Duration: rest.Millis(took), Response: &rest.Response{Status: code}}}}
	}
	for _, row := range []struct {
		name  string
		log   []*rest.DeliveryDetail
		check string
		says  string
	}{
		{"413", []*rest.DeliveryDetail{one(rest.StatusFailed, 413, large, 0), one(rest.StatusSuccess, 200, "{}", 0)}, "body limit", "refused 1 payload as too large (413): del_413 (100.0 KiB)"},
		{"over 100 kB and never taken", []*rest.DeliveryDetail{one(rest.StatusPending, 0, large, 0), one(rest.StatusSuccess, 200, "{}", 0)}, "body limit", "limit of Express"},
		{"slow", []*rest.DeliveryDetail{one(rest.StatusSuccess, 200, "{}", 6*time.Second)}, "slow answers", "1 of the last 1"},
		{"429", []*rest.DeliveryDetail{one(rest.StatusFailed, 429, "{}", 0), one(rest.StatusSuccess, 200, "{}", 0)}, "schedule", "for good with 429"},
		{"mostly failing", []*rest.DeliveryDetail{one(rest.StatusFailed, 400, "{}", 0)}, "log", "1 of the last 1"},
		{"large and taken", []*rest.DeliveryDetail{one(rest.StatusSuccess, 200, large, 0)}, "log", "nothing wrong"},
	} {
		var results []Result
		d := &doctor{Options: Options{Found: func(r Result) { results = append(results, r) }}, subject: "x.a"}
		h := history{}
		for _, x := range row.log {
			h.add(x)
		}
		d.limitsOf(&config.Webhook{ID: "x.a"}, &h)
		if r := find(results, row.check); len(results) != 1 || r == nil || !strings.Contains(r.Message, row.says) {
			t.Errorf("%s: %s", row.name, show(results))
		}
	}
}

func TestASlowAnswerIsAWarning(t *testing.T) {
	release := make(chan struct{})
	url := receiver(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-release:
		case <-time.After(200 * time.Millisecond):
		}
		w.WriteHeader(http.StatusNoContent)
	})
	results, worst := examine(t, "url: "+url, func(o *Options) { o.slow = 100 * time.Millisecond })
	if r := find(results, "slow"); r == nil || r.Status != Warning || worst != Warning || !strings.Contains(r.Fix, "answer first") {
		t.Error(show(results))
	}
	close(release)
	if results, worst := examine(t, "url: "+url, func(o *Options) { o.slow = time.Minute }); worst != OK {
		t.Errorf("in time: %s", show(results))
	}
}

func TestTheHostIsLookedAt(t *testing.T) {
	dir := t.TempDir()
	proc := filepath.Join(dir, "proc")
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("7/limits", "Limit                     Soft Limit           Hard Limit           Units\nMax open files            64                   64                   files\n")
	for i := range 60 {
		write("7/fd/"+strconv.Itoa(i), "")
	}
	write("sys/fs/inotify/max_user_instances", "1\n")
	write("sys/fs/inotify/max_user_watches", "100000\n")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	status := &rest.Status{PID: 7, Queue: rest.Queue{Dir: dir, MaxBytes: 100, MinFree: 1 << 60, Counts: rest.Counts{LiveBytes: 90}, ClockAhead: rest.Millis(-time.Hour)},
		Listen: rest.Listen{Admin: filepath.Join(dir, "admin.sock")}}
	if err := os.WriteFile(status.Listen.Admin, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var results []Result
	d := &doctor{Options: Options{Status: status, proc: proc, Found: func(r Result) { results = append(results, r) }}}
	d.host()
	for check, says := range map[string]string{"disk": "events are refused", "queue.dir": "others can look", "queue": "90 %", "clock jump": "set by 1h0m0s",
		"descriptors": "60 of 64", "inotify": "max_user_instances is 1", "listen.admin": "is not a socket"} {
		found := false
		for _, r := range results {
			found = found || r.Check == check && r.Status != OK && strings.Contains(r.Message, says) && r.Fix != ""
		}
		if !found {
			t.Errorf("no %s with %q:\n%s", check, says, show(results))
		}
	}
}

func TestWhatSystemdSaysOfTheUnit(t *testing.T) {
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "7"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, "7", "cgroup"), []byte("0::/system.slice/peanuts-relay.service\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for facts, says := range map[string]string{
		"NRestarts=0\nUnitFileState=enabled\nType=notify\nRestart=on-failure\nNeedDaemonReload=no\n": "type notify",
		"NRestarts=3\nUnitFileState=enabled\n":                                                       "restarted 3 times",
		"NRestarts=0\nUnitFileState=disabled\n":                                                      "not started at boot",
		"NRestarts=0\nNeedDaemonReload=yes\n":                                                        "changed on the disk",
	} {
		var results []Result
		d := &doctor{Options: Options{Status: &rest.Status{PID: 7}, proc: proc, Found: func(r Result) { results = append(results, r) },
			show: func(unit string) (string, error) {
				if unit != "peanuts-relay.service" {
					t.Errorf("asked for %q", unit)
				}
				return facts, nil
			}}}
		d.unit()
		if len(results) != 1 || !strings.Contains(results[0].Message, says) || (results[0].Status == OK) != (says == "type notify") {
			t.Errorf("%q: %s", facts, show(results))
		}
	}
}

func TestWhatTheDaemonSaysIsPassedOn(t *testing.T) {
	var results []Result
	status := &rest.Status{Reasons: []string{"there is too little disk space"}, Config: rest.Config{State: rest.ConfigRejected, Generation: 3, LastReload: &rest.Reload{Error: "config.yaml:3:1: unknown key"},
		RestartRequired: []string{"listen.events"}, Watching: rest.WatchingPolling},
		Plugins: []rest.Plugin{{Sink: "slack", State: rest.PluginBackoff, Crashes: 3, LastError: "signal 9"}, {Sink: "sheets", State: rest.PluginReady, Healthy: true, Outdated: true, Version: "1"}}}
	d := &doctor{Options: Options{Status: status, Found: func(r Result) { results = append(results, r) }}}
	d.daemon()
	for _, says := range []string{"too little disk space", "configuration 3 goes on: config.yaml:3:1", "listen.events takes effect", "every 5 s", "ended 3 times", "on the disk is another one"} {
		if !strings.Contains(show(results), says) {
			t.Errorf("%q is missing:\n%s", says, show(results))
		}
	}
}
