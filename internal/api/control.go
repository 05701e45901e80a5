package api

import (
	"context"
	"encoding/json"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// Control changes and explains what runs. Its methods may be called
// concurrently. An error that is a *[Refusal] is answered as it says, any other
// as an internal one. The end of ctx ends the wait, never a change that has
// begun. uid is the user at the other end of the socket, nil when that is not
// known.
type Control interface {
	// Reload returns when the files as they are now were applied or refused.
	// Refused files are a result, not an error.
	Reload(ctx context.Context, uid *uint32) (rest.ReloadResult, error)
	// Plan says what a candidate would change, and changes nothing. An invalid
	// candidate is a result, not an error.
	Plan(ctx context.Context, candidate rest.PlanRequest) (rest.PlanResult, error)
	Running() (rest.RunningConfig, error)
	History() rest.ConfigHistory
	// Files returns the files of a generation that the history has kept.
	Files(generation uint64) (rest.ConfigFiles, error)

	// CreateWebhook, ChangeWebhook and DeleteWebhook return when the change is in
	// the file and runs. The API has checked that the webhook of the last two is
	// configured, nothing else.
	CreateWebhook(ctx context.Context, uid *uint32, in rest.WebhookChange) (rest.WebhookChanged, error)
	ChangeWebhook(ctx context.Context, uid *uint32, id string, in rest.WebhookChange) (rest.WebhookChanged, error)
	DeleteWebhook(ctx context.Context, uid *uint32, id string) error
	// DropDeliveries ends every pending delivery of a webhook, configured or
	// not, as failed with the code dropped, except those in flight. What it has
	// counted is durable on return, also when it returns an error.
	DropDeliveries(ctx context.Context, webhook string) (int64, error)
}

// Refusal is an error of a [Control] with its place in HTTP.
type Refusal struct {
	Status   int    // HTTP status, 4xx or 5xx
	Code     string // one of the Code constants of package rest
	Field    string // key at fault; "" = none
	Message  string // what failed, on what, and what to do
	Findings []rest.Finding
}

func (r *Refusal) Error() string { return r.Message }

const (
	// maxPlanBody bounds a candidate: six files of the largest size that one may
	// have, or thousands of drop-ins.
	maxPlanBody = 64 << 20
	// maxPlanFiles bounds the files of a candidate.
	maxPlanFiles = 10_000
	// maxPlans is how many plans may be read or made at once: each holds a
	// configuration in memory, several times over while it is decoded.
	maxPlans = 2
)

func (a *API) postReload(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := noInput(w, r); err != nil {
		return nil, err
	}
	result, err := a.Control.Reload(r.Context(), peer(r))
	if err != nil {
		return nil, err
	}
	result.Changes = changes(result.Changes)
	result.RestartRequired, result.Findings = list(result.RestartRequired), list(result.Findings)
	if result.Result == rest.ReloadRejected {
		return withStatus{http.StatusUnprocessableEntity, result}, nil
	}
	return result, nil
}

// changes is c without a null.
func changes(c []rest.ConfigChange) []rest.ConfigChange {
	out := make([]rest.ConfigChange, 0, len(c))
	for _, change := range c {
		change.Fields = list(change.Fields)
		out = append(out, change)
	}
	return out
}

func (a *API) postPlan(w http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	select {
	case a.plans <- struct{}{}:
		defer func() { <-a.plans }()
	default:
		return nil, fail(http.StatusTooManyRequests, rest.CodeTooMany, "", "%d plans are being made; try again when one is done", maxPlans)
	}
	in, err := planRequest(w, r)
	if err != nil {
		return nil, err
	}
	result, err := a.Control.Plan(r.Context(), in)
	if err != nil {
		return nil, err
	}
	result.Changes = changes(result.Changes)
	result.RestartRequired, result.Findings = list(result.RestartRequired), list(result.Findings)
	result.Webhooks = list(result.Webhooks)
	return result, nil
}

// planRequest reads a candidate whose files have roles that fit together.
func planRequest(w http.ResponseWriter, r *http.Request) (in rest.PlanRequest, err error) {
	var body struct {
		Replace bool              `json:"replace"`
		Files   []json.RawMessage `json:"files"`
	}
	if err := decode(w, r, &body, "replace", "files"); err != nil {
		return in, err
	}
	if len(body.Files) > maxPlanFiles {
		return in, bad("files", "a candidate has at most %d files, not %d", maxPlanFiles, len(body.Files))
	}
	in = rest.PlanRequest{Replace: body.Replace, Files: make([]rest.PlanFile, len(body.Files))}
	seen := make(map[string]bool, len(body.Files))
	for i, raw := range body.Files {
		field := "files[" + strconv.Itoa(i) + "]"
		if _, err := keys(field, raw, "role", "name", "content"); err != nil {
			return in, err
		}
		if err := fillIn(raw, &in.Files[i]); err != nil {
			return in, err
		}
		role := in.Files[i].Role
		if role != rest.RoleMain && !isDropIn(role) {
			return in, bad(field+".role", `%q is neither "main" nor the name of a drop-in such as "50-crm.yaml"`, role)
		}
		if seen[role] {
			return in, bad(field+".role", "two files have the role %q", role)
		}
		seen[role] = true
	}
	if in.Replace && !seen[rest.RoleMain] {
		return in, bad("files", `with "replace" the files must have one with the role "main"`)
	}
	return in, nil
}

// isDropIn reports whether a file of this name in conf.d would be read.
func isDropIn(name string) bool {
	return name == path.Base(name) && strings.HasSuffix(name, ".yaml") && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#")
}

func (a *API) getConfig(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	return a.Control.Running()
}

func (a *API) getConfigHistory(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	answer := rest.ConfigHistory{Entries: []rest.ConfigEntry{}}
	for _, e := range a.Control.History().Entries {
		e.Changes, e.Files = changes(e.Changes), list(e.Files)
		answer.Entries = append(answer.Entries, e)
	}
	return answer, nil
}

func (a *API) getConfigFiles(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	text := r.PathValue("generation")
	generation, err := strconv.ParseUint(text, 10, 64)
	if err != nil || generation == 0 {
		return nil, bad("generation", "%q is not the number of a generation; GET /v1/config/history lists those there are", text)
	}
	files, err := a.Control.Files(generation)
	if err != nil {
		return nil, err
	}
	files.Files, files.Extra = list(files.Files), list(files.Extra)
	return files, nil
}

// deleteWebhookDeliveries drops what waits for a webhook, configured or not.
func (a *API) deleteWebhookDeliveries(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := noInput(w, r); err != nil {
		return nil, err
	}
	name := r.PathValue("id")
	if _, ok := a.webhook(name); !ok {
		return nil, a.noWebhook(name)
	}
	n, err := a.Control.DropDeliveries(r.Context(), name)
	if err != nil {
		return nil, err
	}
	return rest.Dropped{Webhook: name, Dropped: n}, nil
}
