package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// getEvent shows every event that has the id: senders of different helpers may
// have used the same one.
func (a *API) getEvent(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	text := r.PathValue("id")
	records, err := a.Store.FindEvent(text)
	if err != nil && !errors.Is(err, queue.ErrNotFound) {
		return nil, err
	}
	if len(records) == 0 {
		return nil, a.noEvent(text)
	}
	v := a.view()
	answer := rest.Events{Events: make([]rest.Event, 0, len(records))}
	for i := range records {
		e, err := v.event(&records[i])
		if err != nil {
			return nil, err
		}
		answer.Events = append(answer.Events, e)
	}
	return answer, nil
}

func (a *API) noEvent(text string) error {
	hint := "history.payloads says how long events are kept"
	if strings.HasPrefix(text, "del_") {
		hint = fmt.Sprintf("this is the id of a delivery: see /v1/deliveries/%s", text)
	} else if store, _, ok := id.ParseEvent(text); ok && store != a.Store.StoreID() {
		hint = "its id was given out by another data directory than the one in use"
	}
	return fail(http.StatusNotFound, rest.CodeNotFound, "id", "there is no event %q (any more); %s", text, hint)
}

func (v *view) event(record *queue.EventRecord) (rest.Event, error) {
	e := rest.Event{
		ID: record.ID, Helper: record.Helper, Event: record.Type, EntryID: record.EntryID,
		Timestamp: rest.At(record.Timestamp), AcceptedAt: rest.At(record.Accepted), Unstable: record.Unstable,
		Payloads: []rest.Payload{}, Deliveries: make([]rest.Delivery, 0, len(record.Deliveries)),
		Skipped: make([]rest.Skip, 0, len(record.Skipped)),
	}
	for format, bytes := range record.Payloads {
		if bytes != nil {
			e.Payloads = append(e.Payloads, rest.Payload{Format: formatName(queue.Format(format)), Body: string(bytes)})
		}
	}
	gone := 0
	for _, d := range record.Deliveries {
		s, err := v.api.Store.Summary(d.Lane, record.Seq)
		if errors.Is(err, queue.ErrNotFound) {
			gone++
			continue
		}
		if err != nil {
			return e, err
		}
		e.Deliveries = append(e.Deliveries, v.row(&s, v.status(&s)))
	}
	for _, skip := range record.Skipped {
		w := v.lane(skip.Lane).Webhook
		e.Skipped = append(e.Skipped, rest.Skip{Webhook: w.Shown.ID, Reason: skip.Reason.String(),
			Explanation: explainSkip(w, skip.Reason, record.Type)})
	}
	e.Explanation = v.explainEvent(record, &e, gone)
	return e, nil
}

// explainEvent says how far the event has come and which webhooks it never met.
func (v *view) explainEvent(record *queue.EventRecord, e *rest.Event, gone int) []string {
	var text []string
	switch n := len(record.Deliveries); {
	case n == 0 && len(record.Skipped) == 0:
		text = append(text, fmt.Sprintf("The event matched nothing: helper %s had no webhooks when it came.", record.Helper))
	case n == 0:
		text = append(text, "The event matched nothing: every webhook of its helper was skipped.")
	default:
		text = append(text, fmt.Sprintf("The event made %d %s: %s.", n, deliveries(n), tally(e.Deliveries, gone)))
	}
	for _, skip := range e.Skipped {
		text = append(text, "Skipped: "+skip.Explanation+".")
	}
	for _, w := range v.api.Catalog().Webhooks {
		if w.Shown.Helper != record.Helper || met(record, w.Lane) {
			continue
		}
		text = append(text, fmt.Sprintf("Webhook %s came into the configuration after the event.", w.Shown.ID))
	}
	return text
}

func met(record *queue.EventRecord, lane queue.Lane) bool {
	return slices.ContainsFunc(record.Deliveries, func(d queue.NewDelivery) bool { return d.Lane == lane }) ||
		slices.ContainsFunc(record.Skipped, func(s queue.Skip) bool { return s.Lane == lane })
}

// tally counts deliveries by status: "2 success, 1 held (disabled)".
func tally(rows []rest.Delivery, gone int) string {
	var parts []string
	for _, status := range rest.Statuses() {
		n, reasons := 0, []string{}
		for i := range rows {
			if rows[i].Status != status {
				continue
			}
			n++
			if reason := rows[i].HeldReason; reason != "" && !slices.Contains(reasons, reason) {
				reasons = append(reasons, reason)
			}
		}
		switch {
		case n == 0:
		case len(reasons) > 0:
			parts = append(parts, fmt.Sprintf("%d %s (%s)", n, status, strings.Join(reasons, ", ")))
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, status))
		}
	}
	if gone > 0 {
		parts = append(parts, fmt.Sprintf("%d no longer in the delivery log", gone))
	}
	return strings.Join(parts, ", ")
}

func deliveries(n int) string {
	if n == 1 {
		return "delivery"
	}
	return "deliveries"
}
