package api

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	// maxScan and maxRounds bound the work of one page when the filter is on
	// something that the store does not know (held, in flight).
	maxScan   = 10_000
	maxRounds = 100
)

// getDeliveries lists the deliveries of all webhooks, or of the one in the
// path.
func (a *API) getDeliveries(_ http.ResponseWriter, r *http.Request) (any, error) {
	v := a.view()
	q, wanted, err := a.listQuery(r)
	if err != nil {
		return nil, err
	}
	if name := r.PathValue("id"); name != "" {
		w, ok := a.webhook(name)
		if !ok {
			return nil, a.noWebhook(name)
		}
		q.Lanes = []queue.Lane{w.Lane}
	}
	page := rest.DeliveryPage{Deliveries: []rest.Delivery{}}
	if !v.narrow(&q, wanted) {
		return page, nil
	}
	limit := q.Limit
	for scanned, round := 0, 0; len(page.Deliveries) < limit && scanned < maxScan && round < maxRounds; round++ {
		// No more rows than still fit, so that the store's cursor is the page's.
		q.Limit = limit - len(page.Deliveries)
		rows, next, err := a.Store.List(q)
		if err != nil {
			return nil, cursorError(q.Cursor, err)
		}
		for i := range rows {
			status := v.status(&rows[i])
			if len(wanted) == 0 || slices.Contains(wanted, status) {
				page.Deliveries = append(page.Deliveries, v.row(&rows[i], status))
			}
		}
		scanned += len(rows)
		q.Cursor, page.NextCursor = next, next
		if next == "" || len(rows) < q.Limit {
			// The end, or the store has done as much as it does for one page.
			break
		}
	}
	return page, nil
}

// listQuery reads the parameters of a listing. wanted is the statuses to show;
// empty = all.
func (a *API) listQuery(r *http.Request) (q queue.ListQuery, wanted []string, err error) {
	values, err := params(r, "status", "since", "until", "event", "limit", "cursor")
	if err != nil {
		return q, nil, err
	}
	if wanted, err = statuses(values.Get("status"), rest.Statuses()); err != nil {
		return q, nil, err
	}
	if q.Since, q.Until, err = span(values.Get("since"), values.Get("until"), a.Now()); err != nil {
		return q, nil, err
	}
	if q.EventType, err = a.eventType(values.Get("event")); err != nil {
		return q, nil, err
	}
	if q.Limit, err = limitOf(values.Get("limit")); err != nil {
		return q, nil, err
	}
	if q.Cursor = values.Get("cursor"); len(q.Cursor) > maxCursor {
		return q, nil, bad("cursor", "this is no next_cursor of a page")
	}
	return q, wanted, nil
}

// narrow restricts q to the states, and to the lanes, in which wanted can be
// found. It reports false when there is none.
func (v *view) narrow(q *queue.ListQuery, wanted []string) bool {
	if len(wanted) == 0 {
		return true
	}
	finished := false
	for _, status := range wanted {
		state := delivery.Pending
		switch status {
		case rest.StatusSuccess:
			state, finished = delivery.Success, true
		case rest.StatusFailed:
			state, finished = delivery.Failed, true
		}
		if !slices.Contains(q.States, state) {
			q.States = append(q.States, state)
		}
	}
	if finished {
		return true
	}
	if len(q.Lanes) == 0 {
		for lane := range v.api.Store.Lanes() {
			q.Lanes = append(q.Lanes, lane)
		}
	}
	q.Lanes = slices.DeleteFunc(q.Lanes, func(n queue.Lane) bool {
		l := v.lane(n)
		held := slices.Contains(wanted, rest.StatusHeld) && l.Hold != ""
		pending := slices.Contains(wanted, rest.StatusPending) && l.Hold == ""
		inFlight := slices.Contains(wanted, rest.StatusInFlight) && l.InFlight > 0
		return !held && !pending && !inFlight
	})
	return len(q.Lanes) > 0
}

// cursorError tells a cursor that is not one from a failure of the store.
func cursorError(cursor string, err error) error {
	if errors.Is(err, queue.ErrBadCursor) {
		return bad("cursor", "%q is no next_cursor of a page", cursor)
	}
	return err
}

// eventType reads the name of an event type as the configuration file takes it:
// create, created and entry.created are the same.
func (a *API) eventType(text string) (string, error) {
	switch text {
	case "", "all":
		return "", nil
	case "create", "created":
		return event.Created, nil
	case "update", "updated":
		return event.Updated, nil
	case "delete", "deleted":
		return event.Deleted, nil
	}
	if strings.Contains(text, ".") {
		return text, nil
	}
	known := []string{event.Created, event.Updated, event.Deleted}
	for _, h := range a.Catalog().Helpers {
		for _, name := range h.Events {
			if !slices.Contains(known, name) {
				known = append(known, name)
			}
		}
	}
	return "", bad("event", "unknown event %q%s", text, instead(text, known))
}

// find reads the id in the path and looks its delivery up.
func (a *API) find(r *http.Request) (queue.Summary, error) {
	text := r.PathValue("id")
	store, lane, seq, ok := id.ParseDelivery(text)
	switch {
	case !ok && strings.HasPrefix(text, "evt_"):
		return queue.Summary{}, fail(http.StatusNotFound, rest.CodeNotFound, "id",
			"%q is the id of an event, not of a delivery: see /v1/events/%s", text, text)
	case !ok:
		return queue.Summary{}, fail(http.StatusNotFound, rest.CodeNotFound, "id",
			"%q is not the id of a delivery; those begin with del_ and have %d characters", text, id.DeliveryLen)
	case a.Store.StoreID() == 0:
		return queue.Summary{}, queue.ErrStopped
	case store != a.Store.StoreID():
		return queue.Summary{}, fail(http.StatusNotFound, rest.CodeNotFound, "id",
			"delivery %q belongs to another data directory than the one in use", text)
	}
	s, err := a.Store.Summary(queue.Lane(lane), seq)
	if errors.Is(err, queue.ErrNotFound) {
		return s, fail(http.StatusNotFound, rest.CodeNotFound, "id",
			"there is no delivery %q (any more): history.delivered and history.failed say how long finished ones are kept", text)
	}
	return s, err
}

func (a *API) getDelivery(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	s, err := a.find(r)
	if err != nil {
		return nil, err
	}
	attempts, err := a.Store.Attempts(s.Lane, s.Seq)
	if err != nil && !errors.Is(err, queue.ErrNotFound) {
		return nil, err
	}
	v := a.view()
	detail := rest.DeliveryDetail{Delivery: v.row(&s, v.status(&s)), Log: make([]rest.Attempt, 0, len(attempts))}
	o := outbound(&s, v.lane(s.Lane).Shown.ID)
	detail.WaitsFor = a.waitsFor(&s)
	detail.Format, o.Payload, err = a.payload(&s)
	if err != nil {
		return nil, err
	}
	detail.Payload, detail.PayloadExpired = string(o.Payload), o.Payload == nil
	for i := range attempts {
		detail.Log = append(detail.Log, a.attemptDocument(&attempts[i], o))
	}
	if n := len(attempts); n > 0 && o.Payload != nil {
		detail.Curl = a.curl(&attempts[n-1], o)
	}
	detail.Explanation = v.explain(&s, &detail, attempts)
	return detail, nil
}

// waitsFor is the earlier delivery of its entry that a pending one waits for.
func (a *API) waitsFor(s *queue.Summary) string {
	seq := s.WaitsFor
	if seq == 0 && s.State == delivery.Pending {
		seq = a.Dispatcher.WaitsFor(s.Lane, s.Seq)
	}
	store, _, _, ok := id.ParseDelivery(s.ID)
	if seq == 0 || !ok {
		return ""
	}
	return id.Delivery(store, uint32(s.Lane), seq)
}

// outbound says of a delivery what its requests' headers say.
func outbound(s *queue.Summary, webhook string) *delivery.Outbound {
	return &delivery.Outbound{DeliveryID: s.ID, EventID: s.EventID, EventType: s.EventType, EntryID: s.EntryID, Webhook: webhook}
}

// payload is the bytes that delivery s sends; nil once they were let go.
func (a *API) payload(s *queue.Summary) (format string, bytes []byte, err error) {
	record, err := a.Store.Event(s.Seq)
	if err != nil {
		if errors.Is(err, queue.ErrNotFound) || errors.Is(err, queue.ErrPayloadExpired) {
			err = nil
		}
		if i := slices.IndexFunc(a.Catalog().Webhooks, func(w Webhook) bool { return w.Lane == s.Lane }); i >= 0 {
			format = a.Catalog().Webhooks[i].Shown.Format
		}
		return format, nil, err
	}
	for _, d := range record.Deliveries {
		if d.Lane == s.Lane {
			return formatName(d.Format), record.Payloads[d.Format], nil
		}
	}
	return "", nil, nil
}

func (a *API) postRetry(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := noInput(w, r); err != nil {
		return nil, err
	}
	s, err := a.find(r)
	if err != nil {
		return nil, err
	}
	if err := a.Dispatcher.Retry(r.Context(), s.Lane, s.Seq); err != nil {
		return nil, err
	}
	v := a.view()
	if s, err = a.Store.Summary(s.Lane, s.Seq); err != nil {
		return nil, err
	}
	return withStatus{http.StatusAccepted, v.row(&s, v.status(&s))}, nil
}

// deleteDelivery answers with the delivery as it was.
func (a *API) deleteDelivery(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := noInput(w, r); err != nil {
		return nil, err
	}
	s, err := a.find(r)
	if err != nil {
		return nil, err
	}
	if s.State == delivery.Success {
		return nil, fail(http.StatusConflict, rest.CodeFinished, "", "delivery %q was delivered; only a pending, held or failed one can be discarded", s.ID)
	}
	v := a.view()
	before := v.row(&s, v.status(&s))
	if err := a.Dispatcher.Drop(r.Context(), s.Lane, s.Seq); err != nil {
		return nil, err
	}
	return before, nil
}

// noInput refuses parameters and keys of routes that take none.
func noInput(w http.ResponseWriter, r *http.Request) error {
	if _, err := params(r); err != nil {
		return err
	}
	return decode(w, r, &struct{}{})
}
