package api

import (
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func TestEveryRuleHasASentence(t *testing.T) {
	status := func(rule delivery.Rule, code int) delivery.Attempt {
		return delivery.Attempt{Rule: rule, Status: code, Code: delivery.CodeStatus}
	}
	for _, row := range []struct {
		in   delivery.Attempt
		want string
	}{
		{delivery.Attempt{Rule: delivery.RuleDelivered, Status: 204}, "HTTP 204: the receiver accepted it"},
		{delivery.Attempt{Rule: delivery.RuleDelivered}, "the sink says that it has arrived"},
		{delivery.Attempt{Rule: delivery.RuleSkipped}, "the sink had nothing to do"},
		{delivery.Attempt{Rule: delivery.RuleRedirect, Status: 302, Code: delivery.CodeRedirect}, "HTTP 302: redirects are final"},
		{status(delivery.RuleClientError, 404), "HTTP 404: 4xx is final; add 404 to retry.also_on to retry it"},
		{status(delivery.RuleAlsoOn, 429), "HTTP 429: retried because retry.also_on lists 429"},
		{status(delivery.RuleServerError, 503), "HTTP 503: 5xx is retried"},
		{delivery.Attempt{Rule: delivery.RuleNetwork, Code: delivery.CodeTimeout}, "no complete answer within retry.timeout: errors of the network"},
		{delivery.Attempt{Rule: delivery.RuleNetwork, Code: delivery.CodeTimeout, Status: 200}, "no complete answer within"},
		{delivery.Attempt{Rule: delivery.RuleSinkRetry, Code: "quota"}, "error quota: the sink asked"},
		{delivery.Attempt{Rule: delivery.RuleSinkRetry}, "the sink asked for another attempt"},
		{delivery.Attempt{Rule: delivery.RuleRejected, Code: delivery.CodeForbiddenAddr}, "egress.allow"},
		{delivery.Attempt{Rule: delivery.RuleRejected, Code: "no_text"}, "error no_text: refused for good"},
		{status(delivery.RuleExhausted, 500), "HTTP 500: it would be retried, but retry.schedule is used up"},
		{delivery.Attempt{Rule: delivery.RuleRateLimited}, "pause; no attempt is used up"},
		{delivery.Attempt{Rule: delivery.RuleMisconfigured}, "held and tried every 5 minutes"},
		{delivery.Attempt{Rule: delivery.RuleInterrupted}, "not counted"},
		{delivery.Attempt{Rule: delivery.RuleCrashed, Code: delivery.CodePluginCrash},
			"the process of the sink died while it had the delivery: it goes again at once and alone; no attempt is used up, but after 3 such crashes it fails"},
		{delivery.Attempt{Rule: delivery.RulePoison, Code: delivery.CodePluginCrash},
			"the process of the sink died while it had the delivery, 3 times: it is taken for the cause"},
		{delivery.Attempt{Rule: delivery.RuleSinkRetry, Code: delivery.CodeNoResult}, "no usable result for the delivery: the sink asked for another attempt"},
		{delivery.Attempt{Rule: delivery.RuleSinkRetry, Code: delivery.CodePluginDown}, "was not ready, so nothing was sent"},
		{delivery.Attempt{Rule: delivery.RuleDamaged}, "checksum"},
		{delivery.Attempt{Rule: delivery.RuleDropped}, "an operator discarded it"},
	} {
		if got := ruleText(&row.in); !strings.Contains(got, row.want) || strings.Contains(got, "no code") {
			t.Errorf("%s: got %q, want %q", row.in.Rule, got, row.want)
		}
	}
	asked := status(delivery.RuleServerError, 503)
	asked.State, asked.RetryAfter, asked.NextIn = delivery.Pending, 2*time.Minute, 2*time.Minute
	if got := ruleText(&asked); !strings.Contains(got, "asked for 2m0s with Retry-After") {
		t.Errorf("got %q", got)
	}
}

func TestADeliveryThatWaitsForAnotherOneSaysForWhich(t *testing.T) {
	w := newWorld(t).start(t)
	first := w.store.add(backend, 1, delivery.Pending, nil)
	stored := w.store.add(backend, 2, delivery.Pending, func(s *queue.Summary) { s.WaitsFor = 1 })
	kept := w.store.add(backend, 3, delivery.Pending, nil)
	held := w.store.add(alerts, 4, delivery.Pending, func(s *queue.Summary) { s.WaitsFor = 1 })
	w.dispatcher.waits[key{backend, 3}] = 1
	for seq := range uint64(4) {
		w.addEvent(seq+1, func(*queue.EventRecord) {})
	}
	for _, row := range []struct {
		id, waitsFor, status string
		sentences            int
	}{
		{first, "", rest.StatusPending, 1},
		{stored, first, rest.StatusPending, 1},
		{kept, first, rest.StatusPending, 1},
		{held, id.Delivery(testStore, uint32(alerts), 1), rest.StatusHeld, 3},
	} {
		d, err := w.client.Delivery(t.Context(), row.id)
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Contains(d.Explanation[len(d.Explanation)-1], "Waits for "+row.waitsFor+", an earlier delivery of the same entry")
		if d.WaitsFor != row.waitsFor || d.Status != row.status || len(d.Explanation) != row.sentences || said != (row.waitsFor != "") {
			t.Errorf("%s waits for %q and is %s: %q, want %+v", row.id, d.WaitsFor, d.Status, d.Explanation, row)
		}
	}
}

func TestEveryHoldReasonHasASentence(t *testing.T) {
	for _, reason := range holdReasons() {
		if text := heldText(LaneState{Hold: reason}); text == string(reason) || !strings.Contains(text, "go on") {
			t.Errorf("%s: %q", reason, text)
		}
	}
	for _, reason := range []delivery.HoldReason{delivery.HoldMisconfigured, delivery.HoldPluginDown} {
		if text := heldText(LaneState{Hold: reason, HoldWhy: "invite the app to the channel"}); !strings.Contains(text, ": invite the app to the channel; ") {
			t.Errorf("%s hides what the sink says: %q", reason, text)
		}
	}
	said := heldText(LaneState{Hold: delivery.HoldMisconfigured, HoldWhy: strings.Repeat("ä", 500) + "\nmore"})
	if !strings.Contains(said, ": ä") || strings.Contains(said, "more") || len([]rune(said)) > 450 {
		t.Errorf("what the sink said: %q", said)
	}
	if text := heldText(LaneState{}); text != "" {
		t.Errorf("no reason: %q", text)
	}
}

func TestDeliveriesAreExplained(t *testing.T) {
	w, ids := storyWorld(t)
	dropped := w.store.add(backend, 20, delivery.Failed, func(s *queue.Summary) { s.Code = delivery.CodeDropped })
	due := w.store.add(backend, 22, delivery.Pending, func(s *queue.Summary) { s.Attempts, s.Next = 1, epoch })
	w.store.attempts[key{backend, 22}] = []delivery.Attempt{failedAttempt(1)}
	w.start(t)
	for _, row := range []struct {
		id   string
		want []string
	}{
		{ids["retried"], []string{"Attempt 2 comes at 2025-01-15T16:32:00.000Z (in 1h0m0s)", "HTTP 503: 5xx is retried"}},
		{ids["success"], []string{"Delivered at ", " by attempt 2: HTTP 200: the receiver accepted it."}},
		{ids["failed"], []string{"Given up at ", "after 1 attempt: HTTP 404", "add 404 to retry.also_on", "payload is gone"}},
		{ids["held"], []string{"Held because the webhook is disabled (enabled: false)", "no attempt is used up"}},
		{ids["fresh"], []string{"Not attempted yet", "JSON.stringify"}},
		{ids["in flight"], []string{"Attempt 1 is under way."}},
		{due, []string{"Attempt 2 is due now"}},
		{dropped, []string{"Discarded by an operator at "}},
	} {
		got, err := w.client.Delivery(t.Context(), row.id)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(got.Explanation, " ")
		for _, want := range row.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s is explained as %q, which lacks %q", got.Status, text, want)
			}
		}
	}
}

func TestEventsAreExplained(t *testing.T) {
	w, _ := storyWorld(t)
	w.addEvent(30, func(e *queue.EventRecord) {
		e.ID, e.Helper, e.Deliveries = "evt_lonely", "nobody", nil
	})
	w.start(t)
	explain := func(event string) (all []string, events rest.Events) {
		events, err := w.client.Event(t.Context(), event)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Events {
			all = append(all, strings.Join(e.Explanation, " "))
		}
		return all, events
	}
	text, events := explain("evt_mine")
	if len(events.Events) != 2 || events.Events[0].Helper != "expenses" || events.Events[1].Helper != "crm" {
		t.Fatalf("the events of two helpers under one id: %+v", events)
	}
	for _, want := range []string{"matched nothing", "webhook expenses.alerts is disabled (enabled: false)", "did not listen to entry.created when the event came"} {
		if !strings.Contains(text[0], want) {
			t.Errorf("%q lacks %q", text[0], want)
		}
	}
	if !strings.Contains(text[1], "Webhook crm.main came into the configuration after the event.") {
		t.Errorf("got %q", text[1])
	}
	if text, _ := explain("evt_lonely"); !strings.Contains(text[0], "helper nobody had no webhooks") {
		t.Errorf("got %q", text[0])
	}
	text, events = explain(id.Event(testStore, 1))
	if !strings.Contains(text[0], "listens to entry.deleted only") || !strings.Contains(text[0], "1 no longer in the delivery log") {
		t.Errorf("got %q", text[0])
	}
	if len(events.Events[0].Skipped) != 1 || events.Events[0].Skipped[0].Reason != "event_not_selected" {
		t.Errorf("skipped %+v", events.Events[0].Skipped)
	}
}

func TestAnAttemptThatVerifiedNothingSaysSo(t *testing.T) {
	w := newWorld(t).start(t)
	for seq, message := range []string{"", delivery.UnverifiedMessage} {
		seq := uint64(seq + 1)
		id := w.store.add(backend, seq, delivery.Success, func(s *queue.Summary) { s.Attempts = 1 })
		w.addEvent(seq, func(*queue.EventRecord) {})
		last := failedAttempt(1)
		last.Message = message
		w.store.attempts[key{backend, seq}] = []delivery.Attempt{last}
		d, err := w.client.Delivery(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(d.Explanation, " "), "certificate was not verified"); got != (message != "") || d.Log[0].Message != message {
			t.Errorf("message %q: %q", d.Log[0].Message, d.Explanation)
		}
	}
}
