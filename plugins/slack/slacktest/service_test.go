package slacktest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// workspace has a channel for each reason not to post.
func workspace(o Options) *Service {
	s := New(o)
	for _, c := range []Channel{
		{ID: "C0GENERAL", Name: "general"}, {ID: "C0ABSENT", Name: "absent", Absent: true}, {ID: "C0PRIVATE", Name: "private", Private: true, Absent: true},
		{ID: "C0OLD", Name: "old", Archived: true}, {ID: "C0NEWS", Name: "news", ReadOnly: true},
	} {
		s.SetChannel(c)
		s.SetWebhook("/services/T0/B0/"+c.Name, c.ID)
	}
	s.SetWebhook("/services/T0/B0/nowhere", "C0GONE")
	s.SetToken(Token{Value: "xoxb-app", App: "app", Scopes: []string{"chat:write"}})
	s.SetToken(Token{Value: "xoxb-public", App: "public", Scopes: []string{"chat:write", "chat:write.public"}})
	s.SetToken(Token{Value: "xoxb-none", App: "none", Scopes: []string{"users:read"}})
	s.SetToken(Token{Value: "xoxb-old", App: "old", Error: "token_revoked"})
	return s
}

func send(t *testing.T, s *Service, path, token, body string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

// call is a method's answer.
func call(t *testing.T, s *Service, method, token, body string) map[string]any {
	t.Helper()
	r := send(t, s, "/api/"+method, token, body)
	var out map[string]any
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusOK && out["error"] != "ratelimited" {
		t.Errorf("%s: status %d", method, r.StatusCode)
	}
	return out
}

func TestWhoMayPostWhere(t *testing.T) {
	s := workspace(Options{NoRateLimit: true})
	for _, c := range []struct{ token, channel, want string }{
		{"xoxb-app", "C0GENERAL", ""}, {"xoxb-app", "general", ""}, {"xoxb-app", "#general", ""},
		{"xoxb-app", "C0NOWHERE", "channel_not_found"}, {"xoxb-app", "", "channel_not_found"}, {"xoxb-app", "C0PRIVATE", "channel_not_found"},
		{"xoxb-app", "C0ABSENT", "not_in_channel"}, {"xoxb-public", "C0ABSENT", ""},
		{"xoxb-app", "C0OLD", "is_archived"}, {"xoxb-app", "C0NEWS", "restricted_action_read_only_channel"},
		{"xoxb-none", "C0GENERAL", "missing_scope"}, {"xoxb-old", "C0GENERAL", "token_revoked"},
		{"xoxb-unknown", "C0GENERAL", "invalid_auth"}, {"", "C0GENERAL", "not_authed"},
	} {
		got := call(t, s, "chat.postMessage", c.token, fmt.Sprintf(`{"channel":%q,"text":"hello"}`, c.channel))
		if err, _ := got["error"].(string); err != c.want || got["ok"] != (c.want == "") {
			t.Errorf("%s in %q: %v", c.token, c.channel, got)
		}
	}
	if got := call(t, s, "auth.test", "xoxb-app", "{}"); got["url"] != "https://acme.slack.com/" {
		t.Errorf("%v", got)
	}
	if got := call(t, s, "chat.sing", "xoxb-app", "{}"); got["error"] != "unknown_method" {
		t.Errorf("%v", got)
	}
	if got := send(t, s, "/api/auth.test", "xoxb-app", "{}").Header.Get("X-Oauth-Scopes"); got != "chat:write" {
		t.Errorf("scopes %q", got)
	}
}

func TestAMessageIsPostedEditedAndRemovedByItsAuthorOnly(t *testing.T) {
	s := workspace(Options{NoRateLimit: true})
	posted := call(t, s, "chat.postMessage", "xoxb-app", `{"channel":"#general","text":"one","unfurl_links":false}`)
	ts, _ := posted["ts"].(string)
	if posted["channel"] != "C0GENERAL" || ts == "" {
		t.Fatalf("%v", posted)
	}
	args := fmt.Sprintf(`{"channel":"C0GENERAL","ts":%q,"text":"two"}`, ts)
	for _, c := range []struct{ method, token, args, want string }{
		{"chat.update", "xoxb-public", args, "cant_update_message"},
		{"chat.delete", "xoxb-public", args, "cant_delete_message"},
		{"chat.update", "xoxb-app", `{"channel":"#general","ts":"` + ts + `","text":"two"}`, "channel_not_found"}, // names are for posting only
		{"chat.update", "xoxb-app", `{"channel":"C0GENERAL","ts":"1.2","text":"two"}`, "message_not_found"},
		{"chat.update", "xoxb-app", `{"channel":"C0GENERAL","ts":"` + ts + `"}`, "no_text"},
		{"chat.update", "xoxb-app", args, ""},
	} {
		got := call(t, s, c.method, c.token, c.args)
		if err, _ := got["error"].(string); err != c.want {
			t.Errorf("%s %s %s: %v", c.method, c.token, c.args, got)
		}
	}
	if m := s.Messages("C0GENERAL"); len(m) != 1 || m[0].Text != "two" || m[0].Edits != 1 || m[0].Unfurl {
		t.Errorf("%+v", m)
	}
	if got := call(t, s, "chat.delete", "xoxb-app", args); got["ok"] != true || len(s.Messages("C0GENERAL")) != 0 {
		t.Errorf("%v", got)
	}
	for _, method := range []string{"chat.delete", "chat.update"} {
		if got := call(t, s, method, "xoxb-app", args); got["error"] != "message_not_found" {
			t.Errorf("%s: %v", method, got)
		}
	}
}

func TestPreferencesOfTheWorkspace(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := workspace(Options{NoRateLimit: true, KeepAll: true, EditWindow: time.Minute, Now: func() time.Time { return now }})
	ts := call(t, s, "chat.postMessage", "xoxb-app", `{"channel":"C0GENERAL","text":"one"}`)["ts"]
	args := fmt.Sprintf(`{"channel":"C0GENERAL","ts":%q,"text":"two"}`, ts)
	if got := call(t, s, "chat.delete", "xoxb-app", args); got["error"] != "compliance_exports_prevent_deletion" {
		t.Errorf("%v", got)
	}
	if got := call(t, s, "chat.update", "xoxb-app", args); got["ok"] != true {
		t.Errorf("%v", got)
	}
	now = now.Add(time.Hour)
	if got := call(t, s, "chat.update", "xoxb-app", args); got["error"] != "edit_window_closed" {
		t.Errorf("%v", got)
	}
	s.SetChannel(Channel{ID: "C0GENERAL", Name: "general", Archived: true})
	if got := call(t, s, "chat.update", "xoxb-app", args); got["error"] != "is_inactive" {
		t.Errorf("%v", got)
	}
}

func TestIncomingWebhooksAnswerWithAWord(t *testing.T) {
	s := workspace(Options{NoRateLimit: true})
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/services/T0/B0/general", `{"text":"hello"}`, 200, "ok"},
		{"/services/T0/B0/general", `{"text":`, 400, "invalid_payload"},
		{"/services/T0/B0/general", `{}`, 400, "no_text"},
		{"/services/T0/B0/general", `{"text":"a","blocks":[{"type":"sing"}]}`, 400, "invalid_blocks"},
		{"/services/T0/B0/news", `{"text":"hello"}`, 403, "action_prohibited"},
		{"/services/T0/B0/unknown", `{"text":"hello"}`, 404, "no_service"},
		{"/services/T0/B0/nowhere", `{"text":"hello"}`, 404, "channel_not_found"},
		{"/services/T0/B0/old", `{"text":"hello"}`, 410, "channel_is_archived"},
	} {
		r := send(t, s, c.path, "", c.body)
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != c.status || string(b) != c.want {
			t.Errorf("%s %s: %d %s %v", c.path, c.body, r.StatusCode, b, err)
		}
	}
}

func TestOneMessageASecondAndChannel(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, burst := range []int{1, 3} {
		s := workspace(Options{Burst: burst, Now: func() time.Time { return now }})
		s.SetChannel(Channel{ID: "C0OTHER", Name: "other"})
		post := func(channel string) *http.Response {
			return send(t, s, "/api/chat.postMessage", "xoxb-app", `{"channel":"`+channel+`","text":"a"}`)
		}
		for i := range burst {
			if r := post("C0GENERAL"); r.StatusCode != 200 {
				t.Errorf("burst of %d, message %d: %d", burst, i, r.StatusCode)
			}
		}
		if r := post("C0GENERAL"); r.StatusCode != 429 || r.Header.Get("Retry-After") != "1" {
			t.Errorf("burst of %d: %d %q", burst, r.StatusCode, r.Header.Get("Retry-After"))
		}
		if r := post("C0OTHER"); r.StatusCode != 200 {
			t.Errorf("another channel: %d", r.StatusCode)
		}
		if r := send(t, s, "/services/T0/B0/general", "", `{"text":"a"}`); r.StatusCode != 200 {
			t.Errorf("a webhook: %d", r.StatusCode)
		}
		now = now.Add(time.Second)
		if r := post("C0GENERAL"); r.StatusCode != 200 {
			t.Errorf("a second later: %d", r.StatusCode)
		}
	}
}

func TestFiftyEditsAMinute(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := workspace(Options{Now: func() time.Time { return now }})
	ts := call(t, s, "chat.postMessage", "xoxb-app", `{"channel":"C0GENERAL","text":"one"}`)["ts"]
	args := fmt.Sprintf(`{"channel":"C0GENERAL","ts":%q,"text":"two"}`, ts)
	for range 50 {
		if got := call(t, s, "chat.update", "xoxb-app", args); got["ok"] != true {
			t.Fatalf("%v", got)
		}
	}
	if r := send(t, s, "/api/chat.update", "xoxb-app", args); r.StatusCode != 429 || r.Header.Get("Retry-After") != "60" {
		t.Errorf("%d %q", r.StatusCode, r.Header.Get("Retry-After"))
	}
	now = now.Add(time.Minute)
	if got := call(t, s, "chat.update", "xoxb-app", args); got["ok"] != true {
		t.Errorf("%v", got)
	}
}

// TestWhatIsTooLongIsRefused holds the checks of blocks to both sides of each limit.
func TestWhatIsTooLongIsRefused(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	repeat := func(n int, item string) string { return strings.TrimSuffix(strings.Repeat(item+",", n), ",") }
	mrkdwn := func(s string) string { return `{"type":"mrkdwn","text":"` + s + `"}` }
	section := func(s string) string { return `{"type":"section","text":` + mrkdwn(s) + `}` }
	for _, c := range []struct {
		name, text, blocks string
		want, problem      string
	}{
		{"text", long(40_000), "", "", ""},
		{"text", long(40_001), "", "msg_too_long", ""},
		{"nothing", "", "[]", "no_text", ""},
		{"not blocks", "a", `{"type":"section"}`, "invalid_blocks_format", ""},
		{"blocks", "a", `[` + repeat(50, `{"type":"divider"}`) + `]`, "", ""},
		{"blocks", "a", `[` + repeat(51, `{"type":"divider"}`) + `]`, "invalid_blocks", "no more than 50 items allowed [json-pointer:/blocks]"},
		{"header", "a", `[{"type":"header","text":{"type":"plain_text","text":"` + long(150) + `"}}]`, "", ""},
		{"header", "a", `[{"type":"header","text":{"type":"plain_text","text":"` + long(151) + `"}}]`, "invalid_blocks", "must be less than 151 characters [json-pointer:/blocks/0/text/text]"},
		{"header", "a", `[{"type":"header","text":` + mrkdwn("a") + `}]`, "invalid_blocks", "plain_text"},
		{"section", "a", `[` + section(long(3000)) + `]`, "", ""},
		{"section", "a", `[` + section(long(3001)) + `]`, "invalid_blocks", "must be less than 3001 characters"},
		{"section of emoji", "a", `[` + section(strings.Repeat("\U0001f95c", 1501)) + `]`, "invalid_blocks", "must be less than 3001 characters"},
		{"section", "a", `[{"type":"section"}]`, "invalid_blocks", "missing required field"},
		{"section", "a", `[` + section("") + `]`, "invalid_blocks", "must be more than 0 characters"},
		{"fields", "a", `[{"type":"section","fields":[` + repeat(10, mrkdwn("a")) + `]}]`, "", ""},
		{"fields", "a", `[{"type":"section","fields":[` + repeat(11, mrkdwn("a")) + `]}]`, "invalid_blocks", "no more than 10 items"},
		{"field", "a", `[{"type":"section","fields":[` + mrkdwn(long(2000)) + `]}]`, "", ""},
		{"field", "a", `[{"type":"section","fields":[` + mrkdwn(long(2001)) + `]}]`, "invalid_blocks", "/blocks/0/fields/0/text"},
		{"context", "a", `[{"type":"context","elements":[` + repeat(11, mrkdwn("a")) + `]}]`, "invalid_blocks", "no more than 10 items"},
		{"context", "a", `[{"type":"context"}]`, "invalid_blocks", "missing required field"},
		{"block_id", "a", `[{"type":"divider","block_id":"` + long(256) + `"}]`, "invalid_blocks", "must be less than 256"},
		{"block_id", "a", `[` + repeat(2, `{"type":"divider","block_id":"x"}`) + `]`, "invalid_blocks", "already exists"},
		{"type", "a", `[{"type":"section","text":{"type":"html","text":"a"}}]`, "invalid_blocks", "unsupported type: html"},
		{"verbatim", "a", `[{"type":"header","text":{"type":"plain_text","text":"a","verbatim":true}}]`, "invalid_blocks", "not allowed"},
		{"emoji", "a", `[{"type":"section","text":{"type":"mrkdwn","text":"a","emoji":true}}]`, "invalid_blocks", "not allowed"},
		{"all", "a", `[` + repeat(4, section(long(3000))) + `]`, "", ""},
		{"all", "a", `[` + repeat(5, section(long(3000))) + `]`, "msg_blocks_too_long", ""},
	} {
		code, problems := check(c.text, json.RawMessage(c.blocks), maxPostText)
		if code != c.want || !strings.Contains(strings.Join(problems, "\n"), c.problem) {
			t.Errorf("%s, %.60s: %q %q", c.name, c.blocks, code, problems)
		}
	}
	if code, _ := check(long(4001), nil, maxUpdateText); code != "msg_too_long" {
		t.Errorf("an edit: %q", code)
	}
}

func TestFaultsAreUsedUpInOrder(t *testing.T) {
	s := workspace(Options{NoRateLimit: true})
	s.Break(Fault{Method: "chat.update", Error: "update_failed"}, Fault{Error: "internal_error", Times: 2}, Fault{Error: "fatal_error", AfterEffect: true})
	for i, want := range []struct {
		err   any
		shown int
	}{{"internal_error", 0}, {"internal_error", 0}, {"fatal_error", 1}, {nil, 2}} {
		got := call(t, s, "chat.postMessage", "xoxb-app", `{"channel":"C0GENERAL","text":"a"}`)
		if got["error"] != want.err || len(s.Messages("C0GENERAL")) != want.shown {
			t.Errorf("call %d: %v", i, got)
		}
	}
	if got := call(t, s, "chat.update", "xoxb-app", `{"channel":"C0GENERAL","ts":"1"}`); got["error"] != "update_failed" {
		t.Errorf("%v", got)
	}
	s.Remove("C0GENERAL", "")
	if n := len(s.Messages("C0GENERAL")); n != 0 {
		t.Errorf("%d messages", n)
	}
	if n := len(s.Calls()); n != 5 {
		t.Errorf("%d calls", n)
	}
}

func TestAnswersAreAsSlackWritesThem(t *testing.T) {
	s := workspace(Options{NoRateLimit: true})
	r := send(t, s, "/api/chat.postMessage", "xoxb-app", `{"channel":"#general","text":"à/🥜"}`)
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b); !strings.HasPrefix(got, `{"ok":true,"channel":"C0GENERAL","ts":"`) || !strings.Contains(got, `"text":"\u00e0\/\ud83e\udd5c"`) {
		t.Errorf("%s", got)
	}
	if got := call(t, s, "chat.postMessage", "xoxb-app", `{"channel":"#nowhere","text":"a"}`); got["ok"] != false || got["error"] != "channel_not_found" {
		t.Errorf("%v", got)
	}
}
