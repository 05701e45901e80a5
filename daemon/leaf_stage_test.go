package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	// loopbackNames makes a daemon that is this test binary resolve every name to
	// 127.0.0.1.
	loopbackNames = "PEANUTS_TEST_LOOPBACK_NAMES=1"

	keyTop    = "the-secret-of-the-whole-file"
	keyHelper = "the-secret-of-the-helper-own"
	keyHook   = "the-secret-of-one-webhook-alone"
	keyNew    = "the-secret-that-comes-instead"
)

// stageKeys are the secrets that receivers know, by name.
func stageKeys() map[string]string {
	return map[string]string{"top": keyTop, "helper": keyHelper, "hook": keyHook, "new": keyNew}
}

// stage is a running daemon in front of receivers that behave as their path
// says.
type stage struct {
	*site
	daemon  *process
	port    string // of the receivers
	secure  *httptest.Server
	plugins string   // a directory with two copies of a plugin
	certs   []string // of clients, in PEM form, each with its key
	n       int      // events sent
	full    bool     // the queue has its backlog

	mu     sync.Mutex // guards the rest
	got    map[string]*request
	grew   chan struct{} // closed when a request came
	freed  map[string]chan struct{}
	active int           // requests at /hold
	most   int           // of them at once
	gate   chan struct{} // closed to let them go
}

// request is what came for an event.
type request struct {
	path   string
	header http.Header
	body   string
	client string // name in the certificate
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{site: newSite(t, "", ""), got: map[string]*request{}, grew: make(chan struct{}), freed: map[string]chan struct{}{}, gate: make(chan struct{})}
	s.env = []string{loopbackNames}
	plain := httptest.NewServer(s)
	t.Cleanup(plain.Close)
	_, s.port, _ = net.SplitHostPort(plain.Listener.Addr().String())
	s.serveTLS()
	s.plugins = filepath.Join(s.dir, "sinks")
	for _, dir := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(s.plugins, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.plugins, dir, "peanuts-sink-tool"), []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "conf.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write("config.yaml", s.fill(stageConfig))
	s.age()
	s.daemon = s.up()
	return s
}

// stageConfig has a helper for each thing that is to be seen.
const stageConfig = `listen: {events: @DIR@/events.sock, admin: @DIR@/admin.sock}
log: {format: text}
queue: {dir: @DATA@, min_free: 128MiB}
retry: {timeout: 10m, schedule: [1h]}
plugins: {dir: @PLUGINS@/a}
sinks: {tool: {sha256: @SUM@}}
secret: ` + keyTop + `
helpers:
  plain: {webhooks: {w: {url: "@URL@/ok"}}}
  own:
    name: Own
    command: /own
    secret: ` + keyHelper + `
    fields: {amount: number}
    webhooks: {w: {url: "@URL@/ok"}}
  failing: {webhooks: {w: {url: "@URL@/fail"}}}
  refusing: {webhooks: {w: {url: "@URL@/refuse"}}}
  hanging: {webhooks: {w: {url: "@URL@/hang"}}}
  many: {webhooks: {w: {url: "@URL@/hold", concurrency: 1}}}
  twins: {webhooks: {w: {url: "@URL@/hold"}}}
  named: {webhooks: {w: {url: "http://receiver.example.com:@PORT@/ok"}}}
  secure: {webhooks: {w: {url: "@SECURE@/ok", tls: {ca: ca.pem, cert: client.pem, key: client.key}}}}
  bulk: {webhooks: {w: {url: "@URL@/fail"}}}
  old: {webhooks: {big: {url: "@URL@/ok"}, ok: {url: "@URL@/ok"}, bad: {url: "@URL@/ok"}}}
tests:
  good:
    event: {event: entry.created, helper: own, entry: {id: e1, data: {amount: 1}}}
    expect: {webhooks: own.w, deliveries: {own.w: {headers: {X-Peanuts-Event: entry.created}}}}
  bad:
    event: {event: entry.created, helper: own, entry: {id: e1, data: {amount: x}}}
    expect: {rejected: field_type}
`

// fill puts the addresses of this stage in.
func (s *stage) fill(text string) string {
	return strings.NewReplacer("@DIR@", s.dir, "@DATA@", s.data, "@PLUGINS@", s.plugins, "@URL@", "http://127.0.0.1:"+s.port, "@PORT@", s.port,
		"@SECURE@", s.secure.URL, "@SUM@", pluginSum, "@UID@", fmt.Sprint(os.Getuid()), "@GID@", fmt.Sprint(os.Getgid())).Replace(text)
}

// pluginSum is the checksum of the plugins.
const pluginSum = "a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf"

func (s *stage) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// apply writes the edit of a row and returns how to take it back.
func (s *stage) apply(r *row) (undo func()) {
	const dropIn = "conf.d/50-leaf.yaml"
	former := map[string]string{}
	for name, text := range r.files {
		former[name] = s.read(name)
		s.write(name, text)
	}
	if r.cut != "" {
		former["config.yaml"] = s.read("config.yaml")
		s.write("config.yaml", strings.Replace(former["config.yaml"], r.cut, "", 1))
	}
	if r.edit != "" {
		s.write(dropIn, s.fill(r.edit)+"\n")
	}
	return func() {
		for name, text := range former {
			s.write(name, text)
		}
		if r.edit != "" {
			if err := os.Remove(filepath.Join(s.dir, dropIn)); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *stage) status() rest.Status {
	s.t.Helper()
	st, err := s.admin.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// ServeHTTP is every receiver.
func (s *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	got := &request{path: r.URL.Path, header: r.Header.Clone(), body: string(body)}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		got.client = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	event := r.Header.Get("X-Peanuts-Event-Id")
	s.mu.Lock()
	s.got[event] = got
	close(s.grew)
	s.grew = make(chan struct{})
	free, gate := s.freeing(event), s.gate
	if r.URL.Path == "/hold" {
		s.active++
		s.most = max(s.most, s.active)
		defer func() { s.mu.Lock(); s.active--; s.mu.Unlock() }()
	}
	s.mu.Unlock()
	switch r.URL.Path {
	case "/fail":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "/refuse":
		w.WriteHeader(http.StatusNotFound)
	case "/hang":
		wait(r.Context(), free)
	case "/hold":
		wait(r.Context(), gate)
	}
}

func wait(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// freeing is the channel that lets the request of an event go. s.mu is held.
func (s *stage) freeing(event string) chan struct{} {
	if s.freed[event] == nil {
		s.freed[event] = make(chan struct{})
	}
	return s.freed[event]
}

// post hands in an event of this type with this data, "" for a small one, and
// returns the answer and its status.
func (s *stage) post(helper, kind, data string) (answer, int) {
	s.t.Helper()
	s.n++
	entry := fmt.Sprintf("e-%d", s.n)
	if helper == "twins" {
		entry = "the same"
	}
	body := fmt.Sprintf(`{"id":"leaf-%d","event":%q,"helper":%q,"entry":{"id":%q,"data":%s}}`, s.n, kind, helper, entry, cmp.Or(data, `{"amount":1}`))
	resp, err := s.client.Post("http://relay/v1/events", "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var a answer
	if resp.StatusCode == http.StatusAccepted {
		if err := json.Unmarshal(text, &a); err != nil {
			s.t.Fatal(err)
		}
	}
	return a, resp.StatusCode
}

// send hands in an event that has to be accepted for one webhook, and returns
// its id and its delivery's.
func (s *stage) send(helper string) (event, id string) {
	s.t.Helper()
	a, status := s.post(helper, "entry.created", "")
	if status != http.StatusAccepted || len(a.Deliveries) != 1 {
		s.t.Fatalf("the event was answered %d %+v", status, a)
	}
	return a.ID, a.Deliveries[0].ID
}

// arrival waits for the request of an event.
func (s *stage) arrival(event string) *request {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		got, grew := s.got[event], s.grew
		s.mu.Unlock()
		if got != nil {
			return got
		}
		select {
		case <-grew:
		case <-deadline:
			s.t.Fatalf("event %s did not arrive", event)
		}
	}
}

// row waits until the first attempt of a delivery is over.
func (s *stage) row(id string) rest.Delivery {
	s.t.Helper()
	var d rest.DeliveryDetail
	until(s.t, "the first attempt", func() bool {
		var err error
		if d, err = s.admin.Delivery(s.t.Context(), id); err != nil {
			s.t.Fatal(err)
		}
		return d.Attempts > 0 && d.Status != rest.StatusInFlight
	})
	return d.Delivery
}

// serveTLS starts the receiver that asks for a certificate, and writes the PEM
// files.
func (s *stage) serveTLS() {
	ca, other := newAuthority(s.t, "ca"), newAuthority(s.t, "other")
	pair, key := ca.issue(s.t, "server")
	cert, err := tls.X509KeyPair([]byte(pair), []byte(key))
	if err != nil {
		s.t.Fatal(err)
	}
	s.secure = httptest.NewUnstartedServer(s)
	s.secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert}
	s.secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	s.secure.StartTLS()
	s.t.Cleanup(s.secure.Close)
	s.write("ca.pem", ca.pem)
	s.write("other.pem", other.pem)
	for _, name := range []string{"client", "second"} {
		cert, key := ca.issue(s.t, name)
		s.certs = append(s.certs, cert, key)
		s.write(name+".pem", cert)
		s.write(name+".key", key)
	}
}

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{}
	var der []byte
	a.key, der = certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func (a *authority) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	return inPEM(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature}, a)
}

// inPEM makes a certificate that by signs, and its key.
func inPEM(t *testing.T, c *x509.Certificate, by *authority) (cert, key string) {
	t.Helper()
	private, der := certificate(t, c, by)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// certificate makes one that by signs, or itself when that is nil. It is valid today
// unless the template says otherwise.
func certificate(t *testing.T, c *x509.Certificate, by *authority) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// age fills the queue's directory with a large delivery that failed six days
// ago, and two small ones of the day after. Time goes by a day at a start at most, and a
// clock that says more than that is doubted, so the last one before the daemon's is half a day ago.
func (s *stage) age() {
	s.t.Helper()
	const day = 24 * time.Hour
	began := time.Now()
	at := func(ago time.Duration, work func(*queue.Store)) {
		now := began.Add(-ago)
		store, err := queue.Open(s.t.Context(), queue.Options{Dir: s.data, MinFree: 128 << 20, Now: func() time.Time { return now }})
		if err != nil {
			s.t.Fatal(err)
		}
		if work != nil {
			work(store)
		}
		if err := store.Close(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
	}
	at(6*day, func(store *queue.Store) { s.end(store, "old.big", delivery.Failed, 1200<<10) })
	at(5*day, func(store *queue.Store) {
		s.end(store, "old.ok", delivery.Success, 100)
		s.end(store, "old.bad", delivery.Failed, 100)
	})
	for _, ago := range []time.Duration{4 * day, 3 * day, 2 * day, day, day / 2} {
		at(ago, nil)
	}
}

// end accepts an event of this size for a webhook, and ends its delivery.
func (s *stage) end(store *queue.Store, webhook string, state delivery.State, size int) {
	s.t.Helper()
	lanes, err := store.SetLanes(s.t.Context(), []queue.LaneWant{{Webhook: webhook, Identity: queue.LaneIdentity{Sink: "http", Host: "127.0.0.1:" + s.port}}})
	if err != nil {
		s.t.Fatal(err)
	}
	lane := lanes[webhook].Lane
	pad := make([]byte, size/2)
	if _, err := rand.Read(pad); err != nil {
		s.t.Fatal(err)
	}
	ev := &queue.Event{ID: webhook, Helper: "old", Type: "entry.created", EntryID: webhook, Timestamp: time.Now(), Deliveries: []queue.NewDelivery{{Lane: lane}}}
	ev.Payloads[queue.FormatPeanuts] = fmt.Appendf(nil, `{"pad":"%x"}`, pad)
	if err := store.Accept(s.t.Context(), []*queue.Event{ev}); err != nil || ev.Err != nil {
		s.t.Fatal(err, ev.Err)
	}
	pending, _, err := store.ReadReady(lane, 0, 1, 4<<20)
	if err != nil || len(pending) != 1 {
		s.t.Fatalf("%d deliveries of %s, %v", len(pending), webhook, err)
	}
	a := &delivery.Attempt{Number: 1, Started: time.Now(), State: state, Outcome: delivery.Delivered, Status: 200, Rule: delivery.RuleDelivered}
	if state == delivery.Failed {
		a.Outcome, a.Status, a.Rule, a.Code = delivery.Rejected, 410, delivery.RuleClientError, delivery.CodeStatus
	}
	store.Complete(queue.Completion{Delivery: pending[0], Attempt: a})
}
