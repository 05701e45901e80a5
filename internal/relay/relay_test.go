package relay

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/unixsock"
)

func TestWhatIsHandedInIsDeliveredAndTheStopLeavesNothingBehind(t *testing.T) {
	h, rc := newHome(t), receive(t, nil)
	d := h.start(helperWith(rc.URL, ""))
	h.send("e1")
	if g := rc.next(t); !strings.Contains(g.body, `"id":"e1"`) || g.header.Get("X-Peanuts-Attempt") != "1" {
		t.Errorf("the receiver got %+v", g)
	}
	d.row("expenses.backend", "success", hasStatus(rest.StatusSuccess))
	d.stop()
	for _, name := range []string{"events.sock", "admin.sock"} {
		if _, err := os.Lstat(h.path(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there after the stop: %v", name, err)
		}
	}
}

func TestWithoutSpaceEventsAreRefusedAndTheDaemonWaits(t *testing.T) {
	h, rc := newHome(t), receive(t, nil)
	text := strings.Replace(h.text(helperWith(rc.URL, "")), "min_free: 128MiB", "min_free: 64TiB", 1)
	d := h.launch(text)
	health := await(t, "the wait for space", func() (rest.Health, error) { return d.Ready(t.Context()) },
		func(x rest.Health) bool {
			return len(x.Reasons) == 1 && strings.Contains(x.Reasons[0], "too little disk space")
		})
	if health.OK {
		t.Error("the daemon says that it is ready")
	}
	if code, answer := h.post(`{"event":"entry.created","helper":"expenses","entry":{"id":"e1","data":{}}}`); code != http.StatusInsufficientStorage {
		t.Errorf("an event was answered %d %s, want 507", code, answer)
	}
	s, err := d.Status(t.Context())
	if err != nil || s.State != rest.StateDegraded || s.Queue.State != queue.StateStarting || len(s.Reasons) == 0 {
		t.Errorf("status %+v, %v", s, err)
	}
	if _, err := d.Deliveries(t.Context(), adminclient.DeliveryQuery{}); err == nil {
		t.Error("deliveries are listed without a store")
	}
	select {
	case <-d.ready:
		t.Error("Ready was called")
	default:
	}
	d.stop()
	if _, err := os.Stat(h.path("data/db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a database was made: %v", err)
	}
	if n := strings.Count(h.log.String(), "queue is not opened until there is space"); n != 1 {
		t.Errorf("the wait is logged %d times, want once", n)
	}
}

func TestBeforeTheStoreIsOpenedEventsAreRefusedAsStarting(t *testing.T) {
	h := newHome(t)
	r := newRelay(h.load(h.text(helperWith("https://127.0.0.1:1/", ""))), h.options())
	if err := r.ready(); !errors.Is(err, errStarting) {
		t.Errorf("ready says %v", err)
	}
}

func TestASecondRelayFailsAndHarmsNothing(t *testing.T) {
	h, rc := newHome(t), receive(t, nil)
	d := h.start(helperWith(rc.URL, ""))

	err := h.launch(h.text(helperWith(rc.URL, ""))).end()
	if _, ok := errors.AsType[*unixsock.InUseError](err); !ok {
		t.Errorf("on the same sockets: %v, want an InUseError", err)
	}
	other := newHome(t)
	err = other.launch(strings.Replace(other.text(helperWith(rc.URL, "")), other.path("data"), h.path("data"), 1)).end()
	if _, ok := errors.AsType[*queue.LockedError](err); !ok {
		t.Errorf("on the same queue: %v, want a LockedError", err)
	}
	if _, err := os.Lstat(other.path("events.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second relay's socket is still there: %v", err)
	}

	h.send("e1")
	rc.next(t)
	d.row("expenses.backend", "success", hasStatus(rest.StatusSuccess))
	d.stop()
}

func TestAStopFinishesWhatIsInFlight(t *testing.T) {
	release := make(chan struct{})
	rc := receive(t, func(http.ResponseWriter, *http.Request, string) { <-release })
	h := newHome(t)
	d := h.start(helperWith(rc.URL, ""))
	h.send("e1")
	rc.next(t)
	d.cancel()
	s := await(t, "the state stopping", func() (rest.Status, error) { return d.Status(t.Context()) },
		func(s rest.Status) bool { return s.State == rest.StateStopping })
	if s.Queue.Counts.InFlight != 1 {
		t.Errorf("%d in flight while stopping, want 1", s.Queue.Counts.InFlight)
	}
	if x, err := d.Ready(t.Context()); err != nil || x.OK {
		t.Errorf("a stopping daemon says that it is ready: %+v, %v", x, err)
	}
	close(release)
	if err := d.end(); err != nil {
		t.Fatal(err)
	}
	d = h.start(helperWith(rc.URL, ""))
	if row := d.row("expenses.backend", "success", hasStatus(rest.StatusSuccess)); row.Attempts != 1 {
		t.Errorf("%d attempts, want 1", row.Attempts)
	}
	d.stop()
}

func TestAfterTheDrainTimeAttemptsAreInterruptedAndDoNotCount(t *testing.T) {
	release := make(chan struct{})
	rc := receive(t, func(_ http.ResponseWriter, r *http.Request, _ string) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	h := newHome(t)
	d := h.start(helperWith(rc.URL, ""), func(o *Options) { o.drainTime = 50 * time.Millisecond })
	h.send("e1")
	first := rc.next(t)
	d.stop()
	if !strings.Contains(h.log.String(), "attempts were interrupted and stay pending") {
		t.Error("the log does not tell of the interruption")
	}
	close(release)
	d = h.start(helperWith(rc.URL, ""))
	second := rc.next(t)
	for _, name := range []string{"X-Peanuts-Delivery", "X-Peanuts-Attempt"} {
		if first.header.Get(name) != second.header.Get(name) {
			t.Errorf("%s was %q, then %q", name, first.header.Get(name), second.header.Get(name))
		}
	}
	if first.body != second.body {
		t.Errorf("the bytes differ:\n%s\n%s", first.body, second.body)
	}
	if row := d.row("expenses.backend", "success", hasStatus(rest.StatusSuccess)); row.Attempts != 1 {
		t.Errorf("%d attempts, want 1", row.Attempts)
	}
	d.stop()
}

func TestSeveralWebhooksAndFormatsShareOneStoredEvent(t *testing.T) {
	a, b, c := receive(t, nil), receive(t, nil), receive(t, nil)
	h := newHome(t)
	d := h.start(`helpers:
  expenses:
    secret: 0123456789abcdef01234567
    webhooks:
      a: {url: "` + a.URL + `"}
      b: {url: "` + b.URL + `"}
      c: {url: "` + c.URL + `", format: event}
      updates: {url: "` + c.URL + `", events: update}
`)
	h.send("e1")
	inA, inB, inC := a.next(t), b.next(t), c.next(t)
	if inA.body != inB.body || inA.body == inC.body || !strings.HasPrefix(inC.body, `{"id":"id-e1","type":"entry.created"`) {
		t.Errorf("the bodies:\n%s\n%s\n%s", inA.body, inB.body, inC.body)
	}
	if inA.header.Get("X-Peanuts-Event-Id") != "id-e1" || inA.header.Get("X-Peanuts-Delivery") == inB.header.Get("X-Peanuts-Delivery") {
		t.Errorf("the ids: %v, %v", inA.header, inB.header)
	}
	evs, err := d.Event(t.Context(), "id-e1")
	if err != nil || len(evs.Events) != 1 {
		t.Fatalf("%+v, %v: want one event", evs, err)
	}
	e := evs.Events[0]
	if len(e.Deliveries) != 3 || len(e.Payloads) != 2 || len(e.Skipped) != 1 {
		t.Errorf("the event has %d deliveries, %d payloads, %d skips; want 3, 2, 1", len(e.Deliveries), len(e.Payloads), len(e.Skipped))
	}
	s, err := d.Status(t.Context())
	if err != nil || s.Ingest.Accepted != 1 || s.Queue.Accepted != 3 {
		t.Errorf("status counts %d events and %d deliveries, %v; want 1 and 3", s.Ingest.Accepted, s.Queue.Accepted, err)
	}
	d.stop()
}

func TestATestSendsASampleThatFitsTheHelperAndRecordsNothing(t *testing.T) {
	rc := receive(t, nil)
	h := newHome(t)
	d := h.start(`helpers:
  expenses:
    secret: 0123456789abcdef01234567
    fields: {amount: number, category: string, paid: boolean}
    events: [expense.approved]
    webhooks:
      backend: {url: "` + rc.URL + `", events: [expense.approved, update]}
      off: {url: "` + rc.URL + `", format: event, enabled: false}
`)
	res, err := d.Test(t.Context(), "expenses.backend", rest.TestRequest{})
	if err != nil || !res.Delivered || res.Event != "expense.approved" {
		t.Fatalf("%+v, %v", res, err)
	}
	g := rc.next(t)
	mac := hmac.New(sha256.New, []byte("0123456789abcdef01234567"))
	mac.Write([]byte(g.body))
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); g.header.Get("X-Peanuts-Signature") != want {
		t.Errorf("signature %q, want %q", g.header.Get("X-Peanuts-Signature"), want)
	}
	for _, part := range []string{`"event":"expense.approved"`, `"id":"test_`, `"amount":`, `"category":"`, `"paid":`} {
		if !strings.Contains(g.body, part) {
			t.Errorf("the sample has no %s: %s", part, g.body)
		}
	}
	if g.header.Get("X-Peanuts-Test") != "true" || g.body != res.Payload || !strings.HasPrefix(res.EntryID, "test_") {
		t.Errorf("sent %+v, told %+v", g, res)
	}
	if res, err = d.Test(t.Context(), "expenses.off", rest.TestRequest{Event: "deleted"}); err != nil || res.Event != "entry.deleted" {
		t.Errorf("a disabled webhook: %+v, %v", res, err)
	}
	if g := rc.next(t); !strings.HasPrefix(g.body, `{"id":"`+res.EventID+`","type":"entry.deleted"`) {
		t.Errorf("in the format event: %s", g.body)
	}
	page, err := d.Deliveries(t.Context(), adminclient.DeliveryQuery{})
	if err != nil || len(page.Deliveries) != 0 {
		t.Errorf("tests are in the delivery log: %+v, %v", page, err)
	}
	d.stop()
}

func TestTheStatusSaysWhatRuns(t *testing.T) {
	rc := receive(t, nil)
	h := newHome(t)
	d := h.start(helperWith(rc.URL, ""))
	s, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Version != "1.2.3" || s.Commit != "abcdef" || s.PID != os.Getpid() || s.State != rest.StateOK || len(s.Reasons) != 0 {
		t.Errorf("status %+v", s)
	}
	if c := s.Config; c.Path != h.path("config.yaml") || c.Digest != h.report.Digest || c.Generation != 1 || c.State != rest.ConfigCurrent {
		t.Errorf("config %+v", c)
	}
	if s.Listen.Events != h.path("events.sock") || s.Listen.Admin != h.path("admin.sock") || s.Queue.Dir != h.path("data") || s.Queue.State != "ok" {
		t.Errorf("listen %+v, queue %+v", s.Listen, s.Queue)
	}
	if len(s.Webhooks) != 1 || s.Webhooks[0].Webhook != "expenses.backend" || s.Webhooks[0].State != rest.WebhookActive {
		t.Errorf("webhooks %+v", s.Webhooks)
	}
	if len(s.Ingest.Rejected) == 0 {
		t.Error("no reasons of refusals are counted")
	}
	hs, err := d.Helpers(t.Context())
	if err != nil || len(hs.Helpers) != 1 || !slices.Equal(hs.Helpers[0].Webhooks, []string{"expenses.backend"}) {
		t.Errorf("helpers %+v, %v", hs, err)
	}
	d.stop()
}

func TestAStopEndsOpenStreams(t *testing.T) {
	rc := receive(t, nil)
	h := newHome(t)
	d := h.start(helperWith(rc.URL, ""))
	stream, err := d.Follow(t.Context(), adminclient.FollowQuery{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	h.send("e1")
	if m, err := stream.Next(); err != nil {
		t.Fatalf("%+v, %v", m, err)
	}
	d.cancel()
	for err = nil; err == nil; {
		_, err = stream.Next()
	}
	if !errors.Is(err, adminclient.ErrStreamEnded) {
		t.Errorf("the stream ended with %v", err)
	}
	if err := d.end(); err != nil {
		t.Error(err)
	}
}

// A store that failed cannot record what a receiver answers, so waiting for the
// attempt in flight, or beginning another, would only repeat deliveries.
func TestAStorageErrorEndsTheDaemonAtOnce(t *testing.T) {
	for _, during := range []string{"work", "stop"} {
		t.Run(during, func(t *testing.T) {
			hang := make(chan struct{})
			rc := receive(t, func(_ http.ResponseWriter, r *http.Request, _ string) {
				select {
				case <-hang:
				case <-r.Context().Done():
				}
			})
			h := newHome(t)
			d := h.start(helperWith(rc.URL, ", concurrency: 1"))
			h.send("e1")
			h.send("e2")
			rc.next(t)
			if during == "stop" {
				d.cancel()
				await(t, "the state stopping", func() (rest.Status, error) { return d.Status(t.Context()) },
					func(s rest.Status) bool { return s.State == rest.StateStopping })
			}
			began := time.Now()
			d.relay.onFatal(errors.New("the disk is on fire"))
			err := d.end()
			if took := time.Since(began); took >= drainTime {
				t.Errorf("the end took %s", took)
			}
			if !errors.Is(err, ErrStorage) || strings.Count(err.Error(), "the disk is on fire") != 1 {
				t.Errorf("run returned %v", err)
			}
			if len(rc.got) != 0 {
				t.Error("another attempt was begun")
			}
			close(hang)
		})
	}
}

func TestASocketThatCannotBeServedEndsTheDaemon(t *testing.T) {
	h := newHome(t)
	r := newRelay(h.load(h.text(helperWith("http://127.0.0.1:1/", ""))), h.options())
	if err := r.build(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("accept: too bad")
	served := make(chan error, 1)
	if err := r.openStore(t.Context(), served); err != nil {
		t.Fatal(err)
	}
	served <- broken
	if err := r.deliver(t.Context(), served); !errors.Is(err, broken) {
		t.Errorf("deliver returned %v", err)
	}
	if err := r.stop(); err != nil {
		t.Errorf("stop returned %v", err)
	}

	r = newRelay(h.load(strings.Replace(h.text(helperWith("http://127.0.0.1:1/", "")), "128MiB", "64TiB", 1)), h.options())
	served <- broken
	if err := r.openStore(t.Context(), served); !errors.Is(err, broken) {
		t.Errorf("while waiting for space: %v", err)
	}
}

func TestASinkThatCannotBeMadeIsAnError(t *testing.T) {
	h := newHome(t)
	cfg := h.load(h.text(helperWith("https://127.0.0.1:1/", "")))
	cfg.Helpers[0].Webhooks[0].TLS.CAPEM = []byte("no certificate") // as if Load had not checked it
	err := newRelay(cfg, h.options()).run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "webhook expenses.backend") || !strings.Contains(err.Error(), "tls.ca") {
		t.Errorf("run returned %v", err)
	}
}

func TestTheMemoryLimitGivesWayToTheEnvironment(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	h := newHome(t)
	limit := func() int64 {
		d := h.start(helperWith("http://127.0.0.1:1/", ""))
		defer d.stop()
		return debug.SetMemoryLimit(-1)
	}
	t.Setenv("GOMEMLIMIT", "")
	if got := limit(); got != defaultMemoryLimit {
		t.Errorf("the limit is %d, want %d", got, defaultMemoryLimit)
	}
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("the limit afterwards is %d, want %d", got, before)
	}
	t.Setenv("GOMEMLIMIT", "1GiB") // which the runtime has read at the start
	if got := limit(); got != before {
		t.Errorf("with GOMEMLIMIT the limit is %d, want %d", got, before)
	}
}

func TestACancelledContextIsACleanStopAtEveryPoint(t *testing.T) {
	h := newHome(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, h.load(h.text(helperWith("http://127.0.0.1:1/", ""))), h.options()); err != nil {
		t.Errorf("run returned %v", err)
	}
}
