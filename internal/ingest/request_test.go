package ingest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

func TestAcceptedEventIsAnsweredExactly(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.UTC)
	s := serve(t, Options{Now: func() time.Time { return now }})
	const deliveries = `{"id":"del_` + `0j6hb7h6` + `0000001` + `0000000000001","webhook":"expenses.backend"}`
	resp, body := s.raw(t, post(created("e1")))
	want := `{"id":"evt_0j6hb7h60000000000001","deliveries":[` + deliveries +
		`,{"id":"del_0j6hb7h600000020000000000001","webhook":"expenses.audit"}],"skipped":[{"webhook":"expenses.alerts","reason":"disabled"}]}` + "\n"
	if storeID := id40(fakeStoreID); storeID != "0j6hb7h6" {
		want = strings.ReplaceAll(want, "0j6hb7h6", storeID)
	}
	if resp.StatusCode != 202 || body != want || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %s %s\nwant %s", resp.StatusCode, resp.Header.Get("Content-Type"), body, want)
	}
	evs := s.store.all()
	if len(evs) != 1 {
		t.Fatal(len(evs))
	}
	const stamp = "2026-11-21T10:00:00.123Z"
	if got, want := string(evs[0].Payloads[0]), `{"event":"entry.created","timestamp":"`+stamp+`","helper":{"id":"expenses","name":"Daily Expenses","command":"/expenses"},"entry":{"id":"e1","data":{"amount":42.5},"created_at":"`+stamp+`"}}`; got != want {
		t.Errorf("payload %s\nwant    %s", got, want)
	}
	if got, want := string(evs[0].Payloads[1]), `{"id":"`+evs[0].ID+`","type":"entry.created","created_at":"`+stamp+`","data":{"id":"e1","amount":42.5}}`; got != want {
		t.Errorf("payload %s\nwant    %s", got, want)
	}
	if m := s.Metrics(); m.Accepted != 1 || m.Requests != 1 || m.Bytes != int64(len(created("e1"))) {
		t.Errorf("counters %+v", m)
	}
}

func id40(n uint64) string {
	const digits = "0123456789abcdefghjkmnpqrstvwxyz"
	out := make([]byte, 8)
	for i := range out {
		out[7-i] = digits[n>>(5*i)&31]
	}
	return string(out)
}

func TestWebhooksAreSelected(t *testing.T) {
	s := serve(t, Options{})
	rows := []struct{ typ, helper, deliveries, skipped string }{
		{"entry.created", "expenses", "expenses.backend expenses.audit", "expenses.alerts=disabled"},
		{"entry.updated", "expenses", "expenses.backend", "expenses.audit=event_not_selected expenses.alerts=disabled"},
		{"payment.failed", "expenses", "expenses.backend", "expenses.audit=event_not_selected expenses.alerts=disabled"},
		{"entry.created", "silent", "", ""},
	}
	for _, r := range rows {
		resp, body := s.raw(t, post(fmt.Sprintf(`{"event":%q,"helper":{"id":%q},"entry":{"id":"e"}}`, r.typ, r.helper)))
		var a answer
		if err := json.Unmarshal([]byte(body), &a); err != nil || resp.StatusCode != 202 {
			t.Fatalf("%d %s: %v", resp.StatusCode, body, err)
		}
		if a.Deliveries == nil || a.Skipped == nil {
			t.Errorf("%s lacks an array", body)
		}
		if got := a.names(); got != r.deliveries+"|"+r.skipped {
			t.Errorf("%s of %s: %s, want %s|%s", r.typ, r.helper, got, r.deliveries, r.skipped)
		}
	}
}

// answer is what docs/api.md promises.
type answer struct {
	Line       int64
	Status     int
	ID         string
	Duplicate  bool
	Deliveries []struct{ ID, Webhook string }
	Skipped    []struct{ Webhook, Reason string }
	Error      *json.RawMessage
}

func (a answer) names() string {
	var d, s []string
	for _, x := range a.Deliveries {
		d = append(d, x.Webhook)
	}
	for _, x := range a.Skipped {
		s = append(s, x.Webhook+"="+x.Reason)
	}
	return strings.Join(d, " ") + "|" + strings.Join(s, " ")
}

// TestBadInput has a row for every way in which a request can be wrong, as
// bytes on the wire.
func TestBadInput(t *testing.T) {
	const max = 4096
	s := serve(t, Options{MaxEventBytes: max})
	valid := created("e")
	deep := `{"event":"entry.created","helper":"expenses","entry":{"id":"e","data":{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}}}`
	big := `{"event":"entry.created","helper":"expenses","entry":{"id":"e","data":{"a":"` + strings.Repeat("x", max) + `"}}}`
	chunked := func(body string) string {
		return "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	}
	rows := []struct {
		name, request string
		status        int
		code, field   string
		offset        int64 // -1: none, -2: some
		message       string
	}{
		{"empty", post(""), 400, "invalid_json", "", 0, ""},
		{"not JSON", post("hello"), 400, "invalid_json", "", 0, ""},
		{"cut off", post(valid[:len(valid)-1]), 400, "invalid_json", "", int64(len(valid) - 1), ""},
		{"trailing garbage", post(valid + " x"), 400, "invalid_json", "", int64(len(valid) + 1), ""},
		{"two events", post(valid + valid), 400, "invalid_json", "", int64(len(valid)), ""},
		{"duplicate key", post(`{"event":"entry.created","event":"entry.created"}`), 400, "duplicate_key", "", 25, ""},
		{"duplicate key in data", post(`{"event":"entry.created","helper":"expenses","entry":{"id":"e","data":{"a":1,"a":2}}}`), 400, "duplicate_key", "", -2, ""},
		{"invalid UTF-8", post("{\"event\":\"\xff\"}"), 400, "invalid_utf8", "", 10, ""},
		{"too deep", post(deep), 400, "too_deep", "", -2, ""},
		{"unknown field", post(`{"event":"entry.created","helper":"expenses","entry":{"id":"e"},"metadata":1}`), 400, "unknown_field", "metadata", -2, ""},
		{"unknown field, near", post(`{"evnt":"entry.created"}`), 400, "unknown_field", "evnt", 1, `did you mean "event"`},
		{"list", post(`[]`), 422, "wrong_type", "", -1, ""},
		{"unknown event", post(`{"event":"entry.create","helper":"expenses","entry":{"id":"e"}}`), 422, "unknown_event", "event", -1, `did you mean "entry.created"`},
		{"unknown helper", post(`{"event":"entry.created","helper":"expense","entry":{"id":"e"}}`), 422, "unknown_helper", "helper", -1, `did you mean "expenses"?; configured: expenses, silent`},
		{"unknown helper, far", post(`{"event":"entry.created","helper":"zzz","entry":{"id":"e"}}`), 422, "unknown_helper", "helper", -1, `helper "zzz" does not exist; configured: expenses, silent`},
		{"no event", post(`{"helper":"expenses","entry":{"id":"e"}}`), 422, "missing_field", "event", -1, ""},
		{"no helper", post(`{"event":"entry.created","entry":{"id":"e"}}`), 422, "missing_field", "helper", -1, ""},
		{"no entry", post(`{"event":"entry.created","helper":"expenses"}`), 422, "missing_field", "entry.id", -1, ""},
		{"no entry id", post(`{"event":"entry.created","helper":"expenses","entry":{}}`), 422, "missing_field", "entry.id", -1, ""},
		{"wrong type", post(`{"event":"entry.created","helper":"expenses","entry":{"id":7}}`), 422, "wrong_type", "entry.id", -1, ""},
		{"bad time", post(`{"event":"entry.created","helper":"expenses","entry":{"id":"e"},"timestamp":"yesterday"}`), 422, "bad_time", "timestamp", -1, ""},
		{"bad id", post(`{"event":"entry.created","helper":"expenses","entry":{"id":"e"},"id":"a b"}`), 422, "bad_id", "id", -1, ""},
		{"contradicts fields", post(`{"event":"entry.created","helper":"expenses","entry":{"id":"e","data":{"amount":"42"}}}`), 422, "field_type", "entry.data.amount", -1, ""},
		{"body over the limit", post(big), 413, "too_large", "", -1, "4096 bytes (listen.max_event_bytes)"},
		{"chunked body over the limit", chunked(big), 413, "too_large", "", -1, ""},
		{"announced over the limit", "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\nExpect: 100-continue\r\n\r\n", 413, "too_large", "", -1, ""},
		{"key that differs", post(`{"event":"entry.created","helper":"expenses","entry":{"id":"e"},"id":"a"}`, "Idempotency-Key: b"), 422, "idempotency_mismatch", "id", -1, ""},
		{"two keys", post(valid, "Idempotency-Key: a", "Idempotency-Key: a"), 400, "bad_idempotency_key", "Idempotency-Key", -1, "more than once"},
		{"empty key", post(valid, "Idempotency-Key: "), 400, "bad_idempotency_key", "Idempotency-Key", -1, ""},
		{"empty quoted key", post(valid, `Idempotency-Key: ""`), 400, "bad_idempotency_key", "Idempotency-Key", -1, ""},
		{"unclosed key", post(valid, `Idempotency-Key: "a`), 400, "bad_idempotency_key", "Idempotency-Key", -1, "quoted string"},
		{"key with parameters", post(valid, `Idempotency-Key: "a";b=1`), 400, "bad_idempotency_key", "Idempotency-Key", -1, ""},
		{"key with a bad escape", post(valid, `Idempotency-Key: "a\b"`), 400, "bad_idempotency_key", "Idempotency-Key", -1, ""},
		{"key with a space", post(valid, "Idempotency-Key: a b"), 400, "bad_idempotency_key", "Idempotency-Key", -1, ""},
		{"long key", post(valid, "Idempotency-Key: "+strings.Repeat("k", 256)), 400, "bad_idempotency_key", "Idempotency-Key", -1, ""},
		{"key for a stream", postAs(typeNDJSON, valid, "Idempotency-Key: a"), 400, "bad_idempotency_key", "Idempotency-Key", -1, "each event its own id"},
		{"curl's default type", postAs("application/x-www-form-urlencoded", valid), 415, "unsupported_media_type", "Content-Type", -1, "curl --unix-socket " + s.path + " -H 'Content-Type: application/json' --data-binary @event.json http://localhost/v1/events"},
		{"text", postAs("text/plain", valid), 415, "unsupported_media_type", "Content-Type", -1, ""},
		{"nonsense type", postAs(";;", valid), 415, "unsupported_media_type", "Content-Type", -1, ""},
		{"other charset", postAs("application/json; charset=latin1", valid), 415, "unsupported_media_type", "Content-Type", -1, ""},
		{"gzip", post(valid, "Content-Encoding: gzip"), 415, "unsupported_media_type", "Content-Encoding", -1, ""},
		{"GET", "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed", "", -1, "this socket takes POST /v1/events"},
		{"PUT", strings.Replace(post(valid), "POST", "PUT", 1), 405, "method_not_allowed", "", -1, ""},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found", "", -1, ""},
		{"root", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found", "", -1, "POST /v1/events"},
		{"admin route", "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found", "", -1, "admin socket"},
		{"trailing slash", strings.Replace(post(valid), "/events", "/events/", 1), 404, "not_found", "", -1, "POST /v1/events"},
		{"broken chunks", "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "incomplete_body", "", -1, ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			resp, body := s.raw(t, r.request)
			if resp.Header.Get("Content-Type") != "application/json" {
				t.Fatalf("Content-Type %q, body %q", resp.Header.Get("Content-Type"), body)
			}
			e := decodeError(t, body).Error
			if resp.StatusCode != r.status || e.Code != r.code || *e.Field != r.field || !strings.Contains(e.Message, r.message) {
				t.Errorf("got %d %s", resp.StatusCode, body)
			}
			switch {
			case r.offset == -1 && e.Offset != nil:
				t.Errorf("offset %d, want none", *e.Offset)
			case r.offset != -1 && (e.Offset == nil || r.offset >= 0 && *e.Offset != r.offset):
				t.Errorf("offset missing or wrong, want %d: %s", r.offset, body)
			}
			if r.status == 405 && resp.Header.Get("Allow") != "POST" {
				t.Errorf("Allow is %q", resp.Header.Get("Allow"))
			}
		})
	}
	if n := len(s.store.all()); n != 0 {
		t.Errorf("%d events were taken", n)
	}
	if got := s.Metrics().Rejected; got["unknown_helper"] != 2 || got["too_large"] != 3 {
		t.Errorf("counted %v", got)
	}
}

func TestGoodForms(t *testing.T) {
	s := serve(t, Options{MaxEventBytes: 200 << 10})
	long := `{"event":"entry.created","helper":"expenses","entry":{"id":"e","data":{"a":"` + strings.Repeat("x", 150<<10) + `"}}}`
	rows := []struct{ name, request string }{
		{"with charset", postAs("application/json; charset=utf-8", created("e"))},
		{"CHARSET in capitals", postAs(`Application/JSON;Charset="UTF-8"`, created("e"))},
		{"without type", postAs("", created("e"))},
		{"identity", post(created("e"), "Content-Encoding: identity")},
		{"white space around", post("\r\n\t " + created("e") + "\n")},
		{"query", strings.Replace(post(created("e")), "/events", "/events?x=1", 1)},
		{"HTTP/1.0", strings.Replace(post(created("e")), "HTTP/1.1", "HTTP/1.0", 1)},
		{"large", post(long)},
		{"chunked", "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + created("e")[:5] + "\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(created("e"))-5, created("e")[5:])},
		{"large and chunked", "POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(long), long)},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if resp, body := s.raw(t, r.request); resp.StatusCode != 202 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	s := serve(t, Options{})
	c := s.dial(t)
	body := created("e")
	fmt.Fprintf(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body))
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	r.ReadString('\n')
	io.WriteString(c, body)
	if resp, b := readResponse(t, r); resp.StatusCode != 202 {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}

func TestKeepAliveAndPipelining(t *testing.T) {
	s := serve(t, Options{})
	c := s.dial(t)
	r := bufio.NewReader(c)
	io.WriteString(c, post(created("a"))+post("nonsense")+post(created("b")))
	for _, want := range []int{202, 400, 202} {
		if resp, b := readResponse(t, r); resp.StatusCode != want || resp.Close {
			t.Fatalf("%d %v %s", resp.StatusCode, resp.Close, b)
		}
	}
}

// A client that reads only when it has sent everything still sees why its huge
// body was refused.
func TestHugeBodyIsRefusedBeforeItIsReadAndTheClientSeesIt(t *testing.T) {
	s := serve(t, Options{})
	for _, head := range []string{"Content-Length: %d", "X-Nothing: %d\r\nTransfer-Encoding: chunked"} {
		c := s.dial(t)
		const size = 8 << 20
		fmt.Fprintf(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\n"+head+"\r\n\r\n", size)
		if strings.Contains(head, "chunked") {
			fmt.Fprintf(c, "%x\r\n", size)
		}
		block := []byte(strings.Repeat(" ", 64<<10))
		for sent := 0; sent < size; sent += len(block) {
			if _, err := c.Write(block); err != nil {
				t.Fatalf("after %d bytes: %v", sent, err)
			}
		}
		resp, body := readResponse(t, bufio.NewReader(c))
		if resp.StatusCode != 413 || !resp.Close {
			t.Errorf("%d close %v %s", resp.StatusCode, resp.Close, body)
		}
	}
}

func TestIdempotency(t *testing.T) {
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := serve(t, Options{Now: func() time.Time { clock = clock.Add(time.Second); return clock }})
	withID := `{"event":"entry.created","helper":"expenses","entry":{"id":"e","data":{"amount":42.5,"b":"x"}},"id":"my-1"}`
	resp, first := s.raw(t, post(withID))
	if resp.StatusCode != 202 || !strings.HasPrefix(first, `{"id":"my-1","deliveries":[{"id":"del_`) {
		t.Fatal(resp.StatusCode, first)
	}
	wantDup := strings.Replace(first, `{"id":"my-1",`, `{"id":"my-1","duplicate":true,`, 1)
	repeats := []string{
		post(withID), // a second later, timestamp left out both times
		post(withID, "Idempotency-Key: my-1"),
		post(withID, `Idempotency-Key: "my-1"`),
		post("\n{ \"id\":\"my-1\", \"helper\" : {\"id\":\"expenses\",\"name\":\"other\"}, \"entry\":{\"data\":{\"amount\":4.250e1,\"b\":\"\\u0078\"},\"id\":\"e\"}, \"event\":\"entry.created\"}"),
		post(strings.Replace(withID, `,"id":"my-1"`, "", 1), `Idempotency-Key: my-1`),
	}
	for i, r := range repeats {
		if resp, body := s.raw(t, r); resp.StatusCode != 200 || body != wantDup {
			t.Errorf("repeat %d: %d %s\nwant %s", i, resp.StatusCode, body, wantDup)
		}
	}
	resp, body := s.raw(t, postAs(typeNDJSON, withID+"\n"))
	if want := `{"line":1,"status":200,` + wantDup[1:]; resp.StatusCode != 200 || body != want {
		t.Errorf("repeat in a stream: %d %s\nwant %s", resp.StatusCode, body, want)
	}
	others := []string{
		strings.Replace(withID, "42.5", "42", 1),
		strings.Replace(withID, `"e"`, `"f"`, 1),
		strings.Replace(withID, "created", "updated", 1),
		strings.Replace(withID, `{"event"`, `{"timestamp":"2026-01-01T00:00:01Z","event"`, 1),
		strings.Replace(withID, `{"event"`, `{"user":{"id":"u"},"event"`, 1),
	}
	for i, other := range others {
		resp, body := s.raw(t, post(other))
		if e := decodeError(t, body).Error; resp.StatusCode != 409 || e.Code != CodeConflict || *e.Field != "id" {
			t.Errorf("other event %d: %d %s", i, resp.StatusCode, body)
		}
	}
	if resp, body := s.raw(t, post(strings.Replace(withID, "expenses", "silent", 1))); resp.StatusCode != 202 {
		t.Errorf("keys are per helper: %d %s", resp.StatusCode, body)
	}
	if n := len(s.store.all()); n != 2 {
		t.Errorf("%d events stored", n)
	}
	if m := s.Metrics(); m.Duplicates != 6 || m.Accepted != 2 {
		t.Errorf("%+v", m)
	}
}

// The first answer named a webhook that has left the file since.
func TestRepeatNamesWebhooksThatAreGone(t *testing.T) {
	catalog := testCatalog()
	s := serve(t, Options{Catalog: func() *Catalog { return catalog }})
	s.raw(t, post(created("e"), "Idempotency-Key: k"))
	old := catalog
	catalog = &Catalog{Helpers: map[string]*Helper{"expenses": {Helper: old.Helpers["expenses"].Helper}}}
	resp, body := s.raw(t, post(created("e"), "Idempotency-Key: k"))
	if resp.StatusCode != 200 || !strings.Contains(body, `"webhook":"gone.lane1"`) || !strings.Contains(body, `{"webhook":"gone.lane3","reason":"disabled"}`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestMeaningIsTheSameExactlyForTheSameEvent(t *testing.T) {
	type ev struct {
		Type, Entry, Data, Time, User string
	}
	gen := rapid.Custom(func(t *rapid.T) ev {
		return ev{
			Type:  rapid.SampledFrom([]string{"a.b", "a.c", "entry.created"}).Draw(t, "type"),
			Entry: rapid.SampledFrom([]string{"e", "ee", "f"}).Draw(t, "entry"),
			Data:  rapid.SampledFrom([]string{"", `{}`, `{"a":1}`, `{"a":2}`, `{"a":"1"}`}).Draw(t, "data"),
			Time:  rapid.SampledFrom([]string{"", "2025-01-01T00:00:00Z", "2025-01-01T01:00:00+01:00", "2025-01-01T00:00:00.001Z"}).Draw(t, "time"),
			User:  rapid.SampledFrom([]string{"", "u", "e"}).Draw(t, "user"),
		}
	})
	sum := func(t *rapid.T, e ev) [16]byte {
		body := `{"event":"` + e.Type + `","helper":"h","entry":{"id":"` + e.Entry + `"`
		if e.Data != "" {
			body += `,"data":` + e.Data
		}
		body += "}"
		if e.Time != "" {
			body += `,"timestamp":"` + e.Time + `"`
		}
		if e.User != "" {
			body += `,"user":{"id":"` + e.User + `"}`
		}
		in, err := event.Parse([]byte(body+"}"), unset())
		if err != nil {
			t.Fatal(err)
		}
		h, _ := meaning(in, nil)
		return h
	}
	canonical := func(e ev) ev {
		if e.Data == "" {
			e.Data = "{}"
		}
		if strings.HasSuffix(e.Time, "+01:00") {
			e.Time = "2025-01-01T00:00:00Z"
		}
		return e
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		if same := sum(t, a) == sum(t, b); same != reflect.DeepEqual(canonical(a), canonical(b)) {
			t.Fatalf("%+v and %+v: same %v", a, b, same)
		}
	})
}

func TestQueueErrors(t *testing.T) {
	space := &queue.SpaceError{What: "disk space", Path: "/var/lib/x", Free: 1, Need: 2}
	quota := &queue.QuotaError{Helper: "expenses", Live: 2, Max: 1}
	rows := []struct {
		name                 string
		gate, all, each      error
		status               int
		code, retry, message string
	}{
		{"gate: no space", space, nil, nil, 507, "no_space", "10", "too little disk space"},
		{"gate: stopped", queue.ErrStopped, nil, nil, 503, "queue_stopped", "5", ""},
		{"gate: other", errors.New("being repaired"), nil, nil, 503, "unavailable", "5", "being repaired"},
		{"store: no space", nil, space, nil, 507, "no_space", "10", ""},
		{"store: stopped", nil, fmt.Errorf("accept: %w", queue.ErrStopped), nil, 503, "queue_stopped", "5", ""},
		{"event: quota", nil, nil, quota, 429, "queue_full", "5", `queue of helper "expenses" holds 2 bytes`},
		{"event: reused", nil, nil, queue.ErrKeyReused, 409, "idempotency_conflict", "", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			s := serve(t, Options{
				Gate: func() error { return r.gate },
				Store: &fakeStore{
					before: func([]*queue.Event) error { return r.all },
					each:   func(*queue.Event) error { return r.each },
				},
			})
			resp, body := s.raw(t, post(created("e")))
			e := decodeError(t, body).Error
			if resp.StatusCode != r.status || e.Code != r.code || resp.Header.Get("Retry-After") != r.retry || !strings.Contains(e.Message, r.message) {
				t.Errorf("%d %q %s", resp.StatusCode, resp.Header.Get("Retry-After"), body)
			}
			resp, body = s.raw(t, postAs(typeNDJSON, created("e")+"\n"))
			if r.gate != nil {
				if resp.StatusCode != r.status || resp.Header.Get("Retry-After") != r.retry {
					t.Errorf("stream: %d %s", resp.StatusCode, body)
				}
				return
			}
			var line struct{ Line, Status int }
			if err := json.Unmarshal([]byte(body), &line); err != nil || resp.StatusCode != 200 || line.Line != 1 || line.Status != r.status ||
				r.retry != "" && !strings.Contains(body, `"retry_after":`+r.retry+"}") {
				t.Errorf("stream: %d %s", resp.StatusCode, body)
			}
			if n := len(s.store.all()); n != 0 {
				t.Errorf("%d events stored", n)
			}
		})
	}
}
