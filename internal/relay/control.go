package relay

import (
	"context"
	"net/http"

	"github.com/peanutsapp/peanuts-relay/internal/api"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// control is the api.Control of a daemon whose configuration is read at its
// start only: it refuses everything.
type control struct{}

var errFixed = &api.Refusal{Status: http.StatusServiceUnavailable, Code: rest.CodeUnavailable,
	Message: "the configuration of this daemon is read at its start only"}

func (control) Reload(context.Context, *uint32) (rest.ReloadResult, error) {
	return rest.ReloadResult{}, errFixed
}

func (control) Plan(context.Context, rest.PlanRequest) (rest.PlanResult, error) {
	return rest.PlanResult{}, errFixed
}

func (control) Running() (rest.RunningConfig, error) { return rest.RunningConfig{}, errFixed }

func (control) History() rest.ConfigHistory { return rest.ConfigHistory{} }

func (control) Files(uint64) (rest.ConfigFiles, error) { return rest.ConfigFiles{}, errFixed }

func (control) CreateWebhook(context.Context, *uint32, rest.WebhookChange) (rest.WebhookChanged, error) {
	return rest.WebhookChanged{}, errFixed
}

func (control) ChangeWebhook(context.Context, *uint32, string, rest.WebhookChange) (rest.WebhookChanged, error) {
	return rest.WebhookChanged{}, errFixed
}

func (control) DeleteWebhook(context.Context, *uint32, string) error { return errFixed }

func (control) DropDeliveries(context.Context, string) (int64, error) { return 0, errFixed }
