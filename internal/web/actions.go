package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// back goes on to another page, which says how the action went.
func (s *Server) back(w http.ResponseWriter, r *http.Request, in *visit, to, done string, err error) {
	f := flash{Text: done}
	if err != nil {
		refused, ok := errors.AsType[*adminclient.Error](err)
		if !ok {
			s.failed(w, r, err)
			return
		}
		f = flash{Text: "That did not work: " + refused.Message, Bad: true}
	}
	s.sessions.tell(in.session, f)
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func pathOf(kind, id string) string { return "/" + kind + "/" + url.PathEscape(id) }

// postTest shows the attempt that it made. A test is not in the log, so there is no other
// page that could.
func (s *Server) postTest(w http.ResponseWriter, r *http.Request, in *visit) {
	id := r.PathValue("id")
	// It may take as long as the webhook's timeout.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(maxTest))
	result, err := s.client.Test(r.Context(), id, rest.TestRequest{Event: r.PostForm.Get("event")})
	if err != nil {
		s.back(w, r, in, pathOf("webhooks", id), "", err)
		return
	}
	s.complete(w, r, in.session, page{Title: "Test of " + result.Webhook, Area: "overview", Body: result})
}

func (s *Server) postEnable(active bool) func(http.ResponseWriter, *http.Request, *visit) {
	return func(w http.ResponseWriter, r *http.Request, in *visit) {
		id := r.PathValue("id")
		changed, err := s.client.ChangeWebhook(r.Context(), id, rest.WebhookChange{Active: &active})
		done := "Disabled: what waits is held, and new events are skipped. Nothing that was accepted is lost."
		if active {
			done = "Enabled: deliveries go on."
		}
		if changed.File != "" {
			done += " Written to " + changed.File + "."
		}
		s.back(w, r, in, pathOf("webhooks", id), done, err)
	}
}

func (s *Server) postRetry(w http.ResponseWriter, r *http.Request, in *visit) {
	id := r.PathValue("id")
	_, err := s.client.Retry(r.Context(), id)
	s.back(w, r, in, pathOf("deliveries", id), "It is due now, with the same id and the same bytes.", err)
}

// postDiscard goes back to the webhook: a failed delivery has left the log then.
func (s *Server) postDiscard(w http.ResponseWriter, r *http.Request, in *visit) {
	id := r.PathValue("id")
	before, err := s.client.Drop(r.Context(), id)
	if err != nil {
		s.back(w, r, in, pathOf("deliveries", id), "", err)
		return
	}
	done := "Delivery " + before.ID + " was discarded: it counts as failed and is not sent any more."
	if before.Status == rest.StatusFailed {
		done = "Delivery " + before.ID + " was taken out of the log."
	}
	s.back(w, r, in, pathOf("webhooks", before.Webhook), done, nil)
}

// previewPage is what a replay would put back, and the form that does it.
type previewPage struct {
	rest.Replay
	Request rest.ReplayRequest
}

// postReplay counts first; the page of that has the form with go=1.
func (s *Server) postReplay(w http.ResponseWriter, r *http.Request, in *visit) {
	id := r.PathValue("id")
	request := rest.ReplayRequest{Since: strings.TrimSpace(r.PostForm.Get("since")), Until: strings.TrimSpace(r.PostForm.Get("until")),
		Status: r.PostForm.Get("status"), Event: r.PostForm.Get("event"), DryRun: r.PostForm.Get("go") == ""}
	if rate := strings.TrimSpace(r.PostForm.Get("rate")); rate != "" {
		var err error
		if request.Rate, err = strconv.ParseFloat(rate, 64); err != nil {
			s.back(w, r, in, pathOf("webhooks", id), "", &adminclient.Error{Message: fmt.Sprintf("%q is not a number of deliveries a second", clip(rate, 40))})
			return
		}
	}
	replay, err := s.client.Replay(r.Context(), id, request)
	switch {
	case err != nil:
		s.back(w, r, in, pathOf("webhooks", id), "", err)
	case request.DryRun:
		s.complete(w, r, in.session, page{Title: "Replay of " + replay.Webhook, Area: "overview", Body: previewPage{replay, request}})
	default:
		s.back(w, r, in, "/replays", "The replay "+replay.ID+" has begun. It goes on after a restart.", nil)
	}
}

func (s *Server) postCancel(w http.ResponseWriter, r *http.Request, in *visit) {
	_, err := s.client.CancelReplay(r.Context(), r.PathValue("id"))
	s.back(w, r, in, "/replays", "The replay was cancelled; what it had put back stays.", err)
}

func (s *Server) postReload(w http.ResponseWriter, r *http.Request, in *visit) {
	result, err := s.client.Reload(r.Context())
	done := "The files say what runs already."
	switch result.Result {
	case rest.ReloadApplied:
		done = fmt.Sprintf("The files were applied: configuration %d runs.", result.Generation)
	case rest.ReloadRejected:
		err = &adminclient.Error{Message: "the files have errors, so what ran goes on"}
	}
	s.back(w, r, in, "/configuration", done, err)
}
