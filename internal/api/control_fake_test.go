package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// fakeControl is a daemon whose configuration is three files and four
// generations. It keeps the contract of Control and fails the test when the API
// breaks its side of it.
type fakeControl struct {
	t *testing.T

	mu      sync.Mutex // guards the following
	calls   []string   // what was asked, with the uid of who did
	reload  rest.ReloadResult
	plan    rest.PlanResult
	planned []rest.PlanRequest
	change  []rest.WebhookChange
	wait    chan struct{} // when not nil, Reload and Plan wait for it or for the end of their context
	entered chan struct{} // when not nil, one element for each Plan that began
	err     error         // answers everything that can fail
}

func newFakeControl(t *testing.T) *fakeControl {
	changed := []rest.ConfigChange{
		{Object: rest.ObjectWebhook, ID: "crm.orders", Change: rest.ChangeAdded},
		{Object: rest.ObjectWebhook, ID: "expenses.backend", Change: rest.ChangeChanged, Fields: []string{"url", "headers.X-Env"}},
		{Object: rest.ObjectSetting, ID: "listen.events", Change: rest.ChangeChanged, Restart: true},
		{Object: rest.ObjectWebhook, ID: "expenses.old", Change: rest.ChangeRemoved},
	}
	return &fakeControl{t: t,
		reload: rest.ReloadResult{Result: rest.ReloadApplied, Generation: 4, Digest: "sha256:04", FileDigest: "sha256:04",
			Changes: changed, RestartRequired: []string{"listen.events"}},
		plan: rest.PlanResult{Valid: true, Digest: "sha256:05", Changes: changed, RestartRequired: []string{"listen.events"},
			Webhooks: []rest.PlanWebhook{
				{Webhook: "expenses.backend", Pending: 3, Queued: "the next attempt uses the new values"},
				{Webhook: "expenses.old", Pending: 12, NewEvents: "make no delivery for it", Queued: "held (removed) for 7 days, then failed"}}},
	}
}

// rejection is what a reload or a plan of a file with a mistake says.
func rejection() ([]rest.Finding, string) {
	return []rest.Finding{{Severity: "error", Code: "unknown_key", File: "/etc/peanuts-relay/conf.d/crm.yaml", Line: 14, Column: 7,
			Path: "/helpers/crm/webhooks/orders/secrt", Message: `unknown key "secrt"`, Suggestion: `did you mean "secret"?`}},
		"error: unknown key \"secrt\"\n  --> /etc/peanuts-relay/conf.d/crm.yaml:14:7\n   |\n14 |       secrt: ********\n   |       ^^^^^ did you mean \"secret\"?\n"
}

// asked notes a call and answers with the error that the test wants.
func (c *fakeControl) asked(what string, uid *uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	who := "nobody"
	if uid != nil {
		who = fmt.Sprint(*uid)
	}
	c.calls = append(c.calls, what+" by "+who)
	return c.err
}

func (c *fakeControl) waited(ctx context.Context) error {
	c.mu.Lock()
	wait := c.wait
	c.mu.Unlock()
	if wait == nil {
		return nil
	}
	select {
	case <-wait:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *fakeControl) Reload(ctx context.Context, uid *uint32) (rest.ReloadResult, error) {
	if err := c.asked("reload", uid); err != nil {
		return rest.ReloadResult{}, err
	}
	return c.reload, c.waited(ctx)
}

func (c *fakeControl) Plan(ctx context.Context, candidate rest.PlanRequest) (rest.PlanResult, error) {
	if err := c.asked("plan", nil); err != nil {
		return rest.PlanResult{}, err
	}
	if candidate.Replace && !slices.ContainsFunc(candidate.Files, func(f rest.PlanFile) bool { return f.Role == "main" }) {
		c.t.Errorf("a whole configuration came without a main file: %+v", candidate)
	}
	c.mu.Lock()
	c.planned = append(c.planned, candidate)
	c.mu.Unlock()
	if c.entered != nil {
		c.entered <- struct{}{}
	}
	return c.plan, c.waited(ctx)
}

func (c *fakeControl) Running() (rest.RunningConfig, error) {
	return rest.RunningConfig{Generation: 4, Digest: "sha256:04", YAML: "helpers:\n  expenses:\n    secret: ${env:EXPENSES_SECRET}\n"}, c.asked("running", nil)
}

func (c *fakeControl) History() rest.ConfigHistory {
	return rest.ConfigHistory{Entries: []rest.ConfigEntry{
		{Generation: 4, At: rest.At(epoch), Trigger: rest.TriggerWebhooks, UID: new(uint32(1000)), Result: rest.ReloadApplied, Digest: "sha256:04", Running: true,
			Changes: []rest.ConfigChange{{Object: rest.ObjectWebhook, ID: "expenses.alerts", Change: rest.ChangeChanged, Fields: []string{"enabled"}}},
			Files:   []string{"/etc/peanuts-relay/config.yaml", "/etc/peanuts-relay/conf.d/90-api.yaml"}},
		{Generation: 3, At: rest.At(epoch), Trigger: rest.TriggerWatch, Result: rest.ReloadRejected, Digest: "sha256:99", Errors: 1,
			Error: `/etc/peanuts-relay/conf.d/crm.yaml:14:7: unknown key "secrt"`},
		{Generation: 3, At: rest.At(epoch), Trigger: rest.TriggerStart, Result: rest.ReloadApplied, Digest: "sha256:03",
			Files: []string{"/etc/peanuts-relay/config.yaml"}},
	}}
}

func (c *fakeControl) Files(generation uint64) (rest.ConfigFiles, error) {
	if err := c.asked("files", nil); err != nil {
		return rest.ConfigFiles{}, err
	}
	if generation != 3 {
		return rest.ConfigFiles{}, &Refusal{Status: http.StatusNotFound, Code: rest.CodeNotFound, Field: "generation",
			Message: fmt.Sprintf("the history has no files of generation %d; it has 3 and 4", generation)}
	}
	return rest.ConfigFiles{Generation: 3, At: rest.At(epoch), Digest: "sha256:03",
		Files: []rest.ConfigFile{{Path: "/etc/peanuts-relay/config.yaml", Content: "helpers:\n  expenses: {}\n", Now: rest.FileDiffers}},
		Extra: []string{"/etc/peanuts-relay/conf.d/90-api.yaml"}}, nil
}

func (c *fakeControl) changed(id string, in *rest.WebhookChange) rest.WebhookChanged {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.change = append(c.change, *in)
	out := rest.WebhookChanged{ID: id, URL: "https://api.example.com/********", Active: true, File: "/etc/peanuts-relay/conf.d/90-api.yaml"}
	if in.Events != nil {
		out.Events = *in.Events
	}
	if in.Active != nil {
		out.Active = *in.Active
	}
	return out
}

func (c *fakeControl) CreateWebhook(_ context.Context, uid *uint32, in rest.WebhookChange) (rest.WebhookChanged, error) {
	if err := c.asked("create", uid); err != nil {
		return rest.WebhookChanged{}, err
	}
	out := c.changed("expenses.wh_1", &in)
	if in.Secret == nil {
		out.Secret = "whsec_bWlQamE4WjRTeDBrR1ZPd3JxM2Z0RzlKYUx5dU5zSGQ="
	}
	out.CreatedAt = rest.At(epoch)
	return out, nil
}

func (c *fakeControl) ChangeWebhook(_ context.Context, uid *uint32, id string, in rest.WebhookChange) (rest.WebhookChanged, error) {
	if err := c.asked("change "+id, uid); err != nil {
		return rest.WebhookChanged{}, err
	}
	if in.Helper != nil || in.ID != nil {
		c.t.Errorf("a change of %s names another webhook: %+v", id, in)
	}
	return c.changed(id, &in), nil
}

func (c *fakeControl) DeleteWebhook(_ context.Context, uid *uint32, id string) error {
	return c.asked("delete "+id, uid)
}

func (c *fakeControl) DropDeliveries(_ context.Context, webhook string) (int64, error) {
	return 12, c.asked("drop "+webhook, nil)
}
