package reload

import (
	"errors"
	"fmt"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

// WebhookError is an error of Prepare that one webhook is to blame for.
type WebhookError struct {
	Webhook string // "helper.webhook"
	Err     error
}

func (e *WebhookError) Error() string { return fmt.Sprintf("webhook %s: %v", e.Webhook, e.Err) }

// Unwrap is the cause.
func (e *WebhookError) Unwrap() error { return e.Err }

// culprit is the path of the webhook that is to blame, if one is.
func culprit(err error) []string {
	e, ok := errors.AsType[*WebhookError](err)
	if !ok {
		return nil
	}
	return config.KeyPath(e.Webhook)
}
