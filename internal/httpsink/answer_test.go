package httpsink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

func TestWhatAStatusMeans(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("Location", "https://elsewhere.example:8443/secret/path?token=x")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		if status != 204 && status != 304 {
			_, _ = io.WriteString(w, "body")
		}
	}))
	defer srv.Close()
	for status := 200; status < 600; status++ {
		want, code := delivery.Delivered, delivery.Code("")
		switch {
		case status >= 500:
			want, code = delivery.Retry, delivery.CodeStatus
		case status >= 400:
			want, code = delivery.Rejected, delivery.CodeStatus
		case status >= 300:
			want, code = delivery.Rejected, delivery.CodeRedirect
		}
		s := newSink(t, fmt.Sprintf("%s/%d", srv.URL, status), nil)
		a := deliver(t, s, outbound())
		s.Close()
		if a.Outcome != want || a.Code != code || a.Status != status {
			t.Errorf("%d: %v %q %d", status, a.Outcome, a.Code, a.Status)
		}
		switch want {
		case delivery.Delivered:
			if a.RetryAfter != 0 || a.Error != "" {
				t.Errorf("%d: success with %v, %q", status, a.RetryAfter, a.Error)
			}
		default:
			if a.RetryAfter != 7*time.Second || !strings.Contains(a.Error, fmt.Sprint(status)) {
				t.Errorf("%d: %v, %q", status, a.RetryAfter, a.Error)
			}
		}
		if code == delivery.CodeRedirect && (!strings.Contains(a.Error, "pointing to https://elsewhere.example:8443;") || strings.Contains(a.Error, "secret")) {
			t.Errorf("%d: %q", status, a.Error)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2025, 1, 15, 14, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value, date string
		want        time.Duration
	}{
		{"", "", 0}, {"0", "", 0}, {"120", "", 2 * time.Minute}, {" 5 ", "", 5 * time.Second}, {"86400", "", 24 * time.Hour}, {"86401", "", maxRetryAfter},
		{"-5", "", 0}, {"+5", "", 0}, {"1.5", "", 0}, {"0x10", "", 0}, {"soon", "", 0}, {"9223372036854775807", "", maxRetryAfter},
		{strings.Repeat("9", 400), "", maxRetryAfter},
		{"Wed, 15 Jan 2025 14:01:00 GMT", "", time.Minute},
		{"Wednesday, 15-Jan-25 14:01:00 GMT", "", time.Minute}, // RFC 850, still to be accepted
		{"Wed Jan 15 14:01:00 2025", "", time.Minute},          // asctime
		{"Wed, 15 Jan 2025 15:01:00 GMT", "Wed, 15 Jan 2025 15:00:00 GMT", time.Minute},
		{"Wed, 15 Jan 2025 13:59:00 GMT", "", 0}, {"Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", maxRetryAfter},
	} {
		h := http.Header{}
		h.Set("Retry-After", c.value)
		h.Set("Date", c.date)
		if got := retryAfter(h, now); got != c.want {
			t.Errorf("%q, %q: %v, want %v", c.value, c.date, got, c.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "")
	f.Add("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT")
	f.Fuzz(func(t *testing.T, value, date string) {
		h := http.Header{"Retry-After": {value}, "Date": {date}}
		if d := retryAfter(h, time.Unix(0, 0)); d < 0 || d > maxRetryAfter {
			t.Fatalf("%v", d)
		}
	})
}

func TestALongAnswerIsCutAndAShortOneIsNot(t *testing.T) {
	for _, c := range []struct{ status, size, keep int }{
		{200, 0, 0}, {200, 1, 1}, {200, keepSuccess, keepSuccess}, {200, keepSuccess + 1, keepSuccess}, {200, 50_000, keepSuccess},
		{500, 1, 1}, {500, keepFailure, keepFailure}, {500, keepFailure + 1, keepFailure}, {500, 60_000, keepFailure}, {404, 1 << 20, keepFailure},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, strings.Repeat("a", c.size))
		}))
		s := newSink(t, srv.URL, nil)
		a := deliver(t, s, outbound())
		if len(a.Body) != c.keep || a.BodyTruncated != (c.size > c.keep) {
			t.Errorf("%d bytes of a %d: kept %d, truncated %v", c.size, c.status, len(a.Body), a.BodyTruncated)
		}
		// Up to 64 KiB are read, so that the connection serves again.
		if a = deliver(t, s, outbound()); a.Reused != (c.size <= maxDrain) {
			t.Errorf("%d bytes of a %d: connection reused: %v", c.size, c.status, a.Reused)
		}
		s.Close()
		srv.Close()
	}
}

func TestErrorsOfTheNetworkAreClassified(t *testing.T) {
	s := newSink(t, "http://partner.example/hook", nil)
	for _, c := range []struct {
		err  error
		code delivery.Code
		says string
	}{
		{&net.OpError{Op: "dial", Err: &net.DNSError{Name: "partner.example", IsNotFound: true}}, delivery.CodeDNS, "no such host: partner.example"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Name: "partner.example", IsTimeout: true}}, delivery.CodeDNS, "did not answer for partner.example"},
		{&net.DNSError{Name: "partner.example", Err: "server misbehaving"}, delivery.CodeDNS, "lookup of partner.example failed: server misbehaving"},
		{errors.New("something about https://partner.example/hook"), delivery.CodeProtocol, "breaks HTTP"},
	} {
		var a delivery.Attempt
		s.fail(&a, &attempt{Context: t.Context()}, c.err)
		if a.Code != c.code || !strings.Contains(a.Error, c.says) || strings.Contains(a.Error, "/hook") {
			t.Errorf("%v: %q %q", c.err, a.Code, a.Error)
		}
	}
}

// FuzzAnswer lets a receiver say anything.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: http://a/\xff\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 101 X\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 503 X\r\nRetry-After: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc"))
	signer := testSigner(f)
	f.Fuzz(func(t *testing.T, answer []byte) {
		s, err := New(Options{URL: secret.New("http://partner.example/secret-path"), Signer: signer, Timeout: 2 * time.Second, Proxy: http.ProxyURL(nil)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var wg sync.WaitGroup
		s.dial = func(context.Context, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			wg.Go(func() {
				defer theirs.Close()
				if _, _, err := readRequest(theirs); err == nil {
					_, _ = theirs.Write(answer)
				}
			})
			return ours, nil
		}
		var a delivery.Attempt
		s.Deliver(t.Context(), outbound(), &a)
		s.Close()
		wg.Wait()
		if a.Outcome == 0 || (a.Outcome != delivery.Delivered && (a.Code == "" || a.Error == "")) {
			t.Errorf("%v %q %q", a.Outcome, a.Code, a.Error)
		}
		if len(a.Body) > keepFailure || len(a.Headers) > keepHeaders || strings.ContainsAny(a.Error, "\r\n\x1b") {
			t.Errorf("%d bytes, %d headers, %q", len(a.Body), len(a.Headers), a.Error)
		}
		if strings.Contains(a.Error, "secret-path") {
			t.Errorf("%q", a.Error)
		}
	})
}
