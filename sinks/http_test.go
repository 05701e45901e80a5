package sinks_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestTheStatusIsTheOutcome(t *testing.T) {
	date := "Sat, 21 Nov 2026 07:00:00 GMT"
	for _, row := range []struct {
		status     int
		retryAfter string
		outcome    sinks.Outcome
		code       string
		after      time.Duration
	}{
		{200, "", sinks.OutcomeDelivered, "", 0}, {204, "9", sinks.OutcomeDelivered, "", 0}, {299, "", sinks.OutcomeDelivered, "", 0},
		{101, "", sinks.OutcomeRetry, "status", 0},
		{301, "", sinks.OutcomeRejected, "redirect", 0}, {304, "", sinks.OutcomeRejected, "redirect", 0},
		{400, "9", sinks.OutcomeRejected, "status", 0}, {404, "", sinks.OutcomeRejected, "status", 0}, {410, "", sinks.OutcomeRejected, "status", 0}, {413, "", sinks.OutcomeRejected, "status", 0},
		{401, "", sinks.OutcomeMisconfigured, "status", 0}, {403, "", sinks.OutcomeMisconfigured, "status", 0},
		{408, "", sinks.OutcomeRetry, "status", 0}, {500, "", sinks.OutcomeRetry, "status", 0}, {599, "", sinks.OutcomeRetry, "status", 0}, {600, "", sinks.OutcomeRetry, "status", 0},
		{503, "120", sinks.OutcomeRetry, "status", 2 * time.Minute}, {503, "Sat, 21 Nov 2026 07:05:00 GMT", sinks.OutcomeRetry, "status", 5 * time.Minute},
		{429, "", sinks.OutcomeRateLimited, "rate_limited", time.Minute}, {429, "7", sinks.OutcomeRateLimited, "rate_limited", 7 * time.Second},
		{429, "0", sinks.OutcomeRateLimited, "rate_limited", 0}, {429, " 7 ", sinks.OutcomeRateLimited, "rate_limited", 7 * time.Second},
		{429, "7.5", sinks.OutcomeRateLimited, "rate_limited", time.Minute}, {429, "-7", sinks.OutcomeRateLimited, "rate_limited", time.Minute}, {429, "soon", sinks.OutcomeRateLimited, "rate_limited", time.Minute},
		{429, "86400", sinks.OutcomeRateLimited, "rate_limited", time.Hour}, {429, strings.Repeat("9", 40), sinks.OutcomeRateLimited, "rate_limited", time.Hour},
		{429, "9223372036854775807", sinks.OutcomeRateLimited, "rate_limited", time.Hour},
		{429, "Sat, 21 Nov 2026 06:00:00 GMT", sinks.OutcomeRateLimited, "rate_limited", 0}, {429, "Fri, 31 Dec 9999 23:59:59 GMT", sinks.OutcomeRateLimited, "rate_limited", time.Hour},
		{429, "Saturday, 21-Nov-26 07:00:30 GMT", sinks.OutcomeRateLimited, "rate_limited", 30 * time.Second},
	} {
		resp := &http.Response{StatusCode: row.status, Header: http.Header{"Date": {date}}, Body: io.NopCloser(strings.NewReader("why\n\tnot"))}
		if row.retryAfter != "" {
			resp.Header.Set("Retry-After", row.retryAfter)
		}
		receipt, err := sinks.FromResponse(resp)
		v := sinks.VerdictOf(err)
		if v.Outcome != row.outcome || v.Code != row.code || v.After != row.after || receipt.Status != row.status {
			t.Errorf("%d, Retry-After %q: %+v, %+v", row.status, row.retryAfter, v, receipt)
		}
		if receipt.Message != "why not" && row.status != 101 {
			t.Errorf("%d: message %q", row.status, receipt.Message)
		}
		if v.Outcome != sinks.OutcomeDelivered && v.Status != row.status {
			t.Errorf("%d: %+v", row.status, v)
		}
	}
	if _, err := sinks.FromResponse(&http.Response{StatusCode: 503}); err == nil || err.Error() != "the service answered 503 Service Unavailable" {
		t.Errorf("%v", err)
	}
}

type slowBody struct {
	read int
	end  error
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.end != nil && b.read > 10 {
		return 0, b.end
	}
	b.read += len(p)
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func (b *slowBody) Close() error { return errors.New("closed by the wrong one") }

func TestOnlyTheBeginningOfABodyIsRead(t *testing.T) {
	endless := &slowBody{}
	receipt, err := sinks.FromResponse(&http.Response{StatusCode: 400, Body: endless})
	if err == nil || endless.read > 65<<10 || len(receipt.Message) != 2048 {
		t.Errorf("%d bytes were read, %d kept", endless.read, len(receipt.Message))
	}
	receipt, err = sinks.FromResponse(&http.Response{StatusCode: 200, Body: &slowBody{end: io.ErrUnexpectedEOF}})
	if err != nil || !strings.HasPrefix(receipt.Message, "xxx") || len(receipt.Message) > 256 {
		t.Errorf("%+v, %v", receipt, err)
	}
	receipt, _ = sinks.FromResponse(&http.Response{StatusCode: 400, Body: io.NopCloser(strings.NewReader("\x89PNG\x00\x01"))})
	if receipt.Message != "a body that is no text" {
		t.Errorf("%+v", receipt)
	}
	receipt, _ = sinks.FromResponse(&http.Response{StatusCode: 400, Body: io.NopCloser(strings.NewReader("a\xff\u2028b\u007f"))})
	if receipt.Message != "a� b" {
		t.Errorf("%+v", receipt)
	}
}

func TestTheClientTakesAnswersAsTheyAre(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
		case "/gzip":
			if r.Header.Get("Accept-Encoding") != "" {
				t.Errorf("the client asks for %q", r.Header.Get("Accept-Encoding"))
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(bytes.Repeat([]byte("bomb"), 1<<20))
			_ = z.Close()
		case "/header":
			w.Header().Set("Big", strings.Repeat("x", 100<<10))
		}
	}))
	defer server.Close()
	var env sinks.Env
	get := func(path string) (*http.Response, error) { return env.HTTP().Get(server.URL + path) }

	resp, err := get("/redirect")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusTemporaryRedirect || asked != 1 {
		t.Errorf("status %d after %d requests", resp.StatusCode, asked)
	}
	resp, err = get("/gzip")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || len(body) > 64<<10 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if resp, err = get("/header"); err == nil {
		_ = resp.Body.Close()
		t.Error("a header of 100 KiB is taken")
	}
	if env.HTTP().Transport != (sinks.Env{Webhook: "other"}).HTTP().Transport {
		t.Error("two sinks of a process do not share connections")
	}
	env.HTTP().CloseIdleConnections()
}
