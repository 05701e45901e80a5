package api

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// *queue.Store is what the API takes.
var _ Store = (*queue.Store)(nil)

// storeDispatcher does to a real store what the dispatcher does, without
// attempts of its own.
type storeDispatcher struct{ *queue.Store }

func (d storeDispatcher) WaitsFor(queue.Lane, uint64) uint64 { return 0 }
func (d storeDispatcher) InFlight(queue.Lane, uint64) bool   { return false }

func (d storeDispatcher) LaneState(lane queue.Lane) LaneState {
	if d.LaneName(lane) == "expenses.alerts" {
		return LaneState{Hold: delivery.HoldDisabled}
	}
	return LaneState{}
}

func (d storeDispatcher) Retry(ctx context.Context, lane queue.Lane, seq uint64) error {
	_, err := d.Requeue(ctx, lane, seq)
	return err
}

func (d storeDispatcher) Test(context.Context, queue.Lane, *delivery.Outbound) (delivery.Attempt, error) {
	return delivery.Attempt{}, errors.New("no sink")
}

func (d storeDispatcher) Replay(ctx context.Context, job queue.ReplayJob) (queue.ReplayJob, error) {
	return d.CreateReplay(ctx, job)
}

// realWorld is an API over a store on disk.
func realWorld(t *testing.T) (*world, *queue.Store, map[string]queue.Lane) {
	w := newWorld(t)
	feed := NewFeed()
	store, err := queue.Open(t.Context(), queue.Options{Dir: t.TempDir(), MinFree: 1 << 20, OnChange: feed.Publish})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := store.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	lanes := map[string]queue.Lane{}
	var want []queue.LaneWant
	for _, name := range []string{"expenses.backend", "expenses.alerts", "crm.main"} {
		want = append(want, queue.LaneWant{Webhook: name, Identity: queue.LaneIdentity{Sink: "http"}})
	}
	got, err := store.SetLanes(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	for name, info := range got {
		lanes[name] = info.Lane
	}
	catalog := testCatalog()
	for i := range catalog.Webhooks {
		catalog.Webhooks[i].Lane = lanes[catalog.Webhooks[i].Shown.ID]
	}
	o := w.Options
	o.Store, o.Dispatcher, o.Feed, o.Registry = store, storeDispatcher{store}, feed, prometheus.NewRegistry()
	o.Catalog, o.Now = func() *Catalog { return catalog }, nil
	if w.API, err = New(o); err != nil {
		t.Fatal(err)
	}
	return w.start(t), store, lanes
}

// accept stores an event of a helper for lanes.
func accept(t *testing.T, store *queue.Store, ev queue.Event, lanes ...queue.Lane) *queue.Event {
	t.Helper()
	ev.Type, ev.Timestamp = "entry.created", time.Now()
	ev.Payloads[queue.FormatPeanuts] = []byte(`{"event":"entry.created","entry":{"id":"` + ev.EntryID + `"}}`)
	for _, lane := range lanes {
		ev.Deliveries = append(ev.Deliveries, queue.NewDelivery{Lane: lane})
	}
	if err := store.Accept(t.Context(), []*queue.Event{&ev}); err != nil || ev.Err != nil {
		t.Fatal(err, ev.Err)
	}
	return &ev
}

// finish records an attempt of the oldest ready delivery of a lane.
func finish(t *testing.T, store *queue.Store, lane queue.Lane, a delivery.Attempt) {
	t.Helper()
	ds, _, err := store.ReadReady(lane, 0, 1, 1<<20)
	if err != nil || len(ds) != 1 {
		t.Fatal(len(ds), err)
	}
	a.Number, a.Started = ds[0].Attempts+1, time.Now()
	store.Complete(queue.Completion{Delivery: ds[0], Attempt: &a})
	waitFor(t, func() bool {
		s, err := store.Summary(lane, ds[0].Seq)
		if err != nil {
			t.Fatal(err)
		}
		return s.Attempts == a.Number
	})
}

func TestARealStoreTellsTheWholeStory(t *testing.T) {
	w, store, lanes := realWorld(t)
	ctx, backend, alerts := t.Context(), lanes["expenses.backend"], lanes["expenses.alerts"]
	stream := follow(t, w, adminclient.FollowQuery{})
	first := accept(t, store, queue.Event{Helper: "expenses", EntryID: "e1",
		Skipped: []queue.Skip{{Lane: alerts, Reason: delivery.SkipNotSelected}}}, backend)
	final := failedAttempt(1)
	final.Outcome, final.Status, final.Rule, final.State, final.NextIn = delivery.Rejected, 404, delivery.RuleClientError, delivery.Failed, 0
	finish(t, store, backend, final)
	accept(t, store, queue.Event{Helper: "expenses", EntryID: "e2", ID: "evt_mine"}, backend, alerts)
	accept(t, store, queue.Event{Helper: "crm", EntryID: "c1", ID: "evt_mine"}, lanes["crm.main"])

	page, err := w.client.Deliveries(ctx, adminclient.DeliveryQuery{Status: []string{"failed"}})
	if err != nil || len(page.Deliveries) != 1 {
		t.Fatalf("failed: %+v, %v", page, err)
	}
	dead := page.Deliveries[0]
	if dead.EventID != first.ID || dead.StatusCode != 404 || dead.EntryID != "e1" || dead.Webhook != "expenses.backend" || dead.FailedAt.IsZero() {
		t.Errorf("failed: %+v", dead)
	}
	if page, err := w.client.Deliveries(ctx, adminclient.DeliveryQuery{Status: []string{"held"}, Since: "1h"}); err != nil ||
		len(page.Deliveries) != 1 || page.Deliveries[0].Webhook != "expenses.alerts" {
		t.Errorf("held: %+v, %v", page, err)
	}
	detail, err := w.client.Delivery(ctx, dead.ID)
	if err != nil || len(detail.Log) != 1 || detail.Log[0].Response.Body != "<busy>" || detail.Payload != string(first.Payloads[0]) || detail.Curl == "" {
		t.Errorf("detail: %+v, %v", detail, err)
	}
	events, err := w.client.Event(ctx, "evt_mine")
	if err != nil || len(events.Events) != 2 {
		t.Errorf("the events of two helpers under one id: %+v, %v", events, err)
	}
	if events, err := w.client.Event(ctx, first.ID); err != nil || len(events.Events) != 1 || len(events.Events[0].Skipped) != 1 {
		t.Errorf("event: %+v, %v", events, err)
	}
	for _, want := range []string{rest.KindAccepted, rest.KindAttempt, rest.KindAccepted, rest.KindAccepted, rest.KindAccepted} {
		if got, err := stream.Next(); err != nil || got.Kind != want || got.Delivery.EntryID == "" {
			t.Errorf("stream: %+v, %v, want %s", got, err, want)
		}
	}
	if status, err := w.client.Status(ctx); err != nil || status.Queue.Accepted != 4 || status.Queue.Counts.Failed != 1 ||
		status.Queue.Counts.Pending != 3 || status.Queue.OldestPendingAt.IsZero() || status.Queue.MinFree == 0 {
		t.Errorf("status: %+v, %v", status.Queue, err)
	}
	actOnFailed(t, w, dead.ID)
	_, err = w.client.Deliveries(ctx, adminclient.DeliveryQuery{Cursor: "1.1garbage"})
	refused(t, err, 400, rest.CodeBadRequest)
}

// actOnFailed counts, replays, retries and drops the one failed delivery of
// expenses.backend.
func actOnFailed(t *testing.T, w *world, dead string) {
	t.Helper()
	ctx := t.Context()
	replay, err := w.client.Replay(ctx, "expenses.backend", rest.ReplayRequest{Since: "1h", DryRun: true})
	if err != nil || replay.Matched != 1 {
		t.Errorf("dry run: %+v, %v", replay, err)
	}
	job, err := w.client.Replay(ctx, "expenses.backend", rest.ReplayRequest{Rate: 1})
	if err != nil || job.ID == "" || job.Matched != 1 {
		t.Errorf("replay: %+v, %v", job, err)
	}
	if _, err := w.client.CancelReplay(ctx, job.ID); err != nil {
		t.Error(err)
	}
	if d, err := w.client.Retry(ctx, dead); err != nil || d.Status != rest.StatusPending || d.Attempts != 1 {
		t.Errorf("retry: %+v, %v", d, err)
	}
	if _, err := w.client.Drop(ctx, dead); err != nil {
		t.Error(err)
	}
	if d, err := w.client.Delivery(ctx, dead); err != nil || d.Status != rest.StatusFailed || d.Code != string(delivery.CodeDropped) {
		t.Errorf("dropped: %+v, %v", d.Delivery, err)
	}
}

func TestARealStoreIsListedToTheEnd(t *testing.T) {
	w, store, lanes := realWorld(t)
	const n = 60
	for i := range n {
		accept(t, store, queue.Event{Helper: "expenses", EntryID: fmt.Sprint("e", i)}, lanes["expenses.backend"], lanes["expenses.alerts"])
	}
	seen := map[string]bool{}
	for d, err := range w.client.AllDeliveries(t.Context(), adminclient.DeliveryQuery{Limit: 7, Status: []string{"held", "pending"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[d.ID] {
			t.Fatalf("%s was listed twice", d.ID)
		}
		seen[d.ID] = true
	}
	if len(seen) != 2*n {
		t.Errorf("%d rows, want %d", len(seen), 2*n)
	}
}
