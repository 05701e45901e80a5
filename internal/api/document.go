package api

import (
	"encoding/base64"
	"time"
	"unicode/utf8"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// view is the webhooks and the states of their lanes as one request sees them:
// every lane is looked up once, so that one answer does not contradict itself.
type view struct {
	api   *API
	lanes map[queue.Lane]laneView
}

type laneView struct {
	Webhook
	LaneState
}

func (a *API) view() *view { return &view{api: a, lanes: map[queue.Lane]laneView{}} }

func (v *view) lane(n queue.Lane) laneView {
	l, ok := v.lanes[n]
	if !ok {
		l.Webhook = v.api.webhookOf(n)
		l.LaneState = v.api.state(l.Webhook)
		v.lanes[n] = l
	}
	return l
}

// state asks the dispatcher, except for what left the configuration before the
// dispatcher ever knew it, or came to it and is not known yet: so it is for a moment
// when the daemon starts.
func (a *API) state(w Webhook) LaneState {
	s := a.Dispatcher.LaneState(w.Lane)
	switch {
	case w.isRemoved() && s.Hold == "":
		s.Hold = delivery.HoldRemoved
	case !w.isRemoved() && s.Hold == delivery.HoldRemoved:
		s.Hold, s.HoldUntil = "", time.Time{}
	}
	return s
}

// removed is what is left of a webhook that is not in the configuration.
func removed(lane queue.Lane, id string) Webhook {
	return Webhook{Lane: lane, Shown: rest.Webhook{ID: id}}
}

// isRemoved reports whether the webhook is one of removed: a configured one
// always has a sink.
func (w Webhook) isRemoved() bool { return w.Shown.Sink == "" }

// status is the state that a row shows.
func (v *view) status(s *queue.Summary) string {
	switch {
	case s.State != delivery.Pending:
		return s.State.String()
	case v.api.Dispatcher.InFlight(s.Lane, s.Seq):
		return rest.StatusInFlight
	case v.lane(s.Lane).Hold != "":
		return rest.StatusHeld
	}
	return s.State.String()
}

// row makes a listing's row of s, whose status is known.
func (v *view) row(s *queue.Summary, status string) rest.Delivery {
	d := rest.Delivery{
		ID: s.ID, Webhook: v.lane(s.Lane).Shown.ID, EventID: s.EventID, Event: s.EventType, EntryID: s.EntryID,
		Status: status, StatusCode: rest.StatusCode(s.StatusCode), Attempts: s.Attempts,
		CreatedAt: rest.At(s.Accepted), Code: string(s.Code), Error: s.Error, Unstable: s.Unstable,
	}
	switch status {
	case rest.StatusSuccess:
		d.DeliveredAt = rest.At(s.Finished)
	case rest.StatusFailed:
		d.FailedAt = rest.At(s.Finished)
	case rest.StatusHeld:
		d.HeldReason = string(v.lane(s.Lane).Hold)
	case rest.StatusPending:
		d.NextAttemptAt = rest.At(s.Next)
	}
	return d
}

func formatName(f queue.Format) string {
	if f == queue.FormatEvent {
		return "event"
	}
	return "peanuts"
}

// attemptDocument shows one attempt. o identifies the delivery in the request's
// headers.
func (a *API) attemptDocument(t *delivery.Attempt, o *delivery.Outbound) rest.Attempt {
	d := rest.Attempt{
		Number: t.Number, StartedAt: rest.At(t.Started), Duration: rest.Millis(t.Duration),
		Phases: rest.Phases{DNS: rest.Millis(t.Phases.DNS), Connect: rest.Millis(t.Phases.Connect),
			TLS: rest.Millis(t.Phases.TLS), FirstByte: rest.Millis(t.Phases.FirstByte)},
		Reused: t.Reused, Remote: t.Remote,
		Outcome: t.Outcome.String(), Code: string(t.Code), Error: t.Error,
		Message: t.Message, RemoteURL: t.RemoteURL, RetryAfter: rest.Millis(t.RetryAfter),
		Rule: string(t.Rule), RuleText: ruleText(t), State: t.State.String(),
	}
	if t.Request != nil {
		d.Request = &rest.Request{Method: t.Request.Method, URL: t.Request.URL, Headers: headers(a.requestHeaders(t, o))}
	}
	if t.Status != 0 {
		d.Response = &rest.Response{Status: t.Status, Headers: headers(t.Headers), BodyTruncated: t.BodyTruncated}
		d.Response.Body, d.Response.BodyEncoding = excerpt(t.Body, t.BodyTruncated)
	}
	if t.State == delivery.Pending && t.NextIn > 0 {
		d.NextAttemptAt = rest.At(t.Started.Add(t.Duration + t.NextIn))
	}
	return d
}

// requestHeaders is what attempt t sent. o is shared between attempts, so its
// number is set on a copy.
func (a *API) requestHeaders(t *delivery.Attempt, o *delivery.Outbound) []delivery.Header {
	numbered := *o
	numbered.Attempt = t.Number
	return a.RequestHeaders(&numbered, t.Signatures, t.Request.Headers)
}

func headers(list []delivery.Header) []rest.Header {
	shown := make([]rest.Header, len(list))
	for i, h := range list {
		shown[i] = rest.Header(h)
	}
	return shown
}

// excerpt is body as a JSON text, in base64 if it is not UTF-8. The end of a
// truncated one may have cut a character in two, which alone makes no text
// binary.
func excerpt(body []byte, truncated bool) (text, encoding string) {
	if utf8.Valid(body) {
		return string(body), "utf-8"
	}
	if truncated {
		for cut := 1; cut < utf8.UTFMax && cut < len(body); cut++ {
			end := len(body) - cut
			if utf8.RuneStart(body[end]) && !utf8.FullRune(body[end:]) && utf8.Valid(body[:end]) {
				return string(body[:end]), "utf-8"
			}
		}
	}
	return base64.StdEncoding.EncodeToString(body), "base64"
}
