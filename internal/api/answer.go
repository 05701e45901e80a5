package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// writeTimeout is how long a client may take to read one answer, or one event
// of the stream.
const writeTimeout = 30 * time.Second

// failure is an error with its place in HTTP.
type failure struct {
	status int
	body   rest.ErrorBody
}

func (f *failure) Error() string { return f.body.Message }

// fail returns a *failure; field "" is none.
func fail(status int, code, field, format string, args ...any) error {
	return &failure{status, rest.ErrorBody{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}}
}

// bad is the answer to a request that cannot be understood.
func bad(field, format string, args ...any) error {
	return fail(http.StatusBadRequest, rest.CodeBadRequest, field, format, args...)
}

// withStatus marks a document that is answered with another status than 200.
type withStatus struct {
	status   int
	document any
}

// answer turns an endpoint's result into a response. limit bounds the body.
func (a *API) answer(limit int64, serve func(http.ResponseWriter, *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		document, err := serve(w, r)
		status := http.StatusOK
		if s, ok := document.(withStatus); ok {
			status, document = s.status, s.document
		}
		if err != nil {
			f := a.classify(r, err)
			status, document = f.status, rest.Error{Error: f.body}
		}
		if document == nil {
			return
		}
		a.write(w, r, status, document)
	})
}

func (a *API) write(w http.ResponseWriter, r *http.Request, status int, document any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(document); err != nil {
		a.Logger.Error("admin answer cannot be encoded", "route", r.Pattern, "err", err)
		http.Error(w, `{"error":{"code":"internal","message":"the answer cannot be encoded","field":""}}`, http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	deadline(w)
	w.WriteHeader(status)
	// The client has gone when this fails; there is nobody left to tell.
	_, _ = w.Write(body.Bytes())
}

// classify gives errors of the store and the dispatcher their place in HTTP.
func (a *API) classify(r *http.Request, err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if refused, ok := errors.AsType[*Refusal](err); ok {
		return &failure{refused.Status, rest.ErrorBody{Code: refused.Code, Message: refused.Message, Field: refused.Field, Findings: refused.Findings}}
	}
	f := &failure{http.StatusInternalServerError, rest.ErrorBody{Code: rest.CodeInternal, Message: err.Error()}}
	switch {
	case errors.Is(err, ErrInFlight):
		f.status, f.body.Code = http.StatusConflict, rest.CodeInFlight
		f.body.Message = "the delivery is being attempted at this moment; try again when the attempt is over"
	case errors.Is(err, queue.ErrPayloadExpired):
		f.status, f.body.Code = http.StatusGone, rest.CodePayloadExpired
		f.body.Message = "the payload is gone: history.payloads and history.failed say how long payloads are kept"
	case errors.Is(err, queue.ErrDelivered):
		f.status, f.body.Code = http.StatusConflict, rest.CodeFinished
	case errors.Is(err, queue.ErrNotFinished):
		f.status, f.body.Code = http.StatusConflict, rest.CodeNotFinished
	case errors.Is(err, queue.ErrNotFound):
		f.status, f.body.Code = http.StatusNotFound, rest.CodeNotFound
	case errors.Is(err, queue.ErrStopped):
		f.status, f.body.Code = http.StatusServiceUnavailable, rest.CodeUnavailable
		f.body.Message = "the store is not open: the daemon is starting or ending, or must be restarted; see /v1/status"
	case r.Context().Err() != nil:
		f.status, f.body.Code = http.StatusServiceUnavailable, rest.CodeUnavailable
	default:
		a.Logger.Error("admin request failed", "route", r.Pattern, "err", err)
	}
	return f
}

// deadline gives the client writeTimeout from now to read what is written. A
// writer that has no deadlines is one of a test, which needs none.
func deadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// guard bounds the time of every request and turns a panic into an answer.
func (a *API) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				a.Logger.Error("admin request panicked", "route", r.Pattern, "panic", fmt.Sprint(p))
				a.write(w, r, http.StatusInternalServerError,
					rest.Error{Error: rest.ErrorBody{Code: rest.CodeInternal, Message: "internal error, see the daemon's log"}})
			}
		}()
		deadline(w)
		if r.ContentLength != 0 {
			// A body that never comes. decode lifts it: a deadline that passes while
			// the handler works would look like a client that has gone.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		next.ServeHTTP(w, r)
	})
}
