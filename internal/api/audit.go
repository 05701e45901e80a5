package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	// progressEvery is how often an audit says how far it is.
	progressEvery = 500 * time.Millisecond
	// maxAuditIDs bounds the look-ups of one request.
	maxAuditIDs = 1000
)

// whole serves a read of the whole store, which there is one of at a time and which
// ends with the server. Its document is of the given type. read returns nil once it has
// told of an error itself.
func (a *API) whole(w http.ResponseWriter, r *http.Request, kind string, read func(ctx context.Context, out *bodyWriter) error) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	select {
	case a.wholes <- struct{}{}:
	default:
		return nil, fail(http.StatusTooManyRequests, rest.CodeTooMany, "", "an audit or a backup is under way; try again when it is done")
	}
	defer func() { <-a.wholes }()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(a.ending, cancel)()
	out := &bodyWriter{w: w, kind: kind}
	if r.Method == http.MethodHead {
		out.begin()
		return nil, nil
	}
	if err := read(ctx, out); err != nil {
		return nil, aborted(err)
	}
	return nil, nil
}

// getAudit answers with lines of JSON: how far it is, twice a second, and then what it
// found.
func (a *API) getAudit(w http.ResponseWriter, r *http.Request) (any, error) {
	return a.whole(w, r, "application/x-ndjson", func(ctx context.Context, out *bodyWriter) error {
		ctx, giveUp := context.WithCancelCause(ctx)
		defer giveUp(nil)
		last := time.Now()
		found, err := a.Store.Audit(ctx, func(p queue.AuditProgress) {
			if now := time.Now(); now.Sub(last) >= progressEvery {
				last = now
				if err := out.line(rest.AuditLine{Progress: &rest.AuditProgress{Events: p.Events, Of: p.Of, Rows: p.Rows}}); err != nil {
					giveUp(err)
				}
			}
		})
		end := rest.AuditLine{}
		switch {
		case err == nil:
			end.Audit = a.audit(&found)
		case !out.begun:
			return err
		default:
			end.Error = &a.classify(r, aborted(err)).body
		}
		_ = out.line(end) // a client that has gone does not ask
		return nil
	})
}

// aborted words what ends a read of the whole store.
func aborted(err error) error {
	if short, ok := errors.AsType[*queue.SpaceError](err); ok {
		return fail(http.StatusInsufficientStorage, rest.CodeNoSpace, "", "given up, because the disk must not fill up meanwhile: %v", short)
	}
	if errors.Is(err, context.Canceled) {
		return fail(http.StatusServiceUnavailable, rest.CodeUnavailable, "", "given up: the daemon is ending, or the client has gone")
	}
	return err
}

func (a *API) audit(found *queue.Audit) *rest.Audit {
	out := &rest.Audit{At: rest.At(found.At), StoreID: storeName(found.Store), OK: found.Wrong == 0, Rows: found.Rows, Wrong: found.Wrong,
		Events:  rest.AuditEvents{Accepted: found.Events, Kept: found.EventsKept, Forgotten: found.EventsForgotten, Lost: found.EventsLost},
		Pending: []rest.AuditPending{}, Webhooks: []rest.AuditWebhook{}, Problems: []rest.AuditProblem{}}
	out.Deliveries.Accepted = found.Deliveries
	for _, l := range found.Lanes {
		hold := string(a.Dispatcher.LaneState(l.Lane).Hold)
		c := rest.AuditCounts{Accepted: l.Pending + l.Success + l.Failed, Pending: l.Pending, Success: l.Success, Failed: l.Failed,
			InLog: l.Delivered + l.Refused, SetAside: l.SetAside, Removed: l.Removed, Forgotten: l.Forgotten}
		out.Webhooks = append(out.Webhooks, rest.AuditWebhook{Webhook: l.Webhook, HeldReason: hold, Deliveries: c})
		sum := &out.Deliveries
		sum.Pending, sum.Success, sum.Failed = sum.Pending+c.Pending, sum.Success+c.Success, sum.Failed+c.Failed
		sum.InLog, sum.SetAside, sum.Removed, sum.Forgotten = sum.InLog+c.InLog, sum.SetAside+c.SetAside, sum.Removed+c.Removed, sum.Forgotten+c.Forgotten
		if l.Pending == 0 {
			continue
		}
		at := 0
		for at < len(out.Pending) && out.Pending[at].HeldReason != hold {
			at++
		}
		if at == len(out.Pending) {
			out.Pending = append(out.Pending, rest.AuditPending{HeldReason: hold})
		}
		out.Pending[at].Count += l.Pending
	}
	for _, p := range found.Problems {
		out.Problems = append(out.Problems, rest.AuditProblem{ID: p.ID, What: p.What})
	}
	return out
}

// postAuditEvents says what became of events that a sender believes accepted.
func (a *API) postAuditEvents(w http.ResponseWriter, r *http.Request) (any, error) {
	var in rest.AuditIDs
	if err := decode(w, r, &in, "ids"); err != nil {
		return nil, err
	}
	if len(in.IDs) > maxAuditIDs {
		return nil, bad("ids", "%d ids; at most %d are looked up at once", len(in.IDs), maxAuditIDs)
	}
	found, err := a.Store.Account(in.IDs)
	if err != nil {
		return nil, err
	}
	out := rest.AuditAccounts{Events: []rest.AuditAccount{}}
	for _, e := range found {
		out.Events = append(out.Events, rest.AuditAccount{ID: e.ID, Known: e.Known, Forgotten: e.Forgotten,
			Pending: e.Pending, Success: e.Success, Failed: e.Failed, Gone: e.Gone})
	}
	return out, nil
}

// getBackup streams the whole store. Once it has begun an error can only be told by
// ending the connection: what has no footer is no backup.
func (a *API) getBackup(w http.ResponseWriter, r *http.Request) (any, error) {
	return a.whole(w, r, "application/octet-stream", func(ctx context.Context, out *bodyWriter) error {
		f, err := a.Store.Backup(ctx, out, a.Status().Version)
		if err != nil && out.begun {
			a.Logger.Warn("a backup was given up", "err", err)
			panic(http.ErrAbortHandler)
		}
		if err == nil {
			a.Logger.Info("a backup was made", "rows", f.Rows, "bytes", f.Bytes, "events", f.Events, "damaged", f.Damaged)
		}
		return err
	})
}

// bodyWriter gives the client a new deadline for each write.
type bodyWriter struct {
	w     http.ResponseWriter
	kind  string // Content-Type
	begun bool
}

func (b *bodyWriter) begin() {
	h := b.w.Header()
	h.Set("Content-Type", b.kind)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	b.begun = true
}

func (b *bodyWriter) Write(p []byte) (int, error) {
	if !b.begun {
		b.begin()
	}
	deadline(b.w)
	return b.w.Write(p)
}

// line writes a document as one line, and sends it at once.
func (b *bodyWriter) line(document any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(document); err != nil {
		return err
	}
	if _, err := b.Write(line.Bytes()); err != nil {
		return err
	}
	return http.NewResponseController(b.w).Flush()
}
