package relay

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// told is an event about the relay itself, as its receiver reads it.
type told struct {
	ID   string
	Type string
	Data struct {
		ID, Webhook, Helper, Code, Error string
		FailedDeliveries                 int   `json:"failed_deliveries"`
		StatusCode                       int   `json:"status_code"`
		Others                           int64 `json:"others_failed"`
	}
}

// nextNotice waits for a request and checks its signature.
func (rc *receiver) nextNotice(t *testing.T) (n told) {
	t.Helper()
	g := rc.next(t)
	err := signing.Verify(signing.VerifyInput{Headers: g.header, Body: []byte(g.body), Secrets: []secret.String{secret.New("operator-operator-operator")},
		Spec: signing.Spec{Scheme: signing.Peanuts, Header: signing.HeaderPeanuts}})
	if err != nil {
		t.Errorf("signature: %v", err)
	}
	if err := json.Unmarshal([]byte(g.body), &n); err != nil {
		t.Fatalf("%v: %s", err, g.body)
	}
	if n.ID == "" || n.ID != g.header.Get("X-Peanuts-Event-Id") || n.Type != g.header.Get("X-Peanuts-Event") {
		t.Errorf("%s\n%v", g.body, g.header)
	}
	return n
}

// notify is the three webhooks that are told, at one receiver.
func notify(url string) string {
	var b strings.Builder
	b.WriteString("retry: {schedule: []}\nnotify:\n")
	for _, name := range []string{config.NoticeFailing, config.NoticeRecovered, config.NoticeDelivery} {
		fmt.Fprintf(&b, "  %s: {url: %q, secret: operator-operator-operator}\n", name, url)
	}
	return b.String()
}

func TestFailingIsToldThenRecoveredThroughTheQueue(t *testing.T) {
	h := newHome(t)
	var code atomic.Int64
	code.Store(400)
	backend := receive(t, func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(int(code.Load())) })
	ops := receive(t, nil)
	d := h.start(notify(ops.URL) + helperWith(backend.URL, ""))
	for i := range 6 {
		h.send(fmt.Sprintf("e%d", i))
	}
	seen := map[string]told{}
	for len(seen) < 2 {
		n := ops.nextNotice(t)
		seen[n.Type] = n
	}
	if n := seen[config.NoticeFailing]; n.Data.ID != "expenses.backend" || n.Data.Webhook != "expenses.backend" || n.Data.Helper != "expenses" || n.Data.FailedDeliveries < 5 || n.Data.StatusCode != 400 {
		t.Errorf("failing: %+v", n)
	}
	if n := seen[config.NoticeDelivery]; !strings.HasPrefix(n.Data.ID, "del_") || n.Data.StatusCode != 400 || n.Data.Code != "status" || n.Data.Error == "" {
		t.Errorf("delivery: %+v", n)
	}
	code.Store(200)
	h.send("good")
	for n := ops.nextNotice(t); n.Type != config.NoticeRecovered; n = ops.nextNotice(t) {
		if n.Type == config.NoticeFailing { // an hour may have begun: then the other may come once more
			t.Errorf("told again: %+v", n)
		}
	}

	// They are webhooks like any other, but for who may name their helper.
	page, err := d.Deliveries(t.Context(), adminclient.DeliveryQuery{Webhook: config.NoticeFailing})
	if err != nil || len(page.Deliveries) != 1 || page.Deliveries[0].EntryID != "expenses.backend" {
		t.Errorf("%+v, %v", page, err)
	}
	w, err := d.Webhook(t.Context(), config.NoticeFailing)
	if err != nil || w.Helper != config.NoticeHelper || w.Format != "event" {
		t.Errorf("%+v, %v", w, err)
	}
	result, err := d.Test(t.Context(), config.NoticeRecovered, rest.TestRequest{})
	if err != nil || !result.Delivered || result.Event != config.NoticeRecovered {
		t.Errorf("%+v, %v", result, err)
	}
	if status, answer := h.post(`{"event":"relay.webhook.failing","helper":"relay","entry":{"id":"x"}}`); status != http.StatusUnprocessableEntity {
		t.Errorf("a sender names the relay's own helper: %d %s", status, answer)
	}
	d.stop()
}

func TestWhatWasNotToldBeforeAStopIsToldAfterTheStart(t *testing.T) {
	h := newHome(t)
	var code atomic.Int64
	code.Store(400)
	backend := receive(t, func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(int(code.Load())) })
	ops := receive(t, nil)
	count := func(d *daemon, webhook string) int {
		page, err := d.Deliveries(t.Context(), adminclient.DeliveryQuery{Webhook: webhook})
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Deliveries)
	}
	failed := func(d *daemon, want int64) {
		await(t, "the outcomes", func() (rest.Webhook, error) { return d.Webhook(t.Context(), "expenses.backend") },
			func(w rest.Webhook) bool { return w.Counts.Failed+w.Counts.Success == want })
	}
	quiet := "retry: {schedule: []}\n" + helperWith(backend.URL, "")
	d := h.start(quiet) // nobody is told: as if it had crashed each time before
	for i := range 5 {
		h.send(fmt.Sprintf("e%d", i))
	}
	failed(d, 5)
	d.stop()

	d = h.start(notify(ops.URL) + helperWith(backend.URL, ""))
	seen := map[string]bool{}
	for len(seen) < 2 {
		seen[ops.nextNotice(t).Type] = true
	}
	if !seen[config.NoticeFailing] || !seen[config.NoticeDelivery] {
		t.Errorf("told %v", seen)
	}
	d.row(config.NoticeFailing, "it is delivered", hasStatus(rest.StatusSuccess))
	d.stop()

	d = h.start(quiet)
	code.Store(200)
	h.send("good")
	failed(d, 6)
	d.stop()
	d = h.start(notify(ops.URL) + helperWith(backend.URL, ""))
	if n := ops.nextNotice(t); n.Type != config.NoticeRecovered {
		t.Errorf("told %+v", n)
	}
	if n := count(d, config.NoticeFailing); n != 1 {
		t.Errorf("%d times told that it fails", n)
	}
	d.stop()
}

// One that is told and does not answer makes no event of its own.
func TestADeadReceiverOfNoticesMakesNoLoop(t *testing.T) {
	h := newHome(t)
	bad := receive(t, status(400))
	d := h.start(notify(bad.URL) + helperWith(bad.URL, ""))
	for i := range 8 {
		h.send(fmt.Sprintf("e%d", i))
	}
	all := []string{config.NoticeFailing, config.NoticeDelivery}
	for _, name := range all {
		await(t, name+" fails", func() (rest.Webhook, error) { return d.Webhook(t.Context(), name) }, func(w rest.Webhook) bool { return w.Counts.Failed >= 1 })
	}
	h.send("last")
	await(t, "the last delivery", func() (rest.Webhook, error) { return d.Webhook(t.Context(), "expenses.backend") },
		func(w rest.Webhook) bool { return w.Counts.Failed == 9 })
	d.relay.notices.Tell(t.Context())
	for _, name := range all {
		page, err := d.Deliveries(t.Context(), adminclient.DeliveryQuery{Webhook: name})
		if err != nil || len(page.Deliveries) > 2 { // 2 when an hour has begun meanwhile
			t.Errorf("%s: %d, %v", name, len(page.Deliveries), err)
		}
		for _, row := range page.Deliveries {
			if strings.HasPrefix(row.EntryID, "relay.") {
				t.Errorf("told of one that is told: %+v", row)
			}
		}
	}
	d.stop()
}
