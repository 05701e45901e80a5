package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// Every endpoint is reached by a method of the client; a route that is added
// without one fails here.
func TestTheClientReachesEveryRoute(t *testing.T) {
	w := newWorld(t)
	failed := w.store.add(backend, 1, delivery.Failed, nil)
	w.addEvent(1, nil)
	w.dispatcher.test = func(context.Context, *delivery.Outbound) (delivery.Attempt, error) { return failedAttempt(1), nil }

	var mu sync.Mutex
	reached := map[string]bool{}
	inner := w.srv.Handler
	w.srv.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(rw, r)
		mu.Lock()
		defer mu.Unlock()
		reached[r.Pattern] = true
	})
	w.start(t)
	c, ctx := w.client, t.Context()
	callReads(t, c, failed)
	callActs(t, c, failed)
	s, err := c.Follow(ctx, adminclient.FollowQuery{})
	if err != nil {
		t.Fatalf("follow: %v", err)
	}
	s.Close()
	waitFor(t, func() bool { return w.Feed.readers() == 0 })
	waitFor(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return reached["GET /v1/deliveries/stream"]
	})
	mu.Lock()
	defer mu.Unlock()
	for _, e := range w.endpoints() {
		if !reached[e.method+" "+e.path] {
			t.Errorf("no call reached %s %s", e.method, e.path)
		}
	}
}

// callReads calls every method that changes nothing.
func callReads(t *testing.T, c *adminclient.Client, failed string) {
	t.Helper()
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"helpers":    func() error { _, err := c.Helpers(ctx); return err },
		"webhooks":   func() error { _, err := c.Webhooks(ctx); return err },
		"webhook":    func() error { _, err := c.Webhook(ctx, "expenses.backend"); return err },
		"minutes":    func() error { _, err := c.Minutes(ctx, "expenses.backend"); return err },
		"openapi":    func() error { _, err := c.OpenAPI(ctx); return err },
		"test":       func() error { _, err := c.Test(ctx, "expenses.backend", rest.TestRequest{}); return err },
		"deliveries": func() error { _, err := c.Deliveries(ctx, adminclient.DeliveryQuery{}); return err },
		"of webhook": func() error {
			_, err := c.Deliveries(ctx, adminclient.DeliveryQuery{Webhook: "expenses.backend"})
			return err
		},
		"delivery": func() error { _, err := c.Delivery(ctx, failed); return err },
		"event":    func() error { _, err := c.Event(ctx, id.Event(testStore, 1)); return err },
		"status":   func() error { _, err := c.Status(ctx); return err },
		"metrics":  func() error { _, err := c.Metrics(ctx); return err },
		"live":     func() error { _, err := c.Live(ctx); return err },
		"ready":    func() error { _, err := c.Ready(ctx); return err },
		"replays":  func() error { _, err := c.Replays(ctx); return err },
		"plan":     func() error { _, err := c.Plan(ctx, rest.PlanRequest{}); return err },
		"config":   func() error { _, err := c.RunningConfig(ctx); return err },
		"history":  func() error { _, err := c.ConfigHistory(ctx); return err },
		"audit":    func() error { _, err := c.Audit(ctx, nil); return err },
		"accounts": func() error { _, err := c.AuditEvents(ctx, []string{"own-1"}); return err },
		"backup": func() error {
			body, err := c.Backup(ctx)
			if err == nil {
				_, err = io.Copy(io.Discard, body)
				body.Close()
			}
			return err
		},
		"files": func() error { _, err := c.ConfigFiles(ctx, 3); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// callActs calls every method that changes something.
func callActs(t *testing.T, c *adminclient.Client, failed string) {
	t.Helper()
	ctx := t.Context()
	replay, err := c.Replay(ctx, "expenses.backend", rest.ReplayRequest{})
	if err != nil || replay.Matched != 1 {
		t.Errorf("replay: %+v, %v", replay, err)
	}
	if _, err := c.CancelReplay(ctx, replay.ID); err != nil {
		t.Errorf("cancel replay: %v", err)
	}
	if d, err := c.Retry(ctx, failed); err != nil || d.Status != rest.StatusPending {
		t.Errorf("retry: %+v, %v", d, err)
	}
	if d, err := c.Drop(ctx, failed); err != nil || d.ID != failed {
		t.Errorf("drop: %+v, %v", d, err)
	}
	for name, call := range map[string]func() error{
		"reload":         func() error { _, err := c.Reload(ctx); return err },
		"create webhook": func() error { _, err := c.CreateWebhook(ctx, rest.WebhookChange{}); return err },
		"change webhook": func() error {
			_, err := c.ChangeWebhook(ctx, "crm.main", rest.WebhookChange{Active: new(false)})
			return err
		},
		"delete webhook":  func() error { _, err := c.DeleteWebhook(ctx, "crm.main"); return err },
		"drop deliveries": func() error { _, err := c.DropDeliveries(ctx, "crm.main"); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRetryRefusals(t *testing.T) {
	w := newWorld(t)
	flying := w.store.add(backend, 1, delivery.Pending, nil)
	expired := w.store.add(backend, 2, delivery.Failed, nil)
	w.dispatcher.inFlight[key{backend, 1}] = true
	w.start(t)
	ctx := t.Context()
	_, err := w.client.Retry(ctx, flying)
	refused(t, err, 409, rest.CodeInFlight)
	_, err = w.client.Drop(ctx, flying)
	refused(t, err, 409, rest.CodeInFlight)
	_, err = w.client.Retry(ctx, expired)
	refused(t, err, 410, rest.CodePayloadExpired)
	_, err = w.client.Retry(ctx, id.Delivery(testStore, uint32(backend), 99))
	if e := refused(t, err, 404, rest.CodeNotFound); !strings.Contains(e.Message, "history.failed") {
		t.Errorf("no hint in %q", e.Message)
	}
	_, err = w.client.Retry(ctx, id.Delivery(testStore+1, uint32(backend), 1))
	if e := refused(t, err, 404, rest.CodeNotFound); !strings.Contains(e.Message, "another data directory") {
		t.Errorf("no hint in %q", e.Message)
	}
	_, err = w.client.Delivery(ctx, id.Event(testStore, 1))
	if e := refused(t, err, 404, rest.CodeNotFound); !strings.Contains(e.Message, "/v1/events/") {
		t.Errorf("no hint in %q", e.Message)
	}
	_, err = w.client.Event(ctx, flying)
	if e := refused(t, err, 404, rest.CodeNotFound); !strings.Contains(e.Message, "/v1/deliveries/") {
		t.Errorf("no hint in %q", e.Message)
	}
	_, err = w.client.Webhook(ctx, "expenses.bakend")
	if e := refused(t, err, 404, rest.CodeNotFound); !strings.Contains(e.Message, `did you mean "expenses.backend"`) {
		t.Errorf("no suggestion in %q", e.Message)
	}
}

func TestADeliveredDeliveryCannotBeDropped(t *testing.T) {
	w := newWorld(t)
	done := w.store.add(backend, 1, delivery.Success, nil)
	dead := w.store.add(backend, 2, delivery.Failed, nil)
	w.start(t)
	_, err := w.client.Drop(t.Context(), done)
	refused(t, err, 409, rest.CodeFinished)
	if _, err := w.client.Drop(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	_, err = w.client.Delivery(t.Context(), dead)
	refused(t, err, 404, rest.CodeNotFound)
}

func TestReplayCountsOrStarts(t *testing.T) {
	w := newWorld(t)
	w.store.add(backend, 1, delivery.Failed, nil)
	w.store.add(backend, 2, delivery.Success, nil)
	w.store.add(backend, 3, delivery.Success, func(s *queue.Summary) { s.EventType = "entry.deleted" })
	w.store.add(crm, 4, delivery.Failed, nil)
	w.start(t)
	ctx := t.Context()
	for _, row := range []struct {
		in   rest.ReplayRequest
		want int64
	}{
		{rest.ReplayRequest{}, 1},
		{rest.ReplayRequest{Status: "success"}, 2},
		{rest.ReplayRequest{Status: "success,failed"}, 3},
		{rest.ReplayRequest{Status: "success,failed", Event: "deleted"}, 1},
		{rest.ReplayRequest{Status: "success,failed", Since: "2h"}, 3},
		{rest.ReplayRequest{Status: "success,failed", Since: "1m"}, 0},
		{rest.ReplayRequest{Status: "success,failed", Until: "2025-01-15T14:32:02Z"}, 1},
	} {
		row.in.DryRun = true
		got, err := w.client.Replay(ctx, "expenses.backend", row.in)
		if err != nil || got.Matched != row.want || !got.DryRun || got.ID != "" {
			t.Errorf("%+v: got %+v, %v, want %d matched", row.in, got, err, row.want)
		}
	}
	if jobs, err := w.client.Replays(ctx); err != nil || len(jobs.Replays) != 0 {
		t.Errorf("a dry run left %+v, %v", jobs, err)
	}
	started, err := w.client.Replay(ctx, "expenses.backend", rest.ReplayRequest{Rate: 2.5, Since: "7d"})
	if err != nil || started.Rate != 2.5 || started.Webhook != "expenses.backend" || started.ID == "" {
		t.Fatalf("got %+v, %v", started, err)
	}
	if status, err := w.client.Status(ctx); err != nil || status.Replays != 1 {
		t.Errorf("status shows %d replays, %v", status.Replays, err)
	}
	if _, err := w.client.CancelReplay(ctx, started.ID); err != nil {
		t.Error(err)
	}
	_, err = w.client.CancelReplay(ctx, started.ID)
	refused(t, err, 404, rest.CodeNotFound)
	_, err = w.client.Replay(ctx, "expenses.old", rest.ReplayRequest{})
	refused(t, err, 409, rest.CodeRemoved)
}

func TestATestShowsTheAttempt(t *testing.T) {
	w := newWorld(t)
	w.dispatcher.test = func(context.Context, *delivery.Outbound) (delivery.Attempt, error) { return failedAttempt(1), nil }
	w.start(t)
	got, err := w.client.Test(t.Context(), "expenses.alerts", rest.TestRequest{Event: "created"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Delivered || got.Attempt.Response.Status != 503 || got.EntryID != "test_1" || !strings.Contains(got.Curl, "curl ") {
		t.Errorf("got %+v", got)
	}
	_, err = w.client.Test(t.Context(), "expenses.backend", rest.TestRequest{Event: "no.such"})
	refused(t, err, 400, rest.CodeBadRequest)
	_, err = w.client.Test(t.Context(), "expenses.old", rest.TestRequest{})
	refused(t, err, 409, rest.CodeRemoved)

	w.dispatcher.test = func(context.Context, *delivery.Outbound) (delivery.Attempt, error) {
		return delivery.Attempt{}, errors.New("webhook is not running")
	}
	_, err = w.client.Test(t.Context(), "expenses.backend", rest.TestRequest{})
	refused(t, err, 409, rest.CodeNotTestable)
}

func TestOnlySoManyTestsAtOnce(t *testing.T) {
	w := newWorld(t)
	begun, release := make(chan struct{}), make(chan struct{})
	w.dispatcher.test = func(context.Context, *delivery.Outbound) (delivery.Attempt, error) {
		begun <- struct{}{}
		<-release
		return failedAttempt(1), nil
	}
	w.start(t)
	var wg sync.WaitGroup
	for range maxTests {
		wg.Go(func() {
			if _, err := w.client.Test(t.Context(), "expenses.backend", rest.TestRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	for range maxTests {
		<-begun
	}
	_, err := w.client.Test(t.Context(), "expenses.backend", rest.TestRequest{})
	refused(t, err, 429, rest.CodeTooMany)
	close(release)
	wg.Wait()
}

// A client that gives up must not leave the attempt of its test running.
func TestACancelledTestEndsTheAttempt(t *testing.T) {
	w := newWorld(t)
	begun, ended := make(chan struct{}), make(chan error, 1)
	w.dispatcher.test = func(ctx context.Context, _ *delivery.Outbound) (delivery.Attempt, error) {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return delivery.Attempt{}, ctx.Err()
	}
	w.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	if _, err := w.client.Test(ctx, "expenses.backend", rest.TestRequest{Event: "created"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the attempt ended with %v", err)
	}
}

func TestWebhooksShowWhatLeftTheConfigurationWhileItHasDeliveries(t *testing.T) {
	w := newWorld(t)
	w.start(t)
	count := func() int {
		all, err := w.client.Webhooks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all.Webhooks)
	}
	if n := count(); n != 3 {
		t.Errorf("%d webhooks, want the 3 configured", n)
	}
	w.store.add(old, 1, delivery.Pending, nil)
	if n := count(); n != 4 {
		t.Errorf("%d webhooks, want the removed one too", n)
	}
	hook, err := w.client.Webhook(t.Context(), "expenses.old")
	if err != nil || hook.State != rest.WebhookHeld || hook.HeldReason != "removed" || hook.Counts.Held != 1 || hook.Enabled {
		t.Errorf("got %+v, %v", hook, err)
	}
}

func TestLastResultIsThatOfTheNewestAttempt(t *testing.T) {
	w := newWorld(t)
	w.store.add(backend, 1, delivery.Pending, func(s *queue.Summary) { s.Attempts, s.StatusCode = 1, 503 })
	newest := w.store.add(backend, 2, delivery.Success, nil)
	w.start(t)
	last := func() *rest.Delivery {
		hook, err := w.client.Webhook(t.Context(), "expenses.backend")
		if err != nil {
			t.Fatal(err)
		}
		return hook.Last
	}
	if d := last(); d == nil || d.ID != newest {
		t.Errorf("without an attempt since the start: %+v", d)
	}
	w.Feed.Publish([]queue.Change{{Lane: backend, Seq: 1, State: delivery.Pending, Kind: rest.KindAttempt}})
	if d := last(); d == nil || d.StatusCode != 503 {
		t.Errorf("after an attempt: %+v", d)
	}
	if hook, err := w.client.Webhook(t.Context(), "crm.main"); err != nil || hook.Last != nil {
		t.Errorf("a webhook without deliveries: %+v, %v", hook.Last, err)
	}
}

func TestAStoppedStoreIsUnavailable(t *testing.T) {
	w := newWorld(t)
	w.store.err = queue.ErrStopped
	w.store.stats.State = queue.StateStopped
	w.start(t)
	_, err := w.client.Deliveries(t.Context(), adminclient.DeliveryQuery{})
	refused(t, err, 503, rest.CodeUnavailable)
	for name, ask := range map[string]func(context.Context) (rest.Health, error){"live": w.client.Live, "ready": w.client.Ready} {
		if h, err := ask(t.Context()); err != nil || h.OK || len(h.Reasons) == 0 {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	if status, err := w.client.Status(t.Context()); err != nil || status.State != rest.StateDegraded || len(status.Reasons) == 0 {
		t.Errorf("status %+v, %v", status, err)
	}
}

// Before the store is open nobody is told that an id is unknown.
func TestBeforeTheStoreIsOpen(t *testing.T) {
	w := newWorld(t)
	w.store.stats.State = queue.StateStarting
	w.store.err = queue.ErrStopped
	w.start(t)
	_, err := w.client.Delivery(t.Context(), id.Delivery(testStore, uint32(backend), 1))
	refused(t, err, 503, rest.CodeUnavailable)
	_, err = w.client.Event(t.Context(), "evt_x")
	refused(t, err, 503, rest.CodeUnavailable)
	if h, err := w.client.Live(t.Context()); err != nil || !h.OK {
		t.Errorf("live: %+v, %v", h, err)
	}
	if h, err := w.client.Ready(t.Context()); err != nil || h.OK || len(h.Reasons) != 1 {
		t.Errorf("ready: %+v, %v", h, err)
	}
	if s, err := w.client.Status(t.Context()); err != nil || s.State != rest.StateDegraded || len(s.Reasons) != 1 {
		t.Errorf("status: %+v, %v", s, err)
	}
}

func TestLiveButNotReadyWithoutRoom(t *testing.T) {
	w := newWorld(t)
	w.store.stats.State, w.store.stats.Short = queue.StateNoSpace, "file descriptors"
	w.start(t)
	if s, err := w.client.Status(t.Context()); err != nil || len(s.Reasons) != 1 || !strings.Contains(s.Reasons[0], "file descriptors") {
		t.Errorf("status: %+v, %v", s.Reasons, err)
	}
	if h, err := w.client.Live(t.Context()); err != nil || !h.OK {
		t.Errorf("live: %+v, %v", h, err)
	}
	if h, err := w.client.Ready(t.Context()); err != nil || h.OK {
		t.Errorf("ready: %+v, %v", h, err)
	}
}

func TestAnUnexpectedErrorIsInternal(t *testing.T) {
	w := newWorld(t)
	w.store.err = errors.New("disk on fire")
	w.start(t)
	_, err := w.client.Deliveries(t.Context(), adminclient.DeliveryQuery{})
	refused(t, err, 500, rest.CodeInternal)
}

func TestAPanicIsAnAnswer(t *testing.T) {
	w := newWorld(t)
	w.dispatcher.test = func(context.Context, *delivery.Outbound) (delivery.Attempt, error) { panic("boom") }
	w.start(t)
	_, err := w.client.Test(t.Context(), "expenses.backend", rest.TestRequest{})
	if e := refused(t, err, 500, rest.CodeInternal); strings.Contains(e.Message, "boom") {
		t.Errorf("the answer says %q", e.Message)
	}
	// The slot of the test was given back, and the server lives.
	if _, err := w.client.Status(t.Context()); err != nil || len(w.tests) != 0 {
		t.Errorf("%v, %d tests under way", err, len(w.tests))
	}
}
