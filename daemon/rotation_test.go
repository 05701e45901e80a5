package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// Secrets that the scheme standard takes as well.
const (
	oldSecret = "whsec_b2xkLXNlY3JldC1vbGQtc2VjcmV0LW9sZC1zZWNyZXQ="
	newSecret = "whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0LW5ldy1zZWNyZXQ="
)

// accepts is a way in which a receiver verifies: by the signature in the header of
// this name, "" for that of the scheme, with this secret.
type accepts struct{ header, secret string }

// endpoint is a receiver that refuses for good what it cannot verify.
type endpoint struct {
	*httptest.Server
	scheme signing.Scheme
	status int // of its answer to what it accepts

	mu       sync.Mutex // guards the rest
	ways     []accepts
	accepted int
	refused  int
	last     int // of ways, that accepted the last request
}

func newEndpoint(t *testing.T, scheme signing.Scheme, ways ...accepts) *endpoint {
	t.Helper()
	e := &endpoint{scheme: scheme, ways: ways, status: http.StatusOK}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, way := range e.ways {
		in := signing.VerifyInput{Spec: signing.Spec{Scheme: e.scheme, Header: way.header}, Headers: r.Header, Body: body, Secrets: []secret.String{secret.New(way.secret)}}
		if signing.Verify(in) == nil {
			e.accepted++
			e.last = i
			w.WriteHeader(e.status)
			return
		}
	}
	e.refused++
	w.WriteHeader(http.StatusUnauthorized)
}

// know replaces what the receiver accepts.
func (e *endpoint) know(ways ...accepts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ways = ways
}

func (e *endpoint) counts() (accepted, refused, last int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.accepted, e.refused, e.last
}

// rotating writes a configuration whose webhook has these keys besides its url.
func (s *site) rotating(e *endpoint, keys string) string {
	return fmt.Sprintf("listen: {events: %[1]s/events.sock, admin: %[1]s/admin.sock}\nlog: {format: text}\nqueue: {dir: %[2]s, min_free: 128MiB}\n"+
		"retry: {schedule: [1h]}\nhelpers: {crash: {name: Crash, webhooks: {ok: {url: \"%[3]s/ok\", signatures: [{scheme: %[4]s}], %[5]s}}}}\n",
		s.dir, s.data, e.URL, e.scheme, keys)
}

// replace renames a file over another, as careful programs do.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// generation is that of the configuration that runs.
func (s *site) generation() uint64 {
	s.t.Helper()
	st, err := s.admin.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return st.Config.Generation
}

// one sends event n, which has to be accepted for the only webhook, and returns
// the delivery.
func (s *site) one(l *ledger, n int) string {
	s.t.Helper()
	if status := s.send(s.t.Context(), l, n); status != http.StatusAccepted {
		s.t.Fatalf("the event was answered %d", status)
	}
	return l.acked[n].Deliveries[0].ID
}

// The file that a secret comes from is replaced, and nobody tells the daemon.
func TestANewSecretInAFileSignsTheNextAttempt(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(t *testing.T, path, text string){
		"renamed": replace,
		"written in place": func(t *testing.T, path, text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"behind a symbolic link": func(t *testing.T, path, text string) {
			target := path + ".2"
			if err := os.WriteFile(target, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, path+".link"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".link", path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The first attempt fails, so that there is a next one of the same delivery.
			e := newEndpoint(t, signing.Peanuts, accepts{"", oldSecret}, accepts{"", newSecret})
			e.status = http.StatusServiceUnavailable
			s, l := newSite(t, "", ""), newLedger()
			path := filepath.Join(s.dir, "secret")
			if err := os.WriteFile(path+".1", []byte(oldSecret+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path+".1", path); err != nil {
				t.Fatal(err)
			}
			replace(t, s.config(), s.rotating(e, "secret: \"${file:"+path+"}\""))
			s.up()
			delivery := s.one(l, 1)
			attempt := func(number int) {
				until(t, fmt.Sprintf("attempt %d", number), func() bool {
					accepted, refused, _ := e.counts()
					d, err := s.admin.Delivery(t.Context(), delivery)
					return err == nil && accepted+refused == number && d.Attempts == number && d.Status == rest.StatusPending
				})
			}
			attempt(1)
			if _, _, last := e.counts(); last != 0 {
				t.Fatal("the first attempt was not signed with the old secret")
			}

			before, began := s.generation(), time.Now()
			put(t, path, newSecret+"\n")
			until(t, "the new secret to be taken over", func() bool { return s.generation() > before })
			t.Logf("taken over after %v", time.Since(began).Round(time.Millisecond))
			if _, err := s.admin.Retry(t.Context(), delivery); err != nil {
				t.Fatal(err)
			}
			attempt(2)
			if _, refused, last := e.counts(); last != 1 || refused != 0 {
				t.Error("the next attempt was not signed with the new secret")
			}
			// A reload comes after the one that is under way, its record included.
			if _, err := s.admin.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			list, err := s.admin.ConfigHistory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if newest := list.Entries[0]; newest.Trigger != rest.TriggerWatch || len(newest.Changes) != 1 || newest.Changes[0].ID != "crash.ok" ||
				strings.Join(newest.Changes[0].Fields, " ") != "secret" {
				t.Errorf("it is recorded as %+v", newest)
			}
		})
	}
}

// rotationStep is one step of docs/receivers.md, "Rotating a secret": the
// relay's keys, or what the receiver accepts from then on.
type rotationStep struct {
	keys string
	ways []accepts
}

// The steps of docs/receivers.md are taken one by one while events come all the
// time. A single refusal would end a delivery for good.
func TestTheStepsOfARotationNeverLoseADelivery(t *testing.T) {
	t.Parallel()
	const (
		onlyOld   = "secret: " + oldSecret
		oldAndNew = "secrets: [" + oldSecret + ", " + newSecret + "]"
		newAndOld = "secrets: [" + newSecret + ", " + oldSecret + "]"
		onlyNew   = "secret: " + newSecret
	)
	plainOld, plainNew := accepts{"", oldSecret}, accepts{"", newSecret}
	for _, c := range []struct {
		name   string
		scheme signing.Scheme
		steps  []rotationStep
	}{
		{"standard and the receiver early", signing.Standard, []rotationStep{{keys: newAndOld}, {ways: []accepts{plainNew}}, {keys: onlyNew}}},
		{"standard in the other order", signing.Standard, []rotationStep{{keys: oldAndNew}, {ways: []accepts{plainNew}}, {keys: newAndOld}, {keys: onlyNew}}},
		{"peanuts and a receiver that knows one", signing.Peanuts, []rotationStep{{keys: oldAndNew},
			{ways: []accepts{plainNew, {signing.HeaderPeanuts + signing.PreviousSuffix, newSecret}}}, {keys: newAndOld}, {keys: onlyNew}, {ways: []accepts{plainNew}}}},
		{"hex and a receiver that knows one", signing.Hex, []rotationStep{{keys: oldAndNew},
			{ways: []accepts{plainNew, {signing.HeaderHex + signing.PreviousSuffix, newSecret}}}, {keys: newAndOld}, {keys: onlyNew}, {ways: []accepts{plainNew}}}},
		{"peanuts and a receiver that knows both", signing.Peanuts, []rotationStep{{ways: []accepts{plainOld, plainNew}}, {keys: onlyNew}, {ways: []accepts{plainNew}}}},
		{"hex and a receiver that knows both", signing.Hex, []rotationStep{{ways: []accepts{plainOld, plainNew}}, {keys: onlyNew}, {ways: []accepts{plainNew}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEndpoint(t, c.scheme, plainOld)
			s := newSite(t, "", "")
			replace(t, s.config(), s.rotating(e, onlyOld))
			s.up()
			l := newLedger()
			stop := s.traffic(l)
			for _, step := range c.steps {
				if step.keys != "" {
					before := s.generation()
					replace(t, s.config(), s.rotating(e, step.keys))
					until(t, "the edit to be live", func() bool { return s.generation() > before })
				} else {
					e.know(step.ways...)
				}
				s.drained(l, 20)
			}
			stop()
			s.drained(l, 0)
			accepted, refused, _ := e.counts()
			if refused != 0 || accepted < l.len() {
				t.Errorf("%d of %d requests were accepted and %d refused", accepted, l.len(), refused)
			}
			for id, d := range s.listing() {
				if d.Status != rest.StatusSuccess {
					t.Errorf("delivery %s ended as %s: %s", id, d.Status, d.Error)
				}
			}
			t.Logf("%d deliveries, none refused", accepted)

			// Without the steps it does fail.
			before := s.generation()
			replace(t, s.config(), s.rotating(e, onlyOld))
			until(t, "the edit to be live", func() bool { return s.generation() > before })
			s.one(l, 1)
			until(t, "a refusal", func() bool { _, refused, _ := e.counts(); return refused == 1 })
		})
	}
}

// traffic sends one event after the other until the returned function is called.
// Their numbers begin at 2.
func (s *site) traffic(l *ledger) (stop func()) {
	quit := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for n := 2; ; n++ {
			select {
			case <-quit:
				return
			case <-pace.C:
				s.persist(l, n, quit)
			}
		}
	})
	return func() { close(quit); all.Wait() }
}

// drained waits until some more events were acknowledged and no attempt is under
// way that may have begun before: the wait of retry.timeout that the steps ask for.
func (s *site) drained(l *ledger, more int) {
	s.t.Helper()
	upto := l.len() + more
	until(s.t, "more events", func() bool { return l.len() >= upto })
	until(s.t, "the attempts under way to end", func() bool {
		q := adminclient.DeliveryQuery{Status: []string{rest.StatusPending, rest.StatusInFlight}}
		for d, err := range s.admin.AllDeliveries(s.t.Context(), q) {
			var n int
			if _, scan := fmt.Sscanf(d.EventID, "own-%d", &n); err != nil || scan != nil {
				s.t.Fatal(err, scan)
			}
			if n < 2+upto {
				return false
			}
		}
		return true
	})
}
