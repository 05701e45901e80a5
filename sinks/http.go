package sinks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	connectTimeout = 10 * time.Second
	requestTimeout = 30 * time.Second

	// maxHeader is how much of the headers of a response is read.
	maxHeader = 64 << 10
	// maxBody is how much of the body of a response [FromResponse] reads; what is left
	// after it costs the connection.
	maxBody = 64 << 10

	// maxPraise is what is kept of the body of a success, of which there are many.
	maxPraise = 256

	// longestPause is what the relay makes of any longer one.
	longestPause = time.Hour
	// defaultPause is for a service that is limiting without saying for how long.
	defaultPause = time.Minute
)

// sharedTransport is one for the process, so that the webhooks of a sink share its
// connections.
var sharedTransport = sync.OnceValue(func() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout:    connectTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // a small answer must not become a large one
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
	}
})

// HTTP is a client for the requests of a sink: 10 s to connect, 30 s in all, with the
// body of the answer; no redirect is followed, a 3xx is an answer like any other; nothing
// is decompressed; at most 64 KiB of headers. Connections are shared by all sinks of the
// process. It heeds HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
//
// An error of the client names the URL that was asked for. What Deliver returns, what
// Open and Validate say and what is logged goes out without the path and the query of
// it, as long as the error is wrapped and not made into text first; a [URL] and a
// [Secret] of the settings are masked in any case.
func (e Env) HTTP() *http.Client {
	return &http.Client{
		Transport:     sharedTransport(),
		Timeout:       requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// FromResponse is the outcome of a request to a service that means its status as RFC
// 9110 says, as the results of Deliver:
//
//	2xx            delivered
//	401, 403       [Misconfigured]
//	429            [RateLimited], for as long as Retry-After says, else 60 s
//	408, 5xx       [Retry], not before Retry-After
//	3xx, other 4xx [Reject]: a redirect is not followed
//
// A service whose endpoint is fixed maps 404 and 410 itself, for there they mean that
// the settings are wrong. The beginning of the body becomes the message of the receipt;
// what it holds is shown to operators. At most 64 KiB of it are read; the caller closes
// it.
func FromResponse(resp *http.Response) (Receipt, error) {
	receipt := Receipt{Status: resp.StatusCode, Message: excerpt(resp)}
	v := &Verdict{Code: "status", Status: resp.StatusCode, err: errors.New("the service answered " + statusText(resp.StatusCode))}
	after, told := retryAfter(resp.Header, time.Now())
	switch status := resp.StatusCode; {
	case status >= 200 && status < 300:
		return receipt, nil
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		v.Outcome = OutcomeMisconfigured
	case status == http.StatusTooManyRequests:
		v.Outcome, v.Code, v.After = OutcomeRateLimited, "rate_limited", after
		if !told {
			v.After = defaultPause
		}
	case status == http.StatusRequestTimeout, status < 200, status >= 500:
		v.Outcome, v.After = OutcomeRetry, after
	case status < 400:
		v.Outcome, v.Code = OutcomeRejected, "redirect"
		v.err = fmt.Errorf("%w; redirects are not followed", v.err)
	default:
		v.Outcome = OutcomeRejected
	}
	return receipt, v
}

// statusText does without the reason phrase of the answer, which says what the service
// likes.
func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// excerpt is the beginning of a body as a message. That a body breaks off changes
// nothing of what the status said.
func excerpt(resp *http.Response) string {
	if resp.Body == nil || resp.StatusCode == http.StatusSwitchingProtocols {
		return ""
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	_, _ = resp.Body.Read(make([]byte, 1)) // the end, so that the connection can be used again
	if bytes.IndexByte(body, 0) >= 0 {
		return "a body that is no text"
	}
	most := maxMessage
	if resp.StatusCode/100 == 2 {
		most = maxPraise
	}
	return cutBytes(clean(valid(string(body))), most)
}

// clean makes one line of a text.
func clean(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == 0x85 || r == 0xa0 || r == 0x2028 || r == 0x2029
	}), " ")
}

// retryAfter reads a Retry-After (RFC 9110 section 10.2.3), and whether there is one
// that makes sense. A date counts from the answer's own Date, so that two clocks that
// differ do no harm.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0, false
	}
	if strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds > int64(longestPause/time.Second) {
			return longestPause, true // digits that do not fit are still a number
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	// Sub saturates instead of overflowing.
	return min(max(at.Sub(now), 0), longestPause), true
}
