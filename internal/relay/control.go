package relay

import (
	"bytes"
	"context"
	"errors"
	"net/http"

	"github.com/peanutsapp/peanuts-relay/internal/api"
	"github.com/peanutsapp/peanuts-relay/internal/reload"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/webhookedit"
	"github.com/peanutsapp/peanuts-relay/internal/where"
)

// control is what the API may change of the running daemon.
type control struct{ r *relay }

// refuse makes errors of the parts answers of the API.
func refuse(err error) error {
	if edit, ok := errors.AsType[*webhookedit.Refusal](err); ok {
		return &api.Refusal{Status: edit.Status, Code: edit.Code, Field: edit.Field, Message: edit.Message, Findings: edit.Findings}
	}
	if errors.Is(err, reload.ErrStopped) {
		return &api.Refusal{Status: http.StatusServiceUnavailable, Code: rest.CodeUnavailable, Message: err.Error()}
	}
	return err
}

// reloader is that of a daemon that runs.
func (c control) reloader() (*reload.Reloader, error) {
	if l := c.r.reloader.Load(); l != nil {
		return l, nil
	}
	return nil, &api.Refusal{Status: http.StatusServiceUnavailable, Code: rest.CodeUnavailable, Message: errStarting.Error()}
}

// Reload implements [api.Control].
func (c control) Reload(ctx context.Context, uid *uint32) (rest.ReloadResult, error) {
	return c.reload(ctx, reload.Cause{Trigger: rest.TriggerReload, UID: uid})
}

func (c control) reload(ctx context.Context, cause reload.Cause) (rest.ReloadResult, error) {
	l, err := c.reloader()
	if err != nil {
		return rest.ReloadResult{}, err
	}
	result, err := l.Reload(ctx, cause)
	return result, refuse(err)
}

// Plan implements [api.Control].
func (c control) Plan(ctx context.Context, req rest.PlanRequest) (rest.PlanResult, error) {
	l, err := c.reloader()
	if err != nil {
		return rest.PlanResult{}, err
	}
	result, err := l.Plan(ctx, &req)
	if err != nil {
		return result, &api.Refusal{Status: http.StatusBadRequest, Code: rest.CodeBadRequest, Field: "files", Message: err.Error()}
	}
	return result, nil
}

// Running implements [api.Control].
func (c control) Running() (rest.RunningConfig, error) {
	l, err := c.reloader()
	if err != nil {
		return rest.RunningConfig{}, err
	}
	var text bytes.Buffer
	if err := l.Running().Show(&text); err != nil {
		return rest.RunningConfig{}, err
	}
	status := l.Status()
	return rest.RunningConfig{Generation: status.Generation, Digest: status.Digest, YAML: text.String()}, nil
}

// History implements [api.Control].
func (c control) History() rest.ConfigHistory {
	if l := c.r.reloader.Load(); l != nil {
		return l.Entries()
	}
	return rest.ConfigHistory{Entries: []rest.ConfigEntry{}}
}

// Files implements [api.Control].
func (c control) Files(generation uint64) (rest.ConfigFiles, error) {
	l, err := c.reloader()
	if err != nil {
		return rest.ConfigFiles{}, err
	}
	files, err := l.Former(generation)
	if err != nil {
		return rest.ConfigFiles{}, &api.Refusal{Status: http.StatusNotFound, Code: rest.CodeNotFound, Field: "generation", Message: err.Error()}
	}
	return files, nil
}

// CreateWebhook implements [api.Control].
func (c control) CreateWebhook(ctx context.Context, uid *uint32, w rest.WebhookChange) (rest.WebhookChanged, error) {
	if _, err := c.reloader(); err != nil {
		return rest.WebhookChanged{}, err
	}
	out, err := c.r.editor.Create(ctx, uid, w)
	return out, refuse(err)
}

// ChangeWebhook implements [api.Control]. Enabling a webhook that came back as
// another one also lets go its deliveries: that is what it was held for.
func (c control) ChangeWebhook(ctx context.Context, uid *uint32, id string, w rest.WebhookChange) (rest.WebhookChanged, error) {
	if _, err := c.reloader(); err != nil {
		return rest.WebhookChanged{}, err
	}
	out, err := c.r.editor.Change(ctx, uid, id, w)
	if err == nil && w.Active != nil && *w.Active {
		out.Released, err = c.r.release(ctx, id)
	}
	return out, refuse(err)
}

// DeleteWebhook implements [api.Control].
func (c control) DeleteWebhook(ctx context.Context, uid *uint32, id string) error {
	if _, err := c.reloader(); err != nil {
		return err
	}
	return refuse(c.r.editor.Delete(ctx, uid, id))
}

// DropDeliveries implements [api.Control]. A webhook that came back as another
// one has nothing left to be held for then.
func (c control) DropDeliveries(ctx context.Context, webhook string) (int64, error) {
	if _, err := c.reloader(); err != nil {
		return 0, err
	}
	for lane, l := range c.r.store.Lanes() {
		if l.Webhook != webhook {
			continue
		}
		n, err := c.r.dispatcher.running().DropLane(ctx, lane)
		if err == nil {
			_, err = c.r.release(ctx, webhook)
		}
		return n, err
	}
	return 0, &api.Refusal{Status: http.StatusNotFound, Code: rest.CodeNotFound, Field: "id", Message: "there is no webhook " + webhook}
}

// release ends the hold of a webhook that came back as another one.
func (r *relay) release(ctx context.Context, webhook string) (bool, error) {
	r.switching.Lock()
	defer r.switching.Unlock()
	snap := r.current.Load().released(webhook)
	if snap == nil {
		return false, nil
	}
	if err := r.store.get().Release(ctx, snap.webhooks[webhook].lane); err != nil {
		return false, err
	}
	r.dispatcher.running().Apply(snap.targets)
	r.current.Store(snap)
	r.log.Info("webhook released", "id", webhook)
	return true, nil
}

// chooser reads the expression of a replay, for the queue.
func chooser(expression string) (func(context.Context, []byte) (bool, error), error) {
	f, err := where.Compile(expression)
	if err != nil {
		return nil, err
	}
	return f.Match, nil
}
