package relay

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func TestRetriesGoOnAfterARestart(t *testing.T) {
	// A busy machine may take longer for the restart than the retry waits.
	for _, wait := range []string{"300ms", "3s", "30s"} {
		if retriesGoOn(t, wait) {
			return
		}
	}
	t.Fatal("the retry came before the stop")
}

// retriesGoOn is false when the retry did not wait for the stop.
func retriesGoOn(t *testing.T, wait string) bool {
	t.Helper()
	rc := receive(t, status(http.StatusInternalServerError))
	h := newHome(t)
	text := "retry: {schedule: [" + wait + ", 10ms]}\n" + helperWith(rc.URL, "")
	d := h.start(text)
	h.send("e1")
	rc.next(t)
	d.row("expenses.backend", "the first attempt", func(r rest.Delivery) bool { return r.Attempts >= 1 })
	d.stop()
	if len(rc.got) != 0 {
		return false
	}

	d = h.start(text)
	for _, want := range []string{"2", "3"} {
		if got := rc.next(t).header.Get("X-Peanuts-Attempt"); got != want {
			t.Errorf("attempt %s came, want %s", got, want)
		}
	}
	row := d.row("expenses.backend", "failure", hasStatus(rest.StatusFailed))
	detail, err := d.Delivery(t.Context(), row.ID)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for _, a := range detail.Log {
		numbers = append(numbers, a.Number)
	}
	if !slices.Equal(numbers, []int{1, 2, 3}) {
		t.Errorf("the log has the attempts %v, want 1, 2, 3", numbers)
	}
	d.stop()
	return true
}

func TestAWebhookThatLeavesTheFileIsHeldAndGoesOnWhenItReturns(t *testing.T) {
	rc := receive(t, status(http.StatusServiceUnavailable))
	h := newHome(t)
	with := "retry: {schedule: [1ms, 1h]}\n" + helperWith(rc.URL, "")
	d := h.start(with)
	h.send("e1")
	rc.next(t)
	rc.next(t)
	before := d.row("expenses.backend", "two attempts", func(r rest.Delivery) bool { return r.Attempts == 2 })
	d.stop()

	d = h.start("helpers: {expenses: {secret: 0123456789abcdef01234567}}\n")
	w, err := d.Webhook(t.Context(), "expenses.backend")
	if err != nil || w.State != rest.WebhookHeld || w.HeldReason != "removed" || w.Counts.Pending != 1 || w.Counts.Held != 1 {
		t.Errorf("the removed webhook is shown as %+v, %v", w, err)
	}
	d.row("expenses.backend", "held", func(r rest.Delivery) bool { return r.Status == rest.StatusHeld && r.HeldReason == "removed" })
	h.send("e2") // nobody listens
	if _, err := d.Test(t.Context(), "expenses.backend", rest.TestRequest{}); err == nil {
		t.Error("a removed webhook was tested")
	}
	d.stop()

	rc.answer = nil
	d = h.start(with)
	if row := d.row("expenses.backend", "pending", hasStatus(rest.StatusPending)); row.ID != before.ID || row.Attempts != 2 {
		t.Errorf("it came back as %+v", row)
	}
	if _, err := d.Retry(t.Context(), before.ID); err != nil {
		t.Fatal(err)
	}
	if g := rc.next(t); g.header.Get("X-Peanuts-Attempt") != "3" || !strings.Contains(g.body, `"id":"e1"`) {
		t.Errorf("the receiver got %+v", g)
	}
	d.row("expenses.backend", "success", hasStatus(rest.StatusSuccess))
	d.stop()
}

func TestADisabledWebhookHoldsWhatItHasAndGetsNothingNew(t *testing.T) {
	rc := receive(t, status(http.StatusServiceUnavailable))
	h := newHome(t)
	d := h.start("retry: {schedule: [1h]}\n" + helperWith(rc.URL, ""))
	h.send("e1")
	d.row("expenses.backend", "the first attempt", func(r rest.Delivery) bool { return r.Attempts == 1 })
	d.stop()

	d = h.start(helperWith(rc.URL, ", enabled: false"))
	d.row("expenses.backend", "held", func(r rest.Delivery) bool { return r.Status == rest.StatusHeld && r.HeldReason == "disabled" })
	h.send("e2")
	evs, err := d.Event(t.Context(), "id-e2")
	if err != nil || len(evs.Events) != 1 || len(evs.Events[0].Skipped) != 1 || evs.Events[0].Skipped[0].Reason != "disabled" {
		t.Errorf("the new event is shown as %+v, %v", evs, err)
	}
	d.stop()
}
