package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func unmarshal(t *testing.T, body []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(body, v); err != nil {
		t.Fatalf("answer %q: %v", body, err)
	}
}

// waitFor waits for a condition that another goroutine makes true.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatal("the condition did not become true")
		case <-tick.C:
		}
	}
}

// Longer than sixty lines because it is one table.
func TestBadRequestsNameWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	done := w.store.add(backend, 1, delivery.Failed, nil)
	const replay = "/v1/webhooks/expenses.backend/replay"
	for _, row := range []struct {
		method, target, body string
		status               int
		code, field, says    string
	}{
		{"GET", "/v1/deliveries?stauts=failed", "", 400, rest.CodeBadRequest, "stauts", `did you mean "status"?`},
		{"GET", "/v1/deliveries?zzzzzzz=1", "", 400, rest.CodeBadRequest, "zzzzzzz", "there are: status, since"},
		{"GET", "/v1/status?verbose=1", "", 400, rest.CodeBadRequest, "verbose", "there are none"},
		{"GET", "/v1/deliveries?status=faild", "", 400, rest.CodeBadRequest, "status", `did you mean "failed"?`},
		{"GET", "/v1/deliveries?status=failed,", "", 400, rest.CodeBadRequest, "status", `unknown status ""`},
		{"GET", "/v1/deliveries?status=failed&status=success", "", 400, rest.CodeBadRequest, "status", "2 times"},
		{"GET", "/v1/deliveries?limit=0", "", 400, rest.CodeBadRequest, "limit", "1 to 1000"},
		{"GET", "/v1/deliveries?limit=1001", "", 400, rest.CodeBadRequest, "limit", "1 to 1000"},
		{"GET", "/v1/deliveries?limit=-1", "", 400, rest.CodeBadRequest, "limit", "1 to 1000"},
		{"GET", "/v1/deliveries?limit=ten", "", 400, rest.CodeBadRequest, "limit", "1 to 1000"},
		{"GET", "/v1/deliveries?since=yesterday", "", 400, rest.CodeBadRequest, "since", "2025-01-15T14:32:00Z"},
		{"GET", "/v1/deliveries?since=-2h", "", 400, rest.CodeBadRequest, "since", "neither"},
		{"GET", "/v1/deliveries?since=99999999d", "", 400, rest.CodeBadRequest, "since", "neither"},
		{"GET", "/v1/deliveries?until=2025-13-01T00:00:00Z", "", 400, rest.CodeBadRequest, "until", "neither"},
		{"GET", "/v1/deliveries?since=1h&until=2h", "", 400, rest.CodeBadRequest, "until", "not after since"},
		{"GET", "/v1/deliveries?event=entry", "", 400, rest.CodeBadRequest, "event", "unknown event"},
		{"GET", "/v1/deliveries?event=creatd", "", 400, rest.CodeBadRequest, "event", `did you mean "entry.created"?`},
		{"GET", "/v1/deliveries?cursor=nonsense", "", 400, rest.CodeBadRequest, "cursor", "nonsense"},
		{"GET", "/v1/deliveries?cursor=" + strings.Repeat("x", maxCursor+1), "", 400, rest.CodeBadRequest, "cursor", "next_cursor"},
		{"GET", "/v1/deliveries?a;b", "", 400, rest.CodeBadRequest, "", "query"},
		{"GET", "/v1/deliveries/stream?webhook=no.such", "", 404, rest.CodeNotFound, "id", "no.such"},
		{"GET", "/v1/deliveries/stream?status=nope", "", 400, rest.CodeBadRequest, "status", "nope"},
		{"GET", "/v1/deliveries/stream?since=1h", "", 400, rest.CodeBadRequest, "since", "webhook, status"},
		{"GET", "/v1/webhooks/no.such/deliveries", "", 404, rest.CodeNotFound, "id", "no.such"},
		{"GET", "/v1/events/evt_unknown", "", 404, rest.CodeNotFound, "id", "history.payloads"},
		{"GET", "/v1/deliveries/del_x", "", 404, rest.CodeNotFound, "id", "begin with del_"},
		{"POST", replay, `{"rates":1}`, 400, rest.CodeBadRequest, "rates", `did you mean "rate"?`},
		{"POST", replay, `{"Rate":1}`, 400, rest.CodeBadRequest, "Rate", `did you mean "rate"?`},
		{"POST", replay, `{"rate":-1}`, 400, rest.CodeBadRequest, "rate", "from 0"},
		{"POST", replay, `{"rate":1e300}`, 400, rest.CodeBadRequest, "rate", "from 0"},
		{"POST", replay, `{"rate":"fast"}`, 400, rest.CodeBadRequest, "rate", "must be a number, not a string"},
		{"POST", replay, `{"where":".a >> 1"}`, 400, rest.CodeBadRequest, "where", `at offset 4: unexpected ">"`},
		{"POST", replay, `{"where":"[range(9)]"}`, 400, rest.CodeBadRequest, "where", "no function range"},
		{"POST", replay, `{"event_id":"evt_none"}`, 404, rest.CodeNotFound, "event_id", "evt_none"},
		{"POST", replay, `{"dry_run":1}`, 400, rest.CodeBadRequest, "dry_run", "must be a boolean"},
		{"POST", replay, `{"status":"pending"}`, 400, rest.CodeBadRequest, "status", "failed, success"},
		{"POST", replay, `{"since":"soon"}`, 400, rest.CodeBadRequest, "since", "neither"},
		{"POST", replay, `[]`, 400, rest.CodeBadRequest, "", "not a JSON object"},
		{"POST", replay, `{} {}`, 400, rest.CodeBadRequest, "", "not a JSON object"},
		{"POST", replay, `{`, 400, rest.CodeBadRequest, "", "not a JSON object"},
		{"POST", replay + "?dry_run=true", "", 400, rest.CodeBadRequest, "dry_run", "there are none"},
		{"POST", replay, `{"since":"` + strings.Repeat("x", maxBody) + `"}`, 413, rest.CodeTooLarge, "", "1048576"},
		{"POST", "/v1/deliveries/" + done + "/retry", `{"force":true}`, 400, rest.CodeBadRequest, "force", "there are none"},
		{"DELETE", "/v1/deliveries/" + done + "?force=1", "", 400, rest.CodeBadRequest, "force", "there are none"},
		{"DELETE", "/v1/replays/rep_9", "", 404, rest.CodeNotFound, "id", "GET /v1/replays"},
		{"POST", "/v1/webhooks/no.such/test", "", 404, rest.CodeNotFound, "id", "no.such"},
		{"POST", "/v1/webhooks/no.such/replay", "", 404, rest.CodeNotFound, "id", "no.such"},
		{"POST", replay, `{"rate":1,"rate":2}`, 400, rest.CodeBadRequest, "rate", "given twice"},
		{"PUT", "/v1/webhooks", `{}`, 405, rest.CodeMethodNotAllowed, "", "only GET and POST"},
		{"PUT", "/v1/webhooks/expenses.backend", `{}`, 405, rest.CodeMethodNotAllowed, "", "only GET and PATCH and DELETE"},
		{"POST", "/v1/webhooks", `{"ulr":"https://x"}`, 400, rest.CodeBadRequest, "ulr", `did you mean "url"?`},
		{"POST", "/v1/webhooks", `{"url":"a","url":"b"}`, 400, rest.CodeBadRequest, "url", "given twice"},
		{"POST", "/v1/webhooks", `{"secret":null}`, 400, rest.CodeBadRequest, "secret", "must not be null"},
		{"POST", "/v1/webhooks", `{"headers":{"X-Env":null}}`, 400, rest.CodeBadRequest, "headers.X-Env", "to remove"},
		{"POST", "/v1/webhooks", `{"headers":["X-Env"]}`, 400, rest.CodeBadRequest, "headers", "must be a JSON object, not a array"},
		{"POST", "/v1/webhooks", `{"concurrency":1.5}`, 400, rest.CodeBadRequest, "concurrency", "must be a whole number"},
		{"POST", "/v1/webhooks", `{"events":7}`, 400, rest.CodeBadRequest, "events", "must be a list"},
		{"PATCH", "/v1/webhooks/expenses.backend", `{}`, 400, rest.CodeBadRequest, "", "nothing to change"},
		{"PATCH", "/v1/webhooks/expenses.backend", ``, 400, rest.CodeBadRequest, "", "nothing to change"},
		{"PATCH", "/v1/webhooks/expenses.backend", `{"id":"other"}`, 400, rest.CodeBadRequest, "id", "cannot be changed"},
		{"PATCH", "/v1/webhooks/expenses.backend", `{"helper":"crm"}`, 400, rest.CodeBadRequest, "helper", "cannot be changed"},
		{"PATCH", "/v1/webhooks/expenses.bakend", `{"active":true}`, 404, rest.CodeNotFound, "id", `did you mean "expenses.backend"?`},
		{"DELETE", "/v1/webhooks/expenses.none", "", 404, rest.CodeNotFound, "id", "expenses.none"},
		{"DELETE", "/v1/webhooks/expenses.none/deliveries", "", 404, rest.CodeNotFound, "id", "expenses.none"},
		{"DELETE", "/v1/webhooks/expenses.backend/deliveries?force=1", "", 400, rest.CodeBadRequest, "force", "there are none"},
		{"POST", "/v1/reload", `{"force":true}`, 400, rest.CodeBadRequest, "force", "there are none"},
		{"GET", "/v1/reload", "", 405, rest.CodeMethodNotAllowed, "", "only POST"},
		{"POST", "/v1/plan", `{"file":[]}`, 400, rest.CodeBadRequest, "file", `did you mean "files"?`},
		{"POST", "/v1/plan", `{"files":["main"]}`, 400, rest.CodeBadRequest, "files[0]", "not a JSON object"},
		{"POST", "/v1/plan", `{"files":[{"role":"main","text":""}]}`, 400, rest.CodeBadRequest, "files[0].text", "unknown key"},
		{"POST", "/v1/plan", `{"files":[{"role":"main","content":7}]}`, 400, rest.CodeBadRequest, "content", "must be a string"},
		{"POST", "/v1/plan", `{"files":[{"role":""}]}`, 400, rest.CodeBadRequest, "files[0].role", "neither"},
		{"POST", "/v1/plan", `{"files":[{"role":"../x.yaml"}]}`, 400, rest.CodeBadRequest, "files[0].role", "neither"},
		{"POST", "/v1/plan", `{"files":[{"role":".x.yaml"}]}`, 400, rest.CodeBadRequest, "files[0].role", "neither"},
		{"POST", "/v1/plan", `{"files":[{"role":"#x.yaml"}]}`, 400, rest.CodeBadRequest, "files[0].role", "neither"},
		{"POST", "/v1/plan", `{"files":[{"role":"main"},{"role":"main"}]}`, 400, rest.CodeBadRequest, "files[1].role", "two files"},
		{"POST", "/v1/plan", `{"replace":true,"files":[{"role":"a.yaml"}]}`, 400, rest.CodeBadRequest, "files", `the role "main"`},
		{"POST", "/v1/plan", `{"replace":true}`, 400, rest.CodeBadRequest, "files", `the role "main"`},
		{"GET", "/v1/config/history/0", "", 400, rest.CodeBadRequest, "generation", "GET /v1/config/history"},
		{"GET", "/v1/config/history/-1", "", 400, rest.CodeBadRequest, "generation", "not the number"},
		{"GET", "/v1/config/history/99999999999999999999", "", 400, rest.CodeBadRequest, "generation", "not the number"},
		{"GET", "/v1/config/history/9", "", 404, rest.CodeNotFound, "generation", "it has 3 and 4"},
		{"GET", "/v1/config?raw=1", "", 400, rest.CodeBadRequest, "raw", "there are none"},
		{"PUT", "/v1/deliveries/" + done, "", 405, rest.CodeMethodNotAllowed, "", "only GET and DELETE"},
		{"POST", "/v1/deliveries/stream", "", 405, rest.CodeMethodNotAllowed, "", "only GET and DELETE"},
		{"GET", "/v1/deliveries/" + done + "/retry", "", 405, rest.CodeMethodNotAllowed, "", "only POST"},
		{"GET", "/", "", 404, rest.CodeNotFound, "", "/v1/helpers"},
		{"GET", "/v1/webhooks/", "", 404, rest.CodeNotFound, "", "/v1/webhooks"},
	} {
		t.Run(row.method+" "+cut(row.target)+" "+cut(row.body), func(t *testing.T) {
			rec := w.request(row.method, row.target, row.body)
			var got rest.Error
			unmarshal(t, rec.Body.Bytes(), &got)
			e := got.Error
			if rec.Code != row.status || e.Code != row.code || e.Field != row.field || !strings.Contains(e.Message, row.says) {
				t.Errorf("got %d %+v, want %d %s field %q saying %q", rec.Code, e, row.status, row.code, row.field, row.says)
			}
			if kind := rec.Header().Get("Content-Type"); kind != "application/json" {
				t.Errorf("Content-Type is %q", kind)
			}
			if allow := rec.Header().Get("Allow"); (allow != "") != (row.status == http.StatusMethodNotAllowed) {
				t.Errorf("Allow is %q", allow)
			}
		})
	}
}

func cut(s string) string { return s[:min(len(s), 60)] }

func TestABodyOfAnotherTypeIsRefused(t *testing.T) {
	w := newWorld(t)
	r := httptest.NewRequest("POST", "/v1/webhooks/expenses.backend/replay", strings.NewReader("dry_run=1"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	if rec.Code != http.StatusUnsupportedMediaType {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}

func TestEventNamesAreWhatTheFileTakes(t *testing.T) {
	w := newWorld(t)
	for text, want := range map[string]string{"": "", "all": "", "create": "entry.created", "created": "entry.created", "entry.created": "entry.created",
		"update": "entry.updated", "updated": "entry.updated", "delete": "entry.deleted", "deleted": "entry.deleted", "user.created": "user.created",
		"left.the.file": "left.the.file"} {
		if got, err := w.eventType(text); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestMoments(t *testing.T) {
	for text, want := range map[string]time.Time{
		"":                          {},
		"2h":                        epoch.Add(-2 * time.Hour),
		"7d":                        epoch.AddDate(0, 0, -7),
		"1d12h":                     epoch.Add(-36 * time.Hour),
		"90m":                       epoch.Add(-90 * time.Minute),
		"0s":                        epoch,
		"2025-01-15T14:32:00Z":      epoch,
		"2025-01-15T15:32:00+01:00": epoch,
		"2025-01-15T14:32:00.5Z":    epoch.Add(500 * time.Millisecond),
	} {
		if got, err := moment("since", text, epoch); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
}

func FuzzMoment(f *testing.F) {
	for _, text := range []string{"", "2h", "7d", "1d12h", "106752d", "9223372036854775807ns", "36500d1ns", "-1d", "d", "2025-01-15T14:32:00Z", "1e9h"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := moment("since", text, epoch)
		if err != nil {
			return
		}
		// Whatever is accepted is a time that can be written and does not lie
		// ahead unless it was spelled out.
		if _, rfc := time.Parse(time.RFC3339, text); rfc != nil && got.After(epoch) {
			t.Errorf("%q is %s, after now", text, got)
		}
		if _, err := json.Marshal(rest.At(got)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// Whatever a client sends, the answer is a document.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/v1/deliveries", "status=failed&limit=3", "")
	f.Add("GET", "/v1/deliveries", "since=7d&event=created&cursor=1-1", "")
	f.Add("POST", "/v1/webhooks/expenses.backend/replay", "", `{"since":"2h","rate":1.5,"dry_run":true}`)
	f.Add("POST", "/v1/webhooks/expenses.backend/replay", "", `{"since":null,"rate":1e400}`)
	f.Add("DELETE", "/v1/deliveries/del_00000000", "", "")
	f.Add("POST", "/v1/plan", "", `{"replace":true,"files":[{"role":"main","name":"x","content":"\ud800"}]}`)
	f.Add("PATCH", "/v1/webhooks/expenses.backend", "", `{"settings":{"n":1e999,"m":[1,{}]},"headers":{"a":null}}`)
	f.Add("GET", "/v1/config/history/18446744073709551615", "", "")
	f.Add("GET", "/v1/events/%2e%2e", "", "")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		r, err := http.NewRequest(method, "http://relay/", strings.NewReader(body))
		if err != nil || strings.Contains(path, "stream") || strings.HasPrefix(path, "/metrics") {
			t.Skip()
		}
		r.URL.Path, r.URL.RawQuery = path, query
		w := newWorld(t)
		w.store.add(backend, 1, delivery.Failed, nil)
		w.addEvent(1, nil)
		w.dispatcher.test = nil
		if strings.HasSuffix(path, "/test") {
			t.Skip()
		}
		rec := httptest.NewRecorder()
		w.Handler().ServeHTTP(rec, r)
		switch {
		case rec.Code == http.StatusInternalServerError:
			t.Errorf("internal error: %s", rec.Body)
		case rec.Code >= 300 && rec.Code < 400: // ServeMux cleans the path
		case !json.Valid(rec.Body.Bytes()):
			t.Errorf("%d with %q", rec.Code, fmt.Sprint(rec.Body))
		}
	})
}
