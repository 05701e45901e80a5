package adminclient

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// Reload makes the daemon read its files and returns when they were applied or
// refused. Refused files are no error: see Result. The end of ctx ends the wait,
// not the reload.
func (c *Client) Reload(ctx context.Context) (rest.ReloadResult, error) {
	var result rest.ReloadResult
	resp, err := c.send(ctx, "POST", "/v1/reload", nil, nil)
	if err != nil {
		return result, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return result, c.read(resp, &result)
	case http.StatusUnprocessableEntity:
		body, err := c.readAll(resp)
		if err != nil {
			return result, err
		}
		if json.Unmarshal(body, &result) == nil && result.Result != "" {
			return result, nil
		}
		// Another refusal with the same status.
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}
	return rest.ReloadResult{}, c.refusal(resp)
}

// Plan asks what a candidate would change; nothing is applied. An invalid one
// is no error: see Valid.
func (c *Client) Plan(ctx context.Context, candidate rest.PlanRequest) (rest.PlanResult, error) {
	return call[rest.PlanResult](ctx, c, "POST", "/v1/plan", nil, candidate)
}

// RunningConfig is the effective configuration that runs, secrets redacted.
func (c *Client) RunningConfig(ctx context.Context) (rest.RunningConfig, error) {
	return call[rest.RunningConfig](ctx, c, "GET", "/v1/config", nil, nil)
}

// ConfigHistory lists what changed the configuration, newest first.
func (c *Client) ConfigHistory(ctx context.Context) (rest.ConfigHistory, error) {
	return call[rest.ConfigHistory](ctx, c, "GET", "/v1/config/history", nil, nil)
}

// ConfigFiles are the files of a former configuration. They may hold literal
// secrets.
func (c *Client) ConfigFiles(ctx context.Context, generation uint64) (rest.ConfigFiles, error) {
	return call[rest.ConfigFiles](ctx, c, "GET", "/v1/config/history/"+strconv.FormatUint(generation, 10), nil, nil)
}

// CreateWebhook adds a webhook to the daemon's own drop-in and returns when it
// runs.
func (c *Client) CreateWebhook(ctx context.Context, in rest.WebhookChange) (rest.WebhookChanged, error) {
	return call[rest.WebhookChanged](ctx, c, "POST", "/v1/webhooks", nil, in)
}

// ChangeWebhook changes the keys of a webhook that in has and returns when that
// runs.
func (c *Client) ChangeWebhook(ctx context.Context, id string, in rest.WebhookChange) (rest.WebhookChanged, error) {
	return call[rest.WebhookChanged](ctx, c, "PATCH", "/v1/webhooks/"+url.PathEscape(id), nil, in)
}

// DeleteWebhook takes a webhook out of the daemon's own drop-in and returns it as
// it was.
func (c *Client) DeleteWebhook(ctx context.Context, id string) (rest.Webhook, error) {
	return call[rest.Webhook](ctx, c, "DELETE", "/v1/webhooks/"+url.PathEscape(id), nil, nil)
}

// DropDeliveries ends every delivery that waits for a webhook, except those in
// flight, as failed.
func (c *Client) DropDeliveries(ctx context.Context, webhook string) (rest.Dropped, error) {
	return call[rest.Dropped](ctx, c, "DELETE", "/v1/webhooks/"+url.PathEscape(webhook)+"/deliveries", nil, nil)
}
