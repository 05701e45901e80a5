// Package adminclient talks to a running daemon over its admin socket.
//
// Guarantee: what comes back is a document of package rest or an error that
// says which of four things happened: nothing listens ([ErrUnreachable]), the
// socket may not be opened ([ErrPermission]), the daemon refused ([*Error], in
// its own words), or the conversation broke. Every read is bounded; a context
// ends every call.
package adminclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// ErrUnreachable says that no daemon answers on the socket: it does not exist,
// or nothing listens.
var ErrUnreachable = errors.New("daemon is not reachable")

// ErrPermission says that the socket exists and this user may not open it.
var ErrPermission = errors.New("permission denied")

// Error is an answer of the daemon that is not a success.
type Error struct {
	Status  int    // HTTP status
	Code    string // one of the Code constants of package rest; "" when the answer was none of its documents
	Message string
	Field   string // parameter or key at fault; "" = none
	// Findings are those of a configuration that was refused.
	Findings []rest.Finding
}

// Error is the daemon's message.
func (e *Error) Error() string { return e.Message }

const (
	dialTimeout = 5 * time.Second
	// headerTimeout outlasts the longest answer: that of a test comes when its
	// attempt is over, for which retry.timeout may allow 10 minutes.
	headerTimeout = 11 * time.Minute
	// maxAnswer bounds one document. The largest is the files of a former
	// configuration, which are as large as a candidate may be, 64 MiB, and whose
	// line ends and quotes JSON writes as two bytes.
	maxAnswer = 128 << 20
)

// Client is a client of one socket. It may be used concurrently.
type Client struct {
	socket string
	http   *http.Client
	limit  int64 // maxAnswer; tests: less
}

// New returns a client of the admin socket at path. Nothing is dialled before
// the first call.
func New(socket string) *Client {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &Client{socket: socket, limit: maxAnswer, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
			ResponseHeaderTimeout: headerTimeout,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   2,
			DisableCompression:    true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Helpers lists the helpers.
func (c *Client) Helpers(ctx context.Context) (rest.Helpers, error) {
	return call[rest.Helpers](ctx, c, "GET", "/v1/helpers", nil, nil)
}

// Webhooks lists the webhooks.
func (c *Client) Webhooks(ctx context.Context) (rest.Webhooks, error) {
	return call[rest.Webhooks](ctx, c, "GET", "/v1/webhooks", nil, nil)
}

// Webhook shows one webhook.
func (c *Client) Webhook(ctx context.Context, id string) (rest.Webhook, error) {
	return call[rest.Webhook](ctx, c, "GET", "/v1/webhooks/"+url.PathEscape(id), nil, nil)
}

// Minutes tells what a webhook attempted in each of the last 60 minutes.
func (c *Client) Minutes(ctx context.Context, webhook string) (rest.Minutes, error) {
	return call[rest.Minutes](ctx, c, "GET", "/v1/webhooks/"+url.PathEscape(webhook)+"/minutes", nil, nil)
}

// Test sends a sample to a webhook and returns when the attempt is over, which
// may take as long as the webhook's timeout. A receiver that refuses is no
// error: see Delivered.
func (c *Client) Test(ctx context.Context, webhook string, in rest.TestRequest) (rest.TestResult, error) {
	return call[rest.TestResult](ctx, c, "POST", "/v1/webhooks/"+url.PathEscape(webhook)+"/test", nil, in)
}

// Replay puts finished deliveries of a webhook back, or counts them.
func (c *Client) Replay(ctx context.Context, webhook string, in rest.ReplayRequest) (rest.Replay, error) {
	return call[rest.Replay](ctx, c, "POST", "/v1/webhooks/"+url.PathEscape(webhook)+"/replay", nil, in)
}

// Replays lists the replays under way and those that ended.
func (c *Client) Replays(ctx context.Context) (rest.Replays, error) {
	return call[rest.Replays](ctx, c, "GET", "/v1/replays", nil, nil)
}

// CancelReplay ends a replay and says how far it came.
func (c *Client) CancelReplay(ctx context.Context, id string) (rest.Replay, error) {
	return call[rest.Replay](ctx, c, "DELETE", "/v1/replays/"+url.PathEscape(id), nil, nil)
}

// DeliveryQuery selects rows of the delivery log; its zero value is the newest
// 50 of all webhooks.
type DeliveryQuery struct {
	Webhook string   // helper.webhook; "" = all
	Status  []string // of rest.Statuses; empty = all
	Since   string   // RFC 3339, or a duration ago such as "2h" or "7d"; "" = no bound
	Until   string
	Event   string // an event type; "" = all
	Limit   int    // rows of a page, 1 to 1000; 0 = 50
	Cursor  string // NextCursor of the page before
}

func (q *DeliveryQuery) encode() (path string, values url.Values) {
	path = "/v1/deliveries"
	if q.Webhook != "" {
		path = "/v1/webhooks/" + url.PathEscape(q.Webhook) + "/deliveries"
	}
	values = url.Values{}
	set(values, "status", strings.Join(q.Status, ","))
	set(values, "since", q.Since)
	set(values, "until", q.Until)
	set(values, "event", q.Event)
	set(values, "cursor", q.Cursor)
	if q.Limit != 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	return path, values
}

func set(values url.Values, name, value string) {
	if value != "" {
		values.Set(name, value)
	}
}

// Deliveries lists one page.
func (c *Client) Deliveries(ctx context.Context, q DeliveryQuery) (rest.DeliveryPage, error) {
	path, values := q.encode()
	return call[rest.DeliveryPage](ctx, c, "GET", path, values, nil)
}

// AllDeliveries goes through the rows of all pages, newest first, and fetches a
// page when the one before is used up. An error is the last element.
func (c *Client) AllDeliveries(ctx context.Context, q DeliveryQuery) iter.Seq2[rest.Delivery, error] {
	return func(yield func(rest.Delivery, error) bool) {
		for {
			page, err := c.Deliveries(ctx, q)
			if err != nil {
				yield(rest.Delivery{}, err)
				return
			}
			for _, d := range page.Deliveries {
				if !yield(d, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			q.Cursor = page.NextCursor
		}
	}
}

// Delivery shows one delivery with its payload and every attempt.
func (c *Client) Delivery(ctx context.Context, id string) (rest.DeliveryDetail, error) {
	return call[rest.DeliveryDetail](ctx, c, "GET", "/v1/deliveries/"+url.PathEscape(id), nil, nil)
}

// Retry makes a delivery due now and returns it.
func (c *Client) Retry(ctx context.Context, id string) (rest.Delivery, error) {
	return call[rest.Delivery](ctx, c, "POST", "/v1/deliveries/"+url.PathEscape(id)+"/retry", nil, nil)
}

// Drop discards a delivery that is not finished, or removes a failed one from
// the log. It returns the delivery as it was.
func (c *Client) Drop(ctx context.Context, id string) (rest.Delivery, error) {
	return call[rest.Delivery](ctx, c, "DELETE", "/v1/deliveries/"+url.PathEscape(id), nil, nil)
}

// Event shows what became of the events with an id.
func (c *Client) Event(ctx context.Context, id string) (rest.Events, error) {
	return call[rest.Events](ctx, c, "GET", "/v1/events/"+url.PathEscape(id), nil, nil)
}

// Status shows the state of the daemon.
func (c *Client) Status(ctx context.Context) (rest.Status, error) {
	return call[rest.Status](ctx, c, "GET", "/v1/status", nil, nil)
}

// Metrics is the daemon's metrics in the text format of Prometheus.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	resp, err := c.do(ctx, "GET", "/metrics", nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return c.readAll(resp)
}

// OpenAPI describes all this for programs.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	return call[json.RawMessage](ctx, c, "GET", "/v1/openapi.json", nil, nil)
}

// Live asks whether the daemon works; Ready whether it takes events. An answer
// of "no" is not an error: see rest.Health.
func (c *Client) Live(ctx context.Context) (rest.Health, error) { return c.health(ctx, "/livez") }

// Ready asks whether the daemon takes events.
func (c *Client) Ready(ctx context.Context) (rest.Health, error) { return c.health(ctx, "/readyz") }

func (c *Client) health(ctx context.Context, path string) (rest.Health, error) {
	var h rest.Health
	resp, err := c.send(ctx, "GET", path, nil, nil)
	if err != nil {
		return h, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
		return h, c.refusal(resp)
	}
	return h, c.read(resp, &h)
}

// call makes one request and decodes its answer. A nil in sends no body.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, in any) (out T, err error) {
	resp, err := c.do(ctx, method, path, query, in)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	return out, c.read(resp, &out)
}

// do makes one request and turns everything but a success into an error.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in any) (*http.Response, error) {
	resp, err := c.send(ctx, method, path, query, in)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer resp.Body.Close()
		return nil, c.refusal(resp)
	}
	return resp, nil
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(encoded)
	}
	// The host is a name that no resolver sees: the transport dials the socket.
	target := "http://peanuts-relay" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	return resp, nil
}

// explain gives errors of the connection their meaning. The socket's path is
// all that a reader needs; the URL that net/http adds is not real.
func (c *Client) explain(ctx context.Context, err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open admin socket %q: %w", c.socket, ErrPermission)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTSOCK),
		errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EPROTOTYPE):
		return fmt.Errorf("admin socket %q: %w", c.socket, ErrUnreachable)
	}
	return fmt.Errorf("talk to admin socket %q: %w", c.socket, err)
}

func (c *Client) read(resp *http.Response, v any) error {
	body, err := c.readAll(resp)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

func (c *Client) readAll(resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read answer: %w", err)
	case int64(len(body)) > c.limit:
		return nil, fmt.Errorf("read answer: longer than %d bytes", c.limit)
	}
	return body, nil
}

// refusal is the daemon's error, or what can be said of an answer that is none
// of its documents.
func (c *Client) refusal(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode}
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && media == "application/json" {
		var document rest.Error
		if c.read(resp, &document) == nil && document.Error.Message != "" {
			e.Code, e.Message, e.Field = document.Error.Code, document.Error.Message, document.Error.Field
			e.Findings = document.Error.Findings
			return e
		}
	}
	e.Message = "the admin socket answered " + resp.Status + " without saying why"
	return e
}
