package main

import (
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/slack/slacktest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestAnIncomingWebhookPostsANewMessageForEachEvent(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, hookSettings)
	for _, event := range []string{sinks.Created, sinks.Updated, sinks.Deleted, "expense.approved"} {
		receipt, state := deliver(t, sink, of(event, lunch), nil)
		if state != nil || receipt.Status != 200 {
			t.Errorf("%s: %+v", event, receipt)
		}
		showsNothing(t, receipt)
	}
	m := s.Messages(general)
	if len(m) != 4 || m[0].Unfurl {
		t.Fatalf("%+v", m)
	}
	for i, title := range []string{"entry created", "entry updated", "entry deleted", "expense.approved"} {
		if !strings.HasPrefix(m[i].Text, "Daily Expenses: "+title) {
			t.Errorf("%s", m[i].Text)
		}
	}
}

func TestEveryAnswerOfAnIncomingWebhookIsMapped(t *testing.T) {
	for _, c := range []struct {
		status     int
		body       string
		want       string
		retryAfter string
		after      time.Duration
	}{
		{200, "ok", "delivered", "", 0},
		{200, "ok\n", "delivered", "", 0},
		{200, "<html>", "retry bad_answer", "", 0},
		{200, `{"ok":true}`, "retry bad_answer", "", 0},
		{302, "", "misconfigured not_slack", "", 0},
		{400, "invalid_payload", "rejected invalid_payload", "", 0},
		{400, "no_text", "rejected no_text", "", 0},
		{400, "invalid_blocks", "rejected invalid_blocks", "", 0},
		{400, "invalid_attachments", "rejected invalid_attachments", "", 0},
		{400, "user_not_found", "misconfigured user_not_found", "", 0},
		{400, "something_new", "rejected something_new", "", 0},
		{400, "missing charset at " + hookPath, "rejected status", "", 0},
		{403, "action_prohibited", "misconfigured action_prohibited", "", 0},
		{403, "posting_to_general_channel_denied", "misconfigured posting_to_general_channel_denied", "", 0},
		{403, "invalid_token", "misconfigured invalid_token", "", 0},
		{403, "something_new", "misconfigured something_new", "", 0},
		{403, "<html>" + hookURL, "misconfigured status", "", 0},
		{404, "channel_not_found", "misconfigured channel_not_found", "", 0},
		{404, "no_service", "misconfigured no_service", "", 0},
		{404, "no_team", "misconfigured no_team", "", 0},
		{404, "nothing at " + hookPath, "misconfigured not_slack", "", 0},
		{408, "", "retry status", "", 0},
		{410, "channel_is_archived", "misconfigured channel_is_archived", "", 0},
		{410, "", "misconfigured not_slack", "", 0},
		{413, "", "rejected status", "", 0},
		{429, "rate_limited", "rate_limited rate_limited", "12", 12 * time.Second},
		{429, "", "rate_limited rate_limited", "", time.Minute},
		{500, "rollup_error", "retry status", "", 0},
		{500, "no_service", "retry status", "", 0},
		{503, hookURL, "retry status", "5", 5 * time.Second},
	} {
		s := workspace(slacktest.Options{NoRateLimit: true})
		sink := connect(t, s, hookSettings)
		body := c.body
		if body == "" {
			body = " "
		}
		s.Break(slacktest.Fault{Status: c.status, Body: body, RetryAfter: c.retryAfter})
		receipt, err := sink.Deliver(t.Context(), of(sinks.Created, lunch))
		if v := sinks.VerdictOf(err); outcome(err) != c.want || v.After != c.after || receipt.Status != c.status {
			t.Errorf("%d %q: %s %v %d: %v", c.status, c.body, outcome(err), v.After, receipt.Status, err)
		}
		showsNothing(t, receipt, err)
		if n := len(s.Calls()); n != 1 {
			t.Errorf("%d %q: %d requests", c.status, c.body, n)
		}
	}
}

func TestAChannelBehindAWebhookThatIsGoneHoldsIt(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, hookSettings)
	s.SetChannel(slacktest.Channel{ID: general, Archived: true})
	if _, err := sink.Deliver(t.Context(), of(sinks.Created, lunch)); outcome(err) != "misconfigured channel_is_archived" {
		t.Error(err)
	}
	s.SetWebhook(hookPath, "")
	_, err := sink.Deliver(t.Context(), of(sinks.Created, lunch))
	if outcome(err) != "misconfigured no_service" || !strings.Contains(err.Error(), "add a new one") {
		t.Error(err)
	}
}
