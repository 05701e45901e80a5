package relay

import (
	"context"
	"encoding/json"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/ingest"
	"github.com/peanutsapp/peanuts-relay/internal/notice"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// noticeTypes are the types of the events about the relay itself, by [notice.Kind].
// Each is the id of the webhook that gets it, too.
func noticeTypes() (types [3]string) {
	types[notice.Failing] = config.NoticeFailing
	types[notice.Recovered] = config.NoticeRecovered
	types[notice.Delivery] = config.NoticeDelivery
	return types
}

// ownHelper is the helper of those events. It is in no catalog of the events socket.
func ownHelper() *ingest.Helper {
	types := noticeTypes()
	return &ingest.Helper{Helper: event.Helper{ID: config.NoticeHelper, Name: "Peanuts Relay", Events: types[:]}}
}

// noticeTargets says what is watched, and who is told.
func (s *snapshot) noticeTargets() notice.Targets {
	t := notice.Targets{Webhooks: map[queue.Lane]string{}}
	types := noticeTypes()
	for _, w := range s.webhooks {
		if w.Helper.ID != config.NoticeHelper {
			t.Webhooks[w.lane] = w.ID
			continue
		}
		for kind, typ := range types {
			if w.ID == typ && w.Enabled {
				t.Told[kind] = w.lane
			}
		}
	}
	return t
}

func (r *relay) newNotices() *notice.Watch {
	return notice.New(notice.Options{Accept: r.acceptNotice, List: r.store.List, Logger: r.log, Now: time.Now})
}

// rebuildNotices learns what an earlier life of the process knew, before the first
// attempt of this one.
func (r *relay) rebuildNotices() {
	if err := r.notices.Rebuild(noticeTypes()); err != nil {
		r.log.Warn("what was told of failing webhooks before the start is not known", "err", err)
	}
}

// noticeData is the entry of an event about the relay itself. Its keys are in the
// order in which they are sent.
type noticeData struct {
	Webhook        string     `json:"webhook"`
	Helper         string     `json:"helper"`
	Since          *rest.Time `json:"since,omitempty"`             // Failing
	InARow         int        `json:"failed_deliveries,omitempty"` // Failing: in a row
	Attempts       int        `json:"failed_attempts,omitempty"`   // Failing: since the last success
	Pending        int64      `json:"pending"`                     // deliveries that wait
	DeliveryID     string     `json:"delivery_id,omitempty"`
	EventID        string     `json:"event_id,omitempty"`
	Event          string     `json:"event,omitempty"`
	EntryID        string     `json:"entry_id,omitempty"`
	DeliveryTries  int        `json:"attempts,omitempty"`
	StatusCode     int        `json:"status_code,omitempty"`
	Code           string     `json:"code,omitempty"`
	Error          string     `json:"error,omitempty"`
	OthersSinceNow *int64     `json:"others_failed,omitempty"` // Delivery: since the last notice
}

// acceptNotice makes an event of a notice and has the queue accept it, as it does
// with those of senders. The queue's own idempotency keys see to it that a notice is
// told once, over restarts too.
func (r *relay) acceptNotice(ctx context.Context, n notice.Notice) (told bool, err error) {
	snap := r.current.Load()
	typ := noticeTypes()[n.Kind]
	w := snap.webhooks[typ]
	if w == nil || !w.Enabled {
		return false, nil // reloaded meanwhile
	}
	data, entry := r.noticeData(snap, &n)
	body, err := json.Marshal(map[string]any{"event": typ, "helper": config.NoticeHelper, "entry": map[string]any{"id": entry, "data": data}})
	if err != nil {
		return false, err
	}
	now := n.At.UTC().Truncate(time.Millisecond)
	in, err := event.Read(body, now, &ingest.Catalog{Helpers: map[string]*ingest.Helper{config.NoticeHelper: snap.own}})
	if err != nil {
		return false, err
	}
	ev := &queue.Event{IdempotencyKey: n.Key, Helper: config.NoticeHelper, Type: typ, EntryID: in.EntryID, Timestamp: now,
		Deliveries: []queue.NewDelivery{{Lane: w.lane, Format: queue.Format(w.PayloadFormat())}}}
	ev.Payloads[queue.FormatEvent], ev.IDAt = event.Encode(nil, in, &snap.own.Helper, w.PayloadFormat(), "")
	if err := r.store.Accept(ctx, []*queue.Event{ev}); err != nil {
		return false, err
	}
	if ev.Err == nil && !ev.Duplicate {
		r.log.Info("webhook is told about the relay itself", "webhook", typ, "about", n.Webhook, "event_id", ev.ID)
	}
	return ev.Err == nil && !ev.Duplicate, ev.Err
}

// noticeData is what a notice says, and the id of the entry that it is about.
func (r *relay) noticeData(snap *snapshot, n *notice.Notice) (data noticeData, entry string) {
	data = noticeData{Webhook: n.Webhook}
	if w := snap.webhooks[n.Webhook]; w != nil {
		data.Helper = w.Helper.ID
	}
	for lane, stats := range r.store.Lanes() {
		if lane == n.Lane {
			data.Pending = stats.Pending()
		}
	}
	entry = n.Webhook
	if n.Kind == notice.Failing {
		data.InARow, data.Attempts = n.InARow, n.Attempts
		if !n.Since.IsZero() {
			data.Since = new(rest.At(n.Since))
		}
	}
	if n.Seq == 0 {
		return data, entry
	}
	row, err := r.store.Summary(n.Lane, n.Seq)
	if err != nil {
		return data, entry // dropped meanwhile
	}
	data.DeliveryID, data.EventID, data.Event, data.EntryID = row.ID, row.EventID, row.EventType, row.EntryID
	data.DeliveryTries, data.StatusCode = row.Attempts, row.StatusCode
	if n.Kind != notice.Recovered {
		data.Code, data.Error = string(row.Code), row.Error
	}
	if n.Kind == notice.Delivery {
		data.OthersSinceNow = &n.Others
		entry = row.ID
	}
	return data, entry
}
