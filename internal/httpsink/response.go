package httpsink

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

const (
	keepFailure = 16 << 10 // bytes kept of the body of a failure
	keepSuccess = 256      // bytes kept of the body of a success

	// maxDrain is how much of a body is read so that its connection can be used
	// again. A connection with more to say is closed.
	maxDrain = 64 << 10

	keepHeaderBytes = 8 << 10 // of all names and values kept of an answer
	keepHeaders     = 64

	// maxRetryAfter bounds what is reported of a Retry-After. What is honoured
	// of it is decided elsewhere, and is less.
	maxRetryAfter = 24 * time.Hour
)

// bufferSize leaves room behind the excerpt for the rest of a secret that
// begins inside of it.
func (s *Sink) bufferSize() int { return keepFailure + s.masker.Longest() }

// answer reads and judges a response. done says that its body was read to the
// end.
func (s *Sink) answer(a *delivery.Attempt, resp *http.Response) (done bool) {
	a.Status = resp.StatusCode
	s.judge(a, resp)
	a.Headers = s.keepHeaders(resp.Header)
	if a.Outcome == delivery.Delivered {
		return s.readBody(a, resp.Body, keepSuccess)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return false // its body is the bare connection, which no deadline of ours ends
	}
	a.RetryAfter = retryAfter(resp.Header, time.Now())
	return s.readBody(a, resp.Body, keepFailure)
}

func (s *Sink) judge(a *delivery.Attempt, resp *http.Response) {
	status := resp.StatusCode
	a.Code = delivery.CodeStatus
	switch {
	case status >= 200 && status < 300:
		a.Outcome, a.Code = delivery.Delivered, ""
		return
	case status >= 300 && status < 400:
		a.Outcome, a.Code = delivery.Rejected, delivery.CodeRedirect
		a.Error = "the receiver answered " + statusText(status) + s.redirect(resp.Header.Get("Location"))
		return
	case status == http.StatusProxyAuthRequired && s.proxy != nil && s.proxy.forwards:
		// The receiver has not seen it, and a password can be put right.
		a.Outcome, a.Code, a.Error = delivery.Retry, delivery.CodeProxy, "the proxy answered "+statusText(status)
		return
	case status >= 400 && status < 500:
		a.Outcome = delivery.Rejected
	case status == http.StatusSwitchingProtocols:
		a.Outcome, a.Code = delivery.Retry, delivery.CodeProtocol
	default:
		// 5xx, and what is outside 100 to 599, which RFC 9110 section 15 tells a
		// client to treat like 5xx.
		a.Outcome = delivery.Retry
	}
	a.Error = "the receiver answered " + statusText(status)
}

// statusText does without the reason phrase of the answer, which says what the
// receiver likes.
func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return strconv.Itoa(status) + " " + text
	}
	return strconv.Itoa(status)
}

// redirect says where a Location points, without its path and query.
func (s *Sink) redirect(location string) string {
	const never = "; redirects are not followed, "
	if location == "" {
		return " without a Location" + never + "put the receiver's final address into url"
	}
	to, err := url.Parse(location)
	if err != nil {
		return " with an unreadable Location" + never + "put the receiver's final address into url"
	}
	to = s.url.ResolveReference(to)
	where := secret.Clean(s.masker.Text(to.Scheme+"://"+to.Host), 200) // masked first: half of a secret is not recognised
	if to.Host == s.url.Host && to.Scheme == s.url.Scheme {
		return ", pointing to another path on " + where + never + "put the final path into url"
	}
	return ", pointing to " + where + never + "put the receiver's final address into url"
}

// keepHeaders copies the headers sorted by name, masked and bounded.
func (s *Sink) keepHeaders(h http.Header) []delivery.Header {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	if n == 0 {
		return nil
	}
	list := make([]delivery.Header, 0, n)
	for name, values := range h {
		for _, v := range values {
			list = append(list, delivery.Header{Name: name, Value: v})
		}
	}
	slices.SortStableFunc(list, func(a, b delivery.Header) int { return strings.Compare(a.Name, b.Name) })
	size := 0
	for i := range list {
		list[i].Name, list[i].Value = s.masker.Text(list[i].Name), s.masker.Text(list[i].Value)
		size += len(list[i].Name) + len(list[i].Value)
		if size > keepHeaderBytes || i == keepHeaders {
			return slices.Clone(list[:i])
		}
	}
	return list
}

// readBody keeps the beginning of a body and drains the rest as far as that is
// worth it. That a body breaks off or drips until the deadline changes nothing
// of what the status line said; such a connection is not used again.
func (s *Sink) readBody(a *delivery.Attempt, body io.Reader, keep int) (done bool) {
	if body == http.NoBody {
		return true
	}
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	window := (*buf)[:keep+s.masker.Longest()]
	n, done := fill(body, window)
	excerpt := s.masker.Bytes(window[:n])
	a.BodyTruncated = !done || n > keep
	if n == len(window) {
		// The beginning of a secret at the very end was not recognised.
		excerpt = excerpt[:max(0, len(excerpt)-s.masker.Longest())]
	}
	if len(excerpt) > keep {
		excerpt, a.BodyTruncated = excerpt[:keep], true
	}
	if len(excerpt) > 0 {
		a.Body = bytes.Clone(excerpt)
	}
	for drained := n; !done && drained < maxDrain; drained += n {
		n, done = fill(body, (*buf)[:min(len(*buf), maxDrain-drained)])
		if n == 0 {
			break
		}
	}
	return done
}

// fill reads until buf is full, or nothing more comes; done is true at a proper
// end of the body.
func fill(r io.Reader, buf []byte) (n int, done bool) {
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err != nil {
			return n, err == io.EOF
		}
	}
	return n, false
}

// retryAfter reads a Retry-After (RFC 9110 section 10.2.3): 0 when there is
// none, or none that makes sense. A date counts from the answer's own Date, so
// that two clocks that differ do no harm.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if isDigits(value) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter // digits that do not fit are still a number
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	// Sub saturates instead of overflowing.
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
