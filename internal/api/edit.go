package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// postWebhook adds a webhook to the daemon's own drop-in.
func (a *API) postWebhook(w http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	in, _, err := webhookChange(w, r)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(in.Headers)) {
		if in.Headers[name] == nil {
			return nil, bad("headers."+name, "a new webhook has no header %q to remove", name)
		}
	}
	made, err := a.Control.CreateWebhook(r.Context(), peer(r), in)
	if err != nil {
		return nil, err
	}
	made.Events = list(made.Events)
	w.Header().Set("Location", "/v1/webhooks/"+made.ID)
	return withStatus{http.StatusCreated, made}, nil
}

func (a *API) patchWebhook(w http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	target, err := a.configured(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	in, given, err := webhookChange(w, r)
	if err != nil {
		return nil, err
	}
	const fixed = "%q cannot be changed: make a new webhook and delete this one"
	switch {
	case in.Helper != nil:
		return nil, bad("helper", fixed, "helper")
	case in.ID != nil:
		return nil, bad("id", fixed, "id")
	case given == 0:
		return nil, bad("", "the body names nothing to change")
	}
	changed, err := a.Control.ChangeWebhook(r.Context(), peer(r), target.Shown.ID, in)
	if err != nil {
		return nil, err
	}
	changed.Events = list(changed.Events)
	return changed, nil
}

// deleteWebhook answers with the webhook as it was.
func (a *API) deleteWebhook(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := noInput(w, r); err != nil {
		return nil, err
	}
	target, err := a.configured(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	before, err := a.webhookDocument(a.fullLane(target))
	if err != nil {
		return nil, err
	}
	if err := a.Control.DeleteWebhook(r.Context(), peer(r), target.Shown.ID); err != nil {
		return nil, err
	}
	return before, nil
}

// fullLane looks up what is known of a webhook's lane.
func (a *API) fullLane(w Webhook) fullLane {
	for lane, stats := range a.Store.Lanes() {
		if lane == w.Lane {
			return fullLane{w, a.state(w), stats}
		}
	}
	return fullLane{w, a.state(w), queue.LaneStats{Webhook: w.Shown.ID}}
}

// webhookChange reads the keys of a webhook and counts them. Its rules are
// those of the file: what is there has a value, and events is a word or a list.
func webhookChange(w http.ResponseWriter, r *http.Request) (in rest.WebhookChange, given int, err error) {
	body, err := readBody(w, r)
	if err != nil || len(body) == 0 {
		return in, 0, err
	}
	object, err := keys("", body, "helper", "id", "sink", "url", "settings", "headers", "events", "secret", "format", "concurrency", "active")
	if err != nil {
		return in, 0, err
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		value := object[key]
		if bytes.Equal(value, []byte("null")) {
			return in, 0, bad(key, "%q must not be null; leave it out to keep what it is", key)
		}
		if key == "events" && value[0] == '"' {
			object[key] = slices.Concat([]byte("["), value, []byte("]"))
		}
	}
	// Parts of what was decoded can be encoded.
	if body, err = json.Marshal(object); err != nil {
		return in, 0, err
	}
	if err := fillIn(body, &in); err != nil {
		return in, 0, err
	}
	for name, value := range in.Settings {
		in.Settings[name] = numbers(value)
	}
	return in, len(object), nil
}

// numbers makes whole numbers int64 and others float64, so that a large one
// reaches the file with all of its digits.
func numbers(value any) any {
	switch v := value.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		// json.Number is a number, at worst one that is infinite as a float64.
		if f, err := v.Float64(); err == nil {
			return f
		}
		return v.String()
	case map[string]any:
		for key, inner := range v {
			v[key] = numbers(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = numbers(inner)
		}
	}
	return value
}
