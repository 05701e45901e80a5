package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/where"
)

func (a *API) getHelpers(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	answer := rest.Helpers{Helpers: []rest.Helper{}}
	for _, h := range a.Catalog().Helpers {
		h.Fields, h.Events, h.Webhooks = list(h.Fields), list(h.Events), list(h.Webhooks)
		answer.Helpers = append(answer.Helpers, h)
	}
	return answer, nil
}

// list is l, which as JSON is never null.
func list[E any](l []E) []E {
	if l == nil {
		return []E{}
	}
	return l
}

// getWebhooks lists what is configured, then what left the configuration and
// still has deliveries to make.
func (a *API) getWebhooks(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	answer := rest.Webhooks{Webhooks: []rest.Webhook{}}
	for _, l := range a.lanes() {
		w, err := a.webhookDocument(l)
		if err != nil {
			return nil, err
		}
		answer.Webhooks = append(answer.Webhooks, w)
	}
	return answer, nil
}

func (a *API) getWebhook(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	name := r.PathValue("id")
	w, ok := a.webhook(name)
	if !ok {
		return nil, a.noWebhook(name)
	}
	return a.webhookDocument(a.fullLane(w))
}

// fullLane is a webhook with everything that is known of its lane from memory.
type fullLane struct {
	Webhook
	LaneState
	stats queue.LaneStats
}

// oldest is when the oldest delivery was accepted that waits for its first
// attempt; zero = none, or it cannot be told now.
func (a *API) oldest(l *fullLane) time.Time {
	if l.stats.Ready == 0 {
		return time.Time{}
	}
	t, err := a.Store.OldestAccepted(l.Lane)
	if err != nil {
		a.Logger.Warn("oldest delivery cannot be told", "webhook", l.Shown.ID, "err", err)
		return time.Time{}
	}
	return t
}

// lanes are the configured webhooks, in their order, then those that left the
// configuration and still have something pending. Nothing is read from disk.
func (a *API) lanes() []fullLane {
	stats := maps.Collect(a.Store.Lanes())
	var all []fullLane
	for _, w := range a.Catalog().Webhooks {
		all = append(all, fullLane{w, a.state(w), stats[w.Lane]})
		delete(stats, w.Lane)
	}
	for _, lane := range slices.Sorted(maps.Keys(stats)) {
		if s := stats[lane]; s.Pending() > 0 {
			w := removed(lane, s.Webhook)
			all = append(all, fullLane{w, a.state(w), s})
		}
	}
	return all
}

func (l *fullLane) counts() rest.Counts {
	c := rest.Counts{Pending: l.stats.Pending(), InFlight: int64(l.InFlight), Success: l.stats.Success, Failed: l.stats.Failed, LiveBytes: l.stats.LiveBytes}
	if l.Hold != "" {
		c.Held = max(c.Pending-c.InFlight, 0)
	}
	return c
}

func (l *fullLane) short() rest.Lane {
	s := rest.Lane{Webhook: l.Shown.ID, State: rest.WebhookActive, HeldReason: string(l.Hold), Counts: l.counts()}
	if l.Hold != "" {
		s.State, s.HeldUntil = rest.WebhookHeld, rest.At(l.HoldUntil)
	} else {
		s.NextAttemptAt = rest.At(l.NextDue)
	}
	return s
}

func (a *API) webhookDocument(l fullLane) (rest.Webhook, error) {
	w, short := l.Shown, l.short()
	w.Headers, w.Events, w.Signatures = list(w.Headers), list(w.Events), list(w.Signatures)
	for i := range w.Signatures {
		w.Signatures[i].Headers = list(w.Signatures[i].Headers)
	}
	w.Retry.Schedule, w.Retry.AlsoOn = list(w.Retry.Schedule), list(w.Retry.AlsoOn)
	w.State, w.HeldReason, w.HeldText = short.State, short.HeldReason, heldText(l.LaneState)
	w.HeldUntil = short.HeldUntil
	w.Counts, w.NextAttemptAt = short.Counts, short.NextAttemptAt
	last, err := a.last(l.Lane)
	w.Last = last
	return w, err
}

// last is the delivery whose attempt was recorded last, or the newest finished
// one; nil without any.
func (a *API) last(lane queue.Lane) (*rest.Delivery, error) {
	v := a.view()
	if seq, ok := a.Feed.lastAttempt(lane); ok {
		s, err := a.Store.Summary(lane, seq)
		if err == nil {
			return new(v.row(&s, v.status(&s))), nil
		}
		if !errors.Is(err, queue.ErrNotFound) {
			return nil, err
		}
	}
	rows, _, err := a.Store.List(queue.ListQuery{Lanes: []queue.Lane{lane},
		States: []delivery.State{delivery.Success, delivery.Failed}, Limit: 1})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return new(v.row(&rows[0], v.status(&rows[0]))), nil
}

// noWebhook answers an unknown id with what was probably meant.
func (a *API) noWebhook(name string) error {
	var known []string
	for _, w := range a.Catalog().Webhooks {
		known = append(known, w.Shown.ID)
	}
	return fail(http.StatusNotFound, rest.CodeNotFound, "id", "there is no webhook %q%s", name, instead(name, known))
}

// configured finds a webhook that an operation needs to be running.
func (a *API) configured(name string) (Webhook, error) {
	w, ok := a.webhook(name)
	switch {
	case !ok:
		return w, a.noWebhook(name)
	case w.isRemoved():
		return w, fail(http.StatusConflict, rest.CodeRemoved, "id", "webhook %q is no longer in the configuration", name)
	}
	return w, nil
}

// postTest sends a sample and answers when the attempt is over.
func (a *API) postTest(rw http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	w, err := a.configured(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	var in rest.TestRequest
	if err := decode(rw, r, &in, "event"); err != nil {
		return nil, err
	}
	if in.Event, err = a.eventType(in.Event); err != nil {
		return nil, err
	}
	o, err := a.Sample(w.Shown.ID, in.Event)
	if err != nil {
		return nil, bad("event", "%v", err)
	}
	select {
	case a.tests <- struct{}{}:
		defer func() { <-a.tests }()
	default:
		return nil, fail(http.StatusTooManyRequests, rest.CodeTooMany, "", "%d tests are under way; try again when one is over", maxTests)
	}
	t, err := a.Dispatcher.Test(r.Context(), w.Lane, o)
	if err != nil {
		if errors.Is(err, context.Canceled) || errors.Is(err, queue.ErrStopped) || errors.Is(err, delivery.ErrShutdown) {
			return nil, fail(http.StatusServiceUnavailable, rest.CodeUnavailable, "", "test of %q: %v", w.Shown.ID, err)
		}
		return nil, fail(http.StatusConflict, rest.CodeNotTestable, "", "test of %q: %v", w.Shown.ID, err)
	}
	return rest.TestResult{
		Webhook: w.Shown.ID, EventID: o.EventID, DeliveryID: o.DeliveryID, Event: o.EventType, EntryID: o.EntryID, Payload: string(o.Payload),
		Delivered: t.Outcome == delivery.Delivered || t.Outcome == delivery.Skipped,
		Attempt:   a.attemptDocument(&t, o), Curl: a.curl(&t, o),
	}, nil
}

// maxRate bounds a replay's rate; no lane is that fast.
const maxRate = 1e6

// postReplay starts a replay, or counts what one would put back.
func (a *API) postReplay(rw http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	w, err := a.configured(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	var in rest.ReplayRequest
	if err := decode(rw, r, &in, "since", "until", "status", "event", "event_id", "where", "rate", "dry_run"); err != nil {
		return nil, err
	}
	job, err := a.replayJob(w.Lane, &in)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		counted, err := a.Store.CountReplay(r.Context(), job)
		if err != nil {
			return nil, noEvent(job.EventID, err)
		}
		answer := a.replayDocument(&counted)
		answer.DryRun = true
		return answer, nil
	}
	if job, err = a.Dispatcher.Replay(r.Context(), job); err != nil {
		return nil, noEvent(job.EventID, err)
	}
	return withStatus{http.StatusAccepted, a.replayDocument(&job)}, nil
}

// noEvent answers a replay of one event that there is not.
func noEvent(id string, err error) error {
	if id != "" && errors.Is(err, queue.ErrNotFound) {
		return fail(http.StatusNotFound, rest.CodeNotFound, "event_id", "there is no event %q, or it was let go by retention", id)
	}
	return err
}

func (a *API) replayJob(lane queue.Lane, in *rest.ReplayRequest) (queue.ReplayJob, error) {
	job := queue.ReplayJob{Lane: lane, Rate: in.Rate, EventID: in.EventID, Where: in.Where}
	if in.Where != "" {
		if _, err := where.Compile(in.Where); err != nil {
			return job, bad("where", "where: %v", err)
		}
	}
	if in.Rate < 0 || in.Rate > maxRate {
		return job, bad("rate", "rate must be from 0 (no limit) to %g deliveries a second, not %g", float64(maxRate), in.Rate)
	}
	wanted, err := statuses(in.Status, []string{rest.StatusFailed, rest.StatusSuccess})
	if err != nil {
		return job, err
	}
	if len(wanted) == 0 {
		wanted = []string{rest.StatusFailed}
		if in.EventID != "" { // whoever names an event means it, however it ended
			wanted = append(wanted, rest.StatusSuccess)
		}
	}
	for _, status := range wanted {
		state := delivery.Failed
		if status == rest.StatusSuccess {
			state = delivery.Success
		}
		job.States = append(job.States, state)
	}
	if job.Since, job.Until, err = span(in.Since, in.Until, a.Now()); err != nil {
		return job, err
	}
	job.EventType, err = a.eventType(in.Event)
	return job, err
}

func (a *API) replayDocument(job *queue.ReplayJob) rest.Replay {
	d := rest.Replay{ID: job.ID, Webhook: a.Store.LaneName(job.Lane), Status: make([]string, 0, len(job.States)), Event: job.EventType,
		Since: rest.At(job.Since), Until: rest.At(job.Until), Rate: job.Rate, Matched: job.Matched,
		Requeued: job.Requeued, Expired: job.Expired, Done: job.Done, StartedAt: rest.At(job.Started),
		EventID: job.EventID, Where: job.Where, Undecided: job.Undecided, Trouble: job.Trouble}
	for _, state := range job.States {
		d.Status = append(d.Status, state.String())
	}
	return d
}

func (a *API) getReplays(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	jobs := a.Dispatcher.Replays()
	answer := rest.Replays{Replays: make([]rest.Replay, 0, len(jobs))}
	for i := range jobs {
		answer.Replays = append(answer.Replays, a.replayDocument(&jobs[i]))
	}
	return answer, nil
}

// deleteReplay cancels a replay and answers with how far it came.
func (a *API) deleteReplay(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := noInput(w, r); err != nil {
		return nil, err
	}
	name := r.PathValue("id")
	var found *queue.ReplayJob
	for _, job := range a.Dispatcher.Replays() {
		if job.ID == name {
			found = &job
		}
	}
	err := error(queue.ErrNotFound)
	if found != nil {
		err = a.Dispatcher.CancelReplay(r.Context(), name)
	}
	if errors.Is(err, queue.ErrNotFound) {
		return nil, fail(http.StatusNotFound, rest.CodeNotFound, "id", "there is no replay %q; GET /v1/replays lists those there are", name)
	}
	if err != nil {
		return nil, fmt.Errorf("cancel replay %q: %w", name, err)
	}
	return a.replayDocument(found), nil
}
