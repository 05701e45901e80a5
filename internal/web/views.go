package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	// maxRows is how many webhooks one page of the overview shows.
	maxRows = 200
	// logRows is how many deliveries one page of the log shows.
	logRows = 50
)

// overviewPage is the helpers with their webhooks.
type overviewPage struct {
	Helpers []helperView
	Shown   int // webhooks on this page, of All, after From
	All     int
	From    int
	Next    int // From of the next page; 0 = none
}

type helperView struct {
	rest.Helper
	Gone     bool // its webhooks left the configuration
	Webhooks []webhookRow
}

type webhookRow struct {
	rest.Webhook
	Hour chart
}

func (s *Server) overview(in *visit) (page, error) {
	ctx := in.Context()
	helpers, err := s.client.Helpers(ctx)
	if err != nil {
		return page{}, err
	}
	webhooks, err := s.client.Webhooks(ctx)
	if err != nil {
		return page{}, err
	}
	all := webhooks.Webhooks
	from, _ := strconv.Atoi(in.URL.Query().Get("from")) // what is no number is the beginning
	from = max(0, min(from, len(all)))
	body := overviewPage{All: len(all), From: from}
	shown := all[from:min(from+maxRows, len(all))]
	body.Shown = len(shown)
	if next := from + len(shown); next < len(all) {
		body.Next = next
	}
	for _, h := range helpers.Helpers {
		body.Helpers = append(body.Helpers, helperView{Helper: h})
	}
	for _, w := range shown {
		minutes, err := s.client.Minutes(ctx, w.ID)
		if err != nil && !gone(err) {
			return page{}, err
		}
		row := webhookRow{w, newChart(minutes.Minutes)}
		i := slices.IndexFunc(body.Helpers, func(h helperView) bool { return slices.Contains(h.Helper.Webhooks, w.ID) })
		if i < 0 {
			body.Helpers = append(body.Helpers, helperView{Helper: rest.Helper{ID: "removed", Name: "No longer in the configuration", Webhooks: []string{w.ID}}, Gone: true})
			i = len(body.Helpers) - 1
		}
		if body.Helpers[i].Gone {
			body.Helpers[i].Helper.Webhooks = append(body.Helpers[i].Helper.Webhooks, w.ID)
		}
		body.Helpers[i].Webhooks = append(body.Helpers[i].Webhooks, row)
	}
	body.Helpers = mergeGone(body.Helpers)
	return page{Title: "Overview", Area: "overview", Live: true, Body: body}, nil
}

// mergeGone makes one group of all webhooks that left the configuration, and drops
// helpers whose webhooks are on another page.
func mergeGone(helpers []helperView) (out []helperView) {
	var removed helperView
	for _, h := range helpers {
		switch {
		case h.Gone && removed.ID == "":
			removed = h
		case h.Gone:
			removed.Webhooks = append(removed.Webhooks, h.Webhooks...)
		case len(h.Webhooks) > 0 || len(h.Helper.Webhooks) == 0:
			out = append(out, h)
		}
	}
	if removed.ID != "" {
		out = append(out, removed)
	}
	return out
}

// gone reports whether something was there a moment ago.
func gone(err error) bool {
	refused, ok := err.(*adminclient.Error)
	return ok && refused.Status == http.StatusNotFound
}

// logView is a page of the delivery log with its filter.
type logView struct {
	Action   string // path that the filter asks
	Statuses []string
	Events   []string // to choose from; empty = any text
	Status   string   // chosen; "" = all
	Event    string
	Since    string
	Rows     []rest.Delivery
	Webhooks bool   // rows of several: say which
	Older    string // the next page; "" = this is the last
	Cut      bool   // this is not the first page
	Told     string // why the filter is wrong; "" = it is not
}

// log reads the filter in the query and asks for its page. A filter that is wrong is said
// beside it.
func (s *Server) log(ctx context.Context, query url.Values, webhook string) (logView, error) {
	v := logView{Statuses: rest.Statuses(), Status: query.Get("status"), Event: query.Get("event"), Since: strings.TrimSpace(query.Get("since")),
		Webhooks: webhook == "", Cut: query.Get("cursor") != "", Action: "/deliveries"}
	if webhook != "" {
		v.Action = pathOf("webhooks", webhook)
	}
	q := adminclient.DeliveryQuery{Webhook: webhook, Event: v.Event, Since: v.Since, Limit: logRows, Cursor: query.Get("cursor")}
	if v.Status != "" {
		q.Status = []string{v.Status}
	}
	found, err := s.client.Deliveries(ctx, q)
	if err != nil {
		if refused, ok := err.(*adminclient.Error); ok && refused.Status == http.StatusBadRequest {
			v.Told = refused.Message
			return v, nil
		}
		return v, err
	}
	v.Rows = found.Deliveries
	if found.NextCursor != "" {
		older := url.Values{"cursor": {found.NextCursor}}
		for name, value := range map[string]string{"status": v.Status, "event": v.Event, "since": v.Since} {
			if value != "" {
				older.Set(name, value)
			}
		}
		v.Older = v.Action + "?" + older.Encode()
	}
	return v, nil
}

// deliveriesPage is the log of all webhooks.
type deliveriesPage struct{ Log logView }

func (s *Server) deliveries(in *visit) (page, error) {
	v, err := s.log(in.Context(), in.URL.Query(), "")
	return page{Title: "Deliveries", Area: "deliveries", Live: !v.Cut, Body: deliveriesPage{v}}, err
}

// webhookPage is one webhook: how it fares, what was sent, what can be done.
type webhookPage struct {
	rest.Webhook
	Events  []string
	Hour    chart
	Log     logView
	Removed bool
}

func (s *Server) webhook(in *visit) (page, error) {
	ctx, id := in.Context(), in.PathValue("id")
	w, err := s.client.Webhook(ctx, id)
	if err != nil {
		return page{}, err
	}
	minutes, err := s.client.Minutes(ctx, id)
	if err != nil {
		return page{}, err
	}
	v, err := s.log(ctx, in.URL.Query(), id)
	if err != nil {
		return page{}, err
	}
	v.Events = w.Events
	body := webhookPage{Webhook: w, Events: w.Events, Hour: newChart(minutes.Minutes), Log: v, Removed: w.Sink == ""}
	return page{Title: w.ID, Area: "overview", Live: !v.Cut, Stream: url.Values{"webhook": {id}}.Encode(), Body: body}, nil
}

// deliveryPage is one delivery. Its attempts are shown newest first.
type deliveryPage struct {
	rest.DeliveryDetail
	Attempts []attemptView
}

type attemptView struct {
	rest.Attempt
	Newest bool
	Phases []phase
}

func (s *Server) delivery(in *visit) (page, error) {
	d, err := s.client.Delivery(in.Context(), in.PathValue("id"))
	if err != nil {
		return page{}, err
	}
	body := deliveryPage{DeliveryDetail: d}
	for i, a := range slices.Backward(d.Log) {
		body.Attempts = append(body.Attempts, attemptView{a, i == len(d.Log)-1, phases(&a)})
	}
	return page{Title: "Delivery " + d.ID, Area: "deliveries", Live: true, Stream: url.Values{"webhook": {d.Webhook}}.Encode(), Body: body}, nil
}

func (s *Server) event(in *visit) (page, error) {
	e, err := s.client.Event(in.Context(), in.PathValue("id"))
	return page{Title: "Event " + in.PathValue("id"), Area: "deliveries", Live: true, Body: e}, err
}

func (s *Server) replays(in *visit) (page, error) {
	r, err := s.client.Replays(in.Context())
	slices.Reverse(r.Replays)
	return page{Title: "Replays", Area: "replays", Live: true, Body: r}, err
}

// configurationPage is what runs, what the files say, and the plugins.
type configurationPage struct {
	// Plan is what the files as they are now would change, when they are not what runs;
	// nil = they are, or it cannot be told now.
	Plan    *rest.PlanResult
	History []rest.ConfigEntry // newest first
}

func (s *Server) configuration(in *visit) (page, error) {
	status, err := s.client.Status(in.Context())
	if err != nil {
		return page{}, err
	}
	history, err := s.client.ConfigHistory(in.Context())
	if err != nil {
		return page{}, err
	}
	body := configurationPage{History: history.Entries[:min(len(history.Entries), 20)]}
	if status.Config.State != rest.ConfigCurrent {
		// The status has the first error of the files; a plan has all of them.
		if plan, err := s.client.Plan(in.Context(), rest.PlanRequest{}); err == nil {
			body.Plan = &plan
		}
	}
	return page{Title: "Configuration and plugins", Area: "configuration", Live: true, Stream: "none", Status: &status, Body: body}, nil
}

// find goes to the delivery or event with an id.
func (s *Server) find(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimSpace(r.URL.Query().Get("id"))
	to := "/events/" + url.PathEscape(id)
	switch {
	case id == "":
		to = "/deliveries"
	case strings.HasPrefix(id, "del_"):
		to = "/deliveries/" + url.PathEscape(id)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}
