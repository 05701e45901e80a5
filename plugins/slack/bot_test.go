package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/slack/slacktest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestAnUpdateEditsAndADeletionRemovesTheMessageOfTheCreation(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, botSettings)
	receipt, state := deliver(t, sink, of(sinks.Created, lunch), nil)
	first := only(t, s)
	if receipt.RemoteURL != "https://acme.slack.com/archives/C0GENERAL/p"+strings.ReplaceAll(first.TS, ".", "") {
		t.Errorf("link %q", receipt.RemoteURL)
	}
	if len(state) > 4<<10 || !strings.Contains(string(state), first.TS) {
		t.Errorf("state %s", state)
	}
	if first.Unfurl || first.App != "peanuts" {
		t.Errorf("%+v", first)
	}
	receipt, state = deliver(t, sink, of(sinks.Updated, `{"amount":43}`), state)
	edited := only(t, s)
	if edited.TS != first.TS || edited.Edits != 1 || !strings.Contains(texts(t, edited.Blocks), "*amount*\n43") || receipt.RemoteURL == "" {
		t.Errorf("%+v %+v", edited, receipt)
	}
	_, state = deliver(t, sink, of(sinks.Deleted, `{"amount":43}`), state)
	if m := s.Messages(general); len(m) != 0 || state != nil {
		t.Errorf("%+v", m)
	}
	if got := methods(s); got != "chat.postMessage chat.update chat.delete" {
		t.Error(got)
	}
	showsNothing(t, receipt, state)
}

func TestAnotherEntryHasAnotherMessage(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, botSettings)
	_, one := deliver(t, sink, of(sinks.Created, `{"n":1}`), nil)
	_, two := deliver(t, sink, of(sinks.Created, `{"n":2}`), nil)
	deliver(t, sink, of(sinks.Updated, `{"n":20}`), two)
	deliver(t, sink, of(sinks.Deleted, `{"n":1}`), one)
	if m := only(t, s); !strings.Contains(texts(t, m.Blocks), "*n*\n20") {
		t.Errorf("%s", m.Blocks)
	}
}

func TestADeletedEntryCanBeStruckThrough(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, `{"token":"`+botToken+`","channel":"#general","on_delete":"strike"}`)
	_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
	_, state = deliver(t, sink, of(sinks.Deleted, `{"amount":42.5,"note":"one ~ two\n\n three","none":null}`), state)
	m := only(t, s)
	got := texts(t, m.Blocks)
	for _, want := range []string{"Daily Expenses: entry deleted", "*amount*\n~42.5~", "*note*\n~one ∼ two~\n\n~three~", "*none*\n-"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if m.Edits != 1 || state != nil {
		t.Errorf("%+v %s", m, state)
	}
}

func TestAnUpdateWithoutAMessagePostsOne(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, botSettings)
	for _, state := range []string{"", "{}", "not of this version", `{"channel":"C0GENERAL"}`} {
		_, kept := deliver(t, sink, of(sinks.Updated, lunch), []byte(state))
		if !strings.Contains(string(kept), `"ts"`) {
			t.Errorf("%q: %s", state, kept)
		}
	}
	if n := len(s.Messages(general)); n != 4 {
		t.Errorf("%d messages", n)
	}
	d := of(sinks.Deleted, lunch)
	if _, err := sink.Deliver(t.Context(), d); outcome(err) != "skipped" {
		t.Error(err)
	}
}

func TestAMessageThatCannotBeEditedIsReplaced(t *testing.T) {
	for _, code := range []string{"message_not_found", "cant_update_message", "edit_window_closed", "is_inactive", "block_mismatch", "channel_not_found", "not_in_channel", "is_archived", "streaming_state_conflict"} {
		t.Run(code, func(t *testing.T) {
			s := workspace(slacktest.Options{NoRateLimit: true})
			sink := connect(t, s, botSettings)
			_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
			first := only(t, s)
			s.Break(slacktest.Fault{Method: update, Error: code})
			_, after := deliver(t, sink, of(sinks.Updated, lunch), state)
			m := s.Messages(general)
			if len(m) != 2 || m[1].TS == first.TS || !strings.Contains(string(after), m[1].TS) {
				t.Errorf("%+v, state %s", m, after)
			}
		})
	}
}

// TestAChannelThatIsGoneHoldsTheWebhook: the new message meets the same channel, so that
// nothing is lost.
func TestAChannelThatIsGoneHoldsTheWebhook(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, botSettings)
	_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
	s.SetChannel(slacktest.Channel{ID: general, Name: "general", Archived: true})
	d := of(sinks.Updated, lunch)
	d.State = state
	if _, err := sink.Deliver(t.Context(), d); outcome(err) != "misconfigured is_archived" {
		t.Error(err)
	}
	s.SetChannel(slacktest.Channel{ID: general, Name: "general", Absent: true, Private: true})
	d = of(sinks.Deleted, lunch)
	d.State = state
	if _, err := sink.Deliver(t.Context(), d); outcome(err) != "misconfigured channel_not_found" {
		t.Error(err)
	}
	// The webhook posts elsewhere by now: what is wrong with its former channel is the
	// matter of this one delivery.
	s.SetChannel(slacktest.Channel{ID: "C0OTHER", Name: "other"})
	moved := connect(t, s, `{"token":"`+botToken+`","channel":"C0OTHER"}`)
	if _, err := moved.Deliver(t.Context(), d); outcome(err) != "rejected channel_not_found" {
		t.Error(err)
	}
}

func TestAfterTheChannelWasChangedEntriesStayWhereTheyAre(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	s.SetChannel(slacktest.Channel{ID: "C0OTHER", Name: "other"})
	_, state := deliver(t, connect(t, s, botSettings), of(sinks.Created, lunch), nil)
	moved := connect(t, s, `{"token":"`+botToken+`","channel":"other"}`)
	deliver(t, moved, of(sinks.Updated, `{"n":2}`), state)
	if m := only(t, s); m.Edits != 1 || len(s.Messages("C0OTHER")) != 0 {
		t.Errorf("%+v", m)
	}
}

func TestRemovingWhatIsNotThereIsDone(t *testing.T) {
	for _, settings := range []string{botSettings, strings.Replace(botSettings, "}", `,"on_delete":"strike"}`, 1)} {
		s := workspace(slacktest.Options{NoRateLimit: true})
		sink := connect(t, s, settings)
		_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
		s.Remove(general, "")
		d := of(sinks.Deleted, lunch)
		d.State = state
		if _, err := sink.Deliver(t.Context(), d); outcome(err) != "skipped" {
			t.Errorf("%s: %v", settings, err)
		}
	}
}

func TestWhatMayNotBeRemovedIsStruckThrough(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true, KeepAll: true})
	sink := connect(t, s, botSettings)
	_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
	d := of(sinks.Deleted, lunch)
	deliver(t, sink, d, state)
	if m := only(t, s); m.Edits != 1 || !strings.Contains(texts(t, m.Blocks), "~42.5~") {
		t.Errorf("%+v", m)
	}
	// Nor edited: the delivery says what was wanted first.
	s.Break(slacktest.Fault{Method: update, Error: "edit_window_closed"})
	d.State = state
	if _, err := sink.Deliver(t.Context(), d); outcome(err) != "rejected compliance_exports_prevent_deletion" {
		t.Error(err)
	}
	s.Break(slacktest.Fault{Method: update, Error: "internal_error"})
	if _, err := sink.Deliver(t.Context(), d); outcome(err) != "retry internal_error" {
		t.Error(err)
	}
	// The message of another app.
	s.SetToken(slacktest.Token{Value: botToken, App: "other", Scopes: []string{"chat:write"}})
	if _, err := sink.Deliver(t.Context(), d); outcome(err) != "rejected cant_delete_message" {
		t.Error(err)
	}
}

func TestAnOlderEventDoesNotOverwriteALaterOne(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, botSettings)
	_, state := deliver(t, sink, of(sinks.Created, `{"n":1}`), nil)
	later := of(sinks.Updated, `{"n":2}`)
	later.Sequence = 9
	_, state = deliver(t, sink, later, state)
	for _, event := range []string{sinks.Created, sinks.Updated, sinks.Deleted} { // replayed by an operator
		d := of(event, `{"n":1}`)
		d.Sequence, d.State = 8, state
		receipt, err := sink.Deliver(t.Context(), d)
		if outcome(err) != "skipped" || !bytes.Equal(receipt.State, state) {
			t.Errorf("%s: %v, state %q", event, err, receipt.State)
		}
	}
	// The same one again shows the same again.
	deliver(t, sink, later, state)
	if m := only(t, s); !strings.Contains(texts(t, m.Blocks), "*n*\n2") {
		t.Errorf("%s", m.Blocks)
	}
}

func TestOtherEventsAreMessagesOfTheirOwn(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, botSettings)
	_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
	_, after := deliver(t, sink, of("expense.approved", `{"by":"Ada"}`), state)
	m := s.Messages(general)
	if len(m) != 2 || string(after) != string(state) || !strings.Contains(m[1].Text, "Daily Expenses: expense.approved: by Ada") {
		t.Errorf("%+v", m)
	}
}

// TestATimeoutAfterTheWrite shows what an unknown outcome costs: a message twice, both
// with the delivery's id; an edit or a removal has no second effect.
func TestATimeoutAfterTheWrite(t *testing.T) {
	for _, c := range []struct {
		event, method, again string
		messages             int
	}{
		{sinks.Created, postMessage, "delivered", 3},
		{sinks.Updated, update, "delivered", 1},
		{sinks.Deleted, remove, "skipped", 0},
	} {
		t.Run(c.event, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := workspace(slacktest.Options{NoRateLimit: true})
				sink := connect(t, s, botSettings)
				_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
				s.Break(slacktest.Fault{Method: c.method, AfterEffect: true, Hang: true})
				d := of(c.event, lunch)
				if c.event != sinks.Created {
					d.State = state
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				receipt, err := sink.Deliver(ctx, d)
				if got := outcome(err); got != "retry" {
					t.Errorf("%s", got)
				}
				showsNothing(t, receipt, err)
				if _, err := sink.Deliver(t.Context(), d); outcome(err) != c.again {
					t.Errorf("again: %v", err)
				}
				m := s.Messages(general)
				if len(m) != c.messages {
					t.Errorf("%d messages", len(m))
				}
				if c.event == sinks.Created {
					for _, m := range m[1:] {
						if !strings.Contains(string(m.Blocks), `"block_id":"`+d.ID+`"`) {
							t.Errorf("%s", m.Blocks)
						}
					}
				}
			})
		})
	}
}

// TestEveryErrorOfTheWebAPIIsMapped walks the codes of the methods' pages.
func TestEveryErrorOfTheWebAPIIsMapped(t *testing.T) {
	for want, codes := range map[string]string{
		"rejected": "msg_too_long no_text msg_blocks_too_long invalid_blocks invalid_blocks_format invalid_arguments invalid_arg_name invalid_array_arg invalid_charset invalid_form_data invalid_post_type missing_post_type invalid_attachments too_many_attachments markdown_text_conflict",
		"misconfigured": "channel_not_found not_in_channel is_archived restricted_action restricted_action_read_only_channel restricted_action_thread_only_channel restricted_action_non_threadable_channel " +
			"invalid_auth not_authed token_revoked token_expired account_inactive missing_scope no_permission not_allowed_token_type ekm_access_denied access_denied accesslimited two_factor_setup_required team_access_not_granted team_not_found enterprise_is_restricted " +
			"deprecated_endpoint method_deprecated unknown_method channel_type_not_supported messages_tab_disabled slack_connect_file_link_sharing_blocked as_user_not_supported user_not_found cannot_dm_bot",
		"rate_limited": "ratelimited rate_limited message_limit_exceeded",
		"retry":        "internal_error fatal_error request_timeout service_unavailable team_added_to_org org_login_required external_channel_migrating update_failed something_that_is_new",
	} {
		for code := range strings.FieldsSeq(codes) {
			s := workspace(slacktest.Options{NoRateLimit: true})
			sink := connect(t, s, botSettings)
			s.Break(slacktest.Fault{Method: postMessage, Error: code})
			receipt, err := sink.Deliver(t.Context(), of(sinks.Created, lunch))
			v := sinks.VerdictOf(err)
			if v.Outcome.String() != want || (want != "rate_limited" && v.Code != code) || receipt.State != nil {
				t.Errorf("%s: %v %q %s", code, v.Outcome, v.Code, receipt.State)
			}
			if want == "rate_limited" && v.After <= 0 {
				t.Errorf("%s: %v", code, v.After)
			}
			if want == "misconfigured" && code != "unknown_method" && !strings.Contains(err.Error(), code) {
				t.Errorf("%s: %v", code, err)
			}
			showsNothing(t, receipt, err)
			if got := methods(s); got != postMessage {
				t.Errorf("%s: %s", code, got)
			}
		}
	}
}

func TestAnswersThatAreNotSlacks(t *testing.T) {
	for _, c := range []struct {
		fault slacktest.Fault
		want  string
		after time.Duration
	}{
		{slacktest.Fault{Status: 200, Body: "<html>"}, "retry bad_answer", 0},
		{slacktest.Fault{Status: 200, Body: "{}"}, "retry unknown_error", 0},
		{slacktest.Fault{Status: 200, Body: `{"ok":false,"error":"Bad Thing <x>"}`}, "retry bad_thing_x_", 0},
		{slacktest.Fault{Status: 204}, "retry bad_answer", 0},
		{slacktest.Fault{Status: 302}, "misconfigured not_slack", 0},
		{slacktest.Fault{Status: 400, Body: "no " + botToken}, "rejected status", 0},
		{slacktest.Fault{Status: 401}, "misconfigured status", 0},
		{slacktest.Fault{Status: 403}, "misconfigured status", 0},
		{slacktest.Fault{Status: 404}, "misconfigured not_slack", 0},
		{slacktest.Fault{Status: 429, RetryAfter: "30"}, "rate_limited rate_limited", 30 * time.Second},
		{slacktest.Fault{Status: 429}, "rate_limited rate_limited", time.Minute},
		{slacktest.Fault{Error: "ratelimited", RetryAfter: "8"}, "rate_limited rate_limited", 8 * time.Second},
		{slacktest.Fault{Status: 500, Body: "at " + botToken}, "retry status", 0},
		{slacktest.Fault{Status: 503, RetryAfter: "9"}, "retry status", 9 * time.Second},
	} {
		s := workspace(slacktest.Options{NoRateLimit: true})
		sink := connect(t, s, botSettings)
		c.fault.Method = postMessage
		s.Break(c.fault)
		receipt, err := sink.Deliver(t.Context(), of(sinks.Created, lunch))
		if v := sinks.VerdictOf(err); outcome(err) != c.want || v.After != c.after {
			t.Errorf("%+v: %s %v: %v", c.fault, outcome(err), v.After, err)
		}
		showsNothing(t, receipt, err)
	}
}

func TestAnErrorSaysWhatToDo(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	s.SetToken(slacktest.Token{Value: botToken, App: "peanuts", Scopes: []string{"users:read"}})
	_, err := connect(t, s, botSettings).Deliver(t.Context(), of(sinks.Created, lunch))
	if want := "Slack refused chat.postMessage: missing_scope (needed: chat:write, provided: users:read): add the scope chat:write to the app, install it again and use its bot token"; err.Error() != want {
		t.Errorf("%v", err)
	}
	s = workspace(slacktest.Options{NoRateLimit: true})
	s.Break(slacktest.Fault{Method: postMessage, Body: `{"ok":false,"error":"invalid_blocks","response_metadata":{"messages":["[ERROR] must be less than 3001 characters [json-pointer:/blocks/0/text/text]"]}}`})
	_, err = connect(t, s, botSettings).Deliver(t.Context(), of(sinks.Created, lunch))
	if !strings.Contains(err.Error(), "must be less than 3001 characters") {
		t.Errorf("%v", err)
	}
}

// TestWithoutTheWorkspacesAddressThereAreNoLinks: auth.test may fail or hang, and is
// asked once.
func TestWithoutTheWorkspacesAddressThereAreNoLinks(t *testing.T) {
	for _, fault := range []slacktest.Fault{{Error: "internal_error"}, {Status: 500}, {Hang: true}, {Body: `{"ok":true,"url":"javascript:alert(1)"}`}} {
		synctest.Test(t, func(t *testing.T) {
			s := workspace(slacktest.Options{NoRateLimit: true})
			fault.Method = authTest
			s.Break(fault)
			sink := connect(t, s, botSettings)
			for range 2 {
				if receipt, _ := deliver(t, sink, of(sinks.Created, lunch), nil); receipt.RemoteURL != "" || receipt.Message != "posted in channel C0GENERAL" {
					t.Errorf("%+v: %+v", fault, receipt)
				}
			}
			if n := len(s.Calls()); n != 3 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func TestTheTokenIsInTheHeaderOnly(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, botSettings)
	_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
	_, state = deliver(t, sink, of(sinks.Updated, lunch), state)
	deliver(t, sink, of(sinks.Deleted, lunch), state)
	for _, c := range s.Calls() {
		if c.Header.Get("Authorization") != "Bearer "+botToken || c.Header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%s: %v", c.Method, c.Header)
		}
		showsNothing(t, c.Body)
		var args map[string]any
		if err := json.Unmarshal(c.Body, &args); err != nil {
			t.Fatal(err)
		}
		_, unfurl := args["unfurl_links"]
		if unfurl != (c.Method == postMessage) || (c.Method == update && args["parse"] != "none") {
			t.Errorf("%s: %s", c.Method, c.Body)
		}
	}
}

func TestSeveralAtOnce(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, botSettings)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := sink.Deliver(t.Context(), of(sinks.Created, fmt.Sprintf(`{"n":%d}`, i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(s.Messages(general)); n != 8 {
		t.Errorf("%d messages", n)
	}
}

// TestAMessageThatIsLongInItsAnswerIsPostedOnce: the answer repeats it, six bytes for a
// character, and what is read of an answer ends before.
func TestAMessageThatIsLongInItsAnswerIsPostedOnce(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, withTemplate(botSettings, "{{.Data.text}}"))
	data := `{"text":"` + strings.Repeat("ピーナッツ", 4_000) + `"}`
	_, state := deliver(t, sink, of(sinks.Created, data), nil)
	if got := only(t, s); len([]rune(texts(t, got.Blocks))) < 10_000 {
		t.Fatalf("%d characters are not long", len([]rune(texts(t, got.Blocks))))
	}
	_, state = deliver(t, sink, of(sinks.Updated, data), state)
	if m := only(t, s); m.Edits != 1 {
		t.Errorf("%d edits", m.Edits)
	}
	deliver(t, sink, of(sinks.Deleted, `{}`), state)
	if m := s.Messages(general); len(m) != 0 {
		t.Errorf("%d messages are left", len(m))
	}
}

// TestAnAnswerThatBreaksOff is read as far as it goes.
func TestAnAnswerThatBreaksOff(t *testing.T) {
	for body, want := range map[string]string{
		`{"ok":true,"channel":"C0GENERAL","ts":"1.2","message":{"text":"abc`:         "delivered",
		`{"ok":true,"message":{"text":"abc`:                                          "delivered",
		`{"ok":false,"error":"is_archived","response_metadata":{"messages":["a","b"`: "misconfigured is_archived",
		`{"ok":false,"error":"is_arch`:                                               "retry bad_answer",
		`{"ok":tr`:                                                                   "retry bad_answer",
		`{"message":{"text":"abc`:                                                    "retry bad_answer",
		`{"ok":true`:                                                                 "delivered",
		`{"ok":true}}`:                                                               "delivered",
		`{"ok":"true","channel":"C`:                                                  "retry bad_answer",
		`[{"ok":true`:                                                                "retry bad_answer",
		``:                                                                           "retry bad_answer",
	} {
		s := workspace(slacktest.Options{NoRateLimit: true})
		sink := connect(t, s, botSettings)
		s.Break(slacktest.Fault{Method: postMessage, Body: cmp.Or(body, " ")})
		if _, err := sink.Deliver(t.Context(), of(sinks.Created, lunch)); outcome(err) != want {
			t.Errorf("%s: %v, want %s", body, outcome(err), want)
		}
	}
}
