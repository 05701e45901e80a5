package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// Codes of refusals, beside those of package event. They are part of the
// answers and never change.
const (
	CodeBadKey       = "bad_idempotency_key"    // 400: the Idempotency-Key header is not one key
	CodeIncomplete   = "incomplete_body"        // 400: the body ended before its announced end, or its framing is broken
	CodePeer         = "peer_not_allowed"       // 403
	CodeNotFound     = "not_found"              // 404
	CodeMethod       = "method_not_allowed"     // 405
	CodeTimeout      = "timeout"                // 408: no byte for the stall timeout
	CodeConflict     = "idempotency_conflict"   // 409: the key came with another event before
	CodeTooLarge     = "too_large"              // 413
	CodeMediaType    = "unsupported_media_type" // 415
	CodeKeyMismatch  = "idempotency_mismatch"   // 422: header and body name different ids
	CodeQueueFull    = "queue_full"             // 429
	CodeQueueStopped = "queue_stopped"          // 503: storage error, the daemon restarts
	CodeUnavailable  = "unavailable"            // 503: the queue cannot take events for another reason
	CodeClientGone   = "client_gone"            // 503, unseen: the client left before the store was asked
	CodeBusy         = "busy"                   // 503: too many large bodies at once
	CodeTooManyConns = "too_many_connections"   // 503
	CodeShuttingDown = "shutting_down"          // 503
	CodeNoSpace      = "no_space"               // 507
)

// codes lists every code there is, so that each is counted from the start.
func codes() []string {
	return []string{
		event.CodeInvalidJSON, event.CodeInvalidUTF8, event.CodeDuplicateKey, event.CodeTooDeep, event.CodeUnknownField, event.CodeMissingField, event.CodeWrongType, event.CodeTooLong, event.CodeBadID, event.CodeBadTime, event.CodeUnknownEvent, event.CodeFieldType, event.CodeUnknownHelper,
		CodeBadKey, CodeIncomplete, CodePeer, CodeNotFound, CodeMethod, CodeTimeout, CodeConflict, CodeTooLarge, CodeMediaType, CodeKeyMismatch, CodeQueueFull, CodeQueueStopped, CodeUnavailable, CodeClientGone, CodeBusy, CodeTooManyConns, CodeShuttingDown, CodeNoSpace,
	}
}

// How long to wait before trying again, in seconds.
const (
	retryQuota   = 5  // deliveries must drain
	retrySpace   = 10 // somebody must free space
	retryRestart = 5  // the supervisor restarts the daemon
	retryBusy    = 1
)

// failure is why an event, or a whole request, was refused.
type failure struct {
	status     int
	code       string
	message    string
	field      string
	offset     int64 // -1 = none
	retryAfter int   // seconds; 0 = do not repeat unchanged
}

func fail(status int, code, format string, args ...any) *failure {
	return &failure{status: status, code: code, message: fmt.Sprintf(format, args...), offset: -1}
}

func (f *failure) of(field string) *failure {
	f.field = field
	return f
}

func (f *failure) after(seconds int) *failure {
	f.retryAfter = seconds
	return f
}

// ofEvent turns what package event found into an answer.
func ofEvent(err error) *failure {
	e, ok := errors.AsType[*event.Error](err)
	if !ok {
		return fail(http.StatusBadRequest, event.CodeInvalidJSON, "%v", err)
	}
	return &failure{status: e.Status, code: e.Code, message: e.Message, field: e.Field, offset: e.Offset}
}

// ofQueue turns an error of the gate or the store into an answer.
func ofQueue(err error) *failure {
	if q, ok := errors.AsType[*queue.QuotaError](err); ok {
		return fail(http.StatusTooManyRequests, CodeQueueFull,
			"%v; nothing of this event was taken; try again when deliveries have drained", q).after(retryQuota)
	}
	if sp, ok := errors.AsType[*queue.SpaceError](err); ok {
		return fail(http.StatusInsufficientStorage, CodeNoSpace, "%v; nothing of this event was taken; events are taken again as soon as there is room", sp).after(retrySpace)
	}
	switch {
	case errors.Is(err, queue.ErrKeyReused):
		return fail(http.StatusConflict, CodeConflict,
			"this id or Idempotency-Key came with another event in the last 24 hours; a repeat must say the same, another event needs another id").of("id")
	case errors.Is(err, queue.ErrStopped):
		return fail(http.StatusServiceUnavailable, CodeQueueStopped,
			"the queue stopped before it could say whether this event is on disk; send it again with the same id when the daemon is back").after(retryRestart)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fail(http.StatusServiceUnavailable, CodeClientGone, "the client left; nothing of this event was taken")
	}
	return fail(http.StatusServiceUnavailable, CodeUnavailable, "the queue takes no events: %v", err).after(retryRestart)
}

func shuttingDown() *failure {
	return fail(http.StatusServiceUnavailable, CodeShuttingDown,
		"the daemon is stopping; nothing of this was taken; try again when it is back").after(retryRestart)
}

func tooLarge(what string, limit int64) *failure {
	return fail(http.StatusRequestEntityTooLarge, CodeTooLarge,
		"%s is larger than %d bytes (listen.max_event_bytes)", what, limit)
}
