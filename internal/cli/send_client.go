package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// maxAnswer bounds one answer of the events socket; one for a helper with a
// hundred webhooks has some 10 KiB.
const maxAnswer = 4 << 20

// eventsClient talks to the events socket.
type eventsClient struct {
	socket string
	http   *http.Client
}

func newEventsClient(socket string) *eventsClient {
	var dialer net.Dialer
	return &eventsClient{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
	}}}
}

func (c *eventsClient) close() { c.http.CloseIdleConnections() }

// answer is what the events socket says of one event: in a response of its own
// or in a line of a stream.
type answer struct {
	Status     int    `json:"status"` // of the response, or of the line
	ID         string `json:"id"`
	Duplicate  bool   `json:"duplicate"`
	Deliveries []struct {
		ID      string `json:"id"`
		Webhook string `json:"webhook"`
	} `json:"deliveries"`
	Skipped []struct {
		Webhook string `json:"webhook"`
		Reason  string `json:"reason"`
	} `json:"skipped"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Field   string `json:"field"`
		Offset  *int64 `json:"offset"`
	} `json:"error"`

	raw        []byte
	retryAfter string
}

// tryAgain reports whether the same event may be accepted later.
func (ans *answer) tryAgain() bool {
	switch ans.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInsufficientStorage:
		return true
	}
	return false
}

// reason is why an event was rejected, for people.
func (ans *answer) reason() string {
	text := oneLine(ans.Error.Message)
	if text == "" {
		text = oneLine(ans.Error.Code)
	}
	// The daemon's messages name the byte themselves.
	if at := ans.Error.Offset; at != nil && !strings.Contains(text, fmt.Sprintf("byte %d", *at)) {
		text += fmt.Sprintf(" (byte %d)", *at)
	}
	return text
}

func (ans *answer) fault(what string) error {
	f := &fault{code: ExitFailure, err: fmt.Errorf("%s was rejected: %s", what, ans.reason())}
	switch {
	case ans.tryAgain():
		f.code, f.hint = ExitTryAgain, "try again later; peanuts-relay status says what is wrong"
		if ans.retryAfter != "" {
			f.hint = "try again in " + ans.retryAfter + " s; peanuts-relay status says what is wrong"
		}
	case ans.Status == http.StatusForbidden:
		f.code, f.hint = ExitPermission, "listen.allow_uids names the users that may hand in events"
	case ans.Status == http.StatusNotFound:
		f.hint = "is the socket that of listen.events?"
	}
	return f
}

// post hands in one event. The answer has Error set when it was rejected.
func (c *eventsClient) post(ctx context.Context, body []byte, idempotencyKey string) (*answer, error) {
	req, err := c.request(ctx, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if idempotencyKey != "" {
		req.Header.Set("Idempotency-Key", idempotencyKey)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}

func (c *eventsClient) request(ctx context.Context, contentType string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://events/v1/events", body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	return req, nil
}

func readAnswer(resp *http.Response) (*answer, error) {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, failf("whether the event was accepted is not known; with --id or --idempotency-key it can be sent again safely",
			"read the daemon's answer: %w", err)
	}
	return parseAnswer(raw, resp.StatusCode, resp.Header.Get("Retry-After"))
}

func parseAnswer(raw []byte, status int, retryAfter string) (*answer, error) {
	ans := &answer{Status: status, retryAfter: retryAfter, raw: bytes.TrimSpace(raw)}
	if err := json.Unmarshal(raw, ans); err != nil {
		return nil, failf("is the socket that of peanuts-relay?", "the answer with status %d is not understood: %w", status, err)
	}
	if ans.Error == nil && ans.ID == "" {
		return nil, failf("is the socket that of peanuts-relay?", "the answer with status %d has neither an id nor an error", status)
	}
	return ans, nil
}

// unreachable words a request that got no answer.
func (c *eventsClient) unreachable(err error) error {
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return socketFault(c.socket, dial.Err, "listen.events_mode and listen.events_group of the configuration say who may hand in events")
	}
	return WithExit(ExitUnavailable, fmt.Errorf("the connection to %s broke before an answer: %w", c.socket, rootCause(err)),
		"whether the event was accepted is not known; with --id or --idempotency-key it can be sent again safely")
}

// rootCause drops the method and URL that net/http puts before the cause.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
