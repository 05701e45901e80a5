package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// Plan says what a candidate would change, and what that means for deliveries.
// It changes nothing. Its error is a request that makes no sense.
func (r *Reloader) Plan(ctx context.Context, req *rest.PlanRequest) (rest.PlanResult, error) {
	files, err := r.candidate(req)
	if err != nil {
		return rest.PlanResult{}, err
	}
	cfg, report := r.Load(files)
	if cfg != nil {
		r.plugins(ctx, cfg, report)
	}
	out := rest.PlanResult{Valid: report.Err() == nil, Digest: report.Digest, Changes: []rest.ConfigChange{}, RestartRequired: []string{},
		Webhooks: []rest.PlanWebhook{}, Findings: shownFindings(report), Report: report.Text()}
	if report.Err() != nil {
		return out, nil
	}
	r.mu.Lock()
	running := r.state.cfg
	r.mu.Unlock()
	changes := config.Diff(running, cfg)
	out.Changes = shownChanges(changes)
	out.RestartRequired = list(config.RestartKeys(r.Boot, cfg))
	out.Webhooks = r.consequences(running, cfg, changes)
	return out, nil
}

// candidate are the files of a plan as if they were the daemon's; nil for those
// on the disk.
func (r *Reloader) candidate(req *rest.PlanRequest) ([]config.File, error) {
	if len(req.Files) == 0 {
		if req.Replace {
			return nil, errors.New("a candidate that replaces everything needs a main file")
		}
		return nil, nil
	}
	byPath := map[string]config.File{}
	if !req.Replace {
		_, report := r.Load(nil)
		for _, f := range report.Sources {
			byPath[f.Path] = f
		}
	}
	named := map[string]bool{}
	for _, f := range req.Files {
		path, err := r.pathOf(f.Role)
		if err != nil {
			return nil, err
		}
		if named[path] {
			return nil, fmt.Errorf("two files have the role %q", f.Role)
		}
		named[path] = true
		byPath[path] = config.File{Path: path, Shown: cmp.Or(f.Name, path), Data: []byte(f.Content), Mode: 0o600}
	}
	if _, ok := byPath[r.Path]; !ok {
		return nil, errors.New("the candidate has no main file")
	}
	files := []config.File{byPath[r.Path]}
	delete(byPath, r.Path)
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		files = append(files, byPath[path])
	}
	return files, nil
}

// pathOf is where a file of a role would be.
func (r *Reloader) pathOf(role string) (string, error) {
	if role == rest.RoleMain {
		return r.Path, nil
	}
	if !config.IsDropIn(role) {
		return "", fmt.Errorf("%q is neither %q nor the name of a drop-in", role, rest.RoleMain)
	}
	return filepath.Join(config.DropIns(r.Path), role), nil
}

// consequences says for each webhook that changes what follows for its
// deliveries.
func (r *Reloader) consequences(running, candidate *config.Config, changes []config.Change) []rest.PlanWebhook {
	before, after := byID(running), byID(candidate)
	out := []rest.PlanWebhook{}
	for i := range changes {
		c := &changes[i]
		if c.Object != rest.ObjectWebhook {
			continue
		}
		old, now := before[c.ID], after[c.ID]
		look := r.Outlook(cmp.Or(now, old))
		p := rest.PlanWebhook{Webhook: c.ID, Pending: look.Pending}
		p.NewEvents, p.Queued = consequence(c, old, now, &look, hasHelper(candidate, c.ID))
		if p.NewEvents != "" || p.Queued != "" {
			out = append(out, p)
		}
	}
	return out
}

func byID(c *config.Config) map[string]*config.Webhook {
	all := c.Webhooks()
	out := make(map[string]*config.Webhook, len(all))
	for i := range all {
		out[all[i].ID] = &all[i]
	}
	return out
}

func hasHelper(c *config.Config, webhook string) bool {
	helper, _, _ := strings.Cut(webhook, ".")
	return slices.ContainsFunc(c.Helpers, func(h config.Helper) bool { return h.ID == helper })
}

// consequence puts one row of the table of docs/config.md into words.
func consequence(c *config.Change, old, now *config.Webhook, look *Outlook, helper bool) (events, queued string) {
	switch {
	case now == nil:
		events = "are no longer queued for it"
		if !helper {
			events = "are refused: the helper is unknown"
		}
		return events, "are held (removed) for 7 days; they go on when the webhook returns with the same sink and host, then they fail with webhook_removed"
	case old == nil:
		events = enabledEvents(now)
		if look.Pending > 0 {
			queued = returned(now, look)
		}
		return events, queued
	}
	if old.Enabled != now.Enabled {
		if !now.Enabled {
			return "are not queued for it", "are held (disabled) until it is enabled"
		}
		return "are queued for it", "go on"
	}
	if slices.Contains(c.Fields, "events") {
		events = "are queued when the changed events list them"
		queued = "go on, listed or not"
	}
	if !slices.ContainsFunc(c.Fields, changesAttempts) {
		return events, queued
	}
	queued = "use the new values from the next attempt on"
	if !now.Enabled {
		queued = "stay held (disabled) until it is enabled, then use the new values"
	}
	return events, queued
}

// changesAttempts reports whether a key has to do with how attempts are made.
func changesAttempts(field string) bool { return field != "events" && field != "format" }

func enabledEvents(w *config.Webhook) string {
	if !w.Enabled {
		return "are not queued for it: it is disabled"
	}
	return "are queued for it"
}

func returned(now *config.Webhook, look *Outlook) string {
	switch {
	case !now.Enabled:
		return "are held (disabled) until it is enabled"
	case look.Moved:
		return "of before are held (returned): its sink or host is another one; `enable` releases them, `drop` discards them"
	}
	return "of before go on"
}
