package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func TestListingFollowsCursorsToTheEnd(t *testing.T) {
	w := newWorld(t)
	for seq := range uint64(25) {
		w.store.add(backend, seq+1, delivery.Success, nil)
		w.store.add(crm, seq+1, delivery.Failed, nil)
	}
	w.start(t)
	var got []string
	for d, err := range w.client.AllDeliveries(t.Context(), adminclient.DeliveryQuery{Limit: 7}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.ID)
	}
	if len(got) != 50 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 50 {
		t.Fatalf("got %d rows, want 50 different ones", len(got))
	}
	if got[0] != id.Delivery(testStore, uint32(crm), 25) || got[49] != id.Delivery(testStore, uint32(backend), 1) {
		t.Errorf("not newest first: %s … %s", got[0], got[49])
	}
}

func TestStatusFiltersTellHeldAndInFlightFromPending(t *testing.T) {
	w := newWorld(t)
	pending := w.store.add(backend, 1, delivery.Pending, nil)
	flying := w.store.add(backend, 2, delivery.Pending, nil)
	held := w.store.add(alerts, 3, delivery.Pending, nil)
	gone := w.store.add(old, 4, delivery.Pending, nil)
	done := w.store.add(backend, 5, delivery.Success, nil)
	dead := w.store.add(backend, 6, delivery.Failed, nil)
	w.dispatcher.inFlight[key{backend, 2}] = true
	w.dispatcher.states[backend] = LaneState{InFlight: 1}
	w.start(t)
	for _, row := range []struct {
		status string
		want   []string
	}{
		{"", []string{dead, done, gone, held, flying, pending}},
		{"pending", []string{pending}},
		{"in_flight", []string{flying}},
		{"held", []string{gone, held}},
		{"success", []string{done}},
		{"failed", []string{dead}},
		{"failed, success", []string{dead, done}},
		{"held,in_flight", []string{gone, held, flying}},
		{"pending,failed", []string{dead, pending}},
	} {
		var status []string
		if row.status != "" {
			status = strings.Split(row.status, ",")
		}
		page, err := w.client.Deliveries(t.Context(), adminclient.DeliveryQuery{Status: status})
		if err != nil {
			t.Errorf("%q: %v", row.status, err)
			continue
		}
		var got []string
		for _, d := range page.Deliveries {
			got = append(got, d.ID)
			if want := row.status; want != "" && !strings.Contains(want, d.Status) {
				t.Errorf("%q: listed a delivery that is %s", row.status, d.Status)
			}
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%q: got %v, want %v", row.status, got, row.want)
		}
	}
	page, err := w.client.Deliveries(t.Context(), adminclient.DeliveryQuery{Webhook: "expenses.alerts", Status: []string{"held"}})
	if err != nil || len(page.Deliveries) != 1 || page.Deliveries[0].HeldReason != "disabled" {
		t.Errorf("held of one webhook: %+v, %v", page, err)
	}
}

func TestAStatusThatNoLaneHasAsksTheStoreNothing(t *testing.T) {
	w := newWorld(t)
	for seq := range uint64(100) {
		w.store.add(backend, seq+1, delivery.Pending, nil)
	}
	w.start(t)
	page, err := w.client.Deliveries(t.Context(), adminclient.DeliveryQuery{Status: []string{"in_flight"}})
	if err != nil || len(page.Deliveries) != 0 || page.NextCursor != "" {
		t.Errorf("got %+v, %v", page, err)
	}
	if w.store.lists != 0 {
		t.Errorf("the store was asked %d times", w.store.lists)
	}
}

// The one delivery in flight is the oldest of many: a page must give up
// looking, and say where to go on.
func TestARareStatusIsFoundInBoundedSteps(t *testing.T) {
	w := newWorld(t)
	const rows = 21_000
	for seq := range uint64(rows) {
		w.store.add(backend, seq+1, delivery.Pending, nil)
	}
	w.dispatcher.inFlight[key{backend, 1}] = true
	w.dispatcher.states[backend] = LaneState{InFlight: 1}
	target := "/v1/deliveries?status=in_flight&limit=1000"
	var steps int
	for cursor := ""; ; steps++ {
		w.store.lists = 0
		rec := w.request("GET", target+cursor, "")
		var page rest.DeliveryPage
		unmarshal(t, rec.Body.Bytes(), &page)
		if w.store.lists > maxScan/1000 {
			t.Fatalf("one page took %d reads", w.store.lists)
		}
		if len(page.Deliveries) == 1 {
			break
		}
		if page.NextCursor == "" {
			t.Fatal("the delivery in flight was not found")
		}
		cursor = "&cursor=" + page.NextCursor
	}
	if steps < 2 {
		t.Errorf("found after %d steps, although one page looks at %d rows of %d", steps, maxScan, rows)
	}
}
